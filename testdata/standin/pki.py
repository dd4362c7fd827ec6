"""Certificates and kubeconfigs, by openssl."""

import base64
import contextlib
import hashlib
import os
import socket
import subprocess
import tempfile
import time

import log

def openssl(*arguments, stdin=None):
    return subprocess.run(["openssl", *arguments], input=stdin, check=True, capture_output=True, text=True).stdout


def new_key(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(openssl("ecparam", "-genkey", "-noout", "-name", "prime256v1"))


def make_authority(path, name):
    """Makes an authority unless it is there: one placed before the first start is used. Tells whether it was made."""
    if os.path.exists(path + ".crt"):
        return False
    new_key(path + ".key")
    openssl(
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
    return True


def sign(tls, file, authority, subject, extensions):
    """A new certificate and key tls/file, good for a year, as at every start."""
    path, authority = os.path.join(tls, file), os.path.join(tls, authority)
    if not os.path.exists(path + ".key"):
        new_key(path + ".key")
    certificate = sign_request(authority, request(path + ".key", subject), extensions)
    with open(path + ".crt", "w", encoding="ascii") as stream:
        stream.write(certificate + read(authority + ".crt").decode())
    log.info(f"certificate {subject[1:].replace('/', ',')} signed by {authority.rpartition('/')[2]}")


@contextlib.contextmanager
def in_memory(content):
    """A file that goes even if the process is killed."""
    descriptor = os.memfd_create("stand-in")
    try:
        os.write(descriptor, content)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def request(key, subject):
    return openssl("req", "-new", "-key", key, "-subj", subject)


def sign_request(authority, text, extensions):
    with in_memory(extensions.encode()) as file:
        files = ["-CA", authority + ".crt", "-CAkey", authority + ".key", "-extfile", file]
        serial = ["-set_serial", str(time.time_ns())]
        return openssl("x509", "-req", "-days", "365", *files, *serial, stdin=text)


def issue(tls, authority, subject, extensions):
    """A certificate with its authority and its key, for another host. Nothing of it stays here."""
    with tempfile.TemporaryDirectory() as folder:
        sign(folder, "new", os.path.join(tls, authority), subject, extensions)
        return read(os.path.join(folder, "new.crt")) + read(os.path.join(folder, "new.key"))


def make_service_key(path):
    """The key of service account tokens: RSA, as the API server wants it."""
    if not os.path.exists(path):
        write_private(path, openssl("genrsa", "2048").encode())


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def write_private(path, content):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def kubeconfig(name, user, server, authority, certificate, key):
    """The text of a kubeconfig, from files."""

    def data(file):
        return base64.b64encode(read(file)).decode()

    return f"""apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {data(authority)}
    server: {server}
  name: {name}
contexts:
- context:
    cluster: {name}
    user: {user}
  name: {name}
current-context: {name}
kind: Config
preferences: {{}}
users:
- name: {user}
  user:
    client-certificate-data: {data(certificate)}
    client-key-data: {data(key)}
"""


def alternatives(names):
    """subjectAltName of names and addresses."""
    return ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in dict.fromkeys(names))


def _is_address(name):
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
            return True
        except OSError:
            pass
    return False


def short_hash(text):
    """What is kept of a password beside the data that it locks."""
    return hashlib.sha256(text.encode()).hexdigest()
