//! Apps of a cluster that runs: an image of apps comes onto it, what is there is listed, and goes again.
//!
//! An image of apps has a rootfs of its own on the first master, named by what it was installed from, so that the same again is
//! there at once; its container images come to those of the cluster. What is launched is launched each time, which is an upgrade.

use std::net::IpAddr;
use std::path::Path;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use sealrs_image::layer::annotation;
use sealrs_image::progress::Progress;
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;
use serde::{Deserialize, Serialize};

use crate::action::{Action, Program};
use crate::cluster::ClusterFiles;
use crate::environment;
use crate::facts::Interest;
use crate::inputs::Inputs;
use crate::journal::{Journal, Stage, being_deleted};
use crate::member::{self, Member, Role};
use crate::options::{self, Options};
use crate::plan::{FORMAT, Naming, Plan, Step, UNPACK};
use crate::preflight::{self, Finding};
use crate::rootfs::RootfsFacts;
use crate::runtime::{self, Runtime};
use crate::scale::Cluster;
use crate::sites::{self, Site};
use crate::summary::{Outcome, Summary};
use crate::work::Work;
use crate::{apps, files};

/// An app of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct App {
    /// Its name.
    pub name: String,
    /// `helm`, `kube`, `kustomize`, `shell` or `command`.
    pub kind: String,
    /// The manifest of the image that it is of.
    pub image: Digest,
    /// How far it is.
    pub state: AppState,
    /// The name of its image's rootfs; none is the cluster's own.
    id: Option<String>,
    /// The command that removes it.
    remove: Option<String>,
}

/// How far an app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppState {
    /// It is being launched, or that was interrupted.
    Launching,
    /// It was launched.
    Launched,
}

/// The apps of a cluster.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such cluster.
pub fn list_apps(root: &Path, cluster: &str) -> Result<Vec<App>> {
    options::check_cluster_name(cluster)?;
    let files = ClusterFiles::new(root, cluster);
    if !files.data().is_dir() {
        return Err(absent(cluster));
    }
    load(&files)
}

fn absent(cluster: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no cluster `{cluster}`"))
        .hint("install it first with `sealrs run` and a cluster's image, or name it with `--cluster`")
}

fn load(files: &ClusterFiles) -> Result<Vec<App>> {
    let path = files.app_list();
    let bytes = match std::fs::read(&path) {
        Err(error) if files::is_absent(&error) => return Ok(Vec::new()),
        bytes => bytes.or_io(|| format!("cannot read {}", path.display()))?,
    };
    serde_json::from_slice(&bytes).or_fail(ErrorKind::Integrity, || format!("{} is damaged", path.display()))
}

fn store(files: &ClusterFiles, apps: &[App]) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(apps).or_fail(ErrorKind::Internal, || "cannot write the list of apps")?;
    files::keep(&files.app_list(), &bytes, 0o600)
}

/// Notes the apps that an image launches. What is known of others stays.
///
/// # Errors
/// As [`apps::steps`]; disk errors.
pub(crate) fn note(
    files: &ClusterFiles,
    image: &ClusterImage,
    options: &Options,
    id: Option<&str>,
    state: AppState,
) -> Result<()> {
    let mut known = load(files)?;
    for launch in apps::launches(&image.extension, options)? {
        // What commands make has no other name than the image's.
        let name = launch
            .app
            .unwrap_or_else(|| format!("commands-{}", image.descriptor.digest.short()));
        let app = App {
            name,
            kind: launch.kind.to_owned(),
            image: image.descriptor.digest,
            state,
            id: id.map(str::to_owned),
            remove: launch.remove,
        };
        known.retain(|other| other.name != app.name);
        known.push(app);
    }
    if known.is_empty() {
        return Ok(());
    }
    store(files, &known)
}

/// A cluster that apps come to or go from.
struct Open {
    /// The cluster's own files.
    files: ClusterFiles,
    plan: Plan,
    runtime: &'static dyn Runtime,
    members: Vec<Member>,
    /// The host with the registry and the kubeconfig.
    founder: IpAddr,
}

