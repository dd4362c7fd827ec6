//! Runtime `k3s`: the image's `bin/k3s` as this host's single server, its `images/` imported at start, its
//! `etc/k3s/config.yaml` merged with what the user and sealrs set, and every registry host of the bundled images
//! mirrored to the private registry.

mod config;
mod diagnose;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};

use super::{Diagnosis, Layout, Runtime, RuntimePlan};
use crate::action::{Action, Claim, Content, FileCopy, Mode, Probe};
use crate::command::word;
use crate::facts::HostFacts;
use crate::mirror::Mirror;
use crate::options::Options;
use crate::plan::{Context, Step, runtime_version};
use crate::preflight::Finding;
use crate::registry;
use crate::service::Service;
use crate::yaml;

/// The configuration that an image may bring.
const IMAGE_CONFIG: &str = "etc/k3s/config.yaml";
const PROGRAM: &str = "bin/k3s";
/// k3s's own places.
const DATA: &str = "/var/lib/rancher/k3s";
const CONFIG: &str = "/etc/rancher/k3s/config.yaml";
const REGISTRIES: &str = "/etc/rancher/k3s/registries.yaml";
const TOKEN: &str = "/etc/rancher/k3s/token";
const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";
const SOCKET: &str = "/run/k3s/containerd/containerd.sock";

/// What k3s and its kubelet, containerd and network plugins fill.
const TREES: [&str; 10] = [
    "/var/lib/rancher/k3s",
    "/etc/rancher/k3s",
    "/etc/rancher/node",
    "/run/k3s",
    "/run/flannel",
    "/run/containerd/runc/k8s.io",
    "/var/lib/kubelet",
    "/usr/libexec/kubernetes",
    "/var/log/pods",
    "/var/log/containers",
];

/// Where other containerds, other programs of Rancher, and any package may have something of their own.
const SHARED: [&str; 6] = [
    "/var/lib/rancher",
    "/etc/rancher",
    "/run/containerd",
    "/run/containerd/runc",
    "/run/containerd/s",
    "/usr/libexec",
];

/// Where network plugins lie that are not k3s's. Its own flannel needs nothing there; the pods of another one, which the
/// cluster has instead, put it there.
const PLUGINS: [&str; 4] = ["/etc/cni", "/etc/cni/net.d", "/opt/cni", "/opt/cni/bin"];

/// What network plugins know of containers.
const PLUGIN_STATE: &str = "/var/lib/cni";

/// Interfaces of flannel and of the bridge plugin, as k3s's own killall script lists them.
const INTERFACES: [&str; 7] = [
    "cni0",
    "flannel.1",
    "flannel-v6.1",
    "flannel-wg",
    "flannel-wg-v6",
    "kube-ipvs0",
    "kube-bridge",
];

/// What a kubelet sets in the kernel. Forwarding is left as it is: others may rely on it by now.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Names of archives that k3s imports, compared without regard to case.
const ARCHIVES: [&str; 9] = [
    ".tar", ".tar.lz4", ".tar.bz2", ".tbz", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".txt",
];

/// Names under which the binary is another program.
const LINKS: [&str; 3] = ["kubectl", "crictl", "ctr"];

/// k3s with one server.
#[derive(Debug)]
pub(super) struct K3s;

