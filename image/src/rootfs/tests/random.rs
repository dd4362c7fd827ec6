//! What nobody thought of: random damage, and entries in random order.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the order of files, folders, links and whiteouts: nothing beside the root changes.
    #[test]
    fn entries_in_any_order_stay_inside(
        entries in prop::collection::vec((0u8..5, 0usize..17, 0usize..11), 1..25),
        border in 0usize..25,
    ) {
        let scratch = Scratch::new();
        let canary = scratch.canary();
        let paths = [
            "a", "b", "a/b", "b/a", "a/a", "b/b", "a/b/a", "b/a/secret", "a/secret", "b/folder",
            ".wh.a", "a/.wh.b", "a/.wh.secret", "b/.wh..wh..opq", "a/.wh..wh..opq", "./b/", "a/canary",
        ];
        let targets = [
            "..", "../canary", "../..", "a", "b", "a/b", "b/secret", ".", "../root/a", "a/secret",
            canary.to_str().unwrap(),
        ];
        let mut tars = [RawTar::new(), RawTar::new()];
        for (at, (kind, path, target)) in entries.into_iter().enumerate() {
            let tar = &mut tars[usize::from(at >= border)];
            let (path, target) = (paths[path], targets[target]);
            *tar = match kind {
                0 => tar.clone().file(path, b"changed"),
                1 => tar.clone().folder(path, 0o777),
                2 | 3 => tar.clone().symlink(path, target),
                _ => tar.clone().hard_link(path, target),
            };
        }
        // Most of them meet something that is refused sooner or later; each shorter one is a case of its own.
        if let Err(error) = scratch.unpack(&tars.map(RawTar::end)) {
            prop_assert!([ErrorKind::Integrity, ErrorKind::Disk].contains(&error.kind()), "{error:?}");
        }
    }

    /// Whatever is done to a tar: no panic, and nothing beside the root changes.
    #[test]
    fn mutated_tars_stay_inside(
        edits in prop::collection::vec((0usize..12_000, any::<u8>(), 0u8..4), 1..30),
        mend in any::<bool>(),
    ) {
        let scratch = Scratch::new();
        let outside = scratch.canary();
        let mut bytes = ordinary()
            .symlink("out", outside.to_str().unwrap())
            .symlink("up", "../canary")
            .folder("up2", 0o755)
            .file("out2/secret", b"x")
            .pax(&[("path", b"ab/ww/ww/canary/secret"), ("SCHILY.xattr.user.a", b"b")])
            .file("renamed", b"x")
            .file("dir/.wh.secret", b"")
            .hard_link("hard", "bin/tool")
            .end();
        for (at, value, how) in edits {
            let (length, blocks) = (bytes.len(), bytes.len() / 512);
            match how {
                0 => bytes[at % length] = value,
                1 => bytes[at % length] ^= 1 << (value % 8),
                // Whole blocks, as another tar might order them.
                2 => {
                    let (from, to) = (at % blocks * 512, usize::from(value) % blocks * 512);
                    bytes.copy_within(from..from + 512, to);
                }
                _ => bytes.truncate((at % length).max(512)),
            }
        }
        if mend {
            // Right checksums let more of the nonsense through.
            for block in bytes.chunks_exact_mut(512) {
                if block[257..262] == *b"ustar" {
                    let mut header = tar::Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        match scratch.unpack(&[bytes]) {
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
