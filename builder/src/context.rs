//! The build context: the folder that COPY, ADD and APP take from, walked without ever leaving it.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::suggest::nearest;
use walkdir::WalkDir;

use crate::contents::{Contents, FileSource, Identity, Item, ItemKind, OnDisk};
use crate::glob::Glob;
use crate::ignore::IgnoreRules;

/// Ignore files, the preferred first.
const IGNORE_FILES: [&str; 2] = [".containerignore", ".dockerignore"];

/// A build context with its ignore rules.
#[derive(Debug)]
pub(crate) struct Context {
    root: PathBuf,
    rules: IgnoreRules,
    /// Files with passwords in them, links resolved.
    secret: Vec<PathBuf>,
    /// The lock of the build, which tells of the image and is no part of it.
    lock: Option<PathBuf>,
}

/// How an instruction wants owners and modes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ownership {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Something in the context that a source pattern matched.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    /// Slash separated, relative to the context; empty for the context itself.
    pub(crate) relative: String,
    /// Its real place, links in it resolved.
    pub(crate) path: PathBuf,
    pub(crate) is_folder: bool,
}

impl Match {
    /// The name under which it is copied into a folder.
    pub(crate) fn name(&self) -> &str {
        self.relative.rsplit('/').next().unwrap_or(&self.relative)
    }
}