impl Runtime for K3s {
    fn name(&self) -> &'static str {
        "k3s"
    }

    fn layout(&self) -> Layout {
        Layout {
            needs_root: true,
            own_containerd: true,
            ports: &[6443, 6444, 10248, 10249, 10250, 10256, 10257, 10258, 10259],
            leftovers: &[
                "/etc/systemd/system/k3s.service",
                "/etc/systemd/system/k3s-agent.service",
                CONFIG,
                KUBECONFIG,
                "/var/lib/rancher/k3s/server",
                "/var/lib/rancher/k3s/agent",
            ],
            programs: &LINKS,
            documents: &[IMAGE_CONFIG],
        }
    }

    /// k3s unpacks itself, and containerd keeps each imported image packed and unpacked.
    fn disk(&self, bundle: u64) -> Vec<(PathBuf, u64)> {
        vec![(DATA.into(), bundle.saturating_mul(3).saturating_add(512 << 20))]
    }

    fn preflight(&self, facts: &HostFacts, image: &ClusterImage, options: &Options) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(error) = config::from_user(&options.runtime_config) {
            findings.push(Finding::error(
                "runtime-config",
                error.to_string(),
                error.remedy().unwrap_or("correct `--runtime-config`"),
            ));
        }
        if facts.main_address().is_none() {
            findings.push(Finding::error(
                "address",
                "this host has no address but its loopback's, and k3s needs one",
                "give an interface an address, a dummy interface's will do",
            ));
        }
        let lower = facts.hostname.to_ascii_lowercase();
        let label = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
        if lower.is_empty() || !lower.chars().all(label) {
            findings.push(Finding::error(
                "hostname",
                format!("the host name `{}` can't be a node's name", facts.hostname),
                "use letters, digits, `-` and `.` only, or pass `--runtime-config node-name=NAME`",
            ));
        }
        findings.extend(cgroups(facts, image, options));
        findings
    }

    fn plan(&self, context: &Context<'_>) -> Result<RuntimePlan> {
        if !context.rootfs.has(PROGRAM) {
            return Err(Error::new(
                ErrorKind::Input,
                format!("the image has no {PROGRAM}, which runtime k3s starts"),
            )
            .hint("add the k3s binary to the rootfs and build the image again"));
        }
        let program = program_path(context.facts);
        let mut notes = Vec::new();
        let settings = config::server(context, IMAGE_CONFIG, TOKEN, &mut notes)?;
        let mut steps = vec![
            context.step("k3s-claim", "note what k3s will make", Action::Claim(claims(&settings)))?,
            write(
                context,
                "k3s-token",
                "make the cluster's token",
                TOKEN,
                Content::Secret("k3s-token".into()),
            )?,
            write(
                context,
                "k3s-config",
                "configure k3s",
                CONFIG,
                Content::Text(yaml::document(&settings)),
            )?,
            write(
                context,
                "k3s-registries",
                "let k3s pull from the private registry",
                REGISTRIES,
                Content::Text(registries(context)?),
            )?,
            context.step(
                "k3s-program",
                "install k3s",
                Action::CopyFiles {
                    files: vec![FileCopy {
                        from: context.files.rootfs().join(PROGRAM),
                        to: program.clone(),
                        mode: Some(Mode(0o755)),
                    }],
                    link: false,
                },
            )?,
        ];
        steps.extend(links(context, &program)?);
        let (archives, bytes) = archives(context, &mut notes);
        if !archives.is_empty() {
            steps.push(context.step(
                "k3s-images",
                "give k3s the bundled images",
                Action::CopyFiles {
                    files: archives,
                    link: true,
                },
            )?);
        }
        steps.extend(start(context, &program, bytes)?);
        steps.extend(kubeconfig(context)?);
        Ok(RuntimePlan {
            steps,
            kubeconfig: Some(context.files.kubeconfig()),
            notes,
        })
    }

    fn diagnose(&self, log: &str) -> Option<Diagnosis> {
        diagnose::diagnose(log)
    }

    fn left_out(&self, log: &str) -> Option<Diagnosis> {
        diagnose::left_out(log)
    }
}

/// From Kubernetes 1.35 on, a kubelet refuses to run with cgroups of version 1 unless it is told to.
fn cgroups(facts: &HostFacts, image: &ClusterImage, options: &Options) -> Option<Finding> {
    let version = runtime_version(image)?;
    let mut numbers = version.trim_start_matches('v').split('.');
    let major: u32 = numbers.next()?.parse().ok()?;
    let minor: u32 = numbers.next()?.parse().ok()?;
    let told = options
        .runtime_config
        .iter()
        .any(|setting| setting.contains("fail-cgroupv1=false"));
    (!facts.cgroup_v2 && (major, minor) >= (1, 35) && !told).then(|| {
        Finding::error(
            "cgroup",
            format!("this host has cgroups of version 1, with which Kubernetes {version} does not start"),
            "boot with cgroups of version 2 (kernel parameter systemd.unified_cgroup_hierarchy=1), \
             or pass `--runtime-config kubelet-arg=fail-cgroupv1=false`",
        )
    })
}

/// Where the binary goes: where upstream's installer puts it.
fn program_path(facts: &HostFacts) -> PathBuf {
    let folder = if facts.usr_local_read_only {
        "/opt/bin"
    } else {
        "/usr/local/bin"
    };
    Path::new(folder).join("k3s")
}

fn write(context: &Context<'_>, id: &str, title: &str, path: &str, content: Content) -> Result<Step> {
    let action = Action::WriteFile {
        path: path.into(),
        mode: Mode(0o600),
        content,
    };
    context.step(id, title, action)
}

