//! Runtime `k0s`: the image's `bin/k0s` as a controller or a worker, its `images/` imported at start, its `etc/k0s/k0s.yaml`
//! merged with the Clusterfile's `ClusterConfig` and with what sealrs computes, and every registry host of the bundled images
//! mirrored to the private registry.
//!
//! Units, system users and registry settings are written here and not by `k0s install`, and what was made is removed here and
//! not by `k0s reset`: that one leaves much behind, and takes with it system users that were there before.
//!
//! The founder gets the cluster's authority and its key for service accounts before its first start. A host that joins an etcd
//! gets a token that is made known right before and forgotten right after, for a controller's token opens the authority's
//! key. Controllers with a datastore elsewhere get the authority themselves and need no token.

mod claims;
mod config;
mod diagnose;
pub(crate) mod fields;
mod flags;
mod images;
mod leave;
mod start;
mod tokens;
mod tools;
mod users;

use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::error::{Error, ErrorKind, Result};

use claims::claims;
use config::Config;
use flags::{Flags, Roles};

use super::{Departure, Diagnosis, Layout, Leaving, Runtime, RuntimePlan};
use crate::action::{Action, Content, FileCopy, FileWrite, Mode};
use crate::facts::HostFacts;
use crate::member::Role;
use crate::options::Options;
use crate::plan::{Context, Peer, Step, runtime_minor, runtime_version};
use crate::preflight::Finding;

/// The configuration that an image may bring.
const IMAGE_CONFIG: &str = "etc/k0s/k0s.yaml";
const PROGRAM: &str = "bin/k0s";
/// k0s's own places.
const DATA: &str = "/var/lib/k0s";
const CONFIG: &str = "/etc/k0s/k0s.yaml";
const TOKEN: &str = "/etc/k0s/token";
const CONTAINERD: &str = "/etc/k0s/containerd.d";
const KUBECONFIG: &str = "/var/lib/k0s/pki/admin.conf";
const SOCKET: &str = "/run/k0s/containerd.sock";
/// Its services, and their sub-commands.
const CONTROLLER: (&str, &str) = ("k0scontroller", "controller");
const WORKER: (&str, &str) = ("k0sworker", "worker");

/// k0s with one controller or many, and workers.
#[derive(Debug)]
pub(super) struct K0s;

