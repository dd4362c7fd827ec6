"""The ports 2379 and 2380 of an etcd member: JSON over TLS, with certificates on both sides."""

import http.client
import http.server
import json
import ssl
import threading
from urllib.parse import urlsplit

from database import Unavailable


class Refusal(Exception):
    """A member's answer that something cannot be done, in etcd's words."""


class Tls:
    """The certificate that a member shows and the authority that it trusts."""

    def __init__(self, certificate, key, authority):
        self.certificate, self.key, self.authority = certificate, key, authority

    def server(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(self.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self):
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Link:
    """A connection to a member that is kept; one thread at a time."""

    def __init__(self, url, context, timeout):
        self.parts, self.context, self.timeout, self.connection = urlsplit(url), context, timeout, None

    def post(self, path, message):
        """Raises Unavailable when no answer came, Refusal when it was a refusal."""
        try:
            if self.connection is None:
                self.connection = http.client.HTTPSConnection(
                    self.parts.hostname, self.parts.port, context=self.context, timeout=self.timeout
                )
            self.connection.request("POST", path, body=json.dumps(message))
            answer = self.connection.getresponse()
            content = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as problem:
            self.close()
            raise Unavailable(f"dial {self.parts.netloc}: {problem}") from problem
        if answer.status == 200:
            return content
        raise (Refusal if answer.status == 400 else Unavailable)(content["message"])

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


class Listener:
    """Answers with handlers[path](message)."""

    def __init__(self, addresses, port, tls, handlers):
        """Raises OSError when the port is taken."""
        handler = type("Handler", (_Handler,), {"handlers": handlers, "open": True})
        self.handler, self.servers = handler, []
        for address in addresses:
            server = _HttpServer((address, port), handler)
            server.socket = tls.server().wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            server.handle_error = lambda *_: None  # a peer that went away in the middle of a handshake
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
            self.servers.append(server)

    def close(self):
        self.handler.open = False
        for server in self.servers:
            server.shutdown()
            server.server_close()


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # all hosts of a cluster may come at once


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    handlers, open = {}, True

    def log_message(self, *_):
        """Requests are not logged."""

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if not self.open:
                raise Unavailable("etcdserver: server stopped")
            if self.path not in self.handlers:
                raise Refusal("404 page not found")
            code, content = 200, self.handlers[self.path](json.loads(body or b"{}"))
        except Refusal as problem:
            code, content = 400, {"message": str(problem)}
        except Unavailable as problem:
            code, content = 503, {"message": str(problem)}
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
