//! The host manifest: everything that was made on this host, written down and synced *before* it is made. Removing a
//! cluster walks it backwards, so it removes exactly what was made, after any crash and without the image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::lines::Lines;
use crate::service::Manager;

/// Something that was made, with what is needed to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Made {
    /// A folder that was not there: goes when it is empty.
    Folder {
        /// Where.
        path: PathBuf,
    },
    /// A folder that others fill (a runtime's data): goes with all that was not in it before.
    Tree {
        /// Where.
        path: PathBuf,
        /// The names that were in it before; `None` when it was not there.
        kept: Option<BTreeSet<String>>,
    },
    /// A folder where network plugins write down what they know of pods, and of the containers of others, which stays.
    PodNetworks {
        /// Where.
        path: PathBuf,
        /// The paths that were below it before, and its own.
        kept: BTreeSet<PathBuf>,
    },
    /// A file or link.
    File {
        /// Where.
        path: PathBuf,
        /// What was there before.
        before: Before,
    },
    /// A block between markers in a hosts file.
    HostsBlock {
        /// The hosts file.
        path: PathBuf,
        /// Names the block.
        cluster: String,
        /// The file ended without a line break, and got one.
        line_break_added: bool,
    },
    /// A block in a file that clusters share.
    SharedBlock {
        /// The file.
        path: PathBuf,
        /// Names the block.
        cluster: String,
    },
    /// A service.
    Service {
        /// Its name.
        name: String,
        /// Who runs it.
        manager: Manager,
    },
    /// A command that undoes what scripts did.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Where it runs; in the cluster's folder if this is gone.
        folder: PathBuf,
        /// Set in its environment, on top of the cluster's.
        env: BTreeMap<String, String>,
    },
    /// A container that a script starts under a name.
    Container {
        /// Its name.
        name: String,
        /// The ids of those of this name that were there before.
        kept: BTreeSet<String>,
    },
    /// Processes of containers: those in these cgroups, and shims of this containerd with all below them.
    Processes {
        /// Parts of cgroup paths.
        cgroups: Vec<String>,
        /// containerd's socket.
        socket: PathBuf,
    },
    /// Mounts below these folders.
    Mounts {
        /// The folders.
        below: Vec<PathBuf>,
        /// What was mounted there before.
        kept: Vec<PathBuf>,
    },
    /// Named network namespaces, by the start of their name.
    NetworkNamespaces {
        /// The start of the name.
        prefix: String,
        /// Those that were there before.
        kept: Vec<String>,
    },
    /// Network interfaces that were not there before.
    Interfaces {
        /// Their names.
        names: Vec<String>,
    },
    /// Firewall chains whose name starts so, with the rules that use them.
    Firewall {
        /// The starts of the names.
        prefixes: Vec<String>,
        /// Where else to look for the iptables programs.
        programs: Vec<PathBuf>,
        /// The chains and rules of such kind that were there before.
        kept: BTreeSet<String>,
    },
    /// A cgroup slice with all below it.
    Slice {
        /// Its name without `.slice`.
        name: String,
        /// The cgroups of that name, and below such, that were there before.
        kept: BTreeSet<PathBuf>,
    },
    /// Kernel settings that a runtime changes.
    Sysctls {
        /// The values before, by path below /proc/sys.
        values: BTreeMap<String, String>,
    },
}

/// What was at a path before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// Nothing.
    Nothing,
    /// A symbolic link to this.
    Link(PathBuf),
    /// A file, which was copied.
    File {
        /// The copy's name in the backup folder.
        backup: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Modification time: seconds since 1970 and nanoseconds.
        modified: (i64, u32),
    },
}

impl Made {
    /// Names the thing: there is one entry for each.
    fn key(&self) -> String {
        match self {
            Self::Folder { path } => format!("folder {}", path.display()),
            Self::Tree { path, .. } => format!("tree {}", path.display()),
            Self::PodNetworks { path, .. } => format!("pod networks {}", path.display()),
            Self::File { path, .. } => format!("file {}", path.display()),
            Self::HostsBlock { path, cluster, .. } => {
                format!("hosts {} {cluster}", path.display())
            }
            Self::SharedBlock { path, cluster } => {
                format!("block {} {cluster}", path.display())
            }
            Self::Service { name, .. } => format!("service {name}"),
            Self::Command { argv, .. } => format!("command {}", argv.join(" ")),
            Self::Container { name, .. } => format!("container {name}"),
            Self::Processes { socket, .. } => format!("processes {}", socket.display()),
            Self::Mounts { below, .. } => format!("mounts {below:?}"),
            Self::NetworkNamespaces { prefix, .. } => format!("namespaces {prefix}"),
            Self::Interfaces { .. } => "interfaces".to_owned(),
            Self::Firewall { .. } => "firewall".to_owned(),
            Self::Slice { name, .. } => format!("slice {name}"),
            Self::Sysctls { .. } => "sysctls".to_owned(),
        }
    }
}

