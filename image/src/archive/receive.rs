//! Takes an archive from a pipe into the store: payload as it comes, in any order; documents wait in memory, so that
//! no image is there before all of it is.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use super::{Entries, Input, delta};
use crate::copy::{BlobSink, Copied, Sink as _};
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use crate::graph;
use crate::progress::{Progress, Task};
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::{Descriptor, MAX_DOCUMENT, media_type};
use crate::store::Store;

/// What came through a pipe. A source for the images in it, whose payload is in the store already.
#[derive(Debug)]
pub struct Received<'s> {
    entries: Entries,
    store: &'s Store,
    stored: BTreeMap<Digest, u64>,
}

impl<'s> Received<'s> {
    /// Reads `input`, which `origin` names in messages, to its end.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it is no OCI archive, is cut off, or a blob is not what its digest says;
    /// [`ErrorKind::NotFound`] when it needs an image that the store lacks, before anything is written. Blobs that came
    /// whole are kept, and the next try does not write them again.
    pub fn read(input: Input, origin: String, store: &'s Store, progress: &dyn Progress) -> Result<Self> {
        let task = Task::begin(progress, &format!("reading {origin}"), None);
        let mut received = Self {
            entries: Entries::new(input, origin)?,
            store,
            stored: BTreeMap::new(),
        };
        while let Some(blob) = received.entries.next_blob()? {
            received.check_bases()?;
            received
                .take(&blob, &task)
                .context(|| format!("cannot copy blob {} from {}", blob.digest, received.entries.origin()))?;
        }
        received.check_bases()?;
        match received.entries.images() {
            Some(_) => Ok(received),
            None => Err(received.entries.no_oci_archive()),
        }
    }

    /// The images inside, with the names they were saved under.
    #[must_use]
    pub fn images(&self) -> &[(Option<Reference>, Descriptor)] {
        self.entries.images().unwrap_or_default()
    }

    /// What of the image under `root` came through the pipe, for what was `copied` of it afterwards.
    ///
    /// # Errors
    /// When a document of the image can't be read.
    pub fn account(&mut self, root: &Descriptor, copied: Copied) -> Result<Copied> {
        let mut all = copied;
        for blob in graph::blobs(self, root)? {
            if let Some(size) = self.stored.remove(&blob.digest) {
                all.blobs += 1;
                all.bytes = all.bytes.saturating_add(size);
                all.skipped = all.skipped.saturating_sub(1);
            }
        }
        Ok(all)
    }

    fn check_bases(&self) -> Result<()> {
        delta::check_bases(&self.origin(), self.entries.bases(), Some(self.store))
    }

    fn take(&mut self, blob: &Descriptor, task: &Task<'_>) -> Result<()> {
        if self.store.size(&blob.digest) == Some(blob.size) && !self.replaces_damaged(blob)? {
            return Ok(());
        }
        let source = Once {
            origin: self.entries.origin().to_owned(),
            content: Mutex::new(Some(Box::new(self.entries.content()))),
        };
        self.store.fetch(blob, &source, task)?;
        self.stored.insert(blob.digest, blob.size);
        Ok(())
    }

    /// Whether a blob of the store that may be a document is damaged. It is removed then, as by every other way in.
    fn replaces_damaged(&self, blob: &Descriptor) -> Result<bool> {
        if blob.size > MAX_DOCUMENT || self.entries.images().is_some() {
            return Ok(false);
        }
        let maybe = Descriptor::new(media_type::MANIFEST, blob.digest, blob.size);
        Ok(!BlobSink(self.store).has(&maybe)?)
    }
}

impl Source for Received<'_> {
    fn origin(&self) -> String {
        format!("the archive from {}", self.entries.origin())
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        if let Some(bytes) = self.entries.document(&blob.digest) {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            return Ok(Box::new(bytes.get(start..).unwrap_or_default()));
        }
        self.store.open(blob, offset).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::NotFound,
                format!("{} lacks blob {}", self.origin(), blob.digest),
            )
            .hint("the stream was cut off, or the archive is not whole: save and send it again"),
            _ => error,
        })
    }
}

/// A blob that can be read once.
struct Once<'r> {
    origin: String,
    content: Mutex<Option<Box<dyn Read + Send + 'r>>>,
}

impl Source for Once<'_> {
    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let mut content = self
            .content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Integrity,
                    format!("what an earlier try left of blob {} was damaged", blob.digest),
                )
                .hint("it is removed now: start the same again")
            })?;
        // What an earlier try has written already.
        io::copy(&mut (&mut content).take(offset), &mut io::sink()).or_io(|| format!("cannot read {}", self.origin))?;
        Ok(content)
    }
}
