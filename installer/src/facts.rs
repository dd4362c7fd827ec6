//! What is known about this host before anything is done: plain data, so that plans made from it can be tested.

mod network;
mod sockets;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sealrs_image::error::{IoResultExt as _, Result};
use sealrs_image::platform::Platform;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use network::parse_hosts;
pub use network::{Address, HostsLine, Route};
pub use sockets::Listener;
pub(crate) use system::now;
pub use system::{System, SystemInterest};

use crate::registry::{CONTAINERD_CERTS, HOSTS_TOML};
use crate::service::Manager;
use crate::{command, files, shared_file};

/// The hosts file.
pub const HOSTS_FILE: &str = "/etc/hosts";

/// A host, as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The host's name.
    pub hostname: String,
    /// Operating system and architecture.
    pub platform: Platform,
    /// Whether this process may do everything.
    pub root: bool,
    /// The home folder of who runs this.
    pub home: Option<PathBuf>,
    /// Who runs services.
    pub services: Manager,
    /// All addresses but those of the loopback.
    pub addresses: Vec<Address>,
    /// The address that packets to the world would have.
    pub default_address: Option<IpAddr>,
    /// Whether there is a route to the world.
    pub default_route: bool,
    /// Whether control groups are of version 2 alone.
    pub cgroup_v2: bool,
    /// The programs of [`Interest::programs`] that are in the search path.
    pub programs: BTreeSet<String>,
    /// The paths of [`Interest::paths`] at which there is something.
    pub paths: BTreeSet<PathBuf>,
    /// TCP ports that somebody listens on.
    pub listeners: Vec<Listener>,
    /// What the hosts file says.
    pub hosts: Vec<HostsLine>,
    /// Whether it can be changed.
    pub hosts_writable: bool,
    /// What the registry's name resolves to, where that had to be asked.
    pub registry_addresses: Vec<IpAddr>,
    /// The clusters of this host whose private registry has the address that is wanted.
    pub registry_clusters: Vec<String>,
    /// The clusters that have told containerd of this host about their registries.
    pub containerd_clusters: BTreeSet<String>,
    /// Whether `/usr/local` can't be written by anybody.
    pub usr_local_read_only: bool,
    /// The file systems below [`Interest::folders`].
    pub disks: BTreeMap<PathBuf, Disk>,
    /// What kernel and system are like.
    pub system: System,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Tells file systems apart.
    pub device: u64,
    /// Bytes that this process may still write.
    pub free: u64,
    /// Bytes that it has.
    pub size: u64,
    /// Whether programs can't be started from it.
    pub no_programs: bool,
}

/// What somebody wants to know about a host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Interest {
    /// Programs that may be installed.
    pub programs: Vec<String>,
    /// Paths that may be taken.
    pub paths: Vec<PathBuf>,
    /// TCP ports that are needed.
    pub ports: Vec<u16>,
    /// Folders that will be written to.
    pub folders: Vec<PathBuf>,
    /// The private registry's name.
    pub registry_domain: String,
    /// The file where clusters whose private registry has this address have a block with this line.
    pub registry_entry: (PathBuf, String),
    /// What matters of kernel and system; nothing if they don't matter.
    pub system: Option<SystemInterest>,
}

impl HostFacts {
    /// Looks at this host.
    ///
    /// # Errors
    /// When something that every Linux host tells can't be read.
    pub fn gather(interest: &Interest) -> Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let routes = network::routes();
        let hosts = network::parse_hosts(&fs::read_to_string(HOSTS_FILE).unwrap_or_default());
        let hosts_writable = is_writable(Path::new(HOSTS_FILE));
        let known = network::is_address_or_localhost(&interest.registry_domain)
            || hosts.iter().any(|line| line.names.contains(&interest.registry_domain));
        // Asking may take long without a network, so it is done only where the answer decides.
        let registry_addresses = if known || hosts_writable {
            Vec::new()
        } else {
            network::resolve(&interest.registry_domain)
        };
        Ok(Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            platform: Platform::host(),
            root,
            home: std::env::home_dir().filter(|home| home.is_absolute()),
            services: manager(),
            addresses: network::addresses(&routes),
            default_address: network::default_address(),
            default_route: network::has_default_route(&routes),
            cgroup_v2: is_cgroup_v2(),
            programs: interest
                .programs
                .iter()
                .filter(|name| command::find(name).is_some())
                .cloned()
                .collect(),
            paths: interest
                .paths
                .iter()
                .filter(|path| files::exists(path))
                .cloned()
                .collect(),
            listeners: sockets::listeners(&interest.ports),
            hosts,
            hosts_writable,
            registry_addresses,
            registry_clusters: shared_file::clusters_with(&interest.registry_entry.0, &interest.registry_entry.1),
            containerd_clusters: shared_file::clusters_below(Path::new(CONTAINERD_CERTS), HOSTS_TOML),
            usr_local_read_only: is_read_only(Path::new("/usr/local/bin")),
            disks: interest
                .folders
                .iter()
                .map(|folder| Ok((folder.clone(), disk(folder)?)))
                .collect::<Result<_>>()?,
            system: match &interest.system {
                Some(interest) => System::gather(interest),
                None => System::default(),
            },
        })
    }

    /// Whether an address is one of this host.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|own| own.ip == address)
    }

    /// The interface that has an address of this host.
    #[must_use]
    pub fn interface_of(&self, address: IpAddr) -> Option<&str> {
        let own = self.addresses.iter().find(|own| own.ip == address)?;
        own.interface.as_deref()
    }

    /// The address under which other hosts would know this one.
    #[must_use]
    pub fn main_address(&self) -> Option<IpAddr> {
        let physical = || {
            let named = self.addresses.iter().find(|address| !address.is_virtual());
            named.or(self.addresses.first()).map(|address| address.ip)
        };
        self.default_address.or_else(physical)
    }
}

