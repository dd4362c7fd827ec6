//! `run`: from a ClusterImage to a running cluster, on this host or on many, taken up again wherever it was interrupted.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::progress::{Event, Progress, Silent};
use sealrs_image::source::Source;

use crate::app::{self, AppState};
use crate::cluster::ClusterFiles;
use crate::inputs::Inputs;
use crate::journal::{Journal, Stage};
use crate::member::{Access, Member};
use crate::node::missing_folders;
use crate::options::Options;
use crate::plan::{self, Naming, Peer, Plan, UNPACK};
use crate::preflight::{self, Finding, Wanted};
use crate::rootfs::RootfsFacts;
use crate::runtime::{self, Runtime};
use crate::sites::{self, Site};
use crate::summary::{Outcome, Summary};
use crate::template::Values;
use crate::work::{Work, given, rootfs_of};
use crate::{apps, environment, files, member, service};

/// Says what [`run`] would do and what stands against it, and changes nothing. Reads the image's layers, except container
/// images.
///
/// # Errors
/// [`ErrorKind::Input`] when image or options can't be installed; [`ErrorKind::Conflict`] when the cluster is another's;
/// what reading the image and reaching hosts meets.
pub fn plan(source: &dyn Source, image: &ClusterImage, options: &Options) -> Result<(Plan, Vec<Finding>)> {
    let checked = Checked::new(image, options)?;
    let plan = foresee(&checked, source, image, options)?;
    if let Some(approval) = &options.approval {
        approval.check(&plan)?;
    }
    Ok((plan, checked.findings))
}

/// The plan, from the layers of an image that was not unpacked: that which was begun, or else what would be.
fn foresee(checked: &Checked, source: &dyn Source, image: &ClusterImage, options: &Options) -> Result<Plan> {
    if let Some(digest) = checked.plan {
        return Plan::of_cluster(&checked.files, digest);
    }
    let documents = checked.runtime.layout().documents;
    let layers = RootfsFacts::of_image(source, image, documents)?;
    let rootfs = checked
        .sites
        .iter()
        .map(|site| {
            let mut facts = layers.clone();
            facts.configure(&options.configurations, documents)?;
            facts.render(&Values {
                environment: &environment::of(image, options, site.address())?,
                given: &given(options, site.address()),
                planned: documents,
            })?;
            Ok(facts)
        })
        .collect::<Result<Vec<_>>>()?;
    decide(checked, image, options, &rootfs)
}

/// Installs `image` as the options say. The same call after an interruption goes on where it ended; after success it
/// makes sure that everything runs.
///
/// # Errors
/// [`ErrorKind::Preflight`] before anything was changed; [`ErrorKind::Conflict`] when the cluster is another's or is
/// being worked on; [`ErrorKind::Step`] when a step fails.
pub fn run(source: &dyn Source, image: &ClusterImage, options: &Options, progress: &dyn Progress) -> Result<Summary> {
    let mut checked = Checked::new(image, options)?;
    if source.is_sequential() && checked.sites.len() > 1 {
        return Err(Error::new(
            ErrorKind::Input,
            "an image that comes through a pipe can't be sent to several hosts",
        )
        .hint("save it to a file first, or load it into the store with `sealrs load -`"));
    }
    preflight::enforce(&checked.findings, progress)?;
    // Before anything is changed; what comes through a pipe can't be read twice.
    if let Some(approval) = options.approval.as_ref().filter(|_| !source.is_sequential()) {
        approval.check(&foresee(&checked, source, image, options)?)?;
    }
    let cluster_files = checked.files.clone();
    let above = missing_folders(&cluster_files);
    let _lock = cluster_files.hold()?;
    let mut journal = Journal::open(&cluster_files.journal())?;
    let resumed = journal.stage() == Stage::Running;
    journal.start(&options.cluster, Inputs::new(image.descriptor.digest, options))?;
    options.keep(&cluster_files)?;
    if !options.members.is_empty() {
        member::store(&cluster_files.members(), &options.members)?;
    }
    if resumed {
        progress.event(Event::Message("taking up the interrupted installation"));
    }
    let naming = naming(&checked.sites);
    let resume = format!(
        "put it right and run the same command again to go on from here, or remove everything with \
         `sealrs delete --all --force --cluster {}`",
        options.cluster
    );
    let work = Work::new(options, &cluster_files, journal, naming, resume, progress);
    let prepared = prepare(&work, &mut checked, source, image, &above);
    let plan = match prepared {
        Ok(plan) => plan,
        Err(error) => {
            if work.journal().plan().is_none() {
                abandon(&mut checked.sites, &cluster_files);
            }
            return Err(error);
        }
    };
    for note in &plan.notes {
        progress.event(Event::Warning(note));
    }
    let finished = work.journal().stage() == Stage::Finished;
    let executed = work.execute(&plan.steps, &mut checked.sites)?;
    keep_kubeconfig(&plan, &mut checked.sites, &cluster_files)?;
    if !finished {
        // Before the end is noted: whoever takes it up after a crash does both again.
        app::note(&cluster_files, image, options, None, AppState::Launched)?;
        work.journal().finished()?;
    }
    Ok(summary(&plan, &checked, executed, finished))
}

