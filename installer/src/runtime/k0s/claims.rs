//! What k0s makes on its host besides what sealrs writes for it.

use std::path::{Path, PathBuf};

use super::{CONTROLLER, DATA, SOCKET, WORKER, users};
use crate::action::Claim;
use crate::plan::Context;

/// What k0s and its kubelet, containerd and network plugins fill.
const TREES: [&str; 13] = [
    DATA,
    "/etc/k0s",
    "/run/k0s",
    "/run/containerd/runc/k8s.io",
    "/run/flannel",
    "/var/lib/kubelet",
    "/usr/libexec/k0s",
    "/usr/libexec/kubernetes",
    "/var/log/pods",
    "/var/log/containers",
    "/var/lib/calico",
    "/var/run/calico",
    "/var/log/calico",
];

/// Where other containerds and any package may have something of their own.
const SHARED: [&str; 5] = [
    "/run/containerd",
    "/run/containerd/runc",
    "/run/containerd/s",
    "/usr/libexec",
    "/var/lib/cni",
];

/// Where network plugins lie: the pods of k0s's network put theirs there.
const PLUGINS: [&str; 4] = ["/etc/cni", "/etc/cni/net.d", "/opt/cni", "/opt/cni/bin"];

/// What network plugins know of containers.
const PLUGIN_STATE: &str = "/var/lib/cni";

/// Interfaces of kube-router, calico, the bridge plugin, kube-proxy and keepalived.
const INTERFACES: [&str; 8] = [
    "cni0",
    "kube-bridge",
    "kube-dummy-if",
    "kube-ipvs0",
    "vxlan.calico",
    "vxlan-v6.calico",
    "wireguard.cali",
    "dummyvip0",
];

/// What a kubelet sets in the kernel. Forwarding is left as it is: others may rely on it by now.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// In the order in which it is noted; it is taken back from the end.
pub(super) fn claims(context: &Context<'_>) -> Vec<Claim> {
    let folder = |path: &&str| Claim::Folder(path.into());
    let tree = |path: &&str| Claim::Tree(path.into());
    // Users can go when nothing runs under them any more.
    let mut claims = vec![users::claim(context)];
    claims.extend(SHARED.iter().map(folder));
    claims.extend(TREES.iter().map(tree));
    claims.extend(PLUGINS.iter().map(tree));
    claims.extend([
        Claim::PodNetworks(PLUGIN_STATE.into()),
        Claim::Sysctls(SYSCTLS.map(str::to_owned).to_vec()),
        Claim::Slice("kubepods".to_owned()),
        // Its kubelet moves itself and containerd there, wherever the service is.
        Claim::Slice("system.slice/containerd.service".to_owned()),
        // systemd forgets those in which something still runs when the service has stopped.
        Claim::Slice(format!("system.slice/{}.service", CONTROLLER.0)),
        Claim::Slice(format!("system.slice/{}.service", WORKER.0)),
        Claim::Firewall {
            prefixes: ["KUBE-", "CNI-", "cali-"].map(str::to_owned).to_vec(),
            // k0s brings iptables for hosts without it.
            programs: vec![Path::new(DATA).join("bin")],
        },
        Claim::Interfaces(INTERFACES.map(str::to_owned).to_vec()),
        Claim::NetworkNamespaces("cni-".to_owned()),
        Claim::Mounts(
            // Not network namespaces: others have theirs at the same place.
            ["/run/k0s", "/var/lib/kubelet", DATA].map(PathBuf::from).to_vec(),
        ),
        Claim::Processes {
            cgroups: [
                "kubepods".to_owned(),
                "kubepods.slice".to_owned(),
                format!("{}.service", CONTROLLER.0),
                format!("{}.service", WORKER.0),
            ]
            .to_vec(),
            socket: SOCKET.into(),
        },
    ]);
    claims
}
