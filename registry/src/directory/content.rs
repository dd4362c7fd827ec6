//! Adding content to a repository and removing it.
//!
//! The order of the files makes it safe: bytes before the link that makes them part of a repository, that before the
//! tag, and the other way round when something is removed. Removing takes links away; the bytes stay under `blobs`,
//! where other repositories may need them.

use std::fs::File;
use std::io;
use std::sync::{PoisonError, RwLockReadGuard, TryLockError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};

use super::Directory;
use super::changes::Changes;
use crate::digest::BlobDigest;
use crate::layout;
use crate::manifest::{Manifest, Target};
use crate::name::{Repository, Tag};
use crate::refusal::Refusal;

/// A manifest on its way into a repository.
#[derive(Debug)]
pub(crate) struct Pushed<'m> {
    /// Its digest, which its bytes have.
    pub(crate) digest: BlobDigest,
    /// Its bytes.
    pub(crate) bytes: &'m [u8],
    /// What is in it.
    pub(crate) manifest: &'m Manifest,
    /// The tags that it gets.
    pub(crate) tags: &'m [Tag],
    /// Whether it may name what the repository does not have.
    pub(crate) may_be_sparse: bool,
}

impl Directory {
    /// Makes the folder for everything, so that a directory that cannot be written says so at once.
    pub(crate) fn prepare(&self) -> Result<()> {
        let mut changes = Changes::of(self);
        changes.folder(&layout::repositories())?;
        changes.sync()
    }

    /// Stores a manifest. Gives a refusal when something that it names is missing.
    pub(crate) fn push(&self, repository: &Repository, pushed: &Pushed<'_>) -> Result<Option<Refusal>> {
        let Pushed { digest, manifest, .. } = pushed;
        let _adding = self.adding()?;
        if let Some(refusal) = self.missing(repository, pushed)? {
            return Ok(Some(refusal));
        }
        let mut changes = Changes::of(self);
        if !self.holds(digest, pushed.bytes)? {
            changes.file(&layout::blob_data(digest), pushed.bytes)?;
        }
        if let Some(subject) = &manifest.subject {
            changes.link(&layout::referrer_link(repository, subject, digest), digest)?;
        }
        changes.link(&layout::revision_link(repository, digest), digest)?;
        for tag in pushed.tags {
            changes.link(&layout::tag_index_link(repository, tag, digest), digest)?;
            changes.link(&layout::tag_link(repository, tag), digest)?;
        }
        changes.sync()?;
        Ok(None)
    }

    /// What keeps a manifest from being stored: it names something that is not there, or not as it says.
    fn missing(&self, repository: &Repository, pushed: &Pushed<'_>) -> Result<Option<Refusal>> {
        let judge = |target: &Target, size: Option<u64>| match size {
            Some(size) if size == target.size => None,
            Some(size) => Some(Refusal::other_size(&target.digest.to_string(), target.size, size)),
            None if pushed.may_be_sparse => None,
            None => Some(Refusal::incomplete_manifest(&target.digest.to_string())),
        };
        for blob in &pushed.manifest.blobs {
            let stored = self.blob(repository, &blob.digest)?;
            if let Some(refusal) = judge(blob, stored.map(|stored| stored.size)) {
                return Ok(Some(refusal));
            }
        }
        for member in &pushed.manifest.members {
            let stored = match self.link(&layout::revision_link(repository, member.digest))? {
                Some(digest) => self.content(&digest)?,
                None => None,
            };
            if let Some(refusal) = judge(member, stored.map(|stored| stored.size)) {
                return Ok(Some(refusal));
            }
        }
        Ok(None)
    }

    /// Makes a blob that is here already part of a repository: one of the repository `from`, or of any. Says whether
    /// it is here.
    pub(crate) fn mount(
        &self,
        repository: &Repository,
        digest: &BlobDigest,
        from: Option<&Repository>,
    ) -> Result<bool> {
        let _adding = self.adding()?;
        let stored = match from {
            Some(from) => self.blob(from, digest)?,
            None => self.content(digest)?,
        };
        if stored.is_some() {
            let mut changes = Changes::of(self);
            changes.link(&layout::layer_link(repository, digest), digest)?;
            changes.sync()?;
        }
        Ok(stored.is_some())
    }

    /// Removes a tag, and not what it means. Says whether it was there.
    pub(crate) fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<bool> {
        let _removing = self.removing.write().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.lock(FlockOperation::LockExclusive)?;
        let mut changes = Changes::of(self);
        let was_there = changes.untag(repository, tag)?;
        changes.sync()?;
        Ok(was_there)
    }