/// From hosts that were looked at to a plan: the one that was begun, or else one that is decided when nothing but the
/// rootfs is there.
fn prepare(
    work: &Work<'_>,
    checked: &mut Checked,
    source: &dyn Source,
    image: &ClusterImage,
    above: &[PathBuf],
) -> Result<Plan> {
    work.begin(&mut checked.sites, checked.runtime, Some(image), above)?;
    let Some(registry) = checked.sites.first().map(Site::address) else {
        return Err(Error::new(ErrorKind::Internal, "there are no hosts"));
    };
    work.unpack(&mut checked.sites, image, source, registry)?;
    if let Some(digest) = work.journal().plan() {
        return Plan::of_cluster(work.files, digest);
    }
    let rootfs = rootfs_of(&mut checked.sites)?;
    let plan = decide(checked, image, work.options, &rootfs)?;
    if let Some(approval) = &work.options.approval {
        approval.check(&plan)?;
    }
    plan.store(&work.files.plan())?;
    work.journal().planned(plan.digest()?)?;
    Ok(plan)
}

/// What is known before a payload is unpacked: all that can be checked without changing anything.
struct Checked {
    runtime: &'static dyn Runtime,
    files: ClusterFiles,
    sites: Vec<Site>,
    findings: Vec<Finding>,
    /// The digest of the plan that was begun.
    plan: Option<Digest>,
}

impl Checked {
    fn new(image: &ClusterImage, options: &Options) -> Result<Self> {
        options.validate()?;
        preflight::check_kind(image)?;
        let runtime = runtime::of(image)?;
        let files = ClusterFiles::new(&options.root, &options.cluster);
        let journal = Journal::read(&files.journal())?;
        journal.check(&options.cluster, &Inputs::new(image.descriptor.digest, options))?;
        if options.resume {
            journal.check_open(&options.cluster)?;
        }
        apps::check(&image.extension, options)?;
        check_members(&files, &journal, options)?;
        let sites = sites::connect(
            &options.members,
            options,
            &files,
            &preflight::interest(Some(runtime), options, journal.stage() == Stage::Fresh),
        )?;
        let wanted = Wanted {
            image: Some(image),
            runtime: Some(runtime),
            options,
        };
        // A wrong range in the options is found before anything is begun.
        for site in &sites {
            environment::of(image, options, site.address())?;
        }
        Ok(Self {
            runtime,
            plan: journal.plan(),
            findings: findings(&sites, wanted, sites.first().map(Site::address), &journal, |_| true),
            files,
            sites,
        })
    }
}

/// Whether the cluster still has the hosts that it was installed on.
fn check_members(files: &ClusterFiles, journal: &Journal, options: &Options) -> Result<()> {
    let known = member::load(&files.members(), &Access::default())?;
    let addresses = |members: &[Member]| -> BTreeSet<IpAddr> { members.iter().map(|member| member.address).collect() };
    if journal.generation() == 1 || addresses(&known) == addresses(&options.members) {
        return Ok(());
    }
    let known: Vec<String> = known
        .iter()
        .map(|member| format!("{} {}", member.role, member.address))
        .collect();
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "cluster `{}` has other hosts by now: {}",
            options.cluster,
            known.join(", ")
        ),
    )
    .hint("add hosts with `sealrs scale-up`, and remove some with `sealrs delete --masters … --nodes …`"))
}

