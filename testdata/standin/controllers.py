"""What one server does for the whole cluster: the one that leads in the datastore.

Namespaces and their service accounts, places for pods, nodes that no longer answer; the product adds what it does for
members of etcd.
"""

import time

from database import Unavailable
from store import Failure, now

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_SERVICE_ACCOUNTS_AFTER_API = 2.5
_SILENCE = 8.0


class Controllers:
    def __init__(self, store):
        self.store, self.database = store, store.database
        self.seen, self.begun = {}, time.monotonic()

    def run(self):
        """Never returns."""
        while True:
            try:
                if self.database.leads():
                    self.turn()
                else:
                    self.seen.clear()
            except (Failure, Unavailable):
                time.sleep(0.5)  # no leader, or another one
            time.sleep(0.2)

    def turn(self):
        if time.monotonic() - self.begun > _SERVICE_ACCOUNTS_AFTER_API:
            self.service_accounts()
        nodes = self.store.list("nodes")
        for node in nodes:
            self.watch(node)
        self.members(nodes)
        self.pods(nodes)

    def members(self, nodes):
        """What the product does for its members of etcd."""

    def service_accounts(self):
        accounts = {account["metadata"]["namespace"] for account in self.store.list("serviceaccounts")}
        for namespace in self.store.list("namespaces"):
            name = namespace["metadata"]["name"]
            if name not in accounts:
                body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
                self.store.create("serviceaccounts", name, body)

    # -------------------------------------------------- nodes

    def watch(self, node):
        """A node that is silent for too long is Unknown, by this server's own clock."""
        name, ready = node["metadata"]["name"], condition(node, "Ready")
        if ready is None:
            return
        beat, since = self.seen.get(name, (None, 0))
        if beat != ready["lastHeartbeatTime"]:
            self.seen[name] = (ready["lastHeartbeatTime"], time.monotonic())
        elif time.monotonic() - since > _SILENCE and ready["status"] != "Unknown":
            self.store.update("nodes", "", name, lambda item: _lost(item, beat))

    # -------------------------------------------------- pods

    def pods(self, nodes):
        pods = self.store.list("pods")
        names = {node["metadata"]["name"] for node in nodes}
        load = {name: sum(pod["spec"].get("nodeName") == name for pod in pods) for name in names}
        for pod in pods:
            meta, host = pod["metadata"], pod["spec"].get("nodeName")
            if host and host not in names:
                self.store.delete("pods", meta["namespace"], meta["name"])
            elif not host:
                fitting = [node["metadata"]["name"] for node in nodes if _fits(pod, node)]
                if fitting:
                    chosen = min(sorted(fitting), key=load.get)
                    load[chosen] += 1
                    self.store.update(
                        "pods", meta["namespace"], meta["name"], lambda item: item["spec"].update(nodeName=chosen)
                    )


def condition(node, kind):
    found = [entry for entry in node.get("status", {}).get("conditions", []) if entry["type"] == kind]
    return found[0] if found else None


def set_condition(node, kind, content):
    status = node.setdefault("status", {})
    status["conditions"] = [entry for entry in status.get("conditions", []) if entry["type"] != kind]
    status["conditions"].append({"type": kind, **content})


UNREACHABLE = [
    {"key": "node.kubernetes.io/unreachable", "effect": effect} for effect in ("NoSchedule", "NoExecute")
]


def _lost(node, beat):
    set_condition(
        node,
        "Ready",
        {
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastHeartbeatTime": beat,
            "lastTransitionTime": now(),
        },
    )
    taints = node.setdefault("spec", {}).get("taints", [])
    node["spec"]["taints"] = [taint for taint in taints if taint not in UNREACHABLE] + UNREACHABLE


def _fits(pod, node):
    ready, spec = condition(node, "Ready"), node.get("spec", {})
    if ready is None or ready["status"] != "True" or spec.get("unschedulable"):
        return False
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in pod["spec"].get("nodeSelector", {}).items()):
        return False
    return all(
        any(_tolerates(toleration, taint) for toleration in pod["spec"].get("tolerations", []))
        for taint in spec.get("taints", [])
        if taint["effect"] in ("NoSchedule", "NoExecute")
    )


def _tolerates(toleration, taint):
    if toleration.get("effect") not in (None, "", taint["effect"]) or toleration.get("key") not in (None, taint["key"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
