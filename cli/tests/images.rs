//! `sealrs images`, `inspect`, `tag`, `rmi` and `prune`: an image's life in the store.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::process::Stdio;

use serde_json::json;
use support::{Running, Scratch, assert_has, noise, outcome};

/// Two images that share a layer.
fn build_two(scratch: &Scratch) -> (String, String) {
    scratch.write("context/shared", noise(1, 400_000));
    scratch.write("context/a", "a");
    scratch.write("context/b", "b");
    let kubefile = |own: &str| {
        format!(
            "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY shared /\nCOPY {own} /\n"
        )
    };
    let a = scratch.build("example.com/team/a:v1", &kubefile("a"), &[]);
    let b = scratch.build("b", &kubefile("b"), &[]);
    (a.digest().to_owned(), b.digest().to_owned())
}

fn blobs(scratch: &Scratch) -> usize {
    scratch.list("root/store/blobs/sha256").len()
}

#[test]
fn lists_and_shows() {
    let scratch = Scratch::new();
    assert_eq!(scratch.json(&["images"]), json!([]));
    let (a, b) = build_two(&scratch);
    let rows = scratch.json(&["images"]);
    assert_eq!(rows.as_array().unwrap().len(), 2);
    let row = rows[0].as_object().unwrap();
    let keys: Vec<&str> = row.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "containerImages",
            "created",
            "digest",
            "name",
            "platforms",
            "runtime",
            "size"
        ]
    );
    assert_eq!((&row["name"], &row["digest"]), (&json!("b:latest"), &json!(b)));
    assert_eq!(
        (&row["runtime"], &row["containerImages"]),
        (&json!("script"), &json!(0))
    );
    assert!(row["created"].as_str().unwrap().ends_with('Z'));
    assert!(row["size"].as_u64().unwrap() > 400_000);

    let table = scratch.ok(&["images"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_has(lines[0], &["NAME", "DIGEST", "RUNTIME", "IMAGES", "SIZE", "CREATED"]);
    assert_has(lines[2], &["example.com/team/a:v1", &a[7..19], "script", "KiB"]);
    assert!(!table.contains(&a), "short digests");
    assert_has(&scratch.ok(&["images", "--digests"]), &[&a, &b]);

    for name in ["example.com/team/a:v1", &a, &a[7..], &a[7..13], &a[..14]] {
        assert_eq!(scratch.json(&["inspect", name])["digest"], a, "{name}");
    }
    for name in [
        "b",
        "b:latest",
        "docker.io/library/b",
        &format!("b@{b}"),
        &format!("b:latest@{b}"),
    ] {
        assert_eq!(scratch.json(&["inspect", name])["digest"], b, "{name}");
    }
    let text = scratch.ok(&["inspect", "b"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        scratch.json(&["inspect", "b"])
    );
    for name in ["c", "b:v2", "example.com/b", &format!("b@{a}"), "abcdef012345"] {
        assert_has(
            &scratch.fails(3, &["inspect", name]),
            &["there is no image", "sealrs images"],
        );
    }
    for name in ["UPPER", "b:", "-x"] {
        let (code, said) = outcome(&mut scratch.sealrs(&["inspect", "--", name]));
        assert_eq!(code, Some(2), "{name}: {said}");
    }
}

#[test]
fn tags_move_and_are_removed_with_what_only_they_hold() {
    let scratch = Scratch::new();
    let (a, b) = build_two(&scratch);
    let all = blobs(&scratch);
    scratch.ok(&["tag", "b", "example.com/b:v1", "c"]);
    assert_eq!(scratch.json(&["inspect", "c"])["digest"], b);
    // A name moves over.
    scratch.ok(&["tag", &a[7..20], "c"]);
    assert_eq!(scratch.json(&["inspect", "c"])["digest"], a);
    assert_eq!(scratch.json(&["images"]).as_array().unwrap().len(), 4);
    assert_eq!(blobs(&scratch), all);
    assert_has(
        &scratch.fails(3, &["tag", "nothing", "x"]),
        &["there is no image nothing"],
    );
    assert_has(
        &scratch.fails(2, &["tag", "b", &format!("x@{b}")]),
        &["it has a digest"],
    );
    assert_has(&scratch.fails(2, &["tag", "b", "NO"]), &["NO"]);

    // A name of several goes alone.
    let removed = scratch.json(&["rmi", "example.com/b:v1"]);
    assert_eq!(removed, json!({"images": 1, "blobs": 0, "bytes": 0}));
    // One wrong name, and nothing is removed.
    scratch.fails(3, &["rmi", "b", "nothing"]);
    assert_eq!(scratch.json(&["inspect", "b"])["digest"], b);
    // The last name takes manifest, config and the layer that nobody shares.
    let removed = scratch.json(&["rmi", "b"]);
    assert_eq!((&removed["images"], &removed["blobs"]), (&json!(1), &json!(3)));
    assert_eq!(blobs(&scratch), all - 3);
    assert_eq!(scratch.rootfs("c").paths(), ["a", "shared"]);
    // A digest takes all names.
    scratch.ok(&["rmi", &a[7..19]]);
    assert_eq!(scratch.json(&["images"]), json!([]));
    assert_eq!(blobs(&scratch), 0);
}

/// Another tag of the same repository, or a slip.
#[test]
fn a_name_that_is_nearly_one_of_the_store_is_suggested() {
    let scratch = Scratch::new();
    build_two(&scratch);
    for (name, near) in [
        ("example.com/team/a:v2", "example.com/team/a:v1"),
        ("example.com/teem/a:v1", "example.com/team/a:v1"),
    ] {
        for arguments in [
            &["inspect", name][..],
            &["tag", name, "x:1"],
            &["rmi", name],
            &["save", name, "-o", "x.tar"],
        ] {
            let said = scratch.fails(3, arguments);
            assert_has(&said, &[name, &format!("hint: did you mean `{near}`?")]);
        }
    }
    assert!(!scratch.fails(3, &["inspect", "other:v1"]).contains("did you mean"));
}

#[test]
fn prune_takes_leftovers_and_nothing_else() {
    let scratch = Scratch::new();
    build_two(&scratch);
    let all = blobs(&scratch);
    scratch.write("root/store/partial/new-killed", noise(3, 1000));
    scratch.write(&format!("root/store/blobs/sha256/{}", "0".repeat(64)), "of no image");
    let pruned = scratch.json(&["prune"]);
    assert_eq!(pruned, json!({"files": 2, "bytes": 1011}));
    assert_eq!(blobs(&scratch), all);
    assert_eq!(scratch.json(&["prune"]), json!({"files": 0, "bytes": 0}));
    assert_eq!(scratch.rootfs("b").paths(), ["b", "shared"]);
}

#[test]
fn a_damaged_store_is_told_and_not_made_worse() {
    let scratch = Scratch::new();
    let (a, _) = build_two(&scratch);
    let index = scratch.read("root/store/index.json");
    scratch.write("root/store/index.json", &index[..index.len() / 2]);
    for command in [
        &["images"][..],
        &["inspect", "b"],
        &["prune"],
        &["rmi", "b"],
        &["tag", "b", "c"],
    ] {
        let said = scratch.fails(4, command);
        assert_has(&said, &["index.json", "hint:"]);
    }
    scratch.write("root/store/index.json", &index);
    // A manifest that is not what its digest says.
    let manifest = format!("root/store/blobs/sha256/{}", &a[7..]);
    let bytes = scratch.read(&manifest);
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    scratch.write(&manifest, &flipped);
    for command in [
        &["inspect", "example.com/team/a:v1"][..],
        &["save", "example.com/team/a:v1", "-o", "x.tar"],
        &["prune"],
    ] {
        let said = scratch.fails(4, command);
        assert_has(&said, &[&a]);
    }
    assert!(!scratch.exists("x.tar") && !scratch.exists("x.tar.partial"));
    scratch.write(&manifest, &bytes);
    assert_eq!(
        scratch.rootfs("b").paths(),
        ["b", "shared"],
        "nothing was collected meanwhile"
    );
}

#[test]
fn the_root_is_chosen_by_flag_or_variable() {
    let scratch = Scratch::new();
    build_two(&scratch);
    let elsewhere = scratch.path("elsewhere");
    assert_eq!(scratch.json(&["--root", &elsewhere, "images"]), json!([]));
    assert_eq!(
        scratch
            .json(&["images", "--root", &scratch.path("root")])
            .as_array()
            .unwrap()
            .len(),
        2
    );
    // A place that can't be written.
    scratch.write("file", "");
    let said = scratch.fails(7, &["--root", "file", "images"]);
    assert_has(&said, &["file/store"]);
}

#[test]
fn whoever_has_read_enough_may_go() {
    let scratch = Scratch::new();
    build_two(&scratch);
    for arguments in [
        &["images"][..],
        &["inspect", "b"],
        &["completion", "bash"],
        &["--help"],
        &["build", "--help"],
    ] {
        let mut command = scratch.sealrs(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {:?}", output.status);
        assert_eq!(support::text(&output.stderr), "", "{arguments:?}");
    }
    // A full disk behind stdout is a failure.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = scratch.sealrs(&["images"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", support::text(&output.stderr));
}

#[test]
fn many_at_once() {
    let scratch = Scratch::new();
    build_two(&scratch);
    let names: Vec<String> = (0..12).map(|number| format!("many:{number}")).collect();
    let tags: Vec<Running> = names
        .iter()
        .map(|name| Running::start(&mut scratch.sealrs(&["tag", "b", name])))
        .collect();
    for mut tag in tags {
        assert!(tag.0.wait().unwrap().success());
    }
    assert_eq!(
        scratch.json(&["images"]).as_array().unwrap().len(),
        14,
        "no name was lost"
    );
    let removing: Vec<Running> = names
        .iter()
        .map(|name| Running::start(&mut scratch.sealrs(&["rmi", name])))
        .collect();
    for (mut remove, name) in removing.into_iter().zip(&names) {
        // Removing is done alone: whoever comes second is told so.
        let code = remove.0.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 8)), "{code:?}");
        let is_there = outcome(&mut scratch.sealrs(&["inspect", name])).0 == Some(0);
        assert_eq!(is_there, code == Some(8), "{name}");
    }
    assert_eq!(scratch.rootfs("b").paths(), ["b", "shared"]);
}
