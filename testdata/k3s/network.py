"""The network of pods: CNI's bridge plugin on cni0, beside the links and chains that k3s leaves on a host."""

import ipaddress
import json
import os
import subprocess

from containerd import RuntimeFailure, run_command

PLUGINS = "/usr/lib/cni"
_CHAINS = (
    ("nat", "PREROUTING", "KUBE-SERVICES"),
    ("filter", "FORWARD", "KUBE-FORWARD"),
    ("mangle", None, "KUBE-KUBELET-CANARY"),
)


class Network:
    def __init__(self, data_dir, cluster_cidr, subnet):
        subnet = ipaddress.ip_network(subnet)
        self.configuration = {
            "cniVersion": "0.4.0",
            "name": "cbr0",
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": str(subnet)}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }
        self.cluster_cidr, self.subnet = cluster_cidr, subnet
        self.file = os.path.join(data_dir, "agent", "etc", "cni", "net.d", "10-flannel.conflist")

    def prepare(self):
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        with open(self.file, "w", encoding="utf-8") as stream:
            json.dump({"name": "cbr0", "cniVersion": "0.4.0", "plugins": [self.configuration]}, stream)
        os.makedirs("/run/flannel", exist_ok=True)
        with open("/run/flannel/subnet.env", "w", encoding="utf-8") as stream:
            stream.write(
                f"FLANNEL_NETWORK={self.cluster_cidr}\nFLANNEL_SUBNET={self.subnet[1]}/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
            )
        if not os.path.exists("/sys/class/net/flannel.1"):
            run_command("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472")
        for table, hook, chain in _CHAINS:
            if (
                subprocess.run(
                    ["iptables", "-w", "-t", table, "-N", chain], capture_output=True, check=False
                ).returncode
                == 0
                and hook
            ):
                run_command("iptables", "-w", "-t", table, "-A", hook, "-j", chain)

    @staticmethod
    def namespace(sandbox):
        return f"/run/netns/cni-{sandbox[:32]}"

    def attach(self, sandbox):
        """Makes the network namespace of a pod's sandbox; returns its address."""
        run_command("ip", "netns", "add", os.path.basename(self.namespace(sandbox)))
        result = self._plugin("ADD", sandbox)
        return result["ips"][0]["address"].partition("/")[0]

    def detach(self, sandbox):
        """Gives the address back, also when the namespace went with a reboot or was never made."""
        self._plugin("DEL", sandbox)
        if os.path.exists(self.namespace(sandbox)):
            run_command("ip", "netns", "del", os.path.basename(self.namespace(sandbox)))

    def _plugin(self, command, sandbox):
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": sandbox,
            "CNI_NETNS": self.namespace(sandbox),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGINS,
        }
        try:
            done = subprocess.run(
                [os.path.join(PLUGINS, "bridge")],
                input=json.dumps(self.configuration),
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as problem:
            raise RuntimeFailure(f'failed to find plugin "bridge" in path [{PLUGINS}]') from problem
        if done.returncode != 0:
            raise RuntimeFailure(f'plugin type="bridge" failed ({command.lower()}): {done.stdout.strip()}')
        return json.loads(done.stdout) if command == "ADD" else None
