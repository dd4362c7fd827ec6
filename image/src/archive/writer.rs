//! Writes an OCI archive: an image layout in a tar, documents first, so that a reader knows early what comes.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{Delta, Output};
use crate::copy::{Order, Sink, Taken};
use crate::digest::VerifyingReader;
use crate::error::Result;
use crate::layer::{Entry, EntryKind, TarWriter};
use crate::progress::Task;
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::{self, Descriptor, Index, annotation};
use crate::store::BLOCK;

/// An archive that is being written. It gets its name when it is whole; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct ArchiveSink {
    tar: Mutex<TarWriter<Output>>,
    delta: Delta,
}

impl ArchiveSink {
    /// Starts an archive of `image` in one file.
    ///
    /// # Errors
    /// As [`Output::file`].
    pub fn create(path: &Path, image: &Descriptor, name: Option<&Reference>, replace: bool) -> Result<Self> {
        Self::new(Output::file(path, replace)?, image, name, Delta::default())
    }

    /// Starts an archive of `image` without what `delta` leaves out.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Disk`] when it can't be written.
    pub fn new(output: Output, image: &Descriptor, name: Option<&Reference>, delta: Delta) -> Result<Self> {
        Self::tagged(output, image, name.map(ToString::to_string).as_deref(), delta)
    }

    /// The same with a tag that may be no whole name: `v1`.
    ///
    /// # Errors
    /// As [`ArchiveSink::new`].
    pub fn tagged(output: Output, image: &Descriptor, tag: Option<&str>, delta: Delta) -> Result<Self> {
        let mut entry = image.clone();
        for key in [annotation::REF_NAME, annotation::CONTAINERD_NAME] {
            entry.annotations.remove(key);
        }
        if let Some(tag) = tag {
            entry
                .annotations
                .insert(annotation::REF_NAME.to_owned(), tag.to_owned());
            // A bare tag names no image.
            if tag.contains([':', '/']) && tag.parse::<Reference>().is_ok() {
                entry
                    .annotations
                    .insert(annotation::CONTAINERD_NAME.to_owned(), tag.to_owned());
            }
        }
        delta.note(&mut entry)?;
        let sink = Self {
            tar: Mutex::new(TarWriter::new(output)),
            delta,
        };
        sink.small_file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        sink.small_file("index.json", &spec::canonical(&Index::new(vec![entry]))?)?;
        sink.folder("blobs")?;
        sink.folder("blobs/sha256")?;
        Ok(sink)
    }

    fn folder(&self, path: &str) -> Result<()> {
        let entry = entry(path, EntryKind::Folder, 0o755);
        self.lock().append(&entry)
    }

    fn small_file(&self, path: &str, mut bytes: &[u8]) -> Result<()> {
        let kind = EntryKind::File {
            size: bytes.len() as u64,
        };
        self.lock()
            .append_file(&entry(path, kind, 0o644), &mut bytes, &mut [0; 4096])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TarWriter<Output>> {
        self.tar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry<'a>(path: &'a str, kind: EntryKind<'a>, mode: u32) -> Entry<'a> {
    Entry {
        path,
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: &[],
    }
}

impl Sink for ArchiveSink {
    fn order(&self) -> Order {
        Order::DocumentsFirst
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.delta.leaves_out(blob))
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<Taken> {
        let path = format!("blobs/sha256/{}", blob.digest.hex());
        let kind = EntryKind::File { size: blob.size };
        let reader = task.reader(source.open(blob, 0)?);
        let mut reader = VerifyingReader::new(reader, blob.digest, blob.size);
        self.lock()
            .append_file(&entry(&path, kind, 0o644), &mut reader, &mut vec![0; BLOCK])?;
        Ok(Taken::Moved)
    }

    fn commit(self: Box<Self>) -> Result<()> {
        let tar = self.tar.into_inner().unwrap_or_else(PoisonError::into_inner);
        tar.finish()?.finish()
    }
}
