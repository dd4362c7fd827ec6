"""What controllers and workers do alike on their host: folders, users, pre-flight checks."""

import ipaddress
import os
import pwd
import re
import shutil
import socket
import subprocess

import log
import product
from product import ROOT

CONTAINERD_D = "/etc/k0s/containerd.d"


class Stop(Exception):
    """What k0s says when it ends with exit code 1."""


def name():
    return os.environ.get("K0S_STAND_IN_NAME", socket.gethostname()).lower()


def path(*parts):
    """A path of the host, below the folder of a test without root."""
    return ROOT + os.path.join("/", *parts)


def data(*parts):
    return path(product.DATA, *parts)


def addresses():
    """Every address of the host's links."""
    if ROOT:
        return ["127.0.0.1"]
    printed = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"\binet6? ([0-9a-f.:]+)/", printed)


def main_address():
    """Where `api.address` is not given: the first address that is not a loopback's."""
    found = [item for item in addresses() if not ipaddress.ip_address(item).is_loopback]
    return next((item for item in found if "." in item), "127.0.0.1")


def has_cgroup_v1():
    return not ROOT and not os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def write(file, content, mode, owner=None):
    """Writes a file with its folder; `owner` is a user, root where there is no such user."""
    os.makedirs(os.path.dirname(file), exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(content if isinstance(content, bytes) else content.encode())
    give(file, owner)


def user(named):
    """The ids of a user, None where there is no such user."""
    try:
        found = pwd.getpwnam(named)
        return found.pw_uid, found.pw_gid
    except KeyError:
        return None


def give(file, owner):
    ids = owner and not ROOT and user(owner)
    if ids:
        os.chown(file, ids[0], 0)


def unreadable(owner, files):
    """The first file that a user can't read, and why; None if it can read all. A user that is not there is root."""
    ids = None if ROOT else user(owner)
    if ids is None:
        return None
    script = (
        "import sys\nfor path in sys.argv[1:]:\n    try:\n        open(path, 'rb').close()\n"
        "    except OSError as problem:\n        sys.exit(f'open {path}: {problem.strerror.lower()}')"
    )
    command = ["/usr/bin/python3", "-c", script, *files]
    done = subprocess.run(command, user=ids[0], group=ids[1], extra_groups=[], capture_output=True, text=True, cwd="/")
    return done.stderr.strip() or None


def has_user(owner, what):
    if user(owner) is None and not ROOT:
        log.warning(what, error=f'failed to lookup UID for "{owner}": user: unknown user {owner}')


def pre_flight(settings, workloads):
    """What `k0s sysinfo` finds. Controllers without workloads look at memory and disk alone."""
    rejected = []
    if workloads and has_cgroup_v1():
        rejected.append("Control Groups: version 1 (rejected: cgroup v1 is not supported)")
    folder = path(CONTAINERD_D)
    for file in sorted(os.listdir(folder)) if workloads and os.path.isdir(folder) else []:
        if file.endswith(".toml"):
            with open(os.path.join(folder, file), encoding="utf-8") as stream:
                version = re.search(r"^version\s*=\s*(\d+)", stream.read(), re.MULTILINE)
            if version is None or version[1] != "3":
                found = version[1] if version else "1"
                rejected.append(
                    f"Containerd config snippet: {file}: {folder}/{file} (rejected: unsupported configuration version: "
                    f"expected 3, got {found})"
                )
    for line in rejected:
        (log.warning if settings.get("ignore-pre-flight-checks") else log.error)(line)
    if rejected and not settings.get("ignore-pre-flight-checks"):
        raise Stop("pre-flight checks failed, check out `k0s sysinfo`")


def make_folders():
    for folder, mode in ((data(), 0o755), (path(product.RUN), 0o755), (data("bin"), 0o755)):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, mode)


def unpack(program):
    """Puts a program of the host where k0s would unpack its own."""
    source, target = shutil.which(program), data("bin", program)
    if source and not os.path.lexists(target):
        os.symlink(source, target)


def token_data(settings, words):
    """The join token, "" where none is given."""
    file = settings.get("token-file")
    if words or not file:
        return words[0] if words else os.environ.get("K0S_TOKEN", "")
    remedy = (
        'obtain a new token via "k0s token create ..." and store it in the file or reinstall this node via '
        '"k0s install --force ..." or "k0sctl apply --force ..."'
    )
    try:
        with open(file, encoding="ascii") as stream:
            content = stream.read()
    except FileNotFoundError as problem:
        raise Stop(f'token file "{file}" not found: {remedy}') from problem
    if not content:
        raise Stop(f'token file "{file}" is empty: {remedy}')
    return content
