//! The build: a Kubefile's steps, one after another, to layers, and the layers to a ClusterImage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use sealrs_image::cluster_image::{
    Application, BuildClient, ClusterImage, ContainerImage, Extension, ImageKind, Launch, name,
};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{Compression, PackedLayer};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress};
use sealrs_image::pull::PullPolicy;
use sealrs_image::reference::Reference;
use sealrs_image::remote::Client;
use sealrs_image::spec::{
    self, Config, ContainerConfig, Descriptor, History, Manifest, RootFs, annotation, media_type,
};
use sealrs_image::store::Store;

use crate::apps;
use crate::asked::Asked;
use crate::base::{self, Finding};
use crate::cache::Cache;
use crate::check;
use crate::container_images::{Fetching, listed};
use crate::contents::{Contents, FileSource, Item};
use crate::context::Context;
use crate::image_list::{self, LIST_PATHS, LOCK_PATH, Lock};
use crate::kubefile::{Action, App, AppKind, BaseImage, Diagnostic, Kubefile, Span, Step, runtime};
use crate::pack::{Packed, Packing};
use crate::rootfs::Rootfs;
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
    /// The platform to build for.
    pub platform: Platform,
    /// Values of ARG.
    pub build_args: BTreeMap<String, String>,
    /// More labels.
    pub labels: BTreeMap<String, String>,
    /// What the image installs.
    pub kind: ImageKind,
    /// More lists of container images.
    pub image_lists: Vec<PathBuf>,
    /// Lists of container images that are not wanted.
    pub ignored_image_lists: Vec<PathBuf>,
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

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image's manifest.
    pub descriptor: Descriptor,
    /// Bytes of all packed layers.
    pub size: u64,
    /// Layers that were packed now.
    pub packed: usize,
    /// Layers that the cache had.
    pub cached: usize,
    /// Container images inside.
    pub container_images: usize,
}

