//! Creates files, folders and links below a folder, whatever the tree holds already: no path leaves it.
//!
//! Parents are opened by cap-std, which resolves links below the root only; the last part of a path is always
//! created by name in its opened parent and never followed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::layer::Member;
use crate::store::BLOCK;

/// Opens the folder that everything stays below.
///
/// # Errors
/// When it is no folder.
pub(super) fn open_root(path: &Path) -> Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority())
        .or_io(|| format!("cannot open {}", path.display()))
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
        folders.retain(|folder, _| folder != path && !folder.starts_with(&below));
    }

    /// Sets them, the deepest first.
    ///
    /// # Errors
    /// When a folder can't be changed.
    pub(super) fn settle(self, root: &Dir) -> Result<()> {
        let folders = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (path, (mode, mtime)) in folders.iter().rev() {
            let place = || format!("cannot set the mode of `{path}`");
            let folder = root.open_dir(path).or_io(place)?;
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
            owner: rustix::process::geteuid().is_root(),
            buffer: vec![0; BLOCK],
        })
    }

    pub(super) fn file(
        &mut self,
        path: &str,
        member: &Member,
        content: &mut dyn Read,
    ) -> Result<()> {
        let owner = self.owner;
        let mut buffer = std::mem::take(&mut self.buffer);
        let (parent, name) = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create =
            |parent: &Dir| rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
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
        loop {
            let read = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).or_io(|| "cannot read the file's content"),
            };
            file.write_all(buffer.get(..read).unwrap_or_default())
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
        made.map_err(io::Error::from)
            .or_io(|| "cannot make the folder")?;
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(parent, name, flags, Mode::empty())
            .map_err(io::Error::from)
            .or_io(|| "cannot open the folder")?;
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
        made.map_err(io::Error::from)
            .or_io(|| "cannot make the link")?;
        let (parent, name) = self.parent(path)?;
        let mut result = rustix::fs::utimensat(
            parent,
            name,
            &times(member.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        if owner {
            let (uid, gid) = owners(member);
            result = result.and_then(|()| {
                rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            });
        }
        result
            .map_err(io::Error::from)
            .or_io(|| "cannot set the link's owner and time")
    }

    pub(super) fn hard_link(&mut self, path: &str, target: &str) -> Result<()> {
        if target == path || target.is_empty() {
            return Err(Error::new(
                ErrorKind::Integrity,
                "the hard link points to itself or to nothing",
            ));
        }
        let (target_folder, target_name) = split(target);
        let target_folder = open_folder(self.root, target_folder)?;
        let make = |parent: &Dir, name: &str| {
            rustix::fs::linkat(&target_folder, target_name, parent, name, AtFlags::empty())
        };
        let (parent, name) = self.parent(path)?;
        let made = match make(parent, name) {
            Err(Errno::EXIST) => {
                self.remove(path)?;
                let (parent, name) = self.parent(path)?;
                make(parent, name)
            }
            other => other,
        };
        made.map_err(io::Error::from)
            .or_io(|| format!("cannot link it to `{}`", target.escape_debug()))
    }

    /// Removes what lies at `path`, if anything does.
    pub(super) fn remove(&mut self, path: &str) -> Result<()> {
        let (folder, name) = split(path);
        let place = || format!("cannot remove `{path}`");
        let parent = match self
            .root
            .open_dir(if folder.is_empty() { "." } else { folder })
        {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).or_io(place),
        };
        // The open parent may be what is being removed.
        self.parent = None;
        let removed = match parent.symlink_metadata(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
            Ok(metadata) if metadata.is_dir() => {
                self.folders.forget(path);
                parent.remove_dir_all(name)
            }
            Ok(_) => parent.remove_file(name),
        };
        removed.or_io(place)
    }

    /// Removes everything in a folder, not the folder.
    pub(super) fn clear_folder(&mut self, path: &str) -> Result<()> {
        let place = || format!("cannot clear `{path}`");
        let folder = match self.root.open_dir(if path.is_empty() { "." } else { path }) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).or_io(place),
        };
        let mut names = Vec::new();
        for entry in folder.entries().or_io(place)? {
            let name = entry.or_io(place)?.file_name();
            names.push(name.into_string().map_err(|_| {
                Error::new(
                    ErrorKind::Integrity,
                    format!("`{path}` holds a name that is not UTF-8"),
                )
            })?);
        }
        for name in names {
            self.remove(&if path.is_empty() {
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
            self.parent = Some((folder.to_owned(), open_folder(self.root, folder)?));
        }
        match &self.parent {
            Some((_, parent)) => Ok((parent, name)),
            None => Err(Error::new(ErrorKind::Internal, "a folder was lost")),
        }
    }
}

/// Opens a folder below `root`, making what is missing.
fn open_folder(root: &Dir, path: &str) -> Result<Dir> {
    let place = || format!("cannot enter the folder `{path}`");
    let path = if path.is_empty() { "." } else { path };
    match root.open_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            root.create_dir_all(path).or_io(place)?;
            root.open_dir(path).or_io(place)
        }
        // cap-std says so when a link would lead out.
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && error.raw_os_error().is_none() =>
        {
            Err(Error::new(ErrorKind::Integrity, place()).because(error))
        }
        other => other.or_io(place),
    }
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
            // Without root, or on a file system without them, only the user's own attributes can be kept.
            Err(Errno::PERM | Errno::OPNOTSUPP) if !owner || !name.starts_with("user.") => {}
            other => other
                .map_err(io::Error::from)
                .or_io(|| format!("cannot set the attribute `{name}`"))?,
        }
    }
    Ok(())
}

fn owners(member: &Member) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(member.uid)),
        Some(Gid::from_raw(member.gid)),
    )
}

fn times(mtime: u64) -> Timestamps {
    let stamp = Timespec {
        tv_sec: i64::try_from(mtime).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: stamp,
        last_modification: stamp,
    }
}
