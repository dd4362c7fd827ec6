"""k0s.yaml: what is refused, in k0s's words, and what is let pass though it means nothing."""

import ipaddress
import re
import sys

import host
import yaml_subset
from host import Stop

FILE = "/etc/k0s/k0s.yaml"
_ROOT = {"apiVersion", "kind", "metadata", "spec", "status"}
_SPEC = {
    "api",
    "controllerManager",
    "extensions",
    "featureGates",
    "images",
    "installConfig",
    "konnectivity",
    "metricsServer",
    "network",
    "scheduler",
    "storage",
    "telemetry",
    "workerProfiles",
}
# Only these parts refuse what they do not know.
_STRICT = {
    "telemetry": {"enabled"},
    "konnectivity": {"adminPort", "agentPort", "externalAddress"},
    "installConfig": {"users"},
    "extensions.helm": {"charts", "concurrencyLevel", "repositories"},
}
_PROFILE = {"name", "values"}
_FORBIDDEN_IN_PROFILES = {"clusterDNS", "clusterDomain", "apiVersion", "kind", "staticPodURL"}
_CGROUP_V1 = (
    "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed "
    "in a future release"
)
_IMAGES = {
    "konnectivity": ("quay.io/k0sproject/apiserver-network-proxy-agent", "v0.36.0-k0s.0"),
    "kubeproxy": ("quay.io/k0sproject/kube-proxy", "v1.36.3-1"),
    "coredns": ("quay.io/k0sproject/coredns", "1.14.6-k0s.0"),
    "metricsserver": ("quay.io/k0sproject/metrics-server", "v0.9.0-k0s.0"),
    "kuberouter.cniInstaller": ("quay.io/k0sproject/cni-node", "v1.9.1-k0s.1"),
    "kuberouter.cni": ("quay.io/k0sproject/kube-router", "v2.10.0-iptables1.8.13-k0s.1"),
    "pause": ("quay.io/k0sproject/pause", "3.10.2-0"),
}
_OPTIONAL_IMAGES = {
    "pushgateway": ("quay.io/k0sproject/pushgateway-ttl", "1.4.0-k0s.2"),
    "calico.cni": ("quay.io/k0sproject/calico-cni", "v3.32.1-2"),
    "calico.kubecontrollers": ("quay.io/k0sproject/calico-kube-controllers", "v3.32.1-2"),
    "calico.node": ("quay.io/k0sproject/calico-node", "v3.32.1-2"),
    "network.nodeLocalLoadBalancing.envoyProxy.image": ("quay.io/k0sproject/envoy-distroless", "v1.39.0"),
    "network.nodeLocalLoadBalancing.traefik.image": ("quay.io/k0sproject/traefik", "v3.7.7-k0s.0"),
}


class Config:
    def __init__(self, content):
        self.spec = content.get("spec") or {}

    def get(self, place, default=None):
        """What stands at a place below spec; nothing and null are the default."""
        at = self.spec
        for name in place.split("."):
            at = at.get(name) if isinstance(at, dict) else None
        return default if at is None else at

    @property
    def address(self):
        return self.get("api.address", host.main_address())

    def has_etcd(self):
        return self.get("storage.type", "etcd") == "etcd"

    def profile(self, name):
        """The kubelet's settings of a worker profile; None if there is no such profile."""
        found = {profile["name"]: profile.get("values") or {} for profile in self.get("workerProfiles", [])}
        return found.get(name, {} if name == "default" else None)

    def images(self, all_of_them=False):
        """The images that a cluster with this configuration wants."""
        wanted = dict(_IMAGES)
        if self.get("network.provider", "kuberouter") != "kuberouter":
            for name in ("kuberouter.cni", "kuberouter.cniInstaller"):
                del wanted[name]
        return [self._image(name, *image) for name, image in (wanted | (_OPTIONAL_IMAGES if all_of_them else {})).items()]

    def image(self, name):
        return self._image(name, *(_IMAGES | _OPTIONAL_IMAGES)[name])

    def _image(self, place, image, version):
        given = self.get(place if place.startswith("network.") else f"images.{place}", {})
        image, version = given.get("image", image), given.get("version", version)
        repository = self.get("images.repository")
        if repository:
            image = repository + "/" + image.partition("/")[2]
        return f"{image}:{version}"