/// One line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Made(Made),
    /// The entry with this number was taken back.
    Undone(usize),
    /// What is about to be written to a file: by it a change by others is seen.
    Content {
        path: PathBuf,
        digest: Digest,
    },
}

/// The open host manifest of a cluster.
#[derive(Debug)]
pub struct HostManifest {
    path: PathBuf,
    lines: Lines,
    backup: PathBuf,
    entries: Vec<Made>,
    undone: BTreeSet<usize>,
    keys: BTreeSet<String>,
    /// What was ever written to each file.
    contents: BTreeMap<PathBuf, BTreeSet<Digest>>,
}

impl HostManifest {
    /// Opens the manifest at `path`, or a fresh one. Copies of foreign files go to the folder `backup`.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it holds what no sealrs writes; disk errors.
    pub fn open(path: &Path, backup: &Path) -> Result<Self> {
        let (lines, read) = Lines::open::<Line>(path)?;
        let mut manifest = Self {
            path: path.to_owned(),
            lines,
            backup: backup.to_owned(),
            entries: Vec::new(),
            undone: BTreeSet::new(),
            keys: BTreeSet::new(),
            contents: BTreeMap::new(),
        };
        for line in read {
            match line {
                Line::Made(made) => manifest.take_in(made),
                Line::Undone(number) => {
                    manifest.undone.insert(number);
                }
                Line::Content { path, digest } => {
                    manifest.contents.entry(path).or_default().insert(digest);
                }
            }
        }
        Ok(manifest)
    }

    fn take_in(&mut self, made: Made) {
        self.keys.insert(made.key());
        self.entries.push(made);
    }

    /// What was made and not yet taken back, latest first, with its number.
    #[must_use]
    pub fn standing(&self) -> Vec<(usize, Made)> {
        self.entries
            .iter()
            .cloned()
            .enumerate()
            .filter(|(number, _)| !self.undone.contains(number))
            .rev()
            .collect()
    }

    /// Whether anything was taken back already: then nothing can be made any more.
    #[must_use]
    pub fn is_being_undone(&self) -> bool {
        !self.undone.is_empty()
    }

    /// Notes that the entry with this number was taken back.
    ///
    /// # Errors
    /// Disk errors.
    pub fn undone(&mut self, number: usize) -> Result<()> {
        self.lines.append(&Line::Undone(number))?;
        self.undone.insert(number);
        Ok(())
    }

    /// Writes down what is about to be made, unless it was written down before: what was there before our first try
    /// is what counts.
    ///
    /// # Errors
    /// Disk errors.
    pub fn record(&mut self, made: Made) -> Result<()> {
        if self.keys.contains(&made.key()) {
            return Ok(());
        }
        self.lines.append(&Line::Made(made.clone()))?;
        self.take_in(made);
        Ok(())
    }

