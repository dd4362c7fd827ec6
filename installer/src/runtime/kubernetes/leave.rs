//! How a host leaves: its pods go elsewhere, a master's member of etcd is taken out by one that stays while all others are up,
//! and its Node goes when the host has stopped. What is on the host is removed by what was written down, and not by
//! `kubeadm reset`: that one empties a master's etcd also where the other members can't agree that it has left.

use sealrs_image::error::Result;

use super::super::{Departure, Leaving};
use super::KUBECONFIG;
use super::containerd;
use super::tokens::{ETCD, etcd_variables};
use crate::action::{Action, Program};
use crate::command::word;
use crate::member::Role;
use crate::plan::Step;

/// A node whose kubelet is gone never ends its pods: that is not waited for for ever.
const DRAIN: &str = r#"
set -eu
found=$(timeout 60 kubectl get node "$NODE" --ignore-not-found -o name)
[ -n "$found" ] || exit 0
kubectl drain "$NODE" --ignore-daemonsets --delete-emptydir-data --force --grace-period=30 --timeout=120s"#;

const LEAVE: &str = r#"
[ -e /etc/kubernetes/manifests/etcd.yaml ] || exit 0
members=$(etcdctl member list)
own=$(printf '%s\n' "$members" | awk -F', ' -v peer="https://$PEER:2380" '$4 == peer { print $1 }')
[ -n "$own" ] || exit 0
others_are_up
etcdctl member remove "$own""#;

const DELETE: &str = r#"
set -eu
timeout 90 kubectl delete node "$NODE" --ignore-not-found --timeout=60s"#;

pub(super) fn leave(departure: &Departure<'_>) -> Result<Leaving> {
    let node = departure.peer.hostname.to_ascii_lowercase();
    let step = |id: &str, title: String, script: &str| {
        let id = format!("{id}-{}", departure.peer.address);
        let action = Action::Run(program(departure, &node, script));
        Step::on(departure.speaker, id, title, action)
    };
    let mut before = vec![step("drain", format!("drain node {node}"), DRAIN)?];
    let masters = departure.peers.iter().filter(|peer| peer.role == Role::Master).count();
    if departure.peer.role == Role::Master && masters > 1 {
        before.push(step(
            "leave-etcd",
            format!("take {node} out of etcd"),
            &format!("{ETCD}\n{LEAVE}"),
        )?);
    }
    Ok(Leaving {
        before,
        there: Vec::new(),
        after: vec![step("delete-node", format!("delete node {node}"), DELETE)?],
    })
}

fn program(departure: &Departure<'_>, node: &str, script: &str) -> Program {
    let files = departure.files;
    let endpoint = containerd::endpoint();
    let crictl = [
        word(&files.rootfs().join("bin/crictl")),
        "-r".to_owned(),
        endpoint.clone(),
        "-i".to_owned(),
        endpoint,
    ];
    let variables = [("NODE", node.to_owned()), ("KUBECONFIG", KUBECONFIG.to_owned())];
    let variables = variables
        .into_iter()
        .chain(etcd_variables(&crictl, departure.peer.address));
    Program {
        argv: ["sh", "-c", script.trim_start()].map(str::to_owned).to_vec(),
        folder: files.data(),
        env: variables.map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}
