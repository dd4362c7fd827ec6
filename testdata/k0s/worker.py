"""`k0s worker`, and the part of a controller that runs pods: certificate, profile, containerd, images, kubelet."""

import base64
import json
import os
import re
import signal
import sys
import threading
import time

import containerd
import flags
import host
import log
import node
import pki
import pods
import product
import tokens
import web
from balancer import Balancer
from bundles import Bundles
from host import CONTAINERD_D, Stop, data, path
from kubelet import Kubelet
from remote_store import RemoteStore
from status import Status
from web import Refused

_RETRY = 2.0
_RESPAWN = 5.0
_BALANCER_PORT = 7443
_LABEL = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CGROUP_V1 = (
    "failed to run Kubelet: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is "
    "unsupported and will be removed in a future release"
)
_SYSTEM = "system:nodes"
_HIERARCHIES = ("", "cpuacct", "cpuset", "freezer", "memory", "pids", "systemd")


def run(arguments):
    settings, words = flags.parse("worker", arguments)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    host.pre_flight(settings, workloads=True)
    host.make_folders()

    def given():
        text = host.token_data(settings, words)
        if not text:
            raise Stop(
                "neither regular nor bootstrap kubeconfig files exist and no join token given; dunno how to make kubelet "
                "authenticate to API server"
            )
        try:
            return tokens.decode(text, tokens.WORKER, "failed to decode join token")
        except Stop as problem:
            raise Stop(f"failed to get bootstrap kubeconfig: {problem}") from problem

    worker = Worker(settings, given, {})
    worker.start()
    Status("worker", workloads=True, single=False)
    log.info("Worker has started")
    threading.Event().wait()


