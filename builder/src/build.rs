//! The build: a Kubefile's steps, one after another, to layers, and the layers to a ClusterImage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use sealrs_image::cluster_image::{
    Application, BuildClient, ClusterImage, ContainerImage, Extension, ImageKind, Launch, name,
};
use sealrs_image::digest::Digest;
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::images_lock::{LOCK_PATH, Lock, Locked};
use sealrs_image::layer::{Compression, PackedLayer};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress, Task};
use sealrs_image::pull::PullPolicy;
use sealrs_image::reference::Reference;
use sealrs_image::remote::Client;
use sealrs_image::spec::{
    self, Config, ContainerConfig, Descriptor, History, Manifest, RootFs, annotation, media_type,
};
use sealrs_image::store::Store;

use crate::apps;
use crate::asked::Asked;
use crate::base::{self, Finding, unusable};
use crate::cache::Cache;
use crate::check;
use crate::container_images::{Fetching, ReferrersOf, listed};
use crate::contents::{Contents, FileSource, Item};
use crate::context::Context;
use crate::discovery::Discovery;
use crate::image_list::{self, LIST_PATHS};
use crate::image_list_with_auth::ImageListWithAuth;
use crate::image_sources::ImageSource;
use crate::kubefile::{Action, App, AppKind, BaseImage, Diagnostic, Kubefile, Span, Step, runtime};
use crate::lock_file::{self, Frozen, LockUse};
use crate::named::{self, Which, named};
use crate::pack::{Packed, Packing, Seen, collected, lock};
use crate::publish::{Built, Member, distinct, publish};
use crate::rootfs::Rootfs;
use crate::sources::Found;
use crate::transfer::Transfer;

/// What to build, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Kubefile.
    pub kubefile: PathBuf,
    /// The build context.
    pub context: PathBuf,
    /// The image's name.
    pub name: Reference,
    /// The platforms to build for: one, or several for an index of them.
    pub platforms: Vec<Platform>,
    /// Values of ARG.
    pub build_args: BTreeMap<String, String>,
    /// More labels.
    pub labels: BTreeMap<String, String>,
    /// What the image installs.
    pub kind: ImageKind,
    /// More lists of container images.
    pub image_lists: Vec<PathBuf>,
    /// Lists of container images with the logins for them. The client has to have these.
    pub image_lists_with_auth: Vec<ImageListWithAuth>,
    /// Lists of container images that are not wanted.
    pub ignored_image_lists: Vec<PathBuf>,
    /// Files that name what may be missing: container images, and manifests and charts that can't be understood.
    pub allow_unresolved: Vec<PathBuf>,
    /// Where container images are looked for before registries are asked, in this order.
    pub image_sources: Vec<ImageSource>,
    /// Whether signatures and the like of container images come along.
    pub referrers: bool,
    /// How images that manifests and charts name are looked for, if they are.
    pub discovery: Option<Discovery>,
    /// What is done with the lock beside the Kubefile.
    pub lock: LockUse,
    /// Whether container images are fetched at all.
    pub fetch_images: bool,
    /// When FROM asks the registry.
    pub pull: PullPolicy,
    /// How layers are packed.
    pub compression: Compression,
    /// Whether layers of earlier builds are used.
    pub use_cache: bool,
    /// Requests and downloads at once.
    pub jobs: usize,
    /// Seconds since 1970 for all time stamps (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// When the build happens, RFC 3339: noted beside the image, not in it.
    pub now: Option<String>,
}

/// Builds a ClusterImage into `store`, under its name: one platform, or an index of several.
///
/// # Errors
/// [`ErrorKind::Input`] for what is wrong in the Kubefile, the context or a list; what registries and the disk meet. What
/// fails for one platform fails as a whole, and nothing gets the name.
pub fn build(
    options: &Options,
    root: &std::path::Path,
    store: &Store,
    client: &Client,
    progress: &dyn Progress,
) -> Result<Built> {
    let built = build_all(options, root, store, client, progress);
    for failure in client.mirror_failures() {
        progress.event(Event::Warning(&failure));
    }
    built
}

