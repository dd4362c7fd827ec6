"""The cluster's objects, kept in memory and in one file below <data>/server/db."""

import copy
import json
import os
import threading
import time
import uuid


class Failure(Exception):
    """An answer of the API server other than success."""

    def __init__(self, code, reason, message):
        super().__init__(message)
        self.code, self.reason = code, reason


class Store:
    def __init__(self, path):
        self.path, self.lock, self.version = path, threading.RLock(), 1
        self.token_digest, self.objects = None, {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                saved = json.load(stream)
            self.token_digest, self.version = saved["tokenDigest"], saved["version"]
            self.objects = {tuple(key.split("/")): value for key, value in saved["objects"].items()}

    def save(self):
        with self.lock:
            content = {
                "tokenDigest": self.token_digest,
                "version": self.version,
                "objects": {"/".join(key): value for key, value in self.objects.items()},
            }
            with open(self.path + ".new", "w", encoding="utf-8") as stream:
                json.dump(content, stream)
            os.replace(self.path + ".new", self.path)

    def list(self, plural, namespace=""):
        with self.lock:
            return [
                copy.deepcopy(self.objects[key])
                for key in sorted(self.objects)
                if key[0] == plural and (not namespace or key[1] == namespace)
            ]

    def find(self, plural, namespace, name):
        with self.lock:
            return copy.deepcopy(self.objects.get((plural, namespace, name)))

    def get(self, plural, namespace, name):
        found = self.find(plural, namespace, name)
        if found is None:
            raise Failure(404, "NotFound", f'{plural} "{name}" not found')
        return found

    def create(self, plural, namespace, body):
        with self.lock:
            name = body["metadata"]["name"]
            if (plural, namespace, name) in self.objects:
                raise Failure(409, "AlreadyExists", f'{plural} "{name}" already exists')
            body["metadata"] |= {"creationTimestamp": now(), "uid": str(uuid.uuid4())} | (
                {"namespace": namespace} if namespace else {}
            )
            return self._put(plural, namespace, body)

    def replace(self, plural, namespace, body):
        with self.lock:
            old = self.get(plural, namespace, body["metadata"]["name"])
            body["metadata"] = old["metadata"] | body["metadata"]
            body.setdefault("status", old.get("status", {}))
            return self._put(plural, namespace, body)

    def update(self, plural, namespace, name, change):
        """Applies change(object) unless the object has gone."""
        with self.lock:
            found = self.find(plural, namespace, name)
            if found is not None:
                change(found)
                self._put(plural, namespace, found)

    def delete(self, plural, namespace, name):
        with self.lock:
            self.objects.pop((plural, namespace, name), None)
            self.save()

    def _put(self, plural, namespace, body):
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[(plural, namespace, body["metadata"]["name"])] = copy.deepcopy(body)
        self.save()
        return body


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
