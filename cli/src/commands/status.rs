//! `sealrs status`

use std::path::Path;

use clap::Args;
use sealrs_image::error::Result;
use sealrs_installer::Status as Found;

use crate::printer::Printer;

/// Tell how far a cluster is: its hosts, the step that each has reached, its plan, and the command that goes on with what was
/// interrupted. No host is asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs status
  sealrs status --cluster edge --output json")]
pub(crate) struct Status {
    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    cluster: String,
}

impl Status {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let status = sealrs_installer::status(&root, &self.cluster)?;
        printer.result(&status, told)
    }
}

fn told(status: &Found) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["HOST", "ROLE", "NAME", "STEPS", "AT"]);
    for host in &status.hosts {
        table.add_row([
            host.host.to_string(),
            host.role.to_string(),
            host.hostname.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{}/{}", host.done, host.steps),
            host.at.as_ref().map_or_else(
                || "-".to_owned(),
                |at| format!("{} [{}]{}", at.title, at.id, if at.begun { ", begun" } else { "" }),
            ),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let next = status.next.as_ref().map_or_else(String::new, |next| {
        format!("\n\nto go on, repeat the command that it was begun with, all its options alike:\n  {next}")
    });
    format!("{status}\n{}{next}", table.trim_fmt())
}