fn build_all(
    options: &Options,
    root: &std::path::Path,
    store: &Store,
    client: &Client,
    progress: &dyn Progress,
) -> Result<Built> {
    options.name.check_givable()?;
    let _lock = store.share()?;
    let platforms = distinct(&options.platforms)?;
    let on = |platform: &Platform, error: Error| match platforms.len() {
        1 => error,
        _ => Error::new(error.kind(), format!("cannot build for {platform}")).because(error),
    };
    let secret = options.image_lists_with_auth.iter().map(|list| list.path.clone());
    let lock_path = lock_file::path(&options.kubefile);
    let context = Context::open(&options.context)?
        .without(secret.collect())
        .without_lock(&lock_path);
    let kubefiles = read_kubefile(options, platforms)?;
    let cache = Cache::open(root)?;
    let finding = Finding {
        store,
        client,
        cache: &cache,
        context: context.root(),
        policy: options.pull,
        jobs: options.jobs,
        progress,
    };
    let mut targets = Vec::new();
    let mut failures = Vec::new();
    for (platform, kubefile) in platforms.iter().zip(&kubefiles) {
        match check::check(kubefile, platform, &context, &finding) {
            Ok(sources) => targets.push(Target {
                platform,
                kubefile,
                sources,
            }),
            Err(error) => failures.push((platform, error)),
        }
    }
    let is_common = failures.len() == platforms.len();
    let mut failures = failures.into_iter();
    if let Some((platform, error)) = failures.next() {
        // What is wrong in the same way for all platforms is wrong with the Kubefile.
        let told = |error: &Error| (error.to_string(), error.causes(), error.findings().to_vec());
        let is_common = is_common && failures.all(|(_, other)| told(&other) == told(&error));
        return Err(if is_common { error } else { on(platform, error) });
    }
    warn(options, &kubefiles, progress);
    let asked = Asked::read(options)?;
    if options.lock != LockUse::Unused && !options.fetch_images {
        return Err(
            Error::new(ErrorKind::Input, "without container images there is nothing to lock")
                .hint("leave out `--build-mode lite`, or the lock"),
        );
    }
    let frozen = match options.lock {
        LockUse::Frozen => Some(Frozen::read(&lock_path)?),
        LockUse::Unused | LockUse::Update => None,
    };
    let known = cache.files(context.root());
    let packing = Packing {
        store,
        cache: &cache,
        known: &known,
        seen: &Seen::default(),
        compression: options.compression,
        mtime: u64::try_from(options.epoch.unwrap_or(0)).unwrap_or(0),
        use_cache: options.use_cache,
        progress,
    };
    let building = Building {
        options,
        packing: &packing,
        bases: bring_bases(&targets, &finding)?,
        finding: &finding,
        context: &context,
        asked: &asked,
        frozen,
        resolved: Mutex::default(),
        locked: Mutex::default(),
    };
    let mut members = Vec::new();
    for target in &targets {
        let platform = target.platform;
        if targets.len() > 1 {
            progress.event(Event::Message(&format!("building for {platform}")));
        }
        members.push(building.build(target).map_err(|error| on(platform, error))?);
    }
    let built = publish(&options.name, options.now.as_deref(), &members, store)?;
    if options.lock == LockUse::Update {
        lock_file::write(&lock_path, collected(building.locked))?;
    }
    Ok(built)
}

/// The Kubefile as it is for each platform.
fn read_kubefile(options: &Options, platforms: &[Platform]) -> Result<Vec<Kubefile>> {
    let path = options.kubefile.display().to_string();
    let bytes = fs::read(&options.kubefile).or_read(|| format!("cannot read the Kubefile {path}"));
    let bytes = bytes.map_err(|error| {
        // Docker looks in the context, sealer where one stands.
        let inside = options.context.join("Kubefile");
        let named = if inside.is_file() {
            inside.display().to_string()
        } else {
            "Kubefile".to_owned()
        };
        error.hint(format!(
            "name it with `-f`, for instance `sealrs build -f {named} -t NAME {}`",
            options.context.display()
        ))
    })?;
    let read = |platform| Kubefile::read(&bytes, &path, &options.build_args, platform);
    Ok(platforms.iter().map(read).collect())
}

