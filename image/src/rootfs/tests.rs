//! Unpacking into a real folder: what a layer may hold, and everything that it may not.
//!
//! Each tar is unpacked into `<scratch>/root`; beside it lies a canary that no tar may reach.

mod damaged;
mod hostile;
mod one_file;
mod random;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::progress::Silent;
use crate::spec::media_type;
use crate::testing::{Memory, RawTar, Tmpfs, again, given, is_root, noise, run_as_nobody};

/// A folder to unpack into, and what must not change beside it.
struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        let folder = match given() {
            Some(folder) => tempfile::tempdir_in(folder).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        let scratch = Self { folder };
        fs::create_dir(scratch.root()).unwrap();
        fs::create_dir(scratch.canary()).unwrap();
        fs::write(scratch.canary().join("secret"), "untouched").unwrap();
        fs::create_dir(scratch.canary().join("folder")).unwrap();
        scratch
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn canary(&self) -> PathBuf {
        self.folder.path().join("canary")
    }

    /// Everything there is to see of the canary, and the names beside the root.
    fn outside(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for folder in [self.folder.path().to_owned(), self.canary()] {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path == self.root() {
                    continue;
                }
                let all = fs::symlink_metadata(&path).unwrap();
                seen.push(format!(
                    "{} {:o} {}:{} links {} mtime {}.{} size {} {:?}",
                    path.display(),
                    all.mode(),
                    all.uid(),
                    all.gid(),
                    all.nlink(),
                    all.mtime(),
                    all.mtime_nsec(),
                    all.size(),
                    fs::read(&path).ok()
                ));
            }
        }
        seen.sort();
        seen
    }

    /// Unpacks plain layers and looks after the canary.
    fn unpack(&self, tars: &[Vec<u8>]) -> Result<Footprint> {
        let mut memory = Memory::default();
        let layers = tars
            .iter()
            .map(|tar| {
                let layer = memory.add(media_type::LAYER, tar.clone());
                (layer, Digest::of(tar))
            })
            .collect();
        let root = memory.image(layers);
        self.unpack_from(&memory, &memory.read(&root))
    }

    fn unpack_from(&self, source: &dyn Source, image: &ClusterImage) -> Result<Footprint> {
        let before = self.outside();
        let result = unpack(source, image, &self.root(), &Silent);
        assert_eq!(self.outside(), before, "the tar reached out of the root");
        result
    }

    /// One line for each thing in the root: `path kind:mode size-or-target`.
    fn tree(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.root(), "", &mut lines);
        lines
    }
}

fn list(root: &Path, below: &str, lines: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(root.join(below))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in names {
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let whole = root.join(&path);
        let all = fs::symlink_metadata(&whole).unwrap();
        let mode = all.mode() & 0o7777;
        if all.is_symlink() {
            lines.push(format!("{path} -> {}", fs::read_link(&whole).unwrap().display()));
        } else if all.is_dir() {
            lines.push(format!("{path}/ {mode:o}"));
            list(root, &path, lines);
        } else {
            let content = fs::read(&whole).unwrap();
            let content = match String::from_utf8(content) {
                Ok(text) if text.len() < 40 => text,
                _ => format!("{} bytes", all.len()),
            };
            lines.push(format!("{path} {mode:o} {content}"));
        }
    }
}

/// Zstandard, gzip, or as it is.
fn packed(media_type: &str, tar: &[u8]) -> Vec<u8> {
    match media_type {
        media_type::LAYER_ZSTD => zstd::encode_all(tar, 3).unwrap(),
        media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
        _ => tar.to_vec(),
    }
}

fn ordinary() -> RawTar {
    RawTar::new()
        .folder("etc", 0o755)
        .file("etc/config", b"hello")
        .folder("bin", 0o755)
        .file_with("bin/tool", b"#!/bin/sh\n", |header| header.set_mode(0o755))
        .symlink("bin/alias", "tool")
        .hard_link("bin/second", "bin/tool")
}

const ORDINARY: [&str; 6] = [
    "bin/ 755",
    "bin/alias -> tool",
    "bin/second 755 #!/bin/sh\n",
    "bin/tool 755 #!/bin/sh\n",
    "etc/ 755",
    "etc/config 644 hello",
];

