//! More hosts for a cluster, or fewer. Like a run, a change that was interrupted is taken up by the same command.

use std::net::IpAddr;
use std::path::Path;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::progress::{Event, Progress};
use sealrs_image::source::Source;

use crate::cluster::ClusterFiles;
use crate::facts::Interest;
use crate::journal::{Change, Journal};
use crate::member::{self, Access, Member, Role};
use crate::options::Options;
use crate::plan::{self, Naming, Peer, Plan, REMOVE, UNPACK};
use crate::preflight::{self, Finding, Neighbour, Wanted};
use crate::runtime::{self, Runtime};
use crate::sites::{self, Site};
use crate::summary::{Outcome, Summary};
use crate::work::{Work, rootfs_of};
use crate::{files, options};

/// Which cluster is changed, and how its hosts are reached.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'c> {
    /// Where sealrs keeps everything.
    pub root: &'c Path,
    /// The cluster's name.
    pub name: &'c str,
    /// Has the secrets with which hosts that are known are reached.
    pub given: &'c Access,
}

/// A cluster that is about to be changed.
struct Open {
    files: ClusterFiles,
    options: Options,
    members: Vec<Member>,
    /// The address of the host that founded the cluster and has its registry.
    founder: IpAddr,
    plan: Plan,
    runtime: &'static dyn Runtime,
}

impl Open {
    /// Begins a change, or takes it up again.
    fn begin(cluster: Cluster<'_>, files: &ClusterFiles, journal: &mut Journal, change: Change) -> Result<Self> {
        journal.start_change(cluster.name, change)?;
        let damaged = || {
            Error::new(
                ErrorKind::Integrity,
                format!("the journal of cluster `{}` has no plan", cluster.name),
            )
        };
        let base = journal.base().ok_or_else(damaged)?;
        let plan = Plan::of_cluster(files, base)?;
        // A change before this one may have been killed at its very end.
        plan.store(&files.plan())?;
        let founder = plan.founder().ok_or_else(damaged)?;
        let mut members = member::load(&files.members(), cluster.given)?;
        // A cluster of the operator's host alone needed no list.
        if members.is_empty() {
            members.push(Member::new(founder, Role::Master, Access::default()));
        }
        let runtime = runtime::by_name(&plan.runtime)
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("runtime `{}` is not known", plan.runtime)))?;
        Ok(Self {
            options: Options {
                members: members.clone(),
                ..Options::kept(files)?
            },
            files: files.clone(),
            members,
            founder,
            plan,
            runtime,
        })
    }
}

/// The cluster's journal, locked against other operators.
fn open_journal(cluster: Cluster<'_>) -> Result<(ClusterFiles, sealrs_image::lock::Lock, Journal)> {
    options::check_cluster_name(cluster.name)?;
    let files = ClusterFiles::new(cluster.root, cluster.name);
    if !files.data().is_dir() {
        return Err(absent(cluster.name));
    }
    let lock = files.hold()?;
    let journal = Journal::open(&files.journal())?;
    Ok((files, lock, journal))
}

/// The error for a cluster that is not there.
pub(crate) fn absent(cluster: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no cluster `{cluster}`"))
        .hint("install it first with `sealrs run`, or name it with `--cluster`")
}

/// The error for a cluster that has no plan yet.
pub(crate) fn unfinished(cluster: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the installation of cluster `{cluster}` has not ended"),
    )
    .hint("finish it first: run the command again that it was begun with")
}

/// The digest of the manifest of the image that a cluster was installed from.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such cluster.
pub fn image_of(root: &Path, cluster: &str) -> Result<sealrs_image::digest::Digest> {
    let given = Access::default();
    let (files, _lock, journal) = open_journal(Cluster {
        root,
        name: cluster,
        given: &given,
    })?;
    let digest = journal.base().or(journal.plan()).ok_or_else(|| unfinished(cluster))?;
    Ok(Plan::of_cluster(&files, digest)?.image)
}

