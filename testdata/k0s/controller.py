"""`k0s controller`: what happens in which order, and what is said of it."""

import base64
import json
import os
import signal
import threading
import time

import config as configuration
import flags
import host
import join_api
import log
import pki
import pods
import product
import tokens
import web
from api import Api
from controllers import NAMESPACES
from database import Local
from etcd import Member
from host import Stop, data
from members import SHUTDOWN, Members, announce, create
from peers import Tls
from product import PKI
from status import Status
from store import Failure, Store
from web import Refused
from worker import Worker

_COMPONENTS = """
    applier-manager autopilot control-api coredns csr-approver endpoint-reconciler helm konnectivity-server
    kube-controller-manager kube-proxy kube-scheduler metrics-server network-provider node-role system-rbac update-prober
    windows-node worker-config
""".split()
_API, _ETCD, _SCHEDULER = "kube-apiserver", "etcd", "kube-scheduler"
# What the API server, which runs as a user of its own, has to read.
_READ_BY_API = """
    ca.crt sa.pub sa.key server.crt server.key front-proxy-ca.crt apiserver-kubelet-client.crt apiserver-kubelet-client.key
""".split()
_TAINT = "node-role.kubernetes.io/control-plane:NoSchedule"
_CRDS = """
    controlnodes.autopilot.k0sproject.io plans.autopilot.k0sproject.io updateconfigs.autopilot.k0sproject.io
    clusterconfigs.k0s.k0sproject.io charts.helm.k0sproject.io
""".split()
# Seconds: short, but in the order and with the gaps of the real one, so that who does not wait fails.
_API_START = 0.8
_CRDS_AFTER_API = 1.0
_MEMBER_AFTER_CRDS = 1.0
_LEAVING = 2.0
_ATTEMPTS = 10


def run(arguments):
    settings, words = flags.parse("controller", arguments)
    single = settings.get("single", False)
    workloads = single or settings.get("enable-worker", False)
    disabled = settings.get("disable-components", [])
    for name in disabled:
        if name not in _COMPONENTS:
            raise Stop(f"unknown component {name}")
    host.pre_flight(settings, workloads)
    try:
        config = configuration.load(settings.get("config", host.path(configuration.FILE)), "config" in settings)
    except Stop as problem:
        text = str(problem)
        raise Stop(f"invalid node config: {text}" if text.startswith("spec: ") else text) from problem
    host.make_folders()
    os.makedirs(PKI, exist_ok=True)
    os.chmod(PKI, 0o751)
    controller = Controller(settings, config, disabled, workloads, single)
    signal.signal(signal.SIGTERM, controller.end)
    controller.join(words)
    controller.start()
    if workloads:
        controller.start_worker()
    log.info("Controller has started")
    controller.left.wait()
    log.info("Awaiting process shutdown")
    threading.Event().wait()


