//! What would stop an installation, found before the first byte is written: all of it at once, each with its remedy.

mod needs;
mod system;
mod together;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use sealrs_image::cluster_image::{ClusterImage, ImageKind};
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::layer::annotation;
use sealrs_image::progress::{Event, Progress};
use serde::Serialize;

use crate::cluster::ClusterFiles;
use crate::facts::{HOSTS_FILE, HostFacts, Interest, SystemInterest};
use crate::member::Role;
use crate::options::Options;
use crate::registry::{self, Naming};
use crate::runtime::{Layout, Runtime};
use crate::service;
use needs::Needs;
pub(crate) use system::KERNEL_OPTIONS;
pub(crate) use together::{Neighbour, Seen, together};

/// Something about a host that stands against an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The host, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// A stable word for the check.
    pub check: &'static str,
    /// Whether it stops the installation; otherwise it is a warning.
    pub fatal: bool,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// Something that stops the installation.
    pub(crate) fn error(check: &'static str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            host: None,
            check,
            fatal: true,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// The same on this host.
    pub(crate) fn on(self, host: IpAddr) -> Self {
        Self {
            host: Some(host),
            ..self
        }
    }

    /// Something that may go wrong.
    pub(crate) fn warning(check: &'static str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            fatal: false,
            ..Self::error(check, problem, remedy)
        }
    }
}

/// A host that is to be checked, and what it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Its address.
    pub(crate) host: IpAddr,
    /// What it is for.
    pub(crate) role: Role,
    /// The address of the one that has the private registry, if that is known.
    pub(crate) registry: Option<IpAddr>,
}

impl Place {
    fn has_registry(self) -> bool {
        self.registry == Some(self.host)
    }
}

/// What has to be known of a host to check it. `measure` says whether its disk is measured.
pub(crate) fn interest(runtime: Option<&dyn Runtime>, options: &Options, measure: bool) -> Interest {
    let (layout, needs) = (layout(runtime), needs(runtime));
    let common = ["apparmor_parser", "bash", "containerd", "docker"];
    let programs = common.iter().chain(layout.programs).chain(needs.tools);
    let paths = ["/etc/containerd", "/etc/docker"].iter();
    let data = ClusterFiles::new(&options.root, &options.cluster).data();
    let disk = runtime.map_or_else(Vec::new, |runtime| runtime.disk(0));
    let folders: Vec<PathBuf> = disk.into_iter().map(|(folder, _)| folder).collect();
    let quorum = needs.quorum_ports.iter();
    let has_quorum = runtime.is_some_and(|runtime| runtime.has_quorum(options));
    let sync = folders.first().filter(|_| measure && has_quorum).cloned();
    Interest {
        programs: programs.map(|&name| name.to_owned()).collect(),
        paths: paths
            .copied()
            .chain(taken(runtime).into_iter().map(|(_, path)| path))
            .map(PathBuf::from)
            .chain([registry_unit(options)])
            .collect(),
        ports: layout
            .ports
            .iter()
            .chain(layout.master_ports)
            .chain(quorum)
            .copied()
            .chain([options.registry_port])
            .collect(),
        folders: folders.into_iter().chain([data]).collect(),
        registry_domain: options.registry_domain.clone(),
        registry_entry: registry::entry(&options.registry_url()),
        system: Some(SystemInterest {
            kernel_options: KERNEL_OPTIONS
                .iter()
                .filter(|_| needs.pods)
                .map(|&(name, _)| name.to_owned())
                .collect(),
            names: needs.pods,
            sync,
        }),
    }
}

fn layout(runtime: Option<&dyn Runtime>) -> Layout {
    runtime.map(Runtime::layout).unwrap_or_default()
}

fn needs(runtime: Option<&dyn Runtime>) -> Needs {
    runtime.map(|runtime| Needs::of(runtime.name())).unwrap_or_default()
}

/// Paths that tell that a cluster is or was on a host, each with the runtime whose it is.
fn taken(runtime: Option<&dyn Runtime>) -> Vec<(&'static str, &'static str)> {
    let of = |runtime: &dyn Runtime| {
        let name = runtime.name();
        let leftovers = runtime.layout().leftovers.iter();
        leftovers.map(move |&path| (name, path)).collect::<Vec<_>>()
    };
    match runtime {
        // Hosts of other runtimes can have other clusters beside.
        Some(runtime) if !needs(Some(runtime)).pods => of(runtime),
        _ => {
            let mut all: Vec<_> = crate::runtime::all().flat_map(of).collect();
            all.extend(system::OTHERS.map(|path| ("Kubernetes", path)));
            all
        }
    }
}