/// Makes hosts members of a cluster that runs, from the image that it was installed from.
///
/// # Errors
/// [`ErrorKind::Preflight`] before anything was changed on a host; [`ErrorKind::Conflict`] when the cluster is not there or
/// being worked on; [`ErrorKind::Step`] when a step fails.
pub fn scale_up(
    source: &dyn Source,
    image: &ClusterImage,
    cluster: Cluster<'_>,
    new: &[Member],
    progress: &dyn Progress,
) -> Result<Summary> {
    let (files, _lock, mut journal) = open_journal(cluster)?;
    let change = Change {
        add: new.iter().map(|member| (member.address, member.role)).collect(),
        remove: Vec::new(),
    };
    check_new(&files, &journal, cluster, &change)?;
    let mut open = Open::begin(cluster, &files, &mut journal, change)?;
    if open.plan.image != image.descriptor.digest {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "cluster `{}` was installed from another image, {}",
                cluster.name, open.plan.image
            ),
        )
        .hint("name that image, or its archive"));
    }
    let naming = Naming {
        many: true,
        generation: journal.generation(),
    };
    let mut sites = connect(&open, new)?;
    preflight::enforce(&findings(&open, &sites, image, &journal, naming), progress)?;
    // From here on the new hosts have something that a deletion has to find.
    let mut members = open.members.clone();
    members.extend(
        new.iter()
            .filter(|new| !open.members.iter().any(|known| known.address == new.address))
            .cloned(),
    );
    member::store(&files.members(), &members)?;
    open.options.members = members;
    let resume = format!(
        "put it right and run the same command again to go on from here, or remove the hosts with \
         `sealrs delete --cluster {}` when it has ended",
        cluster.name
    );
    let work = Work::new(&open.options, &files, journal, naming, resume, progress);
    work.begin(&mut sites, open.runtime, Some(image), &[])?;
    work.unpack(sites.get_mut(1..).unwrap_or_default(), image, source, open.founder)?;
    let from = open.plan.next_phase();
    let decided = work.journal().plan();
    let plan = match decided {
        Some(digest) => Plan::of_cluster(&files, digest)?,
        None => {
            let plan = grown(&open, &mut sites, image, naming)?;
            plan.store(&files.next_plan())?;
            work.journal().planned(plan.digest()?)?;
            plan
        }
    };
    for note in &plan.notes {
        progress.event(Event::Warning(note));
    }
    let executed = work.execute(since(&plan, from), &mut sites)?;
    finish(&work, &plan)?;
    Ok(summary(
        &plan,
        executed,
        format!("cluster {} has {} more hosts", plan.cluster, new.len()),
    ))
}

/// Takes hosts out of a cluster that stays. Those that are `lost` are not reached any more: what is on them stays there.
///
/// # Errors
/// [`ErrorKind::Conflict`] when the cluster could not go on without them; [`ErrorKind::Step`] when a step fails.
pub fn remove(cluster: Cluster<'_>, leaving: &[IpAddr], lost: bool, progress: &dyn Progress) -> Result<Summary> {
    let (files, _lock, mut journal) = open_journal(cluster)?;
    let change = Change {
        add: Vec::new(),
        remove: leaving.to_vec(),
    };
    if journal.change() != Some(&change) {
        check_leaving(&files, &journal, cluster, leaving)?;
    }
    let open = Open::begin(cluster, &files, &mut journal, change)?;
    let naming = Naming {
        many: true,
        generation: journal.generation(),
    };
    let mut sites = reach(&open, leaving, lost, &journal, naming)?;
    if journal.plan().is_none() {
        check_quorum(&open, leaving, &sites)?;
    }
    let lost: Vec<IpAddr> = if lost { leaving.to_vec() } else { Vec::new() };
    let from = open.plan.next_phase();
    let plan = match journal.plan() {
        Some(digest) => Plan::of_cluster(&files, digest)?,
        None => {
            let plan = open
                .plan
                .clone()
                .shrunk(&files, leaving, &lost, open.runtime, &open.options, naming)?;
            plan.store(&files.next_plan())?;
            journal.planned(plan.digest()?)?;
            plan
        }
    };
    let resume = "put it right and run the same command again to go on from here".to_owned();
    let work = Work::new(&open.options, &files, journal, naming, resume, progress);
    work.begin(&mut sites, open.runtime, None, &[])?;
    let executed = work.execute(since(&plan, from), &mut sites)?;
    let members: Vec<Member> = open
        .members
        .iter()
        .filter(|member| !leaving.contains(&member.address))
        .cloned()
        .collect();
    member::store(&files.members(), &members)?;
    let plan = plan.settled(from);
    plan.store(&files.next_plan())?;
    work.journal().planned(plan.digest()?)?;
    finish(&work, &plan)?;
    Ok(summary(
        &plan,
        executed,
        format!("{} hosts have left cluster {}", leaving.len(), plan.cluster),
    ))
}

/// The steps of a plan from a phase on.
fn since(plan: &Plan, phase: u32) -> &[plan::Step] {
    let first = plan.steps.iter().position(|step| step.phase >= phase);
    first.and_then(|first| plan.steps.get(first..)).unwrap_or_default()
}

