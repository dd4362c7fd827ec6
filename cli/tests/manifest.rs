//! `sealrs manifest`: images of one platform each under one name, from the store and from registries.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use sealrs_image::digest::Digest;
use serde_json::{Value, json};
use support::registry::{Registry, Setup};
use support::{Running, Scratch, assert_has, needs, noise};

/// An image of one platform; gives its digest.
fn image(scratch: &Scratch, name: &str, platform: &str, content: &str) -> String {
    scratch.write("context/shared", noise(1, 300_000));
    let kubefile = format!("FROM scratch\nCOPY shared /\nCOPY <<own .\n{content}\nown\n");
    let built = scratch.build(name, &kubefile, &["--platform", platform]);
    built.digest().to_owned()
}

/// Platforms with their digests, as a command told them or as the index has them.
fn platforms(result: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let members = result["platforms"].as_array().unwrap().iter();
    members
        .map(|member| (text(&member["platform"]), text(&member["digest"])))
        .collect()
}

fn pair(platform: &str, digest: &str) -> (String, String) {
    (platform.to_owned(), digest.to_owned())
}

#[test]
fn an_index_is_made_changed_and_shown() {
    let scratch = Scratch::new();
    let amd = image(&scratch, "amd:1", "linux/amd64", "amd");
    let arm = image(&scratch, "arm:1", "linux/arm64", "arm");
    let newer = image(&scratch, "arm:2", "linux/arm64", "newer");

    let created = scratch.json(&["manifest", "create", "many:1", "arm:1", &amd[7..19]]);
    assert_eq!(created["name"], "many:1");
    let digest = created["digest"].as_str().unwrap();
    let pinned = format!("many:1@{digest}");
    for (command, what) in [("remove", "linux/arm64"), ("add", "arm:1")] {
        let said = scratch.fails(2, &["manifest", command, &pinned, what]);
        assert_has(&said, &["can't be given: it has a digest"]);
    }
    scratch.write("named/Kubefile", b"FROM scratch\n");
    let folder = scratch.path("named");
    for command in [
        &["build", "-t", &pinned, &folder][..],
        &["merge", "arm:1", "amd:1", "-t", &pinned],
    ] {
        let said = scratch.fails(2, command);
        assert_has(&said, &["can't be given: it has a digest"]);
    }
    assert_eq!(
        platforms(&created),
        [pair("linux/amd64", &amd), pair("linux/arm64", &arm)]
    );
    // It tells of the images alone: whenever it is made, it is the same.
    let inspected = scratch.json(&["manifest", "inspect", "many:1"]);
    assert_eq!(inspected["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(
        (
            &inspected["schemaVersion"],
            inspected["manifests"].as_array().unwrap().len()
        ),
        (&json!(2), 2)
    );
    assert_eq!(
        inspected["manifests"][1]["platform"],
        json!({"os": "linux", "architecture": "arm64"})
    );
    assert_eq!(inspected["manifests"][1]["digest"], arm);
    assert!(inspected["manifests"][1]["annotations"].is_null(), "{inspected}");
    assert_eq!(
        scratch.json(&["inspect", "many:1", "--platform", "linux/arm64"])["digest"],
        arm
    );
    scratch.ok(&["save", "many:1", "-o", "many.tar"]);
    assert_eq!(scratch.json(&["manifest", "inspect", "many.tar"]), inspected);

    // The new one of a platform takes the place of the old one.
    let changed = scratch.json(&["manifest", "add", "many:1", "arm:2"]);
    assert_eq!(
        platforms(&changed),
        [pair("linux/amd64", &amd), pair("linux/arm64", &newer)]
    );
    assert_eq!(changed["removed"], json!([{"platform": "linux/arm64", "digest": arm}]));
    assert_has(
        &scratch.ok(&["manifest", "add", "many:1", "arm:1"]),
        &["changed many:1 sha256:", "taken out"],
    );
    assert_eq!(scratch.json(&["images"]).as_array().unwrap().len(), 4);

    // Out again: by platform, by the start of a digest.
    let changed = scratch.json(&["manifest", "remove", "many:1", "linux/arm64"]);
    assert_eq!(platforms(&changed), [pair("linux/amd64", &amd)]);
    assert_eq!(changed["removed"], json!([{"platform": "linux/arm64", "digest": arm}]));
    let said = scratch.fails(3, &["manifest", "remove", "many:1", "linux/arm64"]);
    assert_has(&said, &["many:1 has no member linux/arm64", &amd]);
    scratch.ok(&["manifest", "remove", "many:1", &amd[..20]]);
    assert_eq!(scratch.json(&["manifest", "inspect", "many:1"])["manifests"], json!([]));
    let said = scratch.fails(2, &["manifest", "push", "many:1"]);
    assert_has(&said, &["is empty", "sealrs manifest add many:1"]);

    // An index brings all that it has, or what is asked for.
    scratch.json(&["manifest", "create", "both:1", "amd:1", "arm:1"]);
    let added = scratch.json(&["manifest", "add", "many:1", "both:1", "--platform", "linux/arm64"]);
    assert_eq!(platforms(&added), [pair("linux/arm64", &arm)]);
    let added = scratch.json(&["manifest", "add", "many:1", "both:1"]);
    assert_eq!(added["digest"], created["digest"]);

    // What does not go leaves everything as it was.
    let before = scratch.json(&["images"]);
    for (code, arguments, words) in [
        (8, &["create", "many:1"][..], &["many:1", "sealrs manifest add"][..]),
        (8, &["create", "amd:1", "arm:1"], &["amd:1"]),
        (
            2,
            &["create", "new:1", "arm:1", "arm:2"],
            &[&arm, &newer, "linux/arm64"],
        ),
        (2, &["add", "amd:1", "arm:1"], &["is one image", "manifest create"]),
        (2, &["inspect", "amd:1"], &["is one image"]),
        (2, &["remove", "many:1", "x"], &["neither a digest nor a platform"]),
        (
            3,
            &["add", "none:1", "arm:1"],
            &["no image none:1", "sealrs manifest create none:1"],
        ),
    ] {
        let said = scratch.fails(code, &[&["manifest"], arguments].concat());
        assert_has(&said, words);
        assert_eq!(scratch.json(&["images"]), before, "{arguments:?}");
    }

    // The members live as long as the index.
    for name in ["amd:1", "arm:1", "arm:2", "both:1"] {
        scratch.ok(&["rmi", name]);
    }
    scratch.ok(&["prune"]);
    assert_eq!(
        scratch.json(&["images"])[0]["platforms"],
        json!(["linux/amd64", "linux/arm64"])
    );
    scratch.ok(&["verify"]);
    scratch.ok(&["rmi", "many:1"]);
    scratch.ok(&["prune"]);
    assert_eq!(scratch.list("root/store/blobs/sha256"), Vec::<String>::new());
}

#[test]
fn members_come_from_registries_and_go_there_together() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let name = |name: &str| format!("{}/edge/{name}", registry.host());
    let amd = image(&scratch, &name("amd:1"), "linux/amd64", "amd");
    let arm = image(&scratch, &name("arm:1"), "linux/arm64", "arm");
    let both = name("both:1");
    scratch.ok(&["manifest", "create", &both, &name("amd:1"), &name("arm:1")]);
    let pushed = scratch.json(&["manifest", "push", &both]);
    let raw = support::run(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &format!("docker://{both}")],
    );
    assert_eq!(pushed["digest"], Digest::of(&raw).to_string());
    for one in ["amd:1", "arm:1"] {
        scratch.ok(&["push", &name(one)]);
    }

    // Another machine: single ones, and an index whole or in part.
    let other = |arguments: &[&str]| scratch.json(&[&["--root", "other"], arguments].concat());
    let created = other(&["manifest", "create", "mine:1", &name("amd:1")]);
    assert_eq!(platforms(&created), [pair("linux/amd64", &amd)]);
    let added = other(&["manifest", "add", "mine:1", &both, "--platform", "linux/arm64"]);
    assert_eq!(
        platforms(&added),
        [pair("linux/amd64", &amd), pair("linux/arm64", &arm)]
    );
    assert_eq!(added["digest"], pushed["digest"]);
    let whole = other(&["manifest", "create", "whole:1", &both]);
    assert_eq!(whole["digest"], pushed["digest"]);
    let target = name("mine:2");
    let again = other(&["manifest", "push", "mine:1", &target]);
    assert_eq!(again["digest"], pushed["digest"]);
    let said = scratch.fails(3, &["--root", "other", "manifest", "add", "mine:1", &name("none:1")]);
    assert_has(&said, &["none"]);
}

#[test]
fn many_add_at_once() {
    let scratch = Scratch::new();
    let platforms = [
        "linux/amd64",
        "linux/arm64",
        "linux/s390x",
        "linux/ppc64le",
        "linux/riscv64",
    ];
    for (number, platform) in platforms.iter().enumerate() {
        image(&scratch, &format!("one:{number}"), platform, platform);
    }
    scratch.ok(&["manifest", "create", "many:1"]);
    let adding: Vec<Running> = (0..platforms.len())
        .map(|number| Running::start(&mut scratch.sealrs(&["manifest", "add", "many:1", &format!("one:{number}")])))
        .collect();
    for mut add in adding {
        assert!(add.0.wait().unwrap().success());
    }
    let index = scratch.json(&["manifest", "inspect", "many:1"]);
    assert_eq!(index["manifests"].as_array().unwrap().len(), platforms.len());
}