#[test]
fn every_packing_gives_the_same_tree() {
    let tar = ordinary().end();
    for kind in [
        media_type::LAYER,
        media_type::LAYER_GZIP,
        media_type::DOCKER_LAYER_GZIP,
        media_type::LAYER_ZSTD,
    ] {
        let scratch = Scratch::new();
        let mut memory = Memory::default();
        let mut layer = memory.add(kind, packed(kind, &tar));
        layer
            .annotations
            .insert(annotation::UNPACKED.to_owned(), tar.len().to_string());
        let root = memory.image(vec![(layer, Digest::of(&tar))]);
        let footprint = scratch.unpack_from(&memory, &memory.read(&root)).unwrap();
        assert_eq!(scratch.tree(), ORDINARY, "{kind}");
        assert_eq!(footprint, Footprint { bytes: 15, entries: 6 });
    }
}

#[test]
fn several_members_and_padding_of_a_packed_layer_are_read() {
    let tar = ordinary().end();
    let (first, second) = tar.split_at(1500);
    for kind in [media_type::LAYER_GZIP, media_type::LAYER_ZSTD] {
        let bytes = [packed(kind, first), packed(kind, second)].concat();
        let scratch = Scratch::new();
        let mut memory = Memory::default();
        let layer = memory.add(kind, bytes);
        let root = memory.image(vec![(layer, Digest::of(&tar))]);
        scratch.unpack_from(&memory, &memory.read(&root)).unwrap();
        assert_eq!(scratch.tree(), ORDINARY, "{kind}");
    }
}

#[test]
fn modes_times_links_and_attributes_are_kept() {
    let scratch = Scratch::new();
    let at = |mtime: u64| move |header: &mut tar::Header| header.set_mtime(mtime);
    let mut link = RawTar::header("link", b'2', 0);
    link.set_mtime(1_000_000_002);
    link.as_old_mut().linkname[..1].copy_from_slice(b"f");
    link.set_cksum();
    let mut folder = RawTar::header("folder", b'5', 0);
    folder.set_mtime(1_000_000_003);
    folder.set_mode(0o1777);
    folder.set_cksum();
    let tar = RawTar::new()
        .raw(&folder, b"")
        .file("folder/inside", b"")
        .pax(&[
            ("SCHILY.xattr.user.colour", b"blue\n=\0"),
            ("SCHILY.xattr.user.empty", b""),
            ("mtime", b"1000000001.75"),
        ])
        .file("f", b"content")
        .raw(&link, b"")
        .hard_link("folder/other", "f")
        .file_with("setuid", b"x", |header| header.set_mode(0o6755))
        .file_with("none", b"x", |header| header.set_mode(0))
        .file_with("far", b"x", at((1 << 33) - 1))
        .file_with("before-1970", b"x", |header| {
            header.as_old_mut().mtime = [0xff; 12];
        })
        .end();
    scratch.unpack(&[tar]).unwrap();
    let all = |path: &str| fs::symlink_metadata(scratch.root().join(path)).unwrap();
    assert_eq!(all("f").mtime(), 1_000_000_001);
    assert_eq!(all("link").mtime(), 1_000_000_002);
    assert_eq!(all("folder").mtime(), 1_000_000_003);
    assert_eq!(all("folder").mode() & 0o7777, 0o1777);
    assert_eq!(all("setuid").mode() & 0o7777, 0o6755);
    assert_eq!(all("none").mode() & 0o7777, 0);
    assert_eq!(all("far").mtime(), (1 << 33) - 1);
    assert_eq!(all("before-1970").mtime(), 0);
    assert_eq!(all("f").nlink(), 2);
    assert_eq!(all("folder/other").ino(), all("f").ino());
    let attribute = |name: &str| {
        let mut value = vec![0; 64];
        let path = scratch.root().join("f");
        let size = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
        value.truncate(size);
        value
    };
    assert_eq!(attribute("user.colour"), b"blue\n=\0");
    assert_eq!(attribute("user.empty"), b"");
}

/// The attribute of a program that may bind low ports: `cap_net_bind_service=ep`.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn owners_are_kept_where_root_unpacks() {
    if !is_root() {
        println!("skipped: only root may give files away");
        return;
    }
    let scratch = Scratch::new();
    let owned = |header: &mut tar::Header| {
        header.set_uid(1000);
        header.set_gid(2000);
        header.set_mode(0o4755);
    };
    let tar = RawTar::new()
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY)])
        .file_with("owned", b"x", owned)
        .pax(&[("uid", b"4000000000"), ("gid", b"3000000")])
        .file("far", b"x")
        .end();
    scratch.unpack(&[tar]).unwrap();
    let all = |path: &str| fs::metadata(scratch.root().join(path)).unwrap();
    assert_eq!((all("owned").uid(), all("owned").gid()), (1000, 2000));
    // Giving a file away clears set-uid and capabilities: they have to come after.
    assert_eq!(all("owned").mode() & 0o7777, 0o4755);
    let mut value = [0; 64];
    let path = scratch.root().join("owned");
    let size = rustix::fs::getxattr(path, "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..size], CAPABILITY);
    assert_eq!((all("far").uid(), all("far").gid()), (4_000_000_000, 3_000_000));
}

