"""Certificates, the token and the kubeconfig of a server, where k3s keeps them. By openssl."""

import base64
import hashlib
import os
import subprocess
import time

import log

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


def token_password(token):
    """The password in a token, short or full."""
    return token.rpartition("::")[2].partition(":")[2] if token.startswith("K10") else token


def write_token(server, password):
    with open(os.path.join(server, "tls", "server-ca.crt"), "rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    path = os.path.join(server, "token")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"K10{digest}::server:{password}\n")
    for name in ("node-token", "agent-token"):
        link = os.path.join(server, name)
        if not os.path.lexists(link):
            os.symlink(path, link)


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
