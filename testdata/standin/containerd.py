"""The container runtime: Debian's containerd as a child, with the product's paths, and `ctr` to talk to it."""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import log
import product
import references

_ENVIRONMENT = {"CONTAINERD_ADDRESS": product.SOCKET, "CONTAINERD_NAMESPACE": "k8s.io"}
_PR_SET_PDEATHSIG = 1
_GRACE = 2.0


class RuntimeFailure(Exception):
    """What containerd said, in the words that the kubelet would show."""


def ctr(*arguments, feed=()):
    """Runs ctr with pieces of bytes for its standard input; returns what it printed."""
    environment = {**os.environ, **_ENVIRONMENT}
    with subprocess.Popen(
        ["ctr", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            for piece in feed:
                process.stdin.write(piece)
        except BrokenPipeError:
            pass  # ctr ended early and has said why
        printed, said = process.communicate()
    if process.returncode != 0:
        raise RuntimeFailure(said.decode().strip().rpartition("ctr: ")[2].partition("\n")[0])
    return printed.decode()


def run_command(*command):
    """Runs a program of the host, whose failure is the pod's."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeFailure(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def exec_ctr(arguments):
    os.execvpe("ctr", ["ctr", *arguments], {**_ENVIRONMENT, **os.environ})


def unpack_programs(folder):
    """What the real one unpacks itself into, from where the shims then run."""
    os.makedirs(folder, exist_ok=True)
    for program in ("containerd", "containerd-shim-runc-v2", "ctr", "runc"):
        source, target = shutil.which(program), os.path.join(folder, program)
        if source is None:
            log.fatal(f'exec: "{program}": executable file not found in $PATH')
        if os.path.lexists(target):
            continue
        if "shim" in program:
            shutil.copy2(source, target)
        else:
            os.symlink(source, target)
    os.environ["PATH"] = folder + ":" + os.environ["PATH"]


class Containerd:
    """`credentials(image)` is (user, password) or None; `more` is what the configuration has besides, its head first."""

    def __init__(self, root, configuration, certs_d, pause_image, systemd_cgroup, credentials=None, more=("", "")):
        self.root, self.configuration, self.certs_d = root, configuration, certs_d
        self.pause_image, self.systemd_cgroup = pause_image, systemd_cgroup
        self.credentials, self.more = credentials or (lambda image: None), more

    def start(self):
        """Starts containerd and waits until it answers. It dies with this thread's process."""
        os.makedirs(self.root, exist_ok=True)
        os.makedirs(product.CONTAINERD, mode=0o711, exist_ok=True)
        self._configure()
        logfile = os.path.join(self.root, "containerd.log")
        log.info(f"Logging containerd to {logfile}")
        command = ["containerd", "-c", self.configuration, "-a", product.SOCKET, "--state", product.CONTAINERD, "--root", self.root]
        log.info("Running " + " ".join(command))
        libc = ctypes.CDLL(None)
        with open(logfile, "ab") as output:
            self.child = child = subprocess.Popen(
                command, stdout=output, stderr=output, preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            )
        while True:
            try:
                ctr("version")
                break
            except RuntimeFailure:
                if child.poll() is not None:
                    log.error(f"containerd exited: exit status {child.returncode}")
                    sys.exit(1)
                time.sleep(0.05)
        log.info("containerd is now running")

    def stop(self):
        self.child.terminate()
        self.child.wait()

    def _configure(self):
        os.makedirs(os.path.dirname(self.configuration), exist_ok=True)
        with open(self.configuration, "w", encoding="utf-8") as stream:
            stream.write(f"""{self.more[0]}version = 2

[plugins."io.containerd.internal.v1.opt"]
  path = "{self.root}"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "10010"
  enable_selinux = false
  sandbox_image = "{self.pause_image}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  disable_snapshot_annotations = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = {str(self.systemd_cgroup).lower()}

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{self.certs_d}"

{self.more[1]}""")

    def present(self, reference):
        """Whether an image is there under the one name that the runtime looks for."""
        return references.normalise(reference) in image_names()

    def pull(self, reference):
        """Pulls through the rendered hosts.toml, and names the image as the CRI does: by tag and by digest."""
        name = references.normalise(reference)
        credentials = self.credentials(reference)
        login = ["--user", ":".join(credentials)] if credentials else []
        try:
            ctr("images", "pull", "--hosts-dir", self.certs_d, *login, name)
        except RuntimeFailure as failure:
            prefix = "rpc error: code = NotFound desc = " if str(failure).endswith(": not found") else ""
            raise RuntimeFailure(f'{prefix}failed to pull and unpack image "{name}": {failure}') from failure
        host, path, _, _ = references.parse(reference)
        by_digest = f"{host}/{path}@{digest_of(name)}"
        # `tag --force` would take the name away for a moment from the pods that use it.
        if not self.present(by_digest):
            ctr("images", "tag", "--force", name, by_digest)


def images():
    """Digest by name of all images."""
    rows = [line.split() for line in ctr("images", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def digest_of(name):
    """The digest of the image with this name; it may have gone meanwhile."""
    try:
        return images()[name]
    except KeyError as problem:
        raise RuntimeFailure(f'image "{name}": not found') from problem


def image_names():
    return set(ctr("images", "ls", "-q").split())


def tasks():
    """State (RUNNING, STOPPED) by id of all containers that were started."""
    rows = [line.split() for line in ctr("tasks", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def containers():
    """What containerd knows of each container, by id."""
    return {name: json.loads(ctr("containers", "info", name)) for name in ctr("containers", "ls", "-q").split()}


def remove_container(identity):
    """Ends and removes a container; returns its exit code."""
    for signal_name in ("SIGTERM", "SIGKILL"):
        deadline = time.monotonic() + _GRACE
        while tasks().get(identity) == "RUNNING" and time.monotonic() < deadline:
            subprocess.run(
                ["ctr", "tasks", "kill", "--signal", signal_name, identity],
                capture_output=True,
                check=False,
                env={**os.environ, **_ENVIRONMENT},
            )
            time.sleep(0.1)
    done = subprocess.run(
        ["ctr", "tasks", "rm", identity],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **_ENVIRONMENT},
    )
    code = re.search(r"non-zero exit code (\d+)", done.stderr)
    if identity in ctr("containers", "ls", "-q").split():
        ctr("containers", "rm", identity)
    return int(code[1]) if code else 0


def has_entrypoint(image):
    """Whether an image has an entry point, to which the arguments of `ctr run` are only added."""
    manifest = json.loads(ctr("content", "get", digest_of(image)))
    if "manifests" in manifest:
        ours = [entry for entry in manifest["manifests"] if entry.get("platform", {}).get("os") == "linux"]
        manifest = json.loads(ctr("content", "get", ours[0]["digest"]))
    return bool(json.loads(ctr("content", "get", manifest["config"]["digest"])).get("config", {}).get("Entrypoint"))
