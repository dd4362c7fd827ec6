//! Archives of both kinds, whole and damaged.

mod delta;
mod docker_sink;
mod split;
mod stream;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use super::*;
use crate::copy::{Copied, StoreSink, copy};
use crate::error::Result;
use crate::progress::Silent;
use crate::source::document;
use crate::spec::{Config, Manifest, media_type};
use crate::store::Store;
use crate::testing::{Memory, RawTar, Tmpfs, noise};

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("x.tar");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn two_layers(memory: &mut Memory) -> Descriptor {
    let layers = (0..2)
        .map(|at| {
            let bytes = noise(30_000, at);
            (memory.add(media_type::LAYER, bytes.clone()), Digest::of(&bytes))
        })
        .collect();
    memory.image(layers)
}

/// Saves an image of two layers.
fn saved(scratch: &Scratch, name: &str) -> (PathBuf, Memory, Descriptor) {
    let mut memory = Memory::default();
    let root = two_layers(&mut memory);
    let path = scratch.path("saved.tar");
    let name: Reference = name.parse().unwrap();
    let sink = ArchiveSink::create(&path, &root, Some(&name), false).unwrap();
    copy(&memory, &root, Box::new(sink), 4, &Silent).unwrap();
    (path, memory, root)
}

/// Loads every image of an archive into a fresh store, where each blob is verified.
fn load(scratch: &Scratch, archive: &Archive) -> Result<(Store, Vec<Copied>)> {
    let store = Store::open(&scratch.path("root")).unwrap();
    let mut copied = Vec::new();
    for (name, root) in archive.images() {
        let sink = StoreSink {
            store: &store,
            root: root.clone(),
            names: name.iter().cloned().collect(),
        };
        copied.push(copy(archive, root, Box::new(sink), 2, &Silent)?);
    }
    Ok((store, copied))
}

fn failure(path: &Path) -> String {
    let error = Archive::open(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
    let text = format!("{error:?}");
    assert!(text.contains(&path.display().to_string()), "{text}");
    text
}

#[test]
fn what_was_saved_loads_again() {
    let scratch = Scratch::new();
    let (path, memory, root) = saved(&scratch, "a.b/c:1");
    assert_eq!(scratch.names(), ["saved.tar"]);
    let archive = Archive::open(&path).unwrap();
    let name: Reference = "a.b/c:1".parse().unwrap();
    assert_eq!(archive.images(), [(Some(name.clone()), root.clone())]);
    assert_eq!(document(&archive, &root).unwrap(), document(&memory, &root).unwrap());

    let (store, copied) = load(&scratch, &archive).unwrap();
    assert_eq!(copied[0].blobs, 4);
    assert_eq!(store.resolve(&name).unwrap(), Some(root.clone()));
    let (_, copied) = load(&scratch, &archive).unwrap();
    assert_eq!((copied[0].blobs, copied[0].skipped), (0, 4));

    // Saving the same image again gives the same bytes.
    let again = scratch.path("again.tar");
    let sink = ArchiveSink::create(&again, &root, Some(&name), false).unwrap();
    copy(&store, &root, Box::new(sink), 1, &Silent).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap());
}

#[test]
fn the_documents_come_first() {
    let scratch = Scratch::new();
    let (path, _, root) = saved(&scratch, "a.b/c:1");
    let bytes = fs::read(path).unwrap();
    let mut tar = tar::Archive::new(bytes.as_slice());
    let names: Vec<String> = tar
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().to_vec()).unwrap())
        .collect();
    let manifest = format!("blobs/sha256/{}", root.digest.hex());
    assert_eq!(
        &names[..5],
        ["oci-layout", "index.json", "blobs/", "blobs/sha256/", &manifest]
    );
    assert_eq!(names.len(), 8);
}

