//! `sealrs scale-up`

use std::path::Path;

use clap::Args;
use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::locate::locate;
use sealrs_image::platform::Platform;
use sealrs_installer::Cluster;

use crate::access::Access;
use crate::hosts::Hosts;
use crate::printer::Printer;

/// Add hosts to a cluster that runs. The same command again goes on where an interrupted one stopped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs scale-up --nodes 10.0.0.41-10.0.0.50
  sealrs scale-up --masters 10.0.0.2,10.0.0.3 k3s.tar")]
pub(crate) struct ScaleUp {
    /// The image that the cluster was installed from: a name in the store, the start of its digest, or an archive file
    /// [default: the store is searched].
    #[arg(value_name = "NAME|FILE")]
    image: Option<String>,

    #[command(flatten)]
    hosts: Hosts,

    #[command(flatten)]
    access: Access,

    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    cluster: String,
}

impl ScaleUp {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        if self.hosts.is_empty() {
            return Err(
                Error::new(ErrorKind::Input, "no host is named").hint("name new hosts with `--masters` and `--nodes`")
            );
        }
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let access = self.access.read()?;
        let image = match self.image {
            Some(image) => image,
            None => sealrs_installer::image_of(&root, &self.cluster)?.to_string(),
        };
        let located = locate(&root, &image).map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.hint("name the archive that the cluster was installed from"),
            _ => error,
        })?;
        let image = ClusterImage::read(&*located.source, &located.root, &Platform::host())?;
        located.check_complete()?;
        let cluster = Cluster {
            root: &root,
            name: &self.cluster,
            given: &access,
        };
        let members = self.hosts.members(&access);
        let progress = printer.progress();
        let summary = sealrs_installer::scale_up(&*located.source, &image, cluster, &members, &*progress)?;
        printer.result(&summary, |summary| summary.words.join("\n"))
    }
}
