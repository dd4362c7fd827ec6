//! The plan: an ordered list of steps, decided once and then executed. Secrets are never in it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result, ResultExt as _};
use sealrs_image::spec;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::cluster::ClusterFiles;
use crate::facts::HostFacts;
use crate::member::Role;
use crate::options::Options;
use crate::rootfs::RootfsFacts;
use crate::runtime::Runtime;
use crate::{apps, files, registry};

/// The version of the plan's format: a plan that was stored by another version is not executed.
pub(crate) const FORMAT: u32 = 2;

/// The step that unpacks the image: all others are planned from what it unpacked.
pub(crate) const UNPACK: &str = "unpack";

/// What an installation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The format's version.
    pub format: u32,
    /// The cluster.
    pub cluster: String,
    /// The image's manifest.
    pub image: Digest,
    /// The cluster runtime.
    pub runtime: String,
    /// The cluster's hosts, its founder first.
    pub hosts: Vec<Peer>,
    /// `domain:port` of the private registry.
    pub registry: String,
    /// Where the administrator's kubeconfig will be, if the runtime makes one.
    pub kubeconfig: Option<PathBuf>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

/// A host, as the plans of the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// What it is for.
    pub role: Role,
    /// Its name.
    pub hostname: String,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Names the step in the journal: the same in every run.
    pub id: String,
    /// What it is, for people.
    pub title: String,
    /// The address of the host that it is done on.
    pub host: IpAddr,
    /// Hosts go through a phase side by side, each its own steps in their order; the next phase begins when all are
    /// through.
    pub phase: u32,
    /// The digest of what it is done from.
    pub inputs: Digest,
    /// What is done.
    pub action: Action,
}

/// Everything that the plan for one host is made from.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// The host.
    pub facts: &'c HostFacts,
    /// What the image unpacks to.
    pub rootfs: &'c RootfsFacts,
    /// The image.
    pub image: &'c ClusterImage,
    /// What the user wants.
    pub options: &'c Options,
    /// Where things lie, on each host.
    pub files: &'c ClusterFiles,
    /// The address of the host.
    pub host: IpAddr,
    /// What it is for.
    pub role: Role,
    /// Whether it is the operator's own.
    pub here: bool,
    /// All hosts of the cluster, itself among them: the one that founds the cluster is the first.
    pub peers: &'c [Peer],
}

impl Context<'_> {
    /// A step on this host.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the action can't be written as JSON.
    pub(crate) fn step(&self, id: impl Into<String>, title: impl Into<String>, action: Action) -> Result<Step> {
        Ok(Step {
            id: id.into(),
            title: title.into(),
            host: self.host,
            phase: 0,
            inputs: Digest::of(&spec::canonical(&action)?),
            action,
        })
    }

    /// The address of the host that founds the cluster and has the private registry.
    pub(crate) fn founder(&self) -> IpAddr {
        self.peers.first().map_or(self.host, |peer| peer.address)
    }

    pub(crate) fn is_founder(&self) -> bool {
        self.host == self.founder()
    }

    /// The masters.
    pub(crate) fn masters(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.role == Role::Master)
    }
}

/// The name of a step in the journal of a cluster of one host or of many.
pub(crate) fn key(id: &str, host: IpAddr, many: bool) -> String {
    if many { format!("{id}@{host}") } else { id.to_owned() }
}

/// Steps as they are put one behind the other.
#[derive(Debug, Default)]
struct Schedule {
    many: bool,
    phase: u32,
    steps: Vec<Step>,
}

impl Schedule {
    fn add(&mut self, steps: impl IntoIterator<Item = Step>) {
        let (phase, many) = (self.phase, self.many);
        self.steps.extend(steps.into_iter().map(|step| Step {
            id: key(&step.id, step.host, many),
            phase,
            ..step
        }));
    }

    /// What comes now has to wait for all that came so far.
    fn then(&mut self) {
        self.phase += 1;
    }
}

impl Plan {
    /// Decides what to do on these hosts: a pure function of what is known.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when the image or the options can't be installed.
    pub fn decide(contexts: &[Context<'_>], runtime: &dyn Runtime) -> Result<Self> {
        let founder = founder(contexts)?;
        let mut schedule = Schedule {
            many: contexts.len() > 1,
            ..Schedule::default()
        };
        for context in contexts {
            schedule.add([unpack(context)?]);
        }
        schedule.then();
        schedule.add(registry::serve(founder, runtime)?);
        schedule.then();
        let notes = add_hosts(&mut schedule, contexts, runtime)?;
        schedule.then();
        schedule.add(runtime.settle(founder)?);
        let kubeconfig = runtime.layout().kubeconfig.then(|| founder.files.kubeconfig());
        schedule.add(apps::steps(founder, kubeconfig.as_deref())?);
        let plan = Self {
            format: FORMAT,
            cluster: founder.options.cluster.clone(),
            image: founder.image.descriptor.digest,
            runtime: runtime.name().to_owned(),
            hosts: founder.peers.to_vec(),
            registry: founder.options.registry_url(),
            kubeconfig,
            notes,
            steps: schedule.steps,
        };
        plan.check()?;
        Ok(plan)
    }

    /// The address of the host that founds the cluster.
    #[must_use]
    pub fn founder(&self) -> Option<IpAddr> {
        self.hosts.first().map(|peer| peer.address)
    }

    /// Steps are told apart by their ids.
    fn check(&self) -> Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        match self.steps.iter().find(|step| !seen.insert(&step.id)) {
            None => Ok(()),
            Some(step) => Err(Error::new(
                ErrorKind::Internal,
                format!("the plan has two steps `{}`", step.id),
            )),
        }
    }

