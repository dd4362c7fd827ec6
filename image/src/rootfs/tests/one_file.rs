//! Layers that promise to hold one file, and are unpacked side by side for it.

use super::*;

/// A layer whose descriptor says that it holds `path` and nothing else.
fn promising(memory: &mut Memory, path: &str, tar: Vec<u8>) -> (Descriptor, Digest) {
    let digest = Digest::of(&tar);
    let mut layer = memory.add(media_type::LAYER, tar);
    layer.annotations.insert(annotation::FILE.to_owned(), path.to_owned());
    (layer, digest)
}

#[test]
fn a_layer_that_breaks_its_promise_of_one_file_is_refused() {
    let tar = RawTar::new;
    for (what, tar) in [
        ("another file", tar().file("other", b"x")),
        ("a file besides", tar().file("a/f", b"x").file("b", b"x")),
        ("a folder besides", tar().folder("a", 0o755).file("a/f", b"x")),
        ("a folder of that name", tar().folder("a/f", 0o755)),
        ("a link of that name", tar().symlink("a/f", "/etc/passwd")),
        ("a hard link", tar().file("a/f", b"x").hard_link("a/f", "b")),
        ("a whiteout", tar().file("a/.wh.f", b"")),
        ("the root", tar().folder("./", 0o777).file("a/f", b"x")),
        ("nothing", tar()),
        ("a device", tar().kind("a/f", b'3')),
    ] {
        let mut memory = Memory::default();
        let pair = promising(&mut memory, "a/f", tar.end());
        let layer = pair.0.clone();
        let root = memory.image(vec![pair]);
        let result = Scratch::new().unpack_from(&memory, &memory.read(&root));
        let error = result.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Integrity, "{what}");
        let text = format!("{error:?}");
        assert!(text.contains(&layer.digest.to_string()), "{what}: {text}");
        assert!(text.contains("its descriptor names"), "{what}: {text}");
    }
}

#[test]
fn layers_of_one_file_are_unpacked_side_by_side() {
    for _ in 0..5 {
        let scratch = Scratch::new();
        let mut memory = Memory::default();
        let mut layers = Vec::new();
        let mut expected = Vec::new();
        for at in 0..40u64 {
            let path = format!("registry/{}/{at}/data", at % 3);
            let tar = RawTar::new().file(&path, &noise(3000, at)).end();
            layers.push(promising(&mut memory, &path, tar));
            expected.push((path, noise(3000, at)));
        }
        // Paths that meet: the last one wins, as if there were no threads.
        for (path, content) in [
            ("same", b"1"),
            ("same", b"2"),
            ("same", b"3"),
            ("was/below", b"4"),
            ("was", b"5"),
        ] {
            let tar = RawTar::new().file(path, content).end();
            layers.push(promising(&mut memory, path, tar));
        }
        expected.push(("same".to_owned(), b"3".to_vec()));
        expected.push(("was".to_owned(), b"5".to_vec()));
        let root = memory.image(layers);
        let footprint = scratch.unpack_from(&memory, &memory.read(&root)).unwrap();
        assert_eq!(footprint.entries, 45);
        for (path, content) in expected {
            assert!(fs::read(scratch.root().join(&path)).unwrap() == content, "{path}");
        }
    }
}

#[test]
fn layers_are_applied_side_by_side_only_where_their_paths_are_apart() {
    let mut memory = Memory::default();
    let layers: Vec<_> = ["a/b", "a/c", "a/b", "x", "x/y", "x/y/z", "x-", "q/r", "q"]
        .iter()
        .map(|path| promising(&mut memory, path, Vec::new()).0)
        .collect();
    let plain = memory.add(media_type::LAYER, Vec::new());
    let pair = |layer| Pair {
        layer,
        diff_id: Digest::of(b""),
    };
    let mut rest: Vec<_> = layers.iter().chain([&plain, &plain]).map(pair).collect();
    let mut runs = Vec::new();
    while !rest.is_empty() {
        let run = side_by_side(&rest);
        rest.drain(..run);
        runs.push(run);
    }
    assert_eq!(runs, [2, 2, 1, 3, 1, 1, 1]);
}
