//! Archives on their way across the gap: only what is new, in parts, through a pipe.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::cluster::Cluster;
use support::kills::{RENAMES, killed_at};
use support::small_disk::SmallDisk;
use support::{Scratch, assert_has, fail, needs, needs_root, noise, outcome, run, succeed};

/// Two versions of an app that have a large layer in common.
fn versions(scratch: &Scratch) -> [String; 2] {
    scratch.write("context/base", noise(1, 600_000));
    scratch.write("context/new", noise(2, 300_000));
    let first = "FROM scratch\nCOPY base /\nCMDS echo hello\n";
    let second = "FROM scratch\nCOPY base /\nCOPY new /\nCMDS echo hello\n";
    [("example.com/app:v1", first), ("example.com/app:v2", second)]
        .map(|(name, kubefile)| scratch.build(name, kubefile, &[]).digest().to_owned())
}

/// Runs a line of bash in which `$S` is sealrs.
fn shell(scratch: &Scratch, line: &str) -> std::process::Command {
    let mut command = scratch.command("bash");
    command.args(["-euo", "pipefail", "-c", line]);
    command.env("S", env!("CARGO_BIN_EXE_sealrs"));
    command
}

#[test]
fn a_delta_holds_only_what_is_new_and_knows_its_base() {
    needs!("skopeo", "jq");
    let scratch = Scratch::new();
    let [old, new] = versions(&scratch);
    scratch.ok(&["save", "example.com/app:v1", "-o", "v1.tar"]);
    let saved = scratch.json(&[
        "save",
        "example.com/app:v2",
        "-o",
        "delta.tar",
        "--since",
        "example.com/app:v1",
    ]);
    assert_eq!((&saved["blobs"], &saved["skipped"]), (&json!(3), &json!(1)));
    assert_eq!(saved["bases"], json!([{"digest": old, "name": "example.com/app:v1"}]));
    // The base may be given as a digest or as the archive that went over before.
    for (base, file) in [(&old[7..19], "by-digest.tar"), ("v1.tar", "by-archive.tar")] {
        scratch.ok(&["save", "example.com/app:v2", "-o", file, "--since", base]);
        assert_eq!(scratch.read(file).len(), scratch.read("delta.tar").len(), "{base}");
    }
    assert_eq!(scratch.read("by-archive.tar"), scratch.read("delta.tar"));
    assert!((300_000..320_000).contains(&scratch.read("delta.tar").len()));
    assert_has(
        &scratch.fails(
            3,
            &[
                "save",
                "example.com/app:v2",
                "-o",
                "x.tar",
                "--since",
                "example.com/app:v9",
            ],
        ),
        &["since example.com/app:v9", "no image example.com/app:v9"],
    );
    assert!(!scratch.exists("x.tar"));

    // Other tools see an archive whose manifest they can read.
    let archive = format!("oci-archive:{}", scratch.path("delta.tar"));
    let raw: Value = serde_json::from_slice(&run("skopeo", &["inspect", "--raw", &archive])).unwrap();
    assert_eq!(raw["layers"].as_array().unwrap().len(), 2);

    // Where the base is not, it is named, and nothing is written.
    let other = Scratch::new();
    let delta = scratch.path("delta.tar");
    let needed = format!("needs the image example.com/app:v1 ({old})");
    for command in [&["load", "-i", &delta][..], &["run", &delta]] {
        let said = other.fails(3, command);
        assert_has(&said, &[&delta, &needed, "load or pull it first"]);
        assert_eq!(other.json(&["images"]), json!([]));
        assert!(other.list("root/store/blobs/sha256").is_empty() && other.partial().is_empty());
        assert!(!other.exists("root/data"));
    }
    // What it is can be seen all the same.
    let inspected = other.json(&["inspect", &delta]);
    assert_eq!(
        (&inspected["digest"], &inspected["bases"]),
        (&json!(new), &saved["bases"])
    );

    other.ok(&["load", "-i", &scratch.path("v1.tar"), "-t", "another-name:1"]);
    let loaded = other.json(&["load", "-i", &delta]);
    assert_eq!((&loaded[0]["blobs"], &loaded[0]["skipped"]), (&json!(3), &json!(1)));
    other.ok(&["save", "example.com/app:v2", "-o", "whole.tar"]);
    scratch.ok(&["save", "example.com/app:v2", "-o", "whole.tar"]);
    assert_eq!(other.read("whole.tar"), scratch.read("whole.tar"));
    assert_eq!(other.json(&["inspect", "example.com/app:v2"]).get("bases"), None);
}

