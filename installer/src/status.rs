//! `status`: how far a cluster is, by its journal. No host is asked.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::cluster::ClusterFiles;
use crate::journal::{Change, Journal, Stage};
use crate::member::{self, Access, Role};
use crate::options;
use crate::plan::{Plan, Step};

/// How far a cluster is.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The cluster.
    pub cluster: String,
    /// What is under way, if anything is.
    pub stage: Stage,
    /// The change of hosts that is under way.
    pub change: Option<Change>,
    /// The manifest of its image.
    pub image: Option<Digest>,
    /// Its runtime, once that was planned.
    pub runtime: Option<String>,
    /// The digest of the plan that is followed, once it was decided.
    pub plan: Option<Digest>,
    /// `domain:port` of its private registry.
    pub registry: Option<String>,
    /// Its administrator's kubeconfig, if there is one here.
    pub kubeconfig: Option<PathBuf>,
    /// Its hosts.
    pub hosts: Vec<HostStatus>,
    /// The command that goes on with what is under way.
    pub next: Option<String>,
}

/// How far a host is.
#[derive(Debug, Clone, Serialize)]
pub struct HostStatus {
    /// Its address.
    pub host: IpAddr,
    /// What it is for.
    pub role: Role,
    /// Its name, once it is known.
    pub hostname: Option<String>,
    /// How many steps it has.
    pub steps: usize,
    /// How many of them were done.
    pub done: usize,
    /// The step that was begun or comes next.
    pub at: Option<At>,
}

/// A step that was not done.
#[derive(Debug, Clone, Serialize)]
pub struct At {
    /// Its name.
    pub id: String,
    /// What it is.
    pub title: String,
    /// Whether it was begun.
    pub begun: bool,
}

/// Reads how far a cluster is.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such cluster; [`ErrorKind::Integrity`] when its files are damaged.
pub fn status(root: &Path, cluster: &str) -> Result<Status> {
    options::check_cluster_name(cluster)?;
    let files = ClusterFiles::new(root, cluster);
    let journal = Journal::read(&files.journal())?;
    if journal.stage() == Stage::Fresh {
        return Err(
            Error::new(ErrorKind::NotFound, format!("there is no cluster `{cluster}`"))
                .hint("install it with `sealrs run`, or name another one with `--cluster`"),
        );
    }
    let digest = journal.plan().or(journal.base());
    let plan = digest.map(|digest| Plan::of_cluster(&files, digest)).transpose()?;
    let kubeconfig = files.kubeconfig();
    let mut status = Status {
        cluster: cluster.to_owned(),
        stage: journal.stage(),
        change: journal.change().cloned(),
        image: journal.inputs().map(crate::inputs::Inputs::image),
        runtime: plan.as_ref().map(|plan| plan.runtime.clone()),
        plan: journal.plan(),
        registry: plan.as_ref().map(|plan| plan.registry.clone()),
        kubeconfig: kubeconfig.exists().then_some(kubeconfig),
        hosts: hosts(&files, &journal, plan.as_ref())?,
        next: None,
    };
    status.next = next(&status);
    Ok(status)
}

fn hosts(files: &ClusterFiles, journal: &Journal, plan: Option<&Plan>) -> Result<Vec<HostStatus>> {
    let mut hosts: Vec<HostStatus> = Vec::new();
    let mut add = |host: IpAddr, role: Role, hostname: Option<&str>| {
        if !hosts.iter().any(|known| known.host == host) {
            hosts.push(of_host(journal, plan, host, role, hostname));
        }
    };
    for peer in plan.into_iter().flat_map(|plan| &plan.hosts) {
        add(peer.address, peer.role, Some(&peer.hostname));
    }
    // Those that come and have no plan yet, and those that go and are in the plan no more.
    for member in member::load(&files.members(), &Access::default())? {
        add(member.address, member.role, None);
    }
    for (host, role) in journal.change().into_iter().flat_map(|change| &change.add) {
        add(*host, *role, None);
    }
    Ok(hosts)
}

