//! `apply`: a cluster becomes what is wanted of it. One that is not there, or whose installation was interrupted, is
//! installed; one that runs gets and loses hosts.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::progress::Progress;
use sealrs_image::source::Source;

use crate::cluster::ClusterFiles;
use crate::inputs::Inputs;
use crate::journal::{Change, Journal, Stage, being_deleted};
use crate::member::{self, Access, Member, Role};
use crate::options::Options;
use crate::scale::{Cluster, remove, scale_up};
use crate::summary::{Outcome, Summary};

/// What has to be done for a cluster to be what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It is installed, or its installation goes on.
    Install,
    /// Hosts come and go. First of all a change is ended that was begun.
    Hosts {
        /// What was begun and has not ended.
        begun: Option<Change>,
        /// Hosts that come.
        add: Vec<Member>,
        /// Hosts that go.
        remove: Vec<IpAddr>,
    },
}

impl Difference {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Hosts { begun: None, add, remove } if add.is_empty() && remove.is_empty())
    }

    /// Hosts that go.
    #[must_use]
    pub fn leaving(&self) -> &[IpAddr] {
        match self {
            Self::Install => &[],
            Self::Hosts { remove, .. } => remove,
        }
    }
}

/// In words, a line for each.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install => f.write_str("the cluster is installed"),
            difference if difference.is_none() => f.write_str("the cluster is as it is wanted"),
            Self::Hosts { begun, add, remove } => {
                let begun = begun.iter().map(|change| format!("goes on: {change}"));
                let add = add.iter().map(|member| format!("+ {} {}", member.role, member.address));
                let remove = remove.iter().map(|address| format!("- {address}"));
                let lines: Vec<String> = begun.chain(add).chain(remove).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

/// Compares a cluster with what is wanted of it. Nothing is changed, and no host is asked.
///
/// # Errors
/// [`ErrorKind::Conflict`] when something else than its hosts is different, or when it is being deleted.
pub fn difference(image: &ClusterImage, options: &Options) -> Result<Difference> {
    options.validate()?;
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let journal = Journal::read(&files.journal())?;
    match (journal.stage(), journal.change()) {
        (Stage::Deleting, _) => return Err(being_deleted(&options.cluster)),
        (Stage::Fresh, _) | (Stage::Running, None) => return Ok(Difference::Install),
        (Stage::Running, Some(_)) | (Stage::Finished, _) => {}
    }
    check_others(&journal, image, options)?;
    let known = member::load(&files.members(), &Access::default())?;
    // Nothing was done of a change that has no plan yet: its hosts are in the list all the same.
    let begun = journal.change().filter(|_| journal.stage() == Stage::Running).cloned();
    let coming: Vec<IpAddr> = begun
        .iter()
        .flat_map(|change| &change.add)
        .map(|(address, _)| *address)
        .collect();
    let going: Vec<IpAddr> = begun.iter().flat_map(|change| &change.remove).copied().collect();
    let is_known = |address: IpAddr| known.iter().any(|member| member.address == address) || coming.contains(&address);
    if known.is_empty() {
        // A cluster of the operator's own host keeps no list.
        return alone(options);
    }
    if let Some((member, before)) = options.members.iter().find_map(|member| {
        let before = known.iter().find(|known| known.address == member.address)?;
        (before.role != member.role).then_some((member, before))
    }) {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} is a {} and can't become a {}",
                member.address, before.role, member.role
            ),
        )
        .hint("remove the host from the Clusterfile and apply it, then add it again with its new role"));
    }
    check_special(&known, options)?;
    let add = options
        .members
        .iter()
        .filter(|member| !is_known(member.address))
        .cloned();
    let mut there: Vec<IpAddr> = known.iter().map(|member| member.address).collect();
    there.extend(
        coming
            .iter()
            .filter(|coming| known.iter().all(|known| known.address != **coming)),
    );
    Ok(Difference::Hosts {
        add: add.collect(),
        remove: there
            .into_iter()
            .filter(|address| options.member(*address).is_none() && !going.contains(address))
            .collect(),
        begun,
    })
}

/// What is special about a host is done when it becomes a member, and not again.
fn check_special(known: &[Member], options: &Options) -> Result<()> {
    for member in &options.members {
        let Some(before) = known.iter().find(|known| known.address == member.address) else {
            continue;
        };
        let what = if before.labels != member.labels || before.taints != member.taints || before.roles != member.roles {
            "roles, labels or taints"
        } else if before.env != member.env {
            "variables"
        } else {
            continue;
        };
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("host {} runs with other {what} than the Clusterfile says", member.address),
        )
        .hint(
            "put the Clusterfile back as it was, and change labels and taints with kubectl; or remove the host from it, apply \
             it, and add the host again",
        ));
    }
    Ok(())
}

