//! Archives that come through a pipe.

use std::io::Cursor;

use super::*;
use crate::graph;

fn input(bytes: &[u8]) -> Input {
    Box::new(Cursor::new(bytes.to_vec()))
}

/// Takes a stream into a store, as `load -i -` does.
fn receive(store: &Store, bytes: &[u8]) -> Result<Vec<Copied>> {
    let mut received = Received::read(input(bytes), "the pipe".to_owned(), store, &Silent)?;
    let mut all = Vec::new();
    for (name, root) in received.images().to_vec() {
        let sink = StoreSink {
            store,
            root: root.clone(),
            names: name.into_iter().collect(),
        };
        let copied = copy(&received, &root, Box::new(sink), 2, &Silent)?;
        all.push(received.account(&root, copied)?);
    }
    Ok(all)
}

fn stream(bytes: &[u8]) -> Result<ArchiveStream> {
    ArchiveStream::open(input(bytes), "the pipe".to_owned(), None)
}

/// The files of a tar, in their order.
fn files(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let path = entry.path().unwrap().display().to_string();
        if !path.ends_with('/') {
            files.push((path, content));
        }
    }
    files
}

fn joined(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let tar = files
        .into_iter()
        .fold(RawTar::new(), |tar, (path, content)| tar.file(&path, &content));
    tar.end()
}

#[test]
fn any_order_is_taken_in_and_nothing_twice() {
    let scratch = Scratch::new();
    let (path, _, root) = saved(&scratch, "a.b/c:1");
    let whole = fs::read(path).unwrap();
    let name = "a.b/c:1".parse().unwrap();
    let mut orders = vec![whole.clone()];
    let mut turned = files(&whole);
    turned.reverse();
    orders.push(joined(turned.clone()));
    turned.rotate_left(3);
    orders.push(joined(turned));
    for bytes in orders {
        let store = Store::open(&scratch.path("root")).unwrap();
        let copied = receive(&store, &bytes).unwrap();
        assert_eq!((copied[0].blobs, copied[0].skipped), (4, 0));
        assert_eq!(store.resolve(&name).unwrap(), Some(root.clone()));
        let again = receive(&store, &bytes).unwrap();
        assert_eq!((again[0].blobs, again[0].skipped), (0, 4));
        fs::remove_dir_all(scratch.path("root")).unwrap();
    }
}

#[test]
fn a_stream_that_is_cut_or_damaged_gives_nothing_a_name() {
    let scratch = Scratch::new();
    let (path, _, _) = saved(&scratch, "a.b/c:1");
    let whole = fs::read(path).unwrap();
    let content = 1 + whole.iter().rposition(|&byte| byte != 0).unwrap();
    let store = Store::open(&scratch.path("root")).unwrap();
    for cut in (0..content).step_by(997).chain([content - 1]) {
        let error = receive(&store, &whole[..cut]).unwrap_err();
        let expected = [ErrorKind::Integrity, ErrorKind::NotFound];
        assert!(expected.contains(&error.kind()), "{cut}: {error:?}");
        assert_eq!(store.list().unwrap(), [], "{cut}");
        store.prune().unwrap();
    }
    for at in [30, 700].into_iter().chain((2000..content).step_by(3001)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        if receive(&store, &bytes).is_err() {
            assert_eq!(store.list().unwrap(), [], "{at}");
        }
        fs::remove_dir_all(scratch.path("root")).unwrap();
        Store::open(&scratch.path("root")).unwrap();
    }
}

#[test]
fn what_an_interrupted_stream_brought_is_not_written_again() {
    let scratch = Scratch::new();
    let (path, _, _) = saved(&scratch, "a.b/c:1");
    let whole = fs::read(path).unwrap();
    let blob = noise(30_000, 1);
    let at = whole.windows(64).position(|bytes| *bytes == blob[..64]).unwrap();
    let store = Store::open(&scratch.path("root")).unwrap();
    receive(&store, &whole[..at + 20_000]).unwrap_err();
    let partial = store.path().join("partial").join(Digest::of(&blob).hex());
    assert!((1..=20_000).contains(&fs::metadata(&partial).unwrap().len()));
    let copied = receive(&store, &whole).unwrap();
    assert_eq!(copied[0].blobs + copied[0].skipped, 4);
    assert!(!partial.exists());
    // A left-over that is wrong is gone after it was noticed.
    fs::remove_file(store.blob_path(&Digest::of(&blob))).unwrap();
    fs::write(&partial, b"wrong").unwrap();
    receive(&store, &whole).unwrap_err();
    receive(&store, &whole).unwrap();
}

