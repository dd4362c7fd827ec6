//! `sealrs images`

use std::path::Path;

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::cluster_image::{ClusterImage, members, name};
use sealrs_image::error::Result;
use sealrs_image::graph;
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress as _};
use sealrs_image::spec::{Descriptor, annotation};
use sealrs_image::store::Store;
use serde::Serialize;

use crate::printer::Printer;

/// List the images in the store.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs images
  sealrs images --output json | jq -r '.[].digest'    # what `-q` does elsewhere")]
pub(crate) struct Images {
    /// Show whole digests.
    #[arg(long)]
    digests: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: Option<String>,
    digest: String,
    created: Option<String>,
    /// Those that are in the store.
    platforms: Vec<String>,
    /// Bytes of all its blobs.
    size: u64,
    /// That of this host's platform, or else of the first, and so are the container images.
    runtime: Option<String>,
    /// How many container images it holds.
    container_images: usize,
}

impl Images {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::look(root)?;
        let _lock = store.share()?;
        let mut rows = Vec::new();
        for (reference, descriptor) in store.list()? {
            // A damaged image must not hide the others.
            let blobs = graph::blobs(&store, &descriptor);
            if let Err(error) = &blobs {
                let warning = format!("{}: {}", error, error.causes().join(": "));
                printer.progress().event(Event::Warning(&warning));
            }
            let sizes = blobs.unwrap_or_default().into_iter().map(|blob| blob.size);
            let size = sizes.fold(0, u64::saturating_add);
            let members = members(&store, &descriptor).unwrap_or_default();
            let host = Platform::host();
            let is_own = |member: &&Descriptor| member.platform.as_ref().is_some_and(|own| host.accepts(own));
            let shown = members.iter().find(is_own).or(members.first());
            let image = shown.and_then(|member| ClusterImage::read(&store, member, &host).ok());
            rows.push(Row {
                name: reference.map(|reference| reference.familiar()),
                digest: descriptor.digest.to_string(),
                created: descriptor.annotations.get(annotation::CREATED).cloned(),
                platforms: members
                    .iter()
                    .filter_map(|member| Some(member.platform.as_ref()?.to_string()))
                    .collect(),
                size,
                runtime: image
                    .as_ref()
                    .and_then(|image| image.labels().get(name::RUNTIME_TYPE).cloned()),
                container_images: image.map_or(0, |image| image.container_images.len()),
            });
        }
        printer.result(&rows, |rows| self.table(rows))
    }

    fn table(&self, rows: &[Row]) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(["NAME", "DIGEST", "PLATFORM", "RUNTIME", "IMAGES", "SIZE", "CREATED"]);
        for row in rows {
            let hex = row.digest.trim_start_matches("sha256:");
            table.add_row([
                row.name.clone().unwrap_or_else(|| "<none>".to_owned()),
                if self.digests {
                    row.digest.clone()
                } else {
                    hex.chars().take(12).collect()
                },
                row.platforms.join(","),
                row.runtime.clone().unwrap_or_else(|| "-".to_owned()),
                row.container_images.to_string(),
                HumanBytes(row.size).to_string(),
                row.created.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    }
}
