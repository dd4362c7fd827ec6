//! What is written down: things that were made, each with what is needed to take it back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// A hook that runs when all is taken back that came after it.
    Hook {
        /// Its name.
        name: String,
        /// The program and its arguments.
        argv: Vec<String>,
        /// Where it runs.
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
        /// The programs that did not say what they had.
        silent: BTreeSet<String>,
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
    pub(super) fn key(&self) -> String {
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
            Self::Hook { name, argv, .. } => format!("hook {name} {}", argv.join(" ")),
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
