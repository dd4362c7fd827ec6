//! `sealrs rmi`

use std::path::Path;

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::error::Result;
use sealrs_image::locate::in_store;
use sealrs_image::store::Store;

use crate::printer::Printer;

/// Remove images from the store, with the blobs that nothing else uses.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs rmi k3s:v1")]
pub(crate) struct Rmi {
    /// Names, or starts of digests. A digest removes all names of the image.
    #[arg(required = true, value_name = "NAME")]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::look(root)?;
        // Look them all up first: a misspelt name removes nothing.
        let found: Vec<_> = self
            .images
            .iter()
            .map(|image| in_store(&store, image))
            .collect::<Result<_>>()?;
        let (mut files, mut bytes) = (0, 0);
        for (descriptor, name) in &found {
            let collected = store.remove(descriptor, name.as_ref())?;
            files += collected.files;
            bytes += collected.bytes;
        }
        let document = serde_json::json!({"images": found.len(), "blobs": files, "bytes": bytes});
        printer.result(&document, |_| {
            format!("removed {} image(s), {files} blobs, {}", found.len(), HumanBytes(bytes))
        })
    }
}
