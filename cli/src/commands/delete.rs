//! `sealrs delete`

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};

use crate::access::Secrets;
use crate::printer::Printer;

/// Remove a cluster from all its hosts: exactly what `sealrs run` made, also after a half-finished run.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs delete --all --force")]
pub(crate) struct Delete {
    /// Remove the whole cluster.
    #[arg(long, short, required = true)]
    all: bool,

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
        if !self.force && !confirmed(&self.cluster)? {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("cluster {} was not deleted", self.cluster),
            ));
        }
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let summary = sealrs_installer::delete(&root, &self.cluster, &self.secrets.read()?, &*printer.progress())?;
        printer.result(&summary, |summary| summary.words.join("\n"))
    }
}

fn confirmed(cluster: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::new(
            ErrorKind::Input,
            format!("nobody is there to confirm that cluster {cluster} may go"),
        )
        .hint("add `--force`"));
    }
    let place = || "cannot ask";
    write!(
        anstream::stderr(),
        "Delete cluster {cluster} and all its data on all its hosts? [y/N] "
    )
    .or_io(place)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).or_io(place)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
