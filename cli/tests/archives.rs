//! `sealrs save` and `load`: archive files, other tools' and damaged ones among them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::insides::{self, Rootfs};
use support::kills::{RENAMES, killed_at};
use support::{Running, Scratch, assert_has, needs, needs_root, noise, outcome, run, succeed};

/// An image with two layers, one of them larger than a buffer.
fn build(scratch: &Scratch, more: &[&str]) -> String {
    scratch.write("context/large", noise(1, 700_000));
    scratch.write("context/etc/small", "small");
    let _ = std::os::unix::fs::symlink("small", scratch.path("context/etc/link"));
    let kubefile = "FROM scratch\nCOPY large /\nCOPY --chmod=750 etc etc\nCMDS echo hello\n";
    scratch
        .build("example.com/team/app:v1", kubefile, more)
        .digest()
        .to_owned()
}

fn blobs(scratch: &Scratch) -> Vec<String> {
    scratch.list("root/store/blobs/sha256")
}

#[test]
fn a_round_trip_loses_nothing() {
    let scratch = Scratch::new();
    let digest = build(&scratch, &[]);
    let saved = scratch.json(&["save", "example.com/team/app:v1", "-o", "app.tar"]);
    assert_eq!((&saved["digest"], &saved["blobs"]), (&json!(digest), &json!(4)));
    assert_eq!(saved["file"], "app.tar");
    // The same file again, and it is not overwritten by chance.
    scratch.ok(&["save", &digest[7..19], "-o", "again.tar"]);
    scratch.ok(&["save", "example.com/team/app:v1", "-o", "twice.tar"]);
    assert_eq!(scratch.read("app.tar"), scratch.read("twice.tar"));
    scratch.write("precious.tar", "precious");
    let said = scratch.fails(8, &["save", "example.com/team/app:v1", "-o", "precious.tar"]);
    assert_has(&said, &["precious.tar exists already", "--force"]);
    assert_eq!(scratch.read("precious.tar"), b"precious");
    scratch.ok(&["save", "example.com/team/app:v1", "-o", "precious.tar", "--force"]);
    assert_eq!(scratch.read("precious.tar"), scratch.read("app.tar"));
    assert!(!scratch.exists("precious.tar.partial"));

    let other = Scratch::new();
    let archive = scratch.path("app.tar");
    let loaded = other.json(&["load", "-i", &archive]);
    assert_eq!(loaded[0]["names"], json!(["example.com/team/app:v1"]));
    assert_eq!(
        (&loaded[0]["digest"], &loaded[0]["blobs"], &loaded[0]["skipped"]),
        (&json!(digest), &json!(4), &json!(0))
    );
    assert_eq!(blobs(&other), blobs(&scratch));
    let again = other.json(&["load", "-i", &archive]);
    assert_eq!((&again[0]["blobs"], &again[0]["skipped"]), (&json!(0), &json!(4)));
    other.ok(&["save", "example.com/team/app:v1", "-o", "back.tar"]);
    assert_eq!(other.read("back.tar"), scratch.read("app.tar"), "byte for byte");

    // Without a name, and with another one.
    let nameless = Scratch::new();
    let loaded = nameless.json(&["load", "-i", &scratch.path("again.tar")]);
    assert_eq!(loaded[0]["names"], json!([]));
    assert_eq!(nameless.json(&["images"])[0]["name"], json!(null));
    nameless.ok(&["load", "-i", &archive, "-t", "mine:1"]);
    assert_eq!(nameless.json(&["inspect", "mine:1"])["digest"], digest);
    assert_eq!(nameless.json(&["images"]).as_array().unwrap().len(), 1);

    // Inspect reads the file without loading it.
    let fresh = Scratch::new();
    let mut inspected = fresh.json(&["inspect", &archive]);
    assert_eq!(fresh.json(&["images"]), json!([]));
    assert_eq!(inspected, scratch.json(&["inspect", "example.com/team/app:v1"]));
    inspected["name"] = Value::Null;
    assert_eq!(inspected, fresh.json(&["inspect", &scratch.path("again.tar")]));
}

