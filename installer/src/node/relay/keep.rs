//! What a host keeps for others: the blobs that it reads, as far as they have come.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealrs_image::digest::Digest;
use sealrs_image::error::{IoResultExt as _, Result};
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;

use crate::files;

/// How far a blob has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are there, and more will be.
    Grows(u64),
    /// All of it is there.
    Whole(u64),
    /// There will not be more.
    Broken,
}

/// The blobs that a host keeps for others, until it is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    blobs: BTreeMap<Digest, State>,
    /// Nothing more comes.
    closed: bool,
}

/// What somebody who reads a blob is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// There are so many bytes behind the place.
    More(u64),
    /// The place is its end.
    End,
    /// The time is up.
    Nothing,
    /// There will be no more.
    Broken,
}

impl Kept {
    /// Keeps blobs in `folder`, which is made anew.
    ///
    /// # Errors
    /// Disk errors.
    pub(crate) fn new(folder: &Path) -> Result<Arc<Self>> {
        files::remove_tree(folder)?;
        fs::create_dir_all(folder).or_io(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Arc::new(Self {
            folder: folder.to_owned(),
            known: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// `source`, of which everything that is read from its begin on is kept.
    pub(crate) fn of<'k>(&'k self, source: &'k dyn Source) -> Keeping<'k> {
        Keeping { kept: self, source }
    }

    /// What is not there yet does not come any more.
    pub(crate) fn close(&self) {
        let mut known = self.known();
        known.closed = true;
        for state in known.blobs.values_mut() {
            if let State::Grows(_) = state {
                *state = State::Broken;
            }
        }
        drop(known);
        self.changed.notify_all();
    }

    /// A kept blob, to be read as far as [`Kept::wait`] tells.
    pub(super) fn open(&self, digest: Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    /// Waits until there is something to be read of a blob at a place, for so long at most.
    pub(super) fn wait(&self, digest: Digest, place: u64, limit: Duration) -> Told {
        let tell = |known: &Known| match known.blobs.get(&digest) {
            Some(State::Grows(there) | State::Whole(there)) if *there > place => Some(Told::More(*there - place)),
            Some(State::Whole(_)) => Some(Told::End),
            Some(State::Broken) => Some(Told::Broken),
            Some(State::Grows(_)) => None,
            None => known.closed.then_some(Told::Broken),
        };
        let waiting = |known: &mut Known| tell(known).is_none();
        let waited = self.changed.wait_timeout_while(self.known(), limit, waiting);
        let (known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        tell(&known).unwrap_or(Told::Nothing)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, digest: Digest, state: State) {
        self.known().blobs.insert(digest, state);
        self.changed.notify_all();
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // What is left goes with the cluster's folder, or when it is made anew.
        let _ = files::remove_tree(&self.folder);
    }
}

/// A source, of which what is read is kept.
pub(crate) struct Keeping<'k> {
    kept: &'k Kept,
    source: &'k dyn Source,
}

impl Source for Keeping<'_> {
    fn origin(&self) -> String {
        self.source.origin()
    }

    fn is_sequential(&self) -> bool {
        self.source.is_sequential()
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let reader = self.source.open(blob, offset)?;
        // Others can do without it: they ask the operator then.
        let file = (offset == 0)
            .then(|| File::create(self.kept.path(blob.digest)).ok())
            .flatten();
        let state = if file.is_some() { State::Grows(0) } else { State::Broken };
        self.kept.set(blob.digest, state);
        Ok(Box::new(Copying {
            kept: self.kept,
            digest: blob.digest,
            size: blob.size,
            reader,
            file,
            there: 0,
        }))
    }
}

/// A blob that is kept while it is read.
struct Copying<'k> {
    kept: &'k Kept,
    digest: Digest,
    size: u64,
    reader: Box<dyn Read + Send + 'k>,
    file: Option<File>,
    there: u64,
}

impl Copying<'_> {
    fn keep(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if file.write_all(bytes).is_err() {
            self.give_up();
            return;
        }
        self.there += bytes.len() as u64;
        if self.there == self.size {
            self.file = None;
            self.kept.set(self.digest, State::Whole(self.there));
        } else {
            self.kept.set(self.digest, State::Grows(self.there));
        }
    }

    /// A full disk, for instance: what this host itself unpacks needs the room more.
    fn give_up(&mut self) {
        if self.file.take().is_some() {
            self.kept.set(self.digest, State::Broken);
            let _ = fs::remove_file(self.kept.path(self.digest));
        }
    }
}

impl Read for Copying<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) {
            self.keep(bytes);
        }
        Ok(count)
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}
