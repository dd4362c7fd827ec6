//! `sealrs node`: what sealrs calls on hosts. Not for people.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealrs_image::error::Result;

/// Work on this host.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    Supervise(Supervise),
    Serve(Serve),
    Balance(Balance),
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

/// Connect who comes to one of the cluster's API servers that is ready.
#[derive(Debug, Args)]
pub(crate) struct Balance {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// Port of the servers.
    #[arg(long)]
    port: u16,

    /// Certificate authority of the servers.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,

    /// Server that comes first when it is ready.
    #[arg(long, value_name = "ADDRESS")]
    first: Option<IpAddr>,

    /// File with the servers' addresses, one a line; written anew when there are others.
    #[arg(long, value_name = "FILE")]
    servers: PathBuf,

    /// Program that prints the present servers' addresses.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    ask: Vec<String>,
}

impl Node {
    pub(crate) fn run(self) -> Result<()> {
        let supervise = match self {
            Self::Supervise(supervise) => supervise,
            Self::Balance(balance) => {
                return sealrs_installer::balance(sealrs_installer::Balance {
                    listen: balance.listen,
                    port: balance.port,
                    ca: balance.ca,
                    first: balance.first,
                    servers: balance.servers,
                    ask: balance.ask,
                });
            }
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