impl Open {
    /// The cluster, which has to be installed.
    fn new(cluster: Cluster<'_>) -> Result<Self> {
        options::check_cluster_name(cluster.name)?;
        let files = ClusterFiles::new(cluster.root, cluster.name);
        let journal = Journal::read(&files.journal())?;
        match journal.stage() {
            Stage::Fresh => return Err(absent(cluster.name)),
            Stage::Deleting => return Err(being_deleted(cluster.name)),
            Stage::Running => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "the installation of cluster `{}`, or a change of it, has not ended",
                        cluster.name
                    ),
                )
                .hint("finish it first: `sealrs status` tells how"));
            }
            Stage::Finished => {}
        }
        let damaged = || {
            Error::new(
                ErrorKind::Integrity,
                format!("the journal of cluster `{}` has no plan", cluster.name),
            )
        };
        let plan = Plan::of_cluster(&files, journal.plan().ok_or_else(damaged)?)?;
        let founder = plan.founder().ok_or_else(damaged)?;
        let mut members = member::load(&files.members(), cluster.given)?;
        if members.is_empty() {
            members.push(Member::new(founder, Role::Master, cluster.given.clone()));
        }
        let runtime = runtime::by_name(&plan.runtime)
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("runtime `{}` is not known", plan.runtime)))?;
        Ok(Self {
            files,
            plan,
            runtime,
            members,
            founder,
        })
    }

    /// The founder, connected.
    fn connect(&self, options: &Options, interest: &Interest) -> Result<Vec<Site>> {
        let founder = self.members.iter().filter(|member| member.address == self.founder);
        let founder: Vec<Member> = founder.cloned().collect();
        sites::connect(&founder, options, &self.files, interest)
    }

    /// A plan on the founder.
    fn plan(&self, image: Digest, steps: Vec<Step>) -> Plan {
        Plan {
            format: FORMAT,
            image,
            steps,
            notes: Vec::new(),
            ..self.plan.clone()
        }
    }
}

/// An image of apps and the cluster that it comes onto.
struct Coming {
    open: Open,
    options: Options,
    /// Names the image's rootfs.
    id: String,
    sites: Vec<Site>,
    plan: Plan,
    /// The image without what the cluster's registry has.
    part: ClusterImage,
}

impl Coming {
    fn new(image: &ClusterImage, cluster: Cluster<'_>, wanted: &Options) -> Result<Self> {
        let open = Open::new(cluster)?;
        let kept = Options::kept(&open.files)?;
        let mut env = kept.env.clone();
        env.extend(wanted.env.clone());
        let options = Options {
            env,
            cmds: wanted.cmds.clone(),
            apps: wanted.apps.clone(),
            app_settings: wanted.app_settings.clone(),
            configurations: wanted.configurations.clone(),
            wait: wanted.wait,
            members: open.members.clone(),
            executable: wanted.executable.clone(),
            hooks: Vec::new(),
            ..kept
        };
        apps::check(&image.extension, &options)?;
        if apps::launches(&image.extension, &options)?.is_empty() {
            return Err(Error::new(ErrorKind::Input, "the image launches nothing")
                .hint("name its apps with `--apps`, or commands with `--cmds`"));
        }
        environment::of(image, &options, open.founder)?;
        let inputs = Inputs::new(image.descriptor.digest, &options);
        let bytes = serde_json::to_vec(&inputs).or_fail(ErrorKind::Internal, || "cannot write the inputs")?;
        let id = Digest::of(&bytes).short();
        let blobs = image.manifest.layers.iter().filter_map(blob_path);
        let registry = open.files.cluster_rootfs();
        let sites = open.connect(
            &options,
            &Interest {
                paths: blobs.map(|path| registry.join(path)).collect(),
                folders: vec![open.files.data()],
                ..Interest::default()
            },
        )?;
        let Some(site) = sites.first() else {
            return Err(Error::new(ErrorKind::Internal, "there is no founder"));
        };
        let has = |path: &str| site.facts.paths.contains(&registry.join(path));
        let part = without(image, has);
        let plan = {
            let files = open.files.of_apps(&id);
            let rootfs = RootfsFacts::default();
            let contexts = sites::contexts(
                std::slice::from_ref(site),
                std::slice::from_ref(&rootfs),
                image,
                &options,
                &files,
                &open.plan.hosts,
            );
            let context = contexts
                .first()
                .ok_or_else(|| Error::new(ErrorKind::Internal, "there is no founder"))?;
            let mut steps = vec![context.step(
                UNPACK,
                "unpack the image",
                Action::Unpack {
                    image: image.descriptor.digest,
                    path: files.rootfs(),
                },
            )?];
            steps.push(context.step(
                "app-images",
                "give the private registry the container images",
                Action::AddImages {
                    from: files.rootfs().join("registry"),
                    to: registry.join("registry"),
                },
            )?);
            steps.extend(apps::steps(context, open.plan.kubeconfig.as_deref())?);
            open.plan(image.descriptor.digest, steps)
        };
        Ok(Self {
            open,
            options,
            id,
            part,
            plan,
            sites,
        })
    }

    fn findings(&self) -> Vec<Finding> {
        let Some(site) = self.sites.first() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        if !site.facts.platform.accepts(&self.part.config.platform) {
            found.push(Finding::error(
                "platform",
                format!(
                    "the image is for {}, {} is {}",
                    self.part.config.platform, self.open.founder, site.facts.platform
                ),
                format!("build or pull the image for {}", site.facts.platform),
            ));
        }
        let needed = self.part.unpacked_size();
        let free = site.facts.disks.values().map(|disk| disk.free).min();
        if let Some(free) = free.filter(|free| *free < needed) {
            found.push(Finding::error(
                "disk",
                format!(
                    "the disk of {} is too small: need {needed} bytes, have {free}",
                    self.open.founder
                ),
                "free some space",
            ));
        }
        found
    }
}