    /// Removes a manifest and the tags that mean it. Says whether it was there.
    pub(crate) fn remove_manifest(&self, repository: &Repository, digest: &BlobDigest) -> Result<bool> {
        let _removing = self.removing.write().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.lock(FlockOperation::LockExclusive)?;
        let link = layout::revision_link(repository, digest);
        if !self.exists(&link)? {
            return Ok(false);
        }
        let mut changes = Changes::of(self);
        for name in self.folders(&layout::tags(repository))? {
            // A tag that cannot be read means nothing that could be removed.
            if let Ok(tag) = name.parse()
                && self.tag(repository, &tag).is_ok_and(|meant| meant == Some(*digest))
            {
                changes.untag(repository, &tag)?;
            }
        }
        // A manifest that is damaged goes all the same; its entry among the referrers means nothing without it.
        if let Ok(Some(stored)) = self.manifest(repository, digest)
            && let Ok(manifest) = Manifest::parse(&stored.bytes, None)
            && let Some(subject) = manifest.subject
        {
            changes.remove_link(&layout::referrer_link(repository, &subject, digest))?;
        }
        changes.remove_link(&link)?;
        changes.sync()?;
        Ok(true)
    }

    /// Takes a blob out of a repository. Says whether it was in it.
    pub(crate) fn remove_blob(&self, repository: &Repository, digest: &BlobDigest) -> Result<bool> {
        let _removing = self.removing.write().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.lock(FlockOperation::LockExclusive)?;
        let mut changes = Changes::of(self);
        let was_there = changes.remove_link(&layout::layer_link(repository, digest))?;
        changes.sync()?;
        Ok(was_there)
    }

    /// Keeps what is there until the guard is dropped.
    pub(super) fn adding(&self) -> Result<Adding<'_>> {
        let here = self.removing.read().unwrap_or_else(PoisonError::into_inner);
        let everywhere = self.lock(FlockOperation::LockShared)?;
        Ok(Adding {
            _here: here,
            _everywhere: everywhere,
        })
    }

    /// The same, and nothing if it would have to wait for who removes.
    pub(super) fn try_adding(&self) -> Result<Option<Adding<'_>>> {
        let here = match self.removing.try_read() {
            Ok(here) => here,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        let everywhere = self.try_lock(FlockOperation::NonBlockingLockShared)?;
        Ok(everywhere.map(|everywhere| Adding {
            _here: here,
            _everywhere: everywhere,
        }))
    }

    /// Locks the directory against other processes, until the file is dropped or the process is gone.
    pub(super) fn lock(&self, how: FlockOperation) -> Result<File> {
        let locked = self.try_lock(how)?;
        locked.ok_or_else(|| Error::new(ErrorKind::Conflict, self.cannot("lock", layout::ROOT)))
    }

    /// The same, and nothing if somebody else has a lock that is waited for by no means.
    fn try_lock(&self, how: FlockOperation) -> Result<Option<File>> {
        let failed = || self.cannot("lock", layout::ROOT);
        Changes::of(self).folder(layout::ROOT)?;
        let file = self.dir.open(layout::ROOT).or_io(failed)?.into_std();
        Ok(locked(&file, how).or_io(failed)?.then_some(file))
    }
}

/// Locks a file until it is dropped or the process is gone. Says whether it is locked: one that does not wait may fail to.
pub(super) fn locked(file: &File, how: FlockOperation) -> io::Result<bool> {
    loop {
        match rustix::fs::flock(file, how) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Nothing is removed while this is held.
#[derive(Debug)]
pub(super) struct Adding<'d> {
    _here: RwLockReadGuard<'d, ()>,
    _everywhere: File,
}

impl Changes<'_> {
    fn untag(&mut self, repository: &Repository, tag: &Tag) -> Result<bool> {
        // First what it means: from then on the tag is no more, whatever is left of its folder.
        let was_there = self.remove_file(&layout::tag_link(repository, tag))?;
        self.remove_folder(&layout::tag(repository, tag))?;
        Ok(was_there)
    }

    /// Removes a `link` file and the folder that is there for it alone.
    pub(super) fn remove_link(&mut self, path: &str) -> Result<bool> {
        let was_there = self.remove_file(path)?;
        self.remove_folder(path.trim_end_matches("/link"))?;
        Ok(was_there)
    }
}
