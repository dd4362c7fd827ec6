"""`k3s server`: what happens in which order, and what is said of it."""

import json
import os
import signal
import threading
import time

import flags
import host
import keys
import log
import pki
from api import Api, give_subnet
from bootstrap import PREPARING, Bootstrap, critical
from access import Refused
from controllers import NAMESPACES
from database import Local, Unavailable
from etcd import Member, ask_members
from members import MEMBER, MEMBER_ADDRESS, Members
from peers import Refusal, Tls
from product import REVISION, VERSION
from store import Failure, Store
from supervisor import Supervisor, ensure_node_password

# Seconds: short, but in the order and with the gaps of the real one, so that who does not wait fails.
_API_SERVER_START = 0.8
_JOIN_RETRY = 0.5
_REPEATED = 5.0
_API_FILES = ("client-ca.crt", "server-ca.crt", "client-admin.crt", "client-admin.key")


def run(arguments):
    settings = flags.server(arguments)
    host.must_be_root("server must run as root, or with --rootless and/or --disable-agent")
    address = host.address_of(settings)
    for name in ("datastore-endpoint", "container-runtime-endpoint"):
        if settings.get(name):
            log.fatal(f"the stand-in does not have --{name}")
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    notify_socket = os.environ.pop("NOTIFY_SOCKET", "")
    log.info(f"Starting k3s {VERSION} ({REVISION})")
    if not host.ROOT:
        host.unpack_programs(settings["data-dir"])
    Server(settings, address, notify_socket).run()


def _end(*_):
    """SIGTERM: containerd goes along, what it started stays, and the exit code is 1, as seen."""
    log.error("scheduler exited: finished without leader elect")
    os._exit(1)


