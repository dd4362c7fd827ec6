#!/usr/bin/env python3
"""Makes container images for the benchmark, in the folder layout that docker-registry serves.

Usage: images.py FOLDER COUNT SMALLEST LARGEST TEXT

Writes COUNT images `bench/image-NN:v1` with three to five gzip layers each: two of one of four bases, up to two that
several images share, one of its own. The layers' packed sizes spread evenly (as a geometric series) from SMALLEST to
LARGEST bytes: four fifths that do not compress, one fifth from the files of the folder TEXT. Prints a line about them.
"""

import hashlib
import io
import json
import os
import platform
import random
import sys
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor

BASES = 4
COMMON = 2
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Registry:
    """A registry's folder (the layout of docker-distribution, version 2)."""

    def __init__(self, folder):
        self.tree = os.path.join(folder, "docker/registry/v2")

    def put(self, content):
        """Stores a blob; returns its digest."""
        digest = hashlib.sha256(content).hexdigest()
        place = os.path.join(self.tree, "blobs/sha256", digest[:2], digest)
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, "data"), "wb") as file:
            file.write(content)
        return digest

    def link(self, repository, place, digest):
        """Lets a repository point to a blob."""
        folder = os.path.join(self.tree, "repositories", repository, place)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "link"), "w", encoding="ascii") as file:
            file.write(f"sha256:{digest}")


def text_of(folder, wanted):
    """The first `wanted` bytes of the text files in a folder."""
    text = bytearray()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            with open(os.path.join(parent, name), "rb") as file:
                text += file.read()
            if len(text) >= wanted:
                return bytes(text[:wanted])
    return bytes(text)


def layer(number, size, text):
    """A tar of about `size` bytes once packed with gzip: (packed, digest of the unpacked tar)."""
    # The text packs about four to one.
    part = min(len(text), size * 4 // 5)
    start = number * 7919 * 512 % max(len(text) - part, 1)
    contents = {
        f"opt/layer-{number}/data": random.Random(number).randbytes(size * 4 // 5),
        f"usr/share/layer-{number}/text": text[start : start + part],
    }
    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    packer = zlib.compressobj(level=1, wbits=31)
    packed = packer.compress(unpacked.getbuffer()) + packer.flush()
    return packed, hashlib.sha256(unpacked.getbuffer()).hexdigest()


def main():
    folder, count = sys.argv[1], int(sys.argv[2])
    smallest, largest = int(sys.argv[3]), int(sys.argv[4])
    registry = Registry(folder)
    text = text_of(sys.argv[5], largest * 2)
    shared = 2 * BASES + COMMON
    layers = shared + count
    sizes = [int(smallest * (largest / smallest) ** (index / (layers - 1))) for index in range(layers)]
    # Bases and own layers alike get large and small ones.
    random.Random(0).shuffle(sizes)

    def make(number):
        packed, diff_id = layer(number, sizes[number], text)
        return registry.put(packed), len(packed), diff_id

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(make, range(layers)))

    for number in range(count):
        base = number % BASES
        chosen = [2 * base, 2 * base + 1]
        chosen += range(2 * BASES, 2 * BASES + number % (COMMON + 1))
        chosen.append(shared + number)
        config = {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Env": [f"IMAGE={number}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{made[index][2]}" for index in chosen]},
        }
        config = json.dumps(config).encode()
        config_digest = registry.put(config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": f"sha256:{config_digest}",
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": f"sha256:{made[index][0]}",
                    "size": made[index][1],
                }
                for index in chosen
            ],
        }
        digest = registry.put(json.dumps(manifest).encode())
        repository = f"bench/image-{number + 1:02}"
        for blob in [config_digest, *(made[index][0] for index in chosen)]:
            registry.link(repository, f"_layers/sha256/{blob}", blob)
        registry.link(repository, f"_manifests/revisions/sha256/{digest}", digest)
        registry.link(repository, f"_manifests/tags/v1/index/sha256/{digest}", digest)
        registry.link(repository, "_manifests/tags/v1/current", digest)

    unique = sum(size for _, size, _ in made) / 2**20
    print(f"{count} images, {layers} different layers, {unique:.0f} MiB packed")


main()
