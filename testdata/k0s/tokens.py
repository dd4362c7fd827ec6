"""Join tokens: a kubeconfig, packed by gzip and base64, whose user says what it is good for."""

import base64
import binascii
import gzip
import hmac
import ssl
import time

import pki
import yaml_subset
from host import Stop

CONTROLLER, WORKER = "controller-bootstrap", "kubelet-bootstrap"


class Access:
    """Where a kubeconfig leads to, and with which proof of who one is."""

    def __init__(self, content):
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]
        self.server, self.kind = cluster["server"].rstrip("/"), user["name"]
        self.authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.token = user["user"].get("token")
        self.headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self.context = ssl.create_default_context(cadata=self.authority)
        if not self.token:
            keys = ("client-certificate-data", "client-key-data")
            with pki.in_memory(b"".join(base64.b64decode(user["user"][key]) for key in keys)) as file:
                self.context.load_cert_chain(file)


def access(file):
    with open(file, encoding="utf-8") as stream:
        return Access(yaml_subset.load(stream.read()))


def decode(text, wanted, failed):
    """The access that a token gives. Raises Stop, in whose words `failed` comes before what could not be decoded."""
    text = text.replace("\n", "").replace("\r", "")
    good = len(text)
    for at, letter in enumerate(text):
        if not (letter.isascii() and (letter.isalnum() or letter in "+/=")):
            good = at
            break
    try:
        if good < len(text) or len(text) % 4:
            raise Stop(f"{failed}: illegal base64 data at input byte {good}")
        content = gzip.decompress(base64.b64decode(text))
    except (binascii.Error, OSError, EOFError) as problem:
        raise Stop(f"{failed}: gzip: invalid header") from problem
    found = Access(yaml_subset.load(content.decode()))
    if found.kind != wanted:
        raise Stop(f"wrong token type {found.kind}, expected type: {wanted}")
    return found


def is_valid(store, token, *usages):
    """Whether a secret of a bootstrap token has this token, for one of these uses, and not too long ago."""
    identity, _, secret = token.partition(".")
    found = store.find("secrets", "kube-system", f"bootstrap-token-{identity}")
    if not found or found.get("type") != "bootstrap.kubernetes.io/token":
        return False
    content = {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}
    if content.get("expiration", "9") <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()):
        return False
    right = hmac.compare_digest(content.get("token-secret", "").encode(), secret.encode()) and secret
    return bool(right) and any(content.get(usage) == "true" for usage in usages)
