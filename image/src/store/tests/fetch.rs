//! Copying blobs in: resuming, refusing, and several at once.

use super::*;

#[test]
fn fetch_goes_on_where_it_was_cut() {
    let Scratch { folder: _folder, store } = scratch();
    let mut memory = Memory::default();
    let bytes = noise(300_000, 1);
    let blob = memory.add(media_type::LAYER, bytes.clone());
    let partial = format!("partial/{}", blob.digest.hex());

    memory.breaks_at = Some(120_000);
    let error = store.fetch(&blob, &memory, &task()).unwrap_err();
    assert!(format!("{error:?}").contains(&blob.digest.to_string()));
    assert!(!store.has(&blob.digest));
    let kept = fs::metadata(store.path().join(&partial)).unwrap().len();
    assert_eq!(kept, 120_000);

    // An early end is incomplete as well, not wrong.
    memory.breaks_at = None;
    memory.ends_at = Some(200_000);
    let error = store.fetch(&blob, &memory, &task()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(error.to_string().contains("200000 of 300000"), "{error}");
    let kept = fs::metadata(store.path().join(&partial)).unwrap().len();
    assert_eq!(kept, 200_000);

    memory.ends_at = None;
    store.fetch(&blob, &memory, &task()).unwrap();
    assert_eq!(memory.offsets(blob.digest), [0, 120_000, 200_000]);
    assert_eq!(fs::read(store.blob_path(&blob.digest)).unwrap(), bytes);
    assert_eq!(files(&store, "partial"), BTreeSet::new());

    // What is there is not asked for again.
    store.fetch(&blob, &memory, &task()).unwrap();
    assert_eq!(memory.offsets(blob.digest).len(), 3);
}

#[test]
fn a_whole_partial_needs_nothing_from_the_source() {
    let Scratch { folder: _folder, store } = scratch();
    let mut memory = Memory::default();
    let blob = memory.add(media_type::LAYER, noise(50_000, 2));
    fs::write(store.path().join("partial").join(blob.digest.hex()), noise(50_000, 2)).unwrap();
    store.fetch(&blob, &memory, &task()).unwrap();
    assert!(memory.offsets(blob.digest).is_empty());
    assert!(store.has(&blob.digest));
}

#[test]
fn a_wrong_partial_is_thrown_away_and_the_blob_copied_anew() {
    for left in [noise(1000, 9), noise(50_000, 9), noise(50_001, 9)] {
        let Scratch { folder: _folder, store } = scratch();
        let mut memory = Memory::default();
        let bytes = noise(50_000, 3);
        let blob = memory.add(media_type::LAYER, bytes.clone());
        fs::write(store.path().join("partial").join(blob.digest.hex()), &left).unwrap();
        store.fetch(&blob, &memory, &task()).unwrap();
        assert_eq!(memory.offsets(blob.digest).last(), Some(&0));
        assert_eq!(fs::read(store.blob_path(&blob.digest)).unwrap(), bytes);
        assert_eq!(files(&store, "partial"), BTreeSet::new());
    }
}

#[test]
fn a_blob_that_is_not_what_it_says_never_gets_in() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 3] = [
        ("a flipped bit", |bytes| bytes[40_000] ^= 1),
        ("a byte too many", |bytes| bytes.push(0)),
        ("other bytes", |bytes| *bytes = noise(50_000, 99)),
    ];
    for (what, change) in changes {
        for left in [0, 1000] {
            let Scratch { folder: _folder, store } = scratch();
            let mut memory = Memory::default();
            let blob = memory.add(media_type::LAYER, noise(50_000, 4));
            memory.damage(blob.digest, change);
            let partial = store.path().join("partial").join(blob.digest.hex());
            fs::write(partial, noise(left, 4)).unwrap();
            let error = store.fetch(&blob, &memory, &task()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity, "{what}");
            assert!(error.to_string().contains(&blob.digest.to_string()));
            assert_eq!(files(&store, "partial"), BTreeSet::new(), "{what}");
            assert_eq!(files(&store, "blobs/sha256"), BTreeSet::new(), "{what}");
        }
    }
}

#[test]
fn a_descriptor_with_an_absurd_size_is_an_error() {
    let Scratch { folder: _folder, store } = scratch();
    let mut memory = Memory::default();
    let mut blob = memory.add(media_type::LAYER, b"small".as_slice());
    blob.size = u64::MAX;
    let envelope = single_file("f", 0o644, 5).unwrap();
    for _ in 0..2 {
        let error = store.fetch(&blob, &memory, &task()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        let error = store.fetch_enveloped(&blob, &envelope, &memory, &task());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Integrity);
    }
}

