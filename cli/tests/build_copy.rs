//! `sealrs build`: what COPY brings into the rootfs, and what it refuses.

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
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use support::insides::{self, Kind, Rootfs};
use support::{Scratch, assert_has, needs, needs_root, run, succeed};

/// Instructions, each with a destination of its own, and what each brings.
const COPIES: [(&str, &[&str]); 21] = [
    ("COPY a.txt d01", &["d01"]),
    ("COPY a.txt d02/", &["d02/", "d02/a.txt"]),
    ("COPY a.txt d03/deep/name", &["d03/", "d03/deep/", "d03/deep/name"]),
    ("COPY a.txt b.txt d04/", &["d04/", "d04/a.txt", "d04/b.txt"]),
    ("COPY *.txt d05/", &["d05/", "d05/a.txt", "d05/b.txt"]),
    (
        "COPY [a-b].txt dir/o?e d06/",
        &["d06/", "d06/a.txt", "d06/b.txt", "d06/one"],
    ),
    (
        "COPY dir d07",
        &["d07/", "d07/.hidden", "d07/one", "d07/rel", "d07/sub/", "d07/sub/three"],
    ),
    (
        "COPY dir/ d08/",
        &["d08/", "d08/.hidden", "d08/one", "d08/rel", "d08/sub/", "d08/sub/three"],
    ),
    ("COPY conf1 conf2 d09/", &["d09/", "d09/x", "d09/y"]),
    ("COPY conf? d10/", &["d10/", "d10/x", "d10/y"]),
    ("COPY empty d11", &["d11/"]),
    ("COPY [\"my file\", \"d12/\"]", &["d12/", "d12/my file"]),
    ("COPY [\"my file\", \"d13\"]", &["d13"]),
    ("COPY link d14", &["d14"]),
    ("COPY dirlink/sub d15", &["d15/", "d15/three"]),
    ("COPY --chmod=0640 a.txt d16", &["d16"]),
    ("COPY --chown=1000:100 dir/sub d17", &["d17/", "d17/three"]),
    ("COPY /a.txt d18", &["d18"]),
    ("COPY ./dir/sub/../one d19", &["d19"]),
    ("COPY 名前 d20/", &["d20/", "d20/ünï ☃"]),
    ("COPY conf1/x d09", &[]), // into the folder of above
];

fn write_context(scratch: &Scratch) {
    for (name, content) in [
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("c.md", "c"),
        ("dir/one", "1"),
        ("dir/sub/three", "3"),
        ("dir/.hidden", "h"),
        ("conf1/x", "x"),
        ("conf2/y", "y"),
        ("my file", "mine"),
        ("名前/ünï ☃", "snow"),
    ] {
        scratch.write(&format!("context/{name}"), content);
    }
    fs::create_dir(scratch.path("context/empty")).unwrap();
    symlink("a.txt", scratch.path("context/link")).unwrap();
    symlink("dir", scratch.path("context/dirlink")).unwrap();
    symlink("../a.txt", scratch.path("context/dir/rel")).unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(scratch.path("context/dir/one"), mode).unwrap();
}

fn copies() -> String {
    let lines: Vec<&str> = COPIES.iter().map(|(line, _)| *line).collect();
    format!("FROM scratch\n{}\n", lines.join("\n"))
}

#[test]
fn sources_and_destinations() {
    let scratch = Scratch::new();
    write_context(&scratch);
    scratch.build("a:1", &copies(), &[]);
    let rootfs = scratch.rootfs("a:1");
    let mut wanted: Vec<&str> = COPIES.iter().flat_map(|(_, paths)| paths.iter().copied()).collect();
    wanted.sort_unstable();
    assert_eq!(rootfs.paths(), wanted);
    assert_eq!(rootfs.file("d14"), "a", "a link that is named is followed");
    assert_eq!(rootfs.entry("d07/rel").kind, Kind::Symlink("../a.txt".to_owned()));
    assert_eq!(rootfs.entry("d16").mode, 0o640);
    assert_eq!(rootfs.entry("d07/one").mode, 0o755);
    let three = rootfs.entry("d17/three");
    assert_eq!((three.uid, three.gid), (1000, 100));
    assert_eq!(rootfs.file("d20/ünï ☃"), "snow");
    // One layer each, and each stands alone: its folders come with it.
    let layers = scratch.layers("a:1");
    assert_eq!(layers.len(), COPIES.len());
    assert_eq!(layers[2].paths(), ["d03", "d03/deep", "d03/deep/name"]);
}

