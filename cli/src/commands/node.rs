//! `sealrs node`: what sealrs calls on hosts. Not for people.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealrs_image::error::Result;

/// Work on this host.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    Supervise(Supervise),
    Serve(Serve),
}

/// Do on this host what an operator asks for by standard input.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// This program goes as soon as it runs.
    #[arg(long)]
    passing: bool,
}

/// Run a program as a service where there is no systemd: start it again when it dies.
#[derive(Debug, Args)]
pub(crate) struct Supervise {
    /// File that names the program's process while it runs.
    #[arg(long, value_name = "FILE")]
    pid_file: PathBuf,

    /// File that the program's output goes to.
    #[arg(long, value_name = "FILE")]
    log_file: PathBuf,

    /// Program and arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

impl Node {
    pub(crate) fn run(self) -> Result<()> {
        let supervise = match self {
            Self::Supervise(supervise) => supervise,
            Self::Serve(serve) => {
                if serve.passing
                    && let Ok(program) = std::env::current_exe()
                {
                    let _ = std::fs::remove_file(program);
                }
                return sealrs_installer::serve(std::io::stdin(), std::io::stdout());
            }
        };
        sealrs_installer::supervise(&sealrs_installer::Supervise {
            pid_file: supervise.pid_file,
            log_file: supervise.log_file,
            command: supervise.command,
        })
    }
}
