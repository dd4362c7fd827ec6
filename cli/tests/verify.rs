//! `sealrs verify` and `prune`: what is damaged is told and brought again, and nothing that is used goes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Scratch, assert_has, noise, outcome, shape};

/// Two images that share a layer; gives the digests of that layer and of the second image's own.
fn images(scratch: &Scratch) -> [String; 2] {
    scratch.write("context/shared", noise(1, 500_000));
    scratch.write("context/own", noise(2, 300_000));
    scratch.build("example.com/one:1", "FROM scratch\nCOPY shared /\n", &[]);
    scratch.build("example.com/two:1", "FROM scratch\nCOPY shared /\nCOPY own /\n", &[]);
    let manifest = &scratch.json(&["inspect", "example.com/two:1"])["manifestv1"];
    [0, 1].map(|at| manifest["layers"][at]["digest"].as_str().unwrap().to_owned())
}

fn blob(digest: &str) -> String {
    format!("root/store/blobs/sha256/{}", &digest[7..])
}

fn flip(scratch: &Scratch, file: &str) {
    let mut bytes = scratch.read(file);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    scratch.write(file, bytes);
}

/// Runs `verify` that has to find faults; gives its report.
fn faults(scratch: &Scratch, arguments: &[&str]) -> Value {
    let mut command = scratch.sealrs(arguments);
    let output = command.args(["--quiet", "--output", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_has(&support::text(&output.stderr), &["\"code\":\"integrity\""]);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_damaged_is_told_set_aside_and_brought_again() {
    let scratch = Scratch::new();
    let [shared, own] = images(&scratch);
    for name in ["one", "two"] {
        scratch.ok(&["save", &format!("example.com/{name}:1"), "-o", &format!("{name}.tar")]);
    }
    let whole = scratch.json(&["verify"]);
    assert_eq!(
        (&whole["images"], &whole["blobs"], &whole["faults"]),
        (&json!(2), &json!(6), &json!([]))
    );
    assert_has(
        &scratch.ok(&["verify", "example.com/one:1"]),
        &["1 images, 3 whole blobs"],
    );

    flip(&scratch, &blob(&shared));
    fs::remove_file(scratch.path(&blob(&own))).unwrap();
    let report = faults(&scratch, &["verify"]);
    let found = report["faults"].as_array().unwrap();
    assert_eq!(found.len(), 2);
    let of = |digest: &str| found.iter().find(|fault| fault["digest"] == digest).unwrap();
    assert_eq!(
        (&of(&shared)["problem"], &of(&shared)["images"]),
        (&json!("damaged"), &json!(["example.com/one:1", "example.com/two:1"]))
    );
    assert_eq!(
        (&of(&own)["problem"], &of(&own)["images"]),
        (&json!("missing"), &json!(["example.com/two:1"]))
    );
    let said = scratch.fails(4, &["verify", "example.com/one:1"]);
    assert_has(
        &said,
        &["sealrs verify --repair", "load or pull again: example.com/one:1"],
    );
    insta::assert_json_snapshot!("json-shapes", [shape(&whole), shape(&report)]);

    // Nothing is changed unless asked for: a damaged blob has its size, so `load` takes it for whole.
    scratch.ok(&["load", "-i", "two.tar"]);
    assert_eq!(faults(&scratch, &["verify"])["faults"].as_array().unwrap().len(), 1);
    let report = faults(&scratch, &["verify", "--repair"]);
    assert_eq!(report["setAside"], json!([shared]));
    assert!(!scratch.exists(&blob(&shared)));
    assert_eq!(scratch.partial(), [format!("{}.damaged", &shared[7..])]);
    scratch.ok(&["load", "-i", "one.tar"]);
    assert_has(&scratch.ok(&["verify"]), &["2 images, 6 whole blobs"]);
    scratch.ok(&["prune"]);
    assert!(scratch.partial().is_empty());
    scratch.ok(&["verify"]);

    // A document that is damaged hides the rest of its image, and no other.
    let manifest = scratch.json(&["inspect", "example.com/one:1"])["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    flip(&scratch, &blob(&manifest));
    let report = faults(&scratch, &["verify", "--repair"]);
    assert_eq!(report["faults"][0]["images"], json!(["example.com/one:1"]));
    assert_eq!(report["blobs"], 4);
    scratch.ok(&["load", "-i", "one.tar"]);
    scratch.ok(&["verify"]);

    // Who uses the store keeps its blobs from being set aside.
    flip(&scratch, &blob(&shared));
    let held = fs::File::open(scratch.path("root/store/lock")).unwrap();
    held.lock_shared().unwrap();
    assert_has(
        &scratch.fails(8, &["verify", "--repair"]),
        &["another sealrs is using the store"],
    );
    assert!(scratch.exists(&blob(&shared)));
}

#[test]
fn archives_are_verified_where_they_are() {
    let scratch = Scratch::new();
    let [shared, own] = images(&scratch);
    scratch.ok(&["save", "example.com/two:1", "-o", "two.tar"]);
    scratch.ok(&[
        "save",
        "example.com/two:1",
        "-o",
        "delta.tar",
        "--since",
        "example.com/one:1",
    ]);
    scratch.ok(&["save", "example.com/two:1", "-o", "parts.tar", "--split", "100KiB"]);
    let other = Scratch::new();
    let path = |name: &str| scratch.path(name);
    assert_eq!(other.json(&["verify", &path("two.tar")])["blobs"], 4);
    let delta = other.json(&["verify", &path("delta.tar")]);
    assert_eq!((&delta["blobs"], &delta["leftOut"]), (&json!(3), &json!(1)));
    other.ok(&["verify", &path("parts.tar.001")]);
    assert!(!other.exists("root/store"), "no store is needed");
    assert_has(
        &other.fails(2, &["verify", &path("two.tar"), "--repair"]),
        &["can't be repaired"],
    );

    flip(&scratch, "parts.tar.002");
    let said = other.fails(4, &["verify", &path("parts.tar")]);
    assert_has(&said, &["parts.tar.002 is damaged"]);
    flip(&scratch, "two.tar");
    let report = faults(&other, &["verify", &path("two.tar")]);
    let digest = report["faults"][0]["digest"].as_str().unwrap();
    assert!([shared.as_str(), own.as_str()].contains(&digest), "{report}");
    assert_has(
        &other.fails(3, &["verify", "example.com/none:1"]),
        &["no image example.com/none:1"],
    );
}

/// What a process that died before its rename left.
#[test]
fn prune_takes_left_overs() {
    let scratch = Scratch::new();
    images(&scratch);
    scratch.write("root/store/.index.json.sealrs-x", "left");
    scratch.write("root/store/partial/left", "left");
    let before = scratch.list("root/store");
    let pruned = scratch.json(&["prune"]);
    assert_eq!(pruned["files"], 2);
    assert_eq!(scratch.list("root/store").len(), before.len() - 1);
    scratch.ok(&["verify"]);
}

/// Builds, loads, saves, prunes, removals and checks on one store at once: each does its work or says that the store is
/// in use, and at the end all is whole.
#[test]
fn many_processes_share_a_store() {
    let scratch = Scratch::new();
    images(&scratch);
    let archives = Scratch::new();
    for name in ["one", "two"] {
        let file = archives.path(&format!("{name}.tar"));
        scratch.ok(&["save", &format!("example.com/{name}:1"), "-o", &file]);
    }
    let (one, two) = (archives.path("one.tar"), archives.path("two.tar"));
    let end = Instant::now() + Duration::from_secs(8);
    let done: [AtomicUsize; 6] = Default::default();
    let build = |number: usize| {
        let context = format!("context-{number}");
        scratch.write(&format!("{context}/file"), noise(number as u64, 50_000));
        let kubefile = scratch.write(&format!("Kubefile-{}", number % 2), "FROM scratch\nCOPY file /\n");
        let tag = format!("example.com/built:{}", number % 2);
        outcome(&mut scratch.sealrs(&["build", "-q", "-f", &kubefile, "-t", &tag, &context]))
    };
    let work = |kind: usize, number: usize| match kind {
        0 => build(2 * number),
        1 => build(2 * number + 1),
        2 => {
            let loaded = outcome(&mut scratch.sealrs(&["load", "-q", "-i", &one]));
            let pruned = outcome(&mut scratch.sealrs(&["rmi", "example.com/one:1"]));
            assert!(matches!(pruned.0, Some(0 | 3 | 8)), "{pruned:?}");
            loaded
        }
        3 => outcome(&mut scratch.sealrs(&[
            "save",
            "-q",
            "example.com/two:1",
            "-o",
            &archives.path("saved.tar"),
            "--force",
        ])),
        4 => outcome(&mut scratch.sealrs(&["verify", "-q"])),
        _ => outcome(&mut scratch.sealrs(&["prune"])),
    };
    std::thread::scope(|scope| {
        for kind in 0..done.len() {
            let (work, done) = (&work, &done);
            scope.spawn(move || {
                for number in 0.. {
                    if Instant::now() > end {
                        break;
                    }
                    let (code, said) = work(kind, number);
                    // Whoever removes may be told that the store is in use; nobody else.
                    assert!(
                        code == Some(0) || (kind == 5 && code == Some(8)),
                        "{kind}: {code:?} {said}"
                    );
                    done[kind].fetch_add(usize::from(code == Some(0)), Ordering::Relaxed);
                }
            });
        }
    });
    let done = done.map(AtomicUsize::into_inner);
    println!("done: {done:?}");
    assert!(done[..5].iter().all(|times| *times > 1), "{done:?}");
    assert_eq!(fs::read(archives.path("saved.tar")).unwrap(), fs::read(&two).unwrap());
    scratch.ok(&["prune"]);
    assert!(scratch.partial().is_empty());
    assert_eq!(scratch.json(&["verify"])["faults"], json!([]));
    scratch.ok(&["load", "-i", &two]);
}
