//! An archive that comes through a pipe, as a source: documents first, then the layers in their order, as `save`
//! writes them. Nothing is kept of the payload, so each layer can be read once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Base, Entries, Input, delta};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::graph;
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::Descriptor;
use crate::store::Store;

/// An archive that is read while it comes.
#[derive(Debug)]
pub struct ArchiveStream {
    origin: String,
    images: Vec<(Option<Reference>, Descriptor)>,
    bases: Vec<Base>,
    store: Option<Store>,
    /// `None` while a layer is being read.
    place: Mutex<Option<Place>>,
    documents: BTreeMap<Digest, Vec<u8>>,
}

/// How far the stream was read.
#[derive(Debug)]
struct Place {
    entries: Entries,
    /// The blob that comes next, if its bytes were not touched yet.
    next: Option<Descriptor>,
    ended: bool,
    passed: BTreeSet<Digest>,
}

impl Place {
    fn advance(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.next = self.entries.next_blob()?;
        self.ended = self.next.is_none();
        Ok(())
    }
}

impl ArchiveStream {
    /// Reads the documents of an archive; the payload stays in the pipe. `store` holds what the archive was saved
    /// `--since`, if it was.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it is no archive; [`ErrorKind::Input`] when its documents don't come first.
    pub fn open(input: Input, origin: String, store: Option<Store>) -> Result<Self> {
        let mut place = Place {
            entries: Entries::new(input, origin)?,
            next: None,
            ended: false,
            passed: BTreeSet::new(),
        };
        place.advance()?;
        let origin = format!("the archive from {}", place.entries.origin());
        let images = match (place.entries.images(), place.ended) {
            (Some(images), _) => images.to_vec(),
            (None, true) => return Err(place.entries.no_oci_archive()),
            (None, false) => return Err(out_of_order(&origin)),
        };
        Ok(Self {
            origin,
            images,
            bases: place.entries.bases().to_vec(),
            store,
            documents: place.entries.take_documents(),
            place: Mutex::new(Some(place)),
        })
    }

    /// The images inside, with the names they were saved under.
    #[must_use]
    pub fn images(&self) -> &[(Option<Reference>, Descriptor)] {
        &self.images
    }

    /// The images that a store has to hold for this archive to be whole.
    #[must_use]
    pub fn bases(&self) -> &[Base] {
        &self.bases
    }

    /// Makes sure that the store holds them.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming what it lacks.
    pub fn check_bases(&self) -> Result<()> {
        delta::check_bases(&self.origin, &self.bases, self.store.as_ref())
    }

    /// Reads what is left, so that whoever writes can finish.
    ///
    /// # Errors
    /// What reading meets.
    pub fn drain(&self) -> Result<()> {
        match self.lock().as_mut() {
            Some(place) => {
                while !place.ended {
                    place.advance()?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self, blob: &Descriptor) -> Option<&Store> {
        let store = self.store.as_ref().filter(|_| !self.bases.is_empty())?;
        (store.size(&blob.digest) == Some(blob.size)).then_some(store)
    }

    fn absent(&self, blob: &Descriptor) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("{} lacks blob {}", self.origin, blob.digest),
        )
        .hint("the stream was cut off, or the archive is not whole: save and send it again")
    }
}

fn out_of_order(origin: &str) -> Error {
    Error::new(
        ErrorKind::Input,
        format!("{origin} can't be used while it comes: its parts are in another order than `sealrs save` gives them"),
    )
    .hint("load it first: `sealrs load -i -`, then give the image's name")
}

impl Source for ArchiveStream {
    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn is_sequential(&self) -> bool {
        true
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        if let Some(bytes) = self.documents.get(&blob.digest) {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            return Ok(Box::new(bytes.get(start..).unwrap_or_default()));
        }
        let mut slot = self.lock();
        let Some(place) = slot.as_mut() else {
            return Err(out_of_order(&self.origin));
        };
        if place.passed.contains(&blob.digest) {
            return Err(out_of_order(&self.origin));
        }
        loop {
            if place.next.as_ref().is_some_and(|next| next.digest == blob.digest) {
                break;
            }
            if let Some(store) = self.stored(blob) {
                return store.open(blob, offset);
            }
            // A document that is needed now and did not come at the start may be anywhere.
            if place.ended || graph::is_json(blob) {
                return Err(self.absent(blob));
            }
            // Layers of another platform.
            if let Some(passed) = place.next.take() {
                place.passed.insert(passed.digest);
            }
            place.advance()?;
        }
        let mut place = slot.take();
        if let Some(place) = place.as_mut() {
            place.passed.insert(blob.digest);
            place.next = None;
        }
        let mut reader = LayerReader { stream: self, place };
        io::copy(&mut (&mut reader).take(offset), &mut io::sink()).or_io(|| format!("cannot read {}", self.origin))?;
        Ok(Box::new(reader))
    }
}

/// Reads a layer out of the stream, and gives the stream back at its end.
struct LayerReader<'s> {
    stream: &'s ArchiveStream,
    place: Option<Place>,
}

impl Read for LayerReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(place) = self.place.as_mut() else {
            return Ok(0);
        };
        let read = place.entries.content().read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            // At once, so that whoever writes the last layer can finish.
            let advanced = place.advance();
            *self.stream.lock() = self.place.take();
            advanced?;
        }
        Ok(read)
    }
}

impl Drop for LayerReader<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            *self.stream.lock() = Some(place);
        }
    }
}