/// What is to be installed, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'w> {
    /// The image.
    pub(crate) image: Option<&'w ClusterImage>,
    /// The cluster runtime.
    pub(crate) runtime: Option<&'w dyn Runtime>,
    /// What the user wants.
    pub(crate) options: &'w Options,
}

/// All that stands against installing it on this host.
pub(crate) fn findings(facts: &HostFacts, wanted: Wanted<'_>, place: Place) -> Vec<Finding> {
    let Wanted {
        image,
        runtime,
        options,
    } = wanted;
    let mut findings = Vec::new();
    if let Some(image) = image
        && !facts.platform.accepts(&image.config.platform)
    {
        findings.push(Finding::error(
            "platform",
            format!(
                "the image is for {}, this host is {}",
                image.config.platform, facts.platform
            ),
            format!("build or pull the image for {}", facts.platform),
        ));
    }
    if !facts.programs.contains("bash") {
        findings.push(Finding::error(
            "bash",
            "bash is not installed, and the image's scripts need it",
            "install bash",
        ));
    }
    findings.extend(runtime.and_then(|runtime| rights(facts, options, runtime)));
    findings.extend(address(facts, place));
    findings.extend(names(facts, options, place));
    findings.extend(namesake(facts, options));
    if place.has_registry() {
        findings.extend(same_registry(facts, options));
    }
    findings.extend(ports(facts, wanted, place));
    findings.extend(leftovers(facts, runtime));
    if let Some(runtime) = runtime {
        findings.extend(disks(facts, image, options, runtime));
        findings.extend(documents(options, runtime));
        findings.extend(container_runtime(options, runtime));
    }
    if let (Some(runtime), Some(image)) = (runtime, image) {
        findings.extend(runtime.preflight(facts, image, options));
    }
    let needs = match runtime {
        Some(_) => needs(runtime),
        None => Needs::ANY,
    };
    if needs.pods {
        let found = system::findings(facts, options, &needs, place);
        // A runtime knows better what a name of its nodes may be.
        let is_told = |finding: &Finding| {
            findings
                .iter()
                .any(|told| told.check == finding.check && told.check == "hostname")
        };
        let more: Vec<Finding> = found.into_iter().filter(|finding| !is_told(finding)).collect();
        findings.extend(more);
    }
    findings
}

/// Documents of a Clusterfile that the runtime would pass by in silence.
fn documents(options: &Options, runtime: &dyn Runtime) -> Option<Finding> {
    let known = Needs::of(runtime.name()).documents;
    let kinds = options
        .runtime_documents
        .iter()
        .filter_map(|document| document.get("kind")?.as_str());
    let others: Vec<&str> = kinds.filter(|kind| !known.contains(kind)).collect();
    (!others.is_empty()).then(|| {
        Finding::error(
            "runtime-documents",
            format!(
                "runtime {} does not read the Clusterfile's {}",
                runtime.name(),
                others.join(", ")
            ),
            match known {
                [] => "leave them out".to_owned(),
                known => format!("leave them out; it reads {}", known.join(", ")),
            },
        )
    })
}

/// A container runtime that is asked for where the cluster runtime brings its own.
fn container_runtime(options: &Options, runtime: &dyn Runtime) -> Option<Finding> {
    let wanted = options.container_runtime.as_deref()?;
    (wanted == "docker" && runtime.layout().own_containerd).then(|| {
        Finding::error(
            "container-runtime",
            format!(
                "runtime {} runs pods by its own containerd, not by docker: docker can't ask the private registry for images of \
                 other registries",
                runtime.name()
            ),
            "leave `spec.containerRuntime` out; a docker on the host is not touched",
        )
    })
}

fn rights(facts: &HostFacts, options: &Options, runtime: &dyn Runtime) -> Option<Finding> {
    if facts.root {
        return None;
    }
    if runtime.layout().needs_root {
        return Some(Finding::error(
            "root",
            format!("runtime {} can only be installed by root", runtime.name()),
            "run as root, for instance with sudo",
        ));
    }
    (options.registry_port < 1024).then(|| {
        Finding::error(
            "registry-port",
            format!("only root may listen on port {}", options.registry_port),
            "choose a port above 1023 with `--registry-port`",
        )
    })
}

/// The others reach a host by the address that it was named by.
fn address(facts: &HostFacts, place: Place) -> Option<Finding> {
    (!facts.has_address(place.host)).then(|| {
        let own: Vec<String> = facts.addresses.iter().map(|own| own.ip.to_string()).collect();
        Finding::error(
            "address",
            format!(
                "{} is not an address of this host, which has {}",
                place.host,
                own.join(", ")
            ),
            "name the host by an address of its own, by which the other hosts reach it",
        )
    })
}

