//! How a host leaves: its pods go elsewhere, a controller gives up its member of etcd while the others can still agree to that,
//! and its objects go when the host has stopped, for what still runs would make them again.

use sealrs_image::error::Result;

use super::super::{Departure, Leaving};
use super::KUBECONFIG;
use crate::action::{Action, Program};
use crate::command::word;
use crate::member::Role;
use crate::plan::Step;

/// A controller without workloads has no Node. A node whose kubelet is gone never ends its pods: that is not waited for for ever.
const DRAIN: &str = r#"
set -eu
found=$(timeout 60 kubectl get node "$NODE" --ignore-not-found -o name)
[ -n "$found" ] || exit 0
kubectl drain "$NODE" --ignore-daemonsets --delete-emptydir-data --force --grace-period=30 --timeout=120s"#;

/// Where members are objects, the member ends its parts by itself; else it is told to the others. A cluster with its data
/// elsewhere has neither.
const LEAVE: &str = r#"
set -eu
if timeout 60 kubectl get etcdmember "$NODE" >/dev/null 2>&1; then
    timeout 60 kubectl patch etcdmember "$NODE" --type merge -p '{"spec":{"leave":true}}'
    for _ in $(seq 120); do
        joined=$(timeout 60 kubectl get etcdmember "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Joined")].status}')
        [ "$joined" != False ] || exit 0
        sleep 1
    done
    echo "member $NODE is in etcd after two minutes still: look at the log of k0scontroller on the other masters" >&2
    exit 1
fi
members=$(timeout 30 k0s etcd member-list 2>/dev/null || true)
case $members in
*"://$PEER:2380"*) timeout -k 5 90 k0s etcd leave --peer-address "$PEER" ;;
esac"#;

const DELETE: &str = r#"
set -eu
timeout 90 kubectl delete node "$NODE" --ignore-not-found --timeout=60s
for kind in etcdmembers.etcd.k0sproject.io controlnodes.autopilot.k0sproject.io; do
    if timeout 60 kubectl get crd "$kind" >/dev/null 2>&1; then
        timeout 90 kubectl delete "$kind" "$NODE" --ignore-not-found --timeout=60s
    fi
done"#;

pub(super) fn leave(departure: &Departure<'_>) -> Result<Leaving> {
    let node = departure.peer.hostname.to_ascii_lowercase();
    let step = |id: &str, title: String, script: &str| {
        let id = format!("{id}-{}", departure.peer.address);
        Step::on(
            departure.speaker,
            id,
            title,
            Action::Run(program(departure, &node, script)),
        )
    };
    let mut before = vec![step("drain", format!("drain node {node}"), DRAIN)?];
    let masters = departure.peers.iter().filter(|peer| peer.role == Role::Master).count();
    if departure.peer.role == Role::Master && masters > 1 {
        before.push(step("leave-etcd", format!("take {node} out of etcd"), LEAVE)?);
    }
    Ok(Leaving {
        before,
        there: Vec::new(),
        after: vec![step(
            "delete-node",
            format!("delete what the API knows of {node}"),
            DELETE,
        )?],
    })
}

fn program(departure: &Departure<'_>, node: &str, script: &str) -> Program {
    let programs = departure.files.programs();
    let host = match departure.peer.address {
        std::net::IpAddr::V6(address) => format!("[{address}]"),
        address => address.to_string(),
    };
    // The names by which scripts of the image find them are those of this cluster's own.
    let script = format!("PATH={}:$PATH; {}", word(&programs), script.trim_start());
    let variables = [
        ("NODE", node.to_owned()),
        ("PEER", host),
        ("KUBECONFIG", KUBECONFIG.to_owned()),
    ];
    Program {
        argv: vec!["sh".to_owned(), "-c".to_owned(), script],
        folder: departure.files.data(),
        env: variables.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}
