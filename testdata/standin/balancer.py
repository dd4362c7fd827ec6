"""A node's way to the API servers: a port of its own that leads to whichever of them answers."""

import json
import os
import socket
import threading
from urllib.parse import urlsplit

import log

_CONNECT = 10.0


class Balancer:
    def __init__(self, name, path, url, port):
        """`path` is the file in which the servers are remembered. Raises OSError when the port is taken."""
        self.name, self.path, self.given, self.port = name, path, url, port
        parts = urlsplit(url)
        self.default = f"{parts.hostname}:{parts.port or {'http': 80}.get(parts.scheme, 443)}"
        self.url = f"{parts.scheme}://127.0.0.1:{port}"
        self.servers = []
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self._set(self._remembered() or [self.default])
        self.listener = socket.create_server(("127.0.0.1", port))
        log.info(f"Running load balancer {self.name} 127.0.0.1:{port} -> {self._shown()} [default: {self.default}]")
        threading.Thread(target=self._accept, daemon=True).start()

    def update(self, servers):
        if servers and set(servers) != set(self.servers):
            self._set(servers)
            log.info(f"Updated load balancer {self.name} server addresses -> {self._shown()} [default: {self.default}]")

    def _shown(self):
        return "[" + " ".join(self.servers) + "]"

    def _remembered(self):
        if not os.path.exists(self.path):
            return None
        with open(self.path, encoding="utf-8") as stream:
            saved = json.load(stream)
        return saved["ServerAddresses"] if saved["ServerURL"] == self.given else None

    def _set(self, servers):
        for server in sorted(set(servers) - set(self.servers)):
            log.info(f"Adding server to load balancer {self.name}: {server}")
        for server in sorted(set(self.servers) - set(servers)):
            log.info(f"Removing server from load balancer {self.name}: {server}")
        self.servers = sorted(servers)
        with open(self.path + ".new", "w", encoding="utf-8") as stream:
            json.dump({"ServerURL": self.given, "ServerAddresses": self.servers, "Listener": None}, stream, indent=2)
        os.replace(self.path + ".new", self.path)

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        server = self._connect()
        if server is None:
            client.close()
            return
        back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
        back.start()
        _pass_on(client, server)
        back.join()
        client.close()
        server.close()

    def _connect(self):
        """A connection to the first that takes one; one that failed is asked last the next time."""
        servers = self.servers + [server for server in [self.default] if server not in self.servers]
        for server in servers:
            host, _, port = server.rpartition(":")
            try:
                connection = socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT / len(servers))
                connection.settimeout(None)
                return connection
            except OSError:
                if server in self.servers:
                    self.servers = [other for other in self.servers if other != server] + [server]
        return None


def _pass_on(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