/// What stands against installing it on these hosts. `registry` is the address of the one that has or gets the private
/// registry; hosts that are `known` are those that the journal is of.
pub(crate) fn findings(
    sites: &[Site],
    wanted: Wanted<'_>,
    registry: Option<IpAddr>,
    journal: &Journal,
    known: impl Fn(IpAddr) -> bool,
) -> Vec<Finding> {
    let naming = naming(sites);
    // Before the first step whatever is in the way is somebody else's; later it may be ours.
    let begun = journal.stage() != Stage::Fresh;
    let mut all = sites::findings(sites, wanted, registry, |site, finding| match finding.check {
        _ if !begun || !known(site.address()) => true,
        "platform" | "root" => true,
        "disk" => !journal.is_done(&naming.key(UNPACK, site.address())),
        _ => false,
    });
    if wanted.options.members.len() < 2 {
        // There is no other host that could be meant.
        all.iter_mut().for_each(|finding| finding.host = None);
    }
    let neighbours: Vec<_> = sites.iter().map(Site::neighbour).collect();
    let quorum = wanted.runtime.is_some_and(|runtime| runtime.has_quorum(wanted.options));
    all.extend(preflight::together(&neighbours, quorum));
    all
}

/// How the steps of an installation on these hosts are named.
fn naming(sites: &[Site]) -> Naming {
    Naming {
        many: sites.len() > 1,
        generation: 1,
    }
}

/// Removes what there is of a run on this host alone that made nothing but a rootfs. The reason for it counts more than
/// what can't be tidied up. With other hosts, what they have got is worth keeping for the next try.
fn abandon(sites: &mut [Site], files: &ClusterFiles) {
    if let [only] = sites
        && only.here
    {
        let _ = only.node.delete(files.root(), files.cluster(), &Silent);
    }
}

fn decide(checked: &Checked, image: &ClusterImage, options: &Options, rootfs: &[RootfsFacts]) -> Result<Plan> {
    let peers: Vec<Peer> = checked.sites.iter().map(Site::peer).collect();
    let contexts = sites::contexts(&checked.sites, rootfs, image, options, &checked.files, &peers);
    Plan::decide(&contexts, checked.runtime)
}

/// Keeps the founder's kubeconfig, with an address by which others reach it, where the operator is not the founder.
fn keep_kubeconfig(plan: &Plan, sites: &mut [Site], cluster_files: &ClusterFiles) -> Result<()> {
    let (Some(path), Some(founder)) = (&plan.kubeconfig, sites.first_mut()) else {
        return Ok(());
    };
    if founder.here {
        return Ok(());
    }
    let Some(text) = founder.node.read(path)? else {
        return Ok(());
    };
    let host = match founder.address() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let text = ["127.0.0.1", "localhost", "[::1]"].iter().fold(text, |text, local| {
        text.replace(&format!("https://{local}:"), &format!("https://{host}:"))
    });
    files::write(&cluster_files.kubeconfig(), text.as_bytes(), 0o600)
}

fn summary(plan: &Plan, checked: &Checked, executed: usize, finished: bool) -> Summary {
    let files = &checked.files;
    let kubeconfig = plan.kubeconfig.clone().filter(|path| path.exists());
    let state = if finished {
        "was installed before, and its services run"
    } else {
        "is installed"
    };
    let mut words = vec![
        format!(
            "cluster {} {state}: runtime {} on {}",
            plan.cluster,
            plan.runtime,
            plan::hosts(&plan.hosts)
        ),
        format!(
            "private registry https://{} (CA {})",
            plan.registry,
            crate::registry::ca(files).display()
        ),
        format!("rootfs {}", files.rootfs().display()),
    ];
    if let Some(kubeconfig) = &kubeconfig {
        words.push(format!("kubeconfig {}", kubeconfig.display()));
    }
    let supervised: Vec<String> = checked
        .sites
        .iter()
        .filter(|site| site.facts.services == service::Manager::Supervised)
        .map(Site::name)
        .collect();
    if !supervised.is_empty() {
        let who = match checked.sites.as_slice() {
            [_] => "this host".to_owned(),
            _ => supervised.join(", "),
        };
        words.push(format!(
            "systemd does not run {who}: after a reboot, run the same command again to start the services"
        ));
    }
    Summary {
        cluster: plan.cluster.clone(),
        outcome: if finished {
            Outcome::AlreadyInstalled
        } else {
            Outcome::Installed
        },
        image: Some(plan.image),
        runtime: Some(plan.runtime.clone()),
        registry: Some(plan.registry.clone()),
        rootfs: Some(files.rootfs()),
        kubeconfig,
        steps: executed,
        words,
    }
}
