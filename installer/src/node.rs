//! A host's side of an installation: what is unpacked, made and removed there, whoever asks.
//!
//! [`Here`] does it in this process. [`There`] asks the same of a sealrs on another host (`sealrs node serve`, which is
//! [`serve`] around a [`Here`]) over a connection's standard input and output ([`wire`]).

mod failure;
mod here;
mod serve;
mod there;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::Result;
use sealrs_image::progress::Progress;
use sealrs_image::source::Source;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::apps::AppSettings;
use crate::audit::{Found, Question};
use crate::configuration::Configuration;
use crate::environment::Environment;
use crate::facts::{HostFacts, Interest};
use crate::rootfs::RootfsFacts;
use crate::secrets::Bundle;
use crate::summary::Summary;

pub(crate) use here::{Here, missing_folders};
pub use serve::serve;
pub(crate) use there::There;

/// What a host has to know before anything is done on it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// Where sealrs keeps everything.
    pub(crate) root: PathBuf,
    /// The cluster.
    pub(crate) cluster: String,
    /// The name of the cluster runtime.
    pub(crate) runtime: String,
    /// The cluster's environment on this host; none is the one that it has.
    pub(crate) environment: Option<Environment>,
    /// What of it the user gave.
    pub(crate) given: Environment,
    /// What is written into the rootfs.
    pub(crate) configurations: Vec<Configuration>,
    /// The image of apps that is meant instead of the cluster's.
    pub(crate) apps: Option<String>,
    /// What the user says of apps.
    pub(crate) app_settings: BTreeMap<String, AppSettings>,
}

/// Values of the environment may be secrets.
impl std::fmt::Debug for Begin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Begin({})", self.cluster)
    }
}

/// A step to be done on a host.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The step's id.
    pub(crate) step: String,
    /// What is done.
    pub(crate) action: Action,
    /// The secrets that are needed for it.
    pub(crate) secrets: Bundle,
}

/// Without the secrets.
impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Order({})", self.step)
    }
}

/// A host that things are done on.
pub(crate) trait Node: Send {
    /// Looks at the host.
    fn facts(&mut self, interest: &Interest) -> Result<HostFacts>;

    /// Takes the cluster's place on the host for this operator alone. On the operator's own host, the folders `above` the
    /// cluster's were missing before.
    ///
    /// # Errors
    /// [`sealrs_image::error::ErrorKind::Conflict`] when another one has it.
    fn begin(&mut self, begin: &Begin, above: &[PathBuf]) -> Result<()>;

    /// Unpacks the image's rootfs, unless that was done.
    fn unpack(&mut self, source: &dyn Source, image: &ClusterImage, progress: &dyn Progress) -> Result<()>;

    /// Looks at the unpacked rootfs, with the text of these documents of it.
    fn rootfs(&mut self) -> Result<RootfsFacts>;

    /// Does a step.
    fn execute(&mut self, order: &Order, progress: &dyn Progress) -> Result<()>;

    /// Reads a small file; none if it is not there.
    fn read(&mut self, path: &Path) -> Result<Option<String>>;

    /// Asks the cluster's private registry.
    fn audit(&mut self, question: &Question, progress: &dyn Progress) -> Result<Found>;

    /// Removes the cluster from the host.
    fn delete(&mut self, root: &Path, cluster: &str, progress: &dyn Progress) -> Result<Summary>;
}