#[test]
fn folders_that_nobody_may_write_are_filled_without_root() {
    const NAME: &str = "rootfs::tests::folders_that_nobody_may_write_are_filled_without_root";
    if is_root() {
        return run_as_nobody(NAME);
    }
    let scratch = Scratch::new();
    let first = RawTar::new()
        .folder("sealed", 0o555)
        .file("sealed/one", b"1")
        .folder("sealed/below", 0o500)
        .file("sealed/below/two", b"2")
        .folder("nothing", 0)
        .file("nothing/three", b"3")
        .end();
    let second = RawTar::new()
        .file("sealed/below/more", b"4")
        .file("sealed/.wh.one", b"")
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY)])
        .file("plain", b"5")
        .end();
    scratch.unpack(&[first, second]).unwrap();
    let nothing = fs::metadata(scratch.root().join("nothing")).unwrap();
    assert_eq!(nothing.mode() & 0o7777, 0);
    let open = |path: &str| {
        fs::set_permissions(scratch.root().join(path), fs::Permissions::from_mode(0o700)).unwrap();
    };
    open("nothing");
    assert_eq!(
        scratch.tree(),
        [
            "nothing/ 700",
            "nothing/three 644 3",
            "plain 644 5",
            "sealed/ 555",
            "sealed/below/ 500",
            "sealed/below/more 644 4",
            "sealed/below/two 644 2",
        ]
    );
    open("sealed");
    open("sealed/below");
}

