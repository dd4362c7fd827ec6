//! The clusters that are on this host.

use std::fs;
use std::path::Path;

use sealrs_image::digest::Digest;
use sealrs_image::error::{IoResultExt as _, Result};
use serde::Serialize;

use crate::cluster::ClusterFiles;
use crate::files;
use crate::journal::{Journal, Stage};

/// A cluster on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub stage: Stage,
    /// The manifest of its image.
    pub image: Option<Digest>,
}

/// The clusters under `root`, by name.
///
/// # Errors
/// Disk errors; a journal that can't be read.
pub fn clusters(root: &Path) -> Result<Vec<ClusterStatus>> {
    let data = root.join("data");
    let place = || format!("cannot read the folder {}", data.display());
    let entries = match fs::read_dir(&data) {
        Err(error) if files::is_absent(&error) => return Ok(Vec::new()),
        entries => entries.or_io(place)?,
    };
    let mut clusters = Vec::new();
    for entry in entries {
        let entry = entry.or_io(place)?;
        if !entry.file_type().or_io(place)?.is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let (stage, image) = Journal::read(&ClusterFiles::new(root, &name).journal())?;
        clusters.push(ClusterStatus { name, stage, image });
    }
    clusters.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(clusters)
}
