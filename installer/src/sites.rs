//! The hosts of a run, each connected, and working on all of them at once.

use std::net::IpAddr;
use std::thread;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::finding;
use sealrs_image::progress::{Event, Progress};

use crate::cluster::ClusterFiles;
use crate::facts::{self, HostFacts, Interest};
use crate::host::Ssh;
use crate::member::{Access, Member, Role};
use crate::node::{Here, Node, There};
use crate::options::Options;
use crate::plan::{self, Context, Peer};
use crate::preflight::{self, Finding, Neighbour, Place, Seen, Wanted};
use crate::rootfs::RootfsFacts;
use crate::work::part_for;

/// More hosts than this are worked on one lot after the other.
const AT_ONCE: usize = 100;

/// A host of a run.
pub(crate) struct Site {
    pub(crate) member: Member,
    /// Whether it is the operator's own.
    pub(crate) here: bool,
    pub(crate) facts: HostFacts,
    /// What the others have to know of it.
    pub(crate) seen: Seen,
    pub(crate) node: Box<dyn Node>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Site({})", self.member.address)
    }
}

impl Site {
    pub(crate) fn address(&self) -> IpAddr {
        self.member.address
    }

    pub(crate) fn name(&self) -> String {
        self.address().to_string()
    }

    /// The host as the others see it.
    pub(crate) fn neighbour(&self) -> Neighbour {
        Neighbour {
            host: self.address(),
            role: self.member.role,
            hostname: self.facts.hostname.clone(),
            seen: Some(self.seen.clone()),
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer {
            address: self.address(),
            role: self.member.role,
            hostname: self.facts.hostname.clone(),
        }
    }
}

/// What the plan for each host is made from; `peers` are all hosts of the cluster.
pub(crate) fn contexts<'c>(
    sites: &'c [Site],
    rootfs: &'c [RootfsFacts],
    image: &'c ClusterImage,
    options: &'c Options,
    files: &'c ClusterFiles,
    peers: &'c [Peer],
) -> Vec<Context<'c>> {
    sites
        .iter()
        .zip(rootfs)
        .map(|(site, rootfs)| Context {
            facts: &site.facts,
            rootfs,
            image,
            options,
            files,
            host: site.address(),
            role: site.member.role,
            here: site.here,
            peers,
        })
        .collect()
}

/// What stands against each of these hosts, where it still counts; `registry` is the address of the one that has or gets
/// the private registry.
pub(crate) fn findings(
    sites: &[Site],
    wanted: Wanted<'_>,
    registry: Option<IpAddr>,
    counts: impl Fn(&Site, &Finding) -> bool,
) -> Vec<Finding> {
    let of_site = |site: &Site| {
        let has_registry = registry == Some(site.address());
        let place = Place {
            host: site.address(),
            role: site.member.role,
            registry,
        };
        let part = wanted.image.map(|image| part_for(image, has_registry));
        let wanted = Wanted {
            image: part.as_ref(),
            ..wanted
        };
        let found = preflight::findings(&site.facts, wanted, place).into_iter();
        let found = found.filter(|finding| counts(site, finding));
        found.map(|finding| finding.on(site.address())).collect::<Vec<_>>()
    };
    sites.iter().flat_map(of_site).collect()
}

/// Connects to all hosts and looks at them. Nothing is changed.
///
/// # Errors
/// All that can't be reached.
pub(crate) fn connect(
    members: &[Member],
    options: &Options,
    files: &ClusterFiles,
    interest: &Interest,
) -> Result<Vec<Site>> {
    if members.is_empty() {
        return Ok(vec![this_host(options, interest)?]);
    }
    on_all(
        &mut members.to_vec(),
        |member| member.address.to_string(),
        |member| look(member, options, files, interest),
    )
}

/// The same, with what stood in the way of each that can't be reached.
///
/// # Errors
/// When this host, being the only one, can't be looked at.
pub(crate) fn connect_each(
    members: &[Member],
    options: &Options,
    files: &ClusterFiles,
    interest: &Interest,
) -> Result<Vec<(IpAddr, Result<Site>)>> {
    if members.is_empty() {
        let site = this_host(options, interest)?;
        return Ok(vec![(site.address(), Ok(site))]);
    }
    on_all(
        &mut members.to_vec(),
        |member| member.address.to_string(),
        |member| Ok((member.address, look(member, options, files, interest))),
    )
}

