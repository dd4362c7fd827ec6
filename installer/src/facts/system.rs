//! What a host's kernel and system are like, as far as clusters care: read from /proc, /sys and /etc, nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::network::{self, Route};
use crate::{command, files};

/// A name that takes longer to resolve than this counts as one that does not.
const PATIENCE: Duration = Duration::from_secs(3);
/// The largest kernel configuration that is read, in bytes.
const LARGEST_CONFIG: u64 = 4 << 20;
/// Kernel settings that matter.
const SYSCTLS: [&str; 3] = [
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "kernel/keys/root_maxkeys",
];
/// Processes that matter, as the kernel cuts their names.
const PROCESSES: [&str; 6] = ["chronyd", "firewalld", "kubelet", "ntpd", "openntpd", "systemd-timesyn"];

/// What somebody wants to know about it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SystemInterest {
    /// Options of the kernel, as its configuration calls them.
    pub kernel_options: Vec<String>,
    /// Whether names are asked for, which may take long without a network.
    pub names: bool,
    /// The folder whose disk is measured.
    pub sync: Option<PathBuf>,
}

/// What a host's kernel and system are like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// The name of the distribution.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// How many processors there are.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// Swap in bytes.
    pub swap: u64,
    /// What tells hosts apart that were copied.
    pub machine_id: String,
    /// Milliseconds since 1970, by this host's clock.
    pub clock: u64,
    /// Controllers of control groups that the kernel has.
    pub cgroups: BTreeSet<String>,
    /// The kernel's configuration, where it can be read: the values of the options that were asked for.
    pub kernel_config: Option<BTreeMap<String, String>>,
    /// Whether the running kernel's modules are there.
    pub modules: bool,
    /// Kernel settings by their path below /proc/sys.
    pub sysctls: BTreeMap<String, u64>,
    /// The names of all network interfaces.
    pub interfaces: BTreeSet<String>,
    /// The routes of the main table.
    pub routes: Vec<Route>,
    /// The name servers of resolv.conf.
    pub nameservers: Vec<IpAddr>,
    /// Whether systemd-resolved keeps the real ones elsewhere.
    pub resolved: bool,
    /// Whether `localhost` is this host.
    pub localhost: bool,
    /// Whether the host's own name resolves.
    pub own_name: bool,
    /// What a name resolves to that nobody has.
    pub wildcard: Option<IpAddr>,
    /// Whether AppArmor is on.
    pub apparmor: bool,
    /// Whether SELinux enforces.
    pub selinux: bool,
    /// Those of the processes that matter which run.
    pub processes: BTreeSet<String>,
    /// Whether ufw is on.
    pub ufw: bool,
    /// Whether NetworkManager takes interfaces of pods for its own.
    pub network_manager: bool,
    /// Whether a service of cloud images rewrites routes.
    pub cloud_setup: bool,
    /// Files in the folder where pods' networks are configured.
    pub cni: Vec<String>,
    /// What `iptables --version` says.
    pub iptables: Option<String>,
    /// Whether tables of the old iptables are in use.
    pub legacy_tables: bool,
    /// How many files a process may open.
    pub open_files: u64,
    /// How many microseconds a write to the disk takes, but for one of ten.
    pub sync: Option<u64>,
}

