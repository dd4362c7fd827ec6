//! What goes into one layer: every path with what it is, sorted, and nothing that depends on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};

/// The entries of a layer by their path in the rootfs.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) entries: BTreeMap<String, Item>,
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) kind: ItemKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Clone)]
pub(crate) enum ItemKind {
    Folder,
    Symlink(String),
    /// Another name of the file at this path of the same layer.
    HardLink(String),
    File(FileSource),
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub(crate) enum FileSource {
    /// In the build context.
    Disk(OnDisk),
    /// In the Kubefile (a heredoc), or made by the builder.
    Inline(Vec<u8>),
    /// Downloaded into the store under this digest.
    Stored { digest: Digest, size: u64 },
}

/// A file of the build context as `lstat` saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnDisk {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) size: u64,
}

/// What changes whenever a file's content does, on any file system worth its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) mtime_ns: i128,
    pub(crate) ctime_ns: i128,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl FileSource {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Disk(file) => file.size,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Stored { size, .. } => *size,
        }
    }
}

impl Item {
    pub(crate) fn folder(mode: u32) -> Self {
        Self {
            kind: ItemKind::Folder,
            mode,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
        }
    }

    pub(crate) fn file(source: FileSource, mode: u32) -> Self {
        Self {
            kind: ItemKind::File(source),
            mode,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
        }
    }
}

impl Contents {
    /// Puts an item at `path`, which must not be empty. A folder joins a folder; anything else replaces.
    pub(crate) fn put(&mut self, path: &str, item: Item) -> Result<()> {
        let mut parent = path;
        while let Some((folder, _)) = parent.rsplit_once('/') {
            if self
                .entries
                .get(folder)
                .is_some_and(|above| !matches!(above.kind, ItemKind::Folder))
            {
                return Err(Error::new(
                    ErrorKind::Input,
                    format!("`{path}` would lie below `{folder}`, which is not a folder in this instruction"),
                ));
            }
            parent = folder;
        }
        self.entries.insert(path.to_owned(), item);
        Ok(())
    }

    /// Adds the folders above the entries that `known` does not hold, so that the layer stands alone.
    pub(crate) fn complete_parents(&mut self, known: &BTreeSet<String>) {
        let mut missing = BTreeSet::new();
        for path in self.entries.keys() {
            let mut rest = path.as_str();
            while let Some((folder, _)) = rest.rsplit_once('/') {
                if !self.entries.contains_key(folder) && !known.contains(folder) {
                    missing.insert(folder.to_owned());
                }
                rest = folder;
            }
        }
        for folder in missing {
            self.entries.insert(folder, Item::folder(0o755));
        }
    }

    /// The folders that exist once this layer is applied.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &String> {
        self.entries
            .iter()
            .filter(|(_, item)| matches!(item.kind, ItemKind::Folder))
            .map(|(path, _)| path)
    }

    /// Bytes of all files.
    pub(crate) fn size(&self) -> u64 {
        self.files().map(|(_, source)| source.size()).sum()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&String, &FileSource)> {
        self.entries.iter().filter_map(|(path, item)| match &item.kind {
            ItemKind::File(source) => Some((path, source)),
            _ => None,
        })
    }
}
