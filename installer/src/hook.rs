//! Hooks: scripts that run in the rootfs at a phase of the cluster's life (sealer's `kind: Plugin`, type `SHELL`). Those of
//! the image come from its `plugins/*.yaml`, those of the user from the Clusterfile.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sealrs_image::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::action::{Action, Claim, Program};
use crate::clusterfile::Clusterfile;
use crate::member::Role;
use crate::plan::{Context, Step};
use crate::rootfs::RootfsFacts;

/// The image's folder with hooks.
pub(crate) const FOLDER: &str = "plugins/";
/// The kernel takes no longer argument; in bytes.
const LONGEST: usize = 100_000;

/// A script and when it runs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hook {
    /// Its name: hooks of a phase run in the order of their names.
    pub name: String,
    /// When it runs.
    pub phases: Vec<Phase>,
    /// The roles of the hosts that it runs on, in phases of hosts.
    pub scope: Vec<String>,
    /// The script.
    pub script: String,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({} {:?})", self.name, self.phases)
    }
}

/// A point in the life of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before an installation, on the first master.
    PreInstall,
    /// After it.
    PostInstall,
    /// Before a host becomes a member, on this host.
    PreInitHost,
    /// After it.
    PostInitHost,
    /// Before hosts are added, on the first master.
    PreScaleup,
    /// After it.
    PostScaleup,
    /// Before a host is cleaned, on this host.
    PreCleanHost,
    /// After what is on it has stopped.
    PostCleanHost,
    /// Before a cluster is removed, on the first master.
    PreUninstall,
    /// After what is on it has stopped.
    PostUninstall,
    /// In an upgrade, on hosts.
    UpgradeHost,
    /// In an upgrade, on the first master.
    Upgrade,
    /// When an upgrade is taken back, on the first master.
    Rollback,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = serde_json::to_value(self).unwrap_or_default();
        f.write_str(word.as_str().unwrap_or_default())
    }
}

impl FromStr for Phase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        serde_json::from_value(text.into())
            .map_err(|_| Error::new(ErrorKind::Input, format!("`{}` is no phase", text.escape_debug())))
    }
}

impl Phase {
    /// Whether it is one of the hosts of a scope, and not of the first master alone.
    fn is_of_hosts(self) -> bool {
        matches!(
            self,
            Self::PreInitHost | Self::PostInitHost | Self::PreCleanHost | Self::PostCleanHost | Self::UpgradeHost
        )
    }

    /// Whether it runs when something is removed: then it is noted beforehand, with what else has to be taken back.
    fn removes(self) -> bool {
        matches!(
            self,
            Self::PreCleanHost | Self::PostCleanHost | Self::PreUninstall | Self::PostUninstall
        )
    }
}

/// The steps of a phase on a host.
///
/// # Errors
/// [`ErrorKind::Input`] when a hook of the image can't be read.
pub(crate) fn steps(context: &Context<'_>, phase: Phase) -> Result<Vec<Step>> {
    let mut hooks: Vec<Hook> = of_rootfs(context.rootfs)?
        .into_iter()
        .chain(context.options.hooks.iter().cloned())
        .filter(|hook| hook.phases.contains(&phase) && is_meant(hook, phase, context))
        .collect();
    hooks.sort_by(|one, other| one.name.cmp(&other.name));
    let mut steps = Vec::new();
    for (number, hook) in hooks.into_iter().enumerate() {
        let id = format!("hook-{phase}-{}", number + 1);
        let Hook { name, script, .. } = hook;
        let program = Program {
            argv: vec!["bash".to_owned(), "-c".to_owned(), script],
            folder: context.files.rootfs(),
            env: environment(context),
        };
        steps.push(match phase.removes() {
            true => context.step(
                id,
                format!("note hook {name} for {phase}"),
                Action::Claim(vec![Claim::Hook { name, program }]),
            )?,
            false => context.step(id, format!("run hook {name} ({phase})"), Action::Run(program))?,
        });
    }
    Ok(steps)
}

