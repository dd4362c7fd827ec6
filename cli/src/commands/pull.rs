//! `sealrs pull`

use std::path::Path;

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::error::Result;
use sealrs_image::pull::{PullPolicy, Puller};
use sealrs_image::reference::Reference;
use sealrs_image::store::Store;
use sealrs_image::wanted::Wanted;

use super::platforms::Platforms;
use super::remote::Registries;
use crate::printer::Printer;

/// Bring images from registries into the store. What was interrupted goes on where it stopped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs pull registry.example.com/edge/k3s:v1
  sealrs pull --all-platforms registry.example.com/edge/k3s:v1")]
pub(crate) struct Pull {
    /// Names of images.
    #[arg(required = true, value_name = "NAME")]
    images: Vec<Reference>,

    #[command(flatten)]
    platforms: Platforms,

    /// When to ask the registry: missing, always, ifnewer (use what is there when the registry can't be reached), never.
    #[arg(long = "policy", value_name = "POLICY", default_value = "always")]
    policy: PullPolicy,

    #[command(flatten)]
    registries: Registries,
}

impl Pull {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let _lock = store.share()?;
        let client = self.registries.client()?;
        let puller = Puller {
            store: &store,
            client: &client,
            policy: self.policy,
            jobs: self.registries.jobs,
        };
        let wanted: Wanted = self.platforms.into();
        let mut rows = Vec::new();
        for name in &self.images {
            let pulled = puller.pull(name, &wanted, &*printer.progress())?;
            let copied = pulled.copied.unwrap_or_default();
            rows.push(serde_json::json!({
                "name": name,
                "digest": pulled.root.digest,
                "asked": pulled.copied.is_some(),
                "blobs": copied.blobs,
                "bytes": copied.bytes,
                "skipped": copied.skipped,
            }));
        }
        printer.result(&rows, |rows| {
            let line = |row: &serde_json::Value| {
                let number = |key: &str| row.get(key).and_then(serde_json::Value::as_u64).unwrap_or_default();
                let text = |key: &str| {
                    row.get(key)
                        .and_then(serde_json::Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                format!(
                    "pulled {} {} ({} in {} blobs, {} were there)\n",
                    text("name"),
                    text("digest"),
                    HumanBytes(number("bytes")),
                    number("blobs"),
                    number("skipped")
                )
            };
            rows.iter().map(line).collect()
        })
    }
}