/// Says what is doubtful, once for all platforms: it comes of the text alone.
fn warn(options: &Options, kubefiles: &[Kubefile], progress: &dyn Progress) {
    if let Some(kubefile) = kubefiles.first() {
        for warning in kubefile.warnings().texts() {
            progress.event(Event::Warning(&warning));
        }
    }
    for platform in &options.platforms {
        if let Some(doubt) = platform.doubt() {
            progress.event(Event::Warning(&format!("--platform {platform}: {doubt}")));
        }
    }
    let labels = options.labels.iter();
    for (message, hint) in labels.filter_map(|(label, value)| runtime::doubt(label, value)) {
        progress.event(Event::Warning(&format!("--label: {message}; {hint}")));
    }
}

/// The Kubefile for one platform.
struct Target<'o> {
    platform: &'o Platform,
    kubefile: &'o Kubefile,
    /// The sources of each step.
    sources: Vec<Vec<Found<'o>>>,
}

impl Target<'_> {
    /// A failure, with the line of the Kubefile that it is about.
    fn failed(&self, step: &Step, error: Error) -> Error {
        self.kubefile.error(vec![step.failure(error)])
    }

    /// What FROM names, and the platform of it that is wanted. Nothing for `scratch`.
    fn base(&self) -> Option<(&Step, &str, &Platform)> {
        self.kubefile.steps().iter().find_map(|step| match &step.action {
            Action::From(BaseImage::Image { name, platform }) => {
                Some((step, name.as_str(), platform.as_ref().unwrap_or(self.platform)))
            }
            _ => None,
        })
    }
}

/// Brings what FROM names into the store. What several platforms name comes with all of them at once, so that a tag that
/// moves meanwhile gives them the same image.
fn bring_bases(targets: &[Target<'_>], finding: &Finding<'_>) -> Result<BTreeMap<String, Descriptor>> {
    let mut bases = BTreeMap::new();
    for target in targets {
        let Some((step, name, _)) = target.base() else { continue };
        if bases.contains_key(name) {
            continue;
        }
        let wanted = targets.iter().filter_map(Target::base);
        let wanted = wanted.filter(|(_, other, _)| *other == name);
        let platforms: Vec<Platform> = wanted.map(|(.., platform)| platform.clone()).collect();
        let root = finding
            .bring(name, &platforms)
            .context(|| unusable(name))
            .map_err(|error| target.failed(step, error))?;
        bases.insert(name.to_owned(), root);
    }
    Ok(bases)
}

/// What the builds for all platforms have in common.
struct Building<'b> {
    options: &'b Options,
    packing: &'b Packing<'b>,
    finding: &'b Finding<'b>,
    /// What FROM names, by its name.
    bases: BTreeMap<String, Descriptor>,
    context: &'b Context,
    asked: &'b Asked,
    /// The container images that were resolved so far.
    resolved: Mutex<BTreeMap<Reference, Digest>>,
    /// What the container images have to be.
    frozen: Option<Frozen>,
    /// What they were.
    locked: Mutex<Vec<Locked>>,
}

