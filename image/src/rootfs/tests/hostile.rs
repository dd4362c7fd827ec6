//! Tars that want out, and tars that are wrong, one by one.

use super::*;

/// What becomes of a hostile tar.
enum Fate {
    /// Refused as damaged or malicious; the error holds these words.
    Refused(&'static str),
    /// Unpacked into this tree.
    Contained(Vec<String>),
}

use Fate::{Contained, Refused};

fn contained(lines: &[&str]) -> Fate {
    Contained(lines.iter().map(|&line| line.to_owned()).collect())
}

/// Tars that want out of the root, where `outside` is a folder beside it.
#[rustfmt::skip] // one line a case
fn escapes(outside: &str) -> Vec<(&'static str, Vec<RawTar>, Fate)> {
    let tar = RawTar::new;
    let secret = format!("{outside}/secret");
    let one = |raw: RawTar| vec![raw];
    let link = |target: &str| tar().symlink("out", target);
    vec![
        ("..", one(tar().file("../canary/secret", b"x")), Refused("upwards")),
        (".. in the middle", one(tar().file("a/../../canary/new", b"x")), Refused("upwards")),
        (".. at the end", one(tar().folder("a/..", 0o777)), Refused("upwards")),
        (".. alone", one(tar().folder("..", 0o777)), Refused("upwards")),
        (".. of a link", one(tar().symlink("../canary/l", "x")), Refused("upwards")),
        (".. of a whiteout", one(tar().file("../canary/.wh.secret", b"")), Refused("upwards")),
        (".. of an opaque whiteout", one(tar().file("../canary/.wh..wh..opq", b"")), Refused("upwards")),
        ("an absolute file", one(tar().file(&secret, b"x")), Refused("absolute")),
        ("an absolute folder", one(tar().folder(outside, 0o777)), Refused("absolute")),
        ("two slashes", one(tar().file(&format!("/{secret}"), b"x")), Refused("absolute")),
        ("no name", one(tar().file("", b"x")), Refused("no name")),
        ("a link as the root", one(tar().symlink(".", outside)), Refused("no name")),
        ("a file as the root", one(tar().file("./.", b"x")), Refused("no name")),
        ("a hard link as the root", one(tar().file("f", b"").hard_link("./", "f")), Refused("no name")),
        ("a file through a relative link",
            one(link("../canary").file("out/secret", b"x")), Refused("cannot enter the folder `out`")),
        ("a file through an absolute link",
            one(link(outside).file("out/secret", b"x")), Refused("cannot enter the folder `out`")),
        ("a file through the link of a lower layer",
            vec![link(outside), tar().file("out/new", b"x")], Refused("cannot enter the folder `out`")),
        ("a file through a link to the root's parent",
            one(link("..").file("out/canary/secret", b"x")), Refused("cannot enter the folder `out/canary`")),
        ("a file through links that lead out in steps",
            one(tar().folder("a", 0o755).symlink("a/up", "..").symlink("b", "a/up/..").file("b/canary/secret", b"x")),
            Refused("cannot enter")),
        ("a folder through a link", one(link("../canary").folder("out/folder", 0o777)), Refused("cannot enter")),
        ("a new folder through a link",
            one(link("../canary").folder("out/new/deep", 0o777)), Refused("cannot enter")),
        ("a link through a link", one(link("../canary").symlink("out/new", "x")), Refused("cannot enter")),
        ("a link through itself", one(tar().symlink("l", "l").file("l/f", b"x")), Refused("cannot enter")),
        ("links in a circle",
            one(tar().symlink("a", "b").symlink("b", "a").file("a/f", b"x")), Refused("cannot enter")),
        ("a file through a file", one(tar().file("f", b"").file("f/below", b"x")), Refused("cannot enter")),
        ("a file over a link that leads out: only the link is replaced",
            one(tar().symlink("out", &secret).file("out", b"x")), contained(&["out 644 x"])),
        ("a folder over a link that leads out",
            one(link("../canary").folder("out", 0o700).file("out/secret", b"x")),
            contained(&["out/ 700", "out/secret 644 x"])),
        ("a file through a dangling link that leads out",
            one(link("../new").file("out/f", b"x")), Refused("cannot enter")),
        ("a dangling link inside: nothing is made behind it",
            one(link("absent").file("out/f", b"x")), Refused("cannot enter")),
        ("a link that leads out and is never used",
            one(link("../../../../etc").symlink("abs", "/etc/passwd")),
            contained(&["abs -> /etc/passwd", "out -> ../../../../etc"])),
        ("a hard link upwards", one(tar().hard_link("h", "../canary/secret")), Refused("upwards")),
        ("an absolute hard link", one(tar().hard_link("h", &secret)), Refused("absolute")),
        ("a hard link through a link",
            one(link("../canary").hard_link("h", "out/secret")), Refused("cannot link it to `out/secret`")),
        ("a hard link to a link that leads out: the link itself is what it names",
            one(tar().symlink("out", &secret).hard_link("h", "out")),
            Contained(vec![format!("h -> {secret}"), format!("out -> {secret}")])),
        ("a file over a hard link to a link that leads out",
            one(tar().symlink("out", &secret).hard_link("h", "out").file("h", b"x")),
            Contained(vec!["h 644 x".to_owned(), format!("out -> {secret}")])),
        ("a whiteout through a link", one(link("../canary").file("out/.wh.secret", b"")), Refused("cannot remove")),
        ("a whiteout through the link of a lower layer",
            vec![link(outside), tar().file("out/.wh.folder", b"")], Refused("cannot remove")),
        ("an opaque whiteout through a link",
            vec![link("../canary"), tar().file("out/.wh..wh..opq", b"")], Refused("cannot clear")),
        ("a whiteout of a link that leads out", vec![link("../canary"), tar().file(".wh.out", b"")], contained(&[])),
        ("a folder with a link that leads out, removed whole",
            vec![tar().folder("d", 0o755).symlink("d/out", "../../canary"), tar().file(".wh.d", b"")],
            contained(&[])),
        ("a folder with a link that leads out, made opaque",
            vec![tar().folder("d", 0o755).symlink("d/out", "../../canary"), tar().file("d/.wh..wh..opq", b"")],
            contained(&["d/ 755"])),
        ("a folder's mode set through a link that took its place",
            one(tar().folder("d", 0o777).symlink("d", "../canary")), contained(&["d -> ../canary"])),
        ("a folder's mode set through a link that took its parent's place",
            one(tar().folder("d", 0o755).folder("d/folder", 0o777).symlink("d", "../canary")),
            contained(&["d -> ../canary"])),
        ("a long name that PAX makes lead upwards",
            one(tar().pax(&[("path", b"../canary/secret")]).file("harmless", b"x")), Refused("upwards")),
        ("a PAX name that is absolute",
            one(tar().pax(&[("path", secret.as_bytes())]).file("harmless", b"x")), Refused("absolute")),
        ("a PAX link target that leads upwards",
            one(tar().pax(&[("linkpath", b"../canary/secret")]).hard_link("h", "harmless")), Refused("upwards")),
        ("a GNU long name that leads upwards",
            one(tar().raw(&RawTar::header("././@LongLink", b'L', 17), b"../canary/secret\0").file("harmless", b"x")),
            Refused("upwards")),
        ("a GNU long link target that leads upwards",
            one(tar().raw(&RawTar::header("././@LongLink", b'K', 17), b"../canary/secret\0").hard_link("h", "harmless")),
            Refused("upwards")),
        ("a ustar prefix that leads upwards",
            one(tar().file_with("secret", b"x", |header| { header.as_ustar_mut().unwrap().prefix[..9].copy_from_slice(b"../canary"); })),
            Refused("upwards")),
    ]
}

/// Tars that hold what has no place in a rootfs, or are no proper tars.
#[rustfmt::skip] // one line a case
fn oddities() -> Vec<(&'static str, Vec<RawTar>, Fate)> {
    let tar = RawTar::new;
    let one = |raw: RawTar| vec![raw];
    let with = |change: fn(&mut tar::Header)| one(tar().file_with("f", b"x", change));
    let spoilt = |change: fn(&mut tar::Header)| {
        let mut header = RawTar::header("f", b'0', 1);
        change(&mut header);
        one(tar().raw(&header, b"x"))
    };
    let huge = |size: u64| {
        let mut header = RawTar::header("f", b'0', 0);
        header.set_size(size);
        header.set_cksum();
        one(tar().raw(&header, b"x"))
    };
    let extended = |kind: u8, size: u64| {
        one(tar()
            .raw(&RawTar::header("pax", kind, size), b"11 path=ab\n")
            .file("f", b"x"))
    };
    let records = |bytes: &'static [u8]| {
        one(tar()
            .raw(&RawTar::header("pax", b'x', bytes.len() as u64), bytes)
            .file("f", b"x"))
    };
    let (mut zeros, mut nonsense) = (tar::Header::new_old(), tar::Header::new_old());
    zeros.as_mut_bytes().fill(0);
    nonsense.as_mut_bytes().copy_from_slice(&noise(512, 7));
    let name = |length: usize| "n".repeat(length);
    let deep = |parts: usize| vec!["d"; parts].join("/");
    vec![
        ("a character device", one(tar().kind("dev", b'3')), Refused("a character device")),
        ("a block device", one(tar().kind("dev", b'4')), Refused("a block device")),
        ("a named pipe", one(tar().kind("pipe", b'6')), Refused("a named pipe")),
        ("a GNU sparse file", one(tar().kind("s", b'S')), Refused("a sparse file")),
        ("a PAX sparse file",
            one(tar().pax(&[("GNU.sparse.major", b"1")]).file("s", b"x")), Refused("a sparse file")),
        ("a type that nobody knows", one(tar().kind("z", b'z')), Refused("unknown type")),
        ("a hard link to nothing", one(tar().hard_link("h", "absent")), Refused("cannot link")),
        ("a hard link into a folder that is not there",
            one(tar().hard_link("h", "no/such/file")), Refused("cannot link")),
        ("a hard link to itself", one(tar().hard_link("h", "h")), Refused("to itself")),
        ("a hard link to itself, otherwise written", one(tar().hard_link("h", "./h")), Refused("to itself")),
        ("a hard link without a target", one(tar().hard_link("h", "")), Refused("to nothing")),
        ("a hard link to a folder", one(tar().folder("d", 0o755).hard_link("h", "d")), Refused("a folder")),
        ("a hard link through a folder's link",
            one(tar().folder("d", 0o755).file("d/f", b"x").symlink("l", "d").hard_link("h", "l/f")),
            contained(&["d/ 755", "d/f 644 x", "h 644 x", "l -> d"])),
        ("a hard link to itself through a folder's link",
            one(tar().folder("d", 0o755).file("d/f", b"x").symlink("l", "d").hard_link("d/f", "l/f")),
            Refused("cannot link")),
        ("a link without a target", one(tar().symlink("l", "")), Refused("target")),
        ("a link with a target of 5000", one(tar().symlink("l", &name(5000))), Refused("target")),
        ("a link with a zero byte", one(tar().pax(&[("linkpath", b"a\0b")]).symlink("l", "x")), Refused("target")),
        ("a whiteout of nothing", one(tar().file("d/.wh.", b"")), Refused("names nothing")),
        ("a whiteout of .", one(tar().file("d/.wh..", b"")), Refused("names nothing")),
        ("a whiteout of ..", one(tar().file("d/.wh...", b"")), Refused("names nothing")),
        ("a name of 255", one(tar().file(&name(255), b"x")), Contained(vec![format!("{} 644 x", name(255))])),
        ("a name of 256", one(tar().file(&name(256), b"x")), Refused("a name longer")),
        ("a name of 300", one(tar().file(&name(300), b"x")), Refused("a name longer")),
        ("a path of 5000", one(tar().file(&deep(2500), b"x")), Refused("a path longer")),
        ("a hard link target of 5000", one(tar().hard_link("h", &deep(2500))), Refused("a path longer")),
        ("a long name in characters of several bytes",
            one(tar().file(&"ä".repeat(150), b"x").kind("dev", b'3')), Refused("a name longer")),
        ("a long path in characters of several bytes, in an error",
            one(tar().pax(&[("path", vec!["äöü"; 40].join("/").as_bytes())]).kind("dev", b'3')),
            Refused("a character device")),
        ("a zero byte in a name", one(tar().pax(&[("path", b"a\0b")]).file("f", b"x")), Refused("a zero byte")),
        ("a name that is not UTF-8", with(|header| header.as_old_mut().name[0] = 0xff), Refused("not UTF-8")),
        ("a PAX header of 1 GiB", extended(b'x', 1 << 30), Refused("more than a mebibyte")),
        ("a global PAX header of 1 GiB", extended(b'g', 1 << 30), Refused("more than a mebibyte")),
        ("a long name of 1 GiB", extended(b'L', 1 << 30), Refused("more than a mebibyte")),
        ("a long link of 1 GiB", extended(b'K', 1 << 30), Refused("more than a mebibyte")),
        ("a PAX header larger than the tar", extended(b'x', 1 << 20), Refused("the middle")),
        ("a PAX record without a length", records(b"path=x\n"), Refused("a PAX record")),
        ("a PAX record that is too long", records(b"99 path=x\n"), Refused("a PAX record")),
        ("a PAX record of no length", records(b"0 path=x\n"), Refused("a PAX record")),
        ("a PAX record of negative length", records(b"-9 path=x\n"), Refused("a PAX record")),
        ("a PAX record of absurd length", records(b"18446744073709551615 path=x\n"), Refused("a PAX record")),
        ("a PAX record without a value", records(b"8 path\n"), Refused("a PAX record")),
        ("a PAX record that does not end", records(b"9 path=xy"), Refused("a PAX record")),
        ("a PAX size that is no number", records(b"11 size=-1\n"), Refused("a PAX record")),
        ("a PAX owner that is no number", records(b"9 uid=x\n"), Refused("a PAX record")),
        ("a PAX size larger than the tar", records(b"19 size=1000000000\n"), Refused("the middle")),
        ("a PAX size that can't be", records(b"29 size=18446744073709551615\n"), Refused("larger than any file")),
        ("a size that is no number", with(|header| header.as_old_mut().size = *b"garbage!!!!\0"), Refused("a size")),
        ("a negative size", with(|header| header.as_old_mut().size = *b"-0000000001\0"), Refused("a size")),
        ("a negative binary size",
            with(|header| header.as_old_mut().size = [0xff; 12]), Refused("larger than any file")),
        ("a size of 8 EiB", huge(1 << 63), Refused("larger than any file")),
        ("a size of 1 EiB", huge(1 << 60), Refused("the middle")),
        ("a size beyond the tar", huge(1 << 20), Refused("the middle")),
        ("a mode that is no number", with(|header| header.as_old_mut().mode = *b"rwxr-xr\0"), Refused("a mode")),
        ("an owner that is no number",
            with(|header| header.as_old_mut().uid = *b"root\0\0\0\0"), Refused("a number")),
        ("an owner that is too large", with(|header| header.as_old_mut().gid = [0xff; 8]), Refused("an owner")),
        ("a time that is no number",
            with(|header| header.as_old_mut().mtime = *b"yesterday\0\0\0"), Refused("a number")),
        ("a wrong checksum", spoilt(|header| header.as_mut_bytes()[0] ^= 1), Refused("checksum")),
        ("a checksum that is no number",
            spoilt(|header| header.as_old_mut().cksum = *b"garbage\0"), Refused("checksum")),
        ("no tar at all", one(tar().raw(&nonsense, &noise(2000, 1))), Refused("checksum")),
        ("anything after the tar's end",
            one(tar().file("f", b"x").raw(&zeros, b"").raw(&nonsense, &noise(2000, 1))), contained(&["f 644 x"])),
        ("an empty layer", one(tar()), contained(&[])),
        ("a folder whose link and content change places",
            one(tar().folder("d", 0o755).file("d/f", b"1").symlink("d", ".").file("d/f", b"2")),
            contained(&["d -> .", "f 644 2"])),
        ("a thousand folders in one another, removed",
            vec![tar().folder(&deep(400), 0o755), tar().file("d", b"x")], contained(&["d 644 x"])),
    ]
}