def load(file=FILE, given=True):
    """The configuration of a file that is right; the default one where none is given and none is there. Raises Stop."""
    try:
        if file == "-":
            text = sys.stdin.read()
        else:
            with open(file, encoding="utf-8") as stream:
                text = stream.read()
    except FileNotFoundError as problem:
        if given:
            raise Stop(f"failed to load node config: open {file}: no such file or directory") from problem
        text = ""
    content = _parse(text)
    problems = list(_faults(Config(content)))
    if problems:
        raise Stop("\n".join(f"spec: {problem}" for problem in problems))
    return Config(content)


def _parse(text):
    failed = "failed to parse configuration: "
    try:
        content = yaml_subset.load(text) or {}
    except yaml_subset.YamlError as problem:
        raise Stop(f"{failed}error converting YAML to JSON: {problem}") from problem
    _known(content, _ROOT)
    spec = content.get("spec") or {}
    _known(spec, _SPEC)
    for place, fields in _STRICT.items():
        at = spec
        for name in place.split("."):
            at = (at or {}).get(name)
        _known(at or {}, fields)
    for profile in spec.get("workerProfiles") or []:
        _known(profile, _PROFILE)
    for part in ("api", "controllerManager", "scheduler"):
        for value in ((spec.get(part) or {}).get("extraArgs") or {}).values():
            if not isinstance(value, str):
                kind = "bool" if isinstance(value, bool) else "number"
                raise Stop(
                    f"{failed}error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {kind} into Go struct "
                    f"field ClusterSpec.spec.{part}.extraArgs of type string"
                )
    return content


def _known(part, fields):
    for name in part:
        if name not in fields:
            raise Stop(
                "failed to parse configuration: error unmarshaling JSON: while decoding JSON: json: unknown field "
                f'"{name}"'
            )


def _faults(config):
    provider = config.get("network.provider", "kuberouter")
    if provider not in ("kuberouter", "calico", "custom"):
        yield f'network: provider: Unsupported value: "{provider}": supported values: "kuberouter", "calico", "custom"'
    for name in ("podCIDR", "serviceCIDR"):
        value = config.get(f"network.{name}")
        if value is not None and not _is(ipaddress.ip_network, value):
            yield f'network: {name}: Invalid value: "{value}": invalid CIDR address'
    mode = config.get("network.kubeProxy.mode", "iptables")
    if mode not in ("iptables", "ipvs", "nftables", "userspace"):
        yield f"network: unsupported mode {mode} for kubeProxy config"
    kind = config.get("network.nodeLocalLoadBalancing.type", "EnvoyProxy")
    if kind not in ("EnvoyProxy", "Traefik"):
        yield (
            f'network: nodeLocalLoadBalancing.type: Unsupported value: "{kind}": supported values: "EnvoyProxy", "Traefik"'
        )
    if config.get("network.nodeLocalLoadBalancing.enabled") and config.get("api.externalAddress"):
        yield (
            "network.nodeLocalLoadBalancing.enabled: Forbidden: node-local load balancing cannot be used in conjunction with "
            "an external Kubernetes API server address"
        )
    address = config.get("api.address")
    if address is not None and not _is(ipaddress.ip_address, address):
        yield f'api: address: Invalid value: "{address}": invalid IP address'
    for number, name in enumerate(config.get("api.sans", [])):
        if not _is(ipaddress.ip_address, name) and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", str(name)):
            yield f'api: sans[{number}]: Invalid value: "{name}": invalid IP address / DNS name'
    for name in ("port", "k0sApiPort"):
        port = config.get(f"api.{name}", 1)
        if not 1 <= port <= 65535:
            yield f"api: {name}: Invalid value: {port}: must be between 1 and 65535, inclusive"
    storage = config.get("storage.type", "etcd")
    if storage not in ("etcd", "kine"):
        yield f'storage: type: Unsupported value: "{storage}": supported values: "etcd", "kine"'
    policy = config.get("images.default_pull_policy", "IfNotPresent")
    if policy not in ("Always", "IfNotPresent", "Never"):
        yield (
            f'default_pull_policy: Unsupported value: "{policy}": supported values: "Always", "IfNotPresent", "Never"'
        )
    for number, profile in enumerate(config.get("workerProfiles", [])):
        values, place = profile.get("values") or {}, f"workerProfiles[{number}].values"
        for name in sorted(_FORBIDDEN_IN_PROFILES & set(values)):
            yield f"{place}.{name}: Forbidden: may not be used in k0s worker profiles"
        if host.has_cgroup_v1() and values.get("failCgroupV1") is not False:
            yield f"{place}: Invalid value: {_CGROUP_V1}"


def _is(kind, text):
    try:
        kind(text)
        return True
    except ValueError:
        return False
