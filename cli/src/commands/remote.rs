//! Flags of all commands that talk to registries.

use std::path::PathBuf;

use clap::Args;
use sealrs_image::error::{IoResultExt as _, Result};
use sealrs_image::remote::{CONNECTIONS, Client, Credentials, Mirror, Options, certificate_folders};

/// How registries are met.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Registries {
    /// Registry that may be met over plain HTTP, or with a certificate that can't be verified. May be given several times.
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    insecure: Vec<String>,

    /// PEM file with a certificate authority to believe, beside the system's. May be given several times.
    #[arg(long = "ca-file", value_name = "FILE")]
    ca_files: Vec<PathBuf>,

    /// Connections to one registry at once. Fewer are used when it says that it is too much.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS)]
    pub(super) jobs: usize,
}

impl Registries {
    /// The file with the authority that was given, as hosts need it too. Of several nobody knows which it is.
    pub(crate) fn ca_file(&self) -> Result<Option<PathBuf>> {
        match self.ca_files.as_slice() {
            [file] => std::path::absolute(file)
                .map(Some)
                .or_io(|| format!("cannot find {}", file.display())),
            _ => Ok(None),
        }
    }

    /// A client with the credentials of docker's or podman's config file.
    pub(crate) fn client(&self) -> Result<Client> {
        self.client_with(Vec::new(), Credentials::from_environment()?)
    }

    /// The same, with mirrors and other credentials.
    pub(crate) fn client_with(&self, mirrors: Vec<Mirror>, credentials: Credentials) -> Result<Client> {
        Client::new(Options {
            insecure_hosts: self.insecure.clone(),
            ca_files: self.ca_files.clone(),
            certificate_folders: certificate_folders(),
            mirrors,
            credentials,
            connections: self.jobs,
            ..Options::default()
        })
    }
}
