//! `sealrs completion`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use sealrs_image::error::Result;

use crate::arguments::Arguments;
use crate::printer::Printer;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs completion bash > /etc/bash_completion.d/sealrs")]
pub(crate) struct Completion {
    /// The shell.
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "sealrs", &mut script);
        printer.text(&String::from_utf8_lossy(&script))
    }
}
