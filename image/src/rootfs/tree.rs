//! Creates files, folders and links below a folder, whatever the tree holds already: no path leaves it.
//!
//! Parents are opened by cap-std, which resolves links below the root only; the last part of a path is always
//! created by name in its opened parent and never followed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::rules::misleads;
use super::shared::Blocks;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::layer::Member;
use crate::store::BLOCK;

/// Opens the folder that everything stays below.
///
/// # Errors
/// When it is no folder.
pub(super) fn open_root(path: &Path) -> Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority()).or_io(|| format!("cannot open {}", path.display()))
}

/// Modes and times of folders: set at the end, when nothing is created in them any more.
#[derive(Debug, Default)]
pub(super) struct Folders(Mutex<BTreeMap<String, (u32, u64)>>);

impl Folders {
    fn note(&self, path: &str, mode: u32, mtime: u64) {
        let mut folders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        folders.insert(path.to_owned(), (mode, mtime));
    }

    fn forget(&self, path: &str) {
        let mut folders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let below = format!("{path}/");
        let gone: Vec<String> = folders
            .range(below.clone()..)
            .map(|(folder, _)| folder)
            .take_while(|folder| folder.starts_with(&below))
            .cloned()
            .collect();
        folders.remove(path);
        for folder in gone {
            folders.remove(&folder);
        }
    }

    /// Sets them, the deepest first.
    ///
    /// # Errors
    /// When a folder can't be changed.
    pub(super) fn settle(self, root: &Dir) -> Result<()> {
        let folders = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (path, (mode, mtime)) in folders.iter().rev() {
            let place = || format!("cannot set the mode of `{path}`");
            let (parent, name) = split(path);
            let opened = root
                .open_dir(or_dot(parent))
                .and_then(|parent| open_folder_itself(&parent, name));
            let folder = match opened {
                Ok(folder) => folder,
                // It was made by way of a link and went by its real name.
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error).or_io(place),
            };
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(*mode))
                .and_then(|()| rustix::fs::futimens(&folder, &times(*mtime)))
                .map_err(io::Error::from)
                .or_io(place)?;
        }
        Ok(())
    }
}

/// Works below one folder. Keeps the last parent open, since neighbours share it.
#[derive(Debug)]
pub(super) struct Tree<'r> {
    root: &'r Dir,
    folders: &'r Folders,
    parent: Option<(String, Dir)>,
    /// What this layer made: its own whiteouts hide only what lower layers brought.
    made: BTreeSet<String>,
    /// Only root may give files away.
    owner: bool,
    buffer: Vec<u8>,
}

impl<'r> Tree<'r> {
    pub(super) fn new(root: &'r Dir, folders: &'r Folders) -> Result<Self> {
        Ok(Self {
            root,
            folders,
            parent: None,
            made: BTreeSet::new(),
            owner: rustix::process::geteuid().is_root(),
            buffer: vec![0; BLOCK],
        })
    }

