"""The cluster's objects, over whatever datastore holds them."""

import time
import uuid

from database import Unavailable


class Failure(Exception):
    """An answer of the API server other than success."""

    def __init__(self, code, reason, message):
        super().__init__(message)
        self.code, self.reason = code, reason


class Store:
    def __init__(self, database):
        self.database = database

    def list(self, plural, namespace=""):
        return self.list_at(plural, namespace)[1]

    def list_at(self, plural, namespace=""):
        """The version of the whole and the objects."""
        version, found = self._read(plural, namespace or None)
        return version, [item for _, item in found]

    def find(self, plural, namespace, name):
        _, found = self._read(plural, namespace, name)
        return found[0][1] if found else None

    def get(self, plural, namespace, name):
        found = self.find(plural, namespace, name)
        if found is None:
            raise Failure(404, "NotFound", f'{plural} "{name}" not found')
        return found

    def create(self, plural, namespace, body):
        name = body["metadata"]["name"]
        body["metadata"] |= {"creationTimestamp": now(), "uid": str(uuid.uuid4())} | (
            {"namespace": namespace} if namespace else {}
        )
        if not self._commit([((plural, namespace, name), None, body)]):
            raise Failure(409, "AlreadyExists", f'{plural} "{name}" already exists')
        return body

    def replace(self, plural, namespace, body):
        """Puts an object in the place of the one with its name, unless that has changed since it was read."""
        name, seen = body["metadata"]["name"], body["metadata"].get("resourceVersion")
        while True:
            old = self.get(plural, namespace, name)
            if seen not in (None, old["metadata"]["resourceVersion"]):
                raise Failure(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
            kept = {key: old["metadata"][key] for key in ("uid", "creationTimestamp") if key in old["metadata"]}
            body["metadata"] = (old["metadata"] | body["metadata"] if seen is None else body["metadata"]) | kept
            body.setdefault("status", old.get("status", {}))
            if self._put(plural, namespace, old, body):
                return body
            if seen is not None:
                continue  # says so at the next turn

    def update(self, plural, namespace, name, change):
        """Applies change(object) unless the object has gone."""
        while True:
            old = self.find(plural, namespace, name)
            if old is None:
                return
            version = old["metadata"]["resourceVersion"]
            change(old)
            old["metadata"]["resourceVersion"] = version
            if self._put(plural, namespace, old, old):
                return

    def delete(self, plural, namespace, name):
        self._commit([((plural, namespace, name), "any", None)])

    def _put(self, plural, namespace, old, body):
        """An object that waits only for its finalizers goes with the last of them."""
        done = "deletionTimestamp" in body["metadata"] and body["metadata"].get("finalizers") == []
        key = (plural, namespace, body["metadata"]["name"])
        return self._commit([(key, old["metadata"]["resourceVersion"], None if done else body)])

    def _read(self, plural, namespace=None, name=None):
        try:
            return self.database.read(plural, namespace, name)
        except Unavailable as problem:
            raise Failure(500, "", str(problem)) from problem

    def _commit(self, changes):
        try:
            return self.database.commit(changes)
        except Unavailable as problem:
            raise Failure(500, "", str(problem)) from problem


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