fn alone(options: &Options) -> Result<Difference> {
    let own = options
        .members
        .iter()
        .find(|member| crate::facts::is_here(member.address));
    match (options.members.as_slice(), own) {
        ([], _) => Ok(Difference::Hosts {
            begun: None,
            add: Vec::new(),
            remove: Vec::new(),
        }),
        (members, Some(own)) if own.role == Role::Master => Ok(Difference::Hosts {
            begun: None,
            add: members
                .iter()
                .filter(|member| member.address != own.address)
                .cloned()
                .collect(),
            remove: Vec::new(),
        }),
        _ => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "cluster `{}` is on this host, which is not among the wanted masters",
                options.cluster
            ),
        )
        .hint("add this host to the Clusterfile as a master, or choose another name for the cluster")),
    }
}

/// Whether only hosts are different.
fn check_others(journal: &Journal, image: &ClusterImage, options: &Options) -> Result<()> {
    let Some(before) = journal.inputs() else {
        return Ok(());
    };
    let before = before.clone().lasting();
    let now = Inputs::new(image.descriptor.digest, options).lasting();
    let cluster = &options.cluster;
    let what = if before.image() != now.image() {
        format!(
            "cluster `{cluster}` was installed from another image, {}",
            before.image()
        )
    } else {
        match now.differences(&before).as_slice() {
            [] => return Ok(()),
            differences => format!(
                "cluster `{cluster}` runs, and what is wanted differs in more than its hosts: {}",
                differences.join("; ")
            ),
        }
    };
    Err(Error::new(ErrorKind::Conflict, what).hint(format!(
        "put the Clusterfile back as it was but for its hosts, or remove the cluster first with \
         `sealrs delete --all --cluster {cluster}`"
    )))
}

/// Makes a cluster what is wanted of it: as [`crate::run`], [`scale_up`] and [`remove`] do. Hosts come before others go.
///
/// # Errors
/// As these.
pub fn apply(
    source: &dyn Source,
    image: &ClusterImage,
    options: &Options,
    given: &Access,
    difference: Difference,
    progress: &dyn Progress,
) -> Result<Summary> {
    // A run that is repeated makes sure that everything runs.
    if difference.is_none() && is_same_run(image, options)? {
        return crate::run(source, image, options, progress);
    }
    let Difference::Hosts {
        begun,
        add,
        remove: leaving,
    } = difference
    else {
        return crate::run(source, image, options, progress);
    };
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let kept = Options::kept(&files)?;
    if kept.hooks != options.hooks {
        // Hooks may be other ones by now: they are those of the hosts that come.
        let hooks = options.hooks.clone();
        Options { hooks, ..kept }.keep(&files)?;
    }
    let cluster = Cluster {
        root: &options.root,
        name: &options.cluster,
        given,
    };
    let begun = begun.unwrap_or_default();
    let coming: Vec<Member> = begun
        .add
        .iter()
        .map(|(address, role)| {
            let wanted = options.member(*address).cloned();
            wanted.unwrap_or_else(|| Member::new(*address, *role, given.clone()))
        })
        .collect();
    let mut last = None;
    for new in [coming, add].into_iter().filter(|new| !new.is_empty()) {
        last = Some(scale_up(source, image, cluster, &new, progress)?);
    }
    for gone in [begun.remove, leaving].into_iter().filter(|gone| !gone.is_empty()) {
        last = Some(remove(cluster, &gone, false, progress)?);
    }
    Ok(last.unwrap_or_else(|| as_wanted(&options.root, &options.cluster)))
}

fn is_same_run(image: &ClusterImage, options: &Options) -> Result<bool> {
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let journal = Journal::read(&files.journal())?;
    let same = journal.inputs() == Some(&Inputs::new(image.descriptor.digest, options));
    Ok(same && journal.generation() == 1)
}

fn as_wanted(root: &Path, cluster: &str) -> Summary {
    let files = ClusterFiles::new(root, cluster);
    Summary {
        cluster: cluster.to_owned(),
        outcome: Outcome::AlreadyInstalled,
        image: None,
        runtime: None,
        registry: None,
        rootfs: Some(files.rootfs()),
        kubeconfig: Some(files.kubeconfig()).filter(|path| path.exists()),
        steps: 0,
        words: vec![format!("cluster {cluster} is as it is wanted")],
    }
}
