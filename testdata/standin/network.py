"""The network of pods, by CNI plugins, and the chains that are left on a host."""

import json
import os
import subprocess

from containerd import RuntimeFailure, run_command

PLUGINS = "/usr/lib/cni"
class Network:
    """A CNI network: its plugins are run one after the other."""

    def __init__(self, name, version, plugins):
        self.plugins = [plugin | {"name": name, "cniVersion": version} for plugin in plugins]

    @staticmethod
    def namespace(sandbox):
        return f"/run/netns/cni-{sandbox[:32]}"

    def attach(self, sandbox):
        """Makes the network namespace of a pod's sandbox; returns its address."""
        run_command("ip", "netns", "add", os.path.basename(self.namespace(sandbox)))
        result = None
        for plugin in self.plugins:
            result = self._run("ADD", sandbox, plugin | ({"prevResult": result} if result else {}))
        return result["ips"][0]["address"].partition("/")[0]

    def detach(self, sandbox):
        """Gives the address back, also when the namespace went with a reboot or was never made."""
        for plugin in reversed(self.plugins):
            self._run("DEL", sandbox, plugin)
        if os.path.exists(self.namespace(sandbox)):
            run_command("ip", "netns", "del", os.path.basename(self.namespace(sandbox)))

    def _run(self, command, sandbox, plugin):
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": sandbox,
            "CNI_NETNS": self.namespace(sandbox),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGINS,
        }
        kind = plugin["type"]
        try:
            done = subprocess.run(
                [os.path.join(PLUGINS, kind)],
                input=json.dumps(plugin),
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as problem:
            raise RuntimeFailure(f'failed to find plugin "{kind}" in path [{PLUGINS}]') from problem
        if done.returncode != 0:
            raise RuntimeFailure(f'plugin type="{kind}" failed ({command.lower()}): {done.stdout.strip()}')
        return json.loads(done.stdout) if command == "ADD" else None


def make_chains(chains):
    """(table, chain that leads to it or None, chain) each, as kubelet and kube-proxy make them."""
    for table, hook, chain in chains:
        made = subprocess.run(["iptables", "-w", "-t", table, "-N", chain], capture_output=True, check=False)
        if made.returncode == 0 and hook:
            run_command("iptables", "-w", "-t", table, "-A", hook, "-j", chain)
