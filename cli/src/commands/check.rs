//! `sealrs check`

use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::locate::locate;
use sealrs_image::platform::Platform;
use sealrs_installer::{Options, Report};

use crate::access::Access;
use crate::hosts::Hosts;
use crate::printer::Printer;

/// Look at this host, or over SSH at those that are named, and tell all that stands against a cluster on them, each with its
/// remedy. Nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs check -m 10.0.0.1,10.0.0.2,10.0.0.3 -n 10.0.0.4-10.0.0.40 k3s.tar
  sealrs check -n 10.0.0.41-10.0.0.50 --runtime k0s
  sealrs check")]
pub(crate) struct Check {
    /// Image that is to be installed: a name in the store, the start of its digest, or an archive file.
    #[arg(value_name = "NAME|FILE")]
    image: Option<String>,

    #[command(flatten)]
    hosts: Hosts,

    #[command(flatten)]
    access: Access,

    /// Cluster runtime that the hosts are for, where there is no image yet.
    #[arg(long, value_name = "NAME", conflicts_with = "image")]
    runtime: Option<String>,

    /// Name of the cluster. Hosts that are its members already are expected to have what it made.
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    cluster: String,

    /// Name under which hosts will reach the private registry.
    #[arg(long, value_name = "NAME", default_value = "sea.hub")]
    registry_domain: String,

    /// Port of the private registry.
    #[arg(long, value_name = "PORT", default_value_t = 5000)]
    registry_port: u16,

    /// Address of this host, where that of the default route is not the right one.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "masters")]
    host_ip: Option<IpAddr>,

    /// Setting for the cluster runtime, as it will be given to `run`. May be given several times.
    #[arg(long = "runtime-config", value_name = "KEY=VALUE")]
    runtime_config: Vec<String>,
}

impl Check {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let image = match &self.image {
            None => None,
            Some(name) => {
                let located = locate(root, name)?;
                Some(ClusterImage::read(&*located.source, &located.root, &Platform::host())?)
            }
        };
        let access = self.access.read()?;
        let options = Options {
            members: self.hosts.members(&access),
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            cluster: self.cluster,
            registry_domain: self.registry_domain,
            registry_port: self.registry_port,
            host_ip: self.host_ip,
            runtime_config: self.runtime_config,
            ..Options::default()
        };
        let report = sealrs_installer::check(image.as_ref(), self.runtime.as_deref(), &options)?;
        printer.result(&report, table)?;
        match report.errors {
            0 => Ok(()),
            errors => Err(Error::new(
                ErrorKind::Preflight,
                format!("{errors} things stand against a cluster on these hosts"),
            )
            .hint("put them right and check again")),
        }
    }
}

/// A line for each finding, and one for each host that has none.
fn table(report: &Report) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["HOST", "ROLE", "NAME", "RESULT", "CHECK", "WHAT, AND WHAT TO DO"]);
    for host in &report.hosts {
        let name = host.machine.as_ref().map_or("-", |machine| machine.hostname.as_str());
        let mut row = |result: &str, check: &str, what: &str| {
            let (address, role) = (host.host.to_string(), host.role.to_string());
            table.add_row([&address, &role, name, result, check, what]);
        };
        // A host that is alone is not named.
        let of_host = |of: Option<IpAddr>| of == Some(host.host) || (of.is_none() && report.hosts.len() == 1);
        let mut findings = report
            .findings
            .iter()
            .filter(|finding| of_host(finding.host))
            .peekable();
        if findings.peek().is_none() {
            let machine = host.machine.as_ref();
            let what = machine.map_or_else(String::new, |machine| {
                let memory = machine.memory >> 20;
                format!(
                    "{}, kernel {}, {} processors, {memory} MiB",
                    machine.os, machine.kernel, machine.cpus
                )
            });
            row("ok", "-", &what);
        }
        for finding in findings {
            let result = if finding.fatal { "error" } else { "warning" };
            row(
                result,
                finding.check,
                &format!("{}\n→ {}", finding.problem, finding.remedy),
            );
        }
    }
    for finding in report
        .findings
        .iter()
        .filter(|finding| finding.host.is_none() && report.hosts.len() > 1)
    {
        let result = if finding.fatal { "error" } else { "warning" };
        let what = format!("{}\n→ {}", finding.problem, finding.remedy);
        table.add_row(["all", "-", "-", result, finding.check, &what]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
