"""What the parts that all stand-ins share have to know of k3s."""

import os

NAME = "k3s"
VERSION = "v1.31.2+k3s1"
REVISION = "6da20424"
KUBERNETES = VERSION
KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"
CONTAINERD = "/run/k3s/containerd"
SOCKET = CONTAINERD + "/containerd.sock"
KUBELET = "/var/lib/kubelet"
VOLUME_PLUGINS = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"
PROVIDER = "k3s://"
NODE_LABELS = {"node.kubernetes.io/instance-type": "k3s"}
# Kinds of the API besides those of Kubernetes.
KINDS = {}
# Tests without root set it: files of the host go below it, and no container runs.
ROOT = os.environ.get("K3S_STAND_IN_ROOT", "")
