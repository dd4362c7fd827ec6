//! `sealrs copy`: from everywhere to everywhere, with skopeo on the other side.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::path::Path;

use sealrs_image::digest::Digest;
use sealrs_image::platform::Platform;
use serde_json::{Value, json};
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, needs, noise, run};

/// What skopeo says with plain HTTP allowed.
fn skopeo(words: &[&str]) -> Vec<u8> {
    run("skopeo", &[&["--insecure-policy"], words].concat())
}

fn raw(place: &str) -> Vec<u8> {
    skopeo(&["inspect", "--raw", "--tls-verify=false", place])
}

fn digest_of(place: &str) -> String {
    Digest::of(&raw(place)).to_string()
}

/// The digests of the unpacked layers, after skopeo has read, and so verified, every blob.
#[track_caller]
fn content(scratch: &Scratch, place: &str, number: usize) -> Value {
    let check = format!("oci:{}:v1", scratch.path(&format!("checks/{number}")));
    std::fs::create_dir_all(scratch.path("checks")).unwrap();
    skopeo(&["copy", "--quiet", "--src-tls-verify=false", place, &check]);
    let config: Value = serde_json::from_slice(&skopeo(&["inspect", "--config", &check])).unwrap();
    config["rootfs"]["diff_ids"].clone()
}

/// A layout `DIR:v1` of these platforms; gives the digest of the image.
fn layout(scratch: &Scratch, folder: &str, platforms: &[&str], seed: u64) -> String {
    let path = scratch.path(folder);
    support::image::layout(
        Path::new(&path),
        "v1",
        platforms,
        &[noise(seed, 300_000), b"x".to_vec()],
    );
    digest_of(&format!("oci:{path}:v1"))
}

#[test]
fn every_kind_of_place_is_read_and_written() {
    needs!("skopeo", "docker-registry");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let host = registry.host();
    let digest = layout(&scratch, "from", &["linux/amd64"], 1);
    // As places of sealrs and of skopeo.
    let here = |place: &str| place.replace("PWD", &scratch.path(""));
    let sources = [
        "oci:PWD/from:v1".to_owned(),
        "oci-archive:PWD/from.tar:v1".to_owned(),
        "docker-archive:PWD/from-docker.tar:example.com/app:v1".to_owned(),
        format!("docker://{host}/edge/app:v1"),
        "oci:PWD/root/store:docker.io/library/app:v1".to_owned(),
    ]
    .map(|place| here(&place));
    let copy = ["copy", "--quiet", "--dest-tls-verify=false", &sources[0]];
    for target in &sources[1..4] {
        skopeo(&[&copy[..], &[target]].concat());
    }
    scratch.ok(&["copy", "oci:from:v1", "app:v1"]);
    let whole = content(&scratch, &sources[0], 0);
    assert_eq!(whole.as_array().unwrap().len(), 2);

    let mut number = 0;
    for source in &sources {
        let from = source.replace(&here("oci:PWD/root/store:"), "");
        for target in [
            "oci:PWD/to:tag-N".to_owned(),
            "oci-archive:PWD/to-N.tar:v1".to_owned(),
            "docker-archive:PWD/to-N-docker.tar:example.com/to:N".to_owned(),
            format!("docker://{host}/to/N:v1"),
            "oci:PWD/root/store:docker.io/library/to:N".to_owned(),
        ] {
            number += 1;
            let target = here(&target).replace("-N", &format!("-{number}"));
            let target = target
                .replace("/N", &format!("/{number}"))
                .replace(":N", &format!(":{number}"));
            let to = target.replace(&here("oci:PWD/root/store:"), "");
            let copied = scratch.json(&["copy", &from, &to]);
            assert_eq!(content(&scratch, &target, number), whole, "{from} {to}");
            // Docker's archives hold another form of the image.
            if from.contains("docker-archive") {
                assert_ne!(copied["digest"], digest.as_str());
            } else {
                assert_eq!(copied["digest"], digest.as_str(), "{from} {to}");
            }
            if !to.contains("docker-archive") {
                assert_eq!(digest_of(&target), copied["digest"].as_str().unwrap(), "{from} {to}");
            }
        }
    }
    assert_eq!(number, 25);
    // What is there is not moved again.
    let again = scratch.json(&["copy", "oci:from:v1", "oci:to:tag-1"]);
    assert_eq!(
        (&again["blobs"], &again["bytes"], &again["skipped"]),
        (&json!(0), &json!(0), &json!(4))
    );
    let keys: Vec<&String> = again.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "blobs",
            "bytes",
            "destination",
            "digest",
            "mounted",
            "skipped",
            "source"
        ]
    );
    // Within a registry it takes the blobs over itself.
    let mounted = scratch.json(&["copy", &sources[3], &format!("docker://{host}/edge/other:v1")]);
    assert_eq!((&mounted["blobs"], &mounted["mounted"]), (&json!(1), &json!(3)));
}

