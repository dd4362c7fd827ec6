//! `sealrs gen`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::progress::{Event, Progress as _};
use sealrs_installer::clusterfile::Draft;

use super::assignment;
use crate::printer::Printer;

/// Write files to begin with.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Example:
  sealrs gen clusterfile k3s.tar -m 10.0.0.1 -n 10.0.0.2-10.0.0.5")]
pub(crate) enum Generate {
    Clusterfile(Box<Clusterfile>),
}

impl Generate {
    pub(crate) fn run(self, printer: &Printer) -> Result<()> {
        match self {
            Self::Clusterfile(command) => command.run(printer),
        }
    }
}

/// Write a Clusterfile: what is given, and all other fields as comments. No secret is written into it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs gen clusterfile k3s.tar -m 10.0.0.1
  sealrs gen clusterfile edge/k3s:v1 -m 10.0.0.1-3 -n 10.0.0.4-40 -o Clusterfile
  sealrs gen clusterfile -m fd00::1 -u admin --passwd-env SSH_PASSWORD --port 2222 -e Replicas=3")]
pub(crate) struct Clusterfile {
    /// The ClusterImage: a name in the store or in a registry, or an archive file.
    #[arg(value_name = "NAME|FILE")]
    image: Option<String>,

    /// Addresses of the masters, and ranges of them.
    #[arg(short, long, value_name = "ADDRESSES")]
    masters: String,

    /// Addresses of the nodes, and ranges of them.
    #[arg(short, long, value_name = "ADDRESSES")]
    nodes: Option<String>,

    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    cluster: String,

    /// User on the hosts.
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,

    /// Port of SSH on the hosts.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// File of the private key.
    #[arg(short = 'i', long, value_name = "FILE")]
    pk: Option<String>,

    /// Environment variable that will hold the user's password.
    #[arg(long, value_name = "NAME", conflicts_with = "passwd_file")]
    passwd_env: Option<String>,

    /// File with the user's password.
    #[arg(long, value_name = "FILE")]
    passwd_file: Option<String>,

    /// Environment variable that will hold the key's passphrase.
    #[arg(long, value_name = "NAME", conflicts_with = "pk_passwd_file")]
    pk_passwd_env: Option<String>,

    /// File with the key's passphrase.
    #[arg(long, value_name = "FILE")]
    pk_passwd_file: Option<String>,

    // sealer's flags, which are answered with what to do instead.
    #[arg(short, long, hide = true)]
    passwd: Option<String>,

    #[arg(long, hide = true)]
    pk_passwd: Option<String>,

    /// Variable for scripts, templates and commands. May be given several times.
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = assignment)]
    env: Vec<(String, String)>,

    /// File to write, which must not be there yet; stdout if left out.
    #[arg(short, long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

impl Clusterfile {
    fn run(self, printer: &Printer) -> Result<()> {
        for (flag, given) in [("--passwd", &self.passwd), ("--pk-passwd", &self.pk_passwd)] {
            if given.is_some() {
                let what = format!("`{flag}` puts a secret where every user of this host sees it");
                return Err(Error::new(ErrorKind::Input, what).hint(format!("write `{flag}-env` or `{flag}-file`")));
            }
        }
        let secrets = [
            ("passwdEnv", self.passwd_env),
            ("passwdFile", self.passwd_file),
            ("pkPasswdEnv", self.pk_passwd_env),
            ("pkPasswdFile", self.pk_passwd_file),
        ];
        let draft = Draft {
            cluster: self.cluster,
            image: self.image,
            masters: self.masters,
            nodes: self.nodes,
            user: self.user,
            port: self.port,
            pk: self.pk,
            secrets: secrets
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            env: self.env,
        };
        let (text, clusterfile) = draft.text()?;
        for warning in &clusterfile.warnings {
            let hint = warning.hint.as_deref().unwrap_or_default();
            printer
                .progress()
                .event(Event::Warning(&format!("{}: {hint}", warning.message)));
        }
        let Some(path) = self.output_file else {
            return printer.result(&serde_json::json!({ "clusterfile": text }), |_| text.clone());
        };
        let place = || format!("cannot write {}", path.display());
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let what = format!("{} is there already", path.display());
                return Err(Error::new(ErrorKind::Conflict, what).hint("choose another name, or remove it"));
            }
            other => other.or_io(place)?,
        };
        if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
            // Half of it would be taken for all of it.
            let _ = std::fs::remove_file(&path);
            return Err(error).or_io(place);
        }
        let name = path.display().to_string();
        printer.result(&serde_json::json!({ "file": name }), |_| format!("wrote {name}"))
    }
}
