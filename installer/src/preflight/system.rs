//! Whether a host's kernel, memory, network and system are such that pods can run on it.

use std::net::IpAddr;

use super::needs::Needs;
use super::{Finding, Place};
use crate::facts::{HostFacts, System};
use crate::member::Role;
use crate::options::Options;
use crate::runtime::k0s::fields::overlap;
use crate::service::Manager;

/// Options of the kernel that pods need, and whether nothing works without them.
pub(crate) const KERNEL_OPTIONS: [(&str, bool); 17] = [
    ("BRIDGE", true),
    ("BRIDGE_NETFILTER", true),
    ("CGROUPS", true),
    ("CPUSETS", true),
    ("IPC_NS", true),
    ("MEMCG", true),
    ("NAMESPACES", true),
    ("NETFILTER_XT_MATCH_COMMENT", true),
    ("NETFILTER_XT_MATCH_CONNTRACK", true),
    ("NET_NS", true),
    ("NF_CONNTRACK", true),
    ("NF_NAT", true),
    ("OVERLAY_FS", true),
    ("PID_NS", true),
    ("UTS_NS", true),
    ("VETH", true),
    ("VXLAN", false),
];

/// The oldest kernel that runs pods, and the oldest that does it well.
const KERNELS: [(u32, u32); 2] = [(3, 10), (4, 19)];
/// Controllers of control groups that pods need.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// Interfaces that the networks of other clusters have left.
const LEFT: [&str; 6] = [
    "cilium_host",
    "cni0",
    "flannel.1",
    "kube-bridge",
    "kube-ipvs0",
    "vxlan.calico",
];
/// Paths of distributions of Kubernetes that sealrs does not install.
pub(super) const OTHERS: [&str; 3] = ["/etc/rancher/rke2", "/var/lib/rancher/rke2", "/var/snap/microk8s"];

/// All that is wrong with this host's kernel and system for a runtime that runs pods.
pub(super) fn findings(facts: &HostFacts, options: &Options, needs: &Needs, place: Place) -> Vec<Finding> {
    let system = &facts.system;
    let mut found = Vec::new();
    found.extend(kernel(system));
    found.extend(cgroups(system));
    found.extend(memory(system, needs, place.role));
    found.extend(host_name(facts, needs));
    found.extend(networks(facts, options, needs));
    found.extend(names(system));
    found.extend(tools(facts, needs));
    found.extend(iptables(system, needs));
    found.extend(guards(facts));
    found.extend(limits(facts));
    found.extend(left(system, needs));
    if place.role == Role::Master {
        found.extend(disk_speed(system));
    }
    found
}

fn kernel(system: &System) -> Vec<Finding> {
    let mut found = Vec::new();
    let [oldest, good] = KERNELS;
    let mut numbers = system
        .kernel
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    if let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) {
        let remedy = format!("boot a kernel from {}.{} on", good.0, good.1);
        if (major, minor) < oldest {
            let problem = format!("kernel {} is too old for containers", system.kernel);
            found.push(Finding::error("kernel", problem, remedy));
        } else if (major, minor) < good {
            let problem = format!(
                "kernel {} is old: some features of Kubernetes will be missing",
                system.kernel
            );
            found.push(Finding::warning("kernel", problem, remedy));
        }
    }
    let Some(config) = &system.kernel_config else {
        found.push(Finding::warning(
            "kernel-options",
            "the kernel's configuration can't be read, so nothing is known of what it lacks",
            "see that it has overlayfs, bridges, netfilter, vxlan and namespaces",
        ));
        return found;
    };
    let lacks = |fatal: bool| {
        let options = KERNEL_OPTIONS.iter().filter(|(_, needed)| *needed == fatal);
        let missing = options.filter(|(name, _)| !config.contains_key(*name));
        missing.map(|(name, _)| format!("CONFIG_{name}")).collect::<Vec<_>>()
    };
    let fatal = lacks(true);
    if !fatal.is_empty() {
        found.push(Finding::error(
            "kernel-options",
            format!("the kernel lacks {}", fatal.join(", ")),
            "boot a kernel of a distribution, or build it with these options",
        ));
    }
    let others = lacks(false);
    if !others.is_empty() {
        found.push(Finding::warning(
            "kernel-options",
            format!("the kernel lacks {}", others.join(", ")),
            "choose a network for pods that does without",
        ));
    }
    let modules: Vec<&str> = config
        .iter()
        .filter(|(_, value)| *value == "m")
        .map(|(name, _)| name.as_str())
        .collect();
    if !modules.is_empty() && !system.modules {
        found.push(Finding::warning(
            "kernel-modules",
            format!(
                "the modules of the running kernel {} are not there: {}",
                system.kernel,
                modules.join(", ")
            ),
            "reboot, if the kernel was renewed; or install the package with its modules",
        ));
    }
    found
}

