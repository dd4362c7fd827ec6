"""The node's part: it registers the node and runs pods as containerd's containers, by ctr and CNI.

It knows one container kind of work: images by their pull policy, command, arguments, environment, host
network, restart policy. A pod that asks for volumes is left waiting and says so.
"""

import os
import platform
import secrets
import shutil
import threading

import log
import product
import references
from containerd import RuntimeFailure, ctr, has_entrypoint, remove_container, run_command, tasks
from controllers import UNREACHABLE, set_condition
from store import Failure, now

LOGS = "/var/log/pods"
LINKS = "/var/log/containers"
_PULL_BACKOFF = 10.0
_RESTART_BACKOFF = 10.0


class Kubelet:
    """`runtime` is None where no container can run; `network` is set once the node has its subnet."""

    def __init__(self, store, runtime, node_name, version):
        self.store, self.runtime, self.network = store, runtime, None
        self.node_name, self.version, self.workers, self.ending = node_name, version, {}, set()

    def prepare(self):
        """The traces that a kubelet leaves on a host even before its first pod."""
        if self.runtime is None:
            return
        for folder in ("pods", "plugins", "plugins_registry", "pod-resources"):
            os.makedirs(os.path.join(product.KUBELET, folder), mode=0o750, exist_ok=True)
        os.makedirs(product.VOLUME_PLUGINS, exist_ok=True)
        if not os.path.ismount(product.KUBELET):
            run_command("mount", "--bind", product.KUBELET, product.KUBELET)
        for name, value in (("vm/overcommit_memory", "1"), ("kernel/panic", "10"), ("kernel/panic_on_oops", "1")):
            with open(f"/proc/sys/{name}", encoding="ascii") as stream:
                if stream.read().strip() == value:
                    continue
            try:
                with open(f"/proc/sys/{name}", "w", encoding="ascii") as stream:
                    stream.write(value)
            except OSError as problem:
                log.error(
                    f"kubelet exited: failed to run Kubelet: Failed to start ContainerManager open /proc/sys/{name}: {problem.strerror.lower()}"
                )
                raise SystemExit(1) from problem
        if self.runtime.systemd_cgroup:
            run_command("systemctl", "start", "kubepods.slice", "kubepods-besteffort.slice", "kubepods-burstable.slice")

    def register(self, address, labels, taints):
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        labels = {
            "kubernetes.io/arch": architecture,
            "kubernetes.io/hostname": self.node_name,
            "kubernetes.io/os": "linux",
        } | product.NODE_LABELS | labels
        status = {
            "addresses": [{"address": address, "type": "InternalIP"}, {"address": self.node_name, "type": "Hostname"}],
            "nodeInfo": {
                "architecture": architecture,
                "containerRuntimeVersion": "containerd://1.6.20",
                "kernelVersion": platform.release(),
                "kubeletVersion": self.version,
                "kubeProxyVersion": self.version,
                "operatingSystem": "linux",
                "osImage": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
            },
        }
        provider = {"providerID": product.PROVIDER + self.node_name} if product.PROVIDER else {}
        # A Node is never seen without its conditions.
        self._readiness(False)({"status": status, "spec": {}})
        if not self.store.find("nodes", "", self.node_name):
            self.store.create(
                "nodes",
                "",
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": self.node_name, "labels": labels},
                    "spec": provider | ({"taints": taints} if taints else {}),
                    "status": status,
                },
            )

        def change(node):
            node["metadata"].setdefault("labels", {}).update(labels)
            node["status"] = node.get("status", {}) | {key: status[key] for key in ("addresses", "nodeInfo")}

        self.store.update("nodes", "", self.node_name, change)
        self.set_ready(False)

    def set_ready(self, ready):
        self.store.update("nodes", "", self.node_name, self._readiness(ready))

    def _readiness(self, ready):
        """What changes a Node to be ready, or not yet."""
        reason, message = (
            ("KubeletReady", "kubelet is posting ready status")
            if ready
            else (
                "KubeletNotReady",
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized",
            )
        )
        beat = now()

        def change(node):
            old = [entry for entry in node["status"].get("conditions", []) if entry["type"] == "Ready"]
            since = old[0]["lastTransitionTime"] if old and old[0]["status"] == str(ready) else beat
            content = {"status": str(ready), "reason": reason, "message": message}
            set_condition(node, "Ready", content | {"lastHeartbeatTime": beat, "lastTransitionTime": since})
            if "taints" in node.get("spec", {}):
                node["spec"]["taints"] = [taint for taint in node["spec"]["taints"] if taint not in UNREACHABLE]

        return change

    def sync(self):
        """Gives each pod of this node that has none a thread of its own, and ends those that are to go."""
        if self.runtime is None:
            return
        pods = {
            pod["metadata"]["uid"]: pod
            for pod in self.store.list("pods")
            if pod["spec"].get("nodeName") == self.node_name
        }
        for uid, pod in pods.items():
            if uid not in self.workers:
                self.workers[uid] = worker = _Worker(self, pod)
                if "deletionTimestamp" in pod["metadata"]:
                    worker.ended.set()
                else:
                    threading.Thread(target=worker.run, daemon=True).start()
            if "deletionTimestamp" in pod["metadata"]:
                self._end(uid)
        for uid in set(self.workers) - set(pods):
            self._end(uid)

    def _end(self, uid):
        if uid not in self.ending:
            self.ending.add(uid)
            threading.Thread(target=self._remove, args=(uid,), daemon=True).start()

    def _remove(self, uid):
        worker = self.workers[uid]
        try:
            worker.stop()
            found = self.store.find("pods", worker.namespace, worker.name)
            if found and found["metadata"]["uid"] == uid:
                self.store.delete("pods", worker.namespace, worker.name)
            del self.workers[uid]
        except (Failure, RuntimeFailure) as problem:
            log.error(f'Error syncing pod, skipping: pod="{worker.namespace}/{worker.name}" err="{problem}"')
        finally:
            self.ending.discard(uid)

    def log_of(self, path):
        """The log of a container by /containerLogs/<namespace>/<pod>/<container>; None if there is none."""
        words = path.strip("/").split("/")
        for worker in list(self.workers.values()):
            if ["containerLogs", worker.namespace, worker.name] == words[:3]:
                file = _log_path(worker.pod, words[3])
                if os.path.exists(file):
                    with open(file, "rb") as stream:
                        return stream.read()
        return None