/// Builds a ClusterImage into `store`, under its name.
///
/// # Errors
/// [`ErrorKind::Input`] for what is wrong in the Kubefile, the context or a list; what registries and the disk meet.
pub fn build(
    options: &Options,
    root: &std::path::Path,
    store: &Store,
    client: &Client,
    progress: &dyn Progress,
) -> Result<Built> {
    let _lock = store.share()?;
    let context = Context::open(&options.context)?;
    let kubefile = read_kubefile(options)?;
    let cache = Cache::open(root)?;
    let finding = Finding {
        store,
        client,
        cache: &cache,
        context: context.root(),
        platform: &options.platform,
        policy: options.pull,
        jobs: options.jobs,
        progress,
    };
    let sources = check::check(&kubefile, &context, &finding)?;
    for warning in kubefile.warnings().texts() {
        progress.event(Event::Warning(&warning));
    }
    for (message, hint) in options
        .labels
        .iter()
        .filter_map(|(label, value)| runtime::doubt(label, value))
    {
        progress.event(Event::Warning(&format!("--label: {message}; {hint}")));
    }
    let asked = Asked::read(options)?;
    let known = cache.files(context.root());
    let epoch = options.epoch.unwrap_or(0);
    let packing = Packing {
        store,
        cache: &cache,
        known: &known,
        compression: options.compression,
        mtime: u64::try_from(epoch).unwrap_or(0),
        use_cache: options.use_cache,
        progress,
    };
    let mut draft = Draft::default();
    let mut rootfs = Rootfs::default();
    for (step, found) in kubefile.steps().iter().zip(&sources) {
        // A failure shows the line of the Kubefile that it is about.
        let at_step = |error: Error| kubefile.error(vec![step.failure(error)]);
        if let Action::From(from) = &step.action {
            let mut inherited = BTreeSet::new();
            if let BaseImage::Image { name, platform } = from {
                let base = finding.find(name, platform.as_ref()).map_err(at_step)?;
                rootfs = base::rootfs(&base, packing.layers(), options.jobs, progress).map_err(at_step)?;
                inherited = check::app_names(&base);
                draft.start_from(base);
            }
            kubefile.check(kubefile.check_apps(&inherited))?;
            continue;
        }
        let mut transfer = Transfer {
            packing: &packing,
            context: &context,
            client,
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
    draft.check_apps(&kubefile)?;
    known.save()?;

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
    let base_lock = base::lock(&rootfs, packing.layers())?;
    let lock = if options.fetch_images {
        let fetching = Fetching {
            client,
            store,
            cache: &cache,
            platform: &options.platform,
            jobs: options.jobs,
            progress,
        };
        let fetched = fetching.fetch(asked.join(lists, progress), base_lock, &draft.container_images)?;
        draft.add_images(fetched.layers, fetched.files, &fetched.lock, &packing, &rootfs)?;
        fetched.lock
    } else {
        base_lock
    };
    finish(options, draft, &lock, store)
}

fn read_kubefile(options: &Options) -> Result<Kubefile> {
    let path = options.kubefile.display().to_string();
    let bytes = fs::read(&options.kubefile).or_read(|| format!("cannot read the Kubefile {path}"));
    let bytes =
        bytes.map_err(|error| error.hint("name it with `-f`, for instance `sealrs build -f Kubefile -t NAME .`"))?;
    Ok(Kubefile::read(&bytes, &path, &options.build_args, &options.platform))
}

/// An image as far as it has come.
#[derive(Debug, Default)]
struct Draft {
    layers: Vec<PackedLayer>,
    history: Vec<History>,
    labels: BTreeMap<String, String>,
    author: Option<String>,
    /// The variables of this Kubefile's ENV.
    env: BTreeMap<String, String>,
    config_env: Vec<String>,
    applications: Vec<Application>,
    /// Where this Kubefile defines its apps.
    app_spans: BTreeMap<String, Span>,
    launch: Launch,
    /// What the base says that it holds.
    container_images: Vec<ContainerImage>,
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

    fn add_images(
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
        let lock = FileSource::Inline(pretty(lock)?);
        contents.put(LOCK_PATH, Item::file(lock, 0o644))?;
        contents.complete_parents(|path| rootfs.is_folder(path));
        let packed = packing.pack(&contents, "registry data")?;
        self.cached += usize::from(packed.cached);
        self.packed += usize::from(!packed.cached);
        self.layers.push(packed.layer);
        self.note("container images", false);
        Ok(())
    }
}

fn pretty(lock: &Lock) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(lock)
        .map_err(|error| Error::new(ErrorKind::Internal, "cannot write images.lock").because(error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes config and manifest, and names the image.
fn finish(options: &Options, mut draft: Draft, lock: &Lock, store: &Store) -> Result<Built> {
    let version = env!("CARGO_PKG_VERSION");
    draft
        .labels
        .insert(name::BUILDER_VERSION.to_owned(), version.to_owned());
    draft.labels.extend(options.labels.clone());
    let created = match options.epoch {
        Some(epoch) => Some(rfc3339(epoch)?),
        None => None,
    };
    let config = Config {
        created: created.clone(),
        author: draft.author,
        platform: options.platform.clone(),
        config: ContainerConfig {
            env: draft.config_env,
            labels: draft.labels,
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: draft.layers.iter().map(|layer| layer.diff_id).collect(),
        },
        history: draft.history,
    };
    let extension = Extension {
        build_client: BuildClient {
            sealer_version: format!("sealrs-{version}"),
            buildah_version: String::new(),
        },
        schema_version: "v1alpha1".to_owned(),
        kind: options.kind,
        applications: draft.applications,
        env: draft.env,
        launch: draft.launch,
    };
    let container_images = listed(lock, draft.container_images);
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
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: store.put(media_type::CONFIG, &spec::canonical(&config)?)?,
        layers: draft.layers.into_iter().map(|layer| layer.descriptor).collect(),
        annotations,
    };
    let size = manifest.layers.iter().map(|layer| layer.size).sum();
    let mut descriptor = store.put(media_type::MANIFEST, &spec::canonical(&manifest)?)?;
    descriptor.platform = Some(options.platform.clone());
    let mut entry = descriptor.clone();
    if let Some(now) = &options.now {
        entry.annotations.insert(annotation::CREATED.to_owned(), now.clone());
    }
    store.tag(Some(&options.name), &entry)?;
    Ok(Built {
        descriptor,
        size,
        packed: draft.packed,
        cached: draft.cached,
        container_images: container_images.len(),
    })
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
