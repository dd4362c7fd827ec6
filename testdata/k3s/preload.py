"""The images folder: which files k3s imports at every start, how, and what it says of each."""

import bz2
import gzip
import os
import re
import subprocess
import time

import archives
import log
import references
from containerd import RuntimeFailure, ctr

_PIN = ("io.cattle.k3s.pinned", "io.cri-containerd.pinned")
_READERS = {
    ".tar": lambda path: open(path, "rb"),
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tbz": bz2.open,
    ".tar.lz4": lambda path: _piped("lz4", "-dc", path),
    # The real decoder's window ends at 32 MiB: what `zstd --long=26` made is refused.
    ".tar.zst": lambda path: _piped("zstd", "-dc", "--memory=32MB", path),
    ".tzst": lambda path: _piped("zstd", "-dc", "--memory=32MB", path),
}
_SUPPORTED = ".tar .tar.lz4 .tar.bz2 .tbz .tar.gz .tgz .tar.zst .tzst"


def preload(folder, runtime):
    """Imports all files in the order of their names. One that fails is logged and left behind."""
    if not os.path.isdir(folder):
        return
    for name in ctr("images", "ls", "-q", f'labels."{_PIN[0]}"==pinned').split():
        ctr("images", "label", name, *(f"{label}=" for label in _PIN))
    for file in sorted(os.listdir(folder)):
        path, start = os.path.join(folder, file), time.monotonic()
        if os.path.isdir(path):
            continue
        try:
            names = _pull_list(path, runtime) if file.lower().endswith(".txt") else _import(path)
            _pin(names)
        except (RuntimeFailure, OSError) as problem:
            log.error(f"Error encountered while importing {path}: {problem}")
            continue
        for name in names:
            log.info(f"Imported {name}")
        log.info(f"Imported images from {path} in {(time.monotonic() - start) * 1000:.6f}ms")


def _pull_list(path, runtime):
    log.info(f"Pulling images from {path}")
    with open(path, encoding="utf-8") as stream:
        names = stream.read().split()
    for name in names:
        if runtime.present(name):
            log.info(f"Image {name} has already been pulled")
            continue
        log.info(f"Pulling image {name}")
        try:
            runtime.pull(name)
        except (RuntimeFailure, ValueError) as problem:
            prefix = "" if str(problem).startswith("rpc error") else "rpc error: code = Unknown desc = "
            raise RuntimeFailure(f"failed to pull images from {path}: {prefix}{problem}") from problem
    return [references.normalise(name) for name in names]


def _import(path):
    reader = next((reader for suffix, reader in _READERS.items() if path.lower().endswith(suffix)), None)
    if reader is None:
        raise RuntimeFailure(f"unhandled file type; supported extensions: {_SUPPORTED}")
    log.info(f"Importing images from {path}")
    try:
        with reader(path) as stream:
            return archives.load(stream)
    except (RuntimeFailure, OSError, EOFError) as problem:
        raise RuntimeFailure(f"failed to import images from {path}: {problem}") from problem


def _pin(names):
    problems = []
    for name in names:
        ctr("images", "label", name, *(f"{label}=pinned" for label in _PIN))
    for name in names:
        kind = (
            "reference.canonicalReference"
            if "@" in name
            else "" if re.search(r":[^/]*$", name) else "reference.repository"
        )
        if kind:
            problems.append(f"failed to parse tags for image {name}: can't cast {kind} to NamedTagged")
    if problems:
        raise RuntimeFailure("failed to retag images: " + ", ".join(problems))


class _piped:
    """A decompressor's output; its failure is an error of the archive."""

    def __init__(self, program, *arguments):
        self.program, self.arguments = program, arguments

    def __enter__(self):
        self.process = subprocess.Popen([self.program, *self.arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return self.process.stdout

    def __exit__(self, *_):
        self.process.stdout.close()
        message = self.process.stderr.read().decode().strip()
        if self.process.wait() != 0:
            raise RuntimeFailure(
                "decompressed size exceeds configured limit" if "Window size" in message else "unexpected EOF"
            )
