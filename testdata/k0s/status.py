"""/run/k0s/status.sock: HTTP on a unix socket, on which k0s says what it is."""

import http.server
import json
import os
import socket
import socketserver
import sys
import threading

import product
from host import Stop


class Status:
    def __init__(self, role, workloads, single, config=None):
        self.content = {
            "Version": product.VERSION,
            "Pid": os.getpid(),
            "PPid": os.getppid(),
            "Role": role,
            "SysInit": "",
            "StubFile": "",
            "Output": "",
            "Workloads": workloads,
            "SingleNode": single,
            "Args": sys.argv,
            "WorkerToAPIConnectionStatus": {"Message": "", "Success": workloads},
            "ClusterConfig": config,
            "K0sVars": {"DataDir": product.DATA, "RunDir": product.RUN, "CertRootDir": product.PKI},
        }
        if os.path.lexists(product.STATUS):
            os.remove(product.STATUS)
        text = json.dumps(self.content).encode()
        handler = type("Handler", (_Handler,), {"text": text})
        self.server = socketserver.ThreadingUnixStreamServer(product.STATUS, handler)
        self.server.daemon_threads = True
        os.chmod(product.STATUS, 0o755)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        if os.path.lexists(product.STATUS):
            os.remove(product.STATUS)


class _Handler(http.server.BaseHTTPRequestHandler):
    text = b""

    def log_message(self, *_):
        """Requests are not logged."""

    def address_string(self):
        return "unix"

    def do_GET(self):
        found = self.path == "/status"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(self.text if found else b"")


def ask():
    """What the k0s that runs says. Raises Stop."""
    where = f'status: can\'t get "status" via "{product.STATUS}": Get "http://localhost/status": dial unix {product.STATUS}: '
    with socket.socket(socket.AF_UNIX) as stream:
        try:
            stream.settimeout(5)
            stream.connect(product.STATUS)
            stream.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
        except OSError as problem:
            raise Stop(f"{where}connect: {(problem.strerror or str(problem)).lower()}") from problem
    return json.loads(answer.partition(b"\r\n\r\n")[2])