    /// The plan's digest.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when it can't be written as JSON.
    pub fn digest(&self) -> Result<Digest> {
        Ok(Digest::of(&spec::canonical(self)?))
    }

    /// Stores the plan for the next try.
    pub(crate) fn store(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self).or_fail(ErrorKind::Internal, || "cannot write the plan")?;
        files::write(path, &bytes, 0o600)
    }

    /// Reads a stored plan back.
    pub(crate) fn load(path: &Path, digest: Digest) -> Result<Self> {
        let damaged = || {
            Error::new(
                ErrorKind::Integrity,
                format!("{} is not the plan that was begun", path.display()),
            )
            .hint("it was changed: remove the cluster with `sealrs delete` and run again")
        };
        let bytes = std::fs::read(path).map_err(|error| damaged().because(error))?;
        let plan: Self = serde_json::from_slice(&bytes).map_err(|error| damaged().because(error))?;
        if plan.digest()? != digest {
            return Err(damaged());
        }
        Ok(plan)
    }
}

/// The host that founds the cluster: the first master.
fn founder<'a, 'c>(contexts: &'a [Context<'c>]) -> Result<&'a Context<'c>> {
    contexts
        .iter()
        .find(|context| context.is_founder())
        .ok_or_else(|| Error::new(ErrorKind::Internal, "no host founds the cluster"))
}

fn unpack(context: &Context<'_>) -> Result<Step> {
    let action = Action::Unpack {
        image: context.image.descriptor.digest,
        path: context.files.rootfs(),
    };
    context.step(UNPACK, "unpack the image", action)
}

/// The steps that make hosts members of the cluster: all are prepared side by side; then masters come one after the
/// other, for each changes who has to agree, and then the nodes side by side. Gives what the user should know.
fn add_hosts(schedule: &mut Schedule, contexts: &[Context<'_>], runtime: &dyn Runtime) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let mut joins = Vec::new();
    for context in contexts {
        if !context.is_founder() {
            schedule.add(registry::reach(context, runtime)?);
        }
        let plan = runtime.plan(context)?;
        schedule.add(plan.prepare);
        joins.push((context.role, plan.join));
        for note in plan.notes {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    let (masters, nodes): (Vec<_>, Vec<_>) = joins.into_iter().partition(|(role, _)| *role == Role::Master);
    for (_, join) in masters {
        schedule.then();
        schedule.add(join);
    }
    schedule.then();
    schedule.add(nodes.into_iter().flat_map(|(_, join)| join));
    Ok(notes)
}

/// The address that this host goes by in the cluster.
///
/// # Errors
/// [`ErrorKind::Input`] when the address that the user gave is not one of this host.
pub(crate) fn host_address(facts: &HostFacts, options: &Options) -> Result<IpAddr> {
    match options.host_ip {
        Some(ip) if facts.has_address(ip) => Ok(ip),
        Some(ip) => {
            let own: Vec<String> = facts.addresses.iter().map(|own| own.ip.to_string()).collect();
            Err(
                Error::new(ErrorKind::Input, format!("{ip} is not an address of this host"))
                    .hint(format!("it has {}", own.join(", "))),
            )
        }
        // A host without any network can still run everything for itself.
        None => Ok(facts
            .main_address()
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))),
    }
}

/// The hosts in words.
pub(crate) fn hosts(peers: &[Peer]) -> String {
    let of = |role: Role| {
        let addresses: Vec<String> = peers
            .iter()
            .filter(|peer| peer.role == role)
            .map(|peer| peer.address.to_string())
            .collect();
        addresses.join(", ")
    };
    match (peers, of(Role::Node).as_str()) {
        ([only], _) => only.address.to_string(),
        (_, "") => format!("masters {}", of(Role::Master)),
        (_, nodes) => format!("masters {}, nodes {nodes}", of(Role::Master)),
    }
}

/// The version of the runtime that the image says it has.
pub(crate) fn runtime_version(image: &ClusterImage) -> Option<&str> {
    image.labels().get(name::RUNTIME_VERSION).map(String::as_str)
}

/// The plan as `--dry-run` shows it.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "cluster {} on {}: runtime {}, registry {}, image {}",
            self.cluster,
            hosts(&self.hosts),
            self.runtime,
            self.registry,
            self.image
        )?;
        let mut phase = None;
        for (number, step) in self.steps.iter().enumerate() {
            if self.hosts.len() > 1 && phase != Some(step.phase) {
                phase = Some(step.phase);
                writeln!(f, "phase {}", step.phase + 1)?;
            }
            writeln!(f, "{:3}. {} [{}]", number + 1, step.title, step.id)?;
            writeln!(f, "     {}", step.action)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
