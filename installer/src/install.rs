//! `run`: from a ClusterImage to a running cluster, on this host or on many, taken up again wherever it was interrupted.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::layer::annotation;
use sealrs_image::progress::{Event, Progress, Silent, Task};
use sealrs_image::source::Source;

use crate::action::Action;
use crate::cluster::ClusterFiles;
use crate::inputs::Inputs;
use crate::journal::{Journal, Stage};
use crate::node::{Begin, Order, missing_folders};
use crate::options::Options;
use crate::plan::{self, Context, Peer, Plan, Step, UNPACK, key};
use crate::preflight::{self, Finding, Place};
use crate::rootfs::RootfsFacts;
use crate::runtime::{self, Runtime};
use crate::secrets::Secrets;
use crate::sites::{self, Named, Site};
use crate::summary::{Outcome, Summary};
use crate::template::Values;
use crate::{apps, environment, files, member, pki, service};

/// Says what [`run`] would do and what stands against it, and changes nothing. Reads the image's layers, except container
/// images.
///
/// # Errors
/// [`ErrorKind::Input`] when image or options can't be installed; [`ErrorKind::Conflict`] when the cluster is another's;
/// what reading the image and reaching hosts meets.
pub fn plan(source: &dyn Source, image: &ClusterImage, options: &Options) -> Result<(Plan, Vec<Finding>)> {
    let checked = Checked::new(image, options)?;
    let documents = checked.runtime.layout().documents;
    let layers = RootfsFacts::of_image(source, image, documents)?;
    let rootfs = checked
        .sites
        .iter()
        .map(|site| {
            let mut facts = layers.clone();
            facts.render(&Values {
                environment: &environment::of(image, options, site.address())?,
                given: &options.env,
                planned: documents,
            })?;
            Ok(facts)
        })
        .collect::<Result<Vec<_>>>()?;
    let plan = decide(&checked, image, options, &rootfs)?;
    Ok((plan, checked.findings))
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
    let cluster_files = checked.files.clone();
    let above = missing_folders(&cluster_files);
    let _lock = cluster_files.hold()?;
    let mut journal = Journal::open(&cluster_files.journal())?;
    let resumed = journal.stage() == Stage::Running;
    journal.start(&options.cluster, Inputs::new(image.descriptor.digest, options))?;
    if !options.members.is_empty() {
        member::store(&cluster_files.members(), &options.members)?;
    }
    if resumed {
        progress.event(Event::Message("taking up the interrupted installation"));
    }
    let run = Run {
        image,
        options,
        files: &cluster_files,
        secrets: Mutex::new(Secrets::new(&cluster_files)),
        journal: Mutex::new(journal),
        many: checked.sites.len() > 1,
        progress,
    };
    let prepared = run
        .begin(&mut checked.sites, checked.runtime, &above)
        .and_then(|()| run.unpack(&mut checked.sites, source))
        .and_then(|()| run.decided_plan(&mut checked));
    let plan = match prepared {
        Ok(plan) => plan,
        Err(error) => {
            if run.journal().plan().is_none() {
                abandon(&mut checked.sites, &cluster_files);
            }
            return Err(error);
        }
    };
    for note in &plan.notes {
        progress.event(Event::Warning(note));
    }
    let finished = run.journal().stage() == Stage::Finished;
    let executed = run.execute(&plan, &mut checked.sites)?;
    keep_kubeconfig(&plan, &mut checked.sites, &cluster_files)?;
    if !finished {
        run.journal().finished()?;
    }
    Ok(summary(&plan, &checked, executed, finished))
}

/// What is known before a payload is unpacked: all that can be checked without changing anything.
struct Checked {
    runtime: &'static dyn Runtime,
    files: ClusterFiles,
    sites: Vec<Site>,
    findings: Vec<Finding>,
}