#[test]
fn a_delta_of_a_delta_and_of_two_bases() {
    let scratch = Scratch::new();
    let [old, _] = versions(&scratch);
    scratch.write("context/third", noise(3, 200_000));
    scratch.write("context/alone", noise(4, 100_000));
    let third = "FROM scratch\nCOPY base /\nCOPY new /\nCOPY third /\nCOPY alone /\nCMDS echo hello\n";
    scratch.build("example.com/app:v3", third, &[]);
    let side = scratch
        .build("side:1", "FROM scratch\nCOPY alone /\n", &[])
        .digest()
        .to_owned();
    scratch.ok(&[
        "save",
        "example.com/app:v2",
        "-o",
        "d2.tar",
        "--since",
        "example.com/app:v1",
    ]);
    let since = ["--since", "d2.tar", "--since", "side:1"];
    let mut save = vec!["save", "example.com/app:v3", "-o", "d3.tar"];
    save.extend(since);
    let saved = scratch.json(&save);
    assert_eq!(saved["skipped"], 3);

    let other = Scratch::new();
    let file = |name: &str| scratch.path(name);
    scratch.ok(&["save", "example.com/app:v1", "-o", "v1.tar"]);
    scratch.ok(&["save", "side:1", "-o", "side.tar"]);
    let said = other.fails(3, &["load", "-i", &file("d3.tar")]);
    assert_has(&said, &["needs the images example.com/app:v2", " and side:1", &side]);
    other.ok(&["load", "-i", &file("side.tar")]);
    let said = other.fails(3, &["load", "-i", &file("d3.tar")]);
    assert_has(&said, &["needs the image example.com/app:v2"]);
    let said = other.fails(3, &["load", "-i", &file("d2.tar")]);
    assert_has(&said, &[&old]);
    for name in ["v1.tar", "d2.tar", "d3.tar"] {
        other.ok(&["load", "-i", &file(name)]);
    }
    other.ok(&["save", "example.com/app:v3", "-o", "v3.tar"]);
    scratch.ok(&["save", "example.com/app:v3", "-o", "v3.tar"]);
    assert_eq!(other.read("v3.tar"), scratch.read("v3.tar"));
}

#[test]
fn parts_are_checked_by_sha256sum_and_read_in_place() {
    needs!("sha256sum", "skopeo");
    let scratch = Scratch::new();
    let [_, digest] = versions(&scratch);
    let app = "example.com/app:v2";
    scratch.ok(&["save", app, "-o", "whole.tar"]);
    scratch.ok(&["save", app, "-o", "x.tar", "--split", "200KiB"]);
    succeed(scratch.command("sha256sum").args(["-c", "--strict", "x.tar.sha256"]));
    succeed(&mut shell(&scratch, "cat x.tar.0* | cmp - whole.tar"));
    for name in scratch.list(".").iter().filter(|name| name.starts_with("x.tar.0")) {
        assert!(scratch.read(name).len() <= 200 << 10, "{name}");
    }
    assert_has(
        &scratch.fails(8, &["save", app, "-o", "x.tar", "--split", "1GiB"]),
        &["x.tar.001 exists", "--force"],
    );
    assert_has(
        &scratch.fails(2, &["save", app, "-o", "y.tar", "--split", "4 Gigs"]),
        &["4GiB"],
    );
    assert_has(
        &scratch.fails(2, &["save", app, "-o", "y.tar", "--split", "500"]),
        &["999 parts", "--split"],
    );
    assert!(scratch.list(".").iter().all(|name| !name.starts_with('y')));

    let whole = scratch.json(&["inspect", "whole.tar"]);
    for name in ["x.tar", "x.tar.001", "./x.tar.003"] {
        assert_eq!(scratch.json(&["inspect", name]), whole, "{name}");
        let other = Scratch::new();
        let loaded = other.json(&["load", "-i", &scratch.path(name)]);
        assert_eq!(loaded[0]["digest"], json!(digest));
    }

    let third = scratch.read("x.tar.003");
    let check = |code, words: &[&str]| {
        let other = Scratch::new();
        for command in [
            &["load", "-i", &scratch.path("x.tar")][..],
            &["run", &scratch.path("x.tar.001")],
        ] {
            assert_has(&other.fails(code, command), words);
            assert_eq!(other.json(&["images"]), json!([]));
            assert!(!other.exists("root/data"));
        }
    };
    fs::remove_file(scratch.path("x.tar.003")).unwrap();
    check(3, &["x.tar.003 is missing", "one folder"]);
    scratch.write("x.tar.003", &third[..third.len() - 1]);
    check(4, &["x.tar.003 is cut off", "204799 bytes", "204800"]);
    let mut flipped = third.clone();
    flipped[100_000] ^= 1;
    scratch.write("x.tar.003", &flipped);
    let other = Scratch::new();
    let said = other.fails(4, &["load", "-i", &scratch.path("x.tar")]);
    assert_has(&said, &["x.tar.003 is damaged", "blob sha256:"]);
    scratch.write("x.tar.003", &third);
    other.ok(&["load", "-i", &scratch.path("x.tar")]);

    // Fewer and larger ones in the place of the old.
    scratch.ok(&["save", app, "-o", "x.tar", "--split", "500KiB", "--force"]);
    succeed(scratch.command("sha256sum").args(["-c", "--strict", "x.tar.sha256"]));
    succeed(&mut shell(&scratch, "cat x.tar.0* | cmp - whole.tar"));
    assert_eq!(
        scratch
            .list(".")
            .iter()
            .filter(|name| name.starts_with("x.tar"))
            .count(),
        3
    );
}

