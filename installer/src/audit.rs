//! Whether a cluster can have all of its container images: asked of its private registry, as pods will, and read to the
//! end. Nothing is changed.

mod pods;
mod registry;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::progress::{Progress, Task};
use sealrs_image::verify::Problem;
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterFiles;
use crate::facts;
use crate::host::Ssh;
use crate::journal::{self, Journal, Stage};
use crate::member::{self, Access, Member, Role};
use crate::node::{Here, Node, There};
use crate::options::{self, Options};
use crate::plan::Plan;
use crate::scale::{self, Cluster};
use crate::sites::{self, Named};

pub(crate) use registry::answer;

/// What is asked of a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Where sealrs keeps everything.
    pub(crate) root: PathBuf,
    /// The cluster.
    pub(crate) cluster: String,
    /// The host itself.
    pub(crate) host: IpAddr,
    /// Where the registry is reached.
    pub(crate) address: SocketAddr,
    /// The registry's name.
    pub(crate) domain: String,
    /// Whether the host has the registry, and is to ask it for all images.
    pub(crate) images: bool,
}

/// What a host found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    images: u64,
    blobs: u64,
    bytes: u64,
    pod_images: Option<u64>,
    gaps: Vec<Gap>,
}

/// What became of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The cluster.
    pub cluster: String,
    /// `domain:port` of its private registry.
    pub registry: String,
    /// The hosts that asked it; the first one has it.
    pub hosts: Vec<IpAddr>,
    /// How many images of `images.lock` it was asked for.
    pub images: u64,
    /// How many blobs of images it gave, each counted once.
    pub blobs: u64,
    /// Their bytes, all of which were read.
    pub bytes: u64,
    /// How many images pods name; none where no API server answers.
    pub pod_images: Option<u64>,
    /// What is missing or wrong.
    pub gaps: Vec<Gap>,
}

/// What a cluster can't have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The host that asked.
    pub host: IpAddr,
    /// The container image; none where it is the registry itself.
    pub image: Option<String>,
    /// The blob of it, if that is known.
    pub blob: Option<Digest>,
    /// Who named the image: lines of files, or pods.
    pub asked_by: Vec<String>,
    /// What is wrong.
    pub problem: Problem,
    /// The same in words.
    pub detail: String,
}

impl Gap {
    fn new(host: IpAddr, error: &Error) -> Self {
        let mut words = vec![error.to_string()];
        words.extend(error.causes());
        Self {
            host,
            image: None,
            blob: None,
            asked_by: Vec::new(),
            problem: Problem::of(error),
            detail: words.join(": "),
        }
    }
}

/// Asks the private registry of a cluster for every image, and every host whether it reaches it.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such cluster, [`ErrorKind::Conflict`] when it was never finished; what
/// reaching its hosts meets. What the cluster can't have is no error: [`Audit::gaps`] has it.
pub fn audit(cluster: Cluster<'_>, progress: &dyn Progress) -> Result<Audit> {
    options::check_cluster_name(cluster.name)?;
    let files = ClusterFiles::new(cluster.root, cluster.name);
    if !files.data().is_dir() {
        return Err(scale::absent(cluster.name));
    }
    let journal = Journal::read(&files.journal())?;
    if journal.stage() == Stage::Deleting {
        return Err(journal::being_deleted(cluster.name));
    }
    let unfinished = || scale::unfinished(cluster.name);
    let plan = Plan::of_cluster(&files, journal.base().or(journal.plan()).ok_or_else(unfinished)?)?;
    let founder = plan.founder().ok_or_else(unfinished)?;
    let options = Options::kept(&files)?;
    let mut members = member::load(&files.members(), cluster.given)?;
    let alone = members.is_empty();
    if alone {
        members.push(Member::new(founder, Role::Master, Access::default()));
    }
    // Hosts that are being added are none yet.
    members.retain(|member| plan.hosts.iter().any(|peer| peer.address == member.address));
    members.sort_by_key(|member| member.address != founder);
    let question = |host: IpAddr| Question {
        root: files.root().to_owned(),
        cluster: cluster.name.to_owned(),
        host,
        address: crate::registry::reached(&options, founder),
        domain: options.registry_domain.clone(),
        images: host == founder,
    };
    let _task = Task::begin(
        progress,
        &format!("asking {} for all images", options.registry_url()),
        None,
    );
    let found = sites::on_all(
        &mut members,
        |member| member.address.to_string(),
        |member| {
            let progress = Named::new(&member.address.to_string(), progress);
            let question = question(member.address);
            if alone || facts::is_here(member.address) {
                return Here::alone().audit(&question, &progress);
            }
            let host = Ssh::new(member.access.ssh(member.address));
            let mut node = There::connect(Box::new(host), &files, Path::new("/proc/self/exe"))?;
            node.audit(&question, &progress)
        },
    )?;
    let mut audit = Audit {
        cluster: cluster.name.to_owned(),
        registry: options.registry_url(),
        hosts: members.iter().map(|member| member.address).collect(),
        images: 0,
        blobs: 0,
        bytes: 0,
        pod_images: None,
        gaps: Vec::new(),
    };
    for found in found {
        audit.images += found.images;
        audit.blobs += found.blobs;
        audit.bytes += found.bytes;
        audit.pod_images = audit.pod_images.or(found.pod_images);
        audit.gaps.extend(found.gaps);
    }
    Ok(audit)
}

impl Audit {
    /// The failure that the first gap is, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`], naming image, blob and host.
    pub fn check(&self) -> Result<()> {
        let Some(first) = self.gaps.first() else {
            return Ok(());
        };
        let more = match self.gaps.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} gaps more)"),
        };
        let by = match first.asked_by.first() {
            Some(place) => format!(", asked for by {place}"),
            None => String::new(),
        };
        let (host, registry) = (first.host, &self.registry);
        let what = match (&first.image, first.blob) {
            (Some(image), Some(blob)) => format!("{host} can't have {blob} of {image}{by}, from {registry}{more}"),
            (Some(image), None) => format!("{host} can't have {image}{by}, from {registry}{more}"),
            (None, _) => format!("{host} does not reach {registry}{more}"),
        };
        let hint = if first.image.is_none() {
            let owner = self.hosts.first().unwrap_or(&host);
            format!("see that the registry runs on {owner} and that no firewall stands before it")
        } else if by.contains(&format!(" {}", pods::POD)) {
            "name it in an image list, build the ClusterImage again and install from that; till then it comes from \
             wherever the node finds it, or not at all"
                .to_owned()
        } else {
            format!(
                "install the cluster anew: `sealrs delete --all --cluster {}`, then `sealrs run`",
                self.cluster
            )
        };
        let error = Error::new(ErrorKind::Integrity, what);
        Err(error
            .because(Error::new(ErrorKind::Integrity, &*first.detail))
            .hint(hint))
    }
}
