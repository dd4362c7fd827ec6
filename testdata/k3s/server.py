"""`k3s server`: what happens in which order, and what is said of it."""

import hashlib
import os
import re
import secrets
import signal
import socket
import threading
import time

import containerd
import flags
import log
import pki
import preload
import registries
import yaml_subset
from api import Api
from kubelet import Kubelet
from network import Network
from store import Store, now

VERSION = "v1.31.2+k3s1"
REVISION = "6da20424"
PREPARING = "starting kubernetes: preparing server: "
# Seconds: short, but in the order and with the gaps of the real one, so that who does not wait fails.
_API_SERVER_START = 0.8
_NODE_READY_AFTER_REGISTERING = 0.4
_ROLES_AFTER_READY = 0.4
_SERVICE_ACCOUNTS_AFTER_API = 2.5
_AGENT_RETRY = 2.0
_LABEL = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


def run(arguments):
    settings = flags.server(arguments)
    if os.geteuid() != 0:
        log.fatal("server must run as root, or with --rootless and/or --disable-agent")
    address = _node_address(settings)
    if settings.get("server"):
        log.fatal("the stand-in cannot join a cluster")
    for name in ("datastore-endpoint", "container-runtime-endpoint"):
        if settings.get(name):
            log.fatal(f"the stand-in does not have --{name}")
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    notify_socket = os.environ.pop("NOTIFY_SOCKET", "")
    log.info(f"Starting k3s {VERSION} ({REVISION})")

    data_dir = settings["data-dir"]
    node_name = settings.get("node-name", socket.gethostname()).lower()
    containerd.unpack_programs(data_dir)
    api = _control_plane(settings, address, node_name)
    threading.Thread(target=_api_server_starts, args=(api, node_name, notify_socket), daemon=True).start()
    _agent(settings, api, address, node_name)


def _end(*_):
    """SIGTERM: containerd goes along, what it started stays, and the exit code is 1, as seen."""
    log.error("scheduler exited: finished without leader elect")
    os._exit(1)


def _node_address(settings):
    given = flags.split(settings.get("node-ip", []))
    if given:
        return given[0]
    with open("/proc/net/route", encoding="ascii") as stream:
        if not any(line.split()[1] == "00000000" for line in stream.readlines()[1:]):
            log.fatal('no default routes found in "/proc/net/route" or "/proc/net/ipv6_route"')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: only asks for the route
        return probe.getsockname()[0]


def _token(settings):
    if settings.get("token-file"):
        while not os.path.exists(settings["token-file"]):
            log.info(f"Waiting for {settings['token-file']} to be available\n")
            time.sleep(2)
        with open(settings["token-file"], encoding="utf-8") as stream:
            return stream.read().strip()
    return settings.get("token")


def _control_plane(settings, address, node_name):
    """Datastore, certificates, token, kubeconfig and the listening port."""
    server = os.path.join(settings["data-dir"], "server")
    tls, port = os.path.join(server, "tls"), settings["https-listen-port"]
    os.makedirs(os.path.join(server, "db"), exist_ok=True)
    os.chmod(server, 0o700)
    os.makedirs(os.path.join(server, "manifests"), exist_ok=True)
    if settings.get("cluster-init"):
        log.info("Managed etcd cluster initializing")
        log.info("Starting etcd for new cluster, cluster-reset=false")
    else:
        log.info("Configuring sqlite3 database connection pooling: maxIdleConns=2, maxOpenConns=0, connMaxLifetime=0s")
        log.info("Database tables and indexes are up to date")
        log.info("Kine available at unix://kine.sock")
    store = Store(os.path.join(server, "db", "state.db"))
    password = _password(settings, server, store)
    pki.make_authorities(tls)
    pki.sign(
        tls,
        "client-admin",
        "client-ca",
        "/CN=system:admin/O=system:masters",
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n",
    )
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        node_name,
    ]
    names += ["127.0.0.1", "::1", "10.43.0.1", address, *flags.split(settings.get("tls-san", []))]
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
    pki.sign(
        tls,
        "serving-kube-apiserver",
        "server-ca",
        "/CN=kube-apiserver",
        f"keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName={alternatives}\n",
    )
    pki.write_token(server, password)

    file = os.path.join(tls, "serving-kube-apiserver")
    api = Api(store, VERSION, os.path.join(tls, "server-ca.crt"), password)
    try:
        api.bind(
            settings.get("bind-address", "0.0.0.0"),
            port,
            file + ".crt",
            file + ".key",
            os.path.join(tls, "client-ca.crt"),
        )
    except OSError as problem:
        log.fatal(f"{PREPARING}init cluster datastore and https: listen tcp :{port}: bind: {problem.strerror.lower()}")
    log.info("Waiting for API server to become available")
    log.info(f"Server node token is available at {server}/token")
    log.info(f"To join server node to cluster: k3s server -s https://{address}:{port} -t ${{SERVER_NODE_TOKEN}}")
    log.info(f"Agent node token is available at {server}/agent-token")
    log.info(f"To join agent node to cluster: k3s agent -s https://{address}:{port} -t ${{AGENT_NODE_TOKEN}}")
    host = settings.get("bind-address", "127.0.0.1")
    pki.write_kubeconfig(
        tls, settings["write-kubeconfig"], int(settings["write-kubeconfig-mode"], 8), f"https://{host}:{port}"
    )
    log.info("Run: k3s kubectl")
    return api


