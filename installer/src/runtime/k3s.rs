//! Runtime `k3s`: the image's `bin/k3s` as a server or an agent, its `images/` imported at start, its
//! `etc/k3s/config.yaml` merged with what the user (`K3sConfig`, `--runtime-config`) and sealrs set, and every registry host of the bundled images
//! mirrored to the private registry.
//!
//! One server keeps its data in SQLite, several in embedded etcd, or all of them in a datastore elsewhere. With etcd the first one founds the cluster, and the others
//! join it one after the other. Certificate authorities and tokens are made before the first start, so that every host
//! knows at once whom it trusts and whom it lets in.

mod claims;
pub(crate) mod config;
mod diagnose;
mod images;
mod leave;
mod secrets;
mod start;
mod tools;

use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};

use claims::claims;
use images::{archives, registries};
use tools::{LINKS, kubeconfig, links};

use super::{Departure, Diagnosis, Layout, Leaving, Runtime, RuntimePlan, marks};
use crate::action::{Action, FileCopy, Mode};
use crate::facts::HostFacts;
use crate::member::Role;
use crate::options::Options;
use crate::plan::{Context, Peer, Step, runtime_minor, runtime_version};
use crate::preflight::Finding;
use crate::yaml;

/// The configuration that an image may bring.
const IMAGE_CONFIG: &str = "etc/k3s/config.yaml";
const PROGRAM: &str = "bin/k3s";
/// k3s's own places.
const DATA: &str = "/var/lib/rancher/k3s";
const CONFIG: &str = "/etc/rancher/k3s/config.yaml";
const REGISTRIES: &str = "/etc/rancher/k3s/registries.yaml";
const TOKEN: &str = "/etc/rancher/k3s/token";
const AGENT_TOKEN: &str = "/etc/rancher/k3s/agent-token";
const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";
const SOCKET: &str = "/run/k3s/containerd/containerd.sock";

/// k3s with one server or many, and agents.
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
            quorum: true,
            kubeconfig: true,
            ports: &[6444, 10248, 10249, 10250, 10256],
            master_ports: &[6443, 10257, 10258, 10259],
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
        if let Err(error) = config::check_documents(&options.runtime_documents) {
            let problem = [error.to_string()].into_iter().chain(error.causes());
            findings.push(Finding::error(
                "runtime-config",
                problem.collect::<Vec<_>>().join(": "),
                error.remedy().unwrap_or("correct the Clusterfile"),
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
        let settings = match context.role {
            Role::Master => config::server(context, &mut notes)?,
            Role::Node => config::agent(context, &mut notes)?,
        };
        let settings = serde_json::Value::Object(settings);
        let mut prepare =
            vec![context.step("k3s-claim", "note what k3s will make", Action::Claim(claims(&settings)))?];
        prepare.extend(secrets::steps(context)?);
        prepare.extend([
            write(
                context,
                "k3s-config",
                "configure k3s",
                CONFIG,
                &yaml::document(&settings),
            )?,
            write(
                context,
                "k3s-registries",
                "let k3s pull from the private registry",
                REGISTRIES,
                &registries(context)?,
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
        ]);
        prepare.extend(links(context, &program)?);
        let (archives, bytes) = archives(context, &mut notes);
        if !archives.is_empty() {
            prepare.push(context.step(
                "k3s-images",
                "give k3s the bundled images",
                Action::CopyFiles {
                    files: archives,
                    link: true,
                },
            )?);
        }
        let join = match context.role {
            Role::Master => {
                let mut join = start::server(context, &program, &node_name(context, &settings), bytes)?;
                join.extend(kubeconfig(context)?);
                join
            }
            Role::Node => start::agent(context, &program, bytes)?,
        };
        Ok(RuntimePlan {
            prepare,
            join,
            notes,
            ..RuntimePlan::default()
        })
    }

    fn settle(&self, founder: &Context<'_>) -> Result<Vec<Step>> {
        if founder.peers.len() < 2 {
            return Ok(Vec::new());
        }
        let names = founder
            .peers
            .iter()
            .map(|peer| peer.hostname.to_ascii_lowercase())
            .collect();
        Ok(vec![start::all_ready(founder, &program_path(founder.facts), names)?])
    }

    /// A server with SQLite can't be joined: it takes its data over into etcd first.
    fn grow(&self, founder: &Context<'_>, before: &[Peer]) -> Result<Vec<Step>> {
        let had = before.iter().filter(|peer| peer.role == Role::Master).count();
        if had > 1 || founder.masters().count() < 2 || config::is_elsewhere(founder.options) {
            return Ok(Vec::new());
        }
        let mut notes = Vec::new();
        let settings = serde_json::Value::Object(config::server(founder, &mut notes)?);
        let mut steps = vec![write(
            founder,
            "k3s-etcd",
            "let k3s keep its data in etcd",
            CONFIG,
            &yaml::document(&settings),
        )?];
        let node = node_name(founder, &settings);
        steps.extend(start::again(founder, &program_path(founder.facts), &node)?);
        Ok(steps)
    }

    fn has_quorum(&self, options: &Options) -> bool {
        !config::is_elsewhere(options)
    }

    fn node_name(&self, peer: &Peer, options: &Options) -> String {
        let given = config::given_name(options);
        given.as_ref().unwrap_or(&peer.hostname).to_ascii_lowercase()
    }

    fn leave(&self, departure: &Departure<'_>) -> Result<Leaving> {
        leave::leave(departure)
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
    let documents = options.runtime_documents.iter().map(ToString::to_string);
    let told = options
        .runtime_config
        .iter()
        .cloned()
        .chain(documents)
        .any(|setting| setting.contains("fail-cgroupv1=false"));
    (!facts.cgroup_v2 && runtime_minor(image)? >= (1, 35) && !told).then(|| {
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

/// The name of this host's node.
fn node_name(context: &Context<'_>, settings: &serde_json::Value) -> String {
    let given = settings.get("node-name").and_then(|name| name.as_str());
    given.unwrap_or(&context.facts.hostname).to_ascii_lowercase()
}

fn write(context: &Context<'_>, id: &str, title: &str, path: &str, text: &str) -> Result<Step> {
    let action = Action::WriteFile {
        path: path.into(),
        mode: Mode(0o600),
        content: marks::content(text),
    };
    context.step(id, title, action)
}

#[cfg(test)]
mod tests;
