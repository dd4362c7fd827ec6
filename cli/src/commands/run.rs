//! `sealrs run`

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use sealrs_image::cluster_image::{ClusterImage, ImageKind};
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::locate::locate;
use sealrs_image::platform::Platform;
use sealrs_installer::preflight::enforce;
use sealrs_installer::{Approval, Cluster, LONGEST_LIFE, Options};

use super::{apps, show_plan, variable};
use crate::access::Access;
use crate::hosts::Hosts;
use crate::printer::Printer;

/// Install a ClusterImage on this host, or over SSH on those that are named. The same command again goes on where an interrupted one
/// stopped. An image of apps comes onto a cluster that runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs run k3s.tar
  sealrs run k3s.tar --dry-run --output json >plan.json
  sealrs run k3s.tar --plan plan.json
  sealrs run k3s.tar -m 10.0.0.1,10.0.0.2,10.0.0.3 -n 10.0.0.4-10.0.0.40
  sealrs run apps.tar --wait
  ssh build sealrs save k3s:v1 -o - | sealrs run -
  sealrs run registry.example.com/edge/app:v1 --registry-domain localhost --registry-port 5050")]
pub(crate) struct Run {
    /// Name of an image in the store, the start of its digest, an archive file, or `-` for one that comes through a pipe.
    #[arg(value_name = "NAME|FILE|-")]
    image: String,

    #[command(flatten)]
    hosts: Hosts,

    #[command(flatten)]
    access: Access,

    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    cluster: String,

    /// Name under which hosts reach the private registry. A name that resolves needs no entry in /etc/hosts.
    #[arg(long, value_name = "NAME", default_value = "sea.hub")]
    registry_domain: String,

    /// Port of the private registry.
    #[arg(long, value_name = "PORT", default_value_t = 5000)]
    registry_port: u16,

    /// For how many years the certificates are valid that sealrs makes: those of authorities, and the private registry's.
    #[arg(long, value_name = "YEARS", default_value_t = LONGEST_LIFE, value_parser = clap::value_parser!(u16).range(1..=100))]
    certificate_years: u16,

    /// Address of this host, where that of the default route is not the right one.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "masters")]
    host_ip: Option<IpAddr>,

    /// Variable for scripts and commands; without a value, that of sealrs's own environment, as is right for secrets.
    /// May be given several times.
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<(String, String)>,

    /// Command to run at the end instead of the image's. May be given several times.
    #[arg(long = "cmds", value_name = "COMMAND")]
    cmds: Vec<String>,

    /// App to launch at the end instead of the image's; an empty one launches none. May be given several times.
    #[arg(long = "apps", value_name = "NAME", value_delimiter = ',')]
    apps: Vec<String>,

    /// Wait until apps are ready, for 300 seconds or for these.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "300")]
    wait: Option<u64>,

    /// Setting for the cluster runtime, on top of the image's: for k3s, a key of its config.yaml. May be given several times.
    #[arg(long = "runtime-config", value_name = "KEY=VALUE")]
    runtime_config: Vec<String>,

    /// Print the plan with its digest, and what stands against it, and do nothing.
    #[arg(long)]
    dry_run: bool,

    /// Follow no other plan than the one with this digest, or the one in this file, which is what `--dry-run --output json`
    /// has printed.
    #[arg(long, value_name = "DIGEST|FILE")]
    plan: Option<String>,

    /// Fail unless there is an interrupted installation to go on with, as is done without it.
    #[arg(long)]
    resume: bool,
}

impl Run {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let located = locate(root, &self.image)?;
        // Damage is told with the file's name, whatever noticed it.
        let name = self.image;
        let damaged = |error: Error| match error.kind() {
            ErrorKind::Integrity => {
                let error = located.explain(error);
                Error::new(error.kind(), format!("cannot install {name}")).because(error)
            }
            _ => error,
        };
        let image = ClusterImage::read(&*located.source, &located.root, &Platform::host()).map_err(damaged)?;
        located.check_complete().map_err(damaged)?;
        let access = self.access.read()?;
        let options = Options {
            members: self.hosts.members(&access),
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            cluster: self.cluster,
            registry_domain: self.registry_domain,
            registry_port: self.registry_port,
            certificate_years: self.certificate_years,
            host_ip: self.host_ip,
            env: self.env.into_iter().collect::<BTreeMap<_, _>>(),
            cmds: (!self.cmds.is_empty()).then_some(self.cmds),
            apps: (!self.apps.is_empty()).then(|| self.apps.into_iter().filter(|app| !app.is_empty()).collect()),
            runtime_config: self.runtime_config,
            approval: self.plan.as_deref().map(Approval::read).transpose()?,
            resume: self.resume,
            wait: self.wait,
            ..Options::default()
        };
        if image.extension.kind == ImageKind::AppInstaller {
            let cluster = Cluster {
                root: &options.root,
                name: &options.cluster,
                given: &access,
            };
            if is_for_a_cluster(&options) {
                let what = format!("{name} is an image of apps, which comes onto a cluster that runs");
                return Err(Error::new(ErrorKind::Input, what)
                    .hint(
                        "leave out hosts, and settings of the runtime, the registry and certificates: the cluster has its own; it is named \
                         with `--cluster`",
                    ));
            }
            apps(&*located.source, &image, cluster, &options, self.dry_run, printer).map_err(damaged)?;
            return located.drain();
        }
        if self.dry_run {
            let (plan, findings) = sealrs_installer::plan(&*located.source, &image, &options).map_err(damaged)?;
            located.drain()?;
            show_plan(&plan, printer)?;
            return enforce(&findings, &*printer.progress());
        }
        let summary =
            sealrs_installer::run(&*located.source, &image, &options, &*printer.progress()).map_err(damaged)?;
        located.drain()?;
        printer.result(&summary, |summary| summary.words.join("\n"))
    }
}

/// Whether something is said that only a cluster which is made can have.
fn is_for_a_cluster(options: &Options) -> bool {
    let default = Options::default();
    let settings = |options: &Options| {
        (
            options.registry_url(),
            options.host_ip,
            options.certificate_years,
            options.runtime_config.clone(),
        )
    };
    !options.members.is_empty() || settings(options) != settings(&default)
}