#[test]
fn a_killed_save_in_parts_never_looks_whole() {
    needs!("strace", "taskset");
    let scratch = Scratch::new();
    versions(&scratch);
    let save = ["save", "example.com/app:v2", "-o", "x.tar", "--split", "300KiB"];
    scratch.ok(&save);
    let files = |scratch: &Scratch| -> Vec<(String, Vec<u8>)> {
        let names = scratch.list(".").into_iter().filter(|name| name.starts_with("x.tar"));
        names.map(|name| (name.clone(), scratch.read(&name))).collect()
    };
    let remove = |scratch: &Scratch| {
        for (name, _) in files(scratch) {
            fs::remove_file(scratch.path(&name)).unwrap();
        }
    };
    let expected = files(&scratch);
    remove(&scratch);
    let (mut killed, mut whole) = (0, 0);
    for call in ["write", "rename", "renameat", "unlink"] {
        for step in (1..30).step_by(if call == "write" { 4 } else { 1 }) {
            if !killed_at(&scratch, call, step, &save) {
                remove(&scratch);
                break;
            }
            killed += 1;
            let (code, said) = outcome(&mut scratch.sealrs(&["inspect", "x.tar"]));
            match code {
                // Killed after the last part had its name.
                Some(0) => {
                    let found = files(&scratch);
                    assert!(expected.iter().all(|file| found.contains(file)));
                    whole += 1;
                    scratch.ok(&[&save[..], &["--force"]].concat());
                }
                Some(3) => drop(scratch.ok(&save)),
                _ => panic!("{call} {step}: {code:?} {said}"),
            }
            assert_eq!(files(&scratch), expected, "{call} {step}");
            remove(&scratch);
        }
    }
    assert!(killed > 6 && whole < 4, "{killed} {whole}");
}