fn look(member: &Member, options: &Options, files: &ClusterFiles, interest: &Interest) -> Result<Site> {
    let here = facts::is_here(member.address);
    let node: Box<dyn Node> = if here {
        Box::new(Here::locked())
    } else {
        let host = Ssh::new(member.access.ssh(member.address));
        Box::new(There::connect(Box::new(host), files, &options.executable)?)
    };
    seen(node, interest, here, |_| Ok(member.clone()))
}

fn this_host(options: &Options, interest: &Interest) -> Result<Site> {
    seen(Box::new(Here::locked()), interest, true, |facts| {
        let address = plan::host_address(facts, options)?;
        Ok(Member::new(address, Role::Master, Access::default()))
    })
}

fn seen(
    mut node: Box<dyn Node>,
    interest: &Interest,
    here: bool,
    member: impl FnOnce(&HostFacts) -> Result<Member>,
) -> Result<Site> {
    let asked = facts::now();
    let facts = node.facts(interest)?;
    Ok(Site {
        member: member(&facts)?,
        here,
        seen: Seen::new(&facts.system, asked, facts::now()),
        facts,
        node,
    })
}

/// Works on all of them at once. Each goes on to its own end, whatever becomes of the others.
///
/// # Errors
/// All failures, each with the name of the one that it is of.
pub(crate) fn on_all<S: Send, T: Send>(
    sites: &mut [S],
    name: impl Fn(&S) -> String,
    work: impl Fn(&mut S) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    // One has nobody to be confused with, and needs no other thread.
    if let [only] = sites {
        return Ok(vec![work(only)?]);
    }
    let mut done = Vec::with_capacity(sites.len());
    let mut failures: Vec<(String, Error)> = Vec::new();
    for lot in sites.chunks_mut(AT_ONCE) {
        let names: Vec<String> = lot.iter().map(&name).collect();
        let results: Vec<Result<T>> = thread::scope(|scope| {
            let threads: Vec<_> = lot.iter_mut().map(|site| scope.spawn(|| work(site))).collect();
            let panicked = || Err(Error::new(ErrorKind::Internal, "a thread ended too early"));
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| panicked()))
                .collect()
        });
        for (name, result) in names.into_iter().zip(results) {
            match result {
                Ok(result) => done.push(result),
                Err(error) => failures.push((name, error)),
            }
        }
    }
    match failures.len() {
        0 => Ok(done),
        1 => failures.pop().map_or(Ok(done), |(name, error)| {
            Err(error).context(|| format!("it failed on {name}"))
        }),
        count => {
            let findings = failures.into_iter().map(|(name, error)| finding::Finding {
                causes: error.causes(),
                hint: error.remedy().map(str::to_owned),
                ..finding::Finding::new(error.kind(), name, error.to_string())
            });
            Err(Error::together(
                format!("it failed on {count} hosts"),
                findings.collect(),
            ))
        }
    }
}

/// Tells what happens on a host with its name in front.
pub(crate) struct Named<'p> {
    name: String,
    progress: &'p dyn Progress,
}

impl<'p> Named<'p> {
    pub(crate) fn new(name: &str, progress: &'p dyn Progress) -> Self {
        Self {
            name: name.to_owned(),
            progress,
        }
    }
}

impl Progress for Named<'_> {
    fn event(&self, event: Event<'_>) {
        let named = |what: &str| format!("{}: {what}", self.name);
        match event {
            Event::Begin {
                id,
                within,
                what,
                total,
            } => self.progress.event(Event::Begin {
                id,
                within,
                what: &named(what),
                total,
            }),
            Event::Message(text) => self.progress.event(Event::Message(&named(text))),
            Event::Warning(text) => self.progress.event(Event::Warning(&named(text))),
            Event::Advance { .. } | Event::End { .. } => self.progress.event(event),
        }
    }
}