impl Context {
    /// Opens a context and reads its ignore file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        const HINT: &str = "give a folder as the last argument, for instance `.`";
        let place = || format!("cannot open the build context {}", path.display());
        let root = path.canonicalize().or_read(place).map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.hint(HINT),
            _ => error,
        })?;
        if !root.is_dir() {
            return Err(Error::new(ErrorKind::Input, place())
                .because(Error::new(ErrorKind::Input, "it is not a folder"))
                .hint(HINT));
        }
        let mut rules = IgnoreRules::default();
        for name in IGNORE_FILES {
            let file = root.join(name);
            match fs::read_to_string(&file) {
                Ok(text) => {
                    rules = IgnoreRules::parse(&text, &file.display().to_string())?;
                    break;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).or_read(|| format!("cannot read {}", file.display())),
            }
        }
        Ok(Self {
            root,
            rules,
            secret: Vec::new(),
            lock: None,
        })
    }

    /// The same, in which taking one of these files is an error. Their links are resolved.
    pub(crate) fn without(mut self, secret: Vec<PathBuf>) -> Self {
        self.secret = secret;
        self
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What a source of COPY, ADD or APP names: a path, or a pattern with at least one match.
    pub(crate) fn matches(&self, source: &Glob) -> Result<Vec<Match>> {
        if let Some(literal) = source.literal()
            && let clean = clean(&literal)?
            && self.root.join(&clean).symlink_metadata().is_ok()
        {
            if self.leaves_out(&clean, self.root.join(&clean).is_dir()) {
                return Err(left_out(source));
            }
            return Ok(vec![self.real(&clean)?]);
        }
        let mut found = Vec::new();
        let mut has_left_out = false;
        let start = self.root.join(clean(&source.base())?);
        if start.is_dir() {
            let mut walk = WalkDir::new(start).sort_by_file_name().into_iter();
            while let Some(entry) = walk.next() {
                let entry = entry.map_err(walk_error)?;
                let relative = self.relative(entry.path())?;
                let is_folder = entry.file_type().is_dir();
                if relative.is_empty() {
                    continue;
                }
                let is_excluded = self.rules.excludes(&relative);
                let matches = source.matches(&relative);
                has_left_out |= matches && is_excluded;
                if matches && !is_excluded {
                    found.push(self.real(&relative)?);
                } else if !is_folder || (source.may_match_below(&relative) && !self.leaves_out(&relative, true)) {
                    continue;
                }
                if is_folder {
                    walk.skip_current_dir();
                }
            }
        }
        match found.as_slice() {
            [] if has_left_out => Err(left_out(source)),
            [] => Err(self.nothing(source)),
            _ => Ok(found),
        }
    }

    /// That a source matches nothing; perhaps something of nearly the same name does.
    fn nothing(&self, source: &Glob) -> Error {
        let root = self.root.display();
        let what = format!("`{}` matches nothing in the build context {root}", source.as_str());
        let error = Error::new(ErrorKind::NotFound, what);
        match source.literal().and_then(|path| self.near(&path)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("paths are relative to the build context, the last argument of `sealrs build`"),
        }
    }

    /// What lies in the folder of a path under nearly its name.
    fn near(&self, path: &str) -> Option<String> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let names: Vec<String> = fs::read_dir(self.root.join(folder))
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !self.rules.excludes(&join(folder, name)))
            .collect();
        let near = nearest(name, names.iter().map(String::as_str))?;
        Some(join(folder, near))
    }

    /// Whether the ignore file leaves out a path and, for a folder, everything below it.
    fn leaves_out(&self, path: &str, is_folder: bool) -> bool {
        self.rules.excludes(path) && !(is_folder && self.rules.may_contain_reincluded(path))
    }

    /// Puts a match at `destination` (a path in the rootfs, empty for the rootfs itself): a file as that path, a
    /// folder's contents below it.
    pub(crate) fn collect(
        &self,
        found: &Match,
        destination: &str,
        ownership: Ownership,
        contents: &mut Contents,
    ) -> Result<()> {
        if !found.is_folder {
            self.check_secret(&found.path)?;
            let metadata =
                fs::symlink_metadata(&found.path).or_read(|| format!("cannot read {}", found.path.display()))?;
            let item = item(&found.path, &metadata, ownership)?;
            return contents.put(destination, item);
        }
        let mut walk = WalkDir::new(&found.path).min_depth(0).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            let entry = entry.map_err(walk_error)?;
            let below = slashed(entry.path().strip_prefix(&found.path).unwrap_or(entry.path()))?;
            let relative = join(&found.relative, &below);
            let is_folder = entry.file_type().is_dir();
            if !relative.is_empty() && self.rules.excludes(&relative) {
                if !is_folder {
                    continue;
                }
                if self.leaves_out(&relative, true) {
                    walk.skip_current_dir();
                }
                // Excluded, but something below it may not be: its entry comes with that.
                continue;
            }
            let path = join(destination, &below);
            if path.is_empty() {
                continue;
            }
            if self.lock.as_deref() == Some(entry.path()) {
                continue;
            }
            self.check_secret(entry.path())?;
            let metadata = entry.metadata().map_err(walk_error)?;
            let item = item(entry.path(), &metadata, ownership)?;
            contents.put(&path, item)?;
        }
        Ok(())
    }

    /// The same, in which folders do not hold the build's lock: or it would change the image that it tells of.
    pub(crate) fn without_lock(mut self, lock: &Path) -> Self {
        self.lock = lock.canonicalize().ok();
        self
    }

    fn check_secret(&self, path: &Path) -> Result<()> {
        if self.secret.iter().all(|secret| secret != path) {
            return Ok(());
        }
        let what = format!(
            "{} holds passwords, and would be in the image for everybody to read",
            path.display()
        );
        Err(Error::new(ErrorKind::Input, what).hint("move it out of the build context, or name it in .containerignore"))
    }

    /// Resolves links in a source's own path; they may not lead out of the context.
    fn real(&self, relative: &str) -> Result<Match> {
        let path = self.root.join(relative);
        let real = match path.canonicalize() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let what = format!("`{relative}` is a link that leads to nothing");
                return Err(Error::new(ErrorKind::NotFound, what)
                    .hint("mend the link, or write the path of the file that is meant"));
            }
            other => other.or_read(|| format!("cannot read {}", path.display()))?,
        };
        if !real.starts_with(&self.root) {
            return Err(Error::new(
                ErrorKind::Input,
                format!(
                    "`{relative}` is a link that leads out of the build context, to {}",
                    real.display()
                ),
            )
            .hint("copy the file into the build context"));
        }
        Ok(Match {
            relative: relative.to_owned(),
            is_folder: real.is_dir(),
            path: real,
        })
    }

    fn relative(&self, path: &Path) -> Result<String> {
        slashed(path.strip_prefix(&self.root).unwrap_or(path))
    }
}

fn left_out(source: &Glob) -> Error {
    let what = format!(
        "`{}` is left out of the build context by its ignore file",
        source.as_str()
    );
    Error::new(ErrorKind::Input, what)
        .hint("take the path out of .containerignore or .dockerignore, or add an exception with `!`")
}

