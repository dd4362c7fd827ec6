"""Asking another host by HTTPS, with errors in the words of Go."""

import http.client
import json
import socket
import ssl
from urllib.parse import urlsplit

_TIMEOUT = 10.0


class Refused(Exception):
    """What is said of a request that failed; `code` is the HTTP status if there was an answer."""

    def __init__(self, message, code=0):
        super().__init__(message)
        self.code = code


def get(url, context, headers=None):
    return ask("GET", url, context, headers)


def ask(method, url, context, headers=None, body=None):
    """The answer's bytes, or Refused with the reason that the server gave."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or 443
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=_TIMEOUT)
    try:
        connection.request(method, parts.path, body=body, headers=headers or {})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as problem:
        raise Refused(f'{method.title()} "{url}": {_words(problem, host, port)}') from problem
    finally:
        connection.close()
    if answer.status not in (200, 201):
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
        return f"tls: failed to verify certificate: x509: {_WORDS.get(problem.verify_code, problem.verify_message)}"
    if isinstance(problem, (ssl.SSLEOFError, http.client.RemoteDisconnected, http.client.BadStatusLine)):
        return "EOF"
    if isinstance(problem, ConnectionResetError):
        return f"read tcp {host}:{port}: read: connection reset by peer"
    if isinstance(problem, TimeoutError):
        return f"dial tcp {host}:{port}: i/o timeout"
    if isinstance(problem, OSError) and problem.strerror and not isinstance(problem, ssl.SSLError):
        return f"dial tcp {host}:{port}: connect: {problem.strerror.lower()}"
    return str(problem)


_UNKNOWN = "certificate signed by unknown authority"
# OpenSSL's numbers: no issuer, self-signed leaf, self-signed in the chain, bad signature, not yet valid, expired.
_WORDS = {7: _UNKNOWN, 18: _UNKNOWN, 19: _UNKNOWN, 20: _UNKNOWN, 9: "certificate has expired or is not yet valid"}
_WORDS[10] = _WORDS[9]