fn names(facts: &HostFacts, options: &Options, place: Place) -> Option<Finding> {
    let domain = &options.registry_domain;
    let registry = place.registry?;
    match registry::naming(facts, domain, registry) {
        Naming::Known | Naming::HostsFile => None,
        Naming::Elsewhere(ip) => Some(Finding::error(
            "registry-name",
            format!("the registry's name {domain} leads to {ip}, which is not {registry}"),
            format!("remove {domain} from {HOSTS_FILE}, or choose another name with `--registry-domain`"),
        )),
        Naming::Unwritable => Some(Finding::error(
            "registry-name",
            format!("the registry's name {domain} is not known, and {HOSTS_FILE} can't be written"),
            "use `--registry-domain localhost`, or run as root",
        )),
    }
}

/// A cluster of the same name under another root has its entry in the hosts file, its blocks in containerd's files and its
/// unit under the same names.
fn namesake(facts: &HostFacts, options: &Options) -> Option<Finding> {
    let name = &options.cluster;
    let has_entry = facts.hosts.iter().any(|line| line.cluster.as_ref() == Some(name));
    let has_block = facts.containerd_clusters.contains(name);
    (has_entry || has_block || facts.paths.contains(&registry_unit(options))).then(|| {
        Finding::error(
            "cluster-name",
            format!("another cluster `{name}` is on this host, under another root"),
            "choose another name with `--cluster`, or delete that one with its `--root`",
        )
    })
}

/// Its registry may be down, so that the port is free; containerd knows it by its address all the same.
fn same_registry(facts: &HostFacts, options: &Options) -> Option<Finding> {
    let other = facts.registry_clusters.first()?;
    Some(Finding::error(
        "registry-address",
        format!(
            "cluster `{other}` of this host has its private registry at {}",
            options.registry_url()
        ),
        "choose another port with `--registry-port`",
    ))
}

fn registry_unit(options: &Options) -> PathBuf {
    service::unit_path(&registry::service_name(&options.cluster))
}

fn ports(facts: &HostFacts, wanted: Wanted<'_>, place: Place) -> Vec<Finding> {
    let Wanted { runtime, options, .. } = wanted;
    let (layout, needs) = (layout(runtime), needs(runtime));
    let masters = options
        .members
        .iter()
        .filter(|member| member.role == Role::Master)
        .count();
    let is_one_of_many = place.role == Role::Master && (masters > 1 || !place.has_registry());
    let is_needed = |port: u16| {
        layout.ports.contains(&port)
            || (place.role == Role::Master && layout.master_ports.contains(&port))
            || (is_one_of_many && needs.quorum_ports.contains(&port))
            || (place.has_registry() && port == options.registry_port)
    };
    facts
        .listeners
        .iter()
        .filter(|listener| is_needed(listener.port))
        .map(|listener| {
            let port = listener.port;
            let by = listener
                .process
                .as_ref()
                .map_or_else(String::new, |process| format!(" by {process}"));
            match runtime {
                Some(runtime) if port != options.registry_port => Finding::error(
                    "runtime-port",
                    format!("port {port}, which {} needs, is in use{by}", runtime.name()),
                    "stop that process",
                ),
                _ => Finding::error(
                    "registry-port",
                    format!("port {port} of the private registry is in use{by}"),
                    "stop that process, or choose another port with `--registry-port`",
                ),
            }
        })
        .collect()
}

fn leftovers(facts: &HostFacts, runtime: Option<&dyn Runtime>) -> Vec<Finding> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (of, path) in taken(runtime) {
        if facts.paths.contains(&PathBuf::from(path)) {
            found.entry(of).or_default().push(path);
        }
    }
    let finding = |(of, paths): (&str, Vec<&str>)| {
        Finding::error(
            "leftovers",
            format!("another {of} is or was on this host: {}", paths.join(", ")),
            "remove it first; nothing that sealrs did not make is touched",
        )
    };
    found.into_iter().map(finding).collect()
}

/// Needs are added up by file system.
fn disks(facts: &HostFacts, image: Option<&ClusterImage>, options: &Options, runtime: &dyn Runtime) -> Vec<Finding> {
    let data = ClusterFiles::new(&options.root, &options.cluster).data();
    let sure = vec![(data, image.map_or(0, ClusterImage::unpacked_size))];
    let likely: Vec<(PathBuf, u64)> = runtime.disk(image.map_or(0, bundle_size));
    let share = Needs::of(runtime.name()).free_percent;
    let mut budgets: BTreeMap<u64, Budget> = BTreeMap::new();
    for (needs, certain) in [(sure, true), (likely, false)] {
        for (path, bytes) in needs {
            let Some(disk) = facts.disks.get(&path).filter(|_| bytes > 0) else {
                continue;
            };
            let budget = budgets.entry(disk.device).or_default();
            budget.free = disk.free;
            budget.kept = disk.size / 100 * share;
            budget.total = budget.total.saturating_add(bytes);
            if certain {
                budget.certain = budget.certain.saturating_add(bytes);
            }
            budget
                .parts
                .push(format!("{} for {}", mebibytes(bytes), path.display()));
        }
    }
    budgets.into_values().filter_map(Budget::finding).collect()
}

