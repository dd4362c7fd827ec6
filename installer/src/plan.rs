//! The plan: an ordered list of steps, decided once and then executed. Secrets are never in it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result, ResultExt as _};
use sealrs_image::spec;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::cluster::ClusterFiles;
use crate::facts::HostFacts;
use crate::options::Options;
use crate::rootfs::RootfsFacts;
use crate::runtime::Runtime;
use crate::{apps, files, registry};

/// The version of the plan's format: a plan that was stored by another version is not executed.
pub(crate) const FORMAT: u32 = 1;

/// The step that unpacks the image: all others are planned from what it unpacked.
pub(crate) const UNPACK: &str = "unpack";

/// What an installation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The format's version.
    pub format: u32,
    /// The cluster.
    pub cluster: String,
    /// The image's manifest.
    pub image: Digest,
    /// The cluster runtime.
    pub runtime: String,
    /// The address of this host.
    pub host: IpAddr,
    /// `domain:port` of the private registry.
    pub registry: String,
    /// Where the administrator's kubeconfig will be, if the runtime makes one.
    pub kubeconfig: Option<PathBuf>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Names the step in the journal: the same in every run.
    pub id: String,
    /// What it is, for people.
    pub title: String,
    /// The address of the host that it is done on.
    pub host: IpAddr,
    /// The digest of what it is done from.
    pub inputs: Digest,
    /// What is done.
    pub action: Action,
}

/// Everything that plans are made from.
#[derive(Debug)]
pub struct Context<'c> {
    /// The host.
    pub facts: &'c HostFacts,
    /// What the image unpacks to.
    pub rootfs: &'c RootfsFacts,
    /// The image.
    pub image: &'c ClusterImage,
    /// What the user wants.
    pub options: &'c Options,
    /// Where things lie.
    pub files: &'c ClusterFiles,
    /// The address of this host.
    pub host: IpAddr,
}

impl Context<'_> {
    /// A step on this host.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the action can't be written as JSON.
    pub(crate) fn step(&self, id: impl Into<String>, title: impl Into<String>, action: Action) -> Result<Step> {
        Ok(Step {
            id: id.into(),
            title: title.into(),
            host: self.host,
            inputs: Digest::of(&spec::canonical(&action)?),
            action,
        })
    }
}

impl Plan {
    /// Decides what to do: a pure function of what is known.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when the image or the options can't be installed.
    pub fn decide(context: &Context<'_>, runtime: &dyn Runtime) -> Result<Self> {
        let mut steps = vec![context.step(
            UNPACK,
            "unpack the image",
            Action::Unpack {
                image: context.image.descriptor.digest,
                path: context.files.rootfs(),
            },
        )?];
        steps.extend(registry::steps(context, runtime)?);
        let runtime_plan = runtime.plan(context)?;
        steps.extend(runtime_plan.steps);
        steps.extend(apps::steps(context, runtime_plan.kubeconfig.as_deref())?);
        let plan = Self {
            format: FORMAT,
            cluster: context.options.cluster.clone(),
            image: context.image.descriptor.digest,
            runtime: runtime.name().to_owned(),
            host: context.host,
            registry: context.options.registry_url(),
            kubeconfig: runtime_plan.kubeconfig,
            notes: runtime_plan.notes,
            steps,
        };
        plan.check()?;
        Ok(plan)
    }

    /// Steps are told apart by their ids.
    fn check(&self) -> Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        match self.steps.iter().find(|step| !seen.insert(&step.id)) {
            None => Ok(()),
            Some(step) => Err(Error::new(
                ErrorKind::Internal,
                format!("the plan has two steps `{}`", step.id),
            )),
        }
    }

    /// The plan's digest.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when it can't be written as JSON.
    pub fn digest(&self) -> Result<Digest> {
        Ok(Digest::of(&spec::canonical(self)?))
    }

    /// Stores the plan for the next try.
    pub(crate) fn store(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self).or_fail(ErrorKind::Internal, || "cannot write the plan")?;
        files::write(path, &bytes, 0o600)
    }

    /// Reads a stored plan back.
    pub(crate) fn load(path: &Path, digest: Digest) -> Result<Self> {
        let damaged = || {
            Error::new(
                ErrorKind::Integrity,
                format!("{} is not the plan that was begun", path.display()),
            )
            .hint("it was changed: remove the cluster with `sealrs delete` and run again")
        };
        let bytes = std::fs::read(path).map_err(|error| damaged().because(error))?;
        let plan: Self = serde_json::from_slice(&bytes).map_err(|error| damaged().because(error))?;
        if plan.digest()? != digest {
            return Err(damaged());
        }
        Ok(plan)
    }
}

/// The address that this host goes by in the cluster.
///
/// # Errors
/// [`ErrorKind::Input`] when the address that the user gave is not one of this host.
pub(crate) fn host_address(facts: &HostFacts, options: &Options) -> Result<IpAddr> {
    match options.host_ip {
        Some(ip) if facts.has_address(ip) => Ok(ip),
        Some(ip) => {
            let own: Vec<String> = facts.addresses.iter().map(|own| own.ip.to_string()).collect();
            Err(
                Error::new(ErrorKind::Input, format!("{ip} is not an address of this host"))
                    .hint(format!("it has {}", own.join(", "))),
            )
        }
        // A host without any network can still run everything for itself.
        None => Ok(facts
            .main_address()
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))),
    }
}

/// The version of the runtime that the image says it has.
pub(crate) fn runtime_version(image: &ClusterImage) -> Option<&str> {
    image.labels().get(name::RUNTIME_VERSION).map(String::as_str)
}

/// The plan as `--dry-run` shows it.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "cluster {} on {}: runtime {}, registry {}, image {}",
            self.cluster, self.host, self.runtime, self.registry, self.image
        )?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:3}. {} [{}]", number + 1, step.title, step.id)?;
            writeln!(f, "     {}", step.action)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
