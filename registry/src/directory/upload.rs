//! An upload under way: a folder of its repository, with what arrived so far.
//!
//! It is where docker-distribution keeps it. So it outlives the server, and goes on where it broke off: what arrived
//! is in the file, and its digest is computed along the way, or again from the file if nobody remembers it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cap_std::fs::OpenOptions;
use rustix::fs::FlockOperation;
use sealrs_image::digest::Hasher;
use sealrs_image::error::{ErrorKind, IoResultExt as _, Result, ResultExt as _};

use super::changes::Changes;
use super::content::locked;
use super::{Directory, found};
use crate::digest::{BlobDigest, hashed};
use crate::layout;
use crate::name::{Repository, UploadId};

/// An open upload. Whoever has it is the only one to write it.
#[derive(Debug)]
pub(crate) struct Upload {
    directory: Arc<Directory>,
    repository: Repository,
    id: UploadId,
    file: Arc<File>,
    size: u64,
    hasher: Option<Hasher>,
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadEnd {
    /// The blob is part of the repository.
    Stored,
    /// Its bytes have this digest, and not the one that was asked for. Nothing is left of it.
    OtherDigest(BlobDigest),
}

impl Upload {
    /// Begins an upload.
    pub(crate) fn begin(directory: &Directory, repository: &Repository) -> Result<UploadId> {
        let id = UploadId::random()?;
        // An upload that a power failure takes away is begun again; nothing here has to be synced.
        Changes::of(directory).folder(&layout::upload(repository, &id))?;
        let start = layout::upload_start(repository, &id);
        let now = jiff::Timestamp::now().to_string();
        let written = directory.dir.write(&start, now);
        written.or_io(|| directory.cannot("write", &start))?;
        let data = layout::upload_data(repository, &id);
        let made = directory.dir.create(&data);
        made.or_io(|| directory.cannot("write", &data))?;
        Ok(id)
    }

    /// Opens an upload to go on with it. `hasher` is what is remembered of it.
    pub(crate) fn open(
        directory: &Arc<Directory>,
        repository: &Repository,
        id: &UploadId,
        hasher: Option<Hasher>,
    ) -> Result<Option<Self>> {
        let path = layout::upload_data(repository, id);
        let failed = || directory.cannot("open", &path);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let Some(file) = found(directory.dir.open_with(&path, &options)).or_io(failed)? else {
            return Ok(None);
        };
        let file = file.into_std();
        // Who removes idle uploads holds this lock alone. One that is being removed, or was, is no more.
        if !locked(&file, FlockOperation::NonBlockingLockShared).or_io(failed)? {
            return Ok(None);
        }
        let metadata = file.metadata().or_io(failed)?;
        if metadata.nlink() == 0 {
            return Ok(None);
        }
        let size = metadata.len();
        Ok(Some(Self {
            directory: Arc::clone(directory),
            repository: repository.clone(),
            id: id.clone(),
            file: Arc::new(file),
            size,
            hasher: hasher.filter(|hasher| hasher.size() == size),
        }))
    }

    /// How many bytes arrived so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The file, to sync it while more is written.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// What the upload's next bytes can go on with.
    pub(crate) fn into_hasher(self) -> Option<Hasher> {
        self.hasher
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut hasher = self.take_hasher()?;
        if let Err(error) = self.file.write_all_at(bytes, self.size) {
            // Part of them may have been written. The upload ends where it did, for whoever goes on with it.
            let _ = self.file.set_len(self.size);
            self.hasher = Some(hasher);
            return Err(error).or_io(|| self.place("write"));
        }
        hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.hasher = Some(hasher);
        Ok(())
    }

    /// Makes what arrived the blob `digest` of its repository, if it is that.
    pub(crate) fn finish(mut self, digest: &BlobDigest) -> Result<UploadEnd> {
        let found = match digest {
            BlobDigest::Sha256(_) => self.take_hasher()?.finish().into(),
            BlobDigest::Sha512(_) => {
                let reader = Reader::of(&self.file);
                digest.same_of_all(reader).or_io(|| self.place("read"))?
            }
        };
        if found != *digest {
            self.cancel()?;
            return Ok(UploadEnd::OtherDigest(found));
        }
        self.file.sync_data().or_io(|| self.place("write"))?;
        let _adding = self.directory.adding()?;
        let mut changes = Changes::of(&self.directory);
        let data = layout::upload_data(&self.repository, &self.id);
        // One that is there is replaced: it may have been damaged since, and this one is whole.
        changes.rename(&data, &layout::blob_data(digest))?;
        changes.link(&layout::layer_link(&self.repository, digest), digest)?;
        changes.remove_folder(&layout::upload(&self.repository, &self.id))?;
        changes.sync()?;
        Ok(UploadEnd::Stored)
    }