#[test]
fn an_archive_goes_through_a_pipe() {
    needs!("skopeo");
    let scratch = Scratch::new();
    let [old, new] = versions(&scratch);
    let app = "example.com/app:v2";
    scratch.ok(&["save", app, "-o", "whole.tar"]);
    let said = succeed(&mut shell(
        &scratch,
        "$S save example.com/app:v2 -o - 2>said >piped.tar; cat said",
    ));
    assert_has(&said, &["saved example.com/app:v2 to standard output"]);
    assert_eq!(scratch.read("piped.tar"), scratch.read("whole.tar"));
    assert_has(
        &scratch.fails(2, &["save", app, "-o", "-", "--split", "1GiB"]),
        &["--split", "exclude"],
    );

    let other = Scratch::new();
    let there = format!("$S --root {}", other.path("root"));
    let loaded = succeed(&mut shell(
        &scratch,
        &format!("$S save {app} -o - | {there} -q --output json load -i -"),
    ));
    let loaded: Value = serde_json::from_str(&loaded).unwrap();
    assert_eq!(
        (
            &loaded[0]["digest"],
            &loaded[0]["blobs"],
            &loaded[0]["skipped"],
            &loaded[0]["names"]
        ),
        (&json!(new), &json!(4), &json!(0), &json!([app]))
    );
    let inspected = succeed(&mut shell(&scratch, "$S inspect - < <(cat whole.tar)"));
    assert_eq!(
        serde_json::from_str::<Value>(&inspected).unwrap(),
        scratch.json(&["inspect", app])
    );

    // Another order, by skopeo; a named pipe; a tag.
    let archive = format!("oci-archive:{}", scratch.path("whole.tar"));
    let skopeo = format!("oci-archive:{}:{app}", scratch.path("skopeo.tar"));
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            "--preserve-digests",
            &archive,
            &skopeo,
        ],
    );
    let third = Scratch::new();
    let there = format!("$S --root {}", third.path("root"));
    succeed(&mut shell(
        &scratch,
        &format!("{there} load -i <(cat skopeo.tar) -t mine:2"),
    ));
    assert_eq!(third.json(&["inspect", "mine:2"])["digest"], json!(new));
    let said = fail(&mut shell(&scratch, &format!("cat skopeo.tar | {there} run -")), 2);
    assert_has(&said, &["another order", "sealrs load -i -"]);

    // Cut off: nothing gets a name; the whole one goes on from there.
    let fourth = Scratch::new();
    let there = format!("$S --root {}", fourth.path("root"));
    let said = fail(
        &mut shell(&scratch, &format!("head -c 500000 whole.tar | {there} load -i -")),
        4,
    );
    assert_has(&said, &["standard input", "ends in the middle", "truncated"]);
    assert_eq!(fourth.json(&["images"]), json!([]));
    assert_eq!(fourth.partial().len(), 1);
    succeed(&mut shell(&scratch, &format!("cat whole.tar | {there} load -i -")));
    assert_eq!(fourth.json(&["inspect", app])["digest"], json!(new));
    assert!(fourth.partial().is_empty());

    // A delta says what it needs before it has been read.
    let fifth = Scratch::new();
    let there = format!("$S --root {}", fifth.path("root"));
    let line = format!("$S save {app} -o - --since example.com/app:v1 | {there} load -i -");
    let (_, said) = outcome(&mut shell(&scratch, &line));
    assert_has(&said, &[&format!("needs the image example.com/app:v1 ({old})")]);
    assert!(fifth.list("root/store/blobs/sha256").is_empty() && fifth.partial().is_empty());
    succeed(&mut shell(
        &scratch,
        &format!("$S save example.com/app:v1 -o - | {there} load -i -"),
    ));
    succeed(&mut shell(&scratch, &line));
    assert_eq!(fifth.json(&["inspect", app])["digest"], json!(new));
}

#[test]
fn a_terminal_is_refused() {
    needs!("script");
    let scratch = Scratch::new();
    versions(&scratch);
    for (command, words) in [
        ("$S save example.com/app:v1 -o -", "written to a terminal"),
        ("$S load -i -", "is a terminal"),
        ("$S run -", "is a terminal"),
    ] {
        let (code, said) = outcome(&mut shell(
            &scratch,
            &format!("script -qec '{command}' /dev/null </dev/null"),
        ));
        assert_eq!(code, Some(2), "{command}: {said}");
        assert_has(&said, &[words]);
    }
}

#[test]
fn a_load_from_a_pipe_that_was_killed_is_taken_up() {
    needs!("strace", "taskset");
    let scratch = Scratch::new();
    let [_, digest] = versions(&scratch);
    scratch.ok(&["save", "example.com/app:v2", "-o", "app.tar"]);
    let archive = scratch.path("app.tar");
    let mut killed = 0;
    for (call, stride) in [(RENAMES[0], 1), (RENAMES[1], 1), ("write", 5)] {
        for step in (1..80).step_by(stride) {
            let other = Scratch::new();
            // A named pipe is read as standard input is.
            let pipe = other.path("pipe");
            succeed(other.command("mkfifo").arg(&pipe));
            let mut feed = shell(&other, &format!("cat {archive} >{pipe}")).spawn().unwrap();
            let is_killed = killed_at(&other, call, step, &["load", "-i", "pipe"]);
            let _ = feed.wait();
            if !is_killed {
                break;
            }
            killed += 1;
            other.ok(&["images"]);
            succeed(&mut shell(&other, &format!("cat {archive} | $S load -i -")));
            assert_eq!(other.json(&["inspect", "example.com/app:v2"])["digest"], json!(digest));
            other.ok(&["prune"]);
            assert_eq!(other.list("root/store/blobs/sha256"), scratch_blobs(&other, &scratch));
            assert!(other.partial().is_empty());
        }
    }
    assert!((10..40).contains(&killed), "{killed}");
}

