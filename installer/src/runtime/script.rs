//! Runtime `script`: bring your own distribution. The image's `scripts/runtime/` says how hosts become a cluster.
//!
//! | script | when, where | must |
//! | --- | --- | --- |
//! | `init.sh` | first, on the first master | make this host a cluster of one master, and write a kubeconfig to `$KUBECONFIG` if there is such a thing |
//! | `join.sh` | then, on each further host | make this host a member |
//! | `leave.sh` | on a host that leaves a cluster that stays | give up the membership |
//! | `reset.sh` | when the cluster is deleted, on each host | remove what the others made, also where they ended halfway |
//!
//! Only `init.sh` has to be there, and `join.sh` for more hosts than one. Each is run by `bash SCRIPT ROLE` in the rootfs, with standard input closed, and has
//! to do for a second time what it did the first time: a run that is interrupted starts the script again. A copy of
//! `scripts/runtime/` is kept outside the rootfs, so `reset.sh` is there even when the rootfs is not.
//!
//! In the environment, besides the image's and the user's variables and those of sealer (`RegistryDomain`,
//! `RegistryPort`, `RegistryURL`, `HostIP`…):
//!
//! | variable | is |
//! | --- | --- |
//! | `ROOTFS` | the unpacked image; `$ROOTFS/bin`, then a folder with `sealrs`, is in front of `PATH` (for all scripts and commands) |
//! | `CLUSTER` | the cluster's name (for all scripts and commands) |
//! | `ROLE` | `master` or `node` |
//! | `HOST_IP` | this host's address |
//! | `MASTER_IP` | the address of the first master, which ran `init.sh` |
//! | `MASTER_IPS` | the addresses of all masters, with commas between them |
//! | `REGISTRY_DOMAIN`, `REGISTRY_PORT`, `REGISTRY_URL` | the private registry; the last one is `domain:port` |
//! | `REGISTRY_CA` | the file of its certificate authority |
//! | `KUBECONFIG` | where the administrator's kubeconfig belongs |

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};

use super::{Departure, Diagnosis, Layout, Leaving, Runtime, RuntimePlan};
use crate::action::{Action, Claim, FileCopy, Program};
use crate::cluster::ClusterFiles;
use crate::command::word;
use crate::facts::HostFacts;
use crate::member::Role;
use crate::options::Options;
use crate::plan::{Context, Peer, Step};
use crate::preflight::Finding;
use crate::registry;

/// Where the scripts lie in the rootfs.
const FOLDER: &str = "scripts/runtime/";

/// Bring your own distribution.
#[derive(Debug)]
pub(super) struct Script;

impl Runtime for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn layout(&self) -> Layout {
        Layout {
            kubeconfig: true,
            ..Layout::default()
        }
    }

    fn disk(&self, _: u64) -> Vec<(PathBuf, u64)> {
        Vec::new()
    }

    fn preflight(&self, _: &HostFacts, _: &ClusterImage, options: &Options) -> Vec<Finding> {
        let given = (!options.runtime_config.is_empty()).then(|| {
            Finding::error(
                "runtime-config",
                "runtime script takes no settings by `--runtime-config`",
                "give its scripts variables with `-e NAME=value`",
            )
        });
        given.into_iter().collect()
    }

    fn plan(&self, context: &Context<'_>) -> Result<RuntimePlan> {
        let (name, id, title) = if context.is_founder() {
            ("init.sh", "runtime-init", "make the cluster")
        } else {
            ("join.sh", "runtime-join", "join the cluster")
        };
        if !context.rootfs.has(&format!("{FOLDER}{name}")) {
            return Err(Error::new(
                ErrorKind::Input,
                format!("the image has no {FOLDER}{name}, which runtime script starts"),
            )
            .hint("add it to the rootfs and build the image again"));
        }
        let kept = context.files.data().join(FOLDER);
        let files: Vec<FileCopy> = context
            .rootfs
            .below(FOLDER)
            .map(|(path, _)| FileCopy {
                from: context.files.rootfs().join(path),
                to: context.files.data().join(path),
                mode: None,
            })
            .collect();
        let mut prepare = vec![context.step(
            "runtime-scripts",
            "keep the runtime's scripts",
            Action::CopyFiles { files, link: false },
        )?];
        if context.rootfs.has(&format!("{FOLDER}reset.sh")) {
            let reset = program(context, word(&kept.join("reset.sh")));
            prepare.push(context.step(
                "runtime-claim",
                "note how the runtime is removed",
                Action::Claim(vec![Claim::Command(reset)]),
            )?);
        }
        let script = program(context, word(&context.files.rootfs().join(FOLDER).join(name)));
        Ok(RuntimePlan {
            prepare,
            join: vec![context.step(id, title, Action::Run(script))?],
            ..RuntimePlan::default()
        })
    }

    fn leave(&self, departure: &Departure<'_>) -> Result<Leaving> {
        // Whether the image has it is known on the host alone.
        let script = word(&departure.files.data().join(FOLDER).join("leave.sh"));
        let program = Program {
            argv: ["bash", "-c", "[ ! -e \"$0\" ] || exec bash \"$0\" \"$ROLE\"", &script]
                .map(str::to_owned)
                .to_vec(),
            folder: departure.files.data(),
            env: variables(
                departure.peer.role,
                departure.peer.address,
                departure.peers,
                departure.files,
            ),
        };
        let leave = Step::on(
            departure.peer.address,
            "runtime-leave",
            "leave the cluster",
            Action::Run(program),
        )?;
        Ok(Leaving {
            there: vec![leave],
            ..Leaving::default()
        })
    }

    fn diagnose(&self, _: &str) -> Option<Diagnosis> {
        None
    }
}

fn program(context: &Context<'_>, script: String) -> Program {
    let options = context.options;
    let mut env = variables(context.role, context.host, context.peers, context.files);
    for (name, value) in [
        ("REGISTRY_DOMAIN", options.registry_domain.clone()),
        ("REGISTRY_PORT", options.registry_port.to_string()),
        ("REGISTRY_URL", options.registry_url()),
    ] {
        env.insert(name.to_owned(), value);
    }
    Program {
        argv: vec!["bash".to_owned(), script, context.role.to_string()],
        folder: context.files.rootfs(),
        env,
    }
}

fn variables(role: Role, host: IpAddr, peers: &[Peer], files: &ClusterFiles) -> BTreeMap<String, String> {
    let masters: Vec<String> = peers
        .iter()
        .filter(|peer| peer.role == Role::Master)
        .map(|master| master.address.to_string())
        .collect();
    let env = [
        ("ROLE", role.to_string()),
        ("HOST_IP", host.to_string()),
        ("MASTER_IP", masters.first().cloned().unwrap_or_default()),
        ("MASTER_IPS", masters.join(",")),
        ("REGISTRY_CA", word(&registry::ca(files))),
        ("KUBECONFIG", word(&files.kubeconfig())),
    ];
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
