"""The HTTPS port of a server: the part of the Kubernetes API that is needed, and the product's own end points."""

import base64
import http.server
import ipaddress
import json
import re
import ssl
import threading
from urllib.parse import parse_qs

import kubelet_port
import log
import product
import resources
from containerd import RuntimeFailure
from store import Failure, now

_OBJECT = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?P<part>/log|/eviction)?"
)


class Api:
    """What the handlers need to know of the server; `ready` is set when the API serves.

    `own.answer(request, path)` answers the product's own paths, None for others; `own.admits(request, path)` says who may
    come without a certificate. `kubelets` are authority, certificate and key for the ports of kubelets.
    """

    def __init__(self, store, own, cluster_cidr, clients, kubelets):
        self.store, self.own, self.clients, self.kubelets = store, own, clients, kubelets
        self.ready, self.cluster_cidr, self.servers = threading.Event(), cluster_cidr, []

    def bind(self, address, port, certificate, key):
        """Raises OSError when the port is taken."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(self.clients)
        context.verify_mode = ssl.CERT_OPTIONAL
        handler = type("Handler", (_Handler,), {"api": self})
        server = _HttpServer((address, port), handler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # all hosts of a cluster may come at once


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api = None

    def log_message(self, *_):
        """Requests are not logged."""

    def handle(self):
        try:
            super().handle()
        except (ssl.SSLError, ConnectionError) as problem:
            log.info(f"http: TLS handshake error from {self.client_address[0]}:{self.client_address[1]}: {problem}")

    def do_GET(self):
        self.answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        kind = "application/json"
        try:
            code, content = 200, self.result(path, parse_qs(query), body)
            if isinstance(content, bytes):
                text, kind = content, "text/plain"
            else:
                text = json.dumps(content, indent=2).encode()
        except (Failure, RuntimeFailure) as problem:
            failure = problem if isinstance(problem, Failure) else Failure(500, "InternalError", str(problem))
            code, text = failure.code, failure_body(failure)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def result(self, path, query, body):
        own = self.api.own.answer(self, path)
        if own is not None:
            return own
        if not self.connection.getpeercert() and not self.api.own.admits(self, path):
            raise Failure(401, "Unauthorized", "Unauthorized")
        if not self.api.ready.is_set():
            raise Failure(503, "ServiceUnavailable", "apiserver not ready")
        if path in ("/readyz", "/healthz", "/livez"):
            if path != "/livez":
                self.api.store.list("namespaces")
            return b"ok"
        if path == "/version":
            return {"major": "1", "minor": product.KUBERNETES.split(".")[1], "gitVersion": product.KUBERNETES, "platform": "linux/amd64"}
        match = _OBJECT.fullmatch(path)
        if not match or match["plural"] not in resources.KINDS:
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        namespace = (match["namespace"] or "") if resources.KINDS[match["plural"]][2] else ""
        if self.command == "GET":
            return self.seen(match["plural"], namespace, match["name"], match["part"])
        if self.command == "DELETE":
            return self.delete(match["plural"], namespace, match["name"], query)
        return self.changed(match["plural"], namespace, match["name"], match["part"], body)

    def seen(self, plural, namespace, name, part):
        kind, version, _, _ = resources.KINDS[plural]
        store = self.api.store
        if name:
            found = store.get(plural, namespace, name)
            return kubelet_port.read_log(store, self.api.kubelets, found) if part == "/log" else found
        at, items = store.list_at(plural, namespace)
        return {"kind": kind + "List", "apiVersion": version, "metadata": {"resourceVersion": str(at)}, "items": items}

    def delete(self, plural, namespace, name, query):
        """A node waits for its finalizers and a pod for its kubelet; all else goes at once."""
        store = self.api.store
        found = store.get(plural, namespace, name)
        waits = bool(found["metadata"].get("finalizers"))
        if plural == "pods" and query.get("gracePeriodSeconds") != ["0"]:
            host = found["spec"].get("nodeName")
            waits = bool(host and store.find("nodes", "", host))
        if waits:
            store.update(
                plural, namespace, name, lambda item: item["metadata"].setdefault("deletionTimestamp", now())
            )
        else:
            store.delete(plural, namespace, name)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def changed(self, plural, namespace, name, part, body):
        store = self.api.store
        kind, version, namespaced, _ = resources.KINDS[plural]
        if part == "/eviction":
            return self.delete(plural, namespace, name, {})
        content = json.loads(body)
        if self.command == "PATCH":
            store.get(plural, namespace, name)
            store.update(plural, namespace, name, lambda item: merge(item, content))
            return store.get(plural, namespace, name)
        content = {"apiVersion": version, "kind": kind} | content
        for key, value in content.pop("stringData", {}).items():
            content.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
        if namespaced and not store.find("namespaces", "", namespace):
            raise Failure(404, "NotFound", f'namespaces "{namespace}" not found')
        if self.command == "PUT":
            return store.replace(plural, namespace, content)
        if plural == "pods":
            admit(store, namespace, content)
        if plural == "nodes":
            give_subnet(store, self.api.cluster_cidr, content)
        return store.create(plural, namespace, content)


def merge(item, patch):
    """RFC 7396."""
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(item.get(key), dict):
            merge(item[key], value)
        elif value is None:
            item.pop(key, None)
        else:
            item[key] = value


def failure_body(failure):
    return json.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(failure),
            "reason": failure.reason,
            "code": failure.code,
        },
        indent=2,
    ).encode()


def give_subnet(store, cluster_cidr, node):
    """The addresses of a node's pods: the first part of the cluster's that no other node has."""
    taken = {other.get("spec", {}).get("podCIDR") for other in store.list("nodes")}
    free = (str(part) for part in ipaddress.ip_network(cluster_cidr).subnets(new_prefix=24) if str(part) not in taken)
    node.setdefault("spec", {})["podCIDR"] = next(free)


def admit(store, namespace, pod):
    """The admission of a pod: its service account must be there, and some fields get their defaults."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    if store.find("pods", namespace, name):
        return
    account = spec.setdefault("serviceAccountName", "default")
    if not store.find("serviceaccounts", namespace, account):
        raise Failure(
            403,
            "Forbidden",
            f'pods "{name}" is forbidden: error looking up service account {namespace}/{account}: '
            f'serviceaccount "{account}" not found',
        )
    spec.setdefault("restartPolicy", "Always")
    for container in spec["containers"]:
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        latest = "@" not in container["image"] and tag in ("", "latest")
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    pod["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
