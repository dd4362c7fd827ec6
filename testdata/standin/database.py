"""What a datastore holds, in memory and in one file, and the datastore that is one server's alone (SQLite's place)."""

import copy
import json
import os
import threading


class Unavailable(Exception):
    """The datastore does not answer: no leader, no majority, no connection."""


class State:
    """Objects by key (plural, namespace, name). Each change raises `index`, which is the object's version."""

    def __init__(self):
        self.index, self.objects = 0, {}

    def dump(self):
        return {"index": self.index, "objects": {"/".join(key): value for key, value in self.objects.items()}}

    def load(self, saved):
        self.index = saved["index"]
        self.objects = {tuple(key.split("/")): value for key, value in saved["objects"].items()}

    def version(self, key):
        found = self.objects.get(key)
        return None if found is None else found["metadata"].get("resourceVersion", "0")

    def fits(self, changes):
        """Whether all objects are as the one who changes them saw them."""
        return all(expected == "any" or self.version(key) == expected for key, expected, _ in changes)

    def stamped(self, changes):
        """The changes as they are applied: each value with the version it gets."""
        stamped = []
        for key, _, value in changes:
            if value is not None:
                value = copy.deepcopy(value)
                value["metadata"]["resourceVersion"] = str(self.index + 1)
            stamped.append([list(key), value])
        return stamped

    def apply(self, stamped):
        self.index += 1
        for key, value in stamped:
            if value is None:
                self.objects.pop(tuple(key), None)
            else:
                self.objects[tuple(key)] = value

    def select(self, plural, namespace=None, name=None):
        """[(key, object)] sorted by key; None stands for all."""
        return [
            (key, copy.deepcopy(self.objects[key]))
            for key in sorted(self.objects)
            if key[0] == plural and namespace in (None, key[1]) and name in (None, key[2])
        ]


def write_json(path, content):
    with open(path + ".new", "w", encoding="utf-8") as stream:
        json.dump(content, stream)
    os.replace(path + ".new", path)


class Local:
    """A datastore of one server."""

    managed = False

    def __init__(self, path):
        self.path, self.lock, self.state = path, threading.RLock(), State()
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                self.state.load(json.load(stream))

    def leads(self):
        return True

    def read(self, plural, namespace=None, name=None):
        with self.lock:
            return self.state.index, self.state.select(plural, namespace, name)

    def commit(self, changes):
        """Applies [(key, expected version | None for absent | "any", new value | None)]; False when one does not fit."""
        with self.lock:
            if not self.state.fits(changes):
                return False
            self.state.apply(self.state.stamped(changes))
            write_json(self.path, self.state.dump())
            return True
