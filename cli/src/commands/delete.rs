//! `sealrs delete`

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_installer::Cluster;
use sealrs_installer::member::Access;

use crate::access::Secrets;
use crate::hosts::Hosts;
use crate::printer::Printer;

/// Remove a cluster from all its hosts, or some hosts from a cluster: exactly what `sealrs run` made, also after a
/// half-finished run.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs delete --all --force
  sealrs delete --nodes 10.0.0.41-10.0.0.50")]
pub(crate) struct Delete {
    /// Remove the whole cluster.
    #[arg(long, short, conflicts_with_all = ["masters", "nodes", "lost"])]
    all: bool,

    #[command(flatten)]
    hosts: Hosts,

    /// The hosts are gone for good: only the cluster forgets them.
    #[arg(long)]
    lost: bool,

    /// Don't ask.
    #[arg(long)]
    force: bool,

    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    cluster: String,

    #[command(flatten)]
    secrets: Secrets,
}

impl Delete {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        if !self.all && self.hosts.is_empty() {
            return Err(Error::new(ErrorKind::Input, "nothing to delete is named")
                .hint("name hosts with `--masters` and `--nodes`, or the whole cluster with `--all`"));
        }
        let members = self.hosts.members(&Access::default());
        let named: Vec<IpAddr> = members.iter().map(|member| member.address).collect();
        let what = match named.as_slice() {
            [] => format!("cluster {} and all its data on all its hosts", self.cluster),
            named => {
                let named: Vec<String> = named.iter().map(ToString::to_string).collect();
                format!("{} from cluster {}", named.join(", "), self.cluster)
            }
        };
        confirm(&what, self.force)?;
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let given = self.secrets.read()?;
        let progress = printer.progress();
        let summary = if self.all {
            sealrs_installer::delete(&root, &self.cluster, &given, &*progress)?
        } else {
            let cluster = Cluster {
                root: &root,
                name: &self.cluster,
                given: &given,
            };
            sealrs_installer::remove(cluster, &named, self.lost, &*progress)?
        };
        printer.result(&summary, |summary| summary.words.join("\n"))
    }
}

/// Asks whether something may go, unless that is clear.
pub(super) fn confirm(what: &str, force: bool) -> Result<()> {
    if force || confirmed(what)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, format!("{what}: not deleted")))
}

fn confirmed(what: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::new(
            ErrorKind::Input,
            format!("nobody is there to confirm that it may go: {what}"),
        )
        .hint("add `--force`"));
    }
    let place = || "cannot ask";
    write!(anstream::stderr(), "Delete {what}? [y/N] ").or_io(place)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).or_io(place)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
