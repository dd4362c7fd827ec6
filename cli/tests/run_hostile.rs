//! `sealrs run` of damaged and hostile archives, and killed at each line of its journal.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;

use support::cluster::{Cluster, below, write_archive};
use support::insides;
use support::{assert_has, needs, noise, outcome, succeed};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const INIT: &str = "#!/bin/bash\nset -eu\necho config > \"$KUBECONFIG\"\n";
const RESET: &str = "#!/bin/bash\nrm -f \"$OUT/made\"\n";

#[test]
fn killed_at_each_line_of_the_journal_it_ends_the_same() {
    needs!("strace", "nsenter");
    let cluster = Cluster::new();
    let init = format!("{INIT}echo made >> \"$OUT/made\"\nsort -u -o \"$OUT/made\" \"$OUT/made\"\n");
    let files = [
        ("scripts/runtime/init.sh", init.as_str()),
        ("scripts/runtime/reset.sh", RESET),
        ("etc/motd", "hello"),
        ("registry/keep", ""),
    ];
    cluster.image("x", &files, "CMDS [\"echo ran > ran\"]");
    fs::create_dir(cluster.scratch.path("out")).unwrap();
    let variable = format!("OUT={}", cluster.scratch.path("out"));
    let flags = ["-e", variable.as_str()];
    succeed(&mut cluster.run("x.tar", &flags));
    let wanted = (cluster.state(), below(&cluster.scratch.path("out")));
    let lines = cluster.read("journal").lines().count();
    succeed(&mut cluster.delete());
    cluster.assert_gone("undisturbed");

    let journal = cluster.scratch.path(&cluster.data("journal"));
    let arguments = cluster.arguments("x.tar", &flags);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut killed = 0;
    for line in 1.. {
        let inject = format!("inject=fdatasync:signal=KILL:when={line}");
        let before = [
            "strace",
            "-qq",
            "-o",
            "/dev/null",
            "-P",
            &journal,
            "-e",
            "trace=fdatasync",
            "-e",
            &inject,
        ];
        let (code, said) = outcome(&mut cluster.command(&before, &arguments));
        match code {
            Some(0) => break,
            // strace dies of the signal that its child died of.
            None | Some(137) => killed += 1,
            Some(code) => panic!("line {line}: {code} {said}"),
        }
        // Every third time it is removed instead, and begun anew.
        if line % 3 == 0 {
            succeed(&mut cluster.delete());
            cluster.assert_gone(&format!("deleted after line {line}"));
        }
        succeed(&mut cluster.run("x.tar", &flags));
        let state = (cluster.state(), below(&cluster.scratch.path("out")));
        assert_eq!(differences(&state.0, &wanted.0), Vec::<String>::new(), "line {line}");
        assert_eq!(state.1, wanted.1, "line {line}");
        succeed(&mut cluster.delete());
        cluster.assert_gone(&format!("killed at line {line}"));
    }
    assert_eq!(killed, lines, "each line of the journal is one point");
}

fn differences(found: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    paths
        .into_iter()
        .filter(|path| found.get(*path) != wanted.get(*path))
        .map(|path| {
            format!(
                "{path}: {:?} where {:?} was expected",
                found.get(path),
                wanted.get(path)
            )
        })
        .collect()
}

#[test]
fn damaged_archives_leave_nothing() {
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    scratch.write("context/payload", noise(1, 400_000));
    scratch.program("context/scripts/runtime/init.sh", "touch \"$ROOTFS/../../executed\"\n");
    let kubefile = "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY scripts scripts\nCOPY payload .\n";
    scratch.build("x:1", kubefile, &[]);
    scratch.ok(&["save", "x:1", "-o", "x.tar"]);
    let whole = scratch.read("x.tar");
    let before = below(&scratch.path("root"));
    let mut cases = 0;
    for entry in tar::Archive::new(whole.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let start = usize::try_from(entry.raw_file_position()).unwrap();
        let size = usize::try_from(entry.size()).unwrap();
        let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|_| size > 0) else {
            continue;
        };
        let mut flipped = whole.clone();
        flipped[start + size / 2] ^= 1;
        for (bytes, word) in [(flipped, hex), (whole[..start + size / 2].to_vec(), hex)] {
            cases += 1;
            scratch.write("damaged.tar", bytes);
            let (code, said) = outcome(&mut cluster.run("damaged.tar", &[]));
            assert_eq!(code, Some(4), "{name}: {said}");
            assert_has(&said, &["damaged.tar", word]);
            cluster.assert_gone(&name);
            assert_eq!(below(&scratch.path("root")), before, "{name}");
        }
    }
    assert!(cases >= 8, "{cases}");
    // The good one takes the same place.
    succeed(&mut cluster.run("x.tar", &[]));
}

/// A tar of one entry that no tool would write.
fn entry(path: &[u8], kind: tar::EntryType, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o4777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    if !link.is_empty() {
        header.set_link_name_literal(link).unwrap();
    }
    if kind == tar::EntryType::Char {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, content).unwrap();
    let mut bytes = tar.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes
}