/// A source path without `.`, `..` and leading slashes. `..` may not lead above the context.
pub(crate) fn clean(source: &str) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| {
                    Error::new(ErrorKind::Input, format!("`{source}` leads out of the build context"))
                        .hint("choose a higher folder as the build context")
                })?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Joins two slash separated paths, either of which may be empty.
pub(crate) fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

fn slashed(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(ErrorKind::Input, format!("the name {} is not UTF-8", path.display()))
            .hint("rename it, or leave it out with .containerignore")
    })
}

fn item(path: &Path, metadata: &Metadata, ownership: Ownership) -> Result<Item> {
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        ItemKind::Folder
    } else if kind.is_symlink() {
        let target = fs::read_link(path).or_read(|| format!("cannot read the link {}", path.display()))?;
        ItemKind::Symlink(slashed(&target)?)
    } else if kind.is_file() {
        ItemKind::File(FileSource::Disk(OnDisk {
            path: path.to_owned(),
            identity: Identity::of(metadata),
            size: metadata.len(),
            has_links: metadata.nlink() > 1,
        }))
    } else {
        let what = if kind.is_socket() {
            "a socket"
        } else if kind.is_fifo() {
            "a named pipe"
        } else {
            "a device"
        };
        return Err(Error::new(
            ErrorKind::Input,
            format!("{} is {what}, which has no place in an image", path.display()),
        )
        .hint("leave it out with .containerignore"));
    };
    let mode = match (&kind, ownership.mode) {
        (ItemKind::Symlink(_), _) => 0o777,
        (_, Some(mode)) => mode,
        (_, None) => portable_mode(metadata.permissions().mode(), metadata.is_dir()),
    };
    let xattrs = if matches!(kind, ItemKind::Folder | ItemKind::File(_)) {
        attributes(path)?
    } else {
        Vec::new()
    };
    Ok(Item {
        kind,
        mode,
        uid: ownership.uid,
        gid: ownership.gid,
        xattrs,
    })
}

/// A mode that does not depend on the umask of whoever checked the context out: as in git, all that counts is whether
/// the owner may execute it (a folder always). Set-uid, set-gid and sticky are kept.
fn portable_mode(mode: u32, is_folder: bool) -> u32 {
    let permissions = if is_folder || mode & 0o100 != 0 { 0o755 } else { 0o644 };
    mode & 0o7000 | permissions
}

/// The attributes that mean the same on any machine: the user's own, and file capabilities. SELinux labels and the
/// like belong to the host.
fn attributes(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let place = || format!("cannot read the attributes of {}", path.display());
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error).or_read(place),
    };
    let kept = |name: &OsStr| name.as_bytes().starts_with(b"user.") || name == "security.capability";
    let mut found = Vec::new();
    for name in names.filter(|name| kept(name)) {
        if let (Some(text), Some(value)) = (name.to_str(), xattr::get(path, &name).or_read(place)?) {
            found.push((text.to_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}

fn walk_error(error: walkdir::Error) -> Error {
    let place = error
        .path()
        .map_or_else(|| "the build context".to_owned(), |path| path.display().to_string());
    let io: std::io::Error = error.into();
    match Err::<(), _>(io).or_read(|| format!("cannot read {place}")) {
        Err(error) => error,
        Ok(()) => Error::new(ErrorKind::Internal, "a failure was lost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_paths_and_keeps_them_inside() {
        assert_eq!(clean("./a//b/../c").unwrap(), "a/c");
        assert_eq!(clean("/a").unwrap(), "a");
        assert_eq!(clean(".").unwrap(), "");
        assert!(clean("../a").is_err());
        assert!(clean("a/../../b").is_err());
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        for (mode, is_folder, wanted) in [
            (0o100_664, false, 0o644),
            (0o100_600, false, 0o644),
            (0o100_750, false, 0o755),
            (0o104_711, false, 0o4755),
            (0o040_700, true, 0o755),
            (0o041_777, true, 0o1755),
        ] {
            assert_eq!(portable_mode(mode, is_folder), wanted, "{mode:o}");
        }
    }
}
