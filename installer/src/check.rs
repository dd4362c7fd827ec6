//! `check`: whether hosts can become, or join, a cluster. The same that `run` looks at first, and nothing is changed.

use std::net::IpAddr;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::cluster::ClusterFiles;
use crate::install;
use crate::journal::Journal;
use crate::member::{self, Access, Role};
use crate::options::Options;
use crate::preflight::{self, Finding, Wanted};
use crate::runtime::{self, Runtime};
use crate::sites;

/// What hosts are like.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The hosts, in the order in which they were named.
    pub hosts: Vec<Checked>,
    /// What stands against them.
    pub findings: Vec<Finding>,
    /// How many of these stop an installation.
    pub errors: usize,
    /// How many do not.
    pub warnings: usize,
}

/// A host that was checked.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Its address.
    pub host: IpAddr,
    /// What it is for.
    pub role: Role,
    /// What it is like; nothing if it could not be reached.
    pub machine: Option<Machine>,
}

/// What a host is like.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Its name.
    pub hostname: String,
    /// The name of its distribution.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// Operating system and architecture.
    pub platform: String,
    /// How many processors it has.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory: u64,
}

/// Looks at all hosts of `options` for an image, or else for a runtime of this name, or else for any.
///
/// # Errors
/// [`ErrorKind::Input`] when image, runtime or options are none. What is wrong with hosts is in the report.
pub fn check(image: Option<&ClusterImage>, runtime: Option<&str>, options: &Options) -> Result<Report> {
    validate(options)?;
    if let Some(image) = image {
        preflight::check_kind(image)?;
    }
    let runtime = match (image, runtime) {
        (Some(image), _) => Some(runtime::of(image)?),
        (None, Some(name)) => Some(named(name)?),
        (None, None) => None,
    };
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let journal = Journal::read(&files.journal())?;
    let known = member::load(&files.members(), &Access::default())?;
    let interest = preflight::interest(runtime, options, true);
    let mut report = Report {
        hosts: Vec::new(),
        findings: Vec::new(),
        errors: 0,
        warnings: 0,
    };
    let mut reached = Vec::new();
    for (host, site) in sites::connect_each(&options.members, options, &files, &interest)? {
        let role = options.member(host).map_or(Role::Master, |member| member.role);
        let machine = match site {
            Ok(site) => {
                let facts = &site.facts;
                let machine = Machine {
                    hostname: facts.hostname.clone(),
                    os: facts.system.os.clone(),
                    kernel: facts.system.kernel.clone(),
                    platform: facts.platform.to_string(),
                    cpus: facts.system.cpus,
                    memory: facts.system.memory,
                };
                reached.push(site);
                Some(machine)
            }
            Err(error) => {
                report.findings.push(unreachable(&error).on(host));
                None
            }
        };
        report.hosts.push(Checked { host, role, machine });
    }
    let wanted = Wanted {
        image,
        runtime,
        options,
    };
    let founder = known.first().map(|member| member.address);
    let registry = founder.or_else(|| {
        let first = report.hosts.first()?;
        (first.role == Role::Master).then_some(first.host)
    });
    report
        .findings
        .extend(install::findings(&reached, wanted, registry, &journal, |host| {
            known.is_empty() || known.iter().any(|member| member.address == host)
        }));
    report.findings.sort_by_key(|finding| {
        let place = |host| report.hosts.iter().position(|checked| checked.host == host);
        (finding.host.and_then(place), !finding.fatal)
    });
    report.errors = report.findings.iter().filter(|finding| finding.fatal).count();
    report.warnings = report.findings.len().saturating_sub(report.errors);
    Ok(report)
}

/// Hosts that are to join a cluster need no master among them.
fn validate(options: &Options) -> Result<()> {
    if options.members.iter().any(|member| member.role == Role::Master) {
        return options.validate();
    }
    Options {
        members: Vec::new(),
        ..options.clone()
    }
    .validate()
}

fn named(name: &str) -> Result<&'static dyn Runtime> {
    runtime::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = runtime::all().map(Runtime::name).collect();
        Error::new(
            ErrorKind::Input,
            format!("there is no cluster runtime `{}`", name.escape_debug()),
        )
        .hint(format!("available: {}", known.join(", ")))
    })
}

/// Why a host can't be looked at.
fn unreachable(error: &Error) -> Finding {
    let check = match error.kind() {
        ErrorKind::Auth => "login",
        _ => "connection",
    };
    let problem = [error.to_string()].into_iter().chain(error.causes());
    let remedy = error.remedy().unwrap_or("see that it is up and has an SSH server");
    Finding::error(check, problem.collect::<Vec<_>>().join(": "), remedy)
}