impl System {
    /// Looks at this host.
    pub(super) fn gather(interest: &SystemInterest) -> Self {
        let name = rustix::system::uname();
        let kernel = name.release().to_string_lossy().into_owned();
        let meminfo = text("/proc/meminfo");
        let resolv = text("/etc/resolv.conf");
        let nameservers = nameservers(&resolv);
        let hostname = name.nodename().to_string_lossy().into_owned();
        // All are asked at once, for each may take long without a network.
        let [own_name, localhost, wildcard] = [
            Some(hostname),
            Some("localhost".to_owned()),
            random_name().filter(|_| !nameservers.is_empty()),
        ]
        .map(|name| name.filter(|_| interest.names).map(asked))
        .map(|asked| {
            asked
                .and_then(|answers| answers.recv_timeout(PATIENCE).ok())
                .unwrap_or_default()
        });
        let is_here = |address: &IpAddr| address.is_loopback();
        Self {
            os: os_name(&text("/etc/os-release")),
            kernel_config: kernel_config(&kernel, &interest.kernel_options),
            modules: Path::new("/lib/modules").join(&kernel).is_dir(),
            cpus: thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: kibibytes(&meminfo, "MemTotal:"),
            swap: kibibytes(&meminfo, "SwapTotal:"),
            machine_id: text("/etc/machine-id").trim().to_owned(),
            cgroups: controllers(&text("/proc/cgroups"), &text("/sys/fs/cgroup/cgroup.controllers")),
            sysctls: sysctls(),
            interfaces: names_in("/sys/class/net").into_iter().collect(),
            routes: network::routes(),
            resolved: Path::new("/run/systemd/resolve/resolv.conf").exists(),
            localhost: !localhost.is_empty() && localhost.iter().all(is_here),
            own_name: !own_name.is_empty(),
            wildcard: wildcard.into_iter().find(|address| !address.is_loopback()),
            nameservers,
            apparmor: text("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
            selinux: text("/sys/fs/selinux/enforce").starts_with('1'),
            processes: processes(),
            ufw: text("/etc/ufw/ufw.conf")
                .lines()
                .any(|line| line.trim().eq_ignore_ascii_case("enabled=yes")),
            network_manager: network_manager(),
            cloud_setup: Path::new("/etc/systemd/system/timers.target.wants/nm-cloud-setup.timer").exists(),
            cni: names_in("/etc/cni/net.d"),
            iptables: command::find("iptables")
                .and_then(|_| command::run(&["iptables", "--version"], PATIENCE).ok())
                .filter(|finished| finished.success)
                .map(|finished| finished.stdout.trim().to_owned()),
            legacy_tables: !text("/proc/net/ip_tables_names").trim().is_empty(),
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .maximum
                .unwrap_or(u64::MAX),
            sync: interest.sync.as_deref().and_then(sync_time),
            kernel,
            // Last, so that whoever asked knows within which time it was.
            clock: now(),
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn os_name(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn kibibytes(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

/// Those that the kernel has: since 6.15 it lists those of version 2 only at the root of their tree.
fn controllers(table: &str, v2: &str) -> BTreeSet<String> {
    let on = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        (fields.nth(2)? == "1").then_some(name)
    };
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let v2 = v2.split_whitespace().map(str::to_owned);
    lines.filter_map(on).chain(v2).collect()
}

fn sysctls() -> BTreeMap<String, u64> {
    let value = |name: &str| text(&format!("/proc/sys/{name}")).trim().parse().ok();
    let known = SYSCTLS.iter().filter_map(|&name| Some((name.to_owned(), value(name)?)));
    known.collect()
}

fn nameservers(resolv: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    };
    resolv.lines().filter_map(server).collect()
}

/// What the kernel's configuration says of these options; those that are not on are not there.
fn kernel_config(release: &str, options: &[String]) -> Option<BTreeMap<String, String>> {
    let packed = fs::File::open("/proc/config.gz").ok();
    let mut config = String::new();
    match packed {
        Some(file) => {
            let reader = flate2::read::GzDecoder::new(file).take(LARGEST_CONFIG);
            std::io::BufReader::new(reader).read_to_string(&mut config).ok()?;
        }
        None => {
            let places = [
                format!("/boot/config-{release}"),
                format!("/lib/modules/{release}/config"),
            ];
            config = places.iter().find_map(|path| fs::read_to_string(path).ok())?;
        }
    }
    let given = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        options
            .iter()
            .any(|option| option == name)
            .then(|| (name.to_owned(), value.to_owned()))
    };
    Some(config.lines().filter_map(given).collect())
}

fn processes() -> BTreeSet<String> {
    let name = |id: &String| {
        let id = id.bytes().all(|byte| byte.is_ascii_digit()).then_some(id)?;
        Some(text(&format!("/proc/{id}/comm")).trim().to_owned())
    };
    names_in("/proc")
        .iter()
        .filter_map(name)
        .filter(|name| PROCESSES.contains(&name.as_str()))
        .collect()
}

/// It takes what no file tells it to leave alone.
fn network_manager() -> bool {
    let says = |folder: &str| {
        let files = names_in(folder).into_iter();
        let mut texts = files.map(|name| text(&format!("{folder}/{name}")));
        texts.any(|text| text.contains("unmanaged-devices") || text.contains("managed=0"))
    };
    Path::new("/run/NetworkManager").is_dir()
        && ![
            "/etc/NetworkManager/conf.d",
            "/usr/lib/NetworkManager/conf.d",
            "/run/NetworkManager/conf.d",
        ]
        .into_iter()
        .any(says)
}

/// Asks what a name resolves to; the answer comes by itself.
fn asked(name: String) -> mpsc::Receiver<Vec<IpAddr>> {
    let (answer, answers) = mpsc::channel();
    thread::spawn(move || answer.send(network::resolve(&name)));
    answers
}

/// A name that nobody has.
fn random_name() -> Option<String> {
    let mut random = [0_u8; 12];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).ok()?;
    let word: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("sealrs-{word}"))
}

/// Writes a little to the disk of a folder again and again, into a file that has no name.
fn sync_time(folder: &Path) -> Option<u64> {
    /// What etcd writes at a time.
    const PIECE: usize = 2300;
    const TIMES: usize = 30;
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = rustix::fs::open(files::existing_ancestor(folder), flags, Mode::RUSR | Mode::WUSR).ok()?;
    let mut file = fs::File::from(file);
    let mut times = Vec::with_capacity(TIMES);
    let begin = Instant::now();
    while times.len() < TIMES && begin.elapsed() < Duration::from_millis(600) {
        let start = Instant::now();
        file.write_all(&[0; PIECE]).ok()?;
        file.sync_data().ok()?;
        times.push(start.elapsed());
    }
    times.sort();
    let most = times.get(times.len().saturating_mul(9) / 10)?;
    u64::try_from(most.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kernels_and_distributions_write() {
        let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t12\t1\nmemory\t0\t1\t0\n";
        let names = |found: BTreeSet<String>| found.into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(names(controllers(table, "")), "cpu");
        assert_eq!(names(controllers(table, "cpuset memory\n")), "cpu cpuset memory");
        assert_eq!(kibibytes("MemTotal:  2048 kB\nSwapTotal: 0 kB\n", "MemTotal:"), 2 << 20);
        assert_eq!(os_name("ID=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        let servers = nameservers("# x\nnameserver 127.0.0.53\nnameserver fd00::1\nsearch a\nnameserver x\n");
        assert_eq!(
            servers,
            ["127.0.0.53", "fd00::1"].map(|address| address.parse::<IpAddr>().unwrap())
        );
    }

    #[test]
    fn looks_at_this_host_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let system = System::gather(&SystemInterest {
            kernel_options: vec!["INET".to_owned()],
            names: true,
            sync: Some(folder.path().to_owned()),
        });
        assert!(system.memory > 0 && system.cpus > 0 && !system.kernel.is_empty());
        assert!(system.localhost, "{system:?}");
        assert!(system.interfaces.contains("lo"));
        assert!(system.kernel_config.is_none_or(|config| config["INET"] == "y"));
        assert!(now().abs_diff(system.clock) < 10_000);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
