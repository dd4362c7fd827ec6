//! Advisory file locks between processes. The kernel drops them when a process dies, so none is ever stale.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};

/// A held lock: given back when dropped.
#[derive(Debug)]
pub struct Lock {
    file: Option<File>,
}

impl Lock {
    /// Where there is nothing that could go.
    pub(crate) fn nothing() -> Self {
        Self { file: None }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that another thread has just forked holds it open until it runs its
        // own program, and the lock with it.
        if let Some(file) = &self.file {
            let _ = file.unlock();
        }
    }
}

/// Waits for a lock that many may hold at once.
///
/// # Errors
/// [`ErrorKind::Disk`] when the lock file can't be opened.
pub fn shared(path: &Path) -> Result<Lock> {
    let file = match open(path) {
        // Whoever may only read can still say that he does.
        Err(error) => File::open(path).map_err(|_| error)?,
        Ok(file) => file,
    };
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
        Ok(()) => Ok(Lock { file: Some(file) }),
        Err(TryLockError::WouldBlock) => Err(busy()),
        Err(TryLockError::Error(error)) if unsupported(&error) => Ok(Lock { file: None }),
        Err(TryLockError::Error(error)) => Err(error).or_io(|| format!("cannot lock {}", path.display())),
    }
}

/// Takes a folder for this process alone, making nothing in it. `None` when it went away meanwhile.
///
/// # Errors
/// [`ErrorKind::Conflict`] with `busy` as its text when it is held; [`ErrorKind::Disk`] when it can't be opened.
pub fn try_folder(path: &Path, busy: impl FnOnce() -> Error) -> Result<Option<Lock>> {
    let folder = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.or_io(|| format!("cannot open {}", path.display()))?,
    };
    match folder.try_lock() {
        Ok(()) => Ok(is_named(&folder, path)?.then_some(Lock { file: Some(folder) })),
        Err(TryLockError::WouldBlock) => Err(busy()),
        Err(TryLockError::Error(error)) if unsupported(&error) => Ok(Some(Lock { file: None })),
        Err(TryLockError::Error(error)) => Err(error).or_io(|| format!("cannot lock {}", path.display())),
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
        if is_named(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether an open file is still the one at `path`.
fn is_named(file: &File, path: &Path) -> Result<bool> {
    let held = file.metadata().or_io(|| format!("cannot read {}", path.display()))?;
    Ok(std::fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())))
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
        Ok(()) => Ok(Lock { file: Some(file) }),
        Err(error) if unsupported(&error) => Ok(Lock { file: None }),
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
    Error::new(ErrorKind::Conflict, format!("another sealrs is using {what}"))
        .hint("wait until it has finished and try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Error {
        in_use("it")
    }

    #[test]
    fn many_share_and_one_has_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (one, two) = (shared(&path).unwrap(), shared(&path).unwrap());
        assert_eq!(try_exclusive(&path, busy).unwrap_err().kind(), ErrorKind::Conflict);
        drop((one, two));
        let alone = try_exclusive(&path, busy).unwrap();
        assert_eq!(try_exclusive(&path, busy).unwrap_err().kind(), ErrorKind::Conflict);
        drop(alone);
        drop(exclusive(&path).unwrap());
    }

    /// A copy of the descriptor, as a child has it between fork and exec.
    #[test]
    fn a_lock_that_is_given_back_is_free_whoever_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = exclusive(&path).unwrap();
        let copy = held.file.as_ref().unwrap().try_clone().unwrap();
        drop(held);
        drop(try_exclusive(&path, busy).unwrap());
        drop(copy);
    }

    #[test]
    fn a_file_that_was_renamed_while_one_waited_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, done) = (folder.path().join("partial"), folder.path().join("done"));
        let first = own(&path).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| own(&path).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::rename(&path, &done).unwrap();
            drop(first);
            let second = second.join().unwrap().metadata().unwrap().ino();
            assert_eq!(second, std::fs::metadata(&path).unwrap().ino());
            assert_ne!(second, std::fs::metadata(&done).unwrap().ino());
        });
    }
}