/// Entries one after another, with what a script runtime needs, and the tar's end.
fn layer(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entry(b"scripts/runtime/init.sh", tar::EntryType::Regular, "", INIT.as_bytes());
    bytes.extend(entries.concat());
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn hostile_layers_are_refused_or_contained() {
    use tar::EntryType as Is;
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    scratch.write("precious/file", "precious");
    let precious = scratch.path("precious/file");
    let outside = scratch.path("precious");
    let file = |path: &str| entry(path.as_bytes(), Is::Regular, "", b"hostile");
    let symlink = |path: &str, target: &str| entry(path.as_bytes(), Is::Symlink, target, b"");
    let up = "../../../../../../../precious/file";
    let mut long_name = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    long_name
        .append_data(&mut header, "n".repeat(300), b"x".as_slice())
        .unwrap();
    let mut long_name = long_name.into_inner().unwrap();
    long_name.truncate(long_name.len() - 1024);
    // What can be kept inside is: the last entry of a name wins, and nothing is written through a link.
    let contained = [
        "symlink to a file, then over it",
        "the same file twice",
        "a name with a zero",
    ];
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("dot-dot", vec![file("../escaped")]),
        ("dot-dot below", vec![file("a/../../../../../precious/file")]),
        ("absolute", vec![file(&precious)]),
        (
            "symlink out, then through it",
            vec![symlink("out", &outside), file("out/file")],
        ),
        (
            "relative symlink out, then through it",
            vec![symlink("out", "../../../../../precious"), file("out/file")],
        ),
        (
            "symlink to a file, then over it",
            vec![symlink("f", &precious), file("f")],
        ),
        ("hard link to what is outside", vec![entry(b"h", Is::Link, up, b"")]),
        (
            "hard link to an absolute name",
            vec![entry(b"h", Is::Link, &precious, b""), file("h")],
        ),
        (
            "hard link through a symlink",
            vec![symlink("out", &outside), entry(b"h", Is::Link, "out/file", b"")],
        ),
        ("device", vec![entry(b"null", Is::Char, "", b"")]),
        ("pipe", vec![entry(b"pipe", Is::Fifo, "", b"")]),
        ("the same file twice", vec![file("twice"), file("twice")]),
        ("a file, then below it", vec![file("f"), file("f/g")]),
        ("a name that is too long", vec![long_name]),
        ("a whiteout that leads out", vec![file("../../../../precious/.wh.file")]),
        (
            "a whiteout through a symlink",
            vec![symlink("out", &outside), file("out/.wh.file")],
        ),
        (
            "an opaque whiteout through a symlink",
            vec![symlink("out", &outside), file("out/.wh..wh..opq")],
        ),
        ("the rootfs itself as a link", vec![symlink(".", &outside)]),
        ("a name with a zero", vec![file("a\0../../b")]),
        ("no UTF-8", vec![entry(b"\xff\xfe", Is::Regular, "", b"x")]),
    ];
    let before = below(&outside);
    for (what, entries) in cases {
        write_archive(scratch, "hostile.tar", &layer(&entries), PLAIN);
        let (code, said) = outcome(&mut cluster.run("hostile.tar", &[]));
        if contained.contains(&what) {
            assert_eq!(code, Some(0), "{what}: {said}");
            let below = below(&scratch.path("root/data"));
            assert!(
                below.keys().all(|path| path.starts_with("my-cluster")),
                "{what}: {below:?}"
            );
        } else {
            assert_eq!(code, Some(4), "{what}: {said}");
            assert_has(&said, &["cannot install hostile.tar"]);
            cluster.assert_gone(what);
        }
        assert_eq!(below(&outside), before, "{what}");
        for escaped in [
            "escaped",
            "root/escaped",
            "root/data/escaped",
            "root/data/my-cluster/escaped",
        ] {
            assert!(!scratch.exists(escaped), "{what}: {escaped}");
        }
        succeed(&mut cluster.delete());
        cluster.assert_gone(what);
        assert_eq!(below(&outside), before, "{what}, deleted");
    }
}

#[test]
fn wrong_digests_in_good_archives_are_noticed() {
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    // A layer that unpacks well, and is not what the config says it is.
    let digest = write_archive(scratch, "good.tar", &layer(&[]), PLAIN);
    succeed(&mut cluster.run("good.tar", &[]));
    succeed(&mut cluster.delete());
    let layout = scratch.path("good.tar.layout");
    let other = insides::tar(&[("scripts/runtime/init.sh", b"exit 9")]);
    fs::write(format!("{layout}/blobs/sha256/{}", digest.hex()), &other).unwrap();
    succeed(scratch.command("tar").args(["-cf", "swapped.tar", "-C", &layout, "."]));
    let (code, said) = outcome(&mut cluster.run("swapped.tar", &[]));
    assert_eq!(code, Some(4), "{said}");
    assert_has(&said, &[&digest.to_string(), "swapped.tar"]);
    cluster.assert_gone("swapped");

    // A packed layer with bytes after its end, and one whose media type lies.
    let packed = zstd::encode_all(layer(&[]).as_slice(), 1).unwrap();
    for (what, media_type) in [
        ("a lie", PLAIN),
        ("another lie", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("unknown", "application/x-layer"),
    ] {
        write_archive(scratch, "lie.tar", &packed, media_type);
        for flags in [&[][..], &["--dry-run"]] {
            let (code, said) = outcome(&mut cluster.run("lie.tar", flags));
            assert_eq!(code, Some(4), "{what} {flags:?}: {said}");
            cluster.assert_gone(what);
        }
    }
}