fn cgroups(system: &System) -> Option<Finding> {
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| !system.cgroups.contains(*name))
        .collect();
    (!missing.is_empty()).then(|| {
        Finding::error(
            "cgroup-controllers",
            format!("control groups lack {}", missing.join(", ")),
            "add `cgroup_enable=memory cgroup_memory=1` (or the one that is missing) to the kernel's parameters and reboot",
        )
    })
}

fn memory(system: &System, needs: &Needs, role: Role) -> Vec<Finding> {
    let mut found = Vec::new();
    let (least, good) = match role {
        Role::Master => needs.master_memory,
        Role::Node => needs.node_memory,
    };
    // A kernel keeps some of the memory of a machine for itself.
    let has = system.memory.saturating_add(system.memory / 16) >> 20;
    let problem = format!("it has {} MiB of memory", system.memory >> 20);
    if has < least {
        let remedy = format!("a {role} needs {least} MiB, and {good} MiB are better");
        found.push(Finding::error("memory", problem, remedy));
    } else if has < good {
        let remedy = format!("{good} MiB are better for a {role}");
        found.push(Finding::warning("memory", problem, remedy));
    }
    if role == Role::Master && system.cpus < needs.master_cpus {
        found.push(Finding::error(
            "cpus",
            format!("it has {} processor", system.cpus),
            format!("a master needs {}", needs.master_cpus),
        ));
    }
    if system.swap > 0 {
        let problem = format!("it has {} MiB of swap", system.swap >> 20);
        found.push(match needs.no_swap {
            true => Finding::error(
                "swap",
                problem,
                "the kubelet does not start with it: `swapoff -a`, and remove it from /etc/fstab",
            ),
            false => Finding::warning(
                "swap",
                problem,
                "pods may become slow instead of being ended: `swapoff -a`, and remove it from /etc/fstab",
            ),
        });
    }
    found
}

/// A node's name is that of its host.
fn host_name(facts: &HostFacts, needs: &Needs) -> Option<Finding> {
    let name = facts.hostname.to_ascii_lowercase();
    let remedy =
        "give it another name with `hostnamectl hostname NAME`: letters, digits, `-` and `.`, at most 63 of them";
    if !crate::options::is_host_name(&name) || name.len() > 63 {
        let problem = format!(
            "the host name `{}` can't be a node's name",
            facts.hostname.escape_debug()
        );
        return Some(Finding::error("hostname", problem, remedy));
    }
    if ["localhost", "localhost.localdomain", "(none)"].contains(&name.as_str()) {
        return Some(Finding::error(
            "hostname",
            format!("the host is called `{name}`"),
            remedy,
        ));
    }
    (needs.own_name && !facts.system.own_name).then(|| {
        Finding::warning(
            "hostname",
            format!("the host's name {name} does not resolve"),
            "add it to /etc/hosts, with the host's address",
        )
    })
}