impl Building<'_> {
    /// Builds for one platform.
    fn build(&self, target: &Target<'_>) -> Result<Member> {
        let Self { options, packing, .. } = self;
        let kubefile = target.kubefile;
        let mut draft = Draft::default();
        let mut rootfs = Rootfs::default();
        for (step, found) in kubefile.steps().iter().zip(&target.sources) {
            let at_step = |error: Error| target.failed(step, error);
            if let Action::From(_) = &step.action {
                let mut inherited = BTreeSet::new();
                if let Some(base) = self.base(target).map_err(at_step)? {
                    rootfs = base::rootfs(&base, packing.layers(), options.jobs, packing.progress).map_err(at_step)?;
                    inherited = check::app_names(&base);
                    draft.start_from(base);
                }
                kubefile.check(kubefile.check_apps(&inherited))?;
                continue;
            }
            let mut transfer = Transfer {
                packing,
                context: self.context,
                client: self.finding.client,
                rootfs: &mut rootfs,
                span: step.span,
            };
            match &step.action {
                Action::Copy(copy) => {
                    let done = transfer.copy(copy, found).map_err(at_step)?;
                    draft.add(step, done);
                }
                Action::App(app) => {
                    let done = transfer.app(app, found).map_err(at_step)?;
                    draft.add_app(app, &done.files, step.span);
                    draft.add(step, done);
                }
                other => draft.apply(other, step),
            }
        }
        draft.check_apps(kubefile)?;
        packing.known.save()?;

        let mut lists = Vec::new();
        let mut wrong = Vec::new();
        for path in LIST_PATHS {
            let text = rootfs.text(path, packing.layers()).map_err(|(error, span)| {
                let failed = Error::new(error.kind(), format!("cannot take the image list `{path}`")).because(error);
                kubefile.error(vec![Diagnostic::failure(span, &failed)])
            })?;
            if let Some(text) = text {
                lists.extend(image_list::parse(&text, path, &mut wrong));
            }
        }
        image_list::refuse(wrong)?;
        if let Some(discovery) = options.discovery.as_ref().filter(|_| options.fetch_images) {
            let _task = Task::begin(packing.progress, "looking for container images", None);
            let mut named = named(&rootfs, packing.layers(), Which::New, target.platform, discovery)?;
            for note in &named.notes {
                packing.progress.event(Event::Warning(note));
            }
            self.asked.refuse(std::mem::take(&mut named.wrong), packing.progress)?;
            lists.extend(named::wanted(&named));
        }
        let base_lock = base::lock(&rootfs, packing.layers())?;
        let lock = if options.fetch_images {
            let fetching = Fetching {
                client: self.finding.client,
                store: packing.store,
                cache: packing.cache,
                resolved: &self.resolved,
                platform: target.platform,
                asked: self.asked,
                sources: &options.image_sources,
                referrers: options.referrers.then(|| match &self.frozen {
                    None => ReferrersOf::Images,
                    Some(frozen) => ReferrersOf::Lock(frozen.referrers(target.platform)),
                }),
                use_cache: options.use_cache,
                jobs: options.jobs,
                progress: packing.progress,
            };
            let mut wanted = self.asked.join(lists, packing.progress);
            if let Some(frozen) = &self.frozen {
                let locked = frozen.of(target.platform);
                // What could not be had when the lock was written is not wanted now.
                wanted.retain(|wanted| locked.contains_key(&wanted.reference) || !self.asked.allows(&wanted.reference));
                frozen.check_names(&wanted, target.platform)?;
                let digests = locked.into_iter().map(|(image, locked)| (image.clone(), locked.digest));
                lock(&self.resolved).extend(digests);
            }
            let fetched = fetching.fetch(wanted, base_lock, &draft.container_images)?;
            if let Some(frozen) = &self.frozen {
                frozen.check_images(&fetched.own, target.platform)?;
            }
            lock(&self.locked).extend(fetched.own);
            draft.add_images(fetched.layers, fetched.files, &fetched.lock, packing, &rootfs)?;
            fetched.lock
        } else {
            base_lock
        };
        draft.kind = options.kind;
        draft.finish(target.platform, &options.labels, &lock, options.epoch, packing.store)
    }

    fn base(&self, target: &Target<'_>) -> Result<Option<ClusterImage>> {
        let Some((_, name, platform)) = target.base() else {
            return Ok(None);
        };
        let root = self.bases.get(name);
        let root = root.ok_or_else(|| Error::new(ErrorKind::Internal, "the base was not brought"))?;
        self.finding.read(root, platform).context(|| unusable(name)).map(Some)
    }
}

/// An image as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) kind: ImageKind,
    pub(crate) layers: Vec<PackedLayer>,
    pub(crate) history: Vec<History>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) author: Option<String>,
    /// The variables of this Kubefile's ENV.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) config_env: Vec<String>,
    pub(crate) applications: Vec<Application>,
    /// Where this Kubefile defines its apps.
    app_spans: BTreeMap<String, Span>,
    pub(crate) launch: Launch,
    /// What the base says that it holds.
    pub(crate) container_images: Vec<ContainerImage>,
    packed: usize,
    cached: usize,
}

