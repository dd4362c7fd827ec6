//! Files on this host: what they hold, where they are mounted, and removing them without ever crossing into something
//! that is mounted there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sealrs_image::digest::{Digest, Hasher};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::file;

/// Writes a file as [`file::write`] does, in place of what an earlier try left that was killed. For files that no two
/// processes write at once.
///
/// # Errors
/// Disk errors.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    file::remove_partials(path)?;
    file::write(path, bytes, mode)
}

/// As [`write`], unless the file holds that already.
///
/// # Errors
/// Disk errors.
pub(crate) fn keep(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if fs::read(path).is_ok_and(|kept| kept == bytes) {
        return Ok(());
    }
    write(path, bytes, mode)
}

/// Copies a file as [`file::copy`] does, or gives it a second name where `link` allows that and the file system can. As
/// [`write`], in place of what an earlier try left.
///
/// # Errors
/// Disk errors.
pub(crate) fn copy(from: &Path, to: &Path, mode: Option<u32>, link: bool) -> Result<()> {
    file::remove_partials(to)?;
    // A second name has the mode of the first.
    if link && mode.is_none() && file::hard_link(from, to)? {
        return Ok(());
    }
    file::copy(from, to, mode)
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
    let mut file = File::open(path).or_io(place)?;
    digest_of(&mut file).or_io(place).map(Some)
}

/// The digest of what is read.
pub(crate) fn digest_of(reader: &mut impl io::Read) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    io::copy(reader, &mut hasher)?;
    Ok(hasher.finish())
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
    Ok(mounts_with_kinds()?.into_iter().map(|(path, _)| path).collect())
}

/// As [`mounts`], each with the kind of its file system.
///
/// # Errors
/// As [`mounts`].
pub(crate) fn mounts_with_kinds() -> Result<Vec<(PathBuf, String)>> {
    let text = fs::read("/proc/self/mountinfo").or_io(|| "cannot read /proc/self/mountinfo")?;
    Ok(parse_mounts(&text))
}

/// The fifth field of each line is the mount point, with blanks and the like as octal, and the one after a lone `-` the
/// file system's kind (proc(5)).
fn parse_mounts(text: &[u8]) -> Vec<(PathBuf, String)> {
    use std::os::unix::ffi::OsStringExt as _;
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ');
            let path = std::ffi::OsString::from_vec(unescape(fields.nth(4)?));
            let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
            Some((path.into(), String::from_utf8_lossy(kind).into_owned()))
        })
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

    #[test]
    fn reads_mount_points() {
        let text =
            b"22 1 0:20 / /run rw - tmpfs tmpfs rw\n23 1 0:21 /x /a\\040b\\134c rw shared:1 - ext4 /dev/sda rw\n";
        let found = parse_mounts(text);
        let expected = [("/run", "tmpfs"), ("/a b\\c", "ext4")];
        assert_eq!(found, expected.map(|(path, kind)| (path.into(), kind.to_owned())));
        assert!(mounts().unwrap().contains(&PathBuf::from("/proc")));
    }

    #[test]
    fn never_removes_what_is_mounted() {
        let error = remove_tree(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("still mounted"));
    }
}
