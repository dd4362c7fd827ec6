//! Writes a blob whose digest is known only at its end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tempfile::NamedTempFile;

use crate::digest::{Digest, Hasher};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};

/// How many bytes go to the kernel before it is asked to start writing them out.
const FLUSH_EVERY: u64 = 32 << 20;

/// A blob on its way into the store. Dropped without [`BlobWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: NamedTempFile,
    store: PathBuf,
    hasher: Hasher,
    unflushed: u64,
    flusher: Option<Flusher>,
}

impl BlobWriter {
    pub(super) fn create(store: &Path) -> Result<Self> {
        let file = tempfile::Builder::new()
            .prefix("new-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(store.join("partial"))
            .or_io(|| format!("cannot write to the store {}", store.display()))?;
        Ok(Self {
            file,
            store: store.to_owned(),
            hasher: Hasher::new(),
            unflushed: 0,
            flusher: None,
        })
    }

    /// Syncs the blob and gives it its name. Gives its digest and size in bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] when the disk fails or is full.
    pub fn finish(self) -> Result<(Digest, u64)> {
        let store = self.store;
        let place = || format!("cannot write to the store {}", store.display());
        if let Some(flusher) = self.flusher {
            flusher.join()?.or_io(place)?;
        }
        let size = self.hasher.size();
        let digest = self.hasher.finish();
        let path = store.join("blobs/sha256").join(digest.hex());
        if fs::metadata(&path).is_ok_and(|there| there.len() == size) {
            return Ok((digest, size));
        }
        self.file.as_file().sync_data().or_io(place)?;
        self.file.persist(&path).map_err(|error| error.error).or_io(place)?;
        Ok((digest, size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.unflushed += bytes.len() as u64;
        if self.unflushed >= FLUSH_EVERY {
            self.unflushed = 0;
            match &self.flusher {
                Some(flusher) => flusher.nudge(),
                None => self.flusher = Some(Flusher::start(self.file.reopen()?)?),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Syncs a file beside the thread that writes it, so that the sync at the end finds little left to do.
#[derive(Debug)]
struct Flusher {
    nudges: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Flusher {
    fn start(file: File) -> io::Result<Self> {
        let (nudges, inbox): (_, Receiver<()>) = sync_channel(1);
        let thread = std::thread::Builder::new().name("flush".to_owned()).spawn(move || {
            while inbox.recv().is_ok() {
                file.sync_data()?;
            }
            Ok(())
        })?;
        let flusher = Self { nudges, thread };
        flusher.nudge();
        Ok(flusher)
    }

    fn nudge(&self) {
        // A sync that is already waiting covers these bytes too.
        let _ = self.nudges.try_send(());
    }

    fn join(self) -> Result<io::Result<()>> {
        drop(self.nudges);
        self.thread
            .join()
            .map_err(|_| Error::new(ErrorKind::Internal, "the thread that syncs a blob died"))
    }
}
