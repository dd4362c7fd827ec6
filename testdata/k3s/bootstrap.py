"""What a server does before its datastore: which datastore it is to be, and the keys that all servers share."""

import base64
import ipaddress
import json
import os
import secrets
import time

import flags
import keys
import log
import pki
from access import Refused, Server, Token

PREPARING = "starting kubernetes: preparing server: "
_OTHER_TOKEN = "bootstrap data already found and encrypted with different token"
_SHARED = [f"tls/{file}.{kind}" for file in keys.AUTHORITIES for kind in ("crt", "key")] + [
    "tls/service.key",
    "cred/passwd",
]
# Flags that must be the same on all servers, with what they are when they are not given.
_CRITICAL = {
    "cluster-cidr": ["10.42.0.0/16"],
    "service-cidr": ["10.43.0.0/16"],
    "cluster-dns": ["10.43.0.10"],
    "cluster-domain": "cluster.local",
    "disable-cloud-controller": False,
    "disable-helm-controller": False,
    "disable-network-policy": False,
    "egress-selector-mode": "agent",
    "embedded-registry": False,
    "flannel-backend": "vxlan",
    "flannel-external-ip": False,
    "flannel-ipv6-masq": False,
    "secrets-encryption": False,
    "supervisor-metrics": False,
}
_NETWORKS = {"cluster-cidr": "ClusterIPRanges", "service-cidr": "ServiceIPRanges"}


def read_token(settings, key="token"):
    """The token from the flag or the file of `key`; waits for the file."""
    file = settings.get(key + "-file")
    if file:
        while not os.path.exists(file):
            log.info(f"Waiting for {file} to be available\n")
            time.sleep(2)
        with open(file, encoding="utf-8") as stream:
            return stream.read().strip()
    return settings.get(key)


def critical(settings):
    values = {}
    for name, default in _CRITICAL.items():
        value = settings.get(name, default)
        values[name] = flags.split(value) if isinstance(value, list) else value
    servicelb = "servicelb" in flags.split(settings.get("disable", []))
    return values | {"disable-servicelb": servicelb}


