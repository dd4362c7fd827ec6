//! What was done, for the command line to say in words or as JSON.

use std::path::PathBuf;

use sealrs_image::digest::Digest;
use serde::{Deserialize, Serialize};

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The cluster.
    pub cluster: String,
    /// What happened to it.
    pub outcome: Outcome,
    /// The manifest of its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// Its runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// `domain:port` of its private registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Its rootfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<PathBuf>,
    /// Its administrator's kubeconfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// How many steps were done.
    pub steps: usize,
    /// The same for people, a line each.
    pub words: Vec<String>,
}

/// What happened to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was installed.
    Installed,
    /// It was there, and its services run.
    AlreadyInstalled,
    /// Hosts came or went.
    Changed,
    /// It was deleted.
    Deleted,
    /// There was no such cluster.
    Absent,
}
