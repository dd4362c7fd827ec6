"""What one server does for the whole cluster: the one that leads in the datastore.

Namespaces and their service accounts, places for pods, nodes that no longer answer, members of etcd whose
node is to go.
"""

import time

import log
from peers import Refusal
from database import Unavailable
from store import Failure, now

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
MEMBER = "etcd.k3s.cattle.io/node-name"
MEMBER_ADDRESS = "etcd.k3s.cattle.io/node-address"
_REMOVE = "etcd.k3s.cattle.io/remove"
_REMOVED = "etcd.k3s.cattle.io/removed-node-name"
_ETCD_ROLE = "node-role.kubernetes.io/etcd"
_FINALIZER = "wrangler.cattle.io/managed-etcd-controller"
_SERVICE_ACCOUNTS_AFTER_API = 2.5
_SILENCE = 8.0
_REQUEUE = 2.0
_CONDITIONS = {
    "voter": ("True", "MemberNotLearner", "Node is a voting member of the etcd cluster"),
    "learner": ("False", "MemberIsLearner", "Node has not been promoted to voting member of the etcd cluster"),
    "unjoined": ("False", "NotAMember", "Node is not a member of the etcd cluster"),
}


class Controllers:
    def __init__(self, store):
        self.store, self.database = store, store.database
        self.seen, self.requeued, self.begun = {}, {}, time.monotonic()

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
            if self.database.managed:
                self.membership(node)
        if self.database.managed:
            self.conditions(nodes)
        self.pods(nodes)

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

    def membership(self, node):
        """The managed-etcd-controller: members go with their nodes, or when a node asks for it."""
        meta = node["metadata"]
        name, notes = meta["name"], meta.get("annotations", {})
        if "deletionTimestamp" in meta:
            if _FINALIZER in meta.get("finalizers", []) and self.requeued.get(name, 0) < time.monotonic():
                self.deleted(node)
        elif _FINALIZER not in meta.get("finalizers", []):
            self.store.update(
                "nodes", "", name, lambda item: item["metadata"].setdefault("finalizers", []).append(_FINALIZER)
            )
        elif _ETCD_ROLE in meta.get("labels", {}) and _REMOVE in notes and self.requeued.get(name, 0) < time.monotonic():
            self.asked(node)

    def deleted(self, node):
        meta = node["metadata"]
        name, notes = meta["name"], meta.get("annotations", {})
        if _ETCD_ROLE in meta.get("labels", {}) and not notes.get(_REMOVED):
            if not self.annotated(name, notes):
                return
            log.info(f"Removing etcd member from cluster due to node delete name={notes[MEMBER]}")
            try:
                self.remove(notes[MEMBER])
            except Refusal as problem:
                self.again(name, str(problem))
                return
        self.store.delete("secrets", "kube-system", f"{name}.node-password.k3s")
        self.store.delete("apiservers", "", name)
        self.store.update("nodes", "", name, lambda item: item["metadata"]["finalizers"].remove(_FINALIZER))

    def asked(self, node):
        name, notes = node["metadata"]["name"], node["metadata"]["annotations"]
        member = notes.get(MEMBER)
        if _REMOVED in notes:
            if member and notes[_REMOVED] != member:
                log.info("Resetting removed node flag as removed node name does not match current node name")
                self.annotate(name, {}, [_REMOVED, _REMOVE])
            return
        if not self.annotated(name, notes) or notes[_REMOVE].lower() != "true":
            return
        log.info(f"Removing etcd member from cluster due to remove annotation name={member}")
        try:
            self.remove(member)
        except Refusal as problem:
            log.error(f"etcd member removal rejected, clearing remove annotation: {problem}")
            self.annotate(name, {}, [_REMOVE])
            return
        log.info("etcd emember removed successfully")
        self.annotate(name, {_REMOVED: member}, [MEMBER, MEMBER_ADDRESS])

    def annotated(self, name, notes):
        if MEMBER in notes:
            return True
        self.again(name, f"node name annotation for node {name} not found")
        return False

    def again(self, name, problem):
        log.error(f"error syncing '{name}': handler managed-etcd-controller: {problem}, requeuing")
        self.requeued[name] = time.monotonic() + _REQUEUE

    def remove(self, member):
        log.info(f"Removing name={member} from etcd")
        self.database.remove(member)

    def annotate(self, name, added, dropped):
        def change(item):
            notes = item["metadata"].setdefault("annotations", {})
            notes.update(added)
            for key in dropped:
                notes.pop(key, None)

        self.store.update("nodes", "", name, change)

    def conditions(self, nodes):
        """EtcdIsVoter."""
        members, healthy = self.database.list_members(), self.database.healthy()
        for node in nodes:
            if _ETCD_ROLE not in node["metadata"].get("labels", {}):
                continue
            member = node["metadata"].get("annotations", {}).get(MEMBER)
            state = "unjoined" if member not in members else "learner" if members[member]["learner"] else "voter"
            status, reason, message = _CONDITIONS[state]
            if state != "unjoined" and member not in healthy:
                status, reason, message = "False", "Unhealthy", "Node is unhealthy"
            old = condition(node, "EtcdIsVoter")
            if old is None or (old["status"], old["reason"]) != (status, reason):
                new = {"status": status, "reason": reason, "message": message, "lastTransitionTime": now()}
                self.store.update(
                    "nodes", "", node["metadata"]["name"], lambda item: set_condition(item, "EtcdIsVoter", new)
                )

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