fn networks(facts: &HostFacts, options: &Options, needs: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    let system = &facts.system;
    if needs.default_route && !facts.default_route {
        found.push(Finding::warning(
            "default-route",
            "there is no default route, by which programs find the host's address",
            "add one, if need be to nowhere: `ip route add default dev INTERFACE`",
        ));
    }
    if system.network_manager {
        found.push(Finding::warning(
            "network-manager",
            "NetworkManager takes interfaces of pods for its own, and may take their routes away",
            "leave them to the cluster: in /etc/NetworkManager/conf.d/pods.conf, `[keyfile]` and \
             `unmanaged-devices=interface-name:cni*;interface-name:flannel*;interface-name:cali*;interface-name:veth*`",
        ));
    }
    if system.cloud_setup {
        found.push(Finding::warning(
            "cloud-setup",
            "nm-cloud-setup writes routes that lead pods' packets astray",
            "`systemctl disable --now nm-cloud-setup.timer nm-cloud-setup.service`, and reboot",
        ));
    }
    for network in needs.networks {
        let (what, remedy) = (network.what, network.remedy());
        for range in network.ranges(options) {
            let own = facts
                .addresses
                .iter()
                .find(|own| !own.is_virtual() && overlap(&range, &whole(own.ip)));
            if let Some(own) = own {
                let problem = format!("its address {} is in the range of {what}, {range}", own.ip);
                found.push(Finding::error("network", problem, remedy.clone()));
                continue;
            }
            let routes = system.routes.iter();
            let other = routes
                .filter(|route| route.prefix > 0 && !LEFT.contains(&route.interface.as_str()))
                .find(|route| overlap(&range, &format!("{}/{}", route.destination, route.prefix)));
            if let Some(route) = other {
                let problem = format!(
                    "its route to {}/{} by {} has addresses of {what}, {range}",
                    route.destination, route.prefix, route.interface
                );
                // The narrower route wins: a wide one loses some addresses, and a narrow one takes them from pods.
                let bits = range.rsplit_once('/').and_then(|(_, bits)| bits.parse().ok());
                found.push(match bits.is_some_and(|bits: u32| route.prefix < bits) {
                    true => Finding::warning("network", problem, remedy.clone()),
                    false => Finding::error("network", problem, remedy.clone()),
                });
            }
        }
    }
    found
}

/// An address as a range.
fn whole(address: IpAddr) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{bits}")
}

fn names(system: &System) -> Vec<Finding> {
    let mut found = Vec::new();
    if !system.localhost {
        found.push(Finding::warning(
            "localhost",
            "`localhost` does not resolve to this host",
            "add `127.0.0.1 localhost` to /etc/hosts",
        ));
    }
    let local = |address: &&IpAddr| address.is_loopback();
    if !system.resolved
        && let Some(server) = system.nameservers.iter().find(local)
    {
        found.push(Finding::warning(
            "resolv-conf",
            format!("/etc/resolv.conf names {server}, which is another host for each pod"),
            "name a server that all hosts reach, or pods resolve no names from outside",
        ));
    }
    if system.nameservers.len() > 3 {
        found.push(Finding::warning(
            "resolv-conf",
            format!(
                "/etc/resolv.conf has {} name servers, of which pods get three",
                system.nameservers.len()
            ),
            "leave three of them",
        ));
    }
    if let Some(address) = system.wildcard {
        found.push(Finding::warning(
            "wildcard-dns",
            format!("its name server answers {address} for names that nobody has"),
            "remove the search domain from /etc/resolv.conf for which any name resolves: services could not be found",
        ));
    }
    found
}

fn tools(facts: &HostFacts, needs: &Needs) -> Option<Finding> {
    let missing: Vec<&str> = needs
        .tools
        .iter()
        .copied()
        .filter(|tool| !facts.programs.contains(*tool))
        .collect();
    (!missing.is_empty()).then(|| {
        Finding::warning(
            "tools",
            format!("it has no {}", missing.join(", ")),
            "install them, unless the image has them in its bin/",
        )
    })
}

fn iptables(system: &System, needs: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(version) = &system.iptables else {
        return found;
    };
    let broken = ["v1.8.0 ", "v1.8.1 ", "v1.8.2 ", "v1.8.3 ", "v1.8.4 "];
    if needs.iptables_of_host && broken.iter().any(|broken| format!("{version} ").contains(broken)) {
        found.push(Finding::warning(
            "iptables",
            format!("{version} doubles and loses rules"),
            "install iptables 1.8.5 or newer",
        ));
    }
    if system.legacy_tables && version.contains("nf_tables") {
        found.push(Finding::warning(
            "iptables",
            "rules of the old iptables are in force, while the program writes those of nftables",
            "see who makes them with `iptables-legacy-save`, and let all use the same one",
        ));
    }
    found
}