/// What is in a folder, with modes, as `find` tells it.
fn tree(folder: &str) -> String {
    let script =
        r#"cd "$0"; find . -mindepth 1 -printf '%p %y %m %l\n' | sort; find . -type f -exec sha256sum {} + | sort"#;
    support::text(&run("bash", &["-ec", script, folder]))
}

#[test]
fn skopeo_umoci_and_buildah_read_it() {
    needs!("skopeo", "umoci", "buildah");
    needs_root!();
    let scratch = Scratch::new();
    for compression in ["zstd", "gzip", "none"] {
        let folder = Scratch::new();
        let digest = build(&folder, &["--compression", compression]);
        folder.ok(&["save", "example.com/team/app:v1", "-o", "app.tar"]);
        let archive = format!("oci-archive:{}", folder.path("app.tar"));
        let inspected: Value = serde_json::from_slice(&run("skopeo", &["inspect", &archive])).unwrap();
        assert_eq!(inspected["Digest"], digest, "{compression}");
        assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);
        let layout = folder.path("layout");
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--quiet",
                &archive,
                &format!("oci:{layout}:app"),
            ],
        );
        // buildah unpacks all three.
        let storage = [
            "--root",
            &folder.path("b/root"),
            "--runroot",
            &folder.path("b/run"),
            "--storage-driver",
            "vfs",
        ];
        let buildah = |arguments: &[&str]| succeed(scratch.command("buildah").args(storage).args(arguments));
        let container = buildah(&["from", "--quiet", &archive]);
        let mounted = buildah(&["mount", container.trim()]);
        let theirs = tree(mounted.trim());
        assert_has(
            &theirs,
            &[
                "./etc d 750",
                "./etc/small f 750",
                "./etc/link l 777 small",
                "./large f 644",
            ],
        );
        if compression != "zstd" {
            run(
                "umoci",
                &[
                    "raw",
                    "unpack",
                    "--image",
                    &format!("{layout}:app"),
                    &folder.path("unpacked"),
                ],
            );
            assert_eq!(tree(&folder.path("unpacked")), theirs, "{compression}");
        }
        buildah(&["rm", "--all"]);
    }
}

/// A container image that is no ClusterImage can be carried, too.
#[test]
fn archives_of_other_tools_are_loaded() {
    needs!("skopeo", "umoci");
    let scratch = Scratch::new();
    let layout = scratch.path("layout");
    let layer = noise(2, 300_000);
    support::image::layout(
        Path::new(&layout),
        "v1",
        &["linux/amd64"],
        &[layer.clone(), b"x".to_vec()],
    );
    let source = format!("oci:{layout}:v1");
    let copy = |target: String| {
        run("skopeo", &["--insecure-policy", "copy", "--quiet", &source, &target]);
    };
    copy(format!(
        "oci-archive:{}:docker.io/library/app:v1",
        scratch.path("oci.tar")
    ));
    copy(format!("oci-archive:{}", scratch.path("nameless.tar")));
    copy(format!(
        "docker-archive:{}:example.com/app:v2",
        scratch.path("docker.tar")
    ));
    let content = |image: &Value, store: &Scratch| -> Vec<u8> {
        let store = store.path("root/store");
        let manifest = insides::document(Path::new(&store), image);
        let Rootfs(entries) = insides::merged(&insides::layers(Path::new(&store), &manifest));
        match &entries["file-0"].kind {
            insides::Kind::File(content) => content.clone(),
            other => panic!("{other:?}"),
        }
    };
    for (file, name) in [
        ("oci.tar", json!(["app:v1"])),
        ("nameless.tar", json!([])),
        ("docker.tar", json!(["example.com/app:v2"])),
    ] {
        let other = Scratch::new();
        let loaded = other.json(&["load", "-i", &scratch.path(file)]);
        assert_eq!(loaded[0]["names"], name, "{file}");
        assert_eq!(content(&loaded[0]["digest"], &other), layer, "{file}");
        // It has no place where a ClusterImage is wanted, which is said at once.
        let said = succeed_saying(&mut other.sealrs(&["load", "-i", &scratch.path(file)]));
        assert_has(&said, &["is not a ClusterImage: it can be saved, pushed and copied"]);
        let said = other.fails(2, &["inspect", &scratch.path(file)]);
        assert_has(&said, &["is not a ClusterImage", "imageList"]);
        assert_eq!(other.json(&["images"])[0]["runtime"], json!(null));
    }

    // A ClusterImage by way of skopeo keeps its digest.
    let mine = Scratch::new();
    let digest = build(&mine, &[]);
    mine.ok(&["save", "example.com/team/app:v1", "-o", "app.tar"]);
    let (from, to) = (
        format!("oci-archive:{}", mine.path("app.tar")),
        format!("oci-archive:{}:team/app:v9", mine.path("by.tar")),
    );
    run("skopeo", &["--insecure-policy", "copy", "--quiet", &from, &to]);
    let other = Scratch::new();
    let loaded = other.json(&["load", "-i", &mine.path("by.tar")]);
    assert_eq!(
        (&loaded[0]["names"], &loaded[0]["digest"]),
        (&json!(["team/app:v9"]), &json!(digest))
    );
}

