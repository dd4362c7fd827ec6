#!/usr/bin/env python3
"""image.py ARCHIVE ENTRYPOINT FILE... - a container image with one layer, made from files of this machine.

ARCHIVE is an OCI archive, for skopeo's oci-archive:ARCHIVE. FILE is a path, or SOURCE:PATH; links are kept, folders are taken
whole, and the libraries that a program needs come along.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TYPE = "application/vnd.oci.image."


class Layer:
    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w")
        self.names = set()

    def add(self, source, path):
        path = path.strip("/")
        if path in self.names:
            return
        self.names.add(path)
        for depth in range(1, path.count("/") + 1):
            folder = "/".join(path.split("/")[:depth])
            if folder not in self.names:
                self.names.add(folder)
                entry = tarfile.TarInfo(folder + "/")
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                self.tar.addfile(entry)
        self.tar.add(source, path, recursive=False, filter=plain)
        if os.path.islink(source):
            return
        for library in libraries(source):
            self.add(os.path.realpath(library), library)


def plain(entry):
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def libraries(program):
    if open(program, "rb").read(4) != b"\x7fELF":
        return []
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return [word for word in listed.split() if word.startswith("/")]


def blob(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(kind, data, **more):
    return {"mediaType": TYPE + kind, "digest": blob(data), "size": len(data), **more}


def main(archive, entrypoint, *files):
    layer = Layer()
    for file in files:
        source, _, path = file.partition(":")
        path = path or source
        if not os.path.isdir(source):
            layer.add(source, path)
            continue
        for folder, _, names in sorted(os.walk(source)):
            for name in sorted(names):
                found = os.path.join(folder, name)
                layer.add(found, os.path.join(path, os.path.relpath(found, source)))
    layer.tar.close()
    data = layer.buffer.getvalue()
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "Env": ["PATH=" + PATH]},
        "rootfs": {"type": "layers", "diff_ids": [blob(data)]},
    }).encode()
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": TYPE + "manifest.v1+json",
        "config": descriptor("config.v1+json", config),
        "layers": [descriptor("layer.v1.tar", data)],
    }).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest)]}).encode()
    written = [("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'), ("index.json", index)]
    written += [("blobs/sha256/" + blob(part)[7:], part) for part in (manifest, config, data)]
    with tarfile.open(archive, "w") as tar:
        for name, part in written:
            entry = tarfile.TarInfo(name)
            entry.size = len(part)
            tar.addfile(entry, io.BytesIO(part))


main(*sys.argv[1:])
