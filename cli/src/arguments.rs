//! The command line. Its doc comments are the help, the man pages and the completions.

use std::path::PathBuf;

use clap::Parser;

use crate::commands::Command;
use crate::printer::Output;

/// The heading above the flags that all commands have, after a command's own.
const GLOBAL: &str = "Global options";

/// Packs everything a Kubernetes cluster needs into one OCI image, and turns that image into a running cluster on
/// hosts without internet.
#[derive(Debug, Parser)]
#[command(name = "sealrs", version, max_term_width = 100, infer_subcommands = false)]
#[command(after_help = "\
Examples:
  sealrs build -f Kubefile -t registry.example.com/edge/k3s:v1 .
  sealrs save registry.example.com/edge/k3s:v1 -o k3s.tar
  sealrs run k3s.tar")]
pub(crate) struct Arguments {
    /// Folder that holds the store, the build cache and the clusters' data.
    #[arg(
        long,
        global = true,
        env = "SEALRS_ROOT",
        default_value = "/var/lib/sealer",
        value_name = "DIR",
        help_heading = GLOBAL
    )]
    pub(crate) root: PathBuf,

    /// How to write results.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = GLOBAL)]
    pub(crate) output: Output,

    /// Say nothing but results and errors.
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}