#[test]
fn damaged_archives_are_refused_and_leave_nothing() {
    let scratch = Scratch::new();
    build(&scratch, &[]);
    scratch.ok(&["save", "example.com/team/app:v1", "-o", "app.tar"]);
    let whole = scratch.read("app.tar");
    let layer = insides::only_layer_over(&scratch.json(&["inspect", "app.tar"])["manifestv1"], 600_000);
    // Where each file of the archive begins and ends.
    let mut extents = Vec::new();
    for entry in tar::Archive::new(whole.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        extents.push((
            name,
            usize::try_from(entry.raw_file_position()).unwrap(),
            usize::try_from(entry.size()).unwrap(),
        ));
    }
    let start_of_layer = extents.iter().find(|(name, ..)| name.ends_with(&layer[7..])).unwrap().1;

    let mut cases: Vec<(String, Vec<u8>, String)> = Vec::new();
    for (name, start, size) in &extents {
        if *size == 0 {
            continue;
        }
        let mut flipped = whole.clone();
        flipped[start + size / 2] ^= 0x10;
        // A flipped bit of index.json or oci-layout may be harmless or not; of a blob it never is.
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            cases.push((format!("{name} flipped"), flipped, hex.to_owned()));
        }
        cases.push((
            format!("cut in {name}"),
            whole[..start + size / 2].to_vec(),
            "cut.tar".to_owned(),
        ));
    }
    cases.push((
        "cut at a block".to_owned(),
        whole[..start_of_layer + 512].to_vec(),
        layer[7..].to_owned(),
    ));
    cases.push(("empty".to_owned(), Vec::new(), "cut.tar".to_owned()));
    cases.push(("no tar".to_owned(), noise(9, 5000), "cut.tar".to_owned()));
    cases.push((
        "a header flipped".to_owned(),
        {
            let mut flipped = whole.clone();
            flipped[10] ^= 1;
            flipped
        },
        "cut.tar".to_owned(),
    ));
    cases.push((
        "packed".to_owned(),
        zstd::encode_all(whole.as_slice(), 1).unwrap(),
        "unzstd".to_owned(),
    ));
    assert!(cases.len() > 10);
    for (what, bytes, word) in cases {
        let other = Scratch::new();
        other.write("cut.tar", bytes);
        let (code, said) = outcome(&mut other.sealrs(&["load", "-i", "cut.tar"]));
        assert_eq!(code, Some(4), "{what}: {said}");
        assert_has(&said, &["cut.tar", &word]);
        assert_eq!(other.json(&["images"]), json!([]), "{what}");
        other.ok(&["prune"]);
        let is_empty = || blobs(&other).is_empty() && other.partial().is_empty();
        assert!(!other.exists("root/store") || is_empty(), "{what}");
        // The whole one is taken after all.
        fs::write(other.path("cut.tar"), &whole).unwrap();
        other.ok(&["load", "-i", "cut.tar"]);
    }
}

