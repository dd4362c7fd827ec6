//! `sealrs registry`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::progress::{Event, Progress as _};
use sealrs_registry::directory::{Collect, Directory};
use sealrs_registry::server::{PushPolicy, ServeOptions, UPLOADS_EXPIRE, run};
use sealrs_registry::tls::TlsFiles;

use crate::printer::Printer;

/// The built-in registry.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Example:
  sealrs registry serve --dir /var/lib/sealer/data/my-cluster/rootfs/registry")]
pub(crate) enum Registry {
    Serve(Serve),
    Gc(Gc),
}

/// Remove what no image of a registry folder needs, while it is served or not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs registry gc --dir ./registry --dry-run
  sealrs registry gc --dir ./registry --delete-untagged")]
pub(crate) struct Gc {
    /// Folder in the layout of the docker-distribution registry.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Change nothing, and say what would go.
    #[arg(long)]
    dry_run: bool,

    /// Also remove manifests that no tag leads to. Images that are asked for by digest have none.
    #[arg(long)]
    delete_untagged: bool,

    /// Keep what was pushed or asked for within so many minutes.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    grace: u32,
}

/// Serve the container images of a folder, until it is stopped by a signal.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs registry serve --dir /var/lib/sealer/data/my-cluster/rootfs/registry
  sealrs registry serve --dir ./registry --listen 0.0.0.0:5000 --tls-cert sea.hub.crt --tls-key sea.hub.key
  sealrs registry serve --dir ./registry --allow-push --htpasswd users")]
pub(crate) struct Serve {
    /// Folder in the layout of the docker-distribution registry.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Address to listen on. May be given several times.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000", value_parser = address)]
    listen: Vec<SocketAddr>,

    /// PEM file with the server's certificate: serve HTTPS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// PEM file with the certificate's private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Address that gives out counters for Prometheus at /metrics, in plain HTTP and to anybody.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    metrics: Option<SocketAddr>,

    /// Let only the users of this file in (`htpasswd -B`).
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,

    /// Let clients push images, and remove them. Without it the registry is read-only.
    #[arg(long)]
    allow_push: bool,

    /// Take manifests that name blobs or members which were not pushed.
    #[arg(long, requires = "allow_push")]
    allow_sparse: bool,
}

impl Registry {
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        let serve = match self {
            Self::Serve(serve) => serve,
            Self::Gc(gc) => return gc.run(printer),
        };
        let tls = serve
            .tls_cert
            .zip(serve.tls_key)
            .map(|(certificate, key)| TlsFiles { certificate, key });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let options = ServeOptions {
            dir: serve.dir,
            listen: serve.listen,
            tls,
            htpasswd: serve.htpasswd,
            push: match (serve.allow_push, serve.allow_sparse) {
                (false, _) => PushPolicy::Refuse,
                (true, false) => PushPolicy::Allow,
                (true, true) => PushPolicy::AllowSparse,
            },
            metrics: serve.metrics,
        };
        let progress = printer.progress();
        let dir = options.dir.display().to_string();
        run(&options, progress.clone(), |addresses| {
            for address in addresses {
                progress.event(Event::Message(&format!("serving {dir} at {scheme}://{address}")));
            }
        })
    }
}

impl Gc {
    fn run(self, printer: &Printer) -> Result<()> {
        let collected = Directory::open(&self.dir)?.collect(&Collect {
            dry_run: self.dry_run,
            delete_untagged: self.delete_untagged,
            grace: Duration::from_secs(u64::from(self.grace) * 60),
            uploads_expire: UPLOADS_EXPIRE,
        })?;
        let verb = if self.dry_run { "would free" } else { "freed" };
        printer.result(&collected, |it| {
            format!(
                "{verb} {} bytes: {} blobs, {} uploads, {} leftovers; unlinked {} manifests, {} layers\n",
                it.bytes, it.blobs, it.uploads, it.leftovers, it.manifests, it.layers
            )
        })
    }
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        let error = Error::new(ErrorKind::Input, "it is not ADDRESS:PORT");
        match text.trim_start_matches(':').parse::<u16>() {
            Ok(port) => error.hint(format!(
                "write 127.0.0.1:{port} for this host alone, or 0.0.0.0:{port} for all"
            )),
            Err(_) => error.hint("write an IP address and a port, for instance 127.0.0.1:5000 or [::1]:5000"),
        }
    })
}
