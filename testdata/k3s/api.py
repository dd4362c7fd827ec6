"""The HTTPS port of a server: k3s's own end points and the part of the Kubernetes API that is needed."""

import base64
import http.server
import json
import re
import ssl
import threading

import log
import resources
from containerd import RuntimeFailure
from store import Failure

_OBJECT = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)


class Api:
    """What the handlers need to know of the server; `ready` and `core_ready` are set when they are so."""

    def __init__(self, store, version, authority_file, password):
        self.store, self.version, self.password = store, version, password
        with open(authority_file, "rb") as stream:
            self.authority = stream.read()
        self.ready, self.core_ready = threading.Event(), threading.Event()
        self.kubelet = None

    def bind(self, address, port, certificate, key, client_authority):
        """Raises OSError when the port is taken."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(client_authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        handler = type("Handler", (_Handler,), {"api": self})
        server = http.server.ThreadingHTTPServer((address, port), handler)
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
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

    do_POST = do_PUT = do_DELETE = do_GET

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        try:
            code, content = 200, self.result(path, body)
        except (Failure, RuntimeFailure) as problem:
            failure = problem if isinstance(problem, Failure) else Failure(500, "InternalError", str(problem))
            code = failure.code
            content = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": str(failure),
                "reason": failure.reason,
                "code": code,
            }
        text = content if isinstance(content, bytes) else json.dumps(content, indent=2).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(content, bytes) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def result(self, path, body):
        if path == "/ping":
            return b"pong"
        if path == "/cacerts":
            return self.api.authority
        if path.startswith("/v1-k3s/"):
            return self.supervisor(path)
        if not self.connection.getpeercert():
            raise Failure(401, "Unauthorized", "Unauthorized")
        if not self.api.ready.is_set():
            raise Failure(503, "ServiceUnavailable", "apiserver not ready")
        if path in ("/readyz", "/healthz", "/livez"):
            return b"ok"
        if path == "/version":
            return {"major": "1", "minor": "31", "gitVersion": self.api.version, "platform": "linux/amd64"}
        match = _OBJECT.fullmatch(path)
        if not match or match["plural"] not in resources.KINDS:
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        return self.objects(match["plural"], match["namespace"] or "", match["name"], bool(match["log"]), body)

    def supervisor(self, path):
        kind, _, login = self.headers.get("Authorization", "").partition(" ")
        user, _, password = (
            base64.b64decode(login).decode(errors="replace").partition(":") if kind == "Basic" else ("", "", "")
        )
        if user and password != self.api.password:
            raise Failure(401, "Unauthorized", "not authorized")
        if user != "node":
            raise Failure(403, "Forbidden", "forbidden")
        if not self.api.core_ready.is_set():
            raise Failure(503, "ServiceUnavailable", "runtime core not ready")
        if path == "/v1-k3s/readyz":
            return b"ok"
        raise Failure(404, "NotFound", "the server could not find the requested resource")

    def objects(self, plural, namespace, name, wants_log, body):
        store = self.api.store
        kind, version, namespaced, _ = resources.KINDS[plural]
        namespace = namespace if namespaced else ""
        if self.command == "GET" and not name:
            return {
                "kind": kind + "List",
                "apiVersion": version,
                "metadata": {"resourceVersion": str(store.version)},
                "items": store.list(plural, namespace),
            }
        if self.command == "GET":
            found = store.get(plural, namespace, name)
            return self.api.kubelet.log_of(found) if wants_log else found
        if self.command == "DELETE":
            found = store.get(plural, namespace, name)
            if plural == "pods" and self.api.kubelet:
                self.api.kubelet.remove(found)
            store.delete(plural, namespace, name)
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        content = {"apiVersion": version, "kind": kind} | json.loads(body)
        if namespaced and not store.find("namespaces", "", namespace):
            raise Failure(404, "NotFound", f'namespaces "{namespace}" not found')
        if self.command == "PUT":
            return store.replace(plural, namespace, content)
        if plural == "pods":
            admit(store, namespace, content)
        return store.create(plural, namespace, content)


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
