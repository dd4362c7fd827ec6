"""Members of etcd whose node is to go: k3s's managed-etcd-controller, and the condition EtcdIsVoter."""

import time

import log
from controllers import Controllers, condition, set_condition
from peers import Refusal
from store import now

MEMBER = "etcd.k3s.cattle.io/node-name"
MEMBER_ADDRESS = "etcd.k3s.cattle.io/node-address"
_REMOVE = "etcd.k3s.cattle.io/remove"
_REMOVED = "etcd.k3s.cattle.io/removed-node-name"
_ETCD_ROLE = "node-role.kubernetes.io/etcd"
_FINALIZER = "wrangler.cattle.io/managed-etcd-controller"
_REQUEUE = 2.0
_CONDITIONS = {
    "voter": ("True", "MemberNotLearner", "Node is a voting member of the etcd cluster"),
    "learner": ("False", "MemberIsLearner", "Node has not been promoted to voting member of the etcd cluster"),
    "unjoined": ("False", "NotAMember", "Node is not a member of the etcd cluster"),
}


class Members(Controllers):
    def __init__(self, store):
        super().__init__(store)
        self.requeued = {}

    def members(self, nodes):
        if self.database.managed:
            for node in nodes:
                self.membership(node)
            self.conditions(nodes)

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
