//! What lines of kubeadm and of the kubelet's log mean: those that users meet, each with its remedy.

use super::super::Diagnosis;
use super::super::known::{self, Known, hopeless, perhaps, shorten};

const CLOCKS: &str = "set the clocks of all hosts, for instance with chrony";
const LEFT: &str = "there is what is left of another Kubernetes on this host";

/// The first one that is found counts.
const KNOWN: [Known; 27] = [
    hopeless(
        &["failed to get sandbox image"],
        "containerd can't get the pause image, without which no pod starts",
        "see that the private registry answers on this host, and that the image has the pause image in an imageList",
    ),
    hopeless(
        &["expected cgroupsPath to be of format \"slice:prefix:name\""],
        "containerd makes cgroups by systemd, and the kubelet does it itself",
        "give `cgroupDriver: systemd` in KubeletConfiguration, or leave it out, and install the cluster anew",
    ),
    hopeless(
        &["misconfiguration: kubelet cgroup driver"],
        "the kubelet and containerd make cgroups in different ways",
        "leave `cgroupDriver` out of KubeletConfiguration, and install the cluster anew",
    ),
    hopeless(
        &["is not supported on cgroup v1"],
        "the kubelet does not run with cgroups of version 1",
        "boot with cgroups of version 2, or give a KubeletConfiguration with `failCgroupV1: false`",
    ),
    hopeless(
        &["unknown flag: --"],
        "a program refuses an argument",
        "correct `extraArgs` and `kubeletExtraArgs` in kubeadm's documents",
    ),
    hopeless(
        &["Failed to run kubelet"],
        "the kubelet ends with an error",
        "correct KubeletConfiguration in kubeadm's documents, and see what the line says",
    ),
    hopeless(
        &["failed to run Kubelet"],
        "the kubelet ends with an error",
        "correct KubeletConfiguration in kubeadm's documents, and see what the line says",
    ),
    hopeless(
        &["no space left on device"],
        "a disk of this host is full",
        "make room, then run the same command again",
    ),
    hopeless(
        &["the image lacks container images that kubeadm wants"],
        "not all container images of the control plane are in the image",
        "add what `kubeadm config images list` prints to an imageList, and build the image again",
    ),
    hopeless(
        &["kubeadm wants another pause image"],
        "the image has another pause image than its kubeadm wants",
        "add what `kubeadm config images list` prints to an imageList, and build the image again",
    ),
    hopeless(
        &["[ERROR ImagePull]"],
        "a container image can't be pulled",
        "see that the private registry answers on this host, and that the image has it in an imageList",
    ),
    hopeless(
        &["[ERROR Swap]"],
        "swap is on",
        "turn it off (`swapoff -a`, and its lines in /etc/fstab)",
    ),
    hopeless(
        &["[ERROR Port-"],
        "another program has a port of Kubernetes",
        "stop that program",
    ),
    hopeless(
        &["[ERROR FileExisting-"],
        "a program is missing on this host",
        "install it, or add it to the image's bin/",
    ),
    hopeless(
        &["[ERROR FileContent--proc-sys-net"],
        "the kernel is not set up for pods",
        "see that nothing sets it back: /etc/sysctl.d has files of others that come later",
    ),
    hopeless(
        &["[ERROR NumCPU]"],
        "this host has too few processors for a master",
        "use a host with more, or `nodeRegistration.ignorePreflightErrors: [NumCPU]` in InitConfiguration",
    ),
    hopeless(
        &["[ERROR Mem]"],
        "this host has too little memory for a master",
        "use a host with more, or `nodeRegistration.ignorePreflightErrors: [Mem]` in InitConfiguration",
    ),
    hopeless(
        &["[ERROR DirAvailable-"],
        LEFT,
        "remove it (`kubeadm reset`), then run the same command again",
    ),
    hopeless(
        &["[ERROR FileAvailable-"],
        LEFT,
        "remove it (`kubeadm reset`), then run the same command again",
    ),
    hopeless(
        &["[ERROR CRI]"],
        "containerd does not answer as kubeadm wants",
        "look at the log of service sealrs-containerd",
    ),
    hopeless(
        &["already exists in the cluster. You must delete the existing Node"],
        "another host of this name is in the cluster",
        "give this one another name with `hostnamectl hostname NAME`, or take the other one out first",
    ),
    hopeless(
        &["could not find a JWS signature"],
        "the cluster does not know this host's token: it has expired",
        "run the same command again for a new one, and see that the hosts' clocks agree",
    ),
    hopeless(
        &["none of the public keys", "are pinned"],
        "what answers is of another cluster",
        "see that no other cluster has this address",
    ),
    hopeless(
        &["x509: certificate has expired or is not yet valid"],
        "the hosts' clocks do not agree",
        CLOCKS,
    ),
    perhaps(
        &["etcd cluster is not healthy"],
        "a member of etcd is down",
        "bring all masters up, or take those that are lost out with `sealrs delete --masters`",
    ),
    perhaps(
        &["error execution phase"],
        "kubeadm ended",
        "see what the line says, and the kubelet's log (`journalctl -u kubelet`)",
    ),
    perhaps(
        &["RunPodSandbox", "failed"],
        "a pod can't be started",
        "see what the line says, and the log of service sealrs-containerd",
    ),
];