    /// Creates a file. Its content is read to the end in any case, to be verified, but what could be shared with `blocks`
    /// is not written.
    pub(super) fn file(
        &mut self,
        path: &str,
        member: &Member,
        content: &mut dyn Read,
        blocks: Option<Blocks<'_>>,
    ) -> Result<()> {
        let owner = self.owner;
        let mut buffer = std::mem::take(&mut self.buffer);
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |parent: &Dir| rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        let descriptor = match create(parent) {
            Err(Errno::EXIST) => {
                self.remove(path)?;
                let (parent, _) = self.parent(path)?;
                create(parent)
            }
            other => other,
        }
        .map_err(io::Error::from)
        .or_io(|| "cannot create the file")?;
        let mut file = std::fs::File::from(descriptor);
        let shared = blocks.map_or(0, |blocks| blocks.share_with(&file));
        file.seek(SeekFrom::Start(shared)).or_io(|| "cannot write the file")?;
        let mut there = shared;
        loop {
            let read = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).or_io(|| "cannot read the file's content"),
            };
            let already = usize::try_from(there).unwrap_or(usize::MAX).min(read);
            there -= already as u64;
            file.write_all(buffer.get(already..read).unwrap_or_default())
                .or_io(|| "cannot write the file")?;
        }
        self.buffer = buffer;
        attributes(&file, member, owner)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(member.mode))
            .and_then(|()| rustix::fs::futimens(&file, &times(member.mtime)))
            .map_err(io::Error::from)
            .or_io(|| "cannot set the file's mode and time")
    }

    pub(super) fn folder(&mut self, path: &str, member: &Member) -> Result<()> {
        let owner = self.owner;
        let (parent, name) = self.parent(path)?;
        let make = |parent: &Dir| rustix::fs::mkdirat(parent, name, Mode::RWXU);
        let made = match make(parent) {
            Err(Errno::EXIST) if is_folder(parent, name)? => Ok(()),
            Err(Errno::EXIST) => {
                self.remove(path)?;
                let (parent, _) = self.parent(path)?;
                make(parent)
            }
            other => other,
        };
        made.map_err(io::Error::from).or_io(|| "cannot make the folder")?;
        let (parent, name) = self.parent(path)?;
        let folder = open_folder_itself(parent, name).or_io(|| "cannot open the folder")?;
        attributes(&folder, member, owner)?;
        self.folders.note(path, member.mode, member.mtime);
        Ok(())
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str, member: &Member) -> Result<()> {
        let owner = self.owner;
        let (parent, name) = self.parent(path)?;
        let make = |parent: &Dir| rustix::fs::symlinkat(target, parent, name);
        let made = match make(parent) {
            Err(Errno::EXIST) => {
                self.remove(path)?;
                let (parent, _) = self.parent(path)?;
                make(parent)
            }
            other => other,
        };
        made.map_err(io::Error::from).or_io(|| "cannot make the link")?;
        let (parent, name) = self.parent(path)?;
        let mut result = rustix::fs::utimensat(parent, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW);
        if owner {
            let (uid, gid) = owners(member);
            result = result.and_then(|()| rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW));
        }
        result
            .map_err(io::Error::from)
            .or_io(|| "cannot set the link's owner and time")
    }

    pub(super) fn hard_link(&mut self, path: &str, target: &str) -> Result<()> {
        if let Some(why) = misleads(path, target) {
            return Err(Error::new(ErrorKind::Integrity, why));
        }
        let (folder, target_name) = split(target);
        let shown = target.escape_debug();
        let place = || format!("cannot link it to `{shown}`");
        let folder = self
            .root
            .open_dir(or_dot(folder))
            .map_err(|error| misled(error, place()))?;
        let there = folder
            .symlink_metadata(target_name)
            .map_err(|error| misled(error, place()))?;
        if there.is_dir() {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("the hard link points to `{shown}`, a folder"),
            ));
        }
        let make = |parent: &Dir, name: &str| rustix::fs::linkat(&folder, target_name, parent, name, AtFlags::empty());
        let (parent, name) = self.parent(path)?;
        let made = match make(parent, name) {
            Err(Errno::EXIST) => {
                self.remove(path)?;
                let (parent, name) = self.parent(path)?;
                make(parent, name)
            }
            other => other,
        };
        made.map_err(|error| misled(error.into(), place()))
    }

    /// Remembers that this layer made `path`.
    pub(super) fn note_made(&mut self, path: &str) {
        self.made.insert(path.to_owned());
    }

    /// Removes what lower layers have at `path`; what this layer made stays (layer.md, whiteouts).
    pub(super) fn hide(&mut self, path: &str) -> Result<()> {
        let below = format!("{path}/");
        let has_own = self.made.contains(path)
            || self
                .made
                .range(below.clone()..)
                .next()
                .is_some_and(|made| made.starts_with(&below));
        if !has_own {
            return self.remove(path);
        }
        let (folder, name) = split(path);
        let found = self
            .root
            .open_dir(or_dot(folder))
            .and_then(|parent| parent.symlink_metadata(name));
        match found {
            Ok(found) if found.is_dir() => self.hide_all(path),
            Ok(_) => Ok(()),
            // It went by another name, through a link.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(misled(error, format!("cannot remove `{}`", path.escape_debug()))),
        }
    }

    /// Removes what lies at `path`, if anything does.
    pub(super) fn remove(&mut self, path: &str) -> Result<()> {
        let (folder, name) = split(path);
        let place = || format!("cannot remove `{}`", path.escape_debug());
        let parent = match self.root.open_dir(or_dot(folder)) {
            Ok(parent) => parent,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(misled(error, place())),
        };
        // The open parent may be what is being removed.
        self.parent = None;
        self.folders.forget(path);
        let removed = match parent.symlink_metadata(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
            Ok(metadata) if metadata.is_dir() => parent.remove_dir_all(name),
            Ok(_) => parent.remove_file(name),
        };
        removed.or_io(place)
    }

    /// Removes what lower layers have in a folder, not the folder.
    pub(super) fn hide_all(&mut self, path: &str) -> Result<()> {
        let place = || format!("cannot clear `{}`", path.escape_debug());
        let folder = match self.root.open_dir(or_dot(path)) {
            Ok(folder) => folder,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(misled(error, place())),
        };
        let mut names = Vec::new();
        for entry in folder.entries().or_io(place)? {
            let name = entry.or_io(place)?.file_name();
            names.push(
                name.into_string().map_err(|_| {
                    Error::new(ErrorKind::Integrity, format!("`{path}` holds a name that is not UTF-8"))
                })?,
            );
        }
        for name in names {
            self.hide(&if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            })?;
        }
        Ok(())
    }

    /// The opened folder that `path` lies in, made if need be, and the last part of `path`.
    fn parent<'p>(&mut self, path: &'p str) -> Result<(&Dir, &'p str)> {
        let (folder, name) = split(path);
        if self.parent.as_ref().is_none_or(|(open, _)| open != folder) {
            self.parent = Some((folder.to_owned(), open_folder(self.root, self.folders, folder)?));
        }
        match &self.parent {
            Some((_, parent)) => Ok((parent, name)),
            None => Err(Error::new(ErrorKind::Internal, "a folder was lost")),
        }
    }
}