def _pod_folder(pod):
    meta = pod["metadata"]
    return os.path.join(LOGS, f"{meta['namespace']}_{meta['name']}_{meta['uid']}")


def _log_path(pod, container):
    return os.path.join(_pod_folder(pod), container, "0.log")


class _Worker:
    """One pod: from its images to its end."""

    def __init__(self, kubelet, pod):
        self.kubelet, self.pod = kubelet, pod
        self.namespace, self.name, self.uid = (pod["metadata"][key] for key in ("namespace", "name", "uid"))
        self.stopping, self.ended = threading.Event(), threading.Event()
        self.states = {status["name"]: status for status in pod.get("status", {}).get("containerStatuses", [])}
        self.sandbox = pod["metadata"].get("annotations", {}).get("stand-in/sandbox")
        self.address = pod.get("status", {}).get("podIP")
        self.volume = os.path.join(product.KUBELET, "pods", self.uid, "volumes", "kubernetes.io~projected", "kube-api-access")

    def run(self):
        try:
            while not self.stopping.is_set() and not self.finished():
                try:
                    self.step()
                except (RuntimeFailure, Failure, ValueError) as problem:
                    log.error(f'Error syncing pod, skipping: pod="{self.namespace}/{self.name}" err="{problem}"')
                self.stopping.wait(0.3)
        finally:
            self.ended.set()

    def step(self):
        if self.pod["spec"].get("volumes"):
            self.waiting("ContainerCreating", "the stand-in mounts no volumes")
            return
        running = tasks() if self.sandbox else {}
        if self.sandbox not in running:
            self.clear_sandbox()
            self.start_sandbox()
            running = tasks()
        for container in self.pod["spec"]["containers"]:
            state = self.states.get(container["name"], {})
            identity = state.get("containerID", "").removeprefix("containerd://")
            if "running" in state.get("state", {}) and running.get(identity) == "RUNNING":
                continue
            if "running" in state.get("state", {}):
                self.container_ended(container, identity)
            elif "terminated" not in state.get("state", {}) and self.image_ready(container):
                self.start_container(container)

    def finished(self):
        states = [
            self.states.get(container["name"], {}).get("state", {}) for container in self.pod["spec"]["containers"]
        ]
        return all("terminated" in state for state in states)

    def image_ready(self, container):
        image, policy = container["image"], container["imagePullPolicy"]
        try:
            present = self.kubelet.runtime.present(image)
        except ValueError:
            self.set_state(
                container,
                {
                    "waiting": {
                        "reason": "InvalidImageName",
                        "message": f'Failed to apply default image tag "{image}": '
                        f'couldn\'t parse image name "{image}": invalid reference format',
                    }
                },
            )
            return False
        if policy == "Never" and not present:
            self.set_state(
                container,
                {
                    "waiting": {
                        "reason": "ErrImageNeverPull",
                        "message": f'Container image "{image}" is not present with pull policy of Never',
                    }
                },
            )
            return False
        if policy == "Always" or not present:
            try:
                self.kubelet.runtime.pull(image)
            except RuntimeFailure as failure:
                self.set_state(container, {"waiting": {"reason": "ErrImagePull", "message": str(failure)}})
                self.stopping.wait(1)
                self.set_state(
                    container,
                    {"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}},
                )
                self.stopping.wait(_PULL_BACKOFF)
                return False
        return not self.stopping.is_set()

    def clear_sandbox(self):
        """A sandbox that failed, or went with a reboot and with it what ran inside."""
        if not self.sandbox:
            return
        for name, status in list(self.states.items()):
            if "running" in status["state"]:
                remove_container(status["containerID"].removeprefix("containerd://"))
                self.states[name] = {"name": name, "restartCount": status["restartCount"] + 1, "state": {}}
        remove_container(self.sandbox)
        self.kubelet.network.detach(self.sandbox)
        self.sandbox = self.address = None

    def start_sandbox(self):
        pause = self.kubelet.runtime.pause_image
        self.waiting("ContainerCreating")
        try:
            if not self.kubelet.runtime.present(pause):
                self.kubelet.runtime.pull(pause)
        except RuntimeFailure as failure:
            log.error(
                f'"RunPodSandbox from runtime service failed" err="rpc error: code = Unknown desc = failed to get sandbox image \\"{pause}\\": '
                f'failed to pull image \\"{pause}\\": {failure}"'
            )
            self.stopping.wait(_PULL_BACKOFF)
            raise
        os.makedirs(self.volume, exist_ok=True)
        if not os.path.ismount(self.volume):
            run_command("mount", "-t", "tmpfs", "tmpfs", self.volume)
        self.sandbox = secrets.token_hex(32)
        if not self.pod["spec"].get("hostNetwork"):
            self.address = self.kubelet.network.attach(self.sandbox)
        ctr(
            "run",
            "--detach",
            "--label",
            "io.cri-containerd.kind=stand-in-sandbox",
            *self.options(self.sandbox),
            references.normalise(pause),
            self.sandbox,
        )
        note = {"stand-in/sandbox": self.sandbox}
        self.kubelet.store.update(
            "pods", self.namespace, self.name, lambda pod: pod["metadata"].setdefault("annotations", {}).update(note)
        )

    def options(self, identity):
        uid, prefix = self.uid.replace("-", "_"), "cri-containerd"
        options = [
            "--fifo-dir",
            product.CONTAINERD + "/fifo",
            "--label",
            f"io.kubernetes.pod.name={self.name}",
            "--label",
            f"io.kubernetes.pod.namespace={self.namespace}",
        ]
        if self.kubelet.runtime.systemd_cgroup:
            options += ["--runc-systemd-cgroup", "--cgroup", f"kubepods-besteffort-pod{uid}.slice:{prefix}:{identity}"]
        else:
            options += ["--cgroup", f"/kubepods/besteffort/pod{self.uid}/{identity}"]
        if self.pod["spec"].get("hostNetwork"):
            return [*options, "--net-host"]
        return [*options, "--with-ns", f"network:{self.kubelet.network.namespace(self.sandbox)}"]

    def start_container(self, container):
        identity, arguments = secrets.token_hex(32), [str(word) for word in container.get("args", [])]
        path = _log_path(self.pod, container["name"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.makedirs(LINKS, exist_ok=True)
        link = os.path.join(LINKS, f"{self.name}_{self.namespace}_{container['name']}-{identity}.log")
        os.symlink(path, link)
        options = ["--log-uri", f"file://{path}", "--label", f"io.kubernetes.container.name={container['name']}"]
        for variable in container.get("env", []):
            options += ["--env", f"{variable['name']}={variable.get('value', '')}"]
        image = references.normalise(container["image"])
        try:
            if container.get("command") and has_entrypoint(image):
                raise RuntimeFailure("the stand-in cannot replace an image's entry point by a command")
            ctr(
                "run",
                "--detach",
                "--label",
                "io.cri-containerd.kind=stand-in-container",
                *options,
                *self.options(identity),
                image,
                identity,
                *container.get("command", []),
                *arguments,
            )
        except RuntimeFailure as failure:
            os.remove(link)
            self.set_state(container, {"waiting": {"reason": "RunContainerError", "message": str(failure)}})
            self.stopping.wait(_RESTART_BACKOFF)
            return
        self.set_state(container, {"running": {"startedAt": now()}}, identity)

    def container_ended(self, container, identity):
        code = remove_container(identity)
        ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": now()}}
        policy = self.pod["spec"]["restartPolicy"]
        if policy == "Never" or (policy == "OnFailure" and code == 0):
            self.set_state(container, ended, identity)
            return
        self.set_state(
            container,
            {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}},
            restarts=1,
        )
        self.stopping.wait(_RESTART_BACKOFF)

    def waiting(self, reason, message=None):
        for container in self.pod["spec"]["containers"]:
            if container["name"] not in self.states:
                self.set_state(container, {"waiting": {"reason": reason} | ({"message": message} if message else {})})

    def set_state(self, container, state, identity=None, restarts=0):
        old = self.states.get(container["name"], {})
        new = {
            "name": container["name"],
            "image": container["image"],
            "ready": "running" in state,
            "restartCount": old.get("restartCount", 0) + restarts,
            "state": state,
        }
        if identity:
            new["containerID"] = f"containerd://{identity}"
        self.states[container["name"]] = new
        states = [status["state"] for status in self.states.values()]
        failed = any(state.get("terminated", {}).get("exitCode") for state in states)
        phase = (
            ("Failed" if failed else "Succeeded")
            if self.finished()
            else "Running" if any("running" in state for state in states) else "Pending"
        )
        ready = "True" if all("running" in state for state in states) else "False"
        status = {
            "phase": phase,
            "containerStatuses": list(self.states.values()),
            "conditions": [{"type": "Ready", "status": ready}],
        }
        if self.address:
            status["podIP"] = self.address
        self.kubelet.store.update("pods", self.namespace, self.name, lambda pod: pod["status"].update(status))

    def stop(self):
        """Ends the containers and clears what the pod left on the host."""
        self.stopping.set()
        self.ended.wait()
        identities = [status.get("containerID", "").removeprefix("containerd://") for status in self.states.values()]
        for identity in filter(None, identities):
            remove_container(identity)
        if self.sandbox:
            remove_container(self.sandbox)
            self.kubelet.network.detach(self.sandbox)
        if os.path.ismount(self.volume):
            run_command("umount", self.volume)
        shutil.rmtree(os.path.join(product.KUBELET, "pods", self.uid), ignore_errors=True)
        shutil.rmtree(_pod_folder(self.pod), ignore_errors=True)
        for link in os.listdir(LINKS) if os.path.isdir(LINKS) else []:
            if link.startswith(f"{self.name}_{self.namespace}_"):
                os.remove(os.path.join(LINKS, link))