    /// Gives up the upload and what arrived of it.
    pub(crate) fn cancel(self) -> Result<()> {
        self.directory.cancel_upload(&self.repository, &self.id)
    }

    /// What saw all bytes so far. They are read again if nobody remembers them.
    fn take_hasher(&mut self) -> Result<Hasher> {
        if let Some(hasher) = self.hasher.take() {
            return Ok(hasher);
        }
        let hasher = hashed(Reader::of(&self.file)).or_io(|| self.place("read"))?;
        match hasher.size() == self.size {
            true => Ok(hasher),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof)).or_fail(ErrorKind::Conflict, || {
                format!("{} is written by somebody else", self.place("go on with"))
            }),
        }
    }

    fn place(&self, what: &str) -> String {
        let path = layout::upload_data(&self.repository, &self.id);
        self.directory.cannot(what, &path)
    }
}

impl Directory {
    /// How many bytes arrived of an upload.
    pub(crate) fn upload_size(&self, repository: &Repository, id: &UploadId) -> Result<Option<u64>> {
        let file = self.file(&layout::upload_data(repository, id))?;
        Ok(file.map(|file| file.size))
    }

    /// Removes an upload.
    pub(crate) fn cancel_upload(&self, repository: &Repository, id: &UploadId) -> Result<()> {
        Changes::of(self).remove_folder(&layout::upload(repository, id))
    }

    /// Removes the uploads that nothing was added to for so long. Gives their number.
    pub(crate) fn expire_uploads(&self, age: Duration) -> Result<usize> {
        let mut expired = 0;
        for (repository, id) in self.idle_uploads(age)? {
            expired += usize::from(self.expire_upload(&repository, &id, age)?);
        }
        Ok(expired)
    }

    /// Removes an upload that was idle for so long, unless somebody goes on with it now. Says whether it went.
    pub(super) fn expire_upload(&self, repository: &Repository, id: &UploadId, age: Duration) -> Result<bool> {
        let path = layout::upload_data(repository, id);
        let failed = || self.cannot("remove", &path);
        // Held until it is gone.
        let data = self.file(&path)?;
        if let Some(data) = &data {
            let is_ours = locked(&data.file, FlockOperation::NonBlockingLockExclusive).or_io(failed)?;
            let changed = data
                .file
                .metadata()
                .and_then(|metadata| metadata.modified())
                .or_io(failed)?;
            if !is_ours || !is_older(changed, age) {
                return Ok(false);
            }
        }
        self.cancel_upload(repository, id)?;
        Ok(true)
    }

    /// The uploads that nothing was added to for so long.
    pub(super) fn idle_uploads(&self, age: Duration) -> Result<Vec<(Repository, UploadId)>> {
        let mut expired = Vec::new();
        self.each_repository(&mut |repository| {
            for name in self.folders(&layout::uploads(repository))? {
                let Ok(id) = name.parse::<UploadId>() else { continue };
                let changed = match self.changed(&layout::upload_data(repository, &id))? {
                    Some(changed) => Some(changed),
                    None => self.changed(&layout::upload(repository, &id))?,
                };
                if changed.is_some_and(|changed| is_older(changed, age)) {
                    expired.push((repository.clone(), id));
                }
            }
            Ok(())
        })?;
        Ok(expired)
    }

    fn changed(&self, path: &str) -> Result<Option<SystemTime>> {
        let failed = || self.cannot("look up", path);
        let Some(metadata) = found(self.dir.metadata(path)).or_io(failed)? else {
            return Ok(None);
        };
        Ok(Some(metadata.modified().or_io(failed)?.into_std()))
    }
}

/// One from the future has an age of nothing.
fn is_older(changed: SystemTime, age: Duration) -> bool {
    SystemTime::now().duration_since(changed).is_ok_and(|idle| idle > age)
}

/// Reads a file from its start, whoever else reads it.
struct Reader<'f> {
    file: &'f File,
    offset: u64,
}

impl<'f> Reader<'f> {
    fn of(file: &'f File) -> Self {
        Self { file, offset: 0 }
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