class Controller:
    def __init__(self, settings, config, disabled, workloads, single):
        self.settings, self.config, self.disabled = settings, config, disabled
        self.workloads, self.single, self.name = workloads, single, host.name()
        self.port, self.etcd = config.get("api.port", 6443), data("etcd")
        self.listens = config.address if product.ROOT or config.get("api.onlyBindToAddress") else "0.0.0.0"
        self.managed = config.has_etcd() and not (single and not config.get("storage"))
        self.through, self.worker, self.left, self.ready = None, None, threading.Event(), False

    def end(self, *_):
        """SIGTERM. One that never was ready fails."""
        log.info("Shutting down k0s: context canceled")
        os._exit(0 if self.ready else 1)

    # -------------------------------------------------- before the datastore

    def join(self, words):
        """Gets the authority from the controller that the token leads to, unless this one has joined before."""
        has_data = os.path.exists(os.path.join(self.etcd, "member", "snap", "db"))
        if has_data if self.managed else os.path.exists(PKI + "/ca.key"):
            return
        text = host.token_data(self.settings, words)
        if not text:
            return
        failed = "failed to join controller: "
        try:
            self.through = tokens.decode(text, tokens.CONTROLLER, "failed to decode token")
        except Stop as problem:
            raise Stop(f"{failed}failed to create join client: {problem}") from problem
        log.info(f"Joining existing cluster via {self.through.server}")
        try:
            found = json.loads(_again_and_again(0.1, lambda: self._ask("GET", "/v1beta1/ca")))
        except Refused as problem:
            raise Stop(f"{failed}failed to join existing cluster via {self.through.server}: {problem}") from problem
        log.info("Got valid CA response, storing certificates")
        for field, file, mode in (("cert", "ca.crt", 0o644), ("key", "ca.key", 0o640), ("saKey", "sa.key", 0o640), ("saPub", "sa.pub", 0o644)):
            host.write(os.path.join(PKI, file), base64.b64decode(found[field]), mode)

    def _ask(self, method, path, body=None):
        return web.ask(method, self.through.server + path, self.through.context, self.through.headers, body)

    def _certificates(self):
        if pki.make_authority(PKI + "/ca", "kubernetes-ca"):
            os.chmod(PKI + "/ca.crt", 0o644)
        pki.make_authority(PKI + "/front-proxy-ca", "kubernetes-front-proxy-ca")
        # Both or neither: one without the other is not used.
        if not (os.path.exists(PKI + "/sa.key") and os.path.exists(PKI + "/sa.pub")):
            host.write(PKI + "/sa.key", pki.openssl("genrsa", "2048"), 0o640)
            host.write(PKI + "/sa.pub", pki.openssl("pkey", "-in", PKI + "/sa.key", "-pubout"), 0o644)
        for file in ("ca.key", "sa.key", "front-proxy-ca.key"):
            self._of(file, _API)
        client = "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        names += ["localhost", "127.0.0.1", "::1", "10.96.0.1", self.config.address, *self.config.get("api.sans", [])]
        names += filter(None, [self.config.get("api.externalAddress"), *host.addresses()])
        server = f"keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName={pki.alternatives(names)}\n"
        for file, subject, extensions, owner in (
            ("admin", "/O=system:masters/CN=kubernetes-admin", client, None),
            ("ccm", "/O=system:kube-controller-manager/CN=system:kube-controller-manager", client, _API),
            ("scheduler", "/O=system:kube-scheduler/CN=system:kube-scheduler", client, _SCHEDULER),
            ("apiserver-kubelet-client", "/O=system:masters/CN=apiserver-kubelet-client", client, _API),
            ("server", "/O=kubernetes/CN=kubernetes", server, _API),
            ("k0s-api", "/O=kubernetes/CN=k0s-api", server, _API),
        ):
            pki.sign(PKI, file, "ca", subject, extensions)
            self._of(file + ".key", owner)
        url = f"https://localhost:{self.port}"
        for file, owner in (("admin", None), ("ccm", _API), ("scheduler", _SCHEDULER)):
            text = pki.kubeconfig("local", "user", url, PKI + "/ca.crt", f"{PKI}/{file}.crt", f"{PKI}/{file}.key")
            host.write(f"{PKI}/{file}.conf", text, 0o600, owner)

    @staticmethod
    def _of(file, owner):
        os.chmod(os.path.join(PKI, file), 0o640)
        host.give(os.path.join(PKI, file), owner)

    # -------------------------------------------------- the datastore

    def _database(self):
        if not self.managed:
            source = self.config.get("storage.kine.dataSource", "sqlite://")
            if not source.startswith("sqlite://"):
                raise Stop("the stand-in has no kine but that of a file")
            os.makedirs(data("db"), exist_ok=True)
            return Local(data("db", "state.db"))
        host.has_user(_ETCD, "Running etcd as root, files with key material for etcd user will be owned by root")
        os.makedirs(self.etcd, exist_ok=True)
        os.chmod(self.etcd, 0o700)
        os.makedirs(PKI + "/etcd", exist_ok=True)
        self.address = self.config.get("storage.etcd.peerAddress", self.config.address)
        joined = os.path.exists(os.path.join(self.etcd, "member", "snap", "db"))
        if joined:
            log.warning("etcd db file(s) already exist, not gonna run join process")
        elif self.through:
            self._join_etcd()
        pki.make_authority(PKI + "/etcd/ca", "etcd-ca")
        usage = "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        names = pki.alternatives([self.name, "localhost", "127.0.0.1", self.address])
        for file in ("etcd/peer", "etcd/server", "apiserver-etcd-client"):
            pki.sign(PKI, file, "etcd/ca", f"/CN={file.replace('/', '-')}", usage + f"subjectAltName={names}\n")
            self._of(file + ".key", _ETCD if "/" in file else _API)
        for file in ("etcd/ca.key", "etcd/ca.crt"):
            self._of(file, _ETCD)
        os.chmod(PKI + "/etcd/ca.crt", 0o644)
        tls = Tls(PKI + "/etcd/peer.crt", PKI + "/etcd/peer.key", PKI + "/etcd/ca.crt")
        outside = [self.address if product.ROOT else "127.0.0.1"]
        promoted = "promoted learner to voting member: {name}"
        member = Member(self.etcd, self.name, self.address, tls, outside, self._removed, promoted)
        log.info("Starting etcd")
        try:
            member.start(new=not joined and not self.through)
        except OSError as problem:
            raise Stop(
                f"failed to start controller node components: listen tcp {self.address}:2380: bind: {problem.strerror.lower()}"
            ) from problem
        log.info("Started successfully, go nuts", component="etcd")
        while member.status():
            time.sleep(0.1)
        return member

    def _join_etcd(self):
        server = self.through.server
        log.info(f"Synchronizing etcd config with existing cluster via {server}")
        body = json.dumps({"node": self.name, "peerAddress": f"https://{self.address}:2380"})
        try:
            found = json.loads(_again_and_again(1.0, lambda: self._ask("POST", "/v1beta1/etcd/members", body)))
        except Refused as problem:
            raise Stop(
                "failed to start controller node components: failed to sync etcd config: failed to synchronize etcd config "
                f"with existing cluster via {server}: {problem}"
            ) from problem
        for kind, file in (("key", "ca.key"), ("cert", "ca.crt")):
            host.write(f"{PKI}/etcd/{file}", base64.b64decode(found["ca"][kind]), 0o640, _ETCD)

    def _removed(self):
        """etcd ends, and is started again and again."""

        def goes_on():
            while not self.left.is_set():
                log.info("the member has been permanently removed from the cluster", component="etcd", stream="stderr")
                log.info("respawning in 5s", component="etcd")
                time.sleep(5)

        threading.Thread(target=goes_on, daemon=True).start()

    # -------------------------------------------------- the API and what follows

    def start(self):
        self._certificates()
        database = self._database()
        self.store, self.member = Store(database), database if self.managed else None
        self._start_api()
        self._until(self._namespaces)
        self.api.ready.set()
        try:
            where = (self.listens, self.config.get("api.k0sApiPort", 9443))
            self.joins = join_api.listen(*where, self.store, self.member) if self.member else None
        except OSError as problem:
            raise Stop(f"failed to start controller node components: listen tcp :9443: bind: {problem.strerror.lower()}") from problem
        self.status = Status("controller", self.workloads, self.single, {"spec": self.config.spec})
        self.ready = True
        members = Members(self.store, self.name)
        threading.Thread(target=members.run, daemon=True).start()
        threading.Thread(target=self._cluster, daemon=True).start()

    def _start_api(self):
        host.has_user(_API, "Running Kubernetes API server as root")
        log.info("Starting kube-apiserver")
        files = [os.path.join(PKI, file) for file in _READ_BY_API]
        if self.managed:
            files += [f"{PKI}/{file}" for file in ("apiserver-etcd-client.crt", "apiserver-etcd-client.key")]
        while (problem := host.unreadable(_API, files)) is not None:
            log.info(f"Error: {problem}", component=_API, stream="stderr")
            log.error("Process terminated unexpectedly: exit status 1", component=_API)
            log.info("respawning in 5s", component=_API)
            time.sleep(5)
        kubelets = [f"{PKI}/{file}" for file in ("ca.crt", "apiserver-kubelet-client.crt", "apiserver-kubelet-client.key")]
        cidr = self.config.get("network.podCIDR", "10.244.0.0/16")
        self.api = Api(self.store, _Tokens(self.store), cidr, PKI + "/ca.crt", kubelets)
        time.sleep(_API_START)
        while True:
            try:
                self.api.bind(self.listens, self.port, PKI + "/server.crt", PKI + "/server.key")
                return
            except OSError as problem:
                log.info(
                    f"Error: failed to create listener: failed to listen on 0.0.0.0:{self.port}: listen tcp 0.0.0.0:{self.port}: "
                    f"bind: {problem.strerror.lower()}",
                    component=_API,
                    stream="stderr",
                )
                log.info("respawning in 5s", component=_API)
                time.sleep(5)

    def _namespaces(self):
        for name in (*NAMESPACES, "k0s-autopilot"):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"}}
            create(self.store, "namespaces", "", body)

    def _cluster(self):
        """What is made in the API, one thing after the other, and a look at one's own membership. Never returns."""
        self._until(self._profiles)
        time.sleep(_CRDS_AFTER_API)
        names = _CRDS + (["etcdmembers.etcd.k0sproject.io"] if self.member else [])
        for name in names:
            status = {"conditions": [{"type": "Established", "status": "True"}]}
            self._until(lambda: create(self.store, "customresourcedefinitions", "", {"metadata": {"name": name}, "status": status}))
        if "autopilot" not in self.disabled:
            self._until(lambda: create(self.store, product.CONTROL_NODES, "", {"metadata": {"name": self.name}}))
        lease = {"metadata": {"name": f"k0s-ctrl-{self.name}"}, "spec": {"holderIdentity": self.name}}
        self._until(lambda: create(self.store, "leases", "kube-node-lease", lease))
        if not self.member:
            return
        time.sleep(_MEMBER_AFTER_CRDS)
        self._until(lambda: announce(self.store, self.name, self.member.url))
        while True:
            time.sleep(0.5)
            try:
                own = self.store.find(product.ETCD_MEMBERS, "", self.name)
            except Failure:
                continue
            if own and own["spec"].get("leave") and SHUTDOWN in own["metadata"].get("labels", {}):
                self._leave()
                return

    def _profiles(self):
        """The settings of workers, for each profile. Addresses are those of all controllers that ever started."""
        create(self.store, "apiservers", "", {"metadata": {"name": self.name}, "address": f"{self.config.address}:{self.port}"})
        servers = sorted(item["address"] for item in self.store.list("apiservers"))
        names = ["default", *(profile["name"] for profile in self.config.get("workerProfiles", []))]
        for name in names:
            content = {
                "apiServerAddresses": json.dumps(servers),
                "kubeletConfiguration": json.dumps(self.config.profile(name)),
                "standIn": json.dumps(pods.settings_of(self.config, self.disabled)),
            }
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"worker-config-{name}-{product.MINOR}"}}
            create(self.store, "configmaps", "kube-system", body | {"data": content})
            self.store.update("configmaps", "kube-system", body["metadata"]["name"], lambda item: item.update(data=content))

    @staticmethod
    def _until(action):
        """Until the datastore answers."""
        while True:
            try:
                return action()
            except Failure:
                time.sleep(0.2)

    def _leave(self):
        """All parts end but the process, which systemd has to end."""
        log.info("Etcd member marked for shutdown; stopping components and waiting for external termination", component="etcdMemberReconciler")
        log.info("Will leave etcd cluster before shutting down", component="etcdMemberReconciler")
        self._until(lambda: self.store.delete("apiservers", "", self.name))
        self._until(lambda: self.store.delete("leases", "kube-node-lease", f"k0s-ctrl-{self.name}"))
        if self.worker:
            self.worker.stop()
        self.status.close()
        self.joins.shutdown()
        self.joins.server_close()
        self.api.close()
        time.sleep(_LEAVING)
        log.info("Removing member", component="etcd")
        self.left.set()
        self.member.remove(self.name)
        log.info("All node components stopped")

    # -------------------------------------------------- pods

    def start_worker(self):
        labels = {"node.k0sproject.io/role": "control-plane"}
        taints = [] if self.single or self.settings.get("no-taints") else [_TAINT]
        self.worker = Worker(self.settings, lambda: tokens.access(product.KUBECONFIG), labels, taints, embedded=True)
        self.worker.start()


class _Tokens:
    """Who comes to the API without a certificate: a node that has yet to get one."""

    def __init__(self, store):
        self.store = store

    @staticmethod
    def answer(*_):
        """k0s has its own end points on another port."""
        return None

    def admits(self, request, path):
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or not tokens.is_valid(self.store, token, "usage-bootstrap-authentication"):
            return False
        return path in ("/version", "/readyz") or "/certificatesigningrequests" in path


def _again_and_again(delay, action):
    """Ten times, with longer and longer pauses."""
    for attempt in range(_ATTEMPTS):
        try:
            return action()
        except Refused:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(min(60.0, delay * 2**attempt))
