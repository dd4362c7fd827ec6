//! `sealrs push`

use std::path::Path;

use clap::Args;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::locate::locate;
use sealrs_image::platform::Platform;
use sealrs_image::push::Pusher;
use sealrs_image::reference::Reference;
use sealrs_image::store::Store;
use sealrs_image::wanted::Wanted;

use super::moved;
use super::remote::Registries;
use crate::printer::Printer;

/// Send an image of the store, or of an archive file, to a registry. What the registry has is not sent again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs push registry.example.com/edge/k3s:v1
  sealrs push k3s.tar registry.example.com/edge/k3s:v1")]
pub(crate) struct Push {
    /// Name of an image in the store, the start of its digest, or an archive file.
    #[arg(value_name = "NAME|FILE")]
    image: String,

    /// Name that it gets at the registry; its own if this is not given.
    #[arg(value_name = "DESTINATION")]
    destination: Option<Reference>,

    /// Platform to push, of an image that has several. All of them if it is not given.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    #[command(flatten)]
    registries: Registries,
}

impl Push {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let _lock = store.share()?;
        let located = locate(root, &self.image)?;
        let name = self.destination.or(located.name).ok_or_else(|| {
            Error::new(
                ErrorKind::Input,
                format!("`{}` has no name to be pushed to", self.image),
            )
            .hint("give one after it: `sealrs push IMAGE registry.example.com/edge/k3s:v1`")
        })?;
        let client = self.registries.client()?;
        let pusher = Pusher {
            store: &store,
            client: &client,
            jobs: self.registries.jobs,
        };
        let wanted = self
            .platform
            .map_or(Wanted::All, |platform| Wanted::Platforms(vec![platform]));
        let (pushed, copied) = pusher.push(&*located.source, &located.root, &name, &wanted, &*printer.progress())?;
        let document = serde_json::json!({
            "name": name.familiar(),
            "digest": pushed.digest,
            "blobs": copied.blobs,
            "bytes": copied.bytes,
            "skipped": copied.skipped,
            "mounted": copied.mounted,
        });
        printer.result(&document, |_| {
            format!("pushed {} {} ({})", name.familiar(), pushed.digest, moved(&copied))
        })
    }
}
