//! `run`: from a ClusterImage to a running cluster on this host, taken up again wherever it was interrupted.

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result, ResultExt as _};
use sealrs_image::progress::{Event, Progress, Task};
use sealrs_image::source::Source;

use crate::cluster::ClusterFiles;
use crate::environment::{self, Environment};
use crate::execute::Executor;
use crate::facts::HostFacts;
use crate::host_manifest::{HostManifest, Made};
use crate::inputs::Inputs;
use crate::journal::{self, Journal, Stage};
use crate::options::Options;
use crate::plan::{self, Context, Plan, Step, UNPACK};
use crate::preflight::{self, Finding};
use crate::rootfs::{self, RootfsFacts};
use crate::runtime::{self, Runtime};
use crate::summary::{Outcome, Summary};
use crate::template::Values;
use crate::{apps, files, service};

/// Says what [`run`] would do and what stands against it, and changes nothing. Reads the image's layers, except container
/// images.
///
/// # Errors
/// [`ErrorKind::Input`] when image or options can't be installed; [`ErrorKind::Conflict`] when the cluster is another's;
/// what reading the image meets.
pub fn plan(source: &dyn Source, image: &ClusterImage, options: &Options) -> Result<(Plan, Vec<Finding>)> {
    let checked = Checked::new(image, options)?;
    let Checked {
        runtime, files, facts, ..
    } = &checked;
    let values = Values {
        environment: &checked.environment,
        given: &options.env,
        planned: runtime.layout().documents,
    };
    let rootfs = RootfsFacts::of_image(source, image, &values)?;
    let plan = decide(image, options, *runtime, files, facts, &rootfs)?;
    Ok((plan, checked.findings))
}

/// Installs `image` on this host as the cluster's one master. The same call after an interruption goes on where it
/// ended; after success it makes sure that everything runs.
///
/// # Errors
/// [`ErrorKind::Preflight`] before anything was changed; [`ErrorKind::Conflict`] when the cluster is another's or is
/// being worked on; [`ErrorKind::Step`] when a step fails.
pub fn run(source: &dyn Source, image: &ClusterImage, options: &Options, progress: &dyn Progress) -> Result<Summary> {
    let Checked {
        runtime,
        files,
        facts,
        environment,
        findings,
    } = Checked::new(image, options)?;
    preflight::enforce(&findings, progress)?;
    let above = missing_folders(&files);
    let _lock = files.hold()?;
    let mut journal = Journal::open(&files.journal())?;
    let mut manifest = HostManifest::open(&files.host_manifest(), &files.backup())?;
    if manifest.is_being_undone() {
        return Err(journal::being_deleted(&options.cluster));
    }
    for path in above {
        manifest.record(Made::Folder { path })?;
    }
    manifest.make_folder(&files.root().join("data"), 0o755)?;
    let resumed = journal.stage() == Stage::Running;
    journal.start(&options.cluster, Inputs::new(image.descriptor.digest, options))?;
    if resumed {
        progress.event(Event::Message("taking up the interrupted installation"));
    }
    let values = Values {
        environment: &environment,
        given: &options.env,
        planned: runtime.layout().documents,
    };
    let prepared = unpack(&mut journal, &files, source, image, &values, progress)
        .and_then(|()| decided_plan(&mut journal, image, options, runtime, &files, &facts));
    let plan = match prepared {
        Ok(plan) => plan,
        Err(error) => {
            if journal.plan().is_none() {
                abandon(&files, &manifest);
            }
            return Err(error);
        }
    };
    let environment = environment::of(image, options, plan.host)?;
    store_environment(&files, &environment)?;
    for note in &plan.notes {
        progress.event(Event::Warning(note));
    }
    let mut executor = Executor {
        files: &files,
        manifest: &mut manifest,
        environment: &environment,
        runtime,
        manager: facts.services,
        progress,
    };
    let finished = journal.stage() == Stage::Finished;
    let mut executed = 0;
    for step in plan.steps.iter().filter(|step| step.id != UNPACK) {
        executed += usize::from(do_step(&mut journal, &mut executor, step, options)?);
    }
    if !finished {
        journal.finished()?;
    }
    Ok(summary(&plan, &files, executed, finished, facts.services))
}

/// What is known before a payload is unpacked: all that can be checked without changing anything.
struct Checked {
    runtime: &'static dyn Runtime,
    files: ClusterFiles,
    facts: HostFacts,
    environment: Environment,
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
        let facts = HostFacts::gather(&preflight::interest(runtime, options))?;
        let host = plan::host_address(&facts, options)?;
        apps::check(&image.extension, options)?;
        let findings = preflight::findings(&facts, image, options, runtime);
        Ok(Self {
            runtime,
            findings: still_relevant(findings, journal.stage(), &files),
            files,
            facts,
            environment: environment::of(image, options, host)?,
        })
    }
}

