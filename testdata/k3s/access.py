"""How one host asks another's port 6443: the token, the authority it vouches for, and what went wrong."""

import base64
import hashlib
import re
import ssl
from urllib.parse import urlsplit

import log
import web
from web import Refused

_HASH_LENGTH = 64
_BOOTSTRAP_TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")


class Token:
    """K10<hash>::<user>:<password>, K10<hash>::<id>.<secret> or a bare password."""

    def __init__(self, text):
        if not text.startswith("K10"):
            text = f"K10::{text}" if _BOOTSTRAP_TOKEN.fullmatch(text) else f"K10:::{text}"
        self.hash, separator, login = text[3:].partition("::")
        if not separator:
            self.hash, login = "", text[3:]
        elif self.hash and len(self.hash) != _HASH_LENGTH:
            raise Refused("invalid token CA hash length")
        self.bootstrap = login if _BOOTSTRAP_TOKEN.fullmatch(login) else ""
        self.user, colon, self.password = login.partition(":")
        if not self.bootstrap and not (colon and self.password):
            raise Refused("invalid token format")

    def login(self, user):
        if self.bootstrap:
            return f"Bearer {self.bootstrap}"
        return "Basic " + base64.b64encode(f"{user}:{self.password}".encode()).decode()


def hash_of(authority):
    """The hash of a file with an authority, as it stands in tokens."""
    certificates = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", authority, re.DOTALL)
    if len(certificates) > 1:
        # The root is taken to be the last one, as it is in the bundles that are made for k3s.
        authority = ssl.PEM_cert_to_DER_cert(certificates[-1].decode())
    return hashlib.sha256(authority).hexdigest()


class Server:
    """A server whose authority was fetched and compared with the token's hash."""

    def __init__(self, url, token, user, certificate=None):
        """Raises Refused. `certificate` are the files of a certificate and its key, used if they are there."""
        self.token, self.user, self.certificate = Token(token), user, certificate
        parts = urlsplit(url)
        if parts.scheme != "https":
            raise Refused(f"only https:// URLs are supported, invalid scheme: {url}")
        self.url = url.rstrip("/")
        self.authority = self._cacerts()
        if not self.token.hash:
            log.warning(
                "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. "
                "Use the full token from the server's node-token file to enable Cluster CA validation."
            )
        elif self.token.hash != hash_of(self.authority):
            raise Refused(
                f"token CA hash does not match the Cluster CA certificate hash: {self.token.hash} != {hash_of(self.authority)}"
            )

    def _cacerts(self):
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        try:
            authority = web.get(self.url + "/cacerts", trusting)
        except Refused as problem:
            raise Refused(f"failed to get CA certs: {problem}") from problem
        try:
            web.get(self.url + "/cacerts", ssl.create_default_context(cadata=authority.decode()))
        except (Refused, ssl.SSLError, ValueError) as problem:
            raise Refused(f"CA cert validation failed: {problem}") from problem
        return authority

    def get(self, path, headers=None, with_certificate=True):
        """The answer's bytes, or Refused with the reason that the server gave."""
        context = ssl.create_default_context(cadata=self.authority.decode())
        if self.certificate and with_certificate:
            try:
                context.load_cert_chain(*self.certificate)
            except OSError:
                pass  # not there yet
        return web.get(self.url + path, context, {"Authorization": self.token.login(self.user), **(headers or {})})