/// The next plan becomes the cluster's.
fn finish(work: &Work<'_>, plan: &Plan) -> Result<()> {
    work.journal().finished()?;
    plan.store(&work.files.plan())?;
    files::remove_file(&work.files.next_plan())
}

fn check_new(files: &ClusterFiles, journal: &Journal, cluster: Cluster<'_>, change: &Change) -> Result<()> {
    if journal.change() == Some(change) {
        return Ok(());
    }
    let known = member::load(&files.members(), cluster.given)?;
    let digest = journal.base().or(journal.plan());
    let hosts = match digest {
        Some(digest) => Plan::of_cluster(files, digest)?.hosts,
        None => Vec::new(),
    };
    let is_there = |address: IpAddr| {
        hosts.iter().any(|peer| peer.address == address) || known.iter().any(|member| member.address == address)
    };
    match change.add.iter().find(|(address, _)| is_there(*address)) {
        None => Ok(()),
        Some((address, _)) => Err(Error::new(
            ErrorKind::Input,
            format!("{address} is a host of cluster `{}` already", cluster.name),
        )
        .hint("name new hosts alone")),
    }
}

/// The founder, and then the new hosts.
fn connect(open: &Open, new: &[Member]) -> Result<Vec<Site>> {
    let founder = open.members.iter().find(|member| member.address == open.founder);
    let members: Vec<Member> = founder.into_iter().chain(new).cloned().collect();
    let interest = preflight::interest(Some(open.runtime), &open.options, true);
    sites::connect(&members, &open.options, &open.files, &interest)
}

fn findings(open: &Open, sites: &[Site], image: &ClusterImage, journal: &Journal, naming: Naming) -> Vec<Finding> {
    let new = sites.get(1..).unwrap_or_default();
    let wanted = Wanted {
        image: Some(image),
        runtime: Some(open.runtime),
        options: &open.options,
    };
    let mut all = sites::findings(new, wanted, Some(open.founder), |site, finding| {
        !journal.is_done(&naming.key(UNPACK, site.address())) || matches!(finding.check, "platform" | "root")
    });
    let known = open.plan.hosts.iter().map(|peer| Neighbour {
        host: peer.address,
        role: peer.role,
        hostname: peer.hostname.clone(),
        seen: None,
    });
    let neighbours: Vec<_> = known.chain(new.iter().map(Site::neighbour)).collect();
    all.extend(preflight::together(
        &neighbours,
        open.runtime.has_quorum(wanted.options),
    ));
    all
}

fn grown(open: &Open, sites: &mut [Site], image: &ClusterImage, naming: Naming) -> Result<Plan> {
    let rootfs = rootfs_of(sites)?;
    let mut peers: Vec<Peer> = open.plan.hosts.clone();
    peers.extend(sites.iter().skip(1).map(Site::peer));
    let contexts = sites::contexts(sites, &rootfs, image, &open.options, &open.files, &peers);
    open.plan.clone().grown(&contexts, open.runtime, naming)
}

/// Whether hosts can be told to leave.
fn check_leaving(files: &ClusterFiles, journal: &Journal, cluster: Cluster<'_>, leaving: &[IpAddr]) -> Result<()> {
    let Some(digest) = journal.base().or(journal.plan()) else {
        return Ok(());
    };
    let hosts = Plan::of_cluster(files, digest)?.hosts;
    let name = cluster.name;
    for address in leaving {
        if !hosts.iter().any(|peer| peer.address == *address) {
            return Err(
                Error::new(ErrorKind::NotFound, format!("{address} is no host of cluster `{name}`"))
                    .hint(format!("it has {}", plan::hosts(&hosts))),
            );
        }
    }
    let stays = |peer: &&Peer| !leaving.contains(&peer.address);
    if hosts.iter().filter(stays).all(|peer| peer.role != Role::Master) {
        return Err(
            Error::new(ErrorKind::Conflict, format!("cluster `{name}` would have no master"))
                .hint("remove all of it with `sealrs delete --all`"),
        );
    }
    match hosts.first() {
        Some(first) if leaving.contains(&first.address) => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} has the private registry of cluster `{name}`, which can't move to another host yet",
                first.address
            ),
        )
        .hint("keep it, and remove other hosts")),
        _ => Ok(()),
    }
}

