//! Docker archives that are written.

use super::*;
use crate::graph;

/// An image of four layers: plain, gzip, zstd, and the plain one once more.
fn packed_image(memory: &mut Memory) -> (Descriptor, Vec<Vec<u8>>) {
    let tars: Vec<Vec<u8>> = ["a", "b", "c"]
        .iter()
        .map(|path| RawTar::new().file(path, &noise(20_000, path.len() as u64)).end())
        .collect();
    let layers = vec![
        (memory.add(media_type::LAYER, tars[0].clone()), Digest::of(&tars[0])),
        (memory.add(media_type::LAYER_GZIP, gzip(&tars[1])), Digest::of(&tars[1])),
        (
            memory.add(media_type::LAYER_ZSTD, zstd::encode_all(tars[2].as_slice(), 1).unwrap()),
            Digest::of(&tars[2]),
        ),
        (memory.add(media_type::LAYER, tars[0].clone()), Digest::of(&tars[0])),
    ];
    (memory.image(layers), tars)
}

#[test]
fn it_reads_back_with_plain_layers() {
    let scratch = Scratch::new();
    let mut memory = Memory::default();
    let (root, tars) = packed_image(&mut memory);
    let path = scratch.path("docker.tar");
    let names = ["x/y:1", "localhost:5000/z:2"].map(|name| name.parse().unwrap());
    let sink = DockerArchiveSink::create(&path, &root, &names, false).unwrap();
    copy(&memory, &root, Box::new(sink), 4, &Silent).unwrap();
    assert_eq!(scratch.names(), ["docker.tar"]);

    let archive = Archive::open(&path).unwrap();
    let found: Vec<_> = archive.images().iter().filter_map(|(name, _)| name.clone()).collect();
    assert_eq!(found, names);
    let (store, _) = load(&scratch, &archive).unwrap();
    let image = &archive.images()[0].1;
    let manifest: Manifest = spec::parse(&document(&store, image).unwrap(), "").unwrap();
    let digests: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
    assert_eq!(digests, [0, 1, 2, 0].map(|at| Digest::of(&tars[at])));
    assert!(
        manifest
            .layers
            .iter()
            .all(|layer| layer.media_type == media_type::LAYER)
    );

    // What is saved twice is the same file.
    let again = scratch.path("again.tar");
    let sink = DockerArchiveSink::create(&again, &root, &names, false).unwrap();
    copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap();
    assert!(fs::read(path).unwrap() == fs::read(again).unwrap());
}

#[test]
fn what_is_damaged_leaves_nothing() {
    let scratch = Scratch::new();
    let mut whole = Memory::default();
    let (root, _) = packed_image(&mut whole);
    let blobs = graph::blobs(&whole, &root).unwrap();
    for blob in &blobs {
        let mut memory = Memory::default();
        packed_image(&mut memory);
        memory.damage(blob.digest, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        let copied = DockerArchiveSink::create(&scratch.path("x.tar"), &root, &[], false)
            .and_then(|sink| copy(&memory, &root, Box::new(sink), 1, &Silent));
        let error = copied.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(format!("{error:?}").contains(&blob.digest.to_string()), "{error:?}");
        assert_eq!(scratch.names(), Vec::<String>::new());
    }
    // A config that tells of other layers.
    let mut memory = Memory::default();
    let layer = memory.add(media_type::LAYER_GZIP, gzip(b"tar"));
    let root = memory.image(vec![(layer, Digest::of(b"another"))]);
    let sink = DockerArchiveSink::create(&scratch.path("x.tar"), &root, &[], false).unwrap();
    let error = copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

#[test]
fn it_holds_one_platform() {
    let scratch = Scratch::new();
    let index = Descriptor::of(media_type::INDEX, b"{}");
    let error = DockerArchiveSink::create(&scratch.path("x.tar"), &index, &[], false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert_eq!(scratch.names(), Vec::<String>::new());
}

#[test]
fn a_full_disk_leaves_no_docker_archive() {
    let Some(disk) = Tmpfs::mount("40k") else { return };
    let mut memory = Memory::default();
    let (root, _) = packed_image(&mut memory);
    let sink = DockerArchiveSink::create(&disk.path().join("x.tar"), &root, &[], false).unwrap();
    let error = copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error:?}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
}
