//! Where a new archive goes: a file, numbered parts, a pipe.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use tempfile::TempPath;

use super::continued::Continued;
use super::parts::{self, MAX_PARTS};
use crate::digest::{Digest, HashingWriter};
use crate::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use crate::file::{self, folder_of, sync_folder};
use crate::lock;
use crate::store::BLOCK;

/// What an archive is written to. It gets its name when it is whole; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct Output(Kind);

enum Kind {
    File {
        path: PathBuf,
        partial: TempPath,
        file: BufWriter<Continued>,
    },
    Parts(Box<Parts>),
    Stream(BufWriter<Box<dyn Write + Send>>),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Parts(parts) => parts.whole.display().to_string(),
            Self::Stream(_) => "a stream".to_owned(),
        })
    }
}

impl Output {
    /// One file. Nothing appears under `path` before it is whole; what an earlier try that was killed left in
    /// `<path>.partial` is not written again.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when `path` exists and `replace` is false; [`ErrorKind::Disk`] when it can't be written.
    pub fn file(path: &Path, replace: bool) -> Result<Self> {
        let (file, partial) = own_partial(path)?;
        refuse_existing(path, replace)?;
        Ok(Self(Kind::File {
            path: path.to_owned(),
            partial,
            file: continuing(file).or_io(|| format!("cannot write {}", path.display()))?,
        }))
    }

    /// Files `<whole>.001`, `<whole>.002`, … of `size` bytes at most, and their digests in `<whole>.sha256`, which
    /// `sha256sum -c` checks.
    ///
    /// # Errors
    /// As [`Output::file`]; [`ErrorKind::Input`] when `size` is zero.
    pub fn parts(whole: &Path, size: u64, replace: bool) -> Result<Self> {
        if size == 0 {
            return Err(Error::new(ErrorKind::Input, "a part of an archive can't have 0 bytes"));
        }
        let (lock, lock_path) = own_partial(whole)?;
        for path in [whole.to_owned(), parts::part_name(whole, 1)] {
            refuse_existing(&path, replace)?;
        }
        if parts::read_digests(whole).is_err() {
            // A list of other files' digests, perhaps.
            refuse_existing(&parts::digests_name(whole), replace)?;
        }
        Ok(Self(Kind::Parts(Box::new(Parts {
            whole: whole.to_owned(),
            size,
            written: Vec::new(),
            current: None,
            syncing: None,
            _lock: lock,
            lock_path,
        }))))
    }

    /// A pipe. Whoever reads it has to find out by himself whether it was cut off.
    #[must_use]
    pub fn stream(stream: Box<dyn Write + Send>) -> Self {
        Self(Kind::Stream(BufWriter::with_capacity(BLOCK, stream)))
    }

    /// Writes over bytes of a file that were written before. Other outputs are gone by then.
    pub(super) fn rewrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Kind::File { file, .. } => {
                file.flush()?;
                file.get_ref().rewrite(position, bytes)
            }
            Kind::Parts(_) | Kind::Stream(_) => Err(io::ErrorKind::NotSeekable.into()),
        }
    }

    /// Makes what was written durable and visible.
    pub(super) fn finish(self) -> Result<()> {
        match self.0 {
            Kind::File { path, partial, file } => {
                let place = || format!("cannot write {}", path.display());
                // Held to the end, and the lock with it: who waits for the partial file must find its name gone.
                let file = ended(file).or_io(place)?;
                file.sync_data().or_io(place)?;
                partial.persist(&path).map_err(|error| error.error).or_io(place)?;
                sync_folder(folder_of(&path))
            }
            Kind::Parts(parts) => parts.finish(),
            Kind::Stream(mut stream) => stream.flush().or_io(|| "cannot write the archive to the pipe"),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::File { file, .. } => file.write(bytes),
            Kind::Parts(parts) => parts.write(bytes),
            Kind::Stream(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::File { file, .. } => file.flush(),
            Kind::Parts(_) => Ok(()),
            Kind::Stream(stream) => stream.flush(),
        }
    }
}

/// Of two that write the same archive the second waits, and then finds it there.
fn own_partial(path: &Path) -> Result<(File, TempPath)> {
    let place = || format!("cannot write {}", path.display());
    let partial = path.with_added_extension("partial");
    let file = lock::own(&partial).context(place)?;
    let partial = TempPath::try_from_path(partial).or_io(place)?;
    Ok((file, partial))
}

