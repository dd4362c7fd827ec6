//! `sealrs app`

use std::path::Path;

use clap::{Args, Subcommand};
use sealrs_image::error::Result;
use sealrs_installer::{App as Found, AppState, Cluster};

use super::delete;
use crate::access::Secrets;
use crate::printer::Printer;

/// List the apps of a cluster, and remove some. They come with `sealrs run` and an image of apps.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sealrs app list
  sealrs app delete redis")]
pub(crate) enum App {
    List(List),
    Delete(Delete),
}

/// List the apps that were launched on a cluster. No host is asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs app list
  sealrs app list --cluster edge --output json")]
pub(crate) struct List {
    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    cluster: String,
}

/// Remove apps from a cluster: releases of helm, what manifests and kustomizations made, and what an Application document says
/// how to remove. Container images stay in the private registry.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs app delete redis web --force")]
pub(crate) struct Delete {
    /// Names of apps, as `sealrs app list` shows them.
    #[arg(value_name = "NAME", required = true)]
    apps: Vec<String>,

    /// Don't ask.
    #[arg(long)]
    force: bool,

    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    cluster: String,

    #[command(flatten)]
    secrets: Secrets,
}

impl App {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        match self {
            Self::List(list) => {
                let apps = sealrs_installer::list_apps(&root, &list.cluster)?;
                printer.result(&apps, |apps| table(apps))
            }
            Self::Delete(command) => {
                let what = format!("{} from cluster {}", command.apps.join(", "), command.cluster);
                delete::confirm(&what, command.force)?;
                let given = command.secrets.read()?;
                let cluster = Cluster {
                    root: &root,
                    name: &command.cluster,
                    given: &given,
                };
                let summary = sealrs_installer::remove_apps(cluster, &command.apps, &*printer.progress())?;
                printer.result(&summary, |summary| summary.words.join("\n"))
            }
        }
    }
}

fn table(apps: &[Found]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["NAME", "TYPE", "IMAGE", "STATE"]);
    for app in apps {
        let state = match app.state {
            AppState::Launching => "not all launched: run the image again",
            AppState::Launched => "launched",
        };
        table.add_row([&app.name, &app.kind, &app.image.short(), state]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
