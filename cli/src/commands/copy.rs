//! `sealrs copy`

use std::path::Path;

use clap::Args;
use sealrs_image::error::{Context as _, Result};
use sealrs_image::store::Store;
use sealrs_image::transfer::Transfer;
use sealrs_image::transport::Transport;

use super::platforms::Platforms;
use super::remote::Registries;
use super::{cores, moved, tell_kind};
use crate::printer::Printer;

/// Copy an image from one place to another: a registry, a folder, an archive file, the store
///
/// What is there is not moved again, and what was interrupted goes on where it stopped.
///
/// A place is written as skopeo writes it:
///   docker://NAME                an image in a registry
///   oci:DIR[:TAG]                an OCI image layout in a folder
///   oci-archive:FILE[:TAG]       an OCI archive
///   docker-archive:FILE[:NAME]   an archive for `docker load`
///   NAME                         an image in the store
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  sealrs copy docker://registry.example.com/edge/k3s:v1 oci:layout:v1
  sealrs copy oci:layout:v1 docker://registry.local:5000/edge/k3s:v1
  sealrs copy docker://nginx:1.27 docker-archive:nginx.tar:nginx:1.27
  sealrs copy --all-platforms docker://quay.io/team/app:v1 docker://registry.local/team/app:v1"
)]
pub(crate) struct Copy {
    /// Where the image is. Without TAG or NAME, the only image that is there.
    source: Transport,

    /// Where it goes. A tag or name that another image has there moves over.
    destination: Transport,

    #[command(flatten)]
    platforms: Platforms,

    /// Replace an archive file that exists.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    registries: Registries,
}

impl Copy {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let (from, to) = (&self.source, &self.destination);
        let meets_registry = from.is_registry() || to.is_registry();
        let client = meets_registry.then(|| self.registries.client()).transpose()?;
        let image = from.locate(root, client.as_ref())?;
        let transfer = Transfer {
            root,
            client: client.as_ref(),
            wanted: self.platforms.into(),
            jobs: if meets_registry { self.registries.jobs } else { cores() },
            replace: self.force,
        };
        let (there, copied) = transfer
            .run(&image, to, &*printer.progress())
            .context(|| format!("cannot copy {from} to {to}"))?;
        let document = serde_json::json!({
            "source": from.to_string(), "destination": to.to_string(), "digest": there.digest,
            "blobs": copied.blobs, "bytes": copied.bytes, "skipped": copied.skipped,
            "mounted": copied.mounted,
        });
        if matches!(to, Transport::Store(_)) {
            tell_kind(&Store::look(root)?, &there, &to.to_string(), printer);
        }
        printer.result(&document, |_| {
            format!("copied {from} to {to} {} ({})", there.digest, moved(&copied))
        })
    }
}
