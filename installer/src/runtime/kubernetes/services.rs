//! What a host has to have before kubeadm comes: programs, the kernel's settings, the kubelet's service, and the balancer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sealrs_image::error::Result;

use super::{API_PORT, containerd, file, program, state, trust};
use crate::action::{Action, Content, FileCopy, Mode, Program};
use crate::command::word;
use crate::facts::HOSTS_FILE;
use crate::member::Role;
use crate::plan::{Context, Step};
use crate::service::Service;

/// The name by which every host reaches the API servers, as sealer has it. It leads to the host itself.
pub(super) const ENDPOINT: &str = "apiserver.cluster.local";
/// Where its balancer listens: API servers have the usual port.
pub(super) const BALANCER_PORT: u16 = 6444;
pub(super) const KUBELET: &str = "kubelet";
const BALANCER: &str = "sealrs-apiserver";

/// Programs of the image that services run.
const OF_SERVICES: [&str; 6] = [
    "kubelet",
    "containerd",
    "containerd-shim",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
];
/// Programs of the image for people.
const OF_PEOPLE: [&str; 3] = ["kubeadm", "kubectl", "crictl"];

const MODULES: &str = "/etc/modules-load.d/sealrs-kubernetes.conf";
const SYSCTLS: &str = "/etc/sysctl.d/90-sealrs-kubernetes.conf";

/// Where services look for programs: the cluster's own come first.
pub(super) fn search_path(context: &Context<'_>) -> String {
    format!(
        "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        word(&context.files.programs()),
        word(&context.files.rootfs().join("bin"))
    )
}

/// crictl, with the cluster's containerd.
pub(super) fn crictl(context: &Context<'_>, arguments: &[&str]) -> Vec<String> {
    let endpoint = containerd::endpoint();
    let mut argv = vec![word(&program(context, "crictl"))];
    argv.extend(["-r", &endpoint, "-i", &endpoint].map(str::to_owned));
    argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    argv
}

pub(super) fn kernel_files(context: &Context<'_>) -> Result<Step> {
    let text = |text: &str| Content::Text(format!("# Written by sealrs.\n{text}"));
    let sysctls =
        "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1\n";
    let files = vec![
        file(MODULES, 0o644, text("overlay\nbr_netfilter\n")),
        file(SYSCTLS, 0o644, text(sysctls)),
    ];
    context.step(
        "kernel-files",
        "have the kernel set up for pods at each boot",
        Action::WriteFiles(files),
    )
}

/// A kernel may have all of it built in, and a container can't load modules: what counts is what is set at the end.
pub(super) fn kernel(context: &Context<'_>) -> Result<Step> {
    const SCRIPT: &str = r#"
set -eu
for module in overlay br_netfilter; do modprobe "$module" 2>/dev/null || true; done
set_to_1() { [ ! -e "/proc/sys/$1" ] || [ "$(cat "/proc/sys/$1")" = 1 ] || echo 1 >"/proc/sys/$1"; }
set_to_1 net/ipv4/ip_forward
set_to_1 net/bridge/bridge-nf-call-ip6tables
set_to_1 net/bridge/bridge-nf-call-iptables
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || {
    echo "the kernel has no br_netfilter, without which services are not reached: install the package with its modules" >&2
    exit 1
}"#;
    let action = Action::Run(shell(context, SCRIPT, &[]));
    context.step("kernel", "set up the kernel for pods", action)
}

/// A shell script in the cluster's folder.
pub(super) fn shell(context: &Context<'_>, script: &str, variables: &[(&str, String)]) -> Program {
    Program {
        argv: ["sh", "-c", script.trim_start()].map(str::to_owned).to_vec(),
        folder: context.files.data(),
        env: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    }
}

/// Copies what the image brings of the programs that services run to a place that stays when the rootfs is replaced.
pub(super) fn programs(context: &Context<'_>) -> Result<Step> {
    let files = OF_SERVICES
        .iter()
        .filter(|name| context.rootfs.has(&format!("bin/{name}")))
        .map(|name| copy(program(context, name), context.files.programs().join(name)))
        .collect();
    let action = Action::CopyFiles { files, link: true };
    context.step("kubernetes-programs", "install the programs of services", action)
}

/// Gives people their programs.
pub(super) fn tools(context: &Context<'_>) -> Result<Step> {
    let folder = if context.facts.usr_local_read_only {
        "/opt/bin"
    } else {
        "/usr/local/bin"
    };
    let files = OF_PEOPLE
        .iter()
        .filter(|name| !context.facts.programs.contains(**name))
        .map(|name| copy(program(context, name), Path::new(folder).join(name)))
        .collect();
    let action = Action::CopyFiles { files, link: false };
    context.step("kubernetes-tools", "install kubeadm, kubectl and crictl", action)
}

