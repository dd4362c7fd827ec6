"""Port 10250 of each node, where the API server gets the logs of containers."""

import http.client
import http.server
import os
import ssl
import threading

import log
from store import Failure

_PORT = 10250


def listen(address, certificate, key, authority, log_of):
    """Serves log_of(path) with the certificate of the node to who has one of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    handler = type("Handler", (_Handler,), {"log_of": staticmethod(log_of)})
    try:
        server = http.server.ThreadingHTTPServer((address, _PORT), handler)
    except OSError as problem:
        log.error(f"kubelet exited: listen tcp {address}:{_PORT}: bind: {problem.strerror.lower()}")
        os._exit(1)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    log_of = None

    def log_message(self, *_):
        """Requests are not logged."""

    def do_GET(self):
        content = self.log_of(self.path)
        self.send_response(200 if content is not None else 404)
        self.end_headers()
        self.wfile.write(content or b"")


def read_log(store, access, pod):
    """What the first container of a pod has printed, from the node that it runs on; `access` are authority, certificate, key."""
    meta, host = pod["metadata"], pod["spec"].get("nodeName")
    node = store.find("nodes", "", host) if host else None
    if node is None:
        return b""
    addresses = [entry["address"] for entry in node["status"]["addresses"] if entry["type"] == "InternalIP"]
    context = ssl.create_default_context(cafile=access[0])
    context.load_cert_chain(*access[1:])
    connection = http.client.HTTPSConnection(addresses[0], _PORT, context=context, timeout=10)
    path = f"/containerLogs/{meta['namespace']}/{meta['name']}/{pod['spec']['containers'][0]['name']}"
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException) as problem:
        raise Failure(
            500, "InternalError", f'Get "https://{addresses[0]}:{_PORT}{path}": dial tcp {addresses[0]}:{_PORT}: {problem}'
        ) from problem
    finally:
        connection.close()