impl Runtime for K0s {
    fn name(&self) -> &'static str {
        "k0s"
    }

    fn layout(&self) -> Layout {
        Layout {
            needs_root: true,
            own_containerd: true,
            quorum: true,
            kubeconfig: true,
            ports: &[10248, 10249, 10250, 10256],
            master_ports: &[2379, 2380, 6443, 8132, 8133, 9443, 10257, 10259],
            leftovers: &[
                "/etc/systemd/system/k0scontroller.service",
                "/etc/systemd/system/k0sworker.service",
                CONFIG,
                TOKEN,
                DATA,
            ],
            programs: &tools::LINKS,
            documents: &[IMAGE_CONFIG],
        }
    }

    /// k0s unpacks itself, and containerd keeps each imported image packed and unpacked.
    fn disk(&self, bundle: u64) -> Vec<(PathBuf, u64)> {
        vec![(DATA.into(), bundle.saturating_mul(3).saturating_add(1 << 30))]
    }

    fn preflight(&self, facts: &HostFacts, image: &ClusterImage, options: &Options) -> Vec<Finding> {
        let mut findings = Vec::new();
        let flags = match Flags::from_user(&options.runtime_config) {
            Ok(flags) => Some(flags),
            Err(error) => {
                let remedy = error.remedy().unwrap_or("correct `--runtime-config`").to_owned();
                findings.push(Finding::error("runtime-config", error.to_string(), remedy));
                None
            }
        };
        if facts.main_address().is_none() {
            findings.push(Finding::error(
                "address",
                "this host has no address but its loopback's, and k0s needs one",
                "give an interface an address, a dummy interface's will do",
            ));
        }
        let lower = facts.hostname.to_ascii_lowercase();
        let label = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
        if lower.is_empty() || !lower.chars().all(label) {
            findings.push(Finding::error(
                "hostname",
                format!("the host name `{}` can't be a node's name", facts.hostname),
                "use letters, digits, `-` and `.` only: k0s takes a node's name from its host",
            ));
        }
        let told = flags.is_some_and(|flags| flags.is_on("ignore-pre-flight-checks"));
        if !facts.cgroup_v2 && !told && runtime_minor(image).is_some_and(|minor| minor >= (1, 35)) {
            findings.push(Finding::error(
                "cgroup",
                format!(
                    "this host has cgroups of version 1, with which k0s {} runs no pods",
                    runtime_version(image).unwrap_or_default()
                ),
                "boot with cgroups of version 2 (kernel parameter systemd.unified_cgroup_hierarchy=1), or pass \
                 `--runtime-config ignore-pre-flight-checks=true` and give k0s.yaml a worker profile with `failCgroupV1: false`",
            ));
        }
        findings
    }

    fn plan(&self, context: &Context<'_>) -> Result<RuntimePlan> {
        if !context.rootfs.has(PROGRAM) {
            return Err(Error::new(
                ErrorKind::Input,
                format!("the image has no {PROGRAM}, which runtime k0s starts"),
            )
            .hint("add the k0s binary to the rootfs and build the image again"));
        }
        let minor = minor(context)?;
        let mut notes = Vec::new();
        let flags = Flags::from_user(&context.options.runtime_config)?;
        let config = Config::of(context, minor, &flags, &mut notes)?;
        if config.shows_source() && context.is_founder() {
            notes.push(
                "k0s starts kine with the data source on its command line: whoever may log in to a master sees a password in it"
                    .to_owned(),
            );
        }
        let roles = Roles::of(context, &flags);
        let program = program_path(context.facts);
        let mut prepare = vec![context.step("k0s-claim", "note what k0s will make", Action::Claim(claims(context)))?];
        if context.role == Role::Master {
            prepare.push(users::step(context)?);
            prepare.extend(tokens::authorities(context, &config)?);
            prepare.push(write(context, "k0s-config", "configure k0s", CONFIG, config.content())?);
        }
        prepare.push(context.step(
            "k0s-program",
            "install k0s",
            Action::CopyFiles {
                files: vec![FileCopy {
                    from: context.files.rootfs().join(PROGRAM),
                    to: program.clone(),
                    mode: Some(Mode(0o755)),
                }],
                link: false,
            },
        )?);
        prepare.push(start::check_version(context, &program, minor)?);
        if context.role == Role::Master {
            prepare.push(start::check_config(context, &program)?);
        }
        prepare.extend(tools::links(context, &program)?);
        let mut bytes = 0;
        if roles.workloads {
            prepare.push(images::registries(context, minor)?);
            let (archives, size) = images::archives(context)?;
            bytes = size;
            if !archives.is_empty() {
                prepare.push(context.step(
                    "k0s-images",
                    "give k0s the bundled images",
                    Action::CopyFiles {
                        files: archives,
                        link: true,
                    },
                )?);
            }
        }
        let mut plan = RuntimePlan {
            prepare,
            notes,
            ..RuntimePlan::default()
        };
        if tokens::is_invited(context, &config) {
            plan.invite = tokens::invite(context)?;
            plan.join.push(tokens::give(context, &config)?);
            plan.settled = tokens::forget(context)?;
        }
        plan.join
            .extend(start::start(context, &program, &flags, roles, &config, bytes)?);
        if context.role == Role::Master {
            plan.join.extend(tools::kubeconfig(context)?);
        }
        Ok(plan)
    }

    fn settle(&self, founder: &Context<'_>) -> Result<Vec<Step>> {
        let names: Vec<String> = founder
            .peers
            .iter()
            .filter(|peer| peer.role == Role::Node)
            .map(|peer| peer.hostname.to_ascii_lowercase())
            .collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![start::all_ready(founder, &program_path(founder.facts), names)?])
    }

    fn grow(&self, founder: &Context<'_>, _: &[Peer]) -> Result<Vec<Step>> {
        let flags = Flags::from_user(&founder.options.runtime_config)?;
        if flags.is_on("single") {
            return Err(Error::new(
                ErrorKind::Input,
                "a cluster that was installed with `--runtime-config single=true` can't get more hosts",
            )
            .hint("install it without that setting: k0s keeps its data in etcd then, and one host is enough as well"));
        }
        Ok(Vec::new())
    }

    fn has_quorum(&self, options: &Options) -> bool {
        !config::is_elsewhere(&options.runtime_documents)
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

/// The first two numbers of k0s's version: what it reads depends on them.
fn minor(context: &Context<'_>) -> Result<(u32, u32)> {
    runtime_minor(context.image).ok_or_else(|| {
        let what = match runtime_version(context.image) {
            None => "the image does not say which k0s it has, and what k0s reads depends on that".to_owned(),
            Some(version) => format!("`{}` is not a version of k0s", version.escape_debug()),
        };
        Error::new(ErrorKind::Input, what).hint(format!(
            "build the image with LABEL \"{}\"=\"v1.36.3+k0s.2\", or whatever `k0s version` prints",
            name::RUNTIME_VERSION
        ))
    })
}

/// Where the binary goes: where upstream's installer puts it.
fn program_path(facts: &HostFacts) -> PathBuf {
    let folder = if facts.usr_local_read_only {
        "/opt/bin"
    } else {
        "/usr/local/bin"
    };
    Path::new(folder).join("k0s")
}

/// The name of this host's node, and of its member of etcd.
fn node_name(context: &Context<'_>) -> String {
    context.facts.hostname.to_ascii_lowercase()
}

fn secret_file(path: impl AsRef<Path>, content: Content) -> FileWrite {
    FileWrite {
        path: path.as_ref().to_owned(),
        mode: Mode(0o600),
        content,
    }
}

fn write(context: &Context<'_>, id: &str, title: &str, path: &str, content: Content) -> Result<Step> {
    let action = Action::WriteFile {
        path: path.into(),
        mode: Mode(0o600),
        content,
    };
    context.step(id, title, action)
}

#[cfg(test)]
mod tests;
