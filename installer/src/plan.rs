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
use crate::facts::{HOSTS_FILE, HostFacts};
use crate::hook::Phase;
use crate::member::Role;
use crate::options::Options;
use crate::rootfs::RootfsFacts;
use crate::runtime::{Departure, Leaving, Runtime};
use crate::{apps, files, hook, labels, registry};

/// The version of the plan's format: a plan that was stored by another version is not executed.
pub(crate) const FORMAT: u32 = 2;

/// The step that unpacks the image: all others are planned from what it unpacked.
pub(crate) const UNPACK: &str = "unpack";

/// The step by which a host that has left is put back as it was.
pub(crate) const REMOVE: &str = "remove";

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
        Step::on(self.host, id, title, action)
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

impl Step {
    /// A step on a host.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the action can't be written as JSON.
    pub(crate) fn on(host: IpAddr, id: impl Into<String>, title: impl Into<String>, action: Action) -> Result<Self> {
        Ok(Self {
            id: id.into(),
            title: title.into(),
            host,
            phase: 0,
            inputs: Digest::of(&spec::canonical(&action)?),
            action,
        })
    }
}

/// How steps are named in the journal, so that each has a name of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Naming {
    /// Several hosts have steps of the same id.
    pub(crate) many: bool,
    /// The installation, or which change after it.
    pub(crate) generation: u32,
}

impl Naming {
    /// The name of a step on a host.
    pub(crate) fn key(self, id: &str, host: IpAddr) -> String {
        match self {
            Self {
                many: false,
                generation: 1,
            } => id.to_owned(),
            Self { generation: 1, .. } => format!("{id}@{host}"),
            Self { generation, .. } => format!("{id}@{host}#{generation}"),
        }
    }
}

/// Steps as they are put one behind the other.
#[derive(Debug)]
struct Schedule {
    naming: Naming,
    phase: u32,
    steps: Vec<Step>,
}

impl Schedule {
    fn new(naming: Naming, phase: u32) -> Self {
        Self {
            naming,
            phase,
            steps: Vec::new(),
        }
    }

    fn add(&mut self, steps: impl IntoIterator<Item = Step>) {
        let (phase, naming) = (self.phase, self.naming);
        self.steps.extend(steps.into_iter().map(|step| Step {
            id: naming.key(&step.id, step.host),
            phase,
            ..step
        }));
    }

    /// What comes now has to wait for all that came so far.
    fn then(&mut self) {
        let has_steps = self.steps.last().is_some_and(|step| step.phase == self.phase);
        self.phase += u32::from(has_steps);
    }
}