#[test]
fn one_platform_is_taken_or_all() {
    needs!("skopeo", "docker-registry");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let host = registry.host();
    let other = match Platform::host().architecture.as_str() {
        "arm64" => "linux/amd64",
        _ => "linux/arm64",
    };
    let own = Platform::host().to_string();
    let whole = layout(&scratch, "many", &[&own, other, "linux/s390x"], 2);
    let index: Value = serde_json::from_slice(&raw(&format!("oci:{}:v1", scratch.path("many")))).unwrap();
    let digest = |at: usize| index["manifests"][at]["digest"].clone();
    let copy = |more: &[&str], to: &str| scratch.json(&[&["copy", "oci:many:v1", to], more].concat())["digest"].clone();
    let many = format!("docker://{host}/many");
    for (number, to) in ["oci:to:v1", "oci-archive:to-N.tar", &format!("{many}:v1")]
        .into_iter()
        .enumerate()
    {
        let to = |number: usize| to.replace('N', &number.to_string());
        assert_eq!(copy(&[], &to(number)), digest(0), "this host's");
        assert_eq!(copy(&["--platform", other], &to(number + 10)), digest(1));
        assert_eq!(copy(&["--all-platforms"], &to(number + 20)), whole.as_str());
        let platforms = format!("{own},{other}");
        let said = scratch.fails(2, &["copy", "oci:many:v1", &to(number + 30), "--platform", &platforms]);
        assert_has(&said, &["only the store keeps several", "--all-platforms"]);
        let said = scratch.fails(
            3,
            &["copy", "oci:many:v1", &to(number + 30), "--platform", "linux/riscv64"],
        );
        assert_has(&said, &["has no platform linux/riscv64", &own, other, "linux/s390x"]);
    }
    assert_eq!(digest_of(&format!("{many}:v1")), whole);
    assert_eq!(copy(&[], "docker-archive:to.tar"), digest(0));
    let said = scratch.fails(2, &["copy", "--all-platforms", "oci:many:v1", "docker-archive:all.tar"]);
    assert_has(&said, &["a Docker archive holds the image of one platform"]);
    assert!(!scratch.exists("all.tar") && !scratch.exists("to-30.tar") && !scratch.exists("to-31.tar"));

    // The store keeps the index, as `pull` does, and a part of it is not the whole.
    assert_eq!(
        copy(&["--platform", &format!("{own},{other}")], "many:v1"),
        whole.as_str()
    );
    assert_eq!(scratch.json(&["copy", "many:v1", "oci:back:v1"])["digest"], digest(0));
    assert_eq!(
        scratch.json(&["copy", "many:v1", "oci:back:v2", "--platform", other])["digest"],
        digest(1)
    );
    let said = scratch.fails(3, &["copy", "--all-platforms", "many:v1", "oci:back:v3"]);
    assert_has(
        &said,
        &[
            "cannot copy many:v1 to oci:back:v3",
            "linux/s390x is missing",
            "--platform",
        ],
    );

    // An image without an index is what it is.
    let only = layout(&scratch, "only", &[other], 3);
    assert_eq!(
        scratch.json(&["copy", "oci:only", "oci:to:only"])["digest"],
        only.as_str()
    );
    assert_eq!(
        scratch.json(&["copy", "oci:only", "only:v1", "--platform", other])["digest"],
        only.as_str()
    );
    for to in ["oci:to:no", "no:v1", &format!("{many}:no")] {
        let said = scratch.fails(3, &["copy", "oci:only", to, "--platform", &own]);
        assert_has(&said, &[&format!("is for {other}, not for {own}")]);
    }
    scratch.fails(3, &["inspect", "no:v1"]);
}

