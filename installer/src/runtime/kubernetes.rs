//! Runtime `kubernetes`: upstream's programs, made a cluster by the image's `bin/kubeadm`.
//!
//! The kubelet and containerd run as services. containerd has a configuration, a socket and data of its own, so that one which
//! was on the host before goes on as it was; its program is the image's, or else the host's.
//!
//! Certificate authorities, the key for service accounts and tokens are made beforehand, so that nothing that kubeadm prints
//! has to be understood. Every host reaches the API servers through a balancer on its own loopback ([`crate::balancer`]): the
//! endpoint's name leads there on all of them, and stays so whatever masters come and go.
//!
//! kubeadm's documents are those of the image and of the Clusterfile, with what sealrs knows better. Nodes are ready when they
//! have a network, which is what the image starts: so that is waited for at the very end.

mod claims;
mod config;
mod containerd;
mod diagnose;
mod images;
mod leave;
mod sealers;
mod services;
mod start;
mod tokens;
mod trust;
mod version;

use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};

use config::Config;
use images::Images;
use version::Version;

use super::{Departure, Diagnosis, Layout, Leaving, Runtime, RuntimePlan};
use crate::action::{Action, Content, FileWrite, Mode};
use crate::cluster::ClusterFiles;
use crate::facts::HostFacts;
use crate::member::Role;
use crate::options::Options;
use crate::plan::{Context, Peer, Step, runtime_minor, runtime_version};
use crate::preflight::Finding;
use crate::service::Manager;

/// kubeadm's documents that an image may bring, at sealer's place.
const IMAGE_CONFIG: &str = "etc/kubeadm.yml";
/// What the image has to bring.
const NEEDED: [&str; 4] = ["kubeadm", "kubelet", "kubectl", "crictl"];
const KUBECONFIG: &str = "/etc/kubernetes/admin.conf";
/// kubeadm's own place for certificates.
const PKI: &str = "/etc/kubernetes/pki";
const API_PORT: u16 = 6443;

/// Upstream's Kubernetes, by kubeadm.
#[derive(Debug)]
pub(super) struct Kubernetes;

