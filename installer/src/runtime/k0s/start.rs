//! Starts k0s and waits until the host is ready.

use std::collections::BTreeMap;
use std::path::Path;

use sealrs_image::error::Result;

use super::config::{Config, Datastore};
use super::flags::{Flags, Roles};
use super::{CONFIG, CONTROLLER, KUBECONFIG, WORKER, minor, node_name, tokens};
use crate::action::{Action, Probe, Program};
use crate::command::word;
use crate::member::Role;
use crate::plan::{Context, Step};
use crate::service::Service;

/// Bytes a second that an import was seen to handle.
const IMPORT_SPEED: u64 = 80_000_000;
/// Slow machines start in a minute or two; failures that are known end the wait much earlier.
const START_SECONDS: u64 = 300;
/// From here on members of etcd are objects of the API.
const HAS_MEMBERS: (u32, u32) = (1, 31);

/// What is configured depends on the version: it has to be the one that the image says.
pub(super) fn check_version(context: &Context<'_>, program: &Path, minor: (u32, u32)) -> Result<Step> {
    let starts = format!("v{}.{}.", minor.0, minor.1);
    let probe = Probe::Prints {
        what: format!("`k0s version` prints {starts}…"),
        argv: vec![word(program), "version".to_owned()],
        env: BTreeMap::new(),
        starts,
    };
    let remedy =
        "build the image again with the label of the version that its bin/k0s has, and for this host's architecture";
    let action = Action::Wait {
        probes: vec![probe],
        seconds: 15,
        service: None,
        remedy: Some(remedy.to_owned()),
    };
    context.step("k0s-version", "see that k0s is the one that the image says", action)
}

/// k0s judges its configuration before it is started with it.
pub(super) fn check_config(context: &Context<'_>, program: &Path) -> Result<Step> {
    let argv = [
        "timeout",
        "-k",
        "5",
        "30",
        &word(program),
        "config",
        "validate",
        "--config",
        CONFIG,
    ];
    let action = Action::Run(Program {
        argv: argv.map(str::to_owned).to_vec(),
        folder: context.files.data(),
        env: BTreeMap::new(),
    });
    context.step("k0s-validate", "let k0s judge its configuration", action)
}

/// From a host where all is in its place to a member that is ready; `import` bytes of images are imported meanwhile.
pub(super) fn start(
    context: &Context<'_>,
    program: &Path,
    flags: &Flags,
    roles: Roles,
    config: &Config,
    import: u64,
) -> Result<Vec<Step>> {
    let arguments = flags.arguments(context, roles, tokens::is_invited(context, config));
    let (service, probes, what) = match context.role {
        Role::Master => (
            service(program, CONTROLLER, arguments),
            controller(context, program, roles, config)?,
            "wait for the controller",
        ),
        Role::Node => (
            service(program, WORKER, arguments),
            vec![Probe::Service(WORKER.0.to_owned()), status(program)],
            "wait until the host has joined",
        ),
    };
    let name = service.name.clone();
    let wait = Action::Wait {
        probes,
        seconds: START_SECONDS + import / IMPORT_SPEED,
        service: Some(name),
        remedy: None,
    };
    Ok(vec![
        context.step("k0s", "start k0s", Action::Service(service))?,
        context.step("k0s-ready", what, wait)?,
    ])
}

/// What holds on a controller that is ready, in the order in which it comes true.
fn controller(context: &Context<'_>, program: &Path, roles: Roles, config: &Config) -> Result<Vec<Probe>> {
    let prints = |what: &str, arguments: &[&str], starts: &str| Probe::Prints {
        what: what.to_owned(),
        argv: kubectl(context, program, arguments),
        env: environment(),
        starts: starts.to_owned(),
    };
    let mut probes = vec![
        Probe::Service(CONTROLLER.0.to_owned()),
        status(program),
        prints("the API server is ready", &["get", "--raw=/readyz"], "ok"),
    ];
    let node = node_name(context);
    if config.datastore == Datastore::Etcd && !context.is_founder() && minor(context)? >= HAS_MEMBERS {
        let joined = "jsonpath={.status.conditions[?(@.type==\"Joined\")].status}";
        probes.push(prints(
            "its member of etcd has joined",
            &["get", "etcdmember", &node, "-o", joined],
            "True",
        ));
    }
    if roles.workloads {
        probes.push(Probe::NodeReady {
            names: vec![node],
            argv: kubectl(context, program, &["get", "nodes", "-o", "json"]),
            env: environment(),
        });
    }
    // A pod that is made before it is refused.
    probes.push(prints(
        "the default service account is there",
        &["get", "serviceaccount", "default", "-n", "default", "-o", "name"],
        "serviceaccount/default",
    ));
    Ok(probes)
}

/// k0s answers at its socket when it has begun, with the bundled images imported.
fn status(program: &Path) -> Probe {
    Probe::Prints {
        what: "k0s says what it does".to_owned(),
        argv: [&word(program), "status", "-o", "json"].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        starts: "{".to_owned(),
    }
}

/// Waits on a controller until all of these nodes are ready.
pub(super) fn all_ready(context: &Context<'_>, program: &Path, names: Vec<String>) -> Result<Step> {
    let probes = vec![Probe::NodeReady {
        names,
        argv: kubectl(context, program, &["get", "nodes", "-o", "json"]),
        env: environment(),
    }];
    let remedy = "look at the log of k0sworker on the host of the node that is not ready";
    let action = Action::Wait {
        probes,
        seconds: START_SECONDS,
        service: None,
        remedy: Some(remedy.to_owned()),
    };
    context.step("k0s-all-ready", "wait for all nodes", action)
}

fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("KUBECONFIG".to_owned(), KUBECONFIG.to_owned())])
}

/// kubectl on a controller. Its cache is told: else it would make folders in the home of who installs before they are noted.
fn kubectl(context: &Context<'_>, program: &Path, arguments: &[&str]) -> Vec<String> {
    let cache = format!("--cache-dir={}", word(&context.files.kubectl_cache()));
    let mut argv = vec![word(program), "kubectl".to_owned(), cache];
    argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    argv
}

/// The unit, as `k0s install` writes it.
fn service(program: &Path, (name, command): (&str, &str), arguments: Vec<String>) -> Service {
    let unit_lines = [
        "KillMode=process",
        "Delegate=yes",
        "LimitCORE=infinity",
        "LimitNOFILE=999999",
        "TasksMax=infinity",
        "TimeoutStartSec=0",
    ];
    Service {
        name: name.to_owned(),
        description: "k0s - Zero Friction Kubernetes".to_owned(),
        argv: [word(program), command.to_owned()]
            .into_iter()
            .chain(arguments)
            .collect(),
        env: BTreeMap::new(),
        notifies: false,
        restart_seconds: 10,
        unit_lines: unit_lines.map(str::to_owned).to_vec(),
    }
}
