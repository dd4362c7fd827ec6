"""`k3s agent`: it asks the servers until they take it, and then runs the host."""

import json
import os
import random
import signal
import sys
import threading
import time

import bootstrap
import flags
import host
import log
from access import Refused, Server
from balancer import Balancer
from pki import write_private
from product import REVISION, VERSION
from remote_store import RemoteStore

_AUTHORITY_RETRY = 2.0
_BALANCER = "k3s-agent-load-balancer"
_CONFIGURATION_RETRY = 5.0
_SERVERS_RETRY = 2.0


class Agent:
    def __init__(self, settings):
        self.settings, self.problem, self.runs = settings, None, False
        self.folder, self.name = os.path.join(settings["data-dir"], "agent"), host.name_of(settings)
        self.certificate = [os.path.join(self.folder, f"client-kubelet.{kind}") for kind in ("crt", "key")]

    def run(self):
        host.must_be_root("agent must be run as root, or with --rootless")
        token = bootstrap.read_token(self.settings)
        if not token and not os.path.exists(self.certificate[0]):
            log.fatal("--token is required")
        if not self.settings.get("server"):
            log.fatal("--server is required")
        address = host.address_of(self.settings)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        notify_socket = os.environ.pop("NOTIFY_SOCKET", "")
        log.info(f"Starting k3s agent {VERSION} ({REVISION})")
        os.makedirs(self.folder, exist_ok=True)
        if not host.ROOT:
            host.unpack_programs(self.settings["data-dir"])
        balancer = self._balancer()
        server = self._authority(balancer.url, token or "none")
        configuration = self._configuration(server, address)
        self.settings["cluster-cidr"] = configuration["critical"]["cluster-cidr"]
        runtime = host.prepare_runtime(self.settings)
        threading.Thread(target=self._learn, args=(server, balancer), daemon=True).start()
        store = RemoteStore(balancer.url, os.path.join(self.folder, "server-ca.crt"), *self.certificate)

        def registered():
            self.runs = True
            log.info("k3s agent is up and running")
            host.notify_ready(notify_socket)

        host.run(self.settings, runtime, store, address, registered, alone=False)

    def _end(self, *_):
        if self.runs:
            os._exit(0)
        log.write_fatal(f"failed to retrieve agent configuration: {self.problem}")
        os._exit(1)

    def _balancer(self):
        port = self.settings["lb-server-port"]
        try:
            path = os.path.join(self.folder, "etc", f"{_BALANCER}.json")
            return Balancer(_BALANCER, path, self.settings["server"], port)
        except OSError as problem:
            reason = f"listen tcp 127.0.0.1:{port}: bind: {problem.strerror.lower()}"
            log.warning(f"Error starting load balancer: {reason}")
            log.fatal(reason)

    def _authority(self, url, token):
        while True:
            try:
                return Server(url, token, "node", self.certificate)
            except Refused as problem:
                self.problem = problem
                log.error(str(problem))
                time.sleep(_AUTHORITY_RETRY)

    def _configuration(self, server, address):
        while True:
            try:
                return self._retrieve(server, address)
            except Refused as problem:
                self.problem = problem
                log.info(f"Waiting to retrieve agent configuration; server is not ready: {problem}")
                # Only who was refused has to be patient: a server that just starts is soon ready.
                time.sleep(0.5 if problem.code == 503 else _CONFIGURATION_RETRY * random.uniform(1, 2))

    def _retrieve(self, server, address):
        try:
            configuration = json.loads(server.get("/v1-k3s/config"))
        except Refused as problem:
            raise Refused(f"failed to retrieve configuration from server: {problem}", problem.code) from problem
        for name in ("server-ca", "client-ca"):
            write_private(os.path.join(self.folder, f"{name}.crt"), server.get(f"/v1-k3s/{name}.crt"))
        headers = {"k3s-Node-Name": self.name, "k3s-Node-Password": host.password(), "k3s-Node-IP": address}
        for name in ("serving-kubelet", "client-kubelet"):
            file = os.path.join(self.folder, name)
            try:
                pair = self._named(server, f"/v1-k3s/{name}.crt", headers)
            except Refused as problem:
                text = str(problem)
                if problem.code == 403:
                    text = (
                        f"Node password rejected, duplicate hostname or contents of '{host.password_file()}' may not match "
                        "server node-passwd entry, try enabling a unique node name with the --with-node-id flag"
                    )
                elif problem.code:
                    text = f"{server.url}/v1-k3s/{name}.crt: {problem.code} {_PHRASES.get(problem.code, '')}"
                raise Refused(f"{file}.crt: {text}", problem.code) from problem
            certificate, begin, key = pair.partition(b"-----BEGIN EC PRIVATE KEY-----")
            write_private(file + ".crt", certificate)
            write_private(file + ".key", begin + key)
        return configuration

    @staticmethod
    def _named(server, path, headers):
        try:
            return server.get(path, headers)
        except Refused as problem:
            if problem.code != 401 or not os.path.exists(server.certificate[0]):
                raise
            log.info("Node authorization rejected, retrying without client certificate authentication")
            return server.get(path, headers, with_certificate=False)

    @staticmethod
    def _learn(server, balancer):
        """Keeps the list of servers. Never returns."""
        while True:
            try:
                balancer.update(json.loads(server.get("/v1-k3s/apiservers")))
            except Refused:
                pass
            time.sleep(_SERVERS_RETRY)


_PHRASES = {400: "Bad Request", 401: "Unauthorized", 500: "Internal Server Error", 503: "Service Unavailable"}


def run(arguments):
    Agent(flags.agent(arguments)).run()
    sys.exit(0)