/// Where a layer's blob of a container image lies below the rootfs; none for other layers.
fn blob_path(layer: &Descriptor) -> Option<String> {
    let digest: Digest = layer.annotations.get(annotation::BLOB)?.parse().ok()?;
    let hex = digest.hex();
    let start = hex.get(..2)?;
    Some(format!("registry/docker/registry/v2/blobs/sha256/{start}/{hex}/data"))
}

/// The image without the blobs of container images that are there.
fn without(image: &ClusterImage, has: impl Fn(&str) -> bool) -> ClusterImage {
    let mut part = image.clone();
    let layers = image.manifest.layers.iter();
    let keep: Vec<bool> = layers
        .map(|layer| !blob_path(layer).is_some_and(|path| has(&path)))
        .collect();
    let mut of_layers = keep.iter().copied();
    part.manifest.layers.retain(|_| of_layers.next().unwrap_or(true));
    let mut of_ids = keep.iter().copied();
    part.config.rootfs.diff_ids.retain(|_| of_ids.next().unwrap_or(true));
    part
}

/// Says what [`install_apps`] would do, and what stands against it.
///
/// # Errors
/// As [`install_apps`], before anything is done.
pub fn plan_apps(image: &ClusterImage, cluster: Cluster<'_>, wanted: &Options) -> Result<(Plan, Vec<Finding>)> {
    let coming = Coming::new(image, cluster, wanted)?;
    let findings = coming.findings();
    Ok((coming.plan, findings))
}

/// Brings an image of apps onto a cluster that runs, or a newer one over it; of `wanted`, what is said of apps counts.
///
/// # Errors
/// [`ErrorKind::NotFound`] and [`ErrorKind::Conflict`] when there is no cluster to bring it to;
/// [`ErrorKind::Step`] when a step fails.
pub fn install_apps(
    source: &dyn Source,
    image: &ClusterImage,
    cluster: Cluster<'_>,
    wanted: &Options,
    progress: &dyn Progress,
) -> Result<Summary> {
    let mut coming = Coming::new(image, cluster, wanted)?;
    preflight::enforce(&coming.findings(), progress)?;
    let own = &coming.open.files;
    let _lock = own.hold()?;
    let before = load(own)?;
    note(own, image, &coming.options, Some(&coming.id), AppState::Launching)?;
    let files = own.of_apps(&coming.id);
    let inputs = Inputs::new(image.descriptor.digest, &coming.options);
    let journal = fresh(&files, cluster.name, inputs)?;
    let resume = "put it right and run the same command again to go on from here".to_owned();
    let naming = Naming {
        many: false,
        generation: 1,
    };
    let work = Work::new(&coming.options, &files, journal, naming, resume, progress);
    work.begin(&mut coming.sites, coming.open.runtime, Some(image), &[])?;
    work.unpack(&mut coming.sites, &coming.part, source, coming.open.founder)?;
    let executed = work.execute(&coming.plan.steps, &mut coming.sites)?;
    note(own, image, &coming.options, Some(&coming.id), AppState::Launched)?;
    work.journal().finished()?;
    // Images that all apps have left for a newer one.
    let now = load(own)?;
    let gone = before.iter().filter_map(|app| app.id.as_ref());
    let mut gone: Vec<&String> = gone
        .filter(|id| !now.iter().any(|app| app.id.as_ref() == Some(id)))
        .collect();
    gone.dedup();
    for id in gone {
        forget(&coming.open, &coming.options, id, &mut coming.sites, progress)?;
    }
    let names: Vec<String> = now
        .iter()
        .filter(|app| app.id.as_deref() == Some(&coming.id))
        .map(|app| app.name.clone())
        .collect();
    Ok(Summary {
        cluster: cluster.name.to_owned(),
        outcome: Outcome::Installed,
        image: Some(image.descriptor.digest),
        runtime: Some(coming.plan.runtime.clone()),
        registry: Some(coming.plan.registry.clone()),
        rootfs: Some(files.rootfs()),
        kubeconfig: None,
        steps: executed,
        words: vec![format!("cluster {} has launched {}", cluster.name, names.join(", "))],
    })
}

/// The journal of one try: that which was interrupted, or a new one, for what was launched is launched again.
fn fresh(files: &ClusterFiles, cluster: &str, inputs: Inputs) -> Result<Journal> {
    let path = files.journal();
    if Journal::read(&path)?.stage() == Stage::Finished {
        files::remove_file(&path)?;
    }
    let folder = files.of_image();
    std::fs::create_dir_all(&folder).or_io(|| format!("cannot make the folder {}", folder.display()))?;
    let mut journal = Journal::open(&path)?;
    journal.start(cluster, inputs)?;
    Ok(journal)
}