/// What an instruction that brings files made.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) layers: Vec<PackedLayer>,
    pub(crate) cached: usize,
    /// For apps: their files, relative to the app's folder, in the order of the sources.
    pub(crate) files: Vec<String>,
}

impl Done {
    pub(crate) fn add(&mut self, packed: Packed) {
        self.cached += usize::from(packed.cached);
        self.layers.push(packed.layer);
    }
}

impl Draft {
    fn start_from(&mut self, base: ClusterImage) {
        let layers = base.manifest.layers.into_iter().zip(base.config.rootfs.diff_ids);
        self.layers = layers
            .map(|(descriptor, diff_id)| PackedLayer { descriptor, diff_id })
            .collect();
        self.history = base.config.history;
        self.labels = base.config.config.labels;
        self.author = base.config.author;
        self.config_env = base.config.config.env;
        self.applications = base.extension.applications;
        self.container_images = base.container_images;
    }

    fn add(&mut self, step: &Step, done: Done) {
        self.cached += done.cached;
        self.packed += done.layers.len() - done.cached.min(done.layers.len());
        for layer in done.layers {
            self.layers.push(layer);
            self.note(&step.original, false);
        }
    }

    fn note(&mut self, instruction: &str, empty_layer: bool) {
        self.history.push(History {
            created: None,
            created_by: Some(instruction.to_owned()),
            empty_layer,
        });
    }

    fn add_app(&mut self, app: &App, files: &[String], span: Span) {
        self.app_spans.insert(app.name.name.clone(), span);
        let detected = apps::detect(&app.name.name, files);
        let application = Application {
            name: app.name.name.clone(),
            kind: detected.kind,
            files: detected.files,
            version: "v1".to_owned(),
            ..Application::default()
        };
        self.applications.retain(|known| known.name != application.name);
        self.applications.push(application);
        let prefix = match app.kind {
            AppKind::App => return,
            AppKind::Cni => name::CNI_PREFIX,
            AppKind::Csi => name::CSI_PREFIX,
        };
        self.labels
            .insert(format!("{prefix}{}", app.name.name), "true".to_owned());
    }

    /// Instructions that bring no files.
    fn apply(&mut self, action: &Action, step: &Step) {
        match action {
            Action::Env(variables) => {
                for (key, value) in variables {
                    self.env.insert(key.clone(), value.clone());
                    let assignment = format!("{key}=");
                    self.config_env.retain(|known| !known.starts_with(&assignment));
                    self.config_env.push(format!("{key}={value}"));
                }
            }
            Action::Label(labels) => self.labels.extend(labels.iter().cloned()),
            Action::Maintainer(author) => self.author = Some(author.clone()),
            Action::AppEnv { app, variables } => {
                for application in self.applications.iter_mut().filter(|known| known.name == app.name) {
                    application.env.extend(variables.iter().cloned());
                }
            }
            Action::AppCommands { app, command } => {
                for application in self.applications.iter_mut().filter(|known| known.name == app.name) {
                    application.cmds.clone_from(command);
                }
            }
            Action::Launch(apps) => self.launch.app_names = apps.iter().map(|app| app.name.clone()).collect(),
            Action::Commands(commands) => self.launch.cmds.extend(commands.iter().cloned()),
            Action::KubeVersion(constraint) => {
                self.labels.insert(name::KUBE_VERSION.to_owned(), constraint.clone());
            }
            Action::From(_) | Action::Copy(_) | Action::App(_) => {}
        }
        self.note(&step.original, true);
    }

    /// Every app must be startable.
    fn check_apps(&self, kubefile: &Kubefile) -> Result<()> {
        let is_unknown = |app: &&Application| app.kind.is_empty() && app.cmds.is_empty();
        let unknown: Vec<Diagnostic> = self
            .applications
            .iter()
            .filter(is_unknown)
            .map(|app| {
                let message = format!("nothing tells how to start app `{}`", app.name);
                let problem = match self.app_spans.get(&app.name) {
                    Some(&span) => Diagnostic::error(span, message),
                    None => Diagnostic::error_in_file(message),
                };
                problem.hint(format!(
                    "its files are neither a chart, nor all .yaml, nor all .sh: add `APPCMDS {} [\"bash\", \"install.sh\"]`",
                    app.name
                ))
            })
            .collect();
        match unknown.as_slice() {
            [] => Ok(()),
            _ => Err(kubefile.error(unknown)),
        }
    }