/// Who runs services on this host.
pub(crate) fn manager() -> Manager {
    if rustix::process::geteuid().is_root() && Path::new("/run/systemd/system").is_dir() {
        Manager::Systemd
    } else {
        Manager::Supervised
    }
}

/// Whether an address is one of this host.
pub(crate) fn is_here(address: IpAddr) -> bool {
    address.is_loopback()
        || network::addresses(&network::routes())
            .iter()
            .any(|own| own.ip == address)
}

/// The file system that `path` is on, or would be.
fn disk(path: &Path) -> Result<Disk> {
    let path = files::existing_ancestor(path);
    let place = || format!("cannot read the file system of {}", path.display());
    let space = rustix::fs::statvfs(path).map_err(std::io::Error::from).or_io(place)?;
    Ok(Disk {
        device: fs::metadata(path).or_io(place)?.dev(),
        free: space.f_bavail.saturating_mul(space.f_frsize),
        size: space.f_blocks.saturating_mul(space.f_frsize),
        no_programs: space.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC),
    })
}

fn is_writable(path: &Path) -> bool {
    // The file is replaced, so its folder has to be writable as well.
    let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    writable(path.parent().unwrap_or(path)) && (writable(path) || !path.exists())
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(files::existing_ancestor(path))
        .is_ok_and(|space| space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: u64 = 0x6367_7270;

fn is_cgroup_v2() -> bool {
    rustix::fs::statfs("/sys/fs/cgroup")
        .is_ok_and(|space| u64::try_from(space.f_type).is_ok_and(|kind| kind == CGROUP2))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plain server with systemd and one network card.
    pub(crate) fn server() -> HostFacts {
        HostFacts {
            hostname: "node1".into(),
            platform: "linux/amd64".parse().unwrap(),
            root: true,
            home: Some("/root".into()),
            services: Manager::Systemd,
            addresses: vec![Address {
                ip: "10.88.0.11".parse().unwrap(),
                interface: Some("eth0".into()),
            }],
            default_address: Some("10.88.0.11".parse().unwrap()),
            default_route: true,
            cgroup_v2: true,
            programs: BTreeSet::from(["bash".to_owned()]),
            paths: BTreeSet::new(),
            listeners: Vec::new(),
            hosts: Vec::new(),
            hosts_writable: true,
            registry_addresses: Vec::new(),
            registry_clusters: Vec::new(),
            containerd_clusters: BTreeSet::new(),
            usr_local_read_only: false,
            disks: BTreeMap::new(),
            system: System {
                os: "Debian GNU/Linux 12 (bookworm)".into(),
                kernel: "6.1.0-28-amd64".into(),
                cpus: 4,
                memory: 8 << 30,
                machine_id: "6f1d".into(),
                cgroups: ["cpu", "cpuset", "memory", "pids"].map(str::to_owned).into(),
                kernel_config: Some(
                    crate::preflight::KERNEL_OPTIONS
                        .map(|(name, _)| (name.to_owned(), "m".to_owned()))
                        .into(),
                ),
                modules: true,
                localhost: true,
                own_name: true,
                processes: BTreeSet::from(["chronyd".to_owned()]),
                open_files: 1 << 20,
                ..System::default()
            },
        }
    }

    #[test]
    fn looks_at_this_host() {
        let facts = HostFacts::gather(&Interest {
            programs: vec!["sh".into(), "no-such-program".into()],
            paths: vec!["/proc".into(), "/no/such/path".into()],
            folders: vec!["/no/such/folder".into()],
            ..Interest::default()
        })
        .unwrap();
        assert_eq!(facts.programs, BTreeSet::from(["sh".to_owned()]));
        assert_eq!(facts.paths, BTreeSet::from([PathBuf::from("/proc")]));
        assert!(facts.disks[Path::new("/no/such/folder")].free > 0);
        assert!(!facts.hostname.is_empty());
        assert!(facts.has_address("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn prefers_a_card_over_a_bridge() {
        let mut facts = server();
        facts.default_address = None;
        facts.addresses.insert(
            0,
            Address {
                ip: "172.17.0.1".parse().unwrap(),
                interface: Some("docker0".into()),
            },
        );
        assert_eq!(facts.main_address(), Some("10.88.0.11".parse().unwrap()));
        facts.addresses.pop();
        assert_eq!(facts.main_address(), Some("172.17.0.1".parse().unwrap()));
    }
}
