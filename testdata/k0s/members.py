"""What one controller does for all: EtcdMember objects against the members that there are, roles of Nodes, and the
certificates that kubelets ask for."""

import base64
import os
import time

import log
import pki
import product
from controllers import Controllers, condition, set_condition
from store import Failure, now

SHUTDOWN = "k0s.k0sproject.io/shutdown"
_CONTROL_PLANE, _ROLE = "node-role.kubernetes.io/control-plane", "node.k0sproject.io/role"
_ROLES_AFTER_READY = 2.5
_RESYNC = 1.0
_USAGES = {
    "kubernetes.io/kube-apiserver-client-kubelet": "clientAuth",
    "kubernetes.io/kubelet-serving": "serverAuth",
}


class Members(Controllers):
    def __init__(self, store, own_name):
        super().__init__(store)
        self.own_name, self.synced, self.ready_since = own_name, 0.0, {}

    def members(self, nodes):
        self.sign()
        self.roles(nodes)
        if self.database.managed and time.monotonic() - self.synced > _RESYNC:
            self.synced = time.monotonic()
            members = self.database.list_members()
            for item in self.store.list(product.ETCD_MEMBERS):
                self.reconcile(item, members)

    def sign(self):
        """Approves and signs what kubelets ask for."""
        for item in self.store.list("certificatesigningrequests"):
            usage = _USAGES.get(item["spec"]["signerName"])
            if "certificate" in item.get("status", {}) or not usage:
                continue
            extensions = f"keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n"
            if usage == "serverAuth":
                names = item["spec"]["extra"]["names"]
                extensions += f"subjectAltName={pki.alternatives(names)}\n"
            request = base64.b64decode(item["spec"]["request"]).decode()
            signed = pki.sign_request(os.path.join(product.PKI, "ca"), request, extensions)
            status = {"certificate": base64.b64encode(signed.encode()).decode()}
            name = item["metadata"]["name"]
            self.store.update("certificatesigningrequests", "", name, lambda found: found.update(status=status))

    def roles(self, nodes):
        for node in nodes:
            name, labels = node["metadata"]["name"], node["metadata"].get("labels", {})
            ready = condition(node, "Ready")
            if labels.get(_ROLE) != "control-plane" or _CONTROL_PLANE in labels or not ready or ready["status"] != "True":
                continue
            since = self.ready_since.setdefault(name, time.monotonic())
            if time.monotonic() - since > _ROLES_AFTER_READY:
                self.store.update("nodes", "", name, lambda item: item["metadata"]["labels"].update({_CONTROL_PLANE: "true"}))

    def reconcile(self, item, members):
        name, joined = item["metadata"]["name"], condition(item, "Joined")
        if name not in members:
            if joined is None or joined["status"] != "False":
                self.store.update(product.ETCD_MEMBERS, "", name, lambda found: set_joined(found, False, "No such member ID"))
            return
        if not item.get("spec", {}).get("leave"):
            return
        voters = [member for member, what in members.items() if not what["learner"]]
        if voters == [name]:
            said = "The only active controller cannot leave the etcd cluster; either bring another controller online or clear spec.leave"
            self.store.update(product.ETCD_MEMBERS, "", name, lambda found: found["status"].update(message=said))
        elif SHUTDOWN not in item["metadata"].get("labels", {}):
            fields = {"component": "etcdMemberReconciler", "name": name}
            log.info("Requesting member shutdown before deletion", **fields)
            self.store.update(
                product.ETCD_MEMBERS, "", name, lambda found: found["metadata"].setdefault("labels", {}).update({SHUTDOWN: "x"})
            )


def set_joined(item, joined, message):
    since = condition(item, "Joined")
    status = str(joined)
    if since is None or since["status"] != status:
        set_condition(item, "Joined", {"status": status, "message": message, "lastTransitionTime": now()})
    item["status"].update(message=message, reconcileStatus="Success")


def announce(store, name, url):
    """The objects of this controller: made, or as of one that has come back."""
    address = url.removeprefix("https://").rpartition(":")[0]
    status = {"peerAddress": address, "memberID": f"{abs(hash(name)):x}"}
    log.info("creating EtcdMember object", component="etcdMemberReconciler", phase="createMemberObject", name=name)
    body = {"apiVersion": "etcd.k0sproject.io/v1beta1", "kind": "EtcdMember", "metadata": {"name": name}}
    create(store, product.ETCD_MEMBERS, "", body | {"spec": {"leave": False}, "status": status})

    def joins(item):
        item["spec"] = {"leave": False}
        item["metadata"].get("labels", {}).pop(SHUTDOWN, None)
        item["status"] = item.get("status", {}) | status
        set_joined(item, True, "Member joined")

    store.update(product.ETCD_MEMBERS, "", name, joins)


def create(store, plural, namespace, body):
    """Makes an object unless it is there."""
    try:
        store.create(plural, namespace, body)
    except Failure as problem:
        if problem.code != 409:
            raise
