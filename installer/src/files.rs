//! Files on this host: written whole or not at all, copied without a second copy where the file system allows it,
//! and removed without ever crossing into something that is mounted there.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sealrs_image::digest::{Digest, HashingWriter};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};

/// The name under which a file is made before it takes its own. Always the same, so that a second try after a crash
/// replaces it and a removal finds it.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".sealrs-partial");
    path.with_file_name(name)
}

/// Writes a file so that a reader, or a crash, sees the old content or the new one.
///
/// # Errors
/// Disk errors.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let place = || format!("cannot write {}", path.display());
    let partial = partial(path);
    remove_file(&partial)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .or_io(place)?;
    file.write_all(bytes)
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .or_io(place)?;
    match fs::rename(&partial, path) {
        Ok(()) => {}
        // A file that is a mount of its own, as /etc/hosts is in containers, can't be replaced.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
            ) =>
        {
            let mut file = OpenOptions::new().write(true).truncate(true).open(path).or_io(place)?;
            file.write_all(bytes).and_then(|()| file.sync_all()).or_io(place)?;
            remove_file(&partial)?;
        }
        Err(error) => return Err(error).or_io(place),
    }
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// Copies a file, or gives it a second name where `link` allows that and the file system can.
///
/// # Errors
/// Disk errors.
pub(crate) fn copy(from: &Path, to: &Path, mode: Option<u32>, link: bool) -> Result<()> {
    let place = || format!("cannot copy {} to {}", from.display(), to.display());
    let partial = partial(to);
    remove_file(&partial)?;
    // Another mode would change the original as well.
    if !(link && mode.is_none() && fs::hard_link(from, &partial).is_ok()) {
        fs::copy(from, &partial).or_io(place)?;
        let file = File::open(&partial).or_io(place)?;
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode)).or_io(place)?;
        }
        file.sync_all().or_io(place)?;
    }
    fs::rename(&partial, to).or_io(place)?;
    // Renaming one name of a file to another name of it does nothing, by POSIX.
    remove_file(&partial)?;
    sync_folder(to.parent().unwrap_or(Path::new("/")))
}

/// The digest of what a file holds, or of where a link points; `None` when nothing is there.
///
/// # Errors
/// Disk errors.
pub(crate) fn digest(path: &Path) -> Result<Option<Digest>> {
    let place = || format!("cannot read {}", path.display());
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        found => found.or_io(place)?,
    };
    if metadata.is_symlink() {
        let target = fs::read_link(path).or_io(place)?;
        return Ok(Some(link_digest(&target)));
    }
    let mut hashing = HashingWriter::new(io::sink());
    let mut file = File::open(path).or_io(place)?;
    io::copy(&mut file, &mut hashing).or_io(place)?;
    Ok(Some(hashing.into_parts().1.finish()))
}

/// As [`digest`], for a link that points there.
pub(crate) fn link_digest(target: &Path) -> Digest {
    use std::os::unix::ffi::OsStrExt as _;
    Digest::of(target.as_os_str().as_bytes())
}

/// The file that `path` leads to, if it is a link: writing to a link's place would end it.
///
/// # Errors
/// When the link leads nowhere.
pub(crate) fn behind_links(path: &Path) -> Result<PathBuf> {
    if !exists(path) {
        return Ok(path.to_owned());
    }
    fs::canonicalize(path).or_io(|| format!("cannot follow the link {}", path.display()))
}

/// Makes the names in a folder durable.
///
/// # Errors
/// Disk errors.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .or_io(|| format!("cannot sync the folder {}", path.display()))
}

/// Removes a file or link, if it is there.
///
/// # Errors
/// Disk errors.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error).or_io(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}

/// Removes a folder if it is there and empty; says whether it is gone.
///
/// # Errors
/// Disk errors.
pub(crate) fn remove_empty_folder(path: &Path) -> Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error).or_io(|| format!("cannot remove the folder {}", path.display())),
    }
}

/// Removes whatever is at `path`, with all below it, unless something is mounted there or below.
///
/// # Errors
/// [`ErrorKind::Step`] when something is mounted; disk errors.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error).or_io(|| format!("cannot read {}", path.display())),
    };
    if !kind.is_dir() {
        return remove_file(path);
    }
    if let Some(mount) = mounts()?.into_iter().find(|mount| mount.starts_with(path)) {
        return Err(Error::new(
            ErrorKind::Step,
            format!(
                "{} is not removed because {} is still mounted",
                path.display(),
                mount.display()
            ),
        )
        .hint(format!("unmount {} and delete again", mount.display())));
    }
    match fs::remove_dir_all(path) {
        Err(error) if !is_absent(&error) => Err(error).or_io(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}

/// What is mounted in this process's view, in the order it was mounted.
///
/// # Errors
/// When /proc can't be read.
pub(crate) fn mounts() -> Result<Vec<PathBuf>> {
    let text = fs::read("/proc/self/mountinfo").or_io(|| "cannot read /proc/self/mountinfo")?;
    Ok(parse_mounts(&text))
}

/// The fifth field of each line is the mount point, with blanks and the like as octal (proc(5)).
fn parse_mounts(text: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
        .collect()
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

/// Whether an error says that there is nothing at the path.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether there is anything at `path`, be it a dangling link.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The nearest folder above `path`, or `path` itself, that exists.
pub(crate) fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn writes_whole_files_with_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(partial(&path), "left by a crash").unwrap();
        write(&path, b"one", 0o644).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_where_it_may_and_leaves_no_second_name() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "x").unwrap();
        for _ in 0..2 {
            copy(&from, &to, None, true).unwrap();
            assert_eq!(fs::metadata(&to).unwrap().nlink(), 2);
        }
        copy(&from, &to, Some(0o755), true).unwrap();
        assert_eq!(fs::metadata(&from).unwrap().nlink(), 1);
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn reads_mount_points() {
        let text =
            b"22 1 0:20 / /run rw - tmpfs tmpfs rw\n23 1 0:21 /x /a\\040b\\134c rw shared:1 - ext4 /dev/sda rw\n";
        assert_eq!(parse_mounts(text), [PathBuf::from("/run"), PathBuf::from("/a b\\c")]);
        assert!(mounts().unwrap().contains(&PathBuf::from("/proc")));
    }

    #[test]
    fn never_removes_what_is_mounted() {
        let error = remove_tree(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("still mounted"));
    }
}
