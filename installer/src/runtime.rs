//! Cluster runtimes: what turns hosts into a cluster. A runtime *plans*; it opens no connection and runs nothing.
//! What it needs the core to know (ports, paths, rights) it gives as data.

pub(crate) mod k0s;
pub(crate) mod k3s;
mod known;
mod kubernetes;
mod marks;
mod script;

use std::net::IpAddr;
use std::path::PathBuf;

use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::error::{Error, ErrorKind, Result};

use crate::cluster::ClusterFiles;
use crate::facts::HostFacts;
use crate::options::Options;
use crate::plan::{Context, Peer, Step};
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

    /// The steps that make this host a member of the cluster, from an unpacked rootfs and a registry that answers to
    /// a member that is ready. The first of the masters founds the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when image and options can't be made a cluster.
    fn plan(&self, context: &Context<'_>) -> Result<RuntimePlan>;

    /// The steps on the founder when all hosts have become members.
    ///
    /// # Errors
    /// As [`Runtime::plan`].
    fn settle(&self, _founder: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    /// The steps on the founder when what the image starts was started: only then may nodes be ready, where their network is
    /// a part of that.
    ///
    /// # Errors
    /// As [`Runtime::plan`].
    fn finish(&self, _founder: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    /// The steps on the founder before more hosts become members of a cluster that had these.
    ///
    /// # Errors
    /// As [`Runtime::plan`].
    fn grow(&self, _founder: &Context<'_>, _before: &[Peer]) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    /// Whether several masters agree by majority with these options: not if they keep their data elsewhere.
    fn has_quorum(&self, _options: &Options) -> bool {
        self.layout().quorum
    }

    /// The name of a host's node.
    fn node_name(&self, peer: &Peer, _options: &Options) -> String {
        peer.hostname.to_ascii_lowercase()
    }

    /// The steps by which a host leaves a cluster that stays.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when the cluster can't do without it.
    fn leave(&self, departure: &Departure<'_>) -> Result<Leaving>;

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
    /// Masters agree by majority (etcd's raft), when there are several, unless [`Runtime::has_quorum`] says otherwise.
    pub quorum: bool,
    /// It makes a kubeconfig for the administrator.
    pub kubeconfig: bool,
    /// TCP ports that it listens on, on every host.
    pub ports: &'static [u16],
    /// TCP ports that it listens on besides, on masters.
    pub master_ports: &'static [u16],
    /// Paths that tell that one is or was installed.
    pub leftovers: &'static [&'static str],
    /// Programs that its plan depends on.
    pub programs: &'static [&'static str],
    /// Documents of the rootfs that its plan is made from.
    pub documents: &'static [&'static str],
}

/// A host that leaves a cluster that stays.
#[derive(Debug, Clone, Copy)]
pub struct Departure<'d> {
    /// Where things lie, on each host.
    pub files: &'d ClusterFiles,
    /// The host.
    pub peer: &'d Peer,
    /// All hosts as they are now.
    pub peers: &'d [Peer],
    /// Several masters agree by majority.
    pub quorum: bool,
    /// The address of a master that stays.
    pub speaker: IpAddr,
}

/// How a host leaves.
#[derive(Debug, Default)]
pub struct Leaving {
    /// On a master that stays, while the host is still there.
    pub before: Vec<Step>,
    /// On the host itself.
    pub there: Vec<Step>,
    /// On a master that stays, when the host is gone.
    pub after: Vec<Step>,
}

/// What a runtime plans for a host.
#[derive(Debug, Default)]
pub struct RuntimePlan {
    /// The steps that need no other host, in their order.
    pub prepare: Vec<Step>,
    /// The steps that make the host a member, in their order.
    pub join: Vec<Step>,
    /// On the founder, right before that. Hosts that join together may have the same ones.
    pub invite: Vec<Step>,
    /// On the founder, right after that.
    pub settled: Vec<Step>,
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

const ALL: [&dyn Runtime; 4] = [&k0s::K0s, &k3s::K3s, &kubernetes::Kubernetes, &script::Script];

/// What sealer takes for granted when an image does not say its runtime.
const DEFAULT: &str = "kubernetes";

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static dyn Runtime> {
    ALL.into_iter()
}

/// The runtime of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Runtime> {
    ALL.into_iter().find(|runtime| runtime.name() == name)
}

/// The runtime that an image asks for.
///
/// # Errors
/// [`ErrorKind::Input`] when it is not known.
pub fn of(image: &ClusterImage) -> Result<&'static dyn Runtime> {
    let label = image.labels().get(name::RUNTIME_TYPE);
    let wanted = label.map_or(DEFAULT, String::as_str);
    if let Some(runtime) = by_name(wanted) {
        return Ok(runtime);
    }
    let known: Vec<&str> = ALL.iter().map(|runtime| runtime.name()).collect();
    let known = known.join(", ");
    let what = format!("the image's cluster runtime `{}` is not known", wanted.escape_debug());
    Err(Error::new(ErrorKind::Input, what).hint(format!(
        "build the image with LABEL \"{}\"=\"…\"; available: {known}",
        name::RUNTIME_TYPE
    )))
}

#[cfg(test)]
pub(crate) mod tests;
