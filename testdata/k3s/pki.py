"""Certificates, the token and the kubeconfig of a server, where k3s keeps them. By openssl."""

import base64
import hashlib
import os
import subprocess
import tempfile
import time

import log
from access import hash_of

AUTHORITIES = {
    "client-ca": "k3s-client-ca",
    "server-ca": "k3s-server-ca",
    "request-header-ca": "k3s-request-header-ca",
    "etcd/server-ca": "etcd-server-ca",
    "etcd/peer-ca": "etcd-peer-ca",
}


def _openssl(*arguments, stdin=None):
    return subprocess.run(["openssl", *arguments], input=stdin, check=True, capture_output=True, text=True).stdout


def _new_key(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(_openssl("ecparam", "-genkey", "-noout", "-name", "prime256v1"))


def make_authorities(tls):
    """Makes the authorities that are not there yet: those placed before the first start are used."""
    os.makedirs(os.path.join(tls, "etcd"), exist_ok=True)
    for file, name in AUTHORITIES.items():
        path = os.path.join(tls, file)
        if os.path.exists(path + ".crt"):
            continue
        name = f"{name}@{int(time.time())}"
        _new_key(path + ".key")
        _openssl(
            "req",
            "-x509",
            "-new",
            "-key",
            path + ".key",
            "-out",
            path + ".crt",
            "-days",
            "3650",
            "-subj",
            f"/CN={name}",
            "-addext",
            "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign",
        )
        log.info(f"generated self-signed CA certificate CN={name}")


def sign(tls, file, authority, subject, extensions):
    """A new certificate and key tls/file, good for a year, as at every start."""
    path, authority = os.path.join(tls, file), os.path.join(tls, authority)
    if not os.path.exists(path + ".key"):
        _new_key(path + ".key")
    request = _openssl("req", "-new", "-key", path + ".key", "-subj", subject)
    with open(authority + ".crt", encoding="ascii") as stream:
        chain = stream.read()
    extensions_file = path + ".ext"
    with open(extensions_file, "w", encoding="ascii") as stream:
        stream.write(extensions)
    try:
        certificate = _openssl(
            "x509",
            "-req",
            "-CA",
            authority + ".crt",
            "-CAkey",
            authority + ".key",
            "-days",
            "365",
            "-set_serial",
            str(time.time_ns()),
            "-extfile",
            extensions_file,
            stdin=request,
        )
    finally:
        os.remove(extensions_file)
    with open(path + ".crt", "w", encoding="ascii") as stream:
        stream.write(certificate + chain)
    log.info(f"certificate {subject[1:].replace('/', ',')} signed by {authority.rpartition('/')[2]}")


def issue(tls, authority, subject, extensions):
    """A certificate with its authority and its key, for another host. Nothing of it stays here."""
    with tempfile.TemporaryDirectory() as folder:
        sign(folder, "new", os.path.join(tls, authority), subject, extensions)
        return _read(os.path.join(folder, "new.crt")) + _read(os.path.join(folder, "new.key"))


def make_service_key(tls):
    """The key of service account tokens: RSA, as the API server wants it."""
    path = os.path.join(tls, "service.key")
    if not os.path.exists(path):
        key = _openssl("genrsa", "2048")
        write_private(path, key.encode())


def _read(path):
    with open(path, "rb") as stream:
        return stream.read()


def write_private(path, content):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def authority_hash(server):
    return hash_of(_read(os.path.join(server, "tls", "server-ca.crt")))


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
    def data(file):
        with open(os.path.join(tls, file), "rb") as stream:
            return base64.b64encode(stream.read()).decode()

    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(descriptor, mode)
        stream.write(f"""apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {data("server-ca.crt")}
    server: {address}
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {{}}
users:
- name: default
  user:
    client-certificate-data: {data("client-admin.crt")}
    client-key-data: {data("client-admin.key")}
""")
    log.info(f"Wrote kubeconfig {path}")


def short_hash(text):
    """What is kept of a password beside the data that it locks."""
    return hashlib.sha256(text.encode()).hexdigest()