def _is_address(name):
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
            return True
        except OSError:
            pass
    return False


def _password(settings, server, store):
    """The datastore is tied to the token that it was made with."""
    token = _token(settings)
    if token is None and os.path.exists(os.path.join(server, "token")):
        with open(os.path.join(server, "token"), encoding="utf-8") as stream:
            token = stream.read().strip()
    password = pki.token_password(token) if token else secrets.token_hex(16)
    digest = hashlib.sha256(password.encode()).hexdigest()
    if store.token_digest not in (None, digest):
        log.fatal(PREPARING + "bootstrap data already found and encrypted with different token")
    store.token_digest = digest
    store.save()
    return password


def _api_server_starts(api, node_name, notify_socket):
    api.core_ready.set()
    time.sleep(_API_SERVER_START)
    store = api.store
    for name in _NAMESPACES:
        if not store.find("namespaces", "", name):
            store.create(
                "namespaces",
                "",
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"}},
            )
    api.ready.set()
    log.info("Kube API server is now running")
    log.info("ETCD server is now running")
    log.info("k3s is up and running")
    if notify_socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
            stream.connect("\0" + notify_socket[1:] if notify_socket.startswith("@") else notify_socket)
            stream.send(b"READY=1\n")
    time.sleep(_SERVICE_ACCOUNTS_AFTER_API)
    while True:
        for namespace in store.list("namespaces"):
            name = namespace["metadata"]["name"]
            if not store.find("serviceaccounts", name, "default"):
                store.create(
                    "serviceaccounts",
                    name,
                    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
                )
        if not store.find("nodes", "", node_name):
            log.info(f'Waiting for control-plane node {node_name} startup: nodes "{node_name}" not found')
        time.sleep(1)


def _agent(settings, api, address, node_name):
    """containerd, the images folder, then the node and its pods. Never returns."""
    _write_node_password()
    listed = _registries(settings)
    runtime = containerd.Containerd(
        settings["data-dir"], settings["pause-image"], listed, "INVOCATION_ID" in os.environ
    )
    runtime.start()
    preload.preload(os.path.join(settings["data-dir"], "agent", "images"), runtime)
    network = Network(settings["data-dir"], flags.split(settings["cluster-cidr"])[0])
    network.prepare()
    kubelet = Kubelet(api.store, runtime, network, node_name, VERSION)
    log.info("Running kubelet --config=" + os.path.join(settings["data-dir"], "agent", "etc", "kubelet.conf"))
    labels = _node_labels(settings)
    kubelet.prepare()
    api.kubelet = kubelet
    api.ready.wait()
    kubelet.register(address, labels)
    time.sleep(_NODE_READY_AFTER_REGISTERING)
    kubelet.set_ready(True)
    time.sleep(_ROLES_AFTER_READY)
    roles = ["control-plane", "master"] + (["etcd"] if settings.get("cluster-init") else [])
    roles = {f"node-role.kubernetes.io/{role}": "true" for role in roles}
    api.store.update("nodes", "", node_name, lambda node: node["metadata"]["labels"].update(roles))
    log.info(f"Labels and annotations have been set successfully on node: {node_name}")
    beat = time.monotonic()
    while True:
        kubelet.sync()
        if time.monotonic() - beat > 10:
            beat = time.monotonic()
            api.store.update(
                "nodes", "", node_name, lambda node: node["status"]["conditions"][0].update(lastHeartbeatTime=now())
            )
        time.sleep(0.2)


def _node_labels(settings):
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


def _registries(settings):
    while True:
        try:
            path = settings["private-registry"]
            if os.path.exists(path):
                log.info(f"Using private registry config file at {path}")
            return registries.Registries.read(path, settings.get("disable-default-registry-endpoint", False))
        except yaml_subset.YamlError as problem:
            log.info(f"Waiting to retrieve agent configuration; server is not ready: {problem}")
            time.sleep(_AGENT_RETRY)


def _write_node_password():
    path = "/etc/rancher/node/password"
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(16) + "\n")