pub(super) fn diagnose(log: &str) -> Option<Diagnosis> {
    known::diagnose(log, &KNOWN)
}

/// A field that kubeadm does not know: it says so, and goes on without it.
pub(super) fn left_out(log: &str) -> Option<Diagnosis> {
    let field = |line: &str| {
        let (_, rest) = line.split_once("unknown field \"")?;
        let about = line.contains("Configuration");
        rest.split(['"', '\\']).next().filter(|_| about).map(str::to_owned)
    };
    let (line, field) = log.lines().find_map(|line| Some((line, field(line)?)))?;
    Some(Diagnosis {
        cause: format!("kubeadm has no field `{field}`: {}", shorten(line.trim())),
        remedy: "correct the documents for kubeadm in the Clusterfile, or etc/kubeadm.yml of the image".to_owned(),
        hopeless: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_have_cause_and_remedy() {
        for (line, says, hopeless) in [
            (
                "remote_runtime.go:116] RunPodSandbox from runtime service failed: rpc error: code = Unknown desc = failed to \
                 get sandbox image \"sea.hub:5000/k8s/pause:9.9\": failed to pull image",
                "pause image",
                true,
            ),
            (
                "RunPodSandbox from runtime service failed: rpc error: code = Unknown desc = OCI runtime create failed: runc \
                 create failed: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups",
                "makes cgroups by systemd",
                true,
            ),
            (
                "\t[ERROR Swap]: running with swap on is not supported",
                "swap is on",
                true,
            ),
            (
                "error execution phase check-etcd: etcd cluster is not healthy: failed to dial",
                "member of etcd is down",
                false,
            ),
        ] {
            let found = diagnose(&format!("a\n{line}\nb")).unwrap();
            assert!(found.cause.contains(says) && found.hopeless == hopeless, "{found:?}");
        }
        assert_eq!(diagnose("I1123 kubelet.go:1] Starting kubelet main sync loop"), None);
    }

    #[test]
    fn a_field_that_is_dropped_is_named() {
        let line = "W1123 strict.go:54] error unmarshaling configuration schema.GroupVersionKind{Group:\"kubeadm.k8s.io\", \
                    Version:\"v1beta2\", Kind:\"ClusterConfiguration\"}: error unmarshaling JSON: while decoding JSON: json: \
                    unknown field \"bogus\"";
        assert!(left_out(line).unwrap().cause.contains("no field `bogus`"));
        assert_eq!(left_out("[init] Using Kubernetes version: v1.20.2"), None);
    }
}