/// The blobs of the newer version, as the store holds them that it was built in.
fn scratch_blobs(other: &Scratch, scratch: &Scratch) -> Vec<String> {
    let held = scratch.list("root/store/blobs/sha256");
    let image = other.json(&["inspect", "example.com/app:v2"]).to_string();
    held.into_iter().filter(|hex| image.contains(hex.as_str())).collect()
}

#[test]
fn run_takes_deltas_parts_and_pipes() {
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    let init = "#!/bin/bash\nset -eu\necho config > \"$KUBECONFIG\"\n";
    let base: String = (0..60_000).map(|number| format!("{number}\n")).collect();
    let motd: String = (0..40_000).map(|number| format!("motd {number}\n")).collect();
    let files = [("scripts/runtime/init.sh", init), ("base/large", &base)];
    cluster.image("x", &files, "");
    let instructions = "CMDS [\"echo it ran > commands-ran\"]";
    scratch.write("context/etc/motd", &motd);
    let kubefile = format!("FROM x:1\nCOPY etc etc\n{instructions}\n");
    scratch.build("y:1", &kubefile, &["--pull", "never"]);
    scratch.ok(&["save", "y:1", "-o", "y.tar"]);
    scratch.ok(&["save", "y:1", "-o", "delta.tar", "--since", "x:1"]);
    scratch.ok(&["save", "y:1", "-o", "parts.tar", "--split", "64KiB"]);
    assert!(scratch.read("delta.tar").len() < scratch.read("y.tar").len());
    let arguments = |image: &str| {
        let words = cluster.arguments(image, &[]);
        let command = cluster.command(&[], &[]);
        let mut line = format!("{:?}", command.get_program());
        for word in command.get_args() {
            line.push_str(&format!(" {word:?}"));
        }
        format!("{line} {}", words.join(" "))
    };
    for line in [
        arguments("delta.tar"),
        arguments("parts.tar.001"),
        format!("cat y.tar | {}", arguments("-")),
        format!("cat delta.tar | {}", arguments("-")),
    ] {
        let dry = succeed(&mut shell(scratch, &format!("{line} --dry-run")));
        assert_has(&dry, &["init.sh"]);
        succeed(&mut shell(scratch, &line));
        assert_eq!(cluster.read("rootfs/etc/motd"), motd, "{line}");
        assert_eq!(cluster.read("rootfs/base/large"), base, "{line}");
        assert_eq!(cluster.read("rootfs/commands-ran"), "it ran\n");
        // Once more, when it is installed: nothing is left in the pipe that its writer could break on.
        succeed(&mut shell(scratch, &line));
        succeed(&mut cluster.delete());
        cluster.assert_gone(&line);
    }
    // A pipe that is cut off leaves nothing.
    let size = scratch.read("y.tar").len() - 60_000;
    let line = format!("head -c {size} y.tar | {}", arguments("-"));
    let (code, said) = outcome(&mut shell(scratch, &line));
    assert!(matches!(code, Some(3 | 4)), "{code:?} {said}");
    cluster.assert_gone(&line);
}

#[test]
fn a_full_disk_is_told_for_parts_and_pipes() {
    needs_root!();
    let scratch = Scratch::new();
    versions(&scratch);
    scratch.ok(&["save", "example.com/app:v2", "-o", "app.tar"]);
    let Some(disk) = SmallDisk::mount(&scratch, "small", "400k") else {
        return;
    };
    let small = &disk.path;
    let said = outcome(&mut scratch.sealrs(&["save", "example.com/app:v2", "-o", "small/x.tar", "--split", "100KiB"]));
    let left = scratch.list("small");
    let load = outcome(&mut shell(
        &scratch,
        &format!("cat app.tar | $S --root {small}/root load -i -"),
    ));
    let images = outcome(&mut scratch.sealrs(&["--root", &format!("{small}/root"), "--output", "json", "images"]));
    disk.grow("4m");
    let again = outcome(&mut shell(
        &scratch,
        &format!("cat app.tar | $S --root {small}/root load -i -"),
    ));
    assert_eq!(said.0, Some(7), "{}", said.1);
    assert_has(&said.1, &["small/x.tar", "space"]);
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(load.0, Some(7), "{}", load.1);
    assert_has(&load.1, &[small, "space"]);
    assert_eq!(images.1.trim(), "[]");
    assert_eq!(again.0, Some(0), "{}", again.1);
}
