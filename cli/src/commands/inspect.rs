//! `sealrs inspect`

use std::path::Path;

use clap::Args;
use sealrs_image::cluster_image::{ClusterImage, members, name};
use sealrs_image::error::{Context as _, ErrorKind, Result, ResultExt as _};
use sealrs_image::locate::{Located, locate};
use sealrs_image::platform::Platform;
use sealrs_image::reference::Reference;
use sealrs_image::wanted::check_platform;

use crate::printer::Printer;

/// Show what an image or an archive file holds, as JSON, without loading it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs inspect registry.example.com/edge/k3s:v1
  sealrs inspect k3s.tar | jq '.containerImageList[].image'")]
pub(crate) struct Inspect {
    /// Name of an image in the store, the start of its digest, an archive file, or `-` for one that comes through a pipe.
    #[arg(value_name = "NAME|FILE|-")]
    image: String,

    /// Platform to show, of an image that has several.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

impl Inspect {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let located = locate(root, &self.image)?;
        let image = self
            .read(&located)
            .context(|| format!("cannot inspect {}", self.image))
            .map_err(|error| located.explain(error))?;
        let mut document =
            describe(&image, located.name.as_ref()).or_fail(ErrorKind::Internal, || "cannot show the image as JSON")?;
        let members = members(&*located.source, &located.root).map_err(|error| located.explain(error))?;
        let platforms = members
            .iter()
            .filter_map(|member| Some(member.platform.as_ref()?.to_string()));
        if let Some(fields) = document.as_object_mut() {
            fields.insert("platforms".to_owned(), platforms.collect::<Vec<_>>().into());
        }
        if let (false, Some(fields)) = (located.bases().is_empty(), document.as_object_mut()) {
            let bases = serde_json::to_value(located.bases());
            let bases = bases.or_fail(ErrorKind::Internal, || "cannot show the bases as JSON")?;
            fields.insert("bases".to_owned(), bases);
        }
        printer.result(&document, |document| format!("{document:#}"))
    }

    fn read(&self, located: &Located) -> Result<ClusterImage> {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let image = ClusterImage::read(&*located.source, &located.root, &platform)?;
        if self.platform.is_some() {
            check_platform(&*located.source, &image.descriptor, &platform)?;
        }
        Ok(image)
    }
}

/// The shape is sealer's: the annotations of sealer are decoded beside the manifest, the labels beside the config.
fn describe(image: &ClusterImage, name: Option<&Reference>) -> serde_json::Result<serde_json::Value> {
    let mut manifest = image.manifest.clone();
    manifest
        .annotations
        .retain(|key, _| key != name::EXTENSION && key != name::CONTAINER_IMAGES);
    let mut config = image.config.clone();
    let labels = std::mem::take(&mut config.config.labels);
    let mut extension = serde_json::to_value(&image.extension)?;
    if let Some(fields) = extension.as_object_mut() {
        fields.insert("labels".to_owned(), serde_json::to_value(folded(labels))?);
    }
    Ok(serde_json::json!({
        "id": image.manifest.config.digest,
        "name": name.map(Reference::familiar),
        "digest": image.descriptor.digest,
        "size": image.packed_size(),
        "unpackedSize": image.unpacked_size(),
        "manifestv1": manifest,
        "ociv1": config,
        "imageExtension": extension,
        "containerImageList": image.container_images,
    }))
}

/// Folds the label of each network and storage plugin into one list, as sealer shows them.
fn folded(labels: std::collections::BTreeMap<String, String>) -> std::collections::BTreeMap<String, String> {
    let mut folded = std::collections::BTreeMap::new();
    let mut plugins: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
    for (key, value) in labels {
        let prefix = [name::CNI_PREFIX, name::CSI_PREFIX]
            .into_iter()
            .find(|prefix| key.starts_with(prefix) && value == "true");
        match prefix.and_then(|prefix| Some((prefix, key.strip_prefix(prefix)?))) {
            Some((prefix, plugin)) => plugins.entry(prefix).or_default().push(plugin.to_owned()),
            None => {
                folded.insert(key, value);
            }
        }
    }
    for (prefix, names) in plugins {
        folded.insert(
            prefix.trim_end_matches('-').to_owned(),
            serde_json::json!(names).to_string(),
        );
    }
    folded
}