impl Plan {
    /// Decides what to do on these hosts: a pure function of what is known.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when the image or the options can't be installed.
    pub fn decide(contexts: &[Context<'_>], runtime: &dyn Runtime) -> Result<Self> {
        let founder = founder(contexts)?;
        let naming = Naming {
            many: contexts.len() > 1,
            generation: 1,
        };
        let mut schedule = Schedule::new(naming, 0);
        for context in contexts {
            schedule.add([unpack(context)?]);
        }
        begin_hosts(
            &mut schedule,
            contexts,
            founder,
            &[Phase::PostUninstall, Phase::PreInstall],
        )?;
        schedule.then();
        schedule.add(registry::serve(founder, runtime)?);
        schedule.then();
        let notes = add_hosts(&mut schedule, contexts, runtime)?;
        schedule.then();
        schedule.add(runtime.settle(founder)?);
        settle_hosts(
            &mut schedule,
            contexts,
            founder,
            runtime,
            &[Phase::PostInstall, Phase::PreUninstall],
        )?;
        let kubeconfig = runtime.layout().kubeconfig.then(|| founder.files.kubeconfig());
        schedule.add(apps::steps(founder, kubeconfig.as_deref())?);
        schedule.add(runtime.finish(founder)?);
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

    /// The plan of a cluster that got more hosts: what it was, and the steps that add them. `contexts` are those of the
    /// founder, which comes first, and of the new hosts.
    ///
    /// # Errors
    /// As [`Plan::decide`].
    pub(crate) fn grown(self, contexts: &[Context<'_>], runtime: &dyn Runtime, naming: Naming) -> Result<Self> {
        let founder = founder(contexts)?;
        let new: Vec<Context<'_>> = contexts
            .iter()
            .filter(|context| !context.is_founder())
            .copied()
            .collect();
        let mut schedule = Schedule::new(naming, self.next_phase());
        for context in &new {
            schedule.add([unpack(context)?]);
        }
        begin_hosts(&mut schedule, &new, founder, &[Phase::PreScaleup])?;
        schedule.then();
        schedule.add(runtime.grow(founder, &self.hosts)?);
        schedule.then();
        let notes = add_hosts(&mut schedule, &new, runtime)?;
        schedule.then();
        schedule.add(runtime.settle(founder)?);
        settle_hosts(&mut schedule, &new, founder, runtime, &[Phase::PostScaleup])?;
        schedule.add(runtime.finish(founder)?);
        self.changed(founder.peers.to_vec(), schedule.steps, notes)
    }

    /// The plan of a cluster that loses hosts: what it was, and the steps by which they leave. Those that are `lost` can't
    /// be reached any more.
    ///
    /// # Errors
    /// When the runtime can't do without one of them.
    pub(crate) fn shrunk(
        self,
        files: &ClusterFiles,
        leaving: &[IpAddr],
        lost: &[IpAddr],
        runtime: &dyn Runtime,
        options: &Options,
        naming: Naming,
    ) -> Result<Self> {
        let (gone, stay): (Vec<Peer>, Vec<Peer>) = self
            .hosts
            .iter()
            .cloned()
            .partition(|peer| leaving.contains(&peer.address));
        let mut schedule = Schedule::new(naming, self.next_phase());
        // The nodes leave together, and the masters one after the other, for each changes who has to agree.
        let (masters, nodes): (Vec<Peer>, Vec<Peer>) = gone.into_iter().partition(|peer| peer.role == Role::Master);
        let groups = [nodes]
            .into_iter()
            .chain(masters.into_iter().map(|master| vec![master]));
        for group in groups.filter(|group| !group.is_empty()) {
            let departures = group
                .iter()
                .map(|peer| {
                    runtime.leave(&Departure {
                        files,
                        peer,
                        peers: &self.hosts,
                        quorum: runtime.has_quorum(options),
                        speaker: stay.first().map_or(peer.address, |first| first.address),
                    })
                })
                .collect::<Result<Vec<Leaving>>>()?;
            for leaving in &departures {
                schedule.add(leaving.before.clone());
            }
            schedule.then();
            for (peer, leaving) in group.iter().zip(&departures) {
                if lost.contains(&peer.address) {
                    continue;
                }
                schedule.add(leaving.there.clone());
                schedule.add([Step::on(
                    peer.address,
                    REMOVE,
                    "remove what was made on the host",
                    Action::Remove,
                )?]);
            }
            schedule.then();
            for leaving in departures {
                schedule.add(leaving.after);
            }
            schedule.then();
        }
        self.changed(stay, schedule.steps, Vec::new())
    }

    /// The first phase of what comes after the plan.
    pub(crate) fn next_phase(&self) -> u32 {
        self.steps.last().map_or(0, |step| step.phase + 1)
    }

    fn changed(self, hosts: Vec<Peer>, steps: Vec<Step>, notes: Vec<String>) -> Result<Self> {
        let plan = Self {
            hosts,
            notes,
            steps: self.steps.into_iter().chain(steps).collect(),
            ..self
        };
        plan.check()?;
        Ok(plan)
    }

    /// The plan without the hosts that are gone, and without the steps by which they went.
    pub(crate) fn settled(self, phase: u32) -> Self {
        let stays = |step: &Step| {
            let is_leaving = step.phase >= phase;
            !is_leaving && self.hosts.iter().any(|peer| peer.address == step.host)
        };
        let steps = self.steps.iter().filter(|step| stays(step)).cloned().collect();
        Self { steps, ..self }
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

    /// Reads a stored plan back: the cluster's, or the one that it is being changed by.
    pub(crate) fn of_cluster(files: &ClusterFiles, digest: Digest) -> Result<Self> {
        match Self::load(&files.next_plan(), digest) {
            Ok(plan) => Ok(plan),
            Err(_) => Self::load(&files.plan(), digest),
        }
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

/// What comes on new hosts before anything else: names, and the hooks of the founder and then their own. What a hook does
/// after a removal is noted before whatever is removed.
fn begin_hosts(schedule: &mut Schedule, new: &[Context<'_>], founder: &Context<'_>, phases: &[Phase]) -> Result<()> {
    schedule.add(hook::all(founder, phases)?);
    schedule.then();
    for context in new {
        schedule.add(host_aliases(context)?);
        schedule.add(hook::all(context, &[Phase::PostCleanHost, Phase::PreInitHost])?);
    }
    Ok(())
}

/// What comes when new hosts are members: their hooks, those of the founder, and what is wanted of their nodes.
fn settle_hosts(
    schedule: &mut Schedule,
    new: &[Context<'_>],
    founder: &Context<'_>,
    runtime: &dyn Runtime,
    phases: &[Phase],
) -> Result<()> {
    schedule.then();
    for context in new {
        schedule.add(hook::all(context, &[Phase::PostInitHost, Phase::PreCleanHost])?);
    }
    schedule.then();
    schedule.add(hook::all(founder, phases)?);
    let members = new.iter().filter_map(|context| founder.options.member(context.host));
    schedule.add(labels::steps(founder, runtime, members)?);
    Ok(())
}

fn host_aliases(context: &Context<'_>) -> Result<Vec<Step>> {
    let aliases = context.options.host_aliases.iter();
    let step = |(address, names): &(IpAddr, Vec<String>)| {
        context.step(
            format!("host-alias-{address}"),
            format!("make {address} known by its names"),
            Action::HostsEntry {
                path: HOSTS_FILE.into(),
                // A cluster has a block for each.
                cluster: format!("{}/{address}", context.options.cluster),
                address: *address,
                names: names.clone(),
            },
        )
    };
    aliases.map(step).collect()
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
        joins.push((context.role, plan.invite, plan.join, plan.settled));
        for note in plan.notes {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    let (masters, nodes): (Vec<_>, Vec<_>) = joins.into_iter().partition(|(role, ..)| *role == Role::Master);
    let groups = masters.into_iter().map(|master| vec![master]).chain([nodes]);
    for group in groups {
        let (mut invites, mut joins, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for (_, invite, join, after) in group {
            joins.extend(join);
            // Those of one group may share theirs.
            for (all, steps) in [(&mut invites, invite), (&mut settled, after)] {
                for step in steps {
                    if !all.contains(&step) {
                        all.push(step);
                    }
                }
            }
        }
        for steps in [invites, joins, settled] {
            if !steps.is_empty() {
                schedule.then();
                schedule.add(steps);
            }
        }
    }
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

/// The first two numbers of that version.
pub(crate) fn runtime_minor(image: &ClusterImage) -> Option<(u32, u32)> {
    let mut numbers = runtime_version(image)?.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
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
