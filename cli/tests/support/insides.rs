//! The insides of images: what is in each layer, and what all together unpack to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// A layer of an image.
#[derive(Debug)]
pub struct Layer {
    pub digest: String,
    pub media_type: String,
    pub entries: Vec<Entry>,
}

impl Layer {
    pub fn paths(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.path.as_str()).collect()
    }
}

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File(Vec<u8>),
    Folder,
    Symlink(String),
    HardLink(String),
}

/// The paths of a rootfs.
#[derive(Debug, Default)]
pub struct Rootfs(pub BTreeMap<String, Entry>);

impl Rootfs {
    #[track_caller]
    pub fn entry(&self, path: &str) -> &Entry {
        self.0
            .get(path)
            .unwrap_or_else(|| panic!("no {path} among {:?}", self.paths()))
    }

    #[track_caller]
    pub fn file(&self, path: &str) -> String {
        match &self.entry(path).kind {
            Kind::File(content) => String::from_utf8(content.clone()).unwrap(),
            other => panic!("{path} is {other:?}"),
        }
    }

    /// All paths, folders with a slash at their end.
    pub fn paths(&self) -> Vec<String> {
        let shown = |entry: &Entry| match entry.kind {
            Kind::Folder => format!("{}/", entry.path),
            _ => entry.path.clone(),
        };
        self.0.values().map(shown).collect()
    }
}

/// A blob of an OCI layout that is a document.
#[track_caller]
pub fn document(layout: &Path, digest: &Value) -> Value {
    let path = layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The manifest of the only image of an OCI layout.
#[track_caller]
pub fn only_manifest(layout: &Path) -> Value {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{index}");
    document(layout, &index["manifests"][0]["digest"])
}

/// Reads the layers that a manifest names out of an OCI layout.
#[track_caller]
pub fn layers(layout: &Path, manifest: &Value) -> Vec<Layer> {
    let descriptors = manifest["layers"].as_array().unwrap();
    let read = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        let media_type = descriptor["mediaType"].as_str().unwrap().to_owned();
        let file = File::open(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
        let packed: Box<dyn Read> = match media_type.rsplit('.').next().unwrap() {
            "tar" => Box::new(file),
            "tar+gzip" => Box::new(flate2::read::MultiGzDecoder::new(file)),
            "tar+zstd" => Box::new(zstd::Decoder::new(file).unwrap()),
            other => panic!("a layer of type {other}"),
        };
        let entries = entries(packed);
        Layer {
            digest,
            media_type,
            entries,
        }
    };
    descriptors.iter().map(read).collect()
}

fn entries(tar: impl Read) -> Vec<Entry> {
    let mut found = Vec::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let bytes = entry.path_bytes().into_owned();
        let path = String::from_utf8(bytes).unwrap().trim_end_matches('/').to_owned();
        let link = entry
            .link_name_bytes()
            .map(|bytes| String::from_utf8(bytes.into_owned()).unwrap());
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for extension in extensions {
                let extension = extension.unwrap();
                if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let kind = match header.entry_type() {
            tar::EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                Kind::File(content)
            }
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Symlink => Kind::Symlink(link.unwrap()),
            tar::EntryType::Link => Kind::HardLink(link.unwrap()),
            other => panic!("{path} is {other:?}"),
        };
        found.push(Entry {
            path,
            kind,
            mode: header.mode().unwrap() & 0o7777,
            // Other tools' tars may leave them out.
            uid: header.uid().unwrap_or(0),
            gid: header.gid().unwrap_or(0),
            mtime: header.mtime().unwrap_or(0),
            xattrs,
        });
    }
    found
}

/// Applies layers one over the other, whiteouts as well.
pub fn applied(layers: &[Layer]) -> Rootfs {
    let mut rootfs = Rootfs::default();
    for layer in layers {
        for entry in &layer.entries {
            if let Some((folder, hidden)) = entry.path.split_once(".wh.") {
                rootfs.0.remove(&format!("{folder}{hidden}"));
            }
        }
        let kept = layer.entries.iter().filter(|entry| !entry.path.contains(".wh."));
        rootfs.0.extend(kept.map(|entry| (entry.path.clone(), entry.clone())));
    }
    rootfs
}

/// Applies layers one over the other; there must be no whiteouts.
pub fn merged(layers: &[Layer]) -> Rootfs {
    let mut rootfs = Rootfs::default();
    for entry in layers.iter().flat_map(|layer| &layer.entries) {
        assert!(!entry.path.contains(".wh."), "a whiteout: {}", entry.path);
        rootfs.0.insert(entry.path.clone(), entry.clone());
    }
    rootfs
}

/// A tar of files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The digest of the only layer of a manifest that is larger than so many bytes.
#[track_caller]
pub fn only_layer_over(manifest: &Value, size: u64) -> String {
    let layers = manifest["layers"].as_array().unwrap().iter();
    let large: Vec<&Value> = layers.filter(|layer| layer["size"].as_u64().unwrap() > size).collect();
    assert_eq!(large.len(), 1, "{manifest}");
    large[0]["digest"].as_str().unwrap().to_owned()
}
