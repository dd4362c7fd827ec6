"""The authorities, the tokens and the kubeconfig of a server, where k3s keeps them."""

import os
import time

import log
import pki
from access import hash_of
from pki import write_private

AUTHORITIES = {
    "client-ca": "k3s-client-ca",
    "server-ca": "k3s-server-ca",
    "request-header-ca": "k3s-request-header-ca",
    "etcd/server-ca": "etcd-server-ca",
    "etcd/peer-ca": "etcd-peer-ca",
}



def make_authorities(tls):
    """Makes the authorities that are not there yet: those placed before the first start are used."""
    os.makedirs(os.path.join(tls, "etcd"), exist_ok=True)
    for file, name in AUTHORITIES.items():
        name = f"{name}@{int(time.time())}"
        if pki.make_authority(os.path.join(tls, file), name):
            log.info(f"generated self-signed CA certificate CN={name}")


def authority_hash(server):
    return hash_of(pki.read(os.path.join(server, "tls", "server-ca.crt")))


def write_tokens(server, password, agent_password):
    """token, node-token and agent-token: the last is a file of its own only if the agents have a token of their own."""
    prefix = f"K10{authority_hash(server)}::"
    path = os.path.join(server, "token")
    write_private(path, f"{prefix}server:{password}\n".encode())
    for name, own in (("node-token", None), ("agent-token", agent_password)):
        link = os.path.join(server, name)
        if os.path.lexists(link):
            os.remove(link)
        if own is None:
            os.symlink(path, link)
        else:
            write_private(link, f"{prefix}node:{own}\n".encode())


def write_kubeconfig(tls, path, mode, address):
    files = (os.path.join(tls, file) for file in ("server-ca.crt", "client-admin.crt", "client-admin.key"))
    text = pki.kubeconfig("default", "default", address, *files)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(descriptor, mode)
        stream.write(text)
    log.info(f"Wrote kubeconfig {path}")
