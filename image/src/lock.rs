//! Advisory file locks between processes. The kernel drops them when a process dies, so none is ever stale.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};

/// A held lock: given back when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

/// Waits for a lock that many may hold at once.
///
/// # Errors
/// [`ErrorKind::Disk`] when the lock file can't be opened.
pub fn shared(path: &Path) -> Result<Lock> {
    let file = open(path)?;
    wait(path, file, File::lock_shared)
}

/// Waits for a lock that only one may hold.
///
/// # Errors
/// [`ErrorKind::Disk`] when the lock file can't be opened.
pub fn exclusive(path: &Path) -> Result<Lock> {
    let file = open(path)?;
    wait(path, file, File::lock)
}

/// Takes a lock that only one may hold, or says at once that somebody has it.
///
/// # Errors
/// [`ErrorKind::Conflict`] with `busy` as its text when it is held.
pub fn try_exclusive(path: &Path, busy: impl FnOnce() -> Error) -> Result<Lock> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: Some(file) }),
        Err(TryLockError::WouldBlock) => Err(busy()),
        Err(TryLockError::Error(error)) if unsupported(&error) => Ok(Lock { _file: None }),
        Err(TryLockError::Error(error)) => {
            Err(error).or_io(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Opens a file, making it if need be, and waits until no other process has it open this way.
///
/// Whoever had it may have renamed or removed it meanwhile; then the name is opened anew.
///
/// # Errors
/// [`ErrorKind::Disk`] when the file can't be opened.
pub fn own(path: &Path) -> Result<File> {
    loop {
        let file = open(path)?;
        match file.lock() {
            Ok(()) => {}
            Err(error) if unsupported(&error) => return Ok(file),
            Err(error) => return Err(error).or_io(|| format!("cannot lock {}", path.display())),
        }
        let held = file
            .metadata()
            .or_io(|| format!("cannot read {}", path.display()))?;
        if std::fs::metadata(path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()))
        {
            return Ok(file);
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .or_io(|| format!("cannot open {}", path.display()))
}

fn wait(path: &Path, file: File, lock: impl FnOnce(&File) -> std::io::Result<()>) -> Result<Lock> {
    match lock(&file) {
        Ok(()) => Ok(Lock { _file: Some(file) }),
        Err(error) if unsupported(&error) => Ok(Lock { _file: None }),
        Err(error) => Err(error).or_io(|| format!("cannot lock {}", path.display())),
    }
}

/// Some network file systems have no locks; refusing to work there would help nobody.
fn unsupported(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::Unsupported
}

/// The error for a store that is in use.
#[must_use]
pub fn in_use(what: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("another sealrs is using {what}"),
    )
    .hint("wait until it has finished and try again")
}
