//! From hosts that are prepared to a cluster: kubeadm, and waiting until what it made is there.

use std::collections::BTreeMap;

use sealrs_image::error::Result;

use super::config::Config;
use super::images::Images;
use super::services::{KUBELET, shell};
use super::version::Version;
use super::{KUBECONFIG, PKI, containerd, node_name, program, secret_file, state, tokens};
use crate::action::{Action, Claim, FileCopy, Mode, Probe};
use crate::command::word;
use crate::member::Role;
use crate::plan::{Context, Step};

/// Slow machines start in a minute or two; failures that are known end the wait much earlier.
const SECONDS: u64 = 300;

/// Says whether kubeadm reads its documents as they are meant, and whether all that it wants is in the image, before anything
/// is started: it drops fields that it does not know, and looks for no pause image but its own.
const CHECK: &str = r#"
set -eu
wanted=$("$KUBEADM" config images list --config "$STATE/kubeadm.yaml")
missing=
for image in $wanted; do
    case "
$BUNDLED
" in *"
$image
"*) ;; *) missing="$missing $image" ;; esac
done
[ -z "$missing" ] || { echo "the image lacks container images that kubeadm wants:$missing" >&2; exit 1; }
case "
$wanted
" in *"
$PAUSE
"*) ;; *) echo "kubeadm wants another pause image than $PAUSE, which containerd is told to use" >&2; exit 1 ;; esac"#;

/// What a try that was cut off left is taken back first: kubeadm does not go on in the middle.
const KUBEADM: &str = r#"
set -eu
[ ! -e "$STATE/done" ] || exit 0
if [ -e "$STATE/begun" ]; then
    "$KUBEADM" reset --force --cri-socket "$SOCKET"
    rm -rf /var/lib/etcd/member
fi
: >"$STATE/begun"
mkdir -p /etc/kubernetes/manifests
if [ -e "$STATE/pki" ]; then
    mkdir -p "$PKI"
    cp -rp "$STATE/pki/." "$PKI/"
fi
"$KUBEADM" $COMMAND --config "$STATE/kubeadm.yaml"
: >"$STATE/done""#;

/// On a master the API is at hand by its own address, which the certificate is for as well.
const KEEP: &str = r#"
set -eu
umask 077
sed 's|^\( *server:\) .*|\1 https://127.0.0.1:6443|' "$ADMIN" >"$KUBECONFIG.new"
mv "$KUBECONFIG.new" "$KUBECONFIG""#;

/// All programs have to be of the version that the image says: what they read depends on it.
pub(super) fn check_versions(context: &Context<'_>, version: &Version) -> Result<Step> {
    let prints = |name: &str, arguments: &[&str], starts: String| Probe::Prints {
        what: format!("`{name}` says that it is {}", version.text),
        argv: [word(&program(context, name))]
            .into_iter()
            .chain(arguments.iter().map(|&argument| argument.to_owned()))
            .collect(),
        env: BTreeMap::new(),
        starts,
    };
    let action = Action::Wait {
        probes: vec![
            prints("kubeadm", &["version", "-o", "short"], version.text.clone()),
            prints("kubelet", &["--version"], format!("Kubernetes {}", version.text)),
        ],
        seconds: 15,
        service: None,
        remedy: Some(
            "build the image again with the label of the version that its programs have, and for this host's architecture"
                .to_owned(),
        ),
    };
    context.step(
        "kubernetes-version",
        "see that kubeadm and kubelet are those that the image says",
        action,
    )
}

/// The steps by which the first master founds the cluster.
pub(super) fn found(context: &Context<'_>, config: &Config, images: &Images) -> Result<Vec<Step>> {
    let check = [
        ("KUBEADM", word(&program(context, "kubeadm"))),
        ("STATE", word(&state(context.files))),
        ("PAUSE", images.pause(config.repository())?),
        ("BUNDLED", images.below(config.repository()).join("\n")),
    ];
    let file = secret_file(state(context.files).join("kubeadm.yaml"), config.init());
    let mut steps = vec![
        context.step("kubeadm-config", "configure kubeadm", Action::WriteFiles(vec![file]))?,
        watched(
            context,
            "kubeadm-check",
            "see that kubeadm has what it wants",
            CHECK,
            &check,
        )?,
        kubeadm(context, "kubeadm-init", "found the cluster", "init --skip-token-print")?,
    ];
    steps.extend(master(context)?);
    Ok(steps)
}

/// The steps by which a host joins.
pub(super) fn join(context: &Context<'_>, config: &Config) -> Result<Vec<Step>> {
    let content = config.join(&tokens::token(context))?;
    let file = secret_file(state(context.files).join("kubeadm.yaml"), content);
    let mut steps = vec![
        context.step("kubeadm-config", "configure kubeadm", Action::WriteFiles(vec![file]))?,
        kubeadm(context, "kubeadm-join", "join the cluster", "join")?,
    ];
    match context.role {
        Role::Master => steps.extend(master(context)?),
        Role::Node => {
            let kubelet = "/etc/kubernetes/kubelet.conf";
            let probes = vec![Probe::Service(KUBELET.to_owned()), is_known(context, kubelet)];
            steps.push(ready(context, probes)?);
        }
    }
    Ok(steps)
}