/// The hosts that a removal needs: a master that stays, the other masters as far as they are up, and those that go.
fn reach(open: &Open, leaving: &[IpAddr], lost: bool, journal: &Journal, naming: Naming) -> Result<Vec<Site>> {
    let interest = Interest::default();
    let mut sites = Vec::new();
    for member in &open.members {
        let goes = leaving.contains(&member.address);
        let is_gone = journal.is_done(&naming.key(REMOVE, member.address));
        let needed = if goes {
            !lost && !is_gone
        } else {
            member.role == Role::Master
        };
        if !needed {
            continue;
        }
        match sites::connect(std::slice::from_ref(member), &open.options, &open.files, &interest) {
            Ok(site) => sites.extend(site),
            // Whether the others are enough is counted then.
            Err(_) if !goes && member.address != open.founder => {}
            Err(error) if goes => {
                return Err(error.hint(format!(
                    "bring {} up, or add `--lost` if it is gone for good",
                    member.address
                )));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sites)
}

/// Refuses what would leave fewer masters up than have to agree.
fn check_quorum(open: &Open, leaving: &[IpAddr], sites: &[Site]) -> Result<()> {
    let masters: Vec<IpAddr> = open
        .plan
        .hosts
        .iter()
        .filter(|peer| peer.role == Role::Master)
        .map(|peer| peer.address)
        .collect();
    let going = masters.iter().filter(|address| leaving.contains(address)).count();
    if going == 0 || !open.runtime.has_quorum(&open.options) {
        return Ok(());
    }
    let is_up = |address: &&IpAddr| sites.iter().any(|site| site.address() == **address);
    let majority = |of: usize| of / 2 + 1;
    let refuse = |what: String| {
        Err(Error::new(ErrorKind::Conflict, what)
            .hint("bring the masters up that are down, or add new ones with `sealrs scale-up` first"))
    };
    let up = masters.iter().filter(is_up).count();
    if up < majority(masters.len()) {
        return refuse(format!(
            "{up} of {} masters are up, and {} have to agree to a change",
            masters.len(),
            majority(masters.len())
        ));
    }
    let stay: Vec<IpAddr> = masters
        .iter()
        .filter(|address| !leaving.contains(address))
        .copied()
        .collect();
    let up = stay.iter().filter(is_up).count();
    if up < majority(stay.len()) {
        return refuse(format!(
            "{up} of the {} masters that stay are up, and {} have to be: the cluster would stop",
            stay.len(),
            majority(stay.len())
        ));
    }
    Ok(())
}

fn summary(plan: &Plan, executed: usize, what: String) -> Summary {
    Summary {
        cluster: plan.cluster.clone(),
        outcome: Outcome::Changed,
        image: Some(plan.image),
        runtime: Some(plan.runtime.clone()),
        registry: Some(plan.registry.clone()),
        rootfs: None,
        kubeconfig: None,
        steps: executed,
        words: vec![what, format!("it has {}", plan::hosts(&plan.hosts))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Inputs;
    use sealrs_image::digest::Digest;

    fn plan(note: &str) -> Plan {
        Plan {
            format: plan::FORMAT,
            cluster: "c".into(),
            image: Digest::of(b"image"),
            runtime: "script".into(),
            hosts: vec![Peer {
                address: "10.0.0.1".parse().unwrap(),
                role: Role::Master,
                hostname: "node1".into(),
            }],
            registry: "sea.hub:5000".into(),
            kubeconfig: None,
            notes: vec![note.into()],
            steps: Vec::new(),
        }
    }

    #[test]
    fn a_change_that_was_killed_at_its_very_end_has_happened() {
        let root = tempfile::tempdir().unwrap();
        let files = ClusterFiles::new(root.path(), "c");
        std::fs::create_dir_all(files.data()).unwrap();
        let options = Options::default();
        options.keep(&files).unwrap();
        let (first, second) = (plan("first"), plan("second"));
        let add = |address: &str| Change {
            add: vec![(address.parse().unwrap(), Role::Node)],
            remove: Vec::new(),
        };
        let mut journal = Journal::open(&files.journal()).unwrap();
        journal.start("c", Inputs::new(first.image, &options)).unwrap();
        first.store(&files.plan()).unwrap();
        journal.planned(first.digest().unwrap()).unwrap();
        journal.finished().unwrap();
        journal.start_change("c", add("10.0.0.2")).unwrap();
        second.store(&files.next_plan()).unwrap();
        journal.planned(second.digest().unwrap()).unwrap();
        journal.finished().unwrap();
        // Its plan did not become the cluster's any more.
        let given = Access::default();
        let cluster = Cluster {
            root: root.path(),
            name: "c",
            given: &given,
        };
        let open = Open::begin(cluster, &files, &mut journal, add("10.0.0.3")).unwrap();
        assert_eq!(open.plan, second);
        assert_eq!(Plan::load(&files.plan(), second.digest().unwrap()).unwrap(), second);
    }
}