fn of_host(journal: &Journal, plan: Option<&Plan>, host: IpAddr, role: Role, hostname: Option<&str>) -> HostStatus {
    let steps: Vec<&Step> = plan
        .into_iter()
        .flat_map(|plan| &plan.steps)
        .filter(|step| step.host == host)
        .collect();
    let at = steps.iter().find(|step| !journal.is_done(&step.id)).map(|step| At {
        id: step.id.clone(),
        title: step.title.clone(),
        begun: journal.is_begun(&step.id),
    });
    HostStatus {
        host,
        role,
        hostname: hostname.map(str::to_owned),
        steps: steps.len(),
        done: steps.iter().filter(|step| journal.is_done(&step.id)).count(),
        at,
    }
}

/// The command that goes on. What secrets and files it had is not known.
fn next(status: &Status) -> Option<String> {
    let flags = |masters: Vec<IpAddr>, nodes: Vec<IpAddr>| {
        let flag = |name: &str, hosts: Vec<IpAddr>| {
            let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            match hosts.is_empty() {
                true => String::new(),
                false => format!(" {name} {}", hosts.join(",")),
            }
        };
        flag("-m", masters) + &flag("-n", nodes)
    };
    let of = |wanted: Role| {
        let hosts = status.hosts.iter().filter(move |host| host.role == wanted);
        hosts.map(|host| host.host).collect::<Vec<_>>()
    };
    let cluster = &status.cluster;
    match (status.stage, &status.change) {
        (Stage::Deleting, _) => Some(format!("sealrs delete --all --cluster {cluster}")),
        (Stage::Running, Some(change)) if change.remove.is_empty() => {
            let of = |wanted: Role| {
                let hosts = change.add.iter().filter(move |(_, role)| *role == wanted);
                hosts.map(|(host, _)| *host).collect::<Vec<_>>()
            };
            let flags = flags(of(Role::Master), of(Role::Node));
            Some(format!("sealrs scale-up{flags} --cluster {cluster}"))
        }
        (Stage::Running, Some(change)) => {
            let goes = |wanted: Role| {
                let hosts = of(wanted).into_iter();
                hosts.filter(|host| change.remove.contains(host)).collect::<Vec<_>>()
            };
            // A host that the plan does not have any more is named in either way.
            let gone = change
                .remove
                .iter()
                .filter(|host| !status.hosts.iter().any(|known| known.host == **host));
            let nodes = goes(Role::Node).into_iter().chain(gone.copied()).collect();
            let flags = flags(goes(Role::Master), nodes);
            Some(format!("sealrs delete{flags} --cluster {cluster}"))
        }
        (Stage::Running, None) => {
            let image = status
                .image
                .map_or_else(|| "IMAGE".to_owned(), |image| image.to_string());
            let flags = flags(of(Role::Master), of(Role::Node));
            Some(format!("sealrs run {image}{flags} --cluster {cluster} --resume"))
        }
        (Stage::Fresh | Stage::Finished, _) => None,
    }
}

/// In words, but for the hosts.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |count: fn(&HostStatus) -> usize| self.hosts.iter().map(count).sum::<usize>();
        let (done, all) = (sum(|host| host.done), sum(|host| host.steps));
        let cluster = &self.cluster;
        match (self.stage, &self.change) {
            (Stage::Deleting, _) => writeln!(f, "cluster {cluster}: its deletion was begun and has not ended")?,
            (Stage::Running, Some(change)) => writeln!(f, "cluster {cluster}: a change has not ended: {change}")?,
            (Stage::Running, None) => writeln!(f, "cluster {cluster}: its installation has not ended")?,
            (Stage::Fresh | Stage::Finished, _) => writeln!(f, "cluster {cluster}: installed")?,
        }
        if let Some(runtime) = &self.runtime {
            writeln!(f, "runtime {runtime}, {done} of {all} steps are done")?;
        }
        if let Some(image) = &self.image {
            writeln!(f, "image {image}")?;
        }
        if let Some(plan) = &self.plan {
            writeln!(f, "plan {plan}")?;
        }
        if let Some(registry) = &self.registry {
            writeln!(f, "private registry https://{registry}")?;
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            writeln!(f, "kubeconfig {}", kubeconfig.display())?;
        }
        Ok(())
    }
}
