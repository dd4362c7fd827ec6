//! `sealrs pull`

use std::path::Path;

use clap::Args;
use sealrs_image::error::{Error, Result};
use sealrs_image::pull::{PullPolicy, Puller};
use sealrs_image::reference::Reference;
use sealrs_image::store::Store;
use sealrs_image::wanted::Wanted;

use super::platforms::Platforms;
use super::remote::Registries;
use super::{moved, tell_kind};
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
        let pulled = puller.pull_all(&self.images, &wanted, &*printer.progress());
        let (mut rows, mut lines, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (name, pulled) in self.images.iter().zip(pulled) {
            let pulled = match pulled {
                Ok(pulled) => pulled,
                Err(error) => {
                    failed.push((name, error));
                    continue;
                }
            };
            let (name, digest) = (name.familiar(), pulled.root.digest);
            tell_kind(&store, &pulled.root, &name, printer);
            lines.push(match &pulled.copied {
                Some(copied) => format!("pulled {name} {digest} ({})\n", moved(copied)),
                None => format!("{name} {digest} is in the store\n"),
            });
            let copied = pulled.copied.unwrap_or_default();
            rows.push(serde_json::json!({
                "name": name,
                "digest": digest,
                "asked": pulled.copied.is_some(),
                "blobs": copied.blobs,
                "bytes": copied.bytes,
                "skipped": copied.skipped,
            }));
        }
        if !rows.is_empty() || failed.is_empty() {
            printer.result(&rows, |_| lines.concat())?;
        }
        match failure(failed, self.images.len()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// One error of all that failed, each with its image.
fn failure(mut failed: Vec<(&Reference, Error)>, count: usize) -> Option<Error> {
    if count == 1 {
        return failed.pop().map(|(_, error)| error);
    }
    let (_, first) = failed.first()?;
    let (kind, hint) = (first.kind(), first.remedy().map(str::to_owned));
    let reason = |(name, error): &(&Reference, Error)| {
        let causes: String = error.causes().iter().map(|cause| format!(": {cause}")).collect();
        format!("{name}: {error}{causes}")
    };
    let reasons: Vec<String> = failed.iter().map(reason).collect();
    let what = format!("{} of {count} images were not pulled", failed.len());
    let error = Error::new(kind, what).because(reasons.join("\n"));
    Some(match hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}
