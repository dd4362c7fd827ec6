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
    /// Whether the file has more names than this one.
    pub(crate) has_links: bool,
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

const APART: &str = "give its sources other names, or other destinations in instructions of their own";

/// Refuses a path with a name by which layers delete files of lower layers.
///
/// # Errors
/// With `hint`, which depends on where the name comes from.
pub(crate) fn refuse_whiteout(path: &str, hint: &str) -> Result<()> {
    if path.split('/').any(|name| name.starts_with(".wh.")) {
        let what = format!("`{path}` would delete files in the image: layers mark deletions by names in `.wh.`");
        return Err(Error::new(ErrorKind::Input, what).hint(hint));
    }
    Ok(())
}

impl Contents {
    /// Puts an item at `path`, which must not be empty. A folder joins a folder; anything else replaces.
    pub(crate) fn put(&mut self, path: &str, item: Item) -> Result<()> {
        let mut parent = path;
        while let Some((folder, _)) = parent.rsplit_once('/') {
            match self.entries.get(folder).map(|above| &above.kind) {
                // What is above a folder was looked at when that came.
                Some(ItemKind::Folder) => break,
                Some(_) => {
                    let what =
                        format!("`{path}` would lie below `{folder}`, which is not a folder in this instruction");
                    return Err(Error::new(ErrorKind::Input, what).hint(APART));
                }
                None => parent = folder,
            }
        }
        let below = format!("{path}/");
        if !matches!(item.kind, ItemKind::Folder)
            && (self
                .entries
                .get(path)
                .is_some_and(|old| matches!(old.kind, ItemKind::Folder))
                || self
                    .entries
                    .range(below.clone()..)
                    .next()
                    .is_some_and(|(next, _)| next.starts_with(&below)))
        {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`{path}` is a folder in this instruction, which something else would replace"),
            )
            .hint(APART));
        }
        self.entries.insert(path.to_owned(), item);
        Ok(())
    }

    /// Refuses names by which layers delete files of lower layers (layer.md: whiteouts).
    pub(crate) fn refuse_whiteouts(&self) -> Result<()> {
        let hint = "rename it, or leave it out with .containerignore";
        self.entries.keys().try_for_each(|path| refuse_whiteout(path, hint))
    }

    /// Turns further names of one file into hard links. The first in the order of the layer is the file, for a link
    /// must come after what it links to.
    pub(crate) fn link_names(&mut self) {
        let mut first: BTreeMap<(u64, u64), String> = BTreeMap::new();
        for (path, item) in &mut self.entries {
            let ItemKind::File(FileSource::Disk(file)) = &item.kind else {
                continue;
            };
            if !file.has_links {
                continue;
            }
            let key = (file.identity.device, file.identity.inode);
            if let Some(target) = first.get(&key) {
                item.kind = ItemKind::HardLink(target.clone());
                item.xattrs.clear();
            } else {
                first.insert(key, path.clone());
            }
        }
    }

    /// Adds the folders above the entries that `is_there` does not know, so that the layer stands alone.
    pub(crate) fn complete_parents(&mut self, is_there: impl Fn(&str) -> bool) {
        let mut missing = BTreeSet::new();
        for path in self.entries.keys() {
            let mut rest = path.as_str();
            while let Some((folder, _)) = rest.rsplit_once('/') {
                if self.entries.contains_key(folder) || missing.contains(folder) || is_there(folder) {
                    break;
                }
                missing.insert(folder.to_owned());
                rest = folder;
            }
        }
        for folder in missing {
            self.entries.insert(folder, Item::folder(0o755));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(inode: u64) -> Item {
        let identity = Identity {
            device: 1,
            inode,
            mtime_ns: 0,
            ctime_ns: 0,
        };
        let file = OnDisk {
            path: PathBuf::new(),
            identity,
            size: 0,
            has_links: true,
        };
        Item::file(FileSource::Disk(file), 0o644)
    }

    #[test]
    fn a_hard_link_comes_after_its_file() {
        let mut contents = Contents::default();
        for (path, inode) in [("a/z", 1), ("a.b", 1), ("c", 2)] {
            contents.put(path, disk(inode)).unwrap();
        }
        contents.link_names();
        let kind = |path: &str| &contents.entries[path].kind;
        assert!(matches!(kind("a.b"), ItemKind::File(_)));
        assert!(matches!(kind("a/z"), ItemKind::HardLink(target) if target == "a.b"));
        assert!(matches!(kind("c"), ItemKind::File(_)));
    }

    #[test]
    fn a_file_does_not_replace_a_folder() {
        let mut contents = Contents::default();
        contents.put("x/d/child", disk(1)).unwrap();
        assert!(contents.put("x/d", disk(2)).is_err());
        contents.put("x/d", Item::folder(0o755)).unwrap();
        assert!(contents.put("x/d", disk(2)).is_err());
    }

    #[test]
    fn whiteouts_are_refused() {
        for (path, is_fine) in [("a/.wh.b", false), (".wh..wh..opq", false), ("a/b.wh.c", true)] {
            let mut contents = Contents::default();
            contents.put(path, disk(1)).unwrap();
            assert_eq!(contents.refuse_whiteouts().is_ok(), is_fine, "{path}");
        }
    }
}
