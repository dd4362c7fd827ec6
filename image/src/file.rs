//! Files that appear whole or not at all. Each is made under a partial name beside its own and renamed, so a reader, or
//! a crash, sees the old one or the new one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use tempfile::TempPath;

use crate::error::{IoResultExt as _, Result};

/// In the name of every file that is not whole yet.
const PARTIAL: &str = ".sealrs-";

/// Replaces what is at `path` by a file with these bytes and permission bits, and makes it durable.
///
/// # Errors
/// [`ErrorKind::Disk`](crate::error::ErrorKind::Disk) when it can't be written; then nothing has changed.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_to(path, bytes, mode, None, File::sync_all)?;
    sync_folder(folder_of(path))
}

/// As [`write`], and gives the file, if possible, to another owner (user and group) than us.
///
/// # Errors
/// As [`write`].
pub fn write_owned(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    write_to(path, bytes, mode, owner, File::sync_all)?;
    sync_folder(folder_of(path))
}

/// As [`write`], for what a power cut may take away again: nothing waits for the disk.
///
/// # Errors
/// As [`write`].
pub fn write_disposable(path: &Path, bytes: &[u8]) -> Result<()> {
    write_to(path, bytes, 0o644, None, |_| Ok(()))
}

fn write_to(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
    sync: fn(&File) -> io::Result<()>,
) -> Result<()> {
    let place = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new()
        .prefix(&partial_prefix(path))
        .tempfile_in(folder_of(path))
        .or_io(place)?;
    if let Some((user, group)) = owner {
        // Only root can give files away; anybody else's are his own anyhow.
        let _ = std::os::unix::fs::fchown(file.as_file(), Some(user), Some(group));
    }
    file.write_all(bytes)
        .and_then(|()| file.as_file().set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| sync(file.as_file()))
        .or_io(place)?;
    match file.persist(path) {
        Ok(_) => Ok(()),
        // A file that is a mount of its own, as /etc/hosts is in containers, can't be replaced.
        Err(failure) if is_mount(&failure.error) => fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(path)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                sync(&file)
            })
            .or_io(place),
        Err(failure) => Err(failure.error).or_io(place),
    }
}

fn is_mount(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
    )
}

/// Copies a file with its permission bits, or with `mode`, and makes it durable.
///
/// # Errors
/// As [`write`].
pub fn copy(from: &Path, to: &Path, mode: Option<u32>) -> Result<()> {
    let place = || format!("cannot copy {} to {}", from.display(), to.display());
    let partial = tempfile::Builder::new()
        .prefix(&partial_prefix(to))
        .tempfile_in(folder_of(to))
        .or_io(place)?
        .into_temp_path();
    fs::copy(from, &partial).or_io(place)?;
    let file = File::open(&partial).or_io(place)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode)).or_io(place)?;
    }
    file.sync_all().or_io(place)?;
    rename(partial, to).or_io(place)
}

/// Gives a file a second name, in place of what has that name. Says whether the file system could.
///
/// # Errors
/// As [`write`].
pub fn hard_link(from: &Path, to: &Path) -> Result<bool> {
    let made = tempfile::Builder::new()
        .prefix(&partial_prefix(to))
        .make_in(folder_of(to), |path| fs::hard_link(from, path));
    let Ok(made) = made else {
        return Ok(false);
    };
    // Renaming one name of a file to another name of it does nothing, by POSIX, so the partial name may stay: it
    // goes when it is dropped.
    let partial = made.into_temp_path();
    fs::rename(&partial, to).or_io(|| format!("cannot link {} to {}", to.display(), from.display()))?;
    drop(partial);
    sync_folder(folder_of(to))?;
    Ok(true)
}

/// Makes a symbolic link, in place of what is at `path`.
///
/// # Errors
/// As [`write`].
pub fn link(path: &Path, target: &Path) -> Result<()> {
    let place = || format!("cannot link {}", path.display());
    let made = tempfile::Builder::new()
        .prefix(&partial_prefix(path))
        .make_in(folder_of(path), |path| symlink(target, path))
        .or_io(place)?;
    rename(made.into_temp_path(), path).or_io(place)
}

fn rename(partial: TempPath, path: &Path) -> io::Result<()> {
    partial.persist(path).map_err(|failure| failure.error)?;
    File::open(folder_of(path))?.sync_all()
}

/// Removes what a crash left of attempts to make `path`.
///
/// # Errors
/// [`ErrorKind::Disk`](crate::error::ErrorKind::Disk) when it can't be removed.
pub fn remove_partials(path: &Path) -> Result<()> {
    let prefix = partial_prefix(path);
    for entry in fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes())
        {
            let left = entry.path();
            fs::remove_file(&left).or_io(|| format!("cannot remove {}", left.display()))?;
        }
    }
    Ok(())
}

/// Makes the names in a folder durable: a synced file that a power cut leaves without a name is lost.
///
/// # Errors
/// [`ErrorKind::Disk`](crate::error::ErrorKind::Disk) when it can't be synced.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .or_io(|| format!("cannot sync the folder {}", folder.display()))
}

/// The folder that a path is in, also when the path is a bare name.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

/// The start of the partial names of `path`.
/// Whether a name is one that a file has until it is whole.
pub(crate) fn is_partial(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.windows(PARTIAL.len()).any(|part| part == PARTIAL.as_bytes())
}

fn partial_prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(PARTIAL);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn writes_whole_files_with_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"one", 0o644).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        write_disposable(&path, b"three").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        // A folder is in the way.
        fs::create_dir_all(folder.path().join("folder/full")).unwrap();
        write(&folder.path().join("folder"), b"x", 0o644).unwrap_err();
        assert_eq!(names(folder.path()), ["file", "folder"]);
    }

    #[test]
    fn links_leave_no_second_name() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "x").unwrap();
        for _ in 0..2 {
            assert!(hard_link(&from, &to).unwrap());
            assert_eq!(fs::metadata(&to).unwrap().nlink(), 2);
        }
        copy(&from, &to, Some(0o755)).unwrap();
        assert_eq!(fs::metadata(&from).unwrap().nlink(), 1);
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o755);
        link(&to, Path::new("from")).unwrap();
        assert_eq!(fs::read_link(&to).unwrap(), Path::new("from"));
        assert_eq!(names(folder.path()), ["from", "to"]);
    }

    #[test]
    fn removes_what_a_crash_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".hosts.sealrs-a1", ".hosts.swp", "hosts", ".hosts2.sealrs-b"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        remove_partials(&folder.path().join("hosts")).unwrap();
        assert_eq!(names(folder.path()), [".hosts.swp", ".hosts2.sealrs-b", "hosts"]);
        remove_partials(Path::new("/no/such/folder/file")).unwrap();
    }
}
