//! Starts k3s and waits until the cluster is ready.

use std::collections::BTreeMap;
use std::path::Path;

use sealrs_image::error::Result;

use super::KUBECONFIG;
use crate::action::{Action, Probe};
use crate::command::word;
use crate::plan::{Context, Step};
use crate::service::Service;

/// From a host where all is in its place to a cluster that answers; `import` bytes of images are imported meanwhile.
pub(super) fn start(context: &Context<'_>, program: &Path, import: u64) -> Result<Vec<Step>> {
    /// Bytes a second that an import was seen to handle.
    const IMPORT_SPEED: u64 = 80_000_000;
    /// Slow machines start in a minute or two; failures that are known end the wait much earlier.
    const START_SECONDS: u64 = 300;
    let env = BTreeMap::from([("KUBECONFIG".to_owned(), KUBECONFIG.to_owned())]);
    // Else kubectl would make folders in the home of who installs before they are noted.
    let cache = format!("--cache-dir={}", word(&context.files.kubectl_cache()));
    let kubectl = |arguments: &[&str]| {
        let mut argv = vec![word(program), "kubectl".to_owned(), cache.clone()];
        argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
        argv
    };
    let service = service(program);
    let probes = vec![
        Probe::Service(service.name.clone()),
        Probe::Prints {
            what: "the API server is ready".to_owned(),
            argv: kubectl(&["get", "--raw=/readyz"]),
            env: env.clone(),
            starts: "ok".to_owned(),
        },
        Probe::NodeReady {
            argv: kubectl(&["get", "nodes", "-o", "json"]),
            env: env.clone(),
        },
        // A pod that is made before it is refused.
        Probe::Prints {
            what: "the default service account is there".to_owned(),
            argv: kubectl(&["get", "serviceaccount", "default", "-n", "default", "-o", "name"]),
            env,
            starts: "serviceaccount/default".to_owned(),
        },
    ];
    let name = service.name.clone();
    Ok(vec![
        context.step("k3s", "start k3s", Action::Service(service))?,
        context.step(
            "k3s-ready",
            "wait for the cluster",
            Action::Wait {
                probes,
                seconds: START_SECONDS + import / IMPORT_SPEED,
                service: Some(name),
                remedy: None,
            },
        )?,
    ])
}

/// The unit, as upstream's installer writes it.
fn service(program: &Path) -> Service {
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
        name: "k3s".to_owned(),
        description: "Lightweight Kubernetes".to_owned(),
        argv: vec![word(program), "server".to_owned()],
        env: BTreeMap::new(),
        notifies: true,
        restart_seconds: 5,
        unit_lines: unit_lines.map(str::to_owned).to_vec(),
    }
}
