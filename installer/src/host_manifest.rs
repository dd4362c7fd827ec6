//! The host manifest: everything that was made on this host, written down and synced *before* it is made. Removing a
//! cluster walks it backwards, so it removes exactly what was made, after any crash and without the image.

mod made;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::lines::Lines;

pub use made::{Before, Made};

/// One line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Made(Made),
    /// The entry with this number was taken back.
    Undone(usize),
    /// What is about to be written to a file: by it a change by others is seen.
    Content {
        path: PathBuf,
        digest: Digest,
    },
}

/// The open host manifest of a cluster.
#[derive(Debug)]
pub struct HostManifest {
    path: PathBuf,
    lines: Lines,
    backup: PathBuf,
    entries: Vec<Made>,
    undone: BTreeSet<usize>,
    keys: BTreeSet<String>,
    /// What was ever written to each file.
    contents: BTreeMap<PathBuf, BTreeSet<Digest>>,
}

impl HostManifest {
    /// Opens the manifest at `path`, or a fresh one. Copies of foreign files go to the folder `backup`.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it holds what no sealrs writes; disk errors.
    pub fn open(path: &Path, backup: &Path) -> Result<Self> {
        let (lines, read) = Lines::open::<Line>(path)?;
        let mut manifest = Self {
            path: path.to_owned(),
            lines,
            backup: backup.to_owned(),
            entries: Vec::new(),
            undone: BTreeSet::new(),
            keys: BTreeSet::new(),
            contents: BTreeMap::new(),
        };
        for line in read {
            match line {
                Line::Made(made) => manifest.take_in(made),
                Line::Undone(number) => {
                    manifest.undone.insert(number);
                }
                Line::Content { path, digest } => {
                    manifest.contents.entry(path).or_default().insert(digest);
                }
            }
        }
        Ok(manifest)
    }

    fn take_in(&mut self, made: Made) {
        self.keys.insert(made.key());
        self.entries.push(made);
    }

    /// What was made and not yet taken back, latest first, with its number.
    #[must_use]
    pub fn standing(&self) -> Vec<(usize, Made)> {
        self.entries
            .iter()
            .cloned()
            .enumerate()
            .filter(|(number, _)| !self.undone.contains(number))
            .rev()
            .collect()
    }

    /// Whether anything was taken back already: then nothing can be made any more.
    #[must_use]
    pub fn is_being_undone(&self) -> bool {
        !self.undone.is_empty()
    }

    /// Notes that the entry with this number was taken back.
    ///
    /// # Errors
    /// Disk errors.
    pub fn undone(&mut self, number: usize) -> Result<()> {
        self.lines.append(&Line::Undone(number))?;
        self.undone.insert(number);
        Ok(())
    }

    /// Writes down what is about to be made, unless it was written down before: what was there before our first try
    /// is what counts.
    ///
    /// # Errors
    /// Disk errors.
    pub fn record(&mut self, made: Made) -> Result<()> {
        if self.keys.contains(&made.key()) {
            return Ok(());
        }
        self.lines.append(&Line::Made(made.clone()))?;
        self.take_in(made);
        Ok(())
    }

    /// Writes down that a file or link is about to be made at `path`, keeping a copy of what is there, and makes the
    /// folders that it needs.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when a folder is there; disk errors.
    pub fn record_file(&mut self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            self.make_folder(folder, 0o755)?;
        }
        if self.keys.contains(&format!("file {}", path.display())) {
            return Ok(());
        }
        let before = self.before(path)?;
        self.record(Made::File {
            path: path.to_owned(),
            before,
        })
    }

    /// Writes down what is about to be written to a file or link, unless it lies in a tree, with which it goes anyway.
    ///
    /// # Errors
    /// What `digest` meets; disk errors.
    pub(crate) fn record_content(&mut self, path: &Path, digest: impl FnOnce() -> Result<Digest>) -> Result<()> {
        let mut trees = self.entries.iter().filter_map(|made| match made {
            Made::Tree { path, .. } => Some(path),
            _ => None,
        });
        if trees.any(|tree| path.starts_with(tree)) {
            return Ok(());
        }
        let digest = digest()?;
        let known = self.contents.get(path).is_some_and(|known| known.contains(&digest));
        if known {
            return Ok(());
        }
        self.lines.append(&Line::Content {
            path: path.to_owned(),
            digest,
        })?;
        self.contents.entry(path.to_owned()).or_default().insert(digest);
        Ok(())
    }

    /// Whether what has this digest and lies at `path` was written by us, as far as it was written down.
    pub(crate) fn may_have_written(&self, path: &Path, digest: Digest) -> bool {
        self.contents.get(path).is_none_or(|known| known.contains(&digest))
    }

    /// Whether a file or link at `path` is ours.
    #[must_use]
    pub fn has_file(&self, path: &Path) -> bool {
        self.keys.contains(&format!("file {}", path.display()))
    }

    /// Whether a folder at `path` was made by us.
    #[must_use]
    pub fn has_folder(&self, path: &Path) -> bool {
        self.keys.contains(&format!("folder {}", path.display()))
    }

    /// Makes a folder with those above it that are missing, and writes down each; also one that a neighbour has made:
    /// whichever of the two goes last takes it along.
    ///
    /// # Errors
    /// Disk errors.
    pub fn make_folder(&mut self, path: &Path, mode: u32) -> Result<()> {
        let is_there = path.is_dir();
        if is_there && (self.has_folder(path) || !self.is_of_a_neighbour(path)) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_folder(parent, 0o755)?;
        }
        self.record(Made::Folder { path: path.to_owned() })?;
        if is_there {
            return Ok(());
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made.or_io(|| format!("cannot make the folder {}", path.display()))?,
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .or_io(|| format!("cannot set the mode of {}", path.display()))
    }

    /// Whether another cluster under the same root has made this folder.
    fn is_of_a_neighbour(&self, folder: &Path) -> bool {
        let made = Made::Folder {
            path: folder.to_owned(),
        };
        let (Some(name), Some(clusters)) = (self.path.file_name(), self.path.parent().and_then(Path::parent)) else {
            return false;
        };
        fs::read_dir(clusters)
            .into_iter()
            .flatten()
            .flatten()
            .map(|cluster| cluster.path().join(name))
            .filter(|path| *path != self.path)
            // A damaged one is for its own cluster's commands to tell.
            .filter_map(|path| Self::open(&path, Path::new("")).ok())
            .any(|neighbour| neighbour.standing().iter().any(|(_, standing)| *standing == made))
    }

    /// What is at `path`, copied to the backup folder if it is a file.
    fn before(&self, path: &Path) -> Result<Before> {
        let place = || format!("cannot read {}", path.display());
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if files::is_absent(&error) => return Ok(Before::Nothing),
            found => found.or_io(place)?,
        };
        if metadata.is_symlink() {
            return Ok(Before::Link(fs::read_link(path).or_io(place)?));
        }
        if !metadata.is_file() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{} is in the way: a file belongs there", path.display()),
            )
            .hint("move it away and run again"));
        }
        // The number of the entry that is about to be written; a copy left by a crash is written over.
        let backup = self.entries.len().to_string();
        fs::create_dir_all(&self.backup)
            .and_then(|()| fs::set_permissions(&self.backup, fs::Permissions::from_mode(0o700)))
            .or_io(|| format!("cannot make the folder {}", self.backup.display()))?;
        files::copy(path, &self.backup.join(&backup), None, false)?;
        Ok(Before::File {
            backup,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0)),
        })
    }
}

#[cfg(test)]
mod tests;
