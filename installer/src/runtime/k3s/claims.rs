//! What k3s makes on its host besides what sealrs writes for it.

use std::path::{Path, PathBuf};

use super::{DATA, SOCKET};
use crate::action::Claim;

/// What k3s and its kubelet, containerd and network plugins fill.
const TREES: [&str; 10] = [
    "/var/lib/rancher/k3s",
    "/etc/rancher/k3s",
    "/etc/rancher/node",
    "/run/k3s",
    "/run/flannel",
    "/run/containerd/runc/k8s.io",
    "/var/lib/kubelet",
    "/usr/libexec/kubernetes",
    "/var/log/pods",
    "/var/log/containers",
];

/// Where other containerds, other programs of Rancher, and any package may have something of their own.
const SHARED: [&str; 6] = [
    "/var/lib/rancher",
    "/etc/rancher",
    "/run/containerd",
    "/run/containerd/runc",
    "/run/containerd/s",
    "/usr/libexec",
];

/// Where network plugins lie that are not k3s's. Its own flannel needs nothing there; the pods of another one, which the
/// cluster has instead, put it there.
const PLUGINS: [&str; 4] = ["/etc/cni", "/etc/cni/net.d", "/opt/cni", "/opt/cni/bin"];

/// What network plugins know of containers.
const PLUGIN_STATE: &str = "/var/lib/cni";

/// Interfaces of flannel and of the bridge plugin, as k3s's own killall script lists them.
const INTERFACES: [&str; 7] = [
    "cni0",
    "flannel.1",
    "flannel-v6.1",
    "flannel-wg",
    "flannel-wg-v6",
    "kube-ipvs0",
    "kube-bridge",
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
pub(super) fn claims(settings: &serde_json::Value) -> Vec<Claim> {
    let folder = |path: &&str| Claim::Folder(path.into());
    let tree = |path: &&str| Claim::Tree(path.into());
    let mut claims: Vec<Claim> = SHARED.iter().map(folder).collect();
    claims.extend(TREES.iter().map(tree));
    let brings_plugins = settings.get("flannel-backend").is_some_and(|backend| backend == "none");
    claims.extend(
        PLUGINS
            .iter()
            .map(|path| if brings_plugins { tree(path) } else { folder(path) }),
    );
    claims.extend([
        Claim::PodNetworks(PLUGIN_STATE.into()),
        Claim::Sysctls(SYSCTLS.map(str::to_owned).to_vec()),
        Claim::Slice("kubepods".to_owned()),
        Claim::Firewall {
            prefixes: ["KUBE-", "CNI-", "FLANNEL-"].map(str::to_owned).to_vec(),
            // k3s brings iptables for hosts without it.
            programs: vec![
                Path::new(DATA).join("data/current/bin"),
                Path::new(DATA).join("data/current/bin/aux"),
            ],
        },
        Claim::Interfaces(INTERFACES.map(str::to_owned).to_vec()),
        Claim::NetworkNamespaces("cni-".to_owned()),
        Claim::Mounts(
            // Not network namespaces: others have theirs at the same place.
            ["/run/k3s", "/var/lib/kubelet", DATA].map(PathBuf::from).to_vec(),
        ),
        Claim::Processes {
            cgroups: ["kubepods", "kubepods.slice", "k3s.service", "k3s-agent.service"]
                .map(str::to_owned)
                .to_vec(),
            socket: SOCKET.into(),
        },
    ]);
    claims
}