    /// Adds container images: their large blobs, and their small files with the lock.
    pub(crate) fn add_images(
        &mut self,
        layers: Vec<PackedLayer>,
        files: BTreeMap<String, Vec<u8>>,
        lock: &Lock,
        packing: &Packing<'_>,
        rootfs: &Rootfs,
    ) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        for layer in layers {
            // The base may hold the same blob.
            if self
                .layers
                .iter()
                .any(|below| below.descriptor.digest == layer.descriptor.digest)
            {
                continue;
            }
            self.layers.push(layer);
            self.note("container image blob", false);
        }
        let mut contents = Contents::default();
        for (path, bytes) in files {
            contents.put(&path, Item::file(FileSource::Inline(bytes), 0o644))?;
        }
        let lock = FileSource::Inline(lock.pretty()?);
        contents.put(LOCK_PATH, Item::file(lock, 0o644))?;
        contents.complete_parents(|path| rootfs.is_folder(path));
        let packed = packing.pack(&contents, "registry data")?;
        self.cached += usize::from(packed.cached);
        self.packed += usize::from(!packed.cached);
        self.layers.push(packed.layer);
        self.note("container images", false);
        Ok(())
    }

    /// Writes config and manifest, with these labels besides. Nothing names them yet.
    pub(crate) fn finish(
        mut self,
        platform: &Platform,
        labels: &BTreeMap<String, String>,
        lock: &Lock,
        epoch: Option<i64>,
        store: &Store,
    ) -> Result<Member> {
        let version = env!("CARGO_PKG_VERSION");
        self.labels.insert(name::BUILDER_VERSION.to_owned(), version.to_owned());
        self.labels.extend(labels.clone());
        let created = epoch.map(rfc3339).transpose()?;
        let config = Config {
            created: created.clone(),
            author: self.author,
            platform: platform.clone(),
            config: ContainerConfig {
                env: self.config_env,
                labels: self.labels,
            },
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: self.layers.iter().map(|layer| layer.diff_id).collect(),
            },
            history: self.history,
        };
        let extension = Extension {
            build_client: BuildClient {
                sealer_version: format!("sealrs-{version}"),
                buildah_version: String::new(),
            },
            schema_version: "v1alpha1".to_owned(),
            kind: self.kind,
            applications: self.applications,
            env: self.env,
            launch: self.launch,
        };
        let container_images = listed(lock, self.container_images);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let mut annotations = BTreeMap::from([
            (name::EXTENSION.to_owned(), text(spec::canonical(&extension)?)),
            (
                name::CONTAINER_IMAGES.to_owned(),
                text(spec::canonical(&container_images)?),
            ),
        ]);
        if let Some(created) = created {
            annotations.insert(annotation::CREATED.to_owned(), created);
        }
        let layers: Vec<Descriptor> = self.layers.into_iter().map(|layer| layer.descriptor).collect();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: store.put(media_type::CONFIG, &spec::canonical(&config)?)?,
            layers: layers.clone(),
            annotations,
        };
        let mut descriptor = store.put(media_type::MANIFEST, &spec::canonical(&manifest)?)?;
        descriptor.platform = Some(platform.clone());
        Ok(Member {
            descriptor,
            layers,
            container_images: container_images.into_iter().map(|image| image.image).collect(),
            packed: self.packed,
            cached: self.cached,
        })
    }
}

fn rfc3339(epoch: i64) -> Result<String> {
    jiff::Timestamp::from_second(epoch)
        .map(|time| time.to_string())
        .map_err(|error| {
            Error::new(ErrorKind::Input, format!("SOURCE_DATE_EPOCH={epoch} is no date"))
                .because(error)
                .hint("give seconds since 1970, for instance `date +%s`")
        })
}
