//! Starts k3s and waits until the cluster is ready.

use std::collections::BTreeMap;
use std::path::Path;

use sealrs_image::error::Result;

use super::KUBECONFIG;
use crate::action::{Action, Probe};
use crate::command::word;
use crate::plan::{Context, Step};
use crate::service::Service;

/// Bytes a second that an import was seen to handle.
const IMPORT_SPEED: u64 = 80_000_000;
/// Slow machines start in a minute or two; failures that are known end the wait much earlier.
const START_SECONDS: u64 = 300;

/// From a host where all is in its place to a server that answers; `import` bytes of images are imported meanwhile. A
/// server that joins is ready when it votes.
pub(super) fn server(context: &Context<'_>, program: &Path, node: &str, import: u64) -> Result<Vec<Step>> {
    let service = service(program, "k3s", "server");
    let probes = vec![
        Probe::Service(service.name.clone()),
        Probe::Prints {
            what: "the API server is ready".to_owned(),
            argv: kubectl(context, program, &["get", "--raw=/readyz"]),
            env: environment(),
            starts: "ok".to_owned(),
        },
        Probe::NodeReady {
            names: vec![node.to_owned()],
            argv: kubectl(context, program, &["get", "nodes", "-o", "json"]),
            env: environment(),
        },
        // A pod that is made before it is refused.
        Probe::Prints {
            what: "the default service account is there".to_owned(),
            argv: kubectl(
                context,
                program,
                &["get", "serviceaccount", "default", "-n", "default", "-o", "name"],
            ),
            env: environment(),
            starts: "serviceaccount/default".to_owned(),
        },
    ];
    let name = service.name.clone();
    Ok(vec![
        context.step("k3s", "start k3s", Action::Service(service))?,
        wait(
            context,
            "wait for the cluster",
            probes,
            START_SECONDS + import / IMPORT_SPEED,
            name,
        )?,
    ])
}

/// Starts a server anew with other settings, until it answers.
pub(super) fn again(context: &Context<'_>, program: &Path, node: &str) -> Result<Vec<Step>> {
    let mut steps = server(context, program, node, 0)?;
    for step in &mut steps {
        if let Action::Service(service) = &step.action {
            *step = context.step("k3s-again", "start k3s anew", Action::Restart(service.clone()))?;
        }
    }
    Ok(steps)
}

/// From a host where all is in its place to an agent that has joined.
pub(super) fn agent(context: &Context<'_>, program: &Path, import: u64) -> Result<Vec<Step>> {
    let service = service(program, "k3s-agent", "agent");
    let name = service.name.clone();
    let probes = vec![Probe::Service(name.clone())];
    Ok(vec![
        context.step("k3s", "start the agent of k3s", Action::Service(service))?,
        wait(
            context,
            "wait until the host has joined",
            probes,
            START_SECONDS + import / IMPORT_SPEED,
            name,
        )?,
    ])
}

/// Waits on a server until all nodes are ready.
pub(super) fn all_ready(context: &Context<'_>, program: &Path, names: Vec<String>) -> Result<Step> {
    let probes = vec![Probe::NodeReady {
        names,
        argv: kubectl(context, program, &["get", "nodes", "-o", "json"]),
        env: environment(),
    }];
    let action = Action::Wait {
        probes,
        seconds: START_SECONDS,
        service: None,
        remedy: Some("look at the log of k3s or k3s-agent on the host of the node that is not ready".to_owned()),
    };
    context.step("k3s-all-ready", "wait for all nodes", action)
}

fn wait(context: &Context<'_>, title: &str, probes: Vec<Probe>, seconds: u64, service: String) -> Result<Step> {
    let action = Action::Wait {
        probes,
        seconds,
        service: Some(service),
        remedy: None,
    };
    context.step("k3s-ready", title, action)
}

fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("KUBECONFIG".to_owned(), KUBECONFIG.to_owned())])
}

/// kubectl on a server. Its cache is told: else it would make folders in the home of who installs before they are noted.
pub(super) fn kubectl(context: &Context<'_>, program: &Path, arguments: &[&str]) -> Vec<String> {
    let cache = format!("--cache-dir={}", word(&context.files.kubectl_cache()));
    let mut argv = vec![word(program), "kubectl".to_owned(), cache];
    argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    argv
}

/// The unit, as upstream's installer writes it.
fn service(program: &Path, name: &str, command: &str) -> Service {
    let unit_lines = [
        "EnvironmentFile=-/etc/default/%N",
        "EnvironmentFile=-/etc/sysconfig/%N",
        "KillMode=process",
        "Delegate=yes",
        "LimitNOFILE=1048576",
        "LimitNPROC=infinity",
        "LimitCORE=infinity",
        "TasksMax=infinity",
        "TimeoutStartSec=0",
        "ExecStartPre=-/sbin/modprobe br_netfilter",
        "ExecStartPre=-/sbin/modprobe overlay",
    ];
    Service {
        name: name.to_owned(),
        description: "Lightweight Kubernetes".to_owned(),
        argv: vec![word(program), command.to_owned()],
        env: BTreeMap::new(),
        notifies: true,
        restart_seconds: 5,
        unit_lines: unit_lines.map(str::to_owned).to_vec(),
    }
}