impl Checked {
    fn new(image: &ClusterImage, options: &Options) -> Result<Self> {
        options.validate()?;
        preflight::check_kind(image)?;
        let runtime = runtime::of(image)?;
        let files = ClusterFiles::new(&options.root, &options.cluster);
        let journal = Journal::read(&files.journal())?;
        journal.check(&options.cluster, &Inputs::new(image.descriptor.digest, options))?;
        apps::check(&image.extension, options)?;
        let sites = sites::connect(options, &files, &preflight::interest(runtime, options))?;
        // A wrong range in the options is found before anything is begun.
        for site in &sites {
            environment::of(image, options, site.address())?;
        }
        Ok(Self {
            runtime,
            findings: findings(&sites, image, options, runtime, &journal),
            files,
            sites,
        })
    }

    fn peers(&self) -> Vec<Peer> {
        self.sites.iter().map(Site::peer).collect()
    }
}

fn findings(
    sites: &[Site],
    image: &ClusterImage,
    options: &Options,
    runtime: &dyn Runtime,
    journal: &Journal,
) -> Vec<Finding> {
    let many = sites.len() > 1;
    let Some(registry) = sites.first().map(Site::address) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for site in sites {
        let place = Place {
            host: site.address(),
            role: site.member.role,
            registry,
        };
        let part = part_for(image, site.address() == registry);
        let mut found = preflight::findings(&site.facts, &part, options, runtime, place);
        // Before the first step whatever is in the way is somebody else's; later it may be ours.
        if journal.stage() != Stage::Fresh {
            let unpacked = journal.is_done(&key(UNPACK, site.address(), many));
            found.retain(|finding| match finding.check {
                "platform" | "root" => true,
                "disk" => !unpacked,
                _ => false,
            });
        }
        all.extend(found.into_iter().map(|finding| Finding {
            host: many.then(|| site.address()),
            ..finding
        }));
    }
    let hosts: Vec<_> = sites.iter().map(|site| (site.address(), &site.facts)).collect();
    all.extend(preflight::together(&hosts));
    all
}

/// What a host needs of an image: container images are for the one that has the registry.
fn part_for(image: &ClusterImage, has_registry: bool) -> ClusterImage {
    let mut part = image.clone();
    if !has_registry {
        let is_rootfs: Vec<bool> = image
            .manifest
            .layers
            .iter()
            .map(|layer| !layer.annotations.contains_key(annotation::BLOB))
            .collect();
        let mut keep = is_rootfs.iter().copied();
        part.manifest.layers.retain(|_| keep.next().unwrap_or(true));
        let mut keep = is_rootfs.iter().copied();
        part.config.rootfs.diff_ids.retain(|_| keep.next().unwrap_or(true));
    }
    part
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
    let peers = checked.peers();
    let contexts: Vec<Context<'_>> = checked
        .sites
        .iter()
        .zip(rootfs)
        .map(|(site, rootfs)| Context {
            facts: &site.facts,
            rootfs,
            image,
            options,
            files: &checked.files,
            host: site.address(),
            role: site.member.role,
            here: site.here,
            peers: &peers,
        })
        .collect();
    Plan::decide(&contexts, checked.runtime)
}

/// A run under way.
struct Run<'r> {
    image: &'r ClusterImage,
    options: &'r Options,
    files: &'r ClusterFiles,
    secrets: Mutex<Secrets<'r>>,
    journal: Mutex<Journal>,
    many: bool,
    progress: &'r dyn Progress,
}

