"""Port 9443 of a controller, where others join."""

import base64
import http.server
import json
import os
import ssl
import threading

import log
import product
import tokens
from database import Unavailable
from peers import Refusal
from store import Failure

_CONTROLLER = ("usage-bootstrap-controller-join", "usage-controller-join")


def listen(address, port, store, member):
    """Serves for as long as the answer is not closed. Raises OSError when the port is taken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(product.PKI, "k0s-api.crt"), os.path.join(product.PKI, "k0s-api.key"))
    handler = type("Handler", (_Handler,), {"store": store, "member": member})
    server = http.server.ThreadingHTTPServer((address, port), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = member = None

    def log_message(self, *_):
        """Requests are not logged."""

    def do_GET(self):
        self.answer({"/v1beta1/ca": self.authority})

    def do_POST(self):
        self.answer({"/v1beta1/etcd/members": self.join})

    def answer(self, known):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            if self.path not in known:
                code, content = 404, {"message": "404 page not found"}
            elif not tokens.is_valid(self.store, token, *_CONTROLLER):
                log.error("go away", component="k0s-control-api")
                code, content = 401, {"message": "the server has asked for the client to provide credentials"}
            else:
                code, content = 200, known[self.path](body)
        except (Failure, Refusal, Unavailable) as problem:
            message = f'an error on the server ("etcd member add as learner failed: {problem}") has prevented the request from succeeding'
            code, content = 500, {"message": message}
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    @staticmethod
    def authority(_):
        files = {"key": "ca.key", "cert": "ca.crt", "saKey": "sa.key", "saPub": "sa.pub"}
        return {name: _file(file) for name, file in files.items()}

    def join(self, body):
        wanted = json.loads(body)
        log.info(f"etcd API, adding new learner member: {wanted['peerAddress']}", component="k0s-control-api")
        message = {"do": "add", "name": wanted["node"], "url": wanted["peerAddress"]}
        members = self.member.operation(message)
        cluster = [f"{name}={what['url']}" for name, what in members.items()]
        return {"ca": {"key": _file("etcd/ca.key"), "cert": _file("etcd/ca.crt")}, "initialCluster": cluster}


def _file(name):
    with open(os.path.join(product.PKI, name), "rb") as stream:
        return base64.b64encode(stream.read()).decode()
