//! How a node leaves: its pods go elsewhere, a server gives up its vote while it can still agree to that, and its Node goes
//! when the host has stopped, for a kubelet that runs would make it again.

use sealrs_image::error::Result;

use super::super::{Departure, Leaving};
use super::KUBECONFIG;
use crate::action::{Action, Probe, Program};
use crate::command::word;
use crate::member::Role;
use crate::plan::Step;

/// Asks k3s to take the server's member out of etcd (k3s, pkg/etcd).
const REMOVE: &str = "etcd.k3s.cattle.io/remove=true";
/// Where k3s notes that it did, as a JSON pointer.
const REMOVED: &str = "/metadata/annotations/etcd.k3s.cattle.io~1removed-node-name";

pub(super) fn leave(departure: &Departure<'_>) -> Result<Leaving> {
    let node = departure.peer.hostname.to_ascii_lowercase();
    let step = |id: &str, title: String, action: Action| {
        let id = format!("{id}-{}", departure.peer.address);
        Step::on(departure.speaker, id, title, action)
    };
    let run = |arguments: &[&str]| Action::Run(kubectl(departure, arguments));
    let mut before = vec![step(
        "drain",
        format!("drain node {node}"),
        // One whose kubelet is gone never ends its pods: that is not waited for for ever.
        run(&[
            "drain",
            &node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--grace-period=30",
            "--timeout=120s",
        ]),
    )?];
    let masters = departure.peers.iter().filter(|peer| peer.role == Role::Master).count();
    if departure.peer.role == Role::Master && masters > 1 && departure.quorum {
        before.push(step(
            "leave-etcd",
            format!("take node {node} out of etcd"),
            run(&["annotate", "node", &node, REMOVE, "--overwrite"]),
        )?);
        let probe = Probe::Has {
            what: format!("node {node} is out of etcd"),
            argv: kubectl(departure, &["get", "node", &node, "-o", "json"]).argv,
            env: kubectl(departure, &[]).env,
            pointer: REMOVED.to_owned(),
        };
        before.push(step(
            "left-etcd",
            format!("wait until node {node} is out of etcd"),
            Action::Wait {
                probes: vec![probe],
                seconds: 120,
                service: None,
                remedy: Some(
                    "look at the log of k3s on the other masters: etcd refuses when too few members are up".to_owned(),
                ),
            },
        )?);
    }
    let delete = run(&["delete", "node", &node, "--ignore-not-found", "--timeout=60s"]);
    Ok(Leaving {
        before,
        there: Vec::new(),
        after: vec![step("delete-node", format!("delete node {node}"), delete)?],
    })
}

fn kubectl(departure: &Departure<'_>, arguments: &[&str]) -> Program {
    let cache = format!("--cache-dir={}", word(&departure.files.kubectl_cache()));
    let program = word(&departure.files.programs().join("kubectl"));
    Program {
        argv: [program, cache]
            .into_iter()
            .chain(arguments.iter().map(|&argument| argument.to_owned()))
            .collect(),
        folder: departure.files.data(),
        env: [("KUBECONFIG".to_owned(), KUBECONFIG.to_owned())].into(),
    }
}