    /// Writes down that a file or link is about to be made at `path`, keeping a copy of what is there, and makes the
    /// folders that it needs.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when a folder is there; disk errors.
    pub fn record_file(&mut self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            self.make_folder(folder, 0o755)?;
        }
        if self.keys.contains(&format!("file {}", path.display())) {
            return Ok(());
        }
        let before = self.before(path)?;
        self.record(Made::File {
            path: path.to_owned(),
            before,
        })
    }

    /// Writes down what is about to be written to a file or link, unless it lies in a tree, with which it goes anyway.
    ///
    /// # Errors
    /// What `digest` meets; disk errors.
    pub(crate) fn record_content(&mut self, path: &Path, digest: impl FnOnce() -> Result<Digest>) -> Result<()> {
        let mut trees = self.entries.iter().filter_map(|made| match made {
            Made::Tree { path, .. } => Some(path),
            _ => None,
        });
        if trees.any(|tree| path.starts_with(tree)) {
            return Ok(());
        }
        let digest = digest()?;
        let known = self.contents.get(path).is_some_and(|known| known.contains(&digest));
        if known {
            return Ok(());
        }
        self.lines.append(&Line::Content {
            path: path.to_owned(),
            digest,
        })?;
        self.contents.entry(path.to_owned()).or_default().insert(digest);
        Ok(())
    }

    /// Whether what has this digest and lies at `path` was written by us, as far as it was written down.
    pub(crate) fn may_have_written(&self, path: &Path, digest: Digest) -> bool {
        self.contents.get(path).is_none_or(|known| known.contains(&digest))
    }

    /// Whether a file or link at `path` is ours.
    #[must_use]
    pub fn has_file(&self, path: &Path) -> bool {
        self.keys.contains(&format!("file {}", path.display()))
    }

    /// Whether a folder at `path` was made by us.
    #[must_use]
    pub fn has_folder(&self, path: &Path) -> bool {
        self.keys.contains(&format!("folder {}", path.display()))
    }

    /// Makes a folder with those above it that are missing, and writes down each; also one that a neighbour has made:
    /// whichever of the two goes last takes it along.
    ///
    /// # Errors
    /// Disk errors.
    pub fn make_folder(&mut self, path: &Path, mode: u32) -> Result<()> {
        let is_there = path.is_dir();
        if is_there && (self.has_folder(path) || !self.is_of_a_neighbour(path)) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_folder(parent, 0o755)?;
        }
        self.record(Made::Folder { path: path.to_owned() })?;
        if is_there {
            return Ok(());
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made.or_io(|| format!("cannot make the folder {}", path.display()))?,
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .or_io(|| format!("cannot set the mode of {}", path.display()))
    }

    /// Whether another cluster under the same root has made this folder.
    fn is_of_a_neighbour(&self, folder: &Path) -> bool {
        let made = Made::Folder {
            path: folder.to_owned(),
        };
        let (Some(name), Some(clusters)) = (self.path.file_name(), self.path.parent().and_then(Path::parent)) else {
            return false;
        };
        fs::read_dir(clusters)
            .into_iter()
            .flatten()
            .flatten()
            .map(|cluster| cluster.path().join(name))
            .filter(|path| *path != self.path)
            // A damaged one is for its own cluster's commands to tell.
            .filter_map(|path| Self::open(&path, Path::new("")).ok())
            .any(|neighbour| neighbour.standing().iter().any(|(_, standing)| *standing == made))
    }

    /// What is at `path`, copied to the backup folder if it is a file.
    fn before(&self, path: &Path) -> Result<Before> {
        let place = || format!("cannot read {}", path.display());
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if files::is_absent(&error) => return Ok(Before::Nothing),
            found => found.or_io(place)?,
        };
        if metadata.is_symlink() {
            return Ok(Before::Link(fs::read_link(path).or_io(place)?));
        }
        if !metadata.is_file() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{} is in the way: a file belongs there", path.display()),
            )
            .hint("move it away and run again"));
        }
        // The number of the entry that is about to be written; a copy left by a crash is written over.
        let backup = self.entries.len().to_string();
        fs::create_dir_all(&self.backup)
            .and_then(|()| fs::set_permissions(&self.backup, fs::Permissions::from_mode(0o700)))
            .or_io(|| format!("cannot make the folder {}", self.backup.display()))?;
        files::copy(path, &self.backup.join(&backup), None, false)?;
        Ok(Before::File {
            backup,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> HostManifest {
        HostManifest::open(&folder.join("host-manifest"), &folder.join("backup")).unwrap()
    }

    #[test]
    fn what_was_there_before_the_first_try_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign");
        fs::write(&path, "foreign").unwrap();
        let mut manifest = open(folder.path());
        manifest.record_file(&path).unwrap();
        fs::write(&path, "ours").unwrap();
        let mut manifest = open(folder.path());
        manifest.record_file(&path).unwrap();
        let standing = manifest.standing();
        let [
            (
                0,
                Made::File {
                    before: Before::File { backup, .. },
                    ..
                },
            ),
        ] = standing.as_slice()
        else {
            panic!("{standing:?}");
        };
        let kept = fs::read_to_string(folder.path().join("backup").join(backup));
        assert_eq!(kept.unwrap(), "foreign");
    }

    #[test]
    fn a_folder_that_two_clusters_need_is_noted_by_both() {
        let root = tempfile::tempdir().unwrap();
        let cluster = |name: &str| {
            let folder = root.path().join("data").join(name);
            fs::create_dir_all(&folder).unwrap();
            open(&folder)
        };
        let folders = |manifest: &HostManifest| {
            let standing = manifest.standing().into_iter().rev();
            let made = standing.filter(|(_, made)| matches!(made, Made::Folder { .. }));
            made.map(|(_, made)| made.key()).collect::<Vec<_>>()
        };
        let path = |name: &str| root.path().join("etc").join(name);
        fs::create_dir(root.path().join("etc")).unwrap();
        let (mut one, mut two) = (cluster("one"), cluster("two"));
        one.record_file(&path("docker/certs.d/a:1/ca.crt")).unwrap();
        two.record_file(&path("docker/certs.d/b:2/ca.crt")).unwrap();
        let expected =
            ["docker", "docker/certs.d", "docker/certs.d/b:2"].map(|name| format!("folder {}", path(name).display()));
        assert_eq!(folders(&two), expected);
        // What neither of them has made is nobody's.
        fs::create_dir(path("foreign")).unwrap();
        two.record_file(&path("foreign/file")).unwrap();
        assert_eq!(folders(&two), expected);
    }

    #[test]
    fn folders_that_are_made_on_the_way_are_written_down_outermost_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = open(folder.path());
        let path = folder.path().join("a/b/file");
        manifest.record_file(&path).unwrap();
        let paths: Vec<PathBuf> = manifest
            .standing()
            .into_iter()
            .rev()
            .map(|(_, made)| match made {
                Made::Folder { path } | Made::File { path, .. } => path,
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = ["a", "a/b", "a/b/file"].map(|name| folder.path().join(name));
        assert_eq!(paths, expected);
        manifest.undone(2).unwrap();
        assert_eq!(open(folder.path()).standing().len(), 2);
        let error = manifest.record_file(&folder.path().join("a/b")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}