/// The steps of several phases, one after the other.
///
/// # Errors
/// As [`steps`].
pub(crate) fn all(context: &Context<'_>, phases: &[Phase]) -> Result<Vec<Step>> {
    let mut all = Vec::new();
    for &phase in phases {
        all.extend(steps(context, phase)?);
    }
    Ok(all)
}

fn is_meant(hook: &Hook, phase: Phase, context: &Context<'_>) -> bool {
    match phase.is_of_hosts() {
        true => context
            .options
            .roles(context.host, context.role)
            .iter()
            .any(|role| hook.scope.contains(role)),
        false => context.is_founder(),
    }
}

/// A master has a kubeconfig, once there is a cluster.
fn environment(context: &Context<'_>) -> BTreeMap<String, String> {
    let kubeconfig = context.files.kubeconfig().to_string_lossy().into_owned();
    match context.role {
        Role::Master => BTreeMap::from([("KUBECONFIG".to_owned(), kubeconfig)]),
        Role::Node => BTreeMap::new(),
    }
}

fn of_rootfs(rootfs: &RootfsFacts) -> Result<Vec<Hook>> {
    let mut hooks = Vec::new();
    for (path, text) in &rootfs.texts {
        if is_of_image(path) {
            hooks.extend(Clusterfile::parse(path, text)?.hooks()?);
        }
    }
    Ok(hooks)
}

/// Whether the image has hooks in the file at this path of the rootfs.
pub(crate) fn is_of_image(path: &str) -> bool {
    let name = path.strip_prefix(FOLDER);
    name.is_some_and(|name| !name.contains('/') && (name.ends_with(".yaml") || name.ends_with(".yml")))
}

/// Whether all of these can be run on hosts with these roles.
///
/// # Errors
/// [`ErrorKind::Input`] when one would run nowhere, or is too long.
pub(crate) fn check(hooks: &[Hook], roles: &[String]) -> Result<()> {
    for hook in hooks {
        if hook.script.len() > LONGEST {
            return Err(Error::new(
                ErrorKind::Input,
                format!("the script of hook `{}` is too long", hook.name),
            )
            .hint("put it into the image, and call it from the hook"));
        }
        let on_hosts = hook.phases.iter().any(|phase| phase.is_of_hosts());
        if on_hosts && !hook.scope.iter().any(|role| roles.contains(role)) {
            return Err(Error::new(
                ErrorKind::Input,
                format!(
                    "hook `{}` would run nowhere: no host has a role of `{}`",
                    hook.name,
                    hook.scope.join("|")
                ),
            )
            .hint(format!("the hosts have the roles {}", roles.join(", "))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_as_they_are_written() {
        for text in ["pre-install", "post-clean-host", "upgrade-host", "pre-scaleup"] {
            assert_eq!(text.parse::<Phase>().unwrap().to_string(), text);
        }
        assert!("pre-instal".parse::<Phase>().is_err());
    }

    #[test]
    fn a_hook_that_would_run_nowhere_is_an_error() {
        let hook = |phase: Phase, scope: &str| Hook {
            name: "h".to_owned(),
            phases: vec![phase],
            scope: vec![scope.to_owned()],
            script: "true".to_owned(),
        };
        let roles = ["master".to_owned(), "gpu".to_owned()];
        check(
            &[hook(Phase::PreInitHost, "gpu"), hook(Phase::PostInstall, "x")],
            &roles,
        )
        .unwrap();
        let error = check(&[hook(Phase::PreInitHost, "node")], &roles).unwrap_err();
        assert!(error.to_string().contains("no host has a role of `node`"), "{error:?}");
    }

    #[test]
    fn files_of_the_image_s_folder_alone_are_hooks() {
        assert!(is_of_image("plugins/a.yaml") && is_of_image("plugins/b.yml"));
        for other in [
            "plugins/a.sh",
            "plugins/x/a.yaml",
            "plugin/a.yaml",
            "etc/plugins/a.yaml",
        ] {
            assert!(!is_of_image(other), "{other}");
        }
    }
}
