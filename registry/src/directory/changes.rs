//! Changing a registry directory so that whatever happens, everybody sees the old state or the new one.
//!
//! A file gets its name when its bytes are on disk. [`Changes::sync`] makes the names themselves last; until it is
//! done nobody may be told that something was stored.

use std::collections::BTreeSet;
use std::io::{self, Write as _};

use sealrs_image::error::{IoResultExt as _, Result};

use super::{Directory, StoredBlob, found};
use crate::digest::BlobDigest;
use crate::layout;
use crate::name::UploadId;

/// Changes that are not on disk for sure yet.
#[derive(Debug)]
pub(super) struct Changes<'d> {
    directory: &'d Directory,
    /// The folders whose entries changed.
    folders: BTreeSet<String>,
}

impl<'d> Changes<'d> {
    pub(super) fn of(directory: &'d Directory) -> Self {
        Self {
            directory,
            folders: BTreeSet::new(),
        }
    }

    /// Makes a folder, and those above it.
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        let failed = || self.directory.cannot("make", path);
        match self.directory.dir.create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !parent(path).is_empty() => {
                self.folder(parent(path))?;
                match self.directory.dir.create_dir(path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                    result => result.or_io(|| self.directory.cannot("make", path))?,
                }
            }
            result => result.or_io(failed)?,
        }
        self.touched(path);
        Ok(())
    }

    /// Writes a `link` file, if it is not there already.
    pub(super) fn link(&mut self, path: &str, digest: &BlobDigest) -> Result<()> {
        if self.directory.link(path).is_ok_and(|there| there == Some(*digest)) {
            // It may be old, and what needs it is yet to come.
            self.directory.renew(path)?;
            return Ok(());
        }
        self.file(path, layout::link_content(digest).as_bytes())
    }

    /// Writes a small file, in place of one that may be there.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.folder(parent(path))?;
        let (dir, aside) = (&self.directory.dir, format!("{path}.{}", UploadId::random()?));
        let written = dir.create(&aside).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()?;
            dir.rename(&aside, dir, path)
        });
        if written.is_err() {
            let _ = dir.remove_file(&aside);
        }
        written.or_io(|| self.directory.cannot("write", path))?;
        self.touched(path);
        Ok(())
    }

    /// Gives a file, whose bytes are on disk, its place.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.folder(parent(to))?;
        let dir = &self.directory.dir;
        dir.rename(from, dir, to).or_io(|| self.directory.cannot("write", to))?;
        self.touched(from);
        self.touched(to);
        Ok(())
    }

    /// Removes a file. Says whether it was there.
    pub(super) fn remove_file(&mut self, path: &str) -> Result<bool> {
        let failed = || self.directory.cannot("remove", path);
        let was_there = found(self.directory.dir.remove_file(path)).or_io(failed)?.is_some();
        if was_there {
            self.touched(path);
        }
        Ok(was_there)
    }

    /// Removes a folder and all that is in it, if it is there.
    pub(super) fn remove_folder(&mut self, path: &str) -> Result<()> {
        found(self.directory.dir.remove_dir_all(path)).or_io(|| self.directory.cannot("remove", path))?;
        self.touched(path);
        Ok(())
    }

    /// Makes all changes last.
    pub(super) fn sync(self) -> Result<()> {
        for folder in &self.folders {
            let failed = || self.directory.cannot("write", folder);
            // A folder that is gone has nothing to keep. `open_dir` gives a handle that cannot be synced.
            if let Some(folder) = found(self.directory.dir.open(folder)).or_io(failed)? {
                folder.sync_all().or_io(failed)?;
            }
        }
        Ok(())
    }

    fn touched(&mut self, path: &str) {
        let folder = match parent(path) {
            "" => ".",
            folder => folder,
        };
        self.folders.insert(folder.to_owned());
        #[cfg(test)]
        super::kill::step();
    }
}

impl Directory {
    /// Whether a blob with these very bytes is there.
    pub(super) fn holds(&self, digest: &BlobDigest, bytes: &[u8]) -> Result<bool> {
        let Some(StoredBlob { file, size }) = self.content(digest)? else {
            return Ok(false);
        };
        let found = digest.same_of_all(file).or_io(|| format!("cannot read {digest}"))?;
        Ok(size == bytes.len() as u64 && found == *digest)
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