/// What is needed on one file system.
#[derive(Debug, Default)]
struct Budget {
    free: u64,
    /// What the runtime wants to stay free.
    kept: u64,
    /// What the image unpacks to.
    certain: u64,
    /// That, and what the runtime is likely to need.
    total: u64,
    parts: Vec<String>,
}

impl Budget {
    fn finding(self) -> Option<Finding> {
        if self.total <= self.free {
            let left = self.free.saturating_sub(self.total);
            return (left < self.kept).then(|| {
                Finding::warning(
                    "disk",
                    format!(
                        "{} will be free on the disk of {}, and below {} the kubelet removes images and pods",
                        mebibytes(left),
                        self.parts.join(" and "),
                        mebibytes(self.kept)
                    ),
                    "free some space",
                )
            });
        }
        let problem = format!(
            "the disk is too small: need {} ({}), have {}",
            mebibytes(self.total),
            self.parts.join(", "),
            mebibytes(self.free)
        );
        let remedy = "free some space, or choose another place with `--root`";
        Some(if self.certain > self.free {
            Finding::error("disk", problem, remedy)
        } else {
            Finding::warning("disk", problem, remedy)
        })
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// About how many bytes the rootfs has besides the blobs of container images.
fn bundle_size(image: &ClusterImage) -> u64 {
    let blobs: u64 = image
        .manifest
        .layers
        .iter()
        .filter(|layer| layer.annotations.contains_key(annotation::BLOB))
        .map(|layer| layer.size)
        .sum();
    image.unpacked_size().saturating_sub(blobs)
}

/// Tells the warnings, and fails if anything stops the installation.
///
/// # Errors
/// [`ErrorKind::Preflight`] with all findings.
pub fn enforce(findings: &[Finding], progress: &dyn Progress) -> Result<()> {
    for warning in grouped(findings.iter().filter(|finding| !finding.fatal)) {
        progress.event(Event::Warning(&warning));
    }
    let fatal: Vec<&Finding> = findings.iter().filter(|finding| finding.fatal).collect();
    match fatal.as_slice() {
        [] => Ok(()),
        [only] => {
            let what = match only.host {
                Some(host) => format!("{host}: {}", only.problem),
                None => only.problem.clone(),
            };
            Err(Error::new(ErrorKind::Preflight, what).hint(only.remedy.clone()))
        }
        all => {
            let lines = grouped(all.iter().copied());
            let lines: Vec<String> = lines.iter().map(|line| format!("\n  - {line}")).collect();
            Err(Error::new(
                ErrorKind::Preflight,
                format!("{} things stand against the installation:{}", all.len(), lines.concat()),
            )
            .hint("put them right and run the same command again; nothing was changed"))
        }
    }
}

/// In words, with hosts that have the same one in one line.
fn grouped<'f>(findings: impl Iterator<Item = &'f Finding>) -> Vec<String> {
    let mut groups: Vec<(&Finding, Vec<String>)> = Vec::new();
    for finding in findings {
        let host = finding.host.iter().map(ToString::to_string);
        let same = groups.iter_mut().find(|(first, _)| {
            first.check == finding.check && first.problem == finding.problem && first.remedy == finding.remedy
        });
        match same {
            Some((_, hosts)) => hosts.extend(host),
            None => groups.push((finding, host.collect())),
        }
    }
    let line = |(finding, hosts): (&Finding, Vec<String>)| {
        let what = format!("{} ({})", finding.problem, finding.remedy);
        match hosts.as_slice() {
            [] => what,
            hosts => format!("{}: {what}", hosts.join(", ")),
        }
    };
    groups.into_iter().map(line).collect()
}

/// Only cluster images make clusters.
///
/// # Errors
/// [`ErrorKind::Input`] for an image of apps.
pub(crate) fn check_kind(image: &ClusterImage) -> Result<()> {
    match image.extension.kind {
        ImageKind::KubeInstaller => Ok(()),
        ImageKind::AppInstaller => Err(Error::new(
            ErrorKind::Input,
            "the image holds only apps, which make no cluster",
        )
        .hint("install a cluster first; then `sealrs run` brings the apps onto it")),
    }
}

#[cfg(test)]
mod tests;