#[test]
fn an_enveloped_blob_is_a_layer_of_one_file() {
    for size in [0usize, 1, 512, 300_000] {
        let Scratch { folder: _folder, store } = scratch();
        let mut memory = Memory::default();
        let bytes = noise(size, 5);
        let blob = memory.add(media_type::LAYER_GZIP, bytes.clone());
        let envelope = single_file("registry/x/data", 0o644, size as u64).unwrap();
        let whole = [envelope.before.clone(), bytes.clone(), envelope.after.clone()].concat();
        let expected = (Digest::of(&whole), whole.len() as u64);

        if size > 1000 {
            memory.breaks_at = Some(100_000);
            store.fetch_enveloped(&blob, &envelope, &memory, &task()).unwrap_err();
            memory.breaks_at = None;
        }
        let layer = store.fetch_enveloped(&blob, &envelope, &memory, &task()).unwrap();
        assert_eq!(layer, expected);
        if size > 1000 {
            assert_eq!(memory.offsets(blob.digest), [0, 100_000]);
        }
        assert_eq!(fs::read(store.blob_path(&layer.0)).unwrap(), whole);
        assert!(!store.has(&blob.digest) || blob.digest == layer.0);
        assert_eq!(files(&store, "partial"), BTreeSet::new());

        // The tar crate agrees that it is one.
        let mut tar = tar::Archive::new(whole.as_slice());
        let mut entry = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path_bytes().as_ref(), b"registry/x/data");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert_eq!(content, bytes);

        // A partial of another envelope is not continued.
        let other = single_file("registry/y/data", 0o644, size as u64).unwrap();
        let partial = store
            .path()
            .join("partial")
            .join(format!("{}.layer", blob.digest.hex()));
        fs::write(partial, &whole[..envelope.before.len() + size]).unwrap();
        let layer = store.fetch_enveloped(&blob, &other, &memory, &task()).unwrap();
        let whole = [other.before, bytes, other.after].concat();
        assert_eq!(layer.0, Digest::of(&whole));
        assert!(fs::read(store.blob_path(&layer.0)).unwrap() == whole);
    }
}

#[test]
fn two_threads_that_want_one_blob_copy_it_once() {
    let Scratch { folder: _folder, store } = scratch();
    let mut memory = Memory::default();
    let blob = memory.add(media_type::LAYER, noise(200_000, 6));
    memory.slow = true;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| store.fetch(&blob, &memory, &task()).unwrap());
        }
    });
    assert_eq!(memory.offsets(blob.digest), [0]);
    assert!(store.has(&blob.digest));
    assert_eq!(files(&store, "partial"), BTreeSet::new());
}

/// Who gets wrong bytes removes the file that others wait for: they must notice, and make their own.
#[test]
fn wrong_bytes_of_one_do_not_harm_the_others() {
    for _ in 0..3 {
        let Scratch { folder: _folder, store } = scratch();
        let (mut right, mut wrong) = (Memory::default(), Memory::default());
        let blob = right.add(media_type::LAYER, noise(30_000, 6));
        wrong.add(media_type::LAYER, noise(30_000, 6));
        wrong.damage(blob.digest, |bytes| bytes[7] ^= 1);
        right.slow = true;
        wrong.slow = true;
        thread::scope(|scope| {
            let misled = scope.spawn(|| store.fetch(&blob, &wrong, &task()));
            thread::sleep(std::time::Duration::from_millis(3));
            for _ in 0..3 {
                scope.spawn(|| store.fetch(&blob, &right, &task()).unwrap());
            }
            drop(misled.join().unwrap());
        });
        assert!(store.has(&blob.digest));
        assert_eq!(files(&store, "partial"), BTreeSet::new());
    }
}

#[test]
fn threads_that_all_meet_wrong_bytes_all_fail() {
    let Scratch { folder: _folder, store } = scratch();
    let mut memory = Memory::default();
    let blob = memory.add(media_type::LAYER, noise(50_000, 6));
    memory.damage(blob.digest, |bytes| bytes[7] ^= 1);
    memory.slow = true;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let error = store.fetch(&blob, &memory, &task()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Integrity);
            });
        }
    });
    assert_eq!(files(&store, "partial"), BTreeSet::new());
}

#[test]
fn two_processes_that_want_one_blob_both_get_it() {
    const NAME: &str = "store::tests::fetch::two_processes_that_want_one_blob_both_get_it";
    let mut memory = Memory::default();
    let blob = memory.add(media_type::LAYER, noise(500_000, 7));
    memory.slow = true;
    let Scratch { folder, store } = match given() {
        Some(root) => {
            let store = Store::open(Path::new(&root)).unwrap();
            store.fetch(&blob, &memory, &task()).unwrap();
            println!("\nasked {} times", memory.offsets(blob.digest).len());
            return;
        }
        None => scratch(),
    };
    let children: Vec<_> = (0..3)
        .map(|_| {
            again(NAME, folder.path().to_str().unwrap())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut asked = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        asked += u32::from(text.contains("\nasked 1 times"));
    }
    assert_eq!(asked, 1);
    let stored = fs::read(store.blob_path(&blob.digest)).unwrap();
    assert_eq!(Digest::of(&stored), blob.digest);
    assert_eq!(files(&store, "partial"), BTreeSet::new());
}