/// In the order in which it is noted; it is taken back from the end.
fn claims(settings: &serde_json::Value) -> Vec<Claim> {
    let folder = |path: &&str| Claim::Folder(path.into());
    let tree = |path: &&str| Claim::Tree(path.into());
    let mut claims: Vec<Claim> = SHARED.iter().map(folder).collect();
    claims.extend(TREES.iter().map(tree));
    let brings_plugins = settings.get("flannel-backend").is_some_and(|backend| backend == "none");
    claims.extend(
        PLUGINS
            .iter()
            .map(|path| if brings_plugins { tree(path) } else { folder(path) }),
    );
    claims.extend([
        Claim::PodNetworks(PLUGIN_STATE.into()),
        Claim::Sysctls(SYSCTLS.map(str::to_owned).to_vec()),
        Claim::Slice("kubepods".to_owned()),
        Claim::Firewall {
            prefixes: ["KUBE-", "CNI-", "FLANNEL-"].map(str::to_owned).to_vec(),
            // k3s brings iptables for hosts without it.
            programs: vec![
                Path::new(DATA).join("data/current/bin"),
                Path::new(DATA).join("data/current/bin/aux"),
            ],
        },
        Claim::Interfaces(INTERFACES.map(str::to_owned).to_vec()),
        Claim::NetworkNamespaces("cni-".to_owned()),
        Claim::Mounts(
            // Not network namespaces: others have theirs at the same place.
            ["/run/k3s", "/var/lib/kubelet", DATA].map(PathBuf::from).to_vec(),
        ),
        Claim::Processes {
            cgroups: ["kubepods", "kubepods.slice", "k3s.service"]
                .map(str::to_owned)
                .to_vec(),
            socket: SOCKET.into(),
        },
    ]);
    claims
}

/// `registries.yaml`: k3s asks the mirror with the original host as `?ns=`.
fn registries(context: &Context<'_>) -> Result<String> {
    let own_script = context.rootfs.has(registry::INIT_SCRIPT);
    let places = registry::mirrored_hosts(context)?.into_iter().map(|host| {
        let mut places = vec![String::new()];
        // Another registry than ours does not know `?ns=`, but the images lie below their host's name as well.
        if own_script {
            places.push(host.folder());
        }
        (host.to_string(), places)
    });
    Ok(Mirror::of_cluster(context).registries_yaml(&places.collect()))
}

/// `kubectl` and its like: for commands of the image the cluster's own, for people unless the host has others.
fn links(context: &Context<'_>, program: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for name in LINKS {
        steps.push(context.step(
            format!("k3s-own-{name}"),
            format!("let commands of the image find {name}"),
            Action::Link {
                path: context.files.programs().join(name),
                target: program.to_owned(),
            },
        )?);
        if !context.facts.programs.contains(name) {
            steps.push(context.step(
                format!("k3s-{name}"),
                format!("link {name} to k3s"),
                Action::Link {
                    path: program.with_file_name(name),
                    target: "k3s".into(),
                },
            )?);
        }
    }
    Ok(steps)
}

/// The archives that k3s imports, and how many bytes they have unpacked, about.
fn archives(context: &Context<'_>, notes: &mut Vec<String>) -> (Vec<FileCopy>, u64) {
    let mut files = Vec::new();
    let mut bytes: u64 = 0;
    for (path, size) in context.rootfs.below("images/") {
        let name = path.trim_start_matches("images/");
        // Folders are not looked into by k3s.
        if name.contains('/') {
            continue;
        }
        let lower = name.to_ascii_lowercase();
        let Some(kind) = ARCHIVES.iter().find(|kind| lower.ends_with(*kind)) else {
            notes.push(format!(
                "{path} of the image is not imported: k3s does not know such archives"
            ));
            continue;
        };
        let factor = if *kind == ".tar" { 1 } else { 4 };
        bytes = bytes.saturating_add(size.saturating_mul(factor));
        files.push(FileCopy {
            from: context.files.rootfs().join(path),
            to: Path::new(DATA).join("agent/images").join(name),
            mode: None,
        });
    }
    (files, bytes)
}

fn start(context: &Context<'_>, program: &Path, import: u64) -> Result<Vec<Step>> {
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

/// The administrator's kubeconfig, for sealrs and, if there is none yet, for who installs.
fn kubeconfig(context: &Context<'_>) -> Result<Vec<Step>> {
    let copy = |to: PathBuf| FileCopy {
        from: KUBECONFIG.into(),
        to,
        mode: Some(Mode(0o600)),
    };
    let mut steps = vec![context.step(
        "kubeconfig",
        "keep the kubeconfig",
        Action::CopyFiles {
            files: vec![copy(context.files.kubeconfig())],
            link: false,
        },
    )?];
    if let Some(home) = &context.facts.home {
        let folder = home.join(".kube");
        steps.push(context.step(
            "kubeconfig-home",
            "offer the kubeconfig to kubectl",
            Action::OfferFile(copy(folder.join("config"))),
        )?);
        steps.push(context.step(
            "kubectl-cache",
            "note where kubectl keeps its cache",
            Action::Claim(vec![Claim::Tree(folder.join("cache"))]),
        )?);
    }
    Ok(steps)
}

#[cfg(test)]
mod tests;