#[test]
fn buildah_copies_the_same() {
    needs!("buildah");
    needs_root!();
    let scratch = Scratch::new();
    write_context(&scratch);
    scratch.build("a:1", &copies(), &[]);
    let buildah = |arguments: &[&str]| {
        succeed(
            scratch
                .command("buildah")
                .args([
                    "--root",
                    "buildah/root",
                    "--runroot",
                    "buildah/run",
                    "--storage-driver",
                    "vfs",
                ])
                .args(arguments),
        )
    };
    buildah(&[
        "bud",
        "--quiet",
        "--isolation",
        "chroot",
        "-f",
        "Kubefile",
        "-t",
        "theirs",
        "context",
    ]);
    buildah(&["push", "--quiet", "theirs", "oci:theirs:1"]);
    let layout = scratch.path("theirs");
    let layers = insides::layers(Path::new(&layout), &insides::only_manifest(Path::new(&layout)));
    let theirs = insides::merged(&layers);
    let shape = |rootfs: &Rootfs| -> BTreeMap<String, (Kind, u32, u64, u64)> {
        let entries = rootfs.0.values();
        entries
            .map(|entry| {
                (
                    entry.path.clone(),
                    (entry.kind.clone(), entry.mode, entry.uid, entry.gid),
                )
            })
            .collect()
    };
    let (ours, theirs) = (shape(&scratch.rootfs("a:1")), shape(&theirs));
    for (path, entry) in &theirs {
        assert_eq!(ours.get(path), Some(entry), "{path}");
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn patterns_of_any_depth_and_dot_files() {
    let scratch = Scratch::new();
    for name in [
        "one.yaml",
        "a/two.yaml",
        "a/b/three.yaml",
        "a/b/no.txt",
        ".dot/four.yaml",
    ] {
        scratch.write(&format!("context/{name}"), name);
    }
    for (source, wanted) in [
        ("**/*.yaml", "four.yaml one.yaml three.yaml two.yaml"),
        ("a/**", "no.txt three.yaml two.yaml"),
        ("*/*.yaml", "four.yaml two.yaml"),
        ("[^a]*.yaml", "one.yaml"),
        ("a/b/*", "no.txt three.yaml"),
        ("\"a/b/no.txt\"", "no.txt"),
    ] {
        scratch.build("a:1", &format!("FROM scratch\nCOPY {source} d/\n"), &[]);
        let found = scratch.rootfs("a:1").paths();
        let below: Vec<&str> = found.iter().filter_map(|path| path.strip_prefix("d/")).collect();
        let below: Vec<&str> = below.into_iter().filter(|path| !path.is_empty()).collect();
        assert_eq!(below.join(" "), wanted, "{source}");
    }
}

#[test]
fn links_attributes_and_names_of_any_length_are_kept() {
    let scratch = Scratch::new();
    let long = "l".repeat(255);
    let deep: String = (0..40).map(|number| format!("a-folder-{number:03}/")).collect();
    scratch.write("context/hard/one", "linked");
    fs::create_dir(scratch.path("context/hard/sub")).unwrap();
    for other in ["hard/two", "hard/sub/three"] {
        fs::hard_link(
            scratch.path("context/hard/one"),
            scratch.path(&format!("context/{other}")),
        )
        .unwrap();
    }
    symlink("/absolute/nowhere", scratch.path("context/hard/dangling")).unwrap();
    let target = format!("{}x", "t/".repeat(150));
    symlink(&target, scratch.path("context/hard/long-link")).unwrap();
    scratch.write(&format!("context/{long}"), "long");
    scratch.write(&format!("context/{deep}file"), "deep");
    let marked = scratch.write("context/marked", "m");
    xattr::set(&marked, "user.purpose", b"\x00binary\xff").unwrap();
    xattr::set(scratch.path("context/hard"), "user.folder", b"f").unwrap();
    let mut capability = false;
    if support::is_root() {
        // cap_net_bind_service+ep, version 2
        let value = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        capability = xattr::set(&marked, "security.capability", value).is_ok();
        xattr::set(&marked, "trusted.other", b"of this machine").unwrap();
    }
    fs::write(scratch.path("context/special"), "s").unwrap();
    fs::set_permissions(scratch.path("context/special"), fs::Permissions::from_mode(0o4711)).unwrap();

    scratch.build("a:1", "FROM scratch\nCOPY . .\n", &[]);
    let rootfs = scratch.rootfs("a:1");
    let kinds: Vec<&Kind> = ["hard/one", "hard/sub/three", "hard/two"]
        .iter()
        .map(|path| &rootfs.entry(path).kind)
        .collect();
    let link = Kind::HardLink("hard/one".to_owned());
    assert_eq!(kinds, [&Kind::File(b"linked".to_vec()), &link, &link]);
    assert_eq!(
        rootfs.entry("hard/dangling").kind,
        Kind::Symlink("/absolute/nowhere".to_owned())
    );
    assert_eq!(rootfs.entry("hard/long-link").kind, Kind::Symlink(target));
    assert_eq!(rootfs.file(&long), "long");
    assert_eq!(rootfs.file(&format!("{deep}file")), "deep");
    let attributes = &rootfs.entry("marked").xattrs;
    assert_eq!(attributes["user.purpose"], b"\x00binary\xff");
    assert_eq!(attributes.contains_key("security.capability"), capability);
    assert!(
        !attributes.keys().any(|name| name.starts_with("trusted.")),
        "{attributes:?}"
    );
    assert_eq!(rootfs.entry("hard").xattrs["user.folder"], b"f");
    assert_eq!(rootfs.entry("special").mode, 0o4755);
}

#[test]
fn heredocs_become_files() {
    let scratch = Scratch::new();
    let kubefile = "\
FROM scratch
ARG WHO=world
COPY <<EOF etc/hello.conf
hello $WHO
EOF
COPY --chmod=755 <<'EOF' <<-OTHER scripts/
echo $WHO
EOF
\techo tab
\tOTHER
";
    scratch.build("a:1", kubefile, &["--build-arg", "WHO=you"]);
    let rootfs = scratch.rootfs("a:1");
    assert_eq!(rootfs.file("etc/hello.conf"), "hello you\n");
    assert_eq!(rootfs.entry("etc/hello.conf").mode, 0o644);
    assert_eq!(rootfs.file("scripts/EOF"), "echo $WHO\n");
    assert_eq!(rootfs.file("scripts/OTHER"), "echo tab\n");
    assert_eq!(rootfs.entry("scripts/OTHER").mode, 0o755);
}

#[test]
fn ignore_files() {
    let scratch = Scratch::new();
    for name in [
        "keep",
        "drop.log",
        "sub/drop.log",
        "build/out",
        "build/release/keep",
        "build/release/no",
        "sub/keep",
    ] {
        scratch.write(&format!("context/{name}"), name);
    }
    let kubefile = "FROM scratch\nCOPY . .\n";
    let built = |name: &str| {
        scratch.build(name, kubefile, &[]);
        scratch.rootfs(name).paths()
    };
    let rules = "# comment\n**/*.log\nbuild\n!build/release/keep\n.*ignore\n";
    scratch.write("context/.dockerignore", rules);
    let wanted = [
        "build/",
        "build/release/",
        "build/release/keep",
        "keep",
        "sub/",
        "sub/keep",
    ];
    assert_eq!(built("a:1"), wanted);
    // The other name goes first, and then the first is a file like any other.
    scratch.write("context/.containerignore", "*\n!keep\n");
    assert_eq!(built("b:1"), ["keep"]);

    // What is left out can't be named either, and a pattern that finds only such things finds nothing.
    let said = scratch.build_fails(2, "FROM scratch\nCOPY sub/keep x\n", &[]);
    assert_has(&said, &["Kubefile:2", "sub/keep", "left out", "ignore file", "hint:"]);
    let said = scratch.build_fails(3, "FROM scratch\nCOPY sub/* x/\n", &[]);
    assert_has(&said, &["sub/*", "matches nothing"]);
}

#[test]
fn nothing_comes_from_outside_the_context() {
    let scratch = Scratch::new();
    scratch.write("outside/secret", "secret");
    scratch.write("context/dir/file", "f");
    symlink("../outside/secret", scratch.path("context/file-link")).unwrap();
    symlink("../outside", scratch.path("context/dir-link")).unwrap();
    symlink("../../outside", scratch.path("context/dir/inner")).unwrap();
    for (source, words) in [
        ("../outside/secret", "leads out of the build context"),
        ("dir/../../outside", "leads out of the build context"),
        ("file-link", "a link that leads out of the build context"),
        ("dir-link", "a link that leads out of the build context"),
        ("dir-link/secret", "a link that leads out of the build context"),
        ("dir/inner/secret", "a link that leads out of the build context"),
        ("dir-*/secret", ""),
        ("*-link", "a link that leads out of the build context"),
    ] {
        for instruction in ["COPY", "ADD"] {
            let kubefile = format!("FROM scratch\n{instruction} {source} x/\n");
            let (code, said) = support::outcome(&mut scratch.building("a:1", &kubefile, &[]));
            assert!(matches!(code, Some(2 | 3)), "{instruction} {source}: {code:?} {said}");
            assert_has(&said, &["Kubefile:2", words]);
        }
    }
    // A link inside of a folder stays a link: nothing behind it is read.
    scratch.build("a:1", "FROM scratch\nCOPY dir x/\n", &[]);
    assert_eq!(
        scratch.rootfs("a:1").entry("x/inner").kind,
        Kind::Symlink("../../outside".to_owned())
    );
}

#[test]
fn what_has_no_place_in_an_image_is_refused() {
    let scratch = Scratch::new();
    write_context(&scratch);
    run("mkfifo", &[&scratch.path("context/pipe")]);
    let _socket = std::os::unix::net::UnixListener::bind(scratch.path("context/socket")).unwrap();
    let odd = Path::new(&scratch.path("context/odd")).join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    fs::create_dir(scratch.path("context/odd")).unwrap();
    fs::write(&odd, "").unwrap();
    for (instruction, code, words) in [
        ("COPY pipe x", 2, ["context/pipe is a named pipe", ".containerignore"]),
        ("COPY socket x", 2, ["context/socket is a socket", ".containerignore"]),
        ("COPY odd x", 2, ["is not UTF-8", "rename"]),
        ("COPY a.txt b.txt x", 2, ["x", "slash"]),
        ("COPY *.txt x", 2, ["2 sources", "`x/`"]),
        (
            "COPY nothing x",
            3,
            ["`nothing` matches nothing", "relative to the build context"],
        ),
        (
            "COPY *.nothing x/",
            3,
            ["`*.nothing` matches nothing", "relative to the build context"],
        ),
    ] {
        let said = scratch.build_fails(code, &format!("FROM scratch\n{instruction}\n"), &[]);
        assert_has(&said, &["Kubefile:2", &format!("| {instruction}"), words[0], words[1]]);
    }
    assert_eq!(
        scratch.json(&["images"]),
        serde_json::json!([]),
        "a failed build names nothing"
    );
    fs::remove_dir_all(scratch.path("context/odd")).unwrap();
    scratch.write("context/.dockerignore", "pipe\nsocket\n");
    scratch.build("a:1", "FROM scratch\nCOPY . .\n", &[]);
}
