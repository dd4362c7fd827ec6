"""What a server and an agent do alike: containerd, the images folder, then the node and its pods."""

import os
import re
import secrets
import socket
import time

import containerd
import flags
import kubelet_port
import log
import preload
import registries
import yaml_subset
from kubelet import Kubelet
from network import Network
from store import Failure

# Seconds: short, but in the order and with the gaps of the real one, so that who does not wait fails.
_READY_AFTER_REGISTERING = 0.4
_ROLES_AFTER_READY = 0.4
_RETRY = 2.0
_HEARTBEAT = 2.0
_LABEL = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
# Tests without root set it: files of the host go below it, and no container runs.
ROOT = os.environ.get("K3S_STAND_IN_ROOT", "")


def name_of(settings):
    return settings.get("node-name", socket.gethostname()).lower()


def must_be_root(message):
    if os.geteuid() != 0 and not ROOT:
        log.fatal(message)


def address_of(settings):
    given = flags.split(settings.get("node-ip", []))
    if given:
        return given[0]
    with open("/proc/net/route", encoding="ascii") as stream:
        if not any(line.split()[1] == "00000000" for line in stream.readlines()[1:]):
            log.fatal('no default routes found in "/proc/net/route" or "/proc/net/ipv6_route"')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: only asks for the route
        return probe.getsockname()[0]


def notify_ready(notify_socket):
    if notify_socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
            stream.connect("\0" + notify_socket[1:] if notify_socket.startswith("@") else notify_socket)
            stream.send(b"READY=1\n")


def password():
    """The node's own password, by which it is known again."""
    path = password_file()
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(16) + "\n")
    with open(path, encoding="utf-8") as stream:
        return stream.read().strip()


def password_file():
    return ROOT + "/etc/rancher/node/password"


def prepare_runtime(settings):
    """containerd with all images of the folder in it."""
    listed = _registries(settings)
    if ROOT:
        return None
    runtime = containerd.Containerd(
        settings["data-dir"], settings["pause-image"], listed, "INVOCATION_ID" in os.environ
    )
    runtime.start()
    preload.preload(os.path.join(settings["data-dir"], "agent", "images"), runtime)
    return runtime


def run(settings, runtime, store, address, version, registered=None, roles=None, alone=True):
    """Registers the node and keeps it. `roles` changes the Node some time after it is Ready. Never returns."""
    data_dir, name = settings["data-dir"], name_of(settings)
    labels, taints = _labels(settings), _taints(settings)
    log.info("Running kubelet --config=" + os.path.join(data_dir, "agent", "etc", "kubelet.conf"))
    kubelet = Kubelet(store, runtime, name, version)
    kubelet.prepare()
    _insist(lambda: kubelet.register(address, labels, taints))
    if runtime:
        kubelet_port.listen("0.0.0.0", os.path.join(data_dir, "agent"), kubelet.log_of)
        node = _insist(lambda: store.find("nodes", "", name)) or {}
        subnet = node.get("spec", {}).get("podCIDR", "10.42.0.0/24")
        kubelet.network = Network(data_dir, flags.split(settings["cluster-cidr"])[0], subnet)
        kubelet.network.prepare()
    if registered:
        registered()
    time.sleep(_READY_AFTER_REGISTERING)
    _insist(lambda: kubelet.set_ready(True))
    if roles:
        time.sleep(_ROLES_AFTER_READY)
        _insist(lambda: store.update("nodes", "", name, roles))
        log.info(f"Labels and annotations have been set successfully on node: {name}")
    beat = time.monotonic()
    while True:
        try:
            kubelet.sync()
            if time.monotonic() - beat > _HEARTBEAT:
                beat = time.monotonic()
                kubelet.set_ready(True)
        except Failure as problem:
            log.error(f'Error updating node status, will retry: error getting node "{name}": {problem}')
            time.sleep(1)
        time.sleep(0.2 if alone else 0.5)


def _insist(action):
    while True:
        try:
            return action()
        except Failure:
            time.sleep(0.5)


def _labels(settings):
    """Only the kubelet looks at them, and with it goes all of k3s."""
    labels = dict(label.partition("=")[::2] for label in flags.split(settings.get("node-label", [])))
    for name in labels:
        if not re.fullmatch(_LABEL, name.rpartition("/")[2]):
            log.error(
                f"kubelet exited: failed to validate kubelet flags: invalid node labels: '{name}' - name part must consist "
                "of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
                f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_LABEL}')"
            )
            os._exit(1)
    return labels


def _taints(settings):
    taints = []
    for text in flags.split(settings.get("node-taint", [])):
        key, _, effect = text.rpartition(":")
        key, _, value = key.partition("=")
        taints.append({"key": key, "effect": effect} | ({"value": value} if value else {}))
    return taints


def _registries(settings):
    while True:
        try:
            path = settings["private-registry"]
            if os.path.exists(path):
                log.info(f"Using private registry config file at {path}")
            return registries.Registries.read(path, settings.get("disable-default-registry-endpoint", False))
        except yaml_subset.YamlError as problem:
            log.info(f"Waiting to retrieve agent configuration; server is not ready: {problem}")
            time.sleep(_RETRY)
