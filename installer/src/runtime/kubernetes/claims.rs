//! What Kubernetes makes on its host besides what sealrs writes for it.

use std::path::PathBuf;

use super::containerd;
use super::services::KUBELET;
use crate::action::Claim;

/// What the kubelet, containerd, etcd, kubeadm and the pods of networks fill.
const TREES: [&str; 17] = [
    containerd::DATA,
    containerd::STATE,
    containerd::CONFIG,
    "/etc/kubernetes",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/run/kubernetes",
    "/usr/libexec/kubernetes",
    "/run/containerd/runc/k8s.io",
    "/run/flannel",
    "/run/calico",
    "/var/lib/calico",
    "/var/log/calico",
    "/run/cilium",
    "/var/log/pods",
    "/var/log/containers",
    "/var/log/kubernetes",
];

/// Where other containerds and any package may have something of their own.
const SHARED: [&str; 6] = [
    "/run/containerd",
    "/run/containerd/runc",
    "/run/containerd/s",
    "/usr/libexec",
    "/opt/cni",
    "/var/lib/cni",
];

/// Where network plugins lie, which pods put there as well.
const PLUGINS: [&str; 3] = ["/etc/cni", "/etc/cni/net.d", "/opt/cni/bin"];

/// What network plugins know of containers.
const PLUGIN_STATE: &str = "/var/lib/cni";

/// Interfaces of the bridge plugin, kube-proxy, flannel, calico and cilium.
const INTERFACES: [&str; 10] = [
    "cni0",
    "kube-ipvs0",
    "flannel.1",
    "flannel-v6.1",
    "vxlan.calico",
    "vxlan-v6.calico",
    "wireguard.cali",
    "cilium_host",
    "cilium_net",
    "cilium_vxlan",
];

/// What a kubelet sets in the kernel, and what is set for it. Forwarding is left as it is: others may rely on it by now.
const SYSCTLS: [&str; 8] = [
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// In the order in which it is noted; it is taken back from the end.
pub(super) fn claims() -> Vec<Claim> {
    let folder = |path: &&str| Claim::Folder(path.into());
    let tree = |path: &&str| Claim::Tree(path.into());
    let mut claims: Vec<Claim> = SHARED.iter().map(folder).collect();
    claims.extend(TREES.iter().map(tree));
    claims.extend(PLUGINS.iter().map(tree));
    claims.extend([
        Claim::PodNetworks(PLUGIN_STATE.into()),
        Claim::Sysctls(SYSCTLS.map(str::to_owned).to_vec()),
        Claim::Slice("kubepods".to_owned()),
        Claim::Firewall {
            prefixes: ["KUBE-", "CNI-", "cali-", "FLANNEL-", "CILIUM_"]
                .map(str::to_owned)
                .to_vec(),
            programs: Vec::new(),
        },
        Claim::Interfaces(INTERFACES.map(str::to_owned).to_vec()),
        Claim::NetworkNamespaces("cni-".to_owned()),
        Claim::Mounts(
            // Not network namespaces: others have theirs at the same place.
            [containerd::STATE, containerd::DATA, "/var/lib/kubelet"]
                .map(PathBuf::from)
                .to_vec(),
        ),
        Claim::Processes {
            cgroups: [
                "kubepods".to_owned(),
                "kubepods.slice".to_owned(),
                format!("{KUBELET}.service"),
                format!("{}.service", containerd::SERVICE),
            ]
            .to_vec(),
            socket: containerd::SOCKET.into(),
        },
    ]);
    claims
}
