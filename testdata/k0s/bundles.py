"""The images folder: which files k0s imports before the kubelet starts, and what it says of each."""

import json
import os
import time

import archives
import log
from containerd import RuntimeFailure, ctr

_PINNED, _SOURCES = "io.cri-containerd.pinned", "io.k0sproject.ocibundle-paths"
_COMPONENT = {"component": "OCIBundleReconciler"}
_DEBOUNCE = 10.0


class Bundles:
    def __init__(self, folder):
        self.folder, self.done = folder, {}

    def load(self):
        """Imports all files in the order of their names. One that fails is logged, and tried again the next time."""
        log.info("Loading OCI bundles directory", **_COMPONENT)
        for name in sorted(os.listdir(self.folder)):
            path = os.path.join(self.folder, name)
            changed = os.stat(path).st_mtime_ns
            if self.done.get(path) == changed:
                continue
            log.info(f"Loading OCI bundle {path}", **_COMPONENT)
            try:
                self._load(path, changed)
            except (RuntimeFailure, OSError) as problem:
                text = problem.strerror.lower() if isinstance(problem, OSError) else problem
                error = f"failed to process OCI bundle: can't import bundle: {text}"
                log.error(f"Failed to load OCI bundle {path}", **_COMPONENT, error=error)
                continue
            self.done[path] = changed
            log.info(f"OCI bundle {path} loaded", **_COMPONENT)
        self._unpin()

    def watch(self):
        """Loads again when the folder has been quiet for ten seconds after a change. Never returns."""
        seen, since = self._look(), None
        while True:
            time.sleep(0.5)
            now = self._look()
            if now != seen:
                seen, since = now, time.monotonic()
            elif since is not None and time.monotonic() - since > _DEBOUNCE:
                since = None
                self.load()

    def _look(self):
        try:
            return {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in os.scandir(self.folder)}
        except FileNotFoundError:
            return {}

    @staticmethod
    def _load(path, changed):
        with open(path, "rb") as stream:
            names = archives.load(stream)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(changed // 10**9))
        for name in names:
            log.info(f"Imported image {name}", **_COMPONENT)
            ctr("images", "label", name, f"{_PINNED}=pinned", f"{_SOURCES}={json.dumps({path: when})}")

    @staticmethod
    def _unpin():
        for line in ctr("images", "ls", f'labels."{_PINNED}"==pinned').splitlines()[1:]:
            name, _, labels = line.split()[0], None, line.partition(_SOURCES + "=")[2]
            try:
                paths = json.JSONDecoder().raw_decode(labels)[0]
            except ValueError:
                continue  # somebody else's
            if not any(os.path.exists(path) for path in paths):
                log.info(f"Unpinning image {name}", **_COMPONENT)
                ctr("images", "label", name, f"{_PINNED}=", f"{_SOURCES}=")