impl Run<'_> {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever watches many hosts has to know which one is meant.
    fn on<T>(&self, site: &mut Site, work: impl FnOnce(&mut Site, &dyn Progress) -> Result<T>) -> Result<T> {
        if self.many {
            let named = Named::new(&site.name(), self.progress);
            return work(site, &named);
        }
        work(site, self.progress)
    }

    /// Takes the cluster's place on all hosts.
    fn begin(&self, sites: &mut [Site], runtime: &dyn Runtime, above: &[PathBuf]) -> Result<()> {
        sites::on_all(sites, Site::name, |site| {
            let begin = Begin {
                root: self.options.root.clone(),
                cluster: self.options.cluster.clone(),
                runtime: runtime.name().to_owned(),
                environment: environment::of(self.image, self.options, site.address())?,
                given: self.options.env.clone(),
            };
            site.node.begin(&begin, above)
        })?;
        Ok(())
    }

    fn unpack(&self, sites: &mut [Site], source: &dyn Source) -> Result<()> {
        let registry = sites.first().map(Site::address);
        sites::on_all(sites, Site::name, |site| {
            self.on(site, |site, progress| {
                let step = key(UNPACK, site.address(), self.many);
                if self.journal().is_done(&step) {
                    return Ok(());
                }
                self.journal().begin(&step)?;
                let part = part_for(self.image, registry == Some(site.address()));
                site.node.unpack(source, &part, progress)?;
                self.journal().done(&step)
            })
        })?;
        Ok(())
    }

    /// The plan that was begun, or else one that is decided now, when nothing but the rootfs is there.
    fn decided_plan(&self, checked: &mut Checked) -> Result<Plan> {
        if let Some(digest) = self.journal().plan() {
            return Plan::load(&self.files.plan(), digest);
        }
        let rootfs = sites::on_all(&mut checked.sites, Site::name, |site| site.node.rootfs())?;
        let plan = decide(checked, self.image, self.options, &rootfs)?;
        plan.store(&self.files.plan())?;
        self.journal().planned(plan.digest()?)?;
        Ok(plan)
    }

    /// Does the steps, phase by phase; gives how many there were to do.
    fn execute(&self, plan: &Plan, sites: &mut [Site]) -> Result<usize> {
        let executed = AtomicUsize::new(0);
        for phase in plan.steps.chunk_by(|one, next| one.phase == next.phase) {
            let steps_of = |host: IpAddr| {
                let is_unpack = |step: &Step| matches!(step.action, Action::Unpack { .. });
                phase.iter().filter(move |step| step.host == host && !is_unpack(step))
            };
            let mut busy: Vec<&mut Site> = sites
                .iter_mut()
                .filter(|site| steps_of(site.address()).next().is_some())
                .collect();
            sites::on_all(
                &mut busy,
                |site| site.name(),
                |site| {
                    self.on(site, |site, progress| {
                        for step in steps_of(site.address()) {
                            let done = self.do_step(site, step, progress)?;
                            executed.fetch_add(usize::from(done), Ordering::Relaxed);
                        }
                        Ok(())
                    })
                },
            )?;
        }
        Ok(executed.into_inner())
    }

    /// Does a step that was not done, and makes sure again of what has to run.
    fn do_step(&self, site: &mut Site, step: &Step, progress: &dyn Progress) -> Result<bool> {
        let done = self.journal().is_done(&step.id);
        if done && !step.action.assures() {
            return Ok(false);
        }
        if !done {
            self.journal().begin(&step.id)?;
        }
        // Looking again at what was done is worth a word only when it takes long, and then the waiting says so.
        let task = (!done).then(|| Task::begin(progress, &step.title, None));
        self.act(site, step, progress).map_err(|error| {
            let resume = format!(
                "put it right and run the same command again to go on from here, \
                 or remove everything with `sealrs delete --all --force --cluster {}`",
                self.options.cluster
            );
            let hint = match error.remedy() {
                Some(remedy) => format!("{remedy}; then {resume}"),
                None => resume,
            };
            Error::new(error.kind(), format!("step `{}` failed: {}", step.id, step.title))
                .because(error)
                .hint(hint)
        })?;
        drop(task);
        if !done {
            self.journal().done(&step.id)?;
        }
        Ok(!done)
    }

    fn act(&self, site: &mut Site, step: &Step, progress: &dyn Progress) -> Result<()> {
        // The key of the authority never leaves the operator.
        if let Action::MakePki { path, names, addresses } = &step.action {
            return pki::make(path, self.files.cluster(), names, addresses);
        }
        let secrets = self
            .secrets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .of(&step.action)?;
        let order = Order {
            step: step.id.clone(),
            action: step.action.clone(),
            secrets,
        };
        site.node.execute(&order, progress)
    }
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
