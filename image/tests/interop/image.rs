//! An image with everything that a layer may hold.

use std::collections::BTreeMap;
use std::io::Read;

use sealrs_image::cluster_image::{Extension, name};
use sealrs_image::error::Result;
use sealrs_image::layer::{
    Compression, Entry, EntryKind, LayerWriter, PackedLayer, TarWriter, annotation, single_file,
};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Silent, Task};
use sealrs_image::source::Source;
use sealrs_image::spec::{Config, ContainerConfig, Descriptor, Manifest, RootFs, canonical, media_type, parse};
use sealrs_image::store::Store;

use super::reference;

fn noise(size: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

/// One thing in a layer, with content if it is a file.
struct Thing {
    path: String,
    kind: Kind,
    mode: u32,
    owner: u32,
    xattrs: Vec<(String, Vec<u8>)>,
}

enum Kind {
    File(Vec<u8>),
    Folder,
    Symlink(String),
    HardLink(String),
}

fn thing(path: impl Into<String>, mode: u32, kind: Kind) -> Thing {
    Thing {
        path: path.into(),
        kind,
        mode,
        owner: 0,
        xattrs: Vec::new(),
    }
}

fn file(path: impl Into<String>, mode: u32, content: &[u8]) -> Thing {
    thing(path, mode, Kind::File(content.to_vec()))
}

fn folder(path: &str, mode: u32) -> Thing {
    thing(path, mode, Kind::Folder)
}

fn symlink(path: &str, target: &str) -> Thing {
    thing(path, 0o777, Kind::Symlink(target.to_owned()))
}

/// Everything that a layer may hold, without whiteouts.
fn lower() -> Vec<Thing> {
    let deep = format!("deep/{}/{}", "a".repeat(200), "ö".repeat(100));
    let mut owned = file("etc/owned", 0o640, b"by another");
    owned.owner = 3_000_000;
    let mut noted = file("etc/noted", 0o644, b"with an attribute");
    noted.xattrs = vec![("user.note".to_owned(), b"of two\nlines".to_vec())];
    vec![
        folder("bin", 0o755),
        file("bin/setuid", 0o4755, b"#!/bin/sh\n"),
        file("bin/tool", 0o755, &noise(3 << 20, 1)),
        thing("bin/twin", 0o755, Kind::HardLink("bin/tool".to_owned())),
        symlink("bin/alias", "tool"),
        symlink("absolute", "/etc/passwd"),
        symlink("dangling", &"../".repeat(60)),
        folder("cleared", 0o755),
        file("cleared/one", 0o644, b"1"),
        folder("cleared/below", 0o755),
        file("cleared/below/two", 0o644, b"2"),
        folder("empty", 0o700),
        folder("etc", 0o750),
        noted,
        owned,
        file("etc/ünïcode – and blanks", 0o644, b"x"),
        file(deep, 0o644, b"far away"),
        file("gone", 0o644, b"gone"),
        file("h".repeat(100), 0o644, b"a name that just fits"),
        file("h".repeat(101), 0o644, b"a name that just does not"),
        folder("sealed", 0o555),
        file("sealed/inside", 0o444, b"x"),
        folder("tmp", 0o1777),
        file("turns-folder", 0o644, b"file"),
        folder("turns-file", 0o755),
        file("turns-file/x", 0o644, b"x"),
        file("zero", 0o644, b""),
    ]
}

/// What changes above it.
fn upper() -> Vec<Thing> {
    vec![
        file(".wh.gone", 0o644, b""),
        folder("cleared", 0o711),
        file("cleared/.wh..wh..opq", 0o644, b""),
        file("cleared/new", 0o644, b"n"),
        file("etc/.wh.owned", 0o644, b""),
        file("turns-file", 0o600, b"now a file"),
        folder("turns-folder", 0o755),
        file("turns-folder/y", 0o644, b"y"),
        file("zero", 0o600, b"no more"),
    ]
}

fn write_layer(store: &Store, compression: Compression, things: &[Thing]) -> PackedLayer {
    let mut tar = TarWriter::new(LayerWriter::new(store, compression).unwrap());
    for thing in things {
        // Names of one file have one time.
        let mut first_name = &thing.path;
        let mut content: &[u8] = b"";
        let kind = match &thing.kind {
            Kind::File(bytes) => {
                content = bytes;
                EntryKind::File {
                    size: bytes.len() as u64,
                }
            }
            Kind::Folder => EntryKind::Folder,
            Kind::Symlink(target) => EntryKind::Symlink(target),
            Kind::HardLink(target) => {
                first_name = target;
                EntryKind::HardLink(target)
            }
        };
        let entry = Entry {
            path: &thing.path,
            kind,
            mode: thing.mode,
            uid: thing.owner,
            gid: thing.owner,
            mtime: 1_700_000_000 + first_name.len() as u64,
            xattrs: &thing.xattrs,
        };
        tar.append_file(&entry, &mut content, &mut [0; 4096]).unwrap();
    }
    tar.finish().unwrap().finish().unwrap()
}

/// A source of one blob, as a registry would be.
struct OneBlob(Vec<u8>);

impl Source for OneBlob {
    fn origin(&self) -> String {
        "one blob".to_owned()
    }

    fn open<'a>(&'a self, _: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(&self.0[usize::try_from(offset).unwrap()..]))
    }
}

/// A layer that holds nothing but a container image's blob, as registry data.
fn blob_layer(store: &Store, bytes: Vec<u8>) -> PackedLayer {
    let blob = Descriptor::of(media_type::LAYER_GZIP, &bytes);
    let hex = blob.digest.hex();
    let path = format!("registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    let envelope = single_file(&path, 0o644, blob.size).unwrap();
    let task = Task::begin(&Silent, "test", None);
    let (digest, size) = store.fetch_enveloped(&blob, &envelope, &OneBlob(bytes), &task).unwrap();
    let mut layer = PackedLayer::new(Compression::None, digest, size, digest, size);
    for (key, value) in [(annotation::FILE, path), (annotation::BLOB, blob.digest.to_string())] {
        layer.descriptor.annotations.insert(key.to_owned(), value);
    }
    layer
}

pub(crate) fn build(store: &Store, compression: Compression) -> Descriptor {
    let layers = [
        write_layer(store, compression, &lower()),
        blob_layer(store, noise(700_000, 2)),
        blob_layer(store, noise(513, 3)),
        write_layer(store, compression, &upper()),
    ];
    let config = Config {
        created: Some("1970-01-01T00:00:00Z".to_owned()),
        author: None,
        platform: Platform::host(),
        config: ContainerConfig {
            labels: BTreeMap::from([(name::RUNTIME_TYPE.to_owned(), "script".to_owned())]),
            ..ContainerConfig::default()
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
        },
        history: Vec::new(),
    };
    let config = store.put(media_type::CONFIG, &canonical(&config).unwrap()).unwrap();
    let extension = canonical(&nothing_special()).unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config,
        layers: layers.map(|layer| layer.descriptor).into(),
        annotations: BTreeMap::from([(name::EXTENSION.to_owned(), String::from_utf8(extension).unwrap())]),
    };
    let root = store.put(media_type::MANIFEST, &canonical(&manifest).unwrap()).unwrap();
    store.tag(Some(&reference()), &root).unwrap();
    root
}

pub(crate) fn nothing_special() -> Extension {
    parse(b"{}", "extension").unwrap()
}