#[test]
fn a_blob_is_read_from_any_offset() {
    let scratch = Scratch::new();
    let (path, memory, root) = saved(&scratch, "a.b/c:1");
    let archive = Archive::open(&path).unwrap();
    let manifest: Manifest = spec::parse(&document(&memory, &root).unwrap(), "").unwrap();
    let layer = &manifest.layers[1];
    for offset in [0, 1, 29_999, 30_000, 30_001, u64::MAX] {
        let mut bytes = Vec::new();
        archive.open(layer, offset).unwrap().read_to_end(&mut bytes).unwrap();
        let start = usize::try_from(offset.min(30_000)).unwrap();
        assert!(bytes == noise(30_000, 1)[start..], "from {offset}");
    }
}

#[test]
fn a_file_that_is_there_is_replaced_only_on_demand() {
    let scratch = Scratch::new();
    let mut memory = Memory::default();
    let root = two_layers(&mut memory);
    let path = scratch.write(b"precious");
    let error = ArchiveSink::create(&path, &root, None, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let sink = ArchiveSink::create(&path, &root, None, true).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap();
    assert_eq!(Archive::open(&path).unwrap().images(), [(None, root)]);
    assert_eq!(scratch.names(), ["x.tar"]);
}

#[test]
fn a_save_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    let mut memory = Memory::default();
    let root = two_layers(&mut memory);
    memory.damage(Digest::of(&noise(30_000, 1)), |bytes| bytes[5] ^= 1);
    let sink = ArchiveSink::create(&scratch.path("new.tar"), &root, None, false).unwrap();
    assert_eq!(scratch.names(), ["new.tar.partial"]);
    let error = copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(error.to_string().contains(&Digest::of(&noise(30_000, 1)).to_string()));
    assert_eq!(scratch.names(), Vec::<String>::new());

    let nowhere = scratch.path("no/such/folder/new.tar");
    let error = ArchiveSink::create(&nowhere, &root, None, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn two_that_save_to_one_file_do_not_mix() {
    let scratch = Scratch::new();
    let mut memory = Memory::default();
    let root = two_layers(&mut memory);
    memory.slow = true;
    let path = scratch.path("one.tar");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let sink = ArchiveSink::create(&path, &root, None, true).unwrap();
                copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap();
            });
        }
    });
    load(&scratch, &Archive::open(&path).unwrap()).unwrap();
    let mut names = scratch.names();
    names.sort();
    assert_eq!(names, ["one.tar", "root"]);
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_was_cut() {
    let scratch = Scratch::new();
    let (path, _, root) = saved(&scratch, "a.b/c:1");
    let whole = fs::read(&path).unwrap();
    // Cut within the zeros at its end it lacks nothing.
    let content = 1 + whole.iter().rposition(|&byte| byte != 0).unwrap();
    for cut in (0..content).step_by(311).chain([content - 1]) {
        let path = scratch.write(&whole[..cut]);
        let error = match Archive::open(&path) {
            Err(error) => error,
            // Between two entries nothing shows but that blobs are missing.
            Ok(archive) => load(&scratch, &archive).unwrap_err(),
        };
        let expected = [ErrorKind::Integrity, ErrorKind::NotFound];
        assert!(expected.contains(&error.kind()), "{cut}: {error:?}");
        let text = format!("{error:?}");
        assert!(text.contains(&path.display().to_string()), "{cut}: {text}");
        let _ = fs::remove_dir_all(scratch.path("root"));
    }
    // Inside a blob it shows at once, without a look at the bytes.
    let blob = noise(30_000, 1);
    let inside = whole.windows(64).position(|bytes| *bytes == blob[..64]);
    let text = failure(&scratch.write(&whole[..inside.unwrap() + 29_999]));
    assert!(text.contains("cut off inside `blobs/sha256/"), "{text}");
    let path = scratch.write(&whole[..content]);
    assert_eq!(Archive::open(&path).unwrap().images()[0].1, root);
}

