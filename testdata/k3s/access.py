"""How one host asks another's port 6443: the token, the authority it vouches for, and what went wrong."""

import base64
import hashlib
import http.client
import json
import re
import socket
import ssl
from urllib.parse import urlsplit

import log

_HASH_LENGTH = 64
_TIMEOUT = 10.0
_BOOTSTRAP_TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")


class Refused(Exception):
    """What k3s says of a request that failed; `code` is the HTTP status if there was an answer."""

    def __init__(self, message, code=0):
        super().__init__(message)
        self.code = code


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
            authority = _get(self.url + "/cacerts", trusting)
        except Refused as problem:
            raise Refused(f"failed to get CA certs: {problem}") from problem
        try:
            _get(self.url + "/cacerts", ssl.create_default_context(cadata=authority.decode()))
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
        return _get(self.url + path, context, {"Authorization": self.token.login(self.user), **(headers or {})})


def _get(url, context, headers=None):
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or 443
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=_TIMEOUT)
    try:
        connection.request("GET", parts.path, headers=headers or {})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as problem:
        raise Refused(f'Get "{url}": {_words(problem, host, port)}') from problem
    finally:
        connection.close()
    if answer.status != 200:
        try:
            message = json.loads(content)["message"]
        except (ValueError, KeyError, TypeError):
            message = f"{url}: {answer.status} {answer.reason}"
        raise Refused(message, answer.status)
    return content


def _words(problem, host, port):
    """An error of a connection as Go puts it."""
    if isinstance(problem, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {problem.verify_message}"
    if isinstance(problem, (ssl.SSLEOFError, http.client.RemoteDisconnected, http.client.BadStatusLine)):
        return "EOF"
    if isinstance(problem, ConnectionResetError):
        return f"read tcp {host}:{port}: read: connection reset by peer"
    if isinstance(problem, TimeoutError):
        return f"dial tcp {host}:{port}: i/o timeout"
    if isinstance(problem, OSError) and problem.strerror and not isinstance(problem, ssl.SSLError):
        return f"dial tcp {host}:{port}: connect: {problem.strerror.lower()}"
    return str(problem)