/// Removes apps by their names.
///
/// # Errors
/// [`ErrorKind::NotFound`] for an app that is not there; [`ErrorKind::Input`] for one of which nobody knows how it goes.
pub fn remove_apps(cluster: Cluster<'_>, names: &[String], progress: &dyn Progress) -> Result<Summary> {
    let open = Open::new(cluster)?;
    let options = Options {
        members: open.members.clone(),
        ..Options::kept(&open.files)?
    };
    let known = load(&open.files)?;
    let mut going = Vec::new();
    for name in names {
        let Some(app) = known.iter().find(|app| &app.name == name) else {
            let has: Vec<&str> = known.iter().map(|app| app.name.as_str()).collect();
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("cluster `{}` has no app `{}`", cluster.name, name.escape_debug()),
            )
            .hint(match has.as_slice() {
                [] => "it has none".to_owned(),
                has => format!("it has {}", has.join(", ")),
            }));
        };
        if app.remove.is_none() {
            return Err(Error::new(
                ErrorKind::Input,
                format!("nothing says how app `{name}` of type {} is removed", app.kind),
            )
            .hint("say it in an Application document, `configs[].delete.cmds`, and install the app again; or remove it by hand"));
        }
        going.push(app.clone());
    }
    let mut sites = open.connect(&options, &Interest::default())?;
    let _lock = open.files.hold()?;
    let mut executed = 0;
    for app in &going {
        let files = match &app.id {
            Some(id) => open.files.of_apps(id),
            None => open.files.clone(),
        };
        let mut env = std::collections::BTreeMap::new();
        if let Some(kubeconfig) = &open.plan.kubeconfig {
            env.insert("KUBECONFIG".to_owned(), kubeconfig.to_string_lossy().into_owned());
        }
        let program = Program {
            argv: vec![
                "bash".to_owned(),
                "-c".to_owned(),
                app.remove.clone().unwrap_or_default(),
            ],
            folder: files.rootfs(),
            env,
        };
        let id = format!("app-{}-delete", app.name);
        let step = Step::on(
            open.founder,
            id,
            format!("remove app {}", app.name),
            Action::Run(program),
        )?;
        executed += once(&open, &options, &files, step, &mut sites, progress)?;
        let mut left = load(&open.files)?;
        left.retain(|other| other.name != app.name);
        store(&open.files, &left)?;
        if let Some(id) = app
            .id
            .as_ref()
            .filter(|id| !left.iter().any(|other| other.id.as_ref() == Some(id)))
        {
            forget(&open, &options, id, &mut sites, progress)?;
        }
    }
    Ok(Summary {
        cluster: cluster.name.to_owned(),
        outcome: Outcome::Deleted,
        image: None,
        runtime: None,
        registry: None,
        rootfs: None,
        kubeconfig: None,
        steps: executed,
        words: vec![format!("removed {} from cluster {}", names.join(", "), cluster.name)],
    })
}

/// Does a step that is in no plan, and can be done again.
fn once(
    open: &Open,
    options: &Options,
    files: &ClusterFiles,
    step: Step,
    sites: &mut [Site],
    progress: &dyn Progress,
) -> Result<usize> {
    let path = open.files.data().join("apps/journal");
    let folder = path.parent().unwrap_or(&path);
    std::fs::create_dir_all(folder).or_io(|| format!("cannot make the folder {}", folder.display()))?;
    files::remove_file(&path)?;
    let naming = Naming {
        many: false,
        generation: 1,
    };
    let resume = "put it right and run the same command again".to_owned();
    let work = Work::new(options, files, Journal::open(&path)?, naming, resume, progress);
    work.begin(sites, open.runtime, None, &[])?;
    let executed = work.execute(&[step], sites)?;
    files::remove_file(&path)?;
    Ok(executed)
}

/// Removes the rootfs of an image of which no app is there any more.
fn forget(open: &Open, options: &Options, id: &str, sites: &mut [Site], progress: &dyn Progress) -> Result<()> {
    let folder = open.files.of_apps(id).of_image();
    let program = Program {
        argv: ["rm", "-rf", "--"]
            .map(str::to_owned)
            .into_iter()
            .chain([folder.to_string_lossy().into_owned()])
            .collect(),
        folder: open.files.data(),
        env: std::collections::BTreeMap::new(),
    };
    let step = Step::on(
        open.founder,
        format!("forget-{id}"),
        "remove an image that no app is of any more",
        Action::Run(program),
    )?;
    once(open, options, &open.files, step, sites, progress)?;
    // The operator has its journal.
    files::remove_tree(&folder)
}