#[test]
fn nothing_is_lost_that_lay_there() {
    needs!("skopeo");
    let scratch = Scratch::new();
    let one = layout(&scratch, "one", &["linux/amd64"], 4);
    let two = layout(&scratch, "two", &["linux/amd64"], 5);
    // A file only with `--force`.
    for file in ["oci-archive:a.tar", "docker-archive:a.tar:x:1"] {
        scratch.write("a.tar", "precious");
        let said = scratch.fails(8, &["copy", "oci:one", file]);
        assert_has(&said, &["a.tar exists already", "--force"]);
        assert_eq!(scratch.read("a.tar"), b"precious");
        scratch.ok(&["copy", "--force", "oci:one", file]);
        assert!(scratch.read("a.tar").len() > 300_000);
    }
    // A folder that is something else.
    scratch.write("folder/precious", "precious");
    let said = scratch.fails(8, &["copy", "oci:one", "oci:folder:v1"]);
    assert_has(&said, &["neither an image layout nor an empty folder"]);
    assert_eq!(scratch.list("folder"), ["precious"]);
    // Other tags of a layout stay, and an image that loses its tag stays without one.
    scratch.ok(&["copy", "oci:one", "oci:to:v1"]);
    scratch.ok(&["copy", "oci:one", "oci:to:v2"]);
    scratch.ok(&["copy", "oci:two", "oci:to:v1"]);
    scratch.ok(&["copy", "oci:two", "oci:to:v2"]);
    let index: Value = serde_json::from_slice(&scratch.read("to/index.json")).unwrap();
    let listed: Vec<(&Value, &Value)> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| {
            (
                &image["annotations"]["org.opencontainers.image.ref.name"],
                &image["digest"],
            )
        })
        .collect();
    let (one, two) = (json!(one), json!(two));
    assert_eq!(
        listed,
        [(&json!("v1"), &two), (&json!("v2"), &two), (&Value::Null, &one)]
    );
    let said = scratch.fails(2, &["copy", "oci:to", "oci:other"]);
    assert_has(&said, &["holds 3 images", "v1, v2"]);
    let said = scratch.fails(3, &["copy", "oci:to:v3", "oci:other"]);
    assert_has(&said, &["holds no image `v3`", "v1, v2"]);
    // Whoever touches no store makes none.
    assert!(!scratch.exists("root") && !scratch.exists("other"));
}

#[test]
fn names_are_found_as_they_stand_there_or_short() {
    needs!("skopeo");
    let scratch = Scratch::new();
    let digest = layout(&scratch, "from", &["linux/amd64"], 6);
    let name = "docker.io/library/app:v1";
    for (number, to) in ["oci-archive:a.tar", "oci:a"].into_iter().enumerate() {
        scratch.ok(&["copy", "oci:from", &format!("{to}:{name}")]);
        for tag in [name, "app:v1"] {
            let copied = scratch.json(&["copy", &format!("{to}:{tag}"), &format!("oci:b{number}")]);
            assert_eq!(copied["digest"], digest.as_str());
        }
        let said = scratch.fails(3, &["copy", &format!("{to}:app:v2"), "oci:c"]);
        assert_has(&said, &["holds no image `app:v2`", name]);
    }
    // As `save` and `load` have it.
    assert_eq!(scratch.json(&["load", "-i", "a.tar"])[0]["names"], json!(["app:v1"]));
    scratch.ok(&["copy", "oci:from", "docker-archive:d.tar:app:v3"]);
    assert_eq!(scratch.json(&["load", "-i", "d.tar"])[0]["names"], json!(["app:v3"]));
    // A bare tag is one for skopeo too, and no name for `load`.
    scratch.ok(&["copy", "oci:from", "oci-archive:e.tar:v1"]);
    assert_eq!(digest_of(&format!("oci-archive:{}:v1", scratch.path("e.tar"))), digest);
    assert_eq!(scratch.json(&["load", "-i", "e.tar"])[0]["names"], json!([]));
    for (places, said) in [
        (
            ["docker-daemon:app:v1", "oci:x"],
            "`docker-daemon:` is no kind of place",
        ),
        (["a.tar", "oci:x"], "oci-archive:a.tar"),
        (["app:v1", "./x"], "oci:./x"),
        (["oci:from", "app@sha256:00"], "is not an image reference"),
        (["oci:from", "docker://localhost:1/UPPER"], "is not an image reference"),
    ] {
        let error = scratch.fails(2, &["copy", places[0], places[1]]);
        assert_has(&error, &[said]);
    }
    let pinned = format!("app@{digest}");
    let error = scratch.fails(2, &["copy", "oci:from", &pinned]);
    assert_has(&error, &["can't be given: it has a digest"]);
    let error = scratch.fails(3, &["copy", "nothing:v1", "oci:x"]);
    assert_has(&error, &["there is no image nothing:v1 in the store"]);
    assert!(!scratch.exists("x"));
}

/// What the archive lacks comes out of the store.
#[test]
fn an_archive_with_only_what_is_new_is_copied_whole() {
    let scratch = Scratch::new();
    scratch.write("context/a", noise(7, 400_000));
    scratch.write("context/b", "b");
    scratch.build("app:v1", "FROM scratch\nCOPY a /\n", &[]);
    let built = scratch.build("app:v2", "FROM scratch\nCOPY a /\nCOPY b /\n", &[]);
    scratch.ok(&["save", "app:v2", "-o", "new.tar", "--since", "app:v1"]);
    let copied = scratch.json(&["copy", "oci-archive:new.tar", "oci:whole:v2"]);
    assert_eq!(
        (&copied["digest"], &copied["blobs"]),
        (&json!(built.digest()), &json!(4))
    );
    let said = scratch.fails(3, &["--root", "empty", "copy", "oci-archive:new.tar", "oci:other"]);
    assert_has(&said, &["needs the image app:v1"]);
    assert!(!scratch.exists("other") && !scratch.exists("empty"));
}
