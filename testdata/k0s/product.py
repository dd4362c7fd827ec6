"""What the parts that all stand-ins share have to know of k0s."""

import os

NAME = "k0s"
VERSION = "v1.36.3+k0s.2"
KUBERNETES = "v1.36.3+k0s"
MINOR = "1.36"
DATA = "/var/lib/k0s"
RUN = "/run/k0s"
# Tests without root set it: files of the host go below it, and no container runs.
ROOT = os.environ.get("K0S_STAND_IN_ROOT", "")
PKI = ROOT + DATA + "/pki"
KUBECONFIG = PKI + "/admin.conf"
STATUS = ROOT + RUN + "/status.sock"
CONTAINERD = RUN + "/containerd"
SOCKET = RUN + "/containerd.sock"
KUBELET = DATA + "/kubelet"
VOLUME_PLUGINS = "/usr/libexec/k0s/kubelet-plugins/volume/exec"
PROVIDER = ""
NODE_LABELS = {}
ETCD_MEMBERS, CONTROL_NODES = "etcdmembers", "controlnodes"
# Kinds of the API besides those of Kubernetes that all stand-ins have.
KINDS = {
    "certificatesigningrequests": ("CertificateSigningRequest", "certificates.k8s.io/v1", False, ["csr"]),
    CONTROL_NODES: ("ControlNode", "autopilot.k0sproject.io/v1beta2", False, []),
    ETCD_MEMBERS: ("EtcdMember", "etcd.k0sproject.io/v1beta1", False, []),
    "leases": ("Lease", "coordination.k8s.io/v1", True, []),
}
