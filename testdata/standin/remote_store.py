"""The cluster's objects as an agent sees them: through the API of whichever server answers."""

import http.client
import json
import ssl
import threading
from urllib.parse import urlsplit

import resources
from store import Failure

_TIMEOUT = 10


class RemoteStore:
    def __init__(self, url, authority, certificate, key):
        self.parts, self.connections = urlsplit(url), threading.local()
        self.context = ssl.create_default_context(cafile=authority)
        self.context.load_cert_chain(certificate, key)

    def list(self, plural, namespace=""):
        return self._ask("GET", resources.path_of(plural, namespace))["items"]

    def find(self, plural, namespace, name):
        try:
            return self._ask("GET", resources.path_of(plural, namespace, name))
        except Failure as failure:
            if failure.code == 404:
                return None
            raise

    def create(self, plural, namespace, body):
        return self._ask("POST", resources.path_of(plural, namespace), body)

    def update(self, plural, namespace, name, change):
        while True:
            found = self.find(plural, namespace, name)
            if found is None:
                return
            change(found)
            try:
                self._ask("PUT", resources.path_of(plural, namespace, name), found)
                return
            except Failure as failure:
                if failure.code not in (404, 409):
                    raise

    def delete(self, plural, namespace, name):
        try:
            self._ask("DELETE", resources.path_of(plural, namespace, name) + "?gracePeriodSeconds=0")
        except Failure as failure:
            if failure.code != 404:
                raise

    def _ask(self, method, path, body=None):
        kept = getattr(self.connections, "connection", None)
        connection = kept or http.client.HTTPSConnection(
            self.parts.hostname, self.parts.port, context=self.context, timeout=_TIMEOUT
        )
        self.connections.connection = connection
        try:
            connection.request(method, path, body=json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            self.connections.connection = None
            if kept:
                return self._ask(method, path, body)  # the server went that the connection led to
            raise Failure(503, "ServiceUnavailable", str(problem)) from problem
        if answer.status >= 400:
            status = json.loads(content)
            raise Failure(answer.status, status["reason"], status["message"])
        return json.loads(content)