impl Runtime for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn layout(&self) -> Layout {
        Layout {
            needs_root: true,
            own_containerd: true,
            quorum: true,
            kubeconfig: true,
            ports: &[services::BALANCER_PORT, 10248, 10249, 10250, 10256],
            master_ports: &[2379, 2380, 2381, API_PORT, 10257, 10259],
            leftovers: &[
                "/etc/kubernetes/admin.conf",
                "/etc/kubernetes/kubelet.conf",
                "/etc/kubernetes/pki",
                "/etc/systemd/system/kubelet.service",
                "/etc/systemd/system/kubelet.service.d",
                "/etc/systemd/system/sealrs-containerd.service",
                "/lib/systemd/system/kubelet.service.d",
                "/var/lib/etcd/member",
                "/var/lib/kubelet/config.yaml",
                containerd::DATA,
            ],
            programs: &["kubeadm", "kubectl", "crictl"],
            documents: &[IMAGE_CONFIG],
        }
    }

    /// containerd keeps each image packed and unpacked, and etcd and logs grow.
    fn disk(&self, bundle: u64) -> Vec<(PathBuf, u64)> {
        vec![(
            containerd::DATA.into(),
            bundle.saturating_mul(2).saturating_add(1 << 30),
        )]
    }

    fn preflight(&self, facts: &HostFacts, image: &ClusterImage, options: &Options) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !options.runtime_config.is_empty() {
            findings.push(Finding::error(
                "runtime-config",
                "runtime kubernetes takes no settings by `--runtime-config`",
                "give kubeadm's own documents in a Clusterfile, or in etc/kubeadm.yml of the image",
            ));
        }
        if facts.services != Manager::Systemd {
            findings.push(Finding::error(
                "systemd",
                "kubeadm starts the kubelet by systemd, which does not run this host",
                "use a host with systemd, or an image with another runtime",
            ));
        }
        if facts.main_address().is_none() {
            findings.push(Finding::error(
                "address",
                "this host has no address but its loopback's, and Kubernetes needs one",
                "give an interface an address, a dummy interface's will do",
            ));
        }
        let lower = facts.hostname.to_ascii_lowercase();
        let label = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
        if lower.is_empty() || !lower.chars().all(label) {
            findings.push(Finding::error(
                "hostname",
                format!("the host name `{}` can't be a node's name", facts.hostname),
                "use letters, digits, `-` and `.` only: a node has the name of its host",
            ));
        }
        let told = options.runtime_documents.iter().any(config::allows_old_cgroups);
        if !facts.cgroup_v2 && !told && runtime_minor(image).is_some_and(|minor| minor >= (1, 35)) {
            findings.push(Finding::error(
                "cgroup",
                format!(
                    "this host has cgroups of version 1, with which the kubelet of {} does not start",
                    runtime_version(image).unwrap_or_default()
                ),
                "boot with cgroups of version 2 (kernel parameter systemd.unified_cgroup_hierarchy=1), or give a \
                 KubeletConfiguration with `failCgroupV1: false` in a Clusterfile",
            ));
        }
        findings
    }

    fn plan(&self, context: &Context<'_>) -> Result<RuntimePlan> {
        check_programs(context)?;
        let version = Version::of(context.image)?;
        let images = Images::of(context)?;
        let config = Config::of(context, &version, &images)?;
        let mut prepare = vec![
            context.step(
                "kubernetes-claim",
                "note what Kubernetes will make",
                Action::Claim(claims::claims()),
            )?,
            services::kernel_files(context)?,
            services::kernel(context)?,
            services::programs(context)?,
            services::tools(context)?,
        ];
        prepare.extend(services::network_plugins(context)?);
        prepare.push(start::check_versions(context, &version)?);
        prepare.extend(containerd::start(context, &config, &images)?);
        prepare.push(trust::authority(context)?);
        if config.has_balancer() {
            prepare.extend(services::balancer(context)?);
        }
        prepare.push(services::kubelet(context)?);
        if context.role == Role::Master {
            prepare.push(trust::authorities(context)?);
            prepare.extend(sealers::audit_policy(context)?);
        }
        let mut plan = RuntimePlan {
            prepare,
            ..RuntimePlan::default()
        };
        if context.is_founder() {
            plan.join = start::found(context, &config, &images)?;
        } else {
            plan.invite = tokens::invite(context)?;
            plan.join = start::join(context, &config)?;
            plan.settled = tokens::forget(context)?;
        }
        Ok(plan)
    }

    fn finish(&self, founder: &Context<'_>) -> Result<Vec<Step>> {
        let names = founder
            .peers
            .iter()
            .map(|peer| peer.hostname.to_ascii_lowercase())
            .collect();
        Ok(vec![start::all_ready(founder, names)?])
    }

    fn has_quorum(&self, options: &Options) -> bool {
        let documents = &mut options.runtime_documents.iter();
        !documents.any(|document| {
            document
                .pointer("/etcd/external")
                .is_some_and(serde_json::Value::is_object)
        })
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

fn check_programs(context: &Context<'_>) -> Result<()> {
    let bin = |name: &str| context.rootfs.has(&format!("bin/{name}"));
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|name| !bin(name))
        .map(|name| format!("bin/{name}"))
        .collect();
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorKind::Input,
            format!(
                "the image has no {}, which runtime kubernetes needs",
                missing.join(", ")
            ),
        )
        .hint("add them to the rootfs and build the image again; Kubefile.examples/kubernetes shows how"));
    }
    if !bin("containerd") && !context.facts.programs.contains("containerd") {
        sealers::refuse(context)?;
        return Err(Error::new(
            ErrorKind::Input,
            format!("neither the image nor {} has containerd", context.host),
        )
        .hint("add containerd's programs and runc to the image's bin/, or install containerd on the host"));
    }
    Ok(())
}

/// Where what is kept of Kubernetes lies, besides its own places.
fn state(files: &ClusterFiles) -> PathBuf {
    files.data().join("kubernetes")
}

/// A program of the image.
fn program(context: &Context<'_>, name: &str) -> PathBuf {
    context.files.rootfs().join("bin").join(name)
}

/// The name of this host's node.
fn node_name(context: &Context<'_>) -> String {
    context.facts.hostname.to_ascii_lowercase()
}

fn secret_file(path: impl AsRef<Path>, content: Content) -> FileWrite {
    file(path, 0o600, content)
}

fn file(path: impl AsRef<Path>, mode: u32, content: Content) -> FileWrite {
    FileWrite {
        path: path.as_ref().to_owned(),
        mode: Mode(mode),
        content,
    }
}

/// The name of a secret of this runtime.
fn secret(name: &str) -> String {
    format!("kubernetes/{name}")
}

/// Peers by role.
fn has_nodes(peers: &[Peer]) -> bool {
    peers.iter().any(|peer| peer.role == Role::Node)
}

#[cfg(test)]
mod tests;