#[test]
fn a_flipped_bit_names_its_blob() {
    let scratch = Scratch::new();
    let (path, _, _) = saved(&scratch, "a.b/c:1");
    let whole = fs::read(&path).unwrap();
    for blob in 0..2 {
        let mut bytes = whole.clone();
        let content = noise(30_000, blob);
        let at = whole.windows(64).position(|bytes| *bytes == content[..64]);
        bytes[at.unwrap() + 12_345] ^= 4;
        let archive = Archive::open(&scratch.write(&bytes)).unwrap();
        let error = load(&scratch, &archive).unwrap_err();
        let text = format!("{error:?}");
        let digest = Digest::of(&content);
        assert!(text.contains(&digest.to_string()), "{text}");
        let store = Store::open(&scratch.path("root")).unwrap();
        assert_eq!(store.list().unwrap(), []);
        assert!(!store.has(&digest));
        fs::remove_dir_all(scratch.path("root")).unwrap();
    }
}

#[test]
fn a_lacking_blob_is_named() {
    let scratch = Scratch::new();
    let (path, memory, root) = saved(&scratch, "a.b/c:1");
    let manifest: Manifest = spec::parse(&document(&memory, &root).unwrap(), "").unwrap();
    let blobs = [&root, &manifest.config, &manifest.layers[1]];
    for blob in blobs {
        let bytes = fs::read(&path).unwrap();
        let mut left = RawTar::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
            if name.ends_with('/') || name.contains(&blob.digest.hex()) {
                continue;
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            left = left.file(&name, &content);
        }
        let archive = Archive::open(&scratch.write(&left.end())).unwrap();
        let error = load(&scratch, &archive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let text = format!("{error:?}");
        assert!(text.contains(&blob.digest.to_string()), "{text}");
        let store = Store::open(&scratch.path("root")).unwrap();
        assert_eq!(store.list().unwrap(), []);
        fs::remove_dir_all(scratch.path("root")).unwrap();
    }
}

#[test]
fn what_is_no_archive_is_refused_in_words() {
    let scratch = Scratch::new();
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    let tar = RawTar::new;
    let index = |text: &str| tar().file("oci-layout", layout).file("index.json", text.as_bytes());
    let huge = {
        let mut header = RawTar::header("index.json", b'0', 0);
        header.set_size((16 << 20) + 1);
        header.set_cksum();
        tar().raw(&header, &vec![b' '; (16 << 20) + 1])
    };
    for (what, bytes, words) in [
        ("empty", Vec::new(), "it is empty"),
        ("text", noise(5000, 1), "it is no archive"),
        ("short", b"hello".to_vec(), "it is no archive"),
        ("zeros", vec![0; 10_240], "neither an `index.json`"),
        ("another tar", tar().file("a", b"b").end(), "neither an `index.json`"),
        ("no JSON", index("{").end(), "cannot be read as an OCI document"),
        ("other JSON", index("[]").end(), "cannot be read as an OCI document"),
        (
            "no image",
            index(r#"{"schemaVersion":2,"manifests":[]}"#).end(),
            "lists no image",
        ),
        (
            "null",
            index(r#"{"schemaVersion":2,"manifests":null}"#).end(),
            "lists no image",
        ),
        (
            "twice",
            index("{}").file("index.json", b"{}").end(),
            "it holds `index.json` twice",
        ),
        (
            "twice, otherwise written",
            index("{}").file("./index.json", b"{}").end(),
            "it holds `index.json` twice",
        ),
        ("a huge index", huge.end(), "16777217 bytes"),
        ("a folder as index", tar().folder("index.json", 0o755).end(), "neither"),
        (
            "a link as index",
            tar().symlink("index.json", "/etc/passwd").end(),
            "neither",
        ),
        (
            "a bad digest",
            index(r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:../x","size":1}]}"#).end(),
            "cannot be read as an OCI document",
        ),
        (
            "a negative size",
            index(&format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{}","size":-1}}]}}"#,
                Digest::of(b"")
            ))
            .end(),
            "cannot be read as an OCI document",
        ),
    ] {
        let text = failure(&scratch.write(&bytes));
        assert!(text.contains(words), "{what}: {text}");
    }
}

#[test]
fn sizes_beyond_all_bounds_are_refused() {
    let scratch = Scratch::new();
    for size in [1u64 << 40, 1 << 60, (1 << 60) + 1, (1 << 63) - 512, u64::MAX] {
        let mut header = RawTar::header("blobs/sha256/x", b'0', 0);
        header.set_size(size);
        header.set_cksum();
        let tar = RawTar::new().raw(&header, b"x").end();
        failure(&scratch.write(&tar));
        let pax = RawTar::new()
            .pax(&[("size", size.to_string().as_bytes())])
            .file("blobs/sha256/x", b"x")
            .end();
        failure(&scratch.write(&pax));
    }
}

#[test]
fn a_packed_archive_says_how_to_unpack_it() {
    let scratch = Scratch::new();
    let (path, _, _) = saved(&scratch, "a.b/c:1");
    let whole = fs::read(&path).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    for (bytes, tool) in [
        (gzip.finish().unwrap(), "gunzip"),
        (zstd::encode_all(whole.as_slice(), 1).unwrap(), "unzstd"),
    ] {
        let error = Archive::open(&scratch.write(&bytes)).unwrap_err();
        assert!(error.remedy().unwrap().contains(tool), "{error:?}");
    }
}

#[test]
fn a_folder_is_no_archive() {
    let scratch = Scratch::new();
    let text = format!("{:?}", Archive::open(&scratch.path("")).unwrap_err());
    assert!(text.contains("directory"), "{text}");
    let error = Archive::open(&scratch.path("absent.tar")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// The names that tools write into an archive's index.
#[test]
fn names_are_whole_references() {
    let scratch = Scratch::new();
    for (annotations, expected) in [
        (r"", None),
        (r#""org.opencontainers.image.ref.name":"v1""#, None),
        (r#""org.opencontainers.image.ref.name":"not a name:1""#, None),
        (
            r#""org.opencontainers.image.ref.name":"quay.io/a/b:v1""#,
            Some("quay.io/a/b:v1"),
        ),
        // docker save, since version 25
        (
            r#""io.containerd.image.name":"docker.io/library/x:2","org.opencontainers.image.ref.name":"2""#,
            Some("docker.io/library/x:2"),
        ),
    ] {
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":2,"annotations":{{{annotations}}}}}]}}"#,
            media_type::MANIFEST,
            Digest::of(b"{}")
        );
        let tar = RawTar::new().file("index.json", index.as_bytes()).end();
        let archive = Archive::open(&scratch.write(&tar)).unwrap();
        let name = archive.images()[0].0.as_ref().map(ToString::to_string);
        assert_eq!(name.as_deref(), expected);
    }
}

/// A Docker archive of these layers, made by hand. A layer is a path and what lies there.
fn docker_archive(names: &str, layers: &[(&str, Vec<u8>)], diff_ids: &[Digest]) -> RawTar {
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":null}},"rootfs":{{"type":"layers","diff_ids":{}}}}}"#,
        serde_json::to_string(diff_ids).unwrap()
    );
    let paths: Vec<&str> = layers.iter().map(|(path, _)| *path).collect();
    let manifest = format!(
        r#"[{{"Config":"config.json","RepoTags":{names},"Layers":{}}}]"#,
        serde_json::to_string(&paths).unwrap()
    );
    let mut tar = RawTar::new();
    for (path, bytes) in layers {
        tar = match bytes.strip_prefix(b"-> ") {
            Some(target) => tar.symlink(path, std::str::from_utf8(target).unwrap()),
            None => tar.file(path, bytes),
        };
    }
    tar.file("config.json", config.as_bytes())
        .file("manifest.json", manifest.as_bytes())
        .file("repositories", b"{}")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_docker_archive_reads_as_an_image() {
    let scratch = Scratch::new();
    let plain = RawTar::new().file("a", b"1").end();
    let packed = RawTar::new().file("b", b"2").end();
    let diff_ids = [Digest::of(&plain), Digest::of(&packed), Digest::of(&plain)];
    let tar = docker_archive(
        r#"["x/y:1","localhost:5000/z:2"]"#,
        &[
            ("one/layer.tar", plain.clone()),
            ("two.tar", gzip(&packed)),
            // Docker links a layer that comes again to the first.
            ("three/layer.tar", b"-> ../one/layer.tar".to_vec()),
        ],
        &diff_ids,
    );
    let archive = Archive::open(&scratch.write(&tar.end())).unwrap();
    let names: Vec<_> = archive
        .images()
        .iter()
        .map(|(name, _)| name.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(names, ["docker.io/x/y:1", "localhost:5000/z:2"]);

    let (store, copied) = load(&scratch, &archive).unwrap();
    assert_eq!(copied[0].blobs, 4, "two layers, config, manifest");
    assert_eq!(copied[1].blobs, 0);
    let root = store.resolve(&"x/y:1".parse().unwrap()).unwrap().unwrap();
    let manifest: Manifest = spec::parse(&document(&store, &root).unwrap(), "").unwrap();
    let kinds: Vec<_> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
    assert_eq!(kinds, [media_type::LAYER, media_type::LAYER_GZIP, media_type::LAYER]);
    assert_eq!(manifest.layers[1].digest, Digest::of(&gzip(&packed)));
    let config: Config = spec::parse(&document(&store, &manifest.config).unwrap(), "").unwrap();
    assert_eq!(config.rootfs.diff_ids, diff_ids);
}

#[test]
fn a_docker_archive_without_names_or_layers_is_one_too() {
    let scratch = Scratch::new();
    for names in ["null", "[]"] {
        let tar = docker_archive(names, &[], &[]);
        let archive = Archive::open(&scratch.write(&tar.end())).unwrap();
        assert_eq!(archive.images().len(), 1);
        assert_eq!(archive.images()[0].0, None);
        load(&scratch, &archive).unwrap();
    }
}

#[test]
fn a_damaged_docker_archive_is_refused() {
    let scratch = Scratch::new();
    let layer = RawTar::new().file("a", b"1").end();
    let diff_id = Digest::of(&layer);
    let with = |path: &str, bytes: &[u8], diff_ids: &[Digest]| {
        docker_archive("null", &[(path, bytes.to_vec())], diff_ids).end()
    };
    let lacking = |path: &str| {
        let manifest = format!(r#"[{{"Config":"{path}","Layers":[]}}]"#);
        RawTar::new().file("manifest.json", manifest.as_bytes()).end()
    };
    for (what, bytes, words) in [
        (
            "a layer too few",
            with("l", &layer, &[]),
            "lists 1 layers where its config has 0",
        ),
        (
            "a layer too many",
            with("l", &layer, &[diff_id; 2]),
            "lists 1 layers where its config has 2",
        ),
        (
            "a link to nothing",
            with("l", b"-> absent", &[diff_id]),
            "lacks the layer `l`",
        ),
        (
            "a link to itself",
            with("l", b"-> l", &[diff_id]),
            "lacks the layer `l`",
        ),
        (
            "a link upwards",
            with("l", b"-> ../../etc/passwd", &[diff_id]),
            "lacks the layer `l`",
        ),
        ("no config", lacking("absent.json"), "lacks `absent.json`"),
        (
            "a config outside",
            lacking("../../etc/passwd"),
            "lacks `../../etc/passwd`",
        ),
        (
            "no JSON",
            RawTar::new().file("manifest.json", b"x").end(),
            "cannot be read",
        ),
        (
            "no image",
            RawTar::new().file("manifest.json", b"[]").end(),
            "lists no image",
        ),
    ] {
        let text = failure(&scratch.write(&bytes));
        assert!(text.contains(words), "{what}: {text}");
    }

    // What only the bytes themselves tell is found when they are copied.
    let bytes = with("l", &layer, &[Digest::of(b"other")]);
    let archive = Archive::open(&scratch.write(&bytes)).unwrap();
    let error = load(&scratch, &archive).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

#[test]
fn a_full_disk_leaves_no_archive() {
    let Some(disk) = Tmpfs::mount("2m") else {
        return;
    };
    let mut memory = Memory::default();
    let bytes = noise(4 << 20, 3);
    let layer = memory.add(media_type::LAYER, bytes.clone());
    let root = memory.image(vec![(layer, Digest::of(&bytes))]);
    let sink = ArchiveSink::create(&disk.path().join("x.tar"), &root, None, false).unwrap();
    let error = copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk);
    assert!(error.remedy().unwrap().starts_with("free some space"), "{error:?}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
}