/// kubeadm, while the kubelet's log is read.
fn kubeadm(context: &Context<'_>, id: &str, title: &str, command: &str) -> Result<Step> {
    let variables = [
        ("KUBEADM", word(&program(context, "kubeadm"))),
        ("STATE", word(&state(context.files))),
        ("SOCKET", containerd::endpoint()),
        ("PKI", PKI.to_owned()),
        ("COMMAND", command.to_owned()),
    ];
    watched(context, id, title, KUBEADM, &variables)
}

fn watched(context: &Context<'_>, id: &str, title: &str, script: &str, variables: &[(&str, String)]) -> Result<Step> {
    let action = Action::RunWatched {
        program: shell(context, script, variables),
        service: KUBELET.to_owned(),
    };
    context.step(id, title, action)
}

/// A kubeconfig, and waiting until a master does its part.
fn master(context: &Context<'_>) -> Result<Vec<Step>> {
    let own = word(&context.files.kubeconfig());
    let variables = [("ADMIN", KUBECONFIG.to_owned()), ("KUBECONFIG", own.clone())];
    let mut steps = vec![context.step(
        "kubeconfig",
        "keep the kubeconfig",
        Action::Run(shell(context, KEEP, &variables)),
    )?];
    if let Some(home) = &context.facts.home {
        let folder = home.join(".kube");
        steps.push(context.step(
            "kubeconfig-home",
            "offer the kubeconfig to kubectl",
            Action::OfferFile(FileCopy {
                from: context.files.kubeconfig(),
                to: folder.join("config"),
                mode: Some(Mode(0o600)),
            }),
        )?);
        steps.push(context.step(
            "kubectl-cache",
            "note where kubectl keeps its cache",
            Action::Claim(vec![Claim::Tree(folder.join("cache"))]),
        )?);
    }
    let probes = vec![
        Probe::Service(KUBELET.to_owned()),
        Probe::Prints {
            what: "the API server is ready".to_owned(),
            argv: kubectl(context, &["get", "--raw=/readyz"]),
            env: environment(&own),
            starts: "ok".to_owned(),
        },
        is_known(context, &own),
        // A pod that is made before it is refused.
        Probe::Prints {
            what: "the default service account is there".to_owned(),
            argv: kubectl(
                context,
                &["get", "serviceaccount", "default", "-n", "default", "-o", "name"],
            ),
            env: environment(&own),
            starts: "serviceaccount/default".to_owned(),
        },
    ];
    steps.push(ready(context, probes)?);
    Ok(steps)
}

/// The node is there; it is ready when it has a network.
fn is_known(context: &Context<'_>, kubeconfig: &str) -> Probe {
    let node = node_name(context);
    Probe::Prints {
        what: format!("the cluster knows node {node}"),
        argv: kubectl(context, &["get", "node", &node, "-o", "name"]),
        env: environment(kubeconfig),
        starts: format!("node/{node}"),
    }
}

fn ready(context: &Context<'_>, probes: Vec<Probe>) -> Result<Step> {
    let action = Action::Wait {
        probes,
        seconds: SECONDS,
        service: Some(KUBELET.to_owned()),
        remedy: None,
    };
    let title = match context.role {
        Role::Master => "wait for the control plane",
        Role::Node => "wait until the host has joined",
    };
    context.step("kubernetes-ready", title, action)
}

/// Waits on a master until all nodes are ready.
pub(super) fn all_ready(context: &Context<'_>, names: Vec<String>) -> Result<Step> {
    let action = Action::Wait {
        probes: vec![Probe::NodeReady {
            names,
            argv: kubectl(context, &["get", "nodes", "-o", "json"]),
            env: environment(&word(&context.files.kubeconfig())),
        }],
        seconds: SECONDS,
        service: None,
        remedy: Some(
            "a node is ready when it has a network, which the image's CMDS have to start: look at the pods in all \
             namespaces with `kubectl get pods -A`, and at the kubelet's log on the host"
                .to_owned(),
        ),
    };
    context.step("kubernetes-all-ready", "wait for all nodes", action)
}

fn environment(kubeconfig: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("KUBECONFIG".to_owned(), kubeconfig.to_owned())])
}

/// kubectl. Its cache is told: else it would make folders in the home of who installs before they are noted.
fn kubectl(context: &Context<'_>, arguments: &[&str]) -> Vec<String> {
    let cache = format!("--cache-dir={}", word(&context.files.kubectl_cache()));
    let mut argv = vec![word(&program(context, "kubectl")), cache];
    argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    argv
}
