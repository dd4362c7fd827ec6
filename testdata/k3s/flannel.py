"""The network of pods: CNI's bridge plugin on cni0, beside the links and chains that k3s leaves on a host."""

import ipaddress
import json
import os

from containerd import run_command
from network import Network, make_chains

_CHAINS = (
    ("nat", "PREROUTING", "KUBE-SERVICES"),
    ("filter", "FORWARD", "KUBE-FORWARD"),
    ("mangle", None, "KUBE-KUBELET-CANARY"),
)


class Flannel(Network):
    def __init__(self, data_dir, cluster_cidr, subnet):
        subnet = ipaddress.ip_network(subnet)
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": str(subnet)}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }
        super().__init__("cbr0", "0.4.0", [bridge])
        self.cluster_cidr, self.subnet = cluster_cidr, subnet
        self.file = os.path.join(data_dir, "agent", "etc", "cni", "net.d", "10-flannel.conflist")

    def prepare(self):
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        with open(self.file, "w", encoding="utf-8") as stream:
            json.dump({"name": "cbr0", "cniVersion": "0.4.0", "plugins": self.plugins}, stream)
        os.makedirs("/run/flannel", exist_ok=True)
        with open("/run/flannel/subnet.env", "w", encoding="utf-8") as stream:
            stream.write(
                f"FLANNEL_NETWORK={self.cluster_cidr}\nFLANNEL_SUBNET={self.subnet[1]}/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
            )
        if not os.path.exists("/sys/class/net/flannel.1"):
            run_command("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472")
        make_chains(_CHAINS)