#[test]
fn hostile_archives_are_refused() {
    let scratch = Scratch::new();
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice();
    let digest = sealrs_image::digest::Digest::of(b"x");
    let index = |descriptor: Value| json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let good = json!({"mediaType": media_type, "digest": digest, "size": 1});
    for (what, files, code) in [
        ("no index", vec![("oci-layout", layout.to_vec())], 4),
        (
            "an empty index",
            vec![("index.json", br#"{"schemaVersion":2,"manifests":[]}"#.to_vec())],
            4,
        ),
        ("no JSON", vec![("index.json", b"{".to_vec())], 4),
        (
            "a digest that leads out",
            vec![(
                "index.json",
                index(json!({"mediaType": media_type, "digest": "sha256:../../../etc/passwd", "size": 1})).into_bytes(),
            )],
            4,
        ),
        (
            "a blob that is not there",
            vec![("index.json", index(good.clone()).into_bytes())],
            3,
        ),
        (
            "a blob that is none",
            vec![
                ("index.json", index(good.clone()).into_bytes()),
                (&format!("blobs/sha256/{}", digest.hex()), b"x".to_vec()),
            ],
            4,
        ),
        (
            "a huge document",
            vec![(
                "index.json",
                index(json!({"mediaType": media_type, "digest": digest, "size": 1_u64 << 40})).into_bytes(),
            )],
            4,
        ),
        (
            "an entry twice",
            vec![
                ("index.json", index(good.clone()).into_bytes()),
                ("index.json", b"{}".to_vec()),
            ],
            4,
        ),
    ] {
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, content)| (*name, content.as_slice()))
            .collect();
        scratch.write("bad.tar", insides::tar(&files));
        for command in [&["load", "-i", "bad.tar"][..], &["inspect", "bad.tar"]] {
            let (found, said) = outcome(&mut scratch.sealrs(command));
            assert_eq!(found, Some(code), "{what}: {said}");
            assert_has(&said, &["bad.tar"]);
        }
        assert_eq!(scratch.json(&["images"]), json!([]), "{what}");
    }
    assert_has(&scratch.fails(3, &["load", "-i", "nothing.tar"]), &["nothing.tar"]);
    let (code, said) = outcome(&mut scratch.sealrs(&["load", "-i", "/"]));
    assert!(matches!(code, Some(2 | 4 | 7)), "{code:?} {said}");
}

#[test]
fn two_loads_at_once_and_one_that_was_killed() {
    needs!("strace", "taskset");
    let scratch = Scratch::new();
    let digest = build(&scratch, &[]);
    scratch.ok(&["save", "example.com/team/app:v1", "-o", "app.tar"]);
    let archive = scratch.path("app.tar");

    let both = Scratch::new();
    let start = || Running::start(&mut both.sealrs(&["load", "-i", &archive, "--quiet"]));
    for mut load in [start(), start(), start()] {
        assert!(load.0.wait().unwrap().success());
    }
    assert_eq!(both.json(&["inspect", "example.com/team/app:v1"])["digest"], digest);
    assert!(both.partial().is_empty());

    // Killed at each rename of a blob or a document in turn; then again, to the end.
    let mut killed = 0;
    for call in RENAMES {
        for step in 1..60 {
            let other = Scratch::new();
            if !killed_at(&other, call, step, &["load", "-i", &archive]) {
                break;
            }
            killed += 1;
            other.ok(&["images"]);
            other.ok(&["load", "-i", &archive]);
            assert_eq!(other.json(&["inspect", "example.com/team/app:v1"])["digest"], digest);
            other.ok(&["prune"]);
            assert_eq!(blobs(&other), blobs(&scratch));
            assert!(other.partial().is_empty());
        }
    }
    // Two files of a new store, four blobs, the index.
    assert!((7..20).contains(&killed), "{killed}");

    // A save that is killed leaves no file under the name.
    let save = ["save", "example.com/team/app:v1", "-o", "killed.tar"];
    assert!(killed_at(&scratch, "renameat", 1, &save));
    assert!(!scratch.exists("killed.tar"));
    scratch.ok(&["save", "example.com/team/app:v1", "-o", "killed.tar"]);
    assert_eq!(scratch.read("killed.tar"), scratch.read("app.tar"));
    assert!(!scratch.exists("killed.tar.partial"));
}

/// What a command that has to succeed says on standard error.
fn succeed_saying(command: &mut std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    support::text(&output.stderr)
}