/// Network plugins of the image, where containerd and the pods of networks look for them.
pub(super) fn network_plugins(context: &Context<'_>) -> Result<Option<Step>> {
    const FOLDER: &str = "bin/cni/";
    let files: Vec<FileCopy> = context
        .rootfs
        .below(FOLDER)
        .map(|(path, _)| {
            let name = path.trim_start_matches(FOLDER);
            copy(context.files.rootfs().join(path), Path::new("/opt/cni/bin").join(name))
        })
        .collect();
    if files.is_empty() {
        return Ok(None);
    }
    let action = Action::CopyFiles { files, link: false };
    context
        .step("network-plugins", "install the network plugins", action)
        .map(Some)
}

fn copy(from: PathBuf, to: PathBuf) -> FileCopy {
    FileCopy {
        from,
        to,
        mode: Some(Mode(0o755)),
    }
}

/// The kubelet's service, as upstream's packages have it. It does nothing before kubeadm has written its configuration.
pub(super) fn kubelet(context: &Context<'_>) -> Result<Step> {
    const COMMAND: &str = "exec \"$KUBELET\" --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
        --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS";
    let service = Service {
        name: KUBELET.to_owned(),
        description: "kubelet: The Kubernetes Node Agent".to_owned(),
        argv: ["/bin/sh", "-c", COMMAND].map(str::to_owned).to_vec(),
        env: BTreeMap::from([
            ("KUBELET".to_owned(), word(&context.files.programs().join(KUBELET))),
            ("PATH".to_owned(), search_path(context)),
        ]),
        notifies: false,
        restart_seconds: 10,
        unit_lines: [
            "ExecCondition=/bin/sh -c 'test -e /var/lib/kubelet/config.yaml'",
            "EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env",
            "EnvironmentFile=-/etc/default/kubelet",
            "EnvironmentFile=-/etc/sysconfig/kubelet",
            "CPUAccounting=true",
            "MemoryAccounting=true",
        ]
        .map(str::to_owned)
        .to_vec(),
    };
    context.step("kubelet", "install the kubelet", Action::Service(service))
}

/// The balancer before the API servers, and the name that leads to it.
pub(super) fn balancer(context: &Context<'_>) -> Result<Vec<Step>> {
    let local = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let servers = state(context.files).join("servers");
    let addresses: String = context
        .masters()
        .map(|master| format!("{}\n", master.address))
        .collect();
    let mut argv = vec![
        word(&context.files.program()),
        "node".to_owned(),
        "balance".to_owned(),
        "--listen".to_owned(),
        format!("{local}:{BALANCER_PORT}"),
        "--port".to_owned(),
        API_PORT.to_string(),
        "--ca".to_owned(),
        word(&trust::ca(context)),
        "--servers".to_owned(),
        word(&servers),
    ];
    if context.role == Role::Master {
        argv.extend(["--first".to_owned(), context.host.to_string()]);
    }
    // The kubelet's own rights are enough to see who is a master.
    argv.extend(["--".to_owned(), word(&program(context, "kubectl"))]);
    argv.push(format!("--cache-dir={}", word(&context.files.kubectl_cache())));
    argv.extend(
        [
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            "get",
            "nodes",
            "--selector=node-role.kubernetes.io/control-plane",
            "--output=jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}",
        ]
        .map(str::to_owned),
    );
    let service = Service {
        name: BALANCER.to_owned(),
        description: "Balancer before the API servers of the cluster".to_owned(),
        argv,
        env: BTreeMap::new(),
        notifies: false,
        restart_seconds: 2,
        unit_lines: vec!["LimitNOFILE=65536".to_owned()],
    };
    Ok(vec![
        context.step(
            "api-servers",
            "tell the host the addresses of the API servers",
            Action::WriteFiles(vec![file(servers, 0o644, Content::Text(addresses))]),
        )?,
        context.step(
            "api-name",
            "make the API servers known by their name",
            Action::HostsEntry {
                path: HOSTS_FILE.into(),
                cluster: format!("{}/api", context.options.cluster),
                address: local,
                names: vec![ENDPOINT.to_owned()],
            },
        )?,
        context.step(
            "api-balancer",
            "start the balancer before the API servers",
            Action::Service(service),
        )?,
    ])
}
