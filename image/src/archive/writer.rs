//! Writes an OCI archive: an image layout in a tar, documents first, so that a reader knows early what comes.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempPath;

use crate::copy::{Order, Sink};
use crate::digest::VerifyingReader;
use crate::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use crate::file;
use crate::layer::{Entry, EntryKind, TarWriter};
use crate::lock;
use crate::progress::Task;
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::{self, Descriptor, Index, annotation};
use crate::store::BLOCK;

/// An archive that is being written. It gets its name when it is whole; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct ArchiveSink {
    path: PathBuf,
    partial: TempPath,
    tar: Mutex<TarWriter<BufWriter<File>>>,
}

impl ArchiveSink {
    /// Starts an archive of `image`. Nothing appears under `path` before the archive is whole; an unfinished
    /// `<path>.partial` of an earlier try is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when `path` exists and `replace` is false; [`ErrorKind::Disk`] when it can't be written.
    pub fn create(path: &Path, image: &Descriptor, name: Option<&Reference>, replace: bool) -> Result<Self> {
        let place = || format!("cannot write {}", path.display());
        let partial = path.with_added_extension("partial");
        // Of two that write the same archive the second waits, and then finds it there.
        let file = lock::own(&partial).context(place)?;
        let partial = TempPath::try_from_path(partial).or_io(place)?;
        file.set_len(0).or_io(place)?;
        if !replace && path.exists() {
            return Err(
                Error::new(ErrorKind::Conflict, format!("{} exists already", path.display()))
                    .hint("choose another file, or replace it with `--force`"),
            );
        }
        let sink = Self {
            path: path.to_owned(),
            partial,
            tar: Mutex::new(TarWriter::new(BufWriter::with_capacity(BLOCK, file))),
        };
        let mut entry = image.clone();
        if let Some(name) = name {
            entry
                .annotations
                .insert(annotation::REF_NAME.to_owned(), name.to_string());
            entry
                .annotations
                .insert(annotation::CONTAINERD_NAME.to_owned(), name.to_string());
        }
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

    fn lock(&self) -> std::sync::MutexGuard<'_, TarWriter<BufWriter<File>>> {
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

    fn has(&self, _: &Descriptor) -> Result<bool> {
        Ok(false)
    }

    fn take(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<()> {
        let path = format!("blobs/sha256/{}", blob.digest.hex());
        let kind = EntryKind::File { size: blob.size };
        let reader = task.reader(source.open(blob, 0)?);
        let mut reader = VerifyingReader::new(reader, blob.digest, blob.size);
        self.lock()
            .append_file(&entry(&path, kind, 0o644), &mut reader, &mut vec![0; BLOCK])
    }

    fn commit(self: Box<Self>) -> Result<()> {
        let sink = *self;
        let place = || format!("cannot write {}", sink.path.display());
        let tar = sink.tar.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut writer = tar.finish()?;
        writer.flush().or_io(place)?;
        writer.get_ref().sync_data().or_io(place)?;
        sink.partial
            .persist(&sink.path)
            .map_err(|error| error.error)
            .or_io(place)?;
        file::sync_folder(file::folder_of(&sink.path))
    }
}
