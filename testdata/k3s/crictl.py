"""`k3s crictl`: images, pull, rmi, ps, pods and version, by ctr."""

import json
import re

import containerd
import host
import log
import product
import references
import registries
from containerd import RuntimeFailure, ctr

_REGISTRIES = "/etc/rancher/k3s/registries.yaml"
_DATA_DIR = "/var/lib/rancher/k3s"
_KIND = "io.cri-containerd.kind"


def run(arguments):
    quiet = "-q" in arguments
    as_json = "json" in arguments or "--output=json" in arguments
    words = [word for word in arguments if not word.startswith("-") and word != "json"]
    try:
        ctr("version")
    except RuntimeFailure as failure:
        log.fatal(
            f'validate service connection: validate CRI v1 image API for endpoint "unix://{product.SOCKET}": rpc error: code = Unavailable '
            f'desc = connection error: desc = "transport: Error while dialing: {str(failure).rpartition("dialing: ")[2]}'
        )
    commands = {"images": _images, "ps": _ps, "pods": _pods}
    if words[:1] == ["pull"] and len(words) == 2:
        return _pull(words[1])
    if words[:1] == ["rmi"]:
        return _rmi(words[1:])
    if words[:1] == ["version"]:
        print("Version:  0.1.0\nRuntimeName:  containerd\nRuntimeVersion:  1.6.20\nRuntimeApiVersion:  v1")
        return 0
    if not words or words[0] not in commands:
        log.fatal(f"the stand-in's crictl has no command {' '.join(words)}: images, pull, rmi, ps, pods, version")
    return commands[words[0]](quiet, as_json, "-a" in arguments)


def _pull(name):
    runtime = host.runtime_of(_DATA_DIR, "", registries.Registries.read(_REGISTRIES), False)
    try:
        runtime.pull(name)
    except (RuntimeFailure, ValueError) as problem:
        log.fatal(f"pulling image: {problem}")
    print(f"Image is up to date for {_identity(references.normalise(name))}")
    return 0


def _rmi(names):
    failed = False
    for name in names:
        full = references.normalise(name)
        if full in containerd.image_names():
            ctr("images", "rm", full)
            print(f"Deleted: {full}")
        else:
            log.error(f"no such image {name}")
            failed = True
    if failed:
        log.fatal("unable to remove the image(s)")
    return 0


def _identity(name):
    """The image's id in the CRI: the digest of its configuration."""
    digest = containerd.images()[name]
    manifest = json.loads(ctr("content", "get", digest))
    return manifest["config"]["digest"] if "config" in manifest else digest


def _images(quiet, as_json, _):
    found = {}
    pinned = set(ctr("images", "ls", "-q", 'labels."io.cri-containerd.pinned"==pinned').split())
    for name in containerd.images():
        if not re.search(r":[^/]*$", name) or name.startswith("sha256:"):
            continue
        entry = found.setdefault(_identity(name), {"repoTags": [], "repoDigests": [], "pinned": False})
        entry["repoDigests" if "@" in name else "repoTags"].append(references.normalise(name))
        entry["pinned"] |= name in pinned
    if as_json:
        print(json.dumps({"images": [{"id": identity} | entry for identity, entry in found.items()]}, indent=2))
    elif quiet:
        print("\n".join(found))
    else:
        rows = [
            (*name.rsplit(":", 1), identity.removeprefix("sha256:")[:13])
            for identity, entry in found.items()
            for name in entry["repoTags"] or [entry["repoDigests"][0].partition("@")[0] + ":<none>"]
        ]
        _table([("IMAGE", "TAG", "IMAGE ID"), *sorted(rows)])
    return 0


def _labelled(kind, everything):
    states = containerd.tasks()
    for identity, content in containerd.containers().items():
        labels = content.get("Labels") or {}
        if labels.get(_KIND) == f"stand-in-{kind}" and (everything or states.get(identity) == "RUNNING"):
            yield identity, "Running" if states.get(identity) == "RUNNING" else "Exited", content["Image"], labels


def _ps(quiet, _, everything):
    found = list(_labelled("container", everything))
    if quiet:
        for identity, *_ in found:
            print(identity)
    else:
        _table(
            [("CONTAINER", "IMAGE", "STATE", "NAME", "POD")]
            + [
                (identity[:13], image, state, labels["io.kubernetes.container.name"], labels["io.kubernetes.pod.name"])
                for identity, state, image, labels in found
            ]
        )
    return 0


def _pods(quiet, _, __):
    found = list(_labelled("sandbox", True))
    if quiet:
        for identity, *_ in found:
            print(identity)
    else:
        _table(
            [("POD ID", "STATE", "NAME", "NAMESPACE")]
            + [
                (
                    identity[:13],
                    "Ready" if state == "Running" else "NotReady",
                    labels["io.kubernetes.pod.name"],
                    labels["io.kubernetes.pod.namespace"],
                )
                for identity, state, _, labels in found
            ]
        )
    return 0


def _table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
