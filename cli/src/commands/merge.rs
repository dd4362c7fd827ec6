//! `sealrs merge`

use std::path::Path;

use clap::Args;
use sealrs_builder::{MergeOptions, merge};
use sealrs_image::error::Result;
use sealrs_image::platform::Platform;
use sealrs_image::reference::Reference;
use sealrs_image::store::Store;

use super::build::{now, platforms_or_host, show, source_date_epoch};
use super::remote::Registries;
use crate::printer::Printer;

/// Make one ClusterImage of several: a cluster and apps, for instance. Later ones come over earlier ones.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs merge edge/k3s:v1 edge/redis:v7 -t edge/k3s-redis:v1
  sealrs merge k3s.tar registry.example.com/apps/web:v2 ./db.tar -t shop:v1 --platform linux/amd64,linux/arm64")]
pub(crate) struct Merge {
    /// Images, the lowest first: names in the store or in a registry, or archive files.
    #[arg(required = true, num_args = 2.., value_name = "NAME|FILE")]
    images: Vec<String>,

    /// Name of the new image.
    #[arg(short, long, value_name = "NAME")]
    tag: Reference,

    /// Platform to merge; this machine's if left out. With several, the image is an index of them. May be given several
    /// times.
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<Platform>,

    #[command(flatten)]
    registries: Registries,
}

impl Merge {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let client = self.registries.client()?;
        let options = MergeOptions {
            images: self.images,
            name: self.tag,
            platforms: platforms_or_host(self.platforms),
            jobs: self.registries.jobs,
            epoch: source_date_epoch()?,
            now: Some(now()),
        };
        let merged = merge(&options, root, &store, &client, &*printer.progress())?;
        show(printer, "merged", &options.name, &merged)
    }
}