fn continuing(file: File) -> io::Result<BufWriter<Continued>> {
    Ok(BufWriter::with_capacity(BLOCK, Continued::new(file)?))
}

fn ended(file: BufWriter<Continued>) -> io::Result<File> {
    file.into_inner().map_err(io::IntoInnerError::into_error)?.end()
}

fn refuse_existing(path: &Path, replace: bool) -> Result<()> {
    if replace || !path.exists() {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::Conflict, format!("{} exists already", path.display()))
            .hint("choose another file, or replace it with `--force`"),
    )
}

/// The parts of a split archive that are being written, each under a partial name.
#[derive(Debug)]
struct Parts {
    whole: PathBuf,
    size: u64,
    written: Vec<(TempPath, Digest)>,
    current: Option<(TempPath, HashingWriter<BufWriter<Continued>>, u64)>,
    /// Syncs the part before the current one.
    syncing: Option<JoinHandle<io::Result<()>>>,
    _lock: File,
    lock_path: TempPath,
}

impl Parts {
    fn begin(&mut self) -> io::Result<()> {
        let number = self.written.len() + 1;
        if number > MAX_PARTS {
            return Err(Error::new(
                ErrorKind::Input,
                format!("the archive has more than {MAX_PARTS} parts of {} bytes", self.size),
            )
            .hint("give `--split` a larger size")
            .into());
        }
        let path = parts::part_name(&self.whole, number).with_added_extension("partial");
        let mut options = fs::OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let path = TempPath::try_from_path(path)?;
        let writer = HashingWriter::new(continuing(file)?);
        self.current = Some((path, writer, self.size));
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let Some((path, writer, _)) = self.current.take() else {
            return Ok(());
        };
        let (file, hasher) = writer.into_parts();
        let file = ended(file)?;
        self.join_sync()?;
        self.syncing = Some(std::thread::spawn(move || file.sync_data()));
        self.written.push((path, hasher.finish()));
        Ok(())
    }

    fn join_sync(&mut self) -> io::Result<()> {
        match self.syncing.take().map(JoinHandle::join) {
            Some(Ok(synced)) => synced,
            Some(Err(_)) => Err(io::Error::other("the thread that syncs a part died")),
            None => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.current.as_ref().is_some_and(|(.., left)| *left == 0) {
            self.end()?;
        }
        if self.current.is_none() {
            self.begin()?;
        }
        let Some((_, writer, left)) = &mut self.current else {
            return Ok(0);
        };
        let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        let written = writer.write(bytes.get(..wanted).unwrap_or_default())?;
        *left -= written as u64;
        Ok(written)
    }

    /// Without the first part a set is none, so its name comes last and goes first: whenever this is interrupted,
    /// what lies there does not look whole, and the next try goes through.
    fn finish(mut self) -> Result<()> {
        let whole = self.whole.clone();
        let place = || format!("cannot write the parts of {}", whole.display());
        self.end().or_io(place)?;
        self.join_sync().or_io(place)?;
        for old in [parts::part_name(&whole, 1), whole.clone()] {
            remove_if_there(&old)?;
        }
        let (partials, digests): (Vec<_>, Vec<_>) = std::mem::take(&mut self.written).into_iter().unzip();
        let count = partials.len();
        file::write(
            &parts::digests_name(&whole),
            parts::format_digests(&whole, &digests).as_bytes(),
            0o644,
        )?;
        // What an earlier, longer archive or an interrupted save left.
        for number in (count + 1..=MAX_PARTS).take_while(|number| {
            let part = parts::part_name(&whole, *number);
            part.exists() || part.with_added_extension("partial").exists()
        }) {
            let part = parts::part_name(&whole, number);
            remove_if_there(&part.with_added_extension("partial"))?;
            remove_if_there(&part)?;
        }
        for (at, partial) in partials.into_iter().enumerate().rev() {
            if at == 0 {
                sync_folder(folder_of(&whole))?;
            }
            let part = parts::part_name(&whole, at + 1);
            partial.persist(&part).map_err(|error| error.error).or_io(place)?;
        }
        sync_folder(folder_of(&whole))?;
        self.lock_path.close().or_io(place)
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).or_io(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
