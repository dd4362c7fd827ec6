"""A node's life: it is registered, gets its network, is ready, and then runs pods."""

import time

import kubelet_port
import log
from store import Failure

# Seconds: short, but in the order and with the gaps of the real one, so that who does not wait fails.
_READY_AFTER_REGISTERING = 0.4
_ROLES_AFTER_READY = 0.4
_HEARTBEAT = 2.0


def run(kubelet, address, labels, taints, network, port, registered=None, roles=None, alone=True, goes_on=lambda: True):
    """Registers the node and keeps it, for as long as it goes on.

    `network()` gives the network of its pods, or None while there is none; `port` are certificate, key and clients'
    authority of the kubelet's port; `roles` changes the Node some time after it is Ready, and is told.
    """
    store, name = kubelet.store, kubelet.node_name
    kubelet.prepare()
    _insist(lambda: kubelet.register(address, labels, taints))
    if kubelet.runtime:
        kubelet_port.listen("0.0.0.0", *port, kubelet.log_of)
        kubelet.network = _insist(network)
    if registered:
        registered()
    time.sleep(_READY_AFTER_REGISTERING)
    _insist(lambda: kubelet.set_ready(_has_network(kubelet)))
    if roles:
        time.sleep(_ROLES_AFTER_READY)
        _insist(lambda: store.update("nodes", "", name, roles[0]))
        roles[1]()
    beat = time.monotonic()
    while goes_on():
        try:
            if not _has_network(kubelet):
                kubelet.network = network()
                beat = 0
            else:
                kubelet.sync()
            if time.monotonic() - beat > _HEARTBEAT:
                beat = time.monotonic()
                kubelet.set_ready(_has_network(kubelet))
        except Failure as problem:
            log.error(f'Error updating node status, will retry: error getting node "{name}": {problem}')
            time.sleep(1)
        time.sleep(0.2 if alone else 0.5)


def _has_network(kubelet):
    return kubelet.runtime is None or kubelet.network is not None


def _insist(action):
    while True:
        try:
            return action()
        except Failure:
            time.sleep(0.5)