/// Removes what there is of a run that made nothing but a rootfs. The reason for it counts more than what can't be
/// tidied up.
fn abandon(cluster_files: &ClusterFiles, manifest: &HostManifest) {
    let _ = crate::delete::remove_data(cluster_files);
    for (_, made) in manifest.standing() {
        if let Made::Folder { path } = made {
            let _ = files::remove_empty_folder(&path);
        }
    }
}

/// What of the findings counts. Before the first step whatever is in the way is somebody else's; later it may be ours.
fn still_relevant(mut findings: Vec<Finding>, stage: Stage, files: &ClusterFiles) -> Vec<Finding> {
    if stage != Stage::Fresh {
        let unpacked = files.rootfs().is_dir();
        findings.retain(|finding| match finding.check {
            "platform" | "root" => true,
            "disk" => !unpacked,
            _ => false,
        });
    }
    findings
}

/// Does a step that was not done, and makes sure again of what has to run.
fn do_step(journal: &mut Journal, executor: &mut Executor<'_>, step: &Step, options: &Options) -> Result<bool> {
    let done = journal.is_done(&step.id);
    if done && !step.action.assures() {
        return Ok(false);
    }
    if !done {
        journal.begin(&step.id)?;
    }
    // Looking again at what was done is worth a word only when it takes long, and then the waiting says so.
    let task = (!done).then(|| Task::begin(executor.progress, &step.title, None));
    executor.execute(&step.id, &step.action).map_err(|error| {
        let resume = format!(
            "put it right and run the same command again to go on from here, \
             or remove everything with `sealrs delete --all --force --cluster {}`",
            options.cluster
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
        journal.done(&step.id)?;
    }
    Ok(!done)
}

fn unpack(
    journal: &mut Journal,
    files: &ClusterFiles,
    source: &dyn Source,
    image: &ClusterImage,
    values: &Values<'_>,
    progress: &dyn Progress,
) -> Result<()> {
    if journal.is_done(UNPACK) {
        return Ok(());
    }
    journal.begin(UNPACK)?;
    rootfs::unpack(files, source, image, values, progress)?;
    journal.done(UNPACK)
}

/// The plan that was begun, or else one that is decided now, when nothing but the rootfs is there.
fn decided_plan(
    journal: &mut Journal,
    image: &ClusterImage,
    options: &Options,
    runtime: &dyn Runtime,
    files: &ClusterFiles,
    facts: &HostFacts,
) -> Result<Plan> {
    if let Some(digest) = journal.plan() {
        return Plan::load(&files.plan(), digest);
    }
    let rootfs = RootfsFacts::of_folder(&files.rootfs(), runtime.layout().documents)?;
    let plan = decide(image, options, runtime, files, facts, &rootfs)?;
    plan.store(&files.plan())?;
    journal.planned(plan.digest()?)?;
    Ok(plan)
}

fn decide(
    image: &ClusterImage,
    options: &Options,
    runtime: &dyn Runtime,
    files: &ClusterFiles,
    facts: &HostFacts,
    rootfs: &RootfsFacts,
) -> Result<Plan> {
    let context = Context {
        facts,
        rootfs,
        image,
        options,
        files,
        host: plan::host_address(facts, options)?,
    };
    Plan::decide(&context, runtime)
}

/// The folders above the cluster's that have to be made for it. They go with it if nothing else is in them.
fn missing_folders(files: &ClusterFiles) -> Vec<std::path::PathBuf> {
    let data = files.data();
    let mut missing: Vec<_> = data
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.exists())
        .map(std::path::Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

fn store_environment(files: &ClusterFiles, environment: &Environment) -> Result<()> {
    let bytes = serde_json::to_vec(environment).or_fail(ErrorKind::Internal, || "cannot write the environment")?;
    let path = files.environment();
    if std::fs::read(&path).is_ok_and(|stored| stored == bytes) {
        return Ok(());
    }
    files::write(&path, &bytes, 0o600)
}

fn summary(plan: &Plan, files: &ClusterFiles, executed: usize, finished: bool, manager: service::Manager) -> Summary {
    let kubeconfig = plan.kubeconfig.clone().filter(|path| path.exists());
    let state = if finished {
        "was installed before, and its services run"
    } else {
        "is installed"
    };
    let mut words = vec![
        format!(
            "cluster {} {state}: runtime {} on {}",
            plan.cluster, plan.runtime, plan.host
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
    if manager == service::Manager::Supervised {
        words.push(
            "systemd does not run this host: after a reboot, run the same command again to start the services"
                .to_owned(),
        );
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