class Server:
    def __init__(self, settings, address, notify_socket):
        self.settings, self.address, self.notify_socket = settings, address, notify_socket
        self.name, self.folder = host.name_of(settings), os.path.join(settings["data-dir"], "server")
        self.tls, self.port = os.path.join(self.folder, "tls"), settings["https-listen-port"]
        self.runtime_ready = threading.Event()

    def run(self):
        start = Bootstrap(self.settings, self.folder, self.name)
        start.prepare(self._digest_on_disk(start))
        self._certificates()
        passwords = start.write_tokens()
        start.clear_tombstone()
        database = self._database(start)
        self.store = Store(database)
        self.supervisor = Supervisor(
            self.store,
            self.tls,
            passwords,
            {"critical": critical(self.settings)},
            start.shared if start.managed else None,
            database if start.managed else None,
        )
        cluster_cidr = flags.split(self.settings["cluster-cidr"])[0]
        clients, *kubelets = (os.path.join(self.tls, file) for file in _API_FILES)
        self.api = Api(self.store, self.supervisor, cluster_cidr, clients, kubelets)
        self._listen(start)
        threading.Thread(target=self._control_plane, args=(start, database), daemon=True).start()
        if self.settings.get("disable-agent"):
            threading.Event().wait()
        host.password()
        runtime = host.prepare_runtime(self.settings)
        self.runtime_ready.set()
        self.api.ready.wait()
        self._own_certificates()
        store = _OwnStore(self.store, flags.split(self.settings["cluster-cidr"])[0])
        host.run(self.settings, runtime, store, self.address, roles=lambda item: self._roles(item, database))

    # -------------------------------------------------- before the datastore

    def _digest_on_disk(self, start):
        """The token with which the data that is here was made."""
        path = os.path.join(start.etcd, "member", "snap", "db") if start.managed else self._sqlite()
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as stream:
            saved = json.load(stream)
        return saved.get("state", saved)["objects"].get("bootstrap//token", {}).get("digest")

    def _sqlite(self):
        return os.path.join(self.folder, "db", "state.db")

    def _certificates(self):
        keys.make_authorities(self.tls)
        pki.make_service_key(os.path.join(self.tls, "service.key"))
        usage = "keyUsage=critical,digitalSignature\nextendedKeyUsage="
        pki.sign(
            self.tls,
            "client-admin",
            "client-ca",
            "/CN=system:admin/O=system:masters",
            usage + "clientAuth\n",
        )
        domain = self.settings.get("cluster-domain", "cluster.local")
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}"]
        names += ["localhost", self.name, "127.0.0.1", "::1", "10.43.0.1", self.address]
        names += flags.split(self.settings.get("tls-san", []))
        pki.sign(
            self.tls,
            "serving-kube-apiserver",
            "server-ca",
            "/CN=kube-apiserver",
            usage + f"serverAuth\nsubjectAltName={pki.alternatives(names)}\n",
        )

    def _own_certificates(self):
        """Those of this server's own kubelet."""
        folder = os.path.join(self.settings["data-dir"], "agent")
        os.makedirs(folder, exist_ok=True)
        usage = "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        names = pki.alternatives([self.name, "localhost", "127.0.0.1", self.address])
        pki.sign(
            folder,
            "serving-kubelet",
            os.path.join(self.tls, "server-ca"),
            f"/CN={self.name}",
            usage + f"subjectAltName={names}\n",
        )
        for name in ("client-ca.crt", "server-ca.crt"):
            with open(os.path.join(self.tls, name), "rb") as stream:
                pki.write_private(os.path.join(folder, name), stream.read())

    def _database(self, start):
        if not start.managed:
            log.info("Configuring sqlite3 database connection pooling: maxIdleConns=2, maxOpenConns=0, connMaxLifetime=0s")
            log.info("Database tables and indexes are up to date")
            log.info("Kine available at unix://kine.sock")
            return Local(self._sqlite())
        names = pki.alternatives(["localhost", self.name, "127.0.0.1", self.address])
        pki.sign(
            self.tls,
            "etcd/peer-server-client",
            "etcd/peer-ca",
            "/CN=etcd-peer",
            f"keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n",
        )
        file = os.path.join(self.tls, "etcd", "peer-server-client")
        self.peer_tls = Tls(file + ".crt", file + ".key", os.path.join(self.tls, "etcd", "peer-ca.crt"))
        outside = [self.address] + ([] if self.address.startswith("127.") else ["127.0.0.1"])

        def removed():
            with open(os.path.join(start.etcd, "tombstone"), "w", encoding="ascii"):
                pass
            log.info("This node has been removed from the cluster - please restart k3s to rejoin the cluster")

        return Member(start.etcd, start.member_name(), self.address, self.peer_tls, outside, removed)

    def _listen(self, start):
        file = os.path.join(self.tls, "serving-kube-apiserver")
        try:
            self.api.bind(self.settings.get("bind-address", "0.0.0.0"), self.port, file + ".crt", file + ".key")
        except OSError as problem:
            log.fatal(
                f"{PREPARING}init cluster datastore and https: listen tcp :{self.port}: bind: {problem.strerror.lower()}"
            )
        log.info("Waiting for API server to become available")
        url = f"https://{self.address}:{self.port}"
        log.info(f"Server node token is available at {self.folder}/token")
        log.info(f"To join server node to cluster: k3s server -s {url} -t ${{SERVER_NODE_TOKEN}}")
        log.info(f"Agent node token is available at {self.folder}/agent-token")
        log.info(f"To join agent node to cluster: k3s agent -s {url} -t ${{AGENT_NODE_TOKEN}}")
        mode, host = int(self.settings["write-kubeconfig-mode"], 8), self.settings.get("bind-address", "127.0.0.1")
        keys.write_kubeconfig(self.tls, self.settings["write-kubeconfig"], mode, f"https://{host}:{self.port}")
        log.info("Run: k3s kubectl")

    # -------------------------------------------------- the datastore and what needs it

    def _control_plane(self, start, database):
        try:
            if start.managed:
                self._start_etcd(start, database)
            self._start_api(start, database)
        except SystemExit:
            os._exit(1)

    def _start_etcd(self, start, member):
        try:
            if start.initialised:
                log.info("Starting etcd for existing cluster member")
                member.start()
            elif start.access is None:
                log.info("Starting etcd for new cluster, cluster-reset=false")
                member.start(new=True)
                self._migrate(member)
            else:
                self._join(start, member)
        except OSError as problem:
            log.fatal(f"{PREPARING}start managed database: listen tcp {self.address}:2380: bind: {problem.strerror.lower()}")
        said = 0.0
        while problem := member.status():
            if time.monotonic() - said > _REPEATED:
                said = time.monotonic()
                log.info(f"Failed to test data store connection: {problem}")
            time.sleep(0.1)
        log.info("etcd data store connection OK")
        threading.Thread(target=self._watch_member, args=(member,), daemon=True).start()

    def _migrate(self, member):
        if not os.path.exists(self._sqlite()):
            return
        log.info("Migrating content from sqlite to etcd")
        while member.status():
            time.sleep(0.05)
        old = Local(self._sqlite()).state
        for key, value in sorted(old.objects.items()):
            log.info("Migrating etcd key /registry/" + "/".join(filter(None, key)))
            member.commit([(key, "any", value)])
        os.rename(self._sqlite(), self._sqlite() + ".migrated")

    def _join(self, start, member):
        """One member at a time: as a learner, once the images are in."""
        self.runtime_ready.wait()
        while True:
            try:
                listed = json.loads(start.access.get("/db/info"))["members"]
                shown = [f"{other['name']}={other['url']}" for other in listed]
                for other in listed:
                    if other["name"] != member.name and other["name"].rpartition("-")[0] == self.name:
                        os.remove(os.path.join(start.etcd, "name"))
                        log.fatal(
                            "etcd cluster join failed: duplicate node name found, please use a unique name for this node"
                        )
                if (member.name, member.url) not in [(other["name"], other["url"]) for other in listed]:
                    own = f"{member.name}={member.url}"
                    log.info(f"Adding member {own} to etcd cluster [{' '.join(shown)}]")
                    message = {"do": "add", "name": member.name, "url": member.url}
                    ask_members([other["url"] for other in listed], self.peer_tls, message)
                    shown.append(own)
                log.info(f"Starting etcd to join cluster with members [{' '.join(shown)}]")
                member.start()
                return
            except Refusal as problem:
                if "too many learner" not in str(problem) and "unhealthy" not in str(problem):
                    log.fatal(f"etcd cluster join failed: {problem}")
                log.info(f"Waiting for other members to finish joining etcd cluster: {problem}")
            except (Refused, Unavailable) as problem:
                log.info(
                    f"Waiting to retrieve etcd cluster member list: failed to get MemberList from server: {problem}"
                )
            time.sleep(_JOIN_RETRY)

    @staticmethod
    def _watch_member(member):
        """A member that was removed stays and complains. Never returns."""
        while True:
            time.sleep(_REPEATED)
            if member.removed:
                log.error(f"Failed to check local etcd status for learner management: {member.status()}")

    def _start_api(self, start, database):
        _patiently(lambda: self._keep_token(start))
        self.supervisor.core_ready = True
        time.sleep(_API_SERVER_START)
        _patiently(self._namespaces)
        _patiently(self._own_address)
        if not self.settings.get("disable-agent"):
            self._own_password()
        self.api.ready.set()
        log.info("Kube API server is now running")
        log.info("ETCD server is now running")
        log.info("k3s is up and running")
        host.notify_ready(self.notify_socket)
        threading.Thread(target=Members(self.store).run, daemon=True).start()
        while True:
            try:
                if not self.settings.get("disable-agent") and not self.store.find("nodes", "", self.name):
                    log.info(
                        f'Waiting for control-plane node {self.name} startup: nodes "{self.name}" not found'
                    )
            except Failure:
                pass
            time.sleep(1)

    def _keep_token(self, start):
        """The datastore is tied to the token that it was made with."""
        found = self.store.find("bootstrap", "", "token")
        if found is None:
            self.store.create("bootstrap", "", {"metadata": {"name": "token"}, "digest": start.digest()})
        elif found["digest"] != start.digest():
            log.fatal(f"{PREPARING}bootstrap data already found and encrypted with different token")

    def _namespaces(self):
        for name in NAMESPACES:
            if not self.store.find("namespaces", "", name):
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                self.store.create("namespaces", "", body | {"status": {"phase": "Active"}})

    def _own_address(self):
        address = f"{self.address}:{self.port}"
        self.store.delete("apiservers", "", self.name)
        self.store.create("apiservers", "", {"metadata": {"name": self.name}, "address": address})

    def _own_password(self):
        """A server's own node is believed; its password is kept if the name has none yet."""
        try:
            ensure_node_password(self.store, self.name, host.password())
            log.info(f"Password verified locally for node {self.name}")
        except Failure as problem:
            log.error(f"Deferred node password secret validation failed: {problem}")

    def _roles(self, item, database):
        labels = item["metadata"].setdefault("labels", {})
        roles = ["control-plane", "master"] + (["etcd"] if database.managed else [])
        labels.update({f"node-role.kubernetes.io/{role}": "true" for role in roles})
        if database.managed:
            notes = item["metadata"].setdefault("annotations", {})
            notes.update({MEMBER: database.name, MEMBER_ADDRESS: self.address})


class _OwnStore:
    """The store for the kubelet of this host: as a new node goes in, it gets its subnet, as the API would give it."""

    def __init__(self, store, cluster_cidr):
        self.store, self.cluster_cidr = store, cluster_cidr

    def __getattr__(self, name):
        return getattr(self.store, name)

    def create(self, plural, namespace, body):
        if plural == "nodes":
            give_subnet(self.store, self.cluster_cidr, body)
        return self.store.create(plural, namespace, body)


def _patiently(action):
    """Until the datastore answers; what somebody else did meanwhile is done."""
    while True:
        try:
            return action()
        except Failure as problem:
            if problem.code != 409:
                time.sleep(0.2)