/// A layer need not tell of the folders that its files lie in; they must not depend on who unpacks.
#[test]
fn folders_that_no_layer_tells_of_are_the_same_everywhere() {
    const NAME: &str = "rootfs::tests::folders_that_no_layer_tells_of_are_the_same_everywhere";
    if given().is_none() {
        // The umask belongs to the process, which other tests use at the same time.
        let folder = tempfile::tempdir().unwrap();
        let status = again(NAME, folder.path().to_str().unwrap()).status();
        return assert!(status.unwrap().success());
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let scratch = Scratch::new();
    let tar = RawTar::new().file("a/b/c", b"x").folder("a/b", 0o700).end();
    scratch.unpack(&[tar]).unwrap();
    assert_eq!(scratch.tree(), ["a/ 755", "a/b/ 700", "a/b/c 644 x"]);
    assert_eq!(fs::metadata(scratch.root().join("a")).unwrap().mtime(), 0);
}

#[test]
fn later_layers_and_entries_win() {
    let first = || {
        RawTar::new()
            .folder("d", 0o755)
            .file("d/one", b"1")
            .file("d/two", b"2")
            .folder("d/sub", 0o750)
            .file("d/sub/deep", b"deep")
            .file("f", b"file")
            .symlink("l", "d")
    };
    let below = [
        "d/ 755",
        "d/one 644 1",
        "d/sub/ 750",
        "d/sub/deep 644 deep",
        "d/two 644 2",
    ];
    let with = |rest: &[&'static str]| [&below[..], rest].concat();
    let cases: [(&str, RawTar, Vec<&str>); 17] = [
        (
            "a file by a file",
            RawTar::new().file("f", b"new"),
            with(&["f 644 new", "l -> d"]),
        ),
        (
            "a file by a folder",
            RawTar::new().folder("f", 0o711).file("f/x", b"x"),
            with(&["f/ 711", "f/x 644 x", "l -> d"]),
        ),
        (
            "a folder by a file",
            RawTar::new().file("d", b"now a file"),
            vec!["d 644 now a file", "f 644 file", "l -> d"],
        ),
        (
            "a folder by a link",
            RawTar::new().symlink("d", "f"),
            vec!["d -> f", "f 644 file", "l -> d"],
        ),
        (
            "a folder by a folder: its content stays, its mode is new",
            RawTar::new().folder("d/sub", 0o700),
            vec![
                "d/ 755",
                "d/one 644 1",
                "d/sub/ 700",
                "d/sub/deep 644 deep",
                "d/two 644 2",
                "f 644 file",
                "l -> d",
            ],
        ),
        (
            "a link by a folder",
            RawTar::new().folder("l", 0o755).file("l/x", b"x"),
            with(&["f 644 file", "l/ 755", "l/x 644 x"]),
        ),
        (
            "a link by a file: what it points to stays",
            RawTar::new().file("l", b"x"),
            with(&["f 644 file", "l 644 x"]),
        ),
        (
            "a file twice in one layer",
            RawTar::new().file("f", b"a").file("f", b"b"),
            with(&["f 644 b", "l -> d"]),
        ),
        (
            "a hard link over a file, then its first name anew",
            RawTar::new().hard_link("f", "d/one").file("d/one", b"other"),
            vec![
                "d/ 755",
                "d/one 644 other",
                "d/sub/ 750",
                "d/sub/deep 644 deep",
                "d/two 644 2",
                "f 644 1",
                "l -> d",
            ],
        ),
        (
            "a whiteout of a file, and one of nothing",
            RawTar::new()
                .file(".wh.f", b"")
                .file("d/.wh.absent", b"")
                .file("none/at/all/.wh.x", b""),
            with(&["l -> d"]),
        ),
        (
            "a whiteout by way of a link that stays inside",
            RawTar::new().file("l/.wh.one", b"").file("l/.wh.sub", b""),
            vec!["d/ 755", "d/two 644 2", "f 644 file", "l -> d"],
        ),
        (
            "a whiteout of what its own layer holds, by another name, and of what is gone then",
            RawTar::new()
                .file("d/one", b"own")
                .file("l/.wh.one", b"")
                .file("d/.wh.one", b""),
            vec![
                "d/ 755",
                "d/sub/ 750",
                "d/sub/deep 644 deep",
                "d/two 644 2",
                "f 644 file",
                "l -> d",
            ],
        ),
        (
            "a whiteout of a folder",
            RawTar::new().file(".wh.d", b""),
            vec!["f 644 file", "l -> d"],
        ),
        (
            "a whiteout of a link: what it points to stays",
            RawTar::new().file(".wh.l", b""),
            with(&["f 644 file"]),
        ),
        (
            "an opaque folder",
            RawTar::new()
                .folder("d", 0o700)
                .file("d/.wh..wh..opq", b"")
                .file("d/new", b"n"),
            vec!["d/ 700", "d/new 644 n", "f 644 file", "l -> d"],
        ),
        (
            "an opaque folder whose own entries came first",
            RawTar::new()
                .file("d/new", b"n")
                .file("d/sub/fresh", b"n")
                .file("d/.wh..wh..opq", b""),
            vec![
                "d/ 755",
                "d/new 644 n",
                "d/sub/ 750",
                "d/sub/fresh 644 n",
                "f 644 file",
                "l -> d",
            ],
        ),
        (
            "a whiteout hides what was below, not what its own layer holds",
            RawTar::new()
                .file("f", b"own")
                .file(".wh.f", b"")
                .file("d/one", b"own")
                .file(".wh.d", b""),
            vec!["d/ 755", "d/one 644 own", "f 644 own", "l -> d"],
        ),
    ];
    for (what, second, expected) in cases {
        let scratch = Scratch::new();
        let result = scratch.unpack(&[first().end(), second.end()]);
        assert!(result.is_ok(), "{what}: {result:?}");
        assert_eq!(scratch.tree(), expected, "{what}");
    }
}

#[test]
fn an_opaque_root_removes_all_that_was_below() {
    let scratch = Scratch::new();
    let second = RawTar::new().file(".wh..wh..opq", b"").file("new", b"n").end();
    scratch.unpack(&[ordinary().end(), second]).unwrap();
    assert_eq!(scratch.tree(), ["new 644 n"]);
}

/// A folder that was made by way of a link, and went by its real name, is not missed at the end.
#[test]
fn folders_behind_links_may_go() {
    let scratch = Scratch::new();
    let first = RawTar::new()
        .folder("real", 0o755)
        .symlink("link", "real")
        .folder("link/below", 0o700)
        .end();
    let second = RawTar::new().file("real/.wh.below", b"").end();
    scratch.unpack(&[first, second]).unwrap();
    assert_eq!(scratch.tree(), ["link -> real", "real/ 755"]);
}

/// What `unpack` promises to its caller about a folder that is not there.
#[test]
fn a_folder_that_is_missing_is_an_error() {
    let scratch = Scratch::new();
    fs::remove_dir(scratch.root()).unwrap();
    let error: Error = scratch.unpack(&[ordinary().end()]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
