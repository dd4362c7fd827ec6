"""k3s's own end points on port 6443: who may ask what, and what a host that joins is told."""

import base64
import hashlib
import hmac
import os
import secrets
import time

import log
import pki
from database import Unavailable
from store import Failure

_AGENT, _SERVER, _NODES, _BOOTSTRAP = "k3s:agent", "k3s:server", "system:nodes", "system:bootstrappers:k3s"
_NOT_READY = Failure(503, "ServiceUnavailable", "runtime core not ready")


class Supervisor:
    """`shared` gives the keys for a server that joins, or is None where no server can join; `member` is etcd's."""

    def __init__(self, store, tls, passwords, configuration, shared, member):
        self.store, self.tls, self.passwords = store, tls, passwords
        self.configuration, self.shared, self.member = configuration, shared, member
        self.core_ready = False

    def answer(self, request, path):
        """Bytes or what becomes JSON, None for what is Kubernetes' own. Raises Failure."""
        if path == "/ping":
            return b"pong"
        if path == "/cacerts":
            return pki.read(os.path.join(self.tls, "server-ca.crt"))
        if not path.startswith("/v1-k3s/") and path != "/db/info":
            return None
        try:
            name, groups = self._authenticate(request)
            return self._answer(request, path, name, groups)
        except Failure as problem:
            if problem.code != 503:
                client = f"{request.client_address[0]}:{request.client_address[1]}"
                log.error(f"Sending HTTP/1.1 {problem.code} response to {client}: {problem}")
            raise

    @staticmethod
    def admits(*_):
        """The API itself takes certificates alone."""
        return False

    def _answer(self, request, path, name, groups):
        if path == "/db/info" and self.member:
            _demand(groups, _SERVER, _AGENT)
            try:
                return {"members": [{"name": member, **what} for member, what in self.member.list_members().items()]}
            except Unavailable as problem:
                raise Failure(500, "InternalError", f"failed to get etcd MemberList: {problem}") from problem
        if path == "/v1-k3s/server-bootstrap":
            _demand(groups, _SERVER)
            if self.shared is None:
                client = f"{request.client_address[0]}:{request.client_address[1]}"
                log.warning(f"Received HTTP bootstrap request from {client}, but embedded etcd is not enabled.")
                raise Failure(400, "BadRequest", "etcd disabled")
            return self.shared()
        _demand(groups, _AGENT, _NODES, _BOOTSTRAP)
        if path == "/v1-k3s/config":
            return self.configuration
        if path in ("/v1-k3s/client-ca.crt", "/v1-k3s/server-ca.crt"):
            with open(os.path.join(self.tls, path.rpartition("/")[2]), "rb") as stream:
                return stream.read()
        if path in ("/v1-k3s/serving-kubelet.crt", "/v1-k3s/client-kubelet.crt"):
            return self._certificate(request.headers, path, name)
        if path not in ("/v1-k3s/readyz", "/v1-k3s/apiservers"):
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        if not self.core_ready:
            raise _NOT_READY
        return b"ok" if path == "/v1-k3s/readyz" else self._addresses()

    def _authenticate(self, request):
        """(name, groups): by client certificate, password or bootstrap token."""
        subject = dict(pair[0] for pair in (request.connection.getpeercert() or {}).get("subject", ()))
        if subject.get("organizationName") == _NODES:
            return subject["commonName"].removeprefix("system:node:"), [_NODES]
        kind, _, login = request.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            user, _, password = base64.b64decode(login).decode(errors="replace").partition(":")
            if not hmac.compare_digest(self.passwords.get(user, "").encode(), password.encode()) or not password:
                raise Failure(401, "Unauthorized", "not authorized")
            return user, [_AGENT if user == "node" else _SERVER]
        if kind == "Bearer":
            if not self._knows_bootstrap_token(login):
                raise Failure(401, "Unauthorized", "not authorized")
            return login.partition(".")[0], [_BOOTSTRAP]
        return "", []

    def _knows_bootstrap_token(self, token):
        identity, _, secret = token.partition(".")
        found = self.store.find("secrets", "kube-system", f"bootstrap-token-{identity}")
        if not found:
            return False
        data = {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
        valid = data.get("expiration", "9") > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return valid and hmac.compare_digest(data["token-secret"].encode(), secret.encode())

    def _certificate(self, headers, path, name):
        """A kubelet's certificate, for the node whose password is right: the first that came with a name set it."""
        node, password = headers.get("k3s-Node-Name", "").lower(), headers.get("k3s-Node-Password", "")
        if not node or not password:
            raise Failure(400, "BadRequest", f"node {'name' if not node else 'password'} not set")
        if not self.core_ready:
            raise _NOT_READY
        # A certificate of a node whose Node was deleted is no longer believed.
        if name == node and not self.store.find("nodes", "", node):
            raise Failure(401, "Unauthorized", f'unable to verify node identity: nodes "{node}" not found')
        ensure_node_password(self.store, node, password)
        if path.endswith("/client-kubelet.crt"):
            subject, extensions = f"/O={_NODES}/CN=system:node:{node}", "extendedKeyUsage=clientAuth\n"
            return pki.issue(self.tls, "client-ca", subject, "keyUsage=critical,digitalSignature\n" + extensions)
        addresses = ["127.0.0.1", *filter(None, headers.get("k3s-Node-IP", "").split(","))]
        names = ",".join([f"DNS:{node}", "DNS:localhost", *(f"IP:{address}" for address in addresses)])
        extensions = f"keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName={names}\n"
        return pki.issue(self.tls, "server-ca", f"/CN={node}", extensions)

    def _addresses(self):
        """Where API servers are: all that ever started, without those whose node does not answer."""
        dead = [
            node["metadata"]["name"]
            for node in self.store.list("nodes")
            for condition in node.get("status", {}).get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "Unknown"
        ]
        known = {item["metadata"]["name"]: item["address"] for item in self.store.list("apiservers")}
        return sorted(address for name, address in known.items() if name not in dead) or sorted(known.values())


def _demand(groups, *wanted):
    if not set(groups) & set(wanted):
        raise Failure(403, "Forbidden", "forbidden")


def ensure_node_password(store, node, password):
    """Raises Failure when the name has another password."""
    name = f"{node}.node-password.k3s"
    found = store.find("secrets", "kube-system", name)
    if found is None:
        salt = secrets.token_hex(8)
        value = base64.b64encode(f"$1:{salt}:{_hash(salt, password)}".encode()).decode()
        body = {"apiVersion": "v1", "kind": "Secret", "immutable": True, "type": "Opaque", "data": {"hash": value}}
        store.create("secrets", "kube-system", body | {"metadata": {"name": name}})
        return
    _, salt, digest = base64.b64decode(found["data"]["hash"]).decode().split(":")
    if not hmac.compare_digest(digest, _hash(salt, password)):
        raise Failure(403, "Forbidden", f"unable to verify password for node {node}: hash does not match")


def _hash(salt, password):
    return hashlib.sha256(f"{salt}:{password}".encode()).hexdigest()