class Worker:
    """`given()` is the access by which the kubelet gets its own; a controller gives the node labels and taints."""

    def __init__(self, settings, given, labels, taints=(), embedded=False):
        self.settings, self.given, self.embedded, self.name = settings, given, embedded, host.name()
        self.labels = labels | settings.get("labels", {})
        self.taints = [*taints, *settings.get("taints", [])]
        self.goes_on, self.runtime = True, None

    def start(self):
        """Returns when the kubelet runs, whether or not it reaches the API."""
        try:
            self._bootstrap()
        except Stop as problem:
            raise Stop(f"failed to bootstrap kubelet client configuration: {problem}") from problem
        self.access = tokens.access(data("kubelet.conf"))
        self._load_profile()
        host.write(path(product.RUN, "kubelet", "ca.crt"), self.access.authority, 0o644)
        if not product.ROOT:
            self._start_containerd()
        log.info("Starting kubelet")
        self.parsed = [_taint(text) for text in self.taints]
        threading.Thread(target=self._kubelet, daemon=True).start()

    def stop(self):
        """The kubelet and containerd end; what runs in containers stays."""
        self.goes_on = False
        if self.runtime:
            self.runtime.stop()

    # -------------------------------------------------- who this node is

    def _bootstrap(self):
        file, fields = data("kubelet.conf"), {"component": "bootstrap-kubelet", "node_name": self.name}
        if os.path.exists(file):
            return
        access = self.given()
        log.info("Bootstrapping client configuration", **fields)
        while True:
            try:
                web.get(access.server + "/version", access.context, access.headers)
                break
            except Refused as problem:
                now = time.strftime("E%m%d %H:%M:%S.000000")
                text = json.dumps(str(problem))
                print(f'{now} {os.getpid():7} bootstrap.go:297] "Failed to connect to apiserver" err={text}', file=sys.stderr, flush=True)
                time.sleep(_RETRY)
        key = data("kubelet", "pki", "kubelet-client.key")
        certificate = self._certificate(access, "kube-apiserver-client-kubelet", key, {})
        authority = data("kubelet", "pki", "ca.crt")
        host.write(authority, access.authority, 0o644)
        server = access.server.replace(":9443", ":6443")
        host.write(file, pki.kubeconfig("local", "user", server, authority, certificate, key), 0o600)
        log.info("Successfully bootstrapped client configuration", **fields)

    def _certificate(self, access, signer, key, extra):
        """Asks for a certificate until it is signed; returns its file."""
        if not os.path.exists(key):
            os.makedirs(os.path.dirname(key), exist_ok=True)
            pki.new_key(key)
        request = pki.request(key, f"/O={_SYSTEM}/CN=system:node:{self.name}")
        place = access.server + "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        name = f"csr-{os.urandom(4).hex()}"
        spec = {"request": base64.b64encode(request.encode()).decode(), "signerName": f"kubernetes.io/{signer}", "extra": extra}
        body = json.dumps({"metadata": {"name": name}, "spec": spec})
        while True:
            try:
                web.ask("POST", place, access.context, access.headers, body)
                break
            except Refused as problem:
                if problem.code == 409:
                    break
                time.sleep(0.5)
        while True:
            try:
                found = json.loads(web.get(f"{place}/{name}", access.context, access.headers))
                signed = found.get("status", {}).get("certificate")
            except Refused:
                signed = None
            if signed:
                file = key.removesuffix(".key") + ".crt"
                host.write(file, base64.b64decode(signed), 0o644)
                return file
            time.sleep(0.2)

    def _load_profile(self):
        """The settings of the worker profile, from the API or as they were the last time."""
        name, cache = self.settings.get("profile", "default"), data("worker-profile.yaml")
        place = f"/api/v1/namespaces/kube-system/configmaps/worker-config-{name}-{product.MINOR}"
        said = 0.0
        while True:
            try:
                content = json.loads(web.get(self.access.server + place, self.access.context))["data"]
                host.write(cache, json.dumps({"name": name, "data": content}), 0o644)
                break
            except Refused as problem:
                if os.path.exists(cache):
                    with open(cache, encoding="utf-8") as stream:
                        content = json.load(stream)["data"]
                    break
                if time.monotonic() - said > _RESPAWN:
                    said = time.monotonic()
                    log.warning(f'Failed to load worker profile "{name}"', error=str(problem))
                time.sleep(0.5)
        self.profile = json.loads(content["kubeletConfiguration"])
        self.cluster, self.servers = json.loads(content["standIn"]), json.loads(content["apiServerAddresses"])

    # -------------------------------------------------- containerd and the bundled images

    def _start_containerd(self):
        for program in ("containerd", "containerd-shim-runc-v2", "runc", "iptables"):
            host.unpack(program)
        os.environ["PATH"] = data("bin") + ":" + os.environ["PATH"]
        os.makedirs(CONTAINERD_D, exist_ok=True)
        pause = self.cluster["pause"]
        head = "# k0s_managed=true\n# This is a placeholder configuration for k0s managed containerd.\n"
        text = f'{head}imports = ["{CONTAINERD_D}/*.toml"]\nversion = 3\n\n[plugins."io.containerd.cri.v1.images".pinned_images]\nsandbox = "{pause}"\n'
        host.write("/etc/k0s/containerd.toml", text, 0o644)
        systemd = self.profile.get("cgroupDriver") == "systemd"
        configuration = path(product.RUN, "stand-in-containerd.toml")
        self.runtime = containerd.Containerd(data("containerd"), configuration, certs_d(), pause, systemd)
        self.runtime.start()
        _move(self.runtime.child.pid)
        folder = data("images")
        os.makedirs(folder, mode=0o755, exist_ok=True)
        bundles = Bundles(folder)
        bundles.load()
        threading.Thread(target=bundles.watch, daemon=True).start()

    # -------------------------------------------------- the kubelet

    def _kubelet(self):
        self._until_it_starts()
        authority, key = path(product.RUN, "kubelet", "ca.crt"), data("kubelet", "pki", "kubelet.key")
        client = [data("kubelet", "pki", f"kubelet-client.{kind}") for kind in ("crt", "key")]
        store = RemoteStore(self._server(), authority, *client)
        names = {"names": [self.name, *host.addresses()]}
        certificate = self._certificate(self.access, "kubelet-serving", key, names)
        kubelet = Kubelet(store, self.runtime, self.name, product.KUBERNETES)

        def network():
            item = store.find("nodes", "", self.name) or {}
            return pods.network(self.runtime, item.get("spec", {}).get("podCIDR", "10.244.0.0/24"), self.cluster)

        port = (certificate, key, authority)
        node.run(
            kubelet, host.main_address(), self.labels, self.parsed, network, port, alone=self.embedded, goes_on=lambda: self.goes_on
        )

    def _server(self):
        """Where the kubelet finds the API: its own controller, a controller, or all of them by the local balancer."""
        if self.embedded:
            return re.sub(r"//[^/]+:", "//localhost:", self.access.server)
        image = self.cluster["balancer"]
        if not image:
            return self.access.server
        while self.runtime and not self._has(image):
            self._said("kubelet", f'Get "https://localhost:{_BALANCER_PORT}/api/v1/nodes": connect: connection refused')
            time.sleep(_RESPAWN)
        balancer = Balancer("nllb", data("nllb.json"), f"{self.access.server}", _BALANCER_PORT)
        balancer.update(self.servers)
        return f"https://localhost:{_BALANCER_PORT}"

    def _has(self, image):
        try:
            if not self.runtime.present(image):
                self.runtime.pull(image)
            return True
        except containerd.RuntimeFailure:
            return False

    def _until_it_starts(self):
        """A kubelet that can't start is started again and again."""
        while (problem := self._fault()) is not None and self.goes_on:
            self._said("kubelet", f'E1126 00:00:00.000000 run.go:72] "command failed" err={json.dumps(problem)}')
            log.error("Process terminated unexpectedly: exit status 1", component="kubelet")
            log.info("respawning in 5s", component="kubelet")
            time.sleep(_RESPAWN)

    @staticmethod
    def _said(component, line):
        log.info(line, component=component, stream="stderr")

    def _fault(self):
        if host.has_cgroup_v1() and self.profile.get("failCgroupV1") is not False:
            return _CGROUP_V1
        for label in self.labels:
            if not re.fullmatch(_LABEL, label.rpartition("/")[2]):
                return (
                    f"failed to validate kubelet flags: invalid node labels: '{label}' - name part must consist of alphanumeric "
                    "characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or "
                    f"'my.name',  or '123-abc', regex used for validation is '{_LABEL}')"
                )
        return None