#[test]
fn hostile_tars_are_refused_or_contained() {
    let mut count = 0;
    for at in 0.. {
        let scratch = Scratch::new();
        let outside = scratch.canary().to_str().unwrap().to_owned();
        let mut cases = escapes(&outside);
        cases.extend(oddities());
        let total = cases.len();
        if at == total {
            break;
        }
        let (what, tars, fate) = cases.swap_remove(at);
        let tars: Vec<_> = tars.into_iter().map(RawTar::end).collect();
        let result = scratch.unpack(&tars);
        match (result, fate) {
            (Err(error), Refused(words)) => {
                let text = format!("{error:?}");
                assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {text}");
                assert!(text.contains(words), "{what}: {text}");
                // Whatever went wrong, the user learns in which blob.
                let layer = Digest::of(tars.last().unwrap()).to_string();
                assert!(text.contains(&layer), "{what}: {text}");
            }
            (Ok(_), Contained(expected)) => assert_eq!(scratch.tree(), expected, "{what}"),
            (Ok(_), Refused(_)) => panic!("{what}: it made {:?}", scratch.tree()),
            (Err(error), Contained(_)) => panic!("{what}: {error:?}"),
        }
        count += 1;
    }
    assert!(count > 100, "only {count} cases");
}

/// The same layer packed, so that the tar comes by way of the inflating thread.
#[test]
fn hostile_tars_are_refused_or_contained_when_they_are_packed() {
    for (what, mut tars, fate) in oddities() {
        let scratch = Scratch::new();
        let (Some(tar), true) = (tars.pop(), tars.is_empty()) else {
            continue;
        };
        let tar = tar.end();
        let mut memory = Memory::default();
        let layer = memory.add(media_type::LAYER_ZSTD, packed(media_type::LAYER_ZSTD, &tar));
        let root = memory.image(vec![(layer, Digest::of(&tar))]);
        let result = scratch.unpack_from(&memory, &memory.read(&root));
        match (result, fate) {
            (Err(error), Refused(words)) => {
                assert!(format!("{error:?}").contains(words), "{what}: {error:?}");
            }
            (result, Contained(expected)) => {
                assert!(result.is_ok(), "{what}: {result:?}");
                assert_eq!(scratch.tree(), expected, "{what}");
            }
            (Ok(_), Refused(_)) => panic!("{what}: it made {:?}", scratch.tree()),
        }
    }
}
