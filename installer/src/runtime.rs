//! Cluster runtimes: what turns hosts into a cluster. A runtime *plans*; it opens no connection and runs nothing.
//! What it needs the core to know (ports, paths, rights) it gives as data.

pub(crate) mod k3s;
mod script;

use std::path::PathBuf;

use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::error::{Error, ErrorKind, Result};

use crate::facts::HostFacts;
use crate::options::Options;
use crate::plan::{Context, Step};
use crate::preflight::Finding;

/// A way to make a cluster.
pub trait Runtime: std::fmt::Debug + Sync {
    /// The word in the label `cluster.alpha.sealer.io/cluster-runtime-type`.
    fn name(&self) -> &'static str;

    /// What the core has to know.
    fn layout(&self) -> Layout;

    /// How many bytes it is likely to need, by folder, for a rootfs of `bundle` bytes.
    fn disk(&self, bundle: u64) -> Vec<(PathBuf, u64)>;

    /// What stands against it on a host, beyond what its layout says.
    fn preflight(&self, facts: &HostFacts, image: &ClusterImage, options: &Options) -> Vec<Finding>;

    /// The steps that make this host the cluster's one master, from an unpacked rootfs and a registry that answers
    /// to a cluster that is ready.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when image and options can't be made a cluster.
    fn plan(&self, context: &Context<'_>) -> Result<RuntimePlan>;

    /// What the log of its service means.
    fn diagnose(&self, log: &str) -> Option<Diagnosis>;

    /// What its service has left out, by the log, although it is ready.
    fn left_out(&self, _log: &str) -> Option<Diagnosis> {
        None
    }
}

/// What the core has to know of a runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout {
    /// Only root can install it.
    pub needs_root: bool,
    /// It brings a containerd of its own, so the host's need not know the registry.
    pub own_containerd: bool,
    /// TCP ports that it listens on.
    pub ports: &'static [u16],
    /// Paths that tell that one is or was installed.
    pub leftovers: &'static [&'static str],
    /// Programs that its plan depends on.
    pub programs: &'static [&'static str],
    /// Documents of the rootfs that its plan is made from.
    pub documents: &'static [&'static str],
}

/// What a runtime plans.
#[derive(Debug)]
pub struct RuntimePlan {
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// Where the administrator's kubeconfig will be, if it makes one.
    pub kubeconfig: Option<PathBuf>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What a log means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub remedy: String,
    /// Waiting longer can't help.
    pub hopeless: bool,
}

const ALL: [&dyn Runtime; 2] = [&k3s::K3s, &script::Script];

/// What sealer takes for granted when an image does not say its runtime.
const DEFAULT: &str = "kubernetes";

/// The runtime of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Runtime> {
    ALL.into_iter().find(|runtime| runtime.name() == name)
}

/// The runtime that an image asks for.
///
/// # Errors
/// [`ErrorKind::Input`] when it is not known, or not available yet.
pub fn of(image: &ClusterImage) -> Result<&'static dyn Runtime> {
    let label = image.labels().get(name::RUNTIME_TYPE);
    let wanted = label.map_or(DEFAULT, String::as_str);
    if let Some(runtime) = by_name(wanted) {
        return Ok(runtime);
    }
    let known: Vec<&str> = ALL.iter().map(|runtime| runtime.name()).collect();
    let known = known.join(", ");
    let what = match (label, wanted) {
        (None, _) => format!(
            "the image does not say its cluster runtime, which means `{DEFAULT}`, and that is not available yet"
        ),
        (Some(_), "kubernetes" | "k0s") => {
            format!("the image's cluster runtime `{wanted}` is not available yet")
        }
        (Some(_), _) => format!("the image's cluster runtime `{}` is not known", wanted.escape_debug()),
    };
    Err(Error::new(ErrorKind::Input, what).hint(format!(
        "build the image with LABEL \"{}\"=\"…\"; available: {known}",
        name::RUNTIME_TYPE
    )))
}

#[cfg(test)]
pub(crate) mod tests;