def certs_d():
    """The folder of registries that the drop-ins name; the last one counts."""
    found = data("containerd", "certs.d")
    os.makedirs(found, exist_ok=True)
    for name in sorted(os.listdir(CONTAINERD_D)):
        if not name.endswith(".toml"):
            continue
        with open(os.path.join(CONTAINERD_D, name), encoding="utf-8") as stream:
            text = stream.read()
        table = r"""^\s*\[plugins\.["']io\.containerd\.cri\.v1\.images["']\.registry\]\s*\n(?:(?!\s*\[).*\n)*?"""
        match = re.search(table + r"""\s*config_path\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
        if match:
            found = match[1]
    return found


def _move(process):
    """The kubelet of k0s moves itself and containerd out of the cgroup of the service."""
    for hierarchy in _HIERARCHIES:
        folder = f"/sys/fs/cgroup/{hierarchy}"
        if not os.path.isdir(folder) or not os.path.exists(folder + "/cgroup.procs"):
            continue
        top = folder + "/system.slice"
        for made in (top, top + "/containerd.service"):
            os.makedirs(made, exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems") if hierarchy == "cpuset" else ():
                with open(f"{os.path.dirname(made)}/{file}", encoding="ascii") as above, open(f"{made}/{file}", "w", encoding="ascii") as below:
                    below.write(above.read())
        with open(top + "/containerd.service/cgroup.procs", "w", encoding="ascii") as stream:
            stream.write(str(process))


def _taint(text):
    failed = "can't parse taints for profile config map: "
    if text.count(":") > 1 or text.count("=") > 1:
        raise Stop(f"{failed}invalid taint spec: {text}")
    effect = text.partition(":")[2]
    if ":" in text and effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise Stop(f"{failed}invalid taint effect: {effect}, unsupported taint effect")
    key, _, effect = text.partition(":")
    key, _, value = key.partition("=")
    return {"key": key, "effect": effect} | ({"value": value} if value else {})
