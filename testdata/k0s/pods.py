"""The network of pods: kube-router's where its images can be had, and else what lies in /etc/cni/net.d."""

import json
import os

import product
from containerd import RuntimeFailure, run_command
from network import Network, make_chains

_FOLDER = "/etc/cni/net.d"
_FILE = _FOLDER + "/10-kuberouter.conflist"
# What the kubelet makes, and what kube-proxy does.
_KUBELET = (("mangle", None, "KUBE-IPTABLES-HINT"), ("mangle", None, "KUBE-KUBELET-CANARY"), ("filter", "INPUT", "KUBE-FIREWALL"))
_PROXY = (("nat", "PREROUTING", "KUBE-SERVICES"), ("filter", "FORWARD", "KUBE-FORWARD"))
_ROUTER = (("filter", "FORWARD", "KUBE-ROUTER-FORWARD"),)


def network(runtime, subnet, settings):
    """The network, or None while there is none. `settings` are those that the controllers give to workers."""
    chains = list(_KUBELET)
    if settings["kubeProxy"] and _has(runtime, settings["kubeProxy"]):
        chains += _PROXY
    if settings["router"]:
        if not all(_has(runtime, image) for image in settings["router"]):
            return None
        chains += _ROUTER
        _write_kube_router(subnet)
    make_chains(chains)
    return _configured()


def _has(runtime, image):
    try:
        if not runtime.present(image):
            runtime.pull(image)
        return True
    except RuntimeFailure:
        return False


def _write_kube_router(subnet):
    os.makedirs(_FOLDER, exist_ok=True)
    bridge = {
        "type": "bridge",
        "bridge": "kube-bridge",
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "subnet": subnet},
    }
    portmap = {"type": "portmap", "capabilities": {"snat": True, "portMappings": True}}
    content = {"cniVersion": "0.3.0", "name": "mynet", "plugins": [bridge, portmap]}
    with open(_FILE, "w", encoding="utf-8") as stream:
        json.dump(content, stream)
    if not os.path.exists("/sys/class/net/kube-dummy-if"):
        # A kernel without dummy links has a bridge in its place.
        try:
            run_command("ip", "link", "add", "kube-dummy-if", "type", "dummy")
        except RuntimeFailure:
            run_command("ip", "link", "add", "kube-dummy-if", "type", "bridge")


def _configured():
    """The first configuration of the folder by name, as containerd takes it."""
    for name in sorted(os.listdir(_FOLDER)) if os.path.isdir(_FOLDER) else []:
        if not name.endswith((".conf", ".conflist", ".json")):
            continue
        with open(os.path.join(_FOLDER, name), encoding="utf-8") as stream:
            content = json.load(stream)
        return Network(content["name"], content.get("cniVersion", "0.4.0"), content.get("plugins") or [content])
    return None


def settings_of(config, disabled):
    """What workers have to know of the cluster's network, as far as it concerns this stand-in."""
    provider = config.get("network.provider", "kuberouter")
    if "network-provider" in disabled:
        provider = "custom"
    proxy = not config.get("network.kubeProxy.disabled") and "kube-proxy" not in disabled
    router = ["kuberouter.cni", "kuberouter.cniInstaller"] if provider == "kuberouter" else []
    return {
        "router": [config.image(name) for name in router],
        "kubeProxy": config.image("kubeproxy") if proxy else "",
        "balancer": config.image("network.nodeLocalLoadBalancing.envoyProxy.image")
        if config.get("network.nodeLocalLoadBalancing.enabled")
        else "",
        "pause": config.image("pause"),
        "minor": product.MINOR,
    }