/// Opens a folder below `root`, making what is missing.
fn open_folder(root: &Dir, folders: &Folders, path: &str) -> Result<Dir> {
    let place = || format!("cannot enter the folder `{}`", path.escape_debug());
    match root.open_dir(or_dot(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let ends = path.match_indices('/').map(|(at, _)| at);
            for end in ends.chain([path.len()]) {
                let part = path.get(..end).unwrap_or(path);
                match root.create_dir(part) {
                    // A layer need not tell of a folder; it must not depend on the umask then.
                    Ok(()) => folders.note(part, 0o755, 0),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(misled(error, place())),
                }
            }
            root.open_dir(or_dot(path)).map_err(|error| misled(error, place()))
        }
        other => other.map_err(|error| misled(error, place())),
    }
}

/// Opens a folder, not what a link in its place points to. Where cap-std's own descriptors only lead to other files,
/// this one can have its mode set or be synced.
fn open_folder_itself(parent: &Dir, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Writes everything in the file system below `root` to the disk.
///
/// # Errors
/// When the disk fails.
pub(super) fn sync(root: &Dir) -> io::Result<()> {
    Ok(rustix::fs::syncfs(open_folder_itself(root, ".")?)?)
}

/// The error for a path that the layer itself laid wrongly: through a file, in circles, or out of the rootfs.
fn misled(error: io::Error, what: String) -> Error {
    // cap-std tells of a way out without the kernel's word.
    let outside = error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none();
    let laid = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NAMETOOLONG]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    if outside || laid {
        return Error::new(ErrorKind::Integrity, what)
            .because(error)
            .hint("the image was built wrongly or tampered with");
    }
    match Err::<(), _>(error).or_io(|| what) {
        Err(error) => error,
        Ok(()) => Error::new(ErrorKind::Internal, "a failure was lost"),
    }
}

/// Whether nothing lies at a path, so that nothing has to be removed there.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// cap-std wants a name for the folder itself.
fn or_dot(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_folder(parent: &Dir, name: &str) -> Result<bool> {
    parent
        .symlink_metadata(name)
        .map(|metadata| metadata.is_dir())
        .or_io(|| format!("cannot read `{name}`"))
}

/// Owner first: giving a file away clears set-uid and file capabilities.
fn attributes(file: &impl AsFd, member: &Member, owner: bool) -> Result<()> {
    if owner {
        let (uid, gid) = owners(member);
        rustix::fs::fchown(file, uid, gid)
            .map_err(io::Error::from)
            .or_io(|| "cannot set the owner")?;
    }
    for (name, value) in &member.xattrs {
        match rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // Without root, or on a file system without them, only the user's own attributes have to be kept.
            Err(Errno::PERM | Errno::OPNOTSUPP) if !name.starts_with("user.") => {}
            other => other
                .map_err(io::Error::from)
                .or_io(|| format!("cannot set the attribute `{name}`"))?,
        }
    }
    Ok(())
}

fn owners(member: &Member) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))
}

fn times(mtime: u64) -> Timestamps {
    let stamp = Timespec {
        // A negative time arrives as a number above all others.
        tv_sec: i64::try_from(mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: stamp,
        last_modification: stamp,
    }
}