/// What watches over a host and may be in the way.
fn guards(facts: &HostFacts) -> Vec<Finding> {
    let system = &facts.system;
    let mut found = Vec::new();
    if system.apparmor && !facts.programs.contains("apparmor_parser") {
        found.push(Finding::warning(
            "apparmor",
            "AppArmor is on, and apparmor_parser is not installed, so containers can't have profiles",
            "install the package apparmor",
        ));
    }
    if system.selinux {
        found.push(Finding::warning(
            "selinux",
            "SELinux enforces its rules, and the image brings none for the cluster",
            "install the runtime's policy (such as k3s-selinux), or make it permissive with `setenforce 0` and in \
             /etc/selinux/config",
        ));
    }
    let firewalls = [
        ("firewalld", system.processes.contains("firewalld")),
        ("ufw", system.ufw),
    ];
    for (name, _) in firewalls.iter().filter(|(_, on)| *on) {
        found.push(Finding::warning(
            "firewall",
            format!("{name} is on, and may keep hosts and pods apart"),
            "let it pass the ports of the private registry and of the runtime between the hosts, and the networks of pods and \
             services; or turn it off",
        ));
    }
    let no_programs = facts.disks.iter().find(|(_, disk)| disk.no_programs);
    if let Some((folder, _)) = no_programs {
        found.push(Finding::error(
            "noexec",
            format!(
                "programs can't be started below {}: it is mounted with `noexec`",
                folder.display()
            ),
            "mount it anew without: `mount -o remount,exec …`, and in /etc/fstab",
        ));
    }
    found
}

fn limits(facts: &HostFacts) -> Vec<Finding> {
    let system = &facts.system;
    let mut found = Vec::new();
    let too_small = [
        ("inotify", "fs/inotify/max_user_instances", 256, 8192),
        ("inotify", "fs/inotify/max_user_watches", 8192, 524_288),
        ("keys", "kernel/keys/root_maxkeys", 10_000, 1_000_000),
    ];
    for (check, name, least, good) in too_small {
        if let Some(value) = system.sysctls.get(name).filter(|value| **value < least) {
            let name = name.replace('/', ".");
            found.push(Finding::warning(
                check,
                format!("{name} is {value}, which many pods exhaust"),
                format!("`sysctl -w {name}={good}`, and in /etc/sysctl.d"),
            ));
        }
    }
    // systemd gives services limits of their own.
    if facts.services == Manager::Supervised && system.open_files < 65_536 {
        found.push(Finding::warning(
            "open-files",
            format!("a process may open no more than {} files", system.open_files),
            "raise the limit `nofile` in /etc/security/limits.d to 1048576",
        ));
    }
    found
}

/// What other clusters have left on the host, besides the files that runtimes know.
fn left(system: &System, needs: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    let interfaces: Vec<&str> = LEFT
        .into_iter()
        .filter(|name| system.interfaces.contains(*name))
        .collect();
    if !interfaces.is_empty() {
        found.push(Finding::error(
            "leftovers",
            format!(
                "the network of another cluster is or was on this host: {}",
                interfaces.join(", ")
            ),
            "remove that cluster first; when it is gone, reboot, or `ip link delete` each of them",
        ));
    }
    if needs.shares_cni && !system.cni.is_empty() {
        found.push(Finding::warning(
            "leftovers",
            format!("/etc/cni/net.d has {}", system.cni.join(", ")),
            "remove what another cluster has left: the first one by name makes the networks of pods",
        ));
    }
    if system.processes.contains("kubelet") {
        found.push(Finding::error(
            "leftovers",
            "a kubelet runs on this host",
            "remove the cluster that it is of first",
        ));
    }
    found
}

/// etcd makes sure of every change on the disk.
fn disk_speed(system: &System) -> Option<Finding> {
    let micros = system.sync.filter(|micros| *micros > 10_000)?;
    Some(Finding::warning(
        "disk-speed",
        format!("a write to the disk takes {} ms", micros / 1000),
        "a master's data want a disk that takes at most 10 ms: a slow one makes the cluster lose its leader",
    ))
}