#[test]
fn the_source_reads_layers_in_their_order_and_says_so() {
    let scratch = Scratch::new();
    let (path, memory, root) = saved(&scratch, "a.b/c:1");
    let whole = fs::read(path).unwrap();
    let layers: Vec<_> = graph::blobs(&memory, &root).unwrap();
    let layers: Vec<_> = layers.into_iter().filter(|blob| !graph::is_json(blob)).collect();
    let read = |source: &ArchiveStream, layer: &Descriptor| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source.open(layer, 0)?.read_to_end(&mut bytes).or_io(|| "reading")?;
        Ok(bytes)
    };
    let source = stream(&whole).unwrap();
    assert_eq!(source.images()[0].1, root);
    assert_eq!(document(&source, &root).unwrap(), document(&memory, &root).unwrap());
    for (at, layer) in layers.iter().enumerate() {
        assert!(read(&source, layer).unwrap() == noise(30_000, at as u64));
    }
    source.drain().unwrap();
    let error = read(&source, &layers[0]).unwrap_err();
    assert!(error.remedy().unwrap().contains("sealrs load -i -"), "{error:?}");

    // A layer that is left out of the reading can't be had later.
    let source = stream(&whole).unwrap();
    read(&source, &layers[1]).unwrap();
    assert_eq!(read(&source, &layers[0]).unwrap_err().kind(), ErrorKind::Input);
    // A layer of which only a part is read does not spoil the next.
    let source = stream(&whole).unwrap();
    source.open(&layers[0], 100).unwrap().read_exact(&mut [0; 100]).unwrap();
    assert!(read(&source, &layers[1]).unwrap() == noise(30_000, 1));

    let mut turned = files(&whole);
    turned.reverse();
    let error = stream(&joined(turned)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.remedy().unwrap().contains("sealrs load -i -"), "{error:?}");
}

#[test]
fn what_is_no_oci_archive_is_refused_in_words() {
    let scratch = Scratch::new();
    let store = Store::open(&scratch.path("root")).unwrap();
    let layer = RawTar::new().file("a", b"1").end();
    let docker = docker_archive("null", &[("l", layer.clone())], &[Digest::of(&layer)]).end();
    let large = docker_archive("null", &[("l", vec![0; (16 << 20) + 1])], &[Digest::of(&layer)]).end();
    let packed = zstd::encode_all(docker.as_slice(), 1).unwrap();
    for (what, bytes, words) in [
        ("nothing", Vec::new(), "it is empty"),
        ("noise", noise(5000, 1), "it is no archive"),
        ("docker's", docker, "Docker archive"),
        ("docker's, early", large, "no OCI archive"),
        ("packed", packed, "unzstd |"),
        (
            "twice",
            RawTar::new().file("index.json", br#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}]}"#).file("./index.json", b"{}").end(),
            "twice",
        ),
    ] {
        for error in [receive(&store, &bytes).unwrap_err(), stream(&bytes).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Integrity, "{what}");
            let text = format!("{error:?}");
            assert!(text.contains(words) && text.contains("the pipe"), "{what}: {text}");
        }
    }
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn a_damaged_document_of_the_store_is_replaced() {
    let scratch = Scratch::new();
    let (path, _, root) = saved(&scratch, "a.b/c:1");
    let whole = fs::read(path).unwrap();
    let mut turned = files(&whole);
    turned.reverse();
    let store = Store::open(&scratch.path("root")).unwrap();
    for bytes in [whole, joined(turned)] {
        receive(&store, &bytes).unwrap();
        let manifest = store.blob_path(&root.digest);
        let mut spoilt = fs::read(&manifest).unwrap();
        spoilt[3] ^= 1;
        fs::write(&manifest, spoilt).unwrap();
        receive(&store, &bytes).unwrap();
        document(&store, &root).unwrap();
    }
}