class Bootstrap:
    """The folder <data>/server, the tokens and, for a server that joins, the way to the server that it joins."""

    def __init__(self, settings, server, node_name):
        self.settings, self.server, self.node_name = settings, server, node_name
        self.etcd = os.path.join(server, "db", "etcd")
        for folder in ("cred", "etc", "tls/etcd", "db/etcd", "manifests"):
            os.makedirs(os.path.join(server, folder), exist_ok=True)
        os.chmod(server, 0o700)
        os.chmod(self.etcd, 0o700)
        self.token = read_token(settings)
        self.agent_token = read_token(settings, "agent-token")
        self.url = settings.get("server")
        self.joins = bool(self.url and self.token)
        self.access, self.initialised = None, os.path.isdir(os.path.join(self.etcd, "member", "wal"))
        self.managed = self.initialised or (
            not settings.get("datastore-endpoint") and bool(settings.get("cluster-init") or self.joins)
        )
        self.member_name()

    def member_name(self):
        """The name in etcd, which is kept until the folder goes."""
        path = os.path.join(self.etcd, "name")
        if not os.path.exists(path):
            pki.write_private(path, f"{self.node_name}-{secrets.token_hex(4)}".encode())
        with open(path, encoding="utf-8") as stream:
            return stream.read()

    def prepare(self, digest_on_disk):
        """Loads what other servers have. `digest_on_disk` tells the token of a database that is here already, or None."""
        try:
            if self.managed:
                self._prepare_managed(digest_on_disk)
            elif digest_on_disk not in (None, self.digest()):
                raise Refused(_OTHER_TOKEN)
            self._check_own_token()
        except Refused as problem:
            log.fatal(f"{PREPARING}{problem}")

    def _prepare_managed(self, digest_on_disk):
        if self.initialised:
            log.info("Managed etcd cluster bootstrap already complete and initialized")
            if self.joins and self._reconciles_with_other():
                log.info("Successfully reconciled with datastore")
                return
            log.info("Starting temporary etcd to reconcile with datastore")
            if digest_on_disk not in (None, self.digest()):
                log.fatal(f"Failed to reconcile with temporary etcd: {_OTHER_TOKEN}")
        elif not self.url:
            log.info("Managed etcd cluster initializing")
        else:
            self.access = Server(self.url, self.token, "server")
            log.info("Managed etcd cluster not yet initialized")
            try:
                self._compare()
            except Refused as problem:
                raise Refused(f"failed to validate server configuration: {problem}") from problem
            self._load()

    def _reconciles_with_other(self):
        try:
            self.access = Server(self.url, self.token, "server")
            self._load()
            return True
        except Refused as problem:
            log.warning(f"Unable to reconcile with datastore: {problem}")
            return False

    def _compare(self):
        other = json.loads(Server(self.url, self.agent_token or self.token, "node").get("/v1-k3s/config"))["critical"]
        fields = []
        for name, own in critical(self.settings).items():
            theirs = other.get(name)
            if own == theirs:
                continue
            if name in _NETWORKS:
                fields += [f"{_NETWORKS[name]}.slice[0].IP.slice[{at}]" for at in _differences(own[0], theirs[0])]
            elif name == "cluster-dns":
                fields += [f"ClusterDNS.slice[{at}]" for at in _differences(own[0], theirs[0])]
            else:
                fields.append(name)
        for field in fields:
            log.warning(f"critical configuration mismatched: {field}")
        if fields:
            raise Refused("critical configuration value mismatch between servers")

    def _load(self):
        for name, content in json.loads(self.access.get("/v1-k3s/server-bootstrap")).items():
            if name not in _SHARED:
                continue
            path, content = os.path.join(self.server, name), base64.b64decode(content)
            if not os.path.exists(path):
                pki.write_private(path, content)
                continue
            with open(path, "rb") as stream:
                same = stream.read() == content
            if not same:
                log.warning(f"{path} will be updated from the datastore.")
                pki.write_private(path, content)

    def _check_own_token(self):
        """A token with a hash is right on the first server only beside the authority that it speaks of."""
        if not self.token or self.access:
            return
        if Token(self.token).bootstrap:
            raise Refused(
                "failed to normalize server token; must be in format K10<CA-HASH>::<USERNAME>:<PASSWORD> or <PASSWORD>"
            )
        given, path = Token(self.token).hash, os.path.join(self.server, "tls", "server-ca.crt")
        if not given:
            return
        if not os.path.exists(path):
            raise Refused(f"token has a CA hash, but there is no Cluster CA certificate yet: {path}")
        if given != keys.authority_hash(self.server):
            raise Refused(
                f"token CA hash does not match the Cluster CA certificate hash: {given} != {keys.authority_hash(self.server)}"
            )

    def shared(self):
        """What another server gets that joins, by its path below <data>/server."""
        found = {}
        for name in _SHARED:
            with open(os.path.join(self.server, name), "rb") as stream:
                found[name] = base64.b64encode(stream.read()).decode()
        return found

    def password(self):
        """The servers' password; made up once when none was given."""
        if self.token:
            return Token(self.token).password
        path = os.path.join(self.server, "token")
        if not os.path.exists(path):
            self.token = secrets.token_hex(16)
            return self.token
        with open(path, encoding="utf-8") as stream:
            return Token(stream.read().strip()).password

    def digest(self):
        return pki.short_hash(self.password())

    def write_tokens(self):
        """cred/passwd and the files with tokens; returns the passwords by user."""
        passwords = {"node": self.agent_token or self.password(), "server": self.password()}
        groups = {"node": "k3s:agent", "server": "k3s:server"}
        lines = [f"{password},{user},{user},{groups[user]}\n" for user, password in passwords.items()]
        pki.write_private(os.path.join(self.server, "cred", "passwd"), "".join(lines).encode())
        keys.write_tokens(self.server, self.password(), self.agent_token)
        return passwords

    def clear_tombstone(self):
        """A member that was removed begins anew, as another member."""
        if not os.path.exists(os.path.join(self.etcd, "tombstone")):
            return
        log.info("tombstone file has been detected, removing data dir to rejoin the cluster")
        os.rename(self.etcd, f"{self.etcd}-old-{int(time.time())}")
        os.makedirs(self.etcd, mode=0o700)
        self.initialised = False


def _differences(own, theirs):
    """At which of the sixteen bytes two addresses differ."""
    own, theirs = (ipaddress.ip_network(text, strict=False).network_address.packed for text in (own, theirs))
    own, theirs = own.rjust(16, b"\0"), theirs.rjust(16, b"\0")
    return [at for at in range(16) if own[at] != theirs[at]]
