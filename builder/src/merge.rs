//! Several ClusterImages become one: layers in order, later ones over earlier ones; the container images of all behind one
//! set of links and in one lock; apps, labels, variables and launches joined.
//!
//! Nothing is guessed: where two images say different things that can't both hold (runtimes, apps of one name, tags,
//! variables), the merge fails and names both. Only an image that is built on the other one has the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sealrs_image::cluster_image::{Application, ClusterImage, ContainerImage, ImageKind};
use sealrs_image::digest::Digest;
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::images_lock::{LOCK_PATH, Lock};
use sealrs_image::layer::{Compression, PackedLayer, annotation};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress};
use sealrs_image::pull::PullPolicy;
use sealrs_image::reference::Reference;
use sealrs_image::remote::Client;
use sealrs_image::spec::{Descriptor, History};
use sealrs_image::store::Store;

use crate::apps;
use crate::base::{self, Finding};
use crate::build::Draft;
use crate::cache::Cache;
use crate::container_images::{merged_links, plain_tag_link, unlocked};
use crate::image_list::LIST_PATHS;
use crate::inside::{Listed, Listing};
use crate::pack::{Packing, Seen};
use crate::publish::{Built, Member, distinct, publish};
use crate::rootfs::Rootfs;

/// The labels that tell what an image is for. Others are free words, of which the last one counts.
const BINDING_LABELS: [&str; 2] = ["cluster.alpha.sealer.io/", "app.alpha.sealer.io/"];

/// What to merge, and how.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// Names of images in the store or in a registry, or archive files: the lowest first.
    pub images: Vec<String>,
    /// The name of the result.
    pub name: Reference,
    /// Its platforms: one, or several for an index of them.
    pub platforms: Vec<Platform>,
    /// Requests and downloads at once.
    pub jobs: usize,
    /// Seconds since 1970 for all time stamps (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// When the merge happens, RFC 3339: noted beside the image, not in it.
    pub now: Option<String>,
}

/// Merges ClusterImages of the store, of registries or of archives into one, under its name.
///
/// # Errors
/// [`ErrorKind::Conflict`] when the images contradict each other; [`ErrorKind::NotFound`] when one is not there, or not for
/// a platform. Nothing gets the name then.
pub fn merge(
    options: &MergeOptions,
    root: &Path,
    store: &Store,
    client: &Client,
    progress: &dyn Progress,
) -> Result<Built> {
    options.name.check_givable()?;
    let _lock = store.share()?;
    let platforms = distinct(&options.platforms)?;
    let cache = Cache::open(root)?;
    let finding = Finding {
        store,
        client,
        cache: &cache,
        context: Path::new("."),
        policy: PullPolicy::Missing,
        jobs: options.jobs,
        progress,
    };
    let cannot = |name: &str| format!("cannot merge {name}");
    let mut roots = Vec::new();
    for name in &options.images {
        let root = finding.bring(name, platforms).context(|| cannot(name))?;
        // Twice the same is the same.
        if roots
            .iter()
            .all(|(_, other): &(&str, Descriptor)| other.digest != root.digest)
        {
            roots.push((name.as_str(), root));
        }
    }
    let known = cache.files(Path::new(""));
    let mut members = Vec::new();
    for platform in platforms {
        let mut images = Vec::new();
        for (name, root) in &roots {
            images.push((*name, finding.read(root, platform).context(|| cannot(name))?));
        }
        let packing = Packing {
            store,
            cache: &cache,
            known: &known,
            seen: &Seen::default(),
            compression: compression(&images),
            mtime: u64::try_from(options.epoch.unwrap_or(0)).unwrap_or(0),
            use_cache: true,
            progress,
        };
        let mut parts = Vec::new();
        for (name, image) in images {
            parts.push(Part::read(name, image, &packing, options.jobs).context(|| cannot(name))?);
        }
        let member = Merging::default()
            .merge(&parts, &packing, platform, options.epoch)
            .map_err(|error| match platforms.len() {
                1 => error,
                _ => Error::new(error.kind(), format!("cannot merge for {platform}")).because(error),
            })?;
        members.push(member);
    }
    publish(&options.name, options.now.as_deref(), &members, store)
}

/// What is written anew is packed so that whoever reads the images can read it.
fn compression(images: &[(&str, ClusterImage)]) -> Compression {
    let mut layers = images.iter().flat_map(|(_, image)| &image.manifest.layers);
    match layers.any(|layer| Compression::of_layer(&layer.media_type).is_ok_and(|kind| kind == Compression::Gzip)) {
        true => Compression::Gzip,
        false => Compression::Zstd,
    }
}

/// One of the images.
struct Part<'o> {
    name: &'o str,
    image: ClusterImage,
    /// What it unpacks to.
    tree: Rootfs,
    lock: Lock,
    /// Its container images that are in no lock.
    unlocked: Vec<Reference>,
}

impl<'o> Part<'o> {
    fn read(name: &'o str, image: ClusterImage, packing: &Packing<'_>, jobs: usize) -> Result<Self> {
        let tree = base::rootfs(&image, packing.layers(), jobs, packing.progress)?;
        let lock = base::lock(&tree, packing.layers())?;
        let unlocked = unlocked(&lock, &image.container_images);
        Ok(Self {
            name,
            image,
            tree,
            lock,
            unlocked,
        })
    }

    fn layers(&self) -> impl Iterator<Item = PackedLayer> {
        let layers = self
            .image
            .manifest
            .layers
            .iter()
            .zip(&self.image.config.rootfs.diff_ids);
        layers.map(|(descriptor, &diff_id)| PackedLayer {
            descriptor: descriptor.clone(),
            diff_id,
        })
    }

    /// How many of its lowest layers are those of `other`.
    fn shared(&self, other: &Self) -> usize {
        let layers = self.image.manifest.layers.iter().zip(&other.image.manifest.layers);
        layers.take_while(|(own, other)| own.digest == other.digest).count()
    }

    /// Whether it was made from `other`, and so knows better.
    fn is_built_on(&self, other: &Self) -> bool {
        let all = other.image.manifest.layers.len();
        all > 0 && self.shared(other) == all
    }
}

/// What one image said under a key, until another one says something else.
struct Said<'m, V>(BTreeMap<String, (V, &'m Part<'m>)>);

impl<V> Default for Said<'_, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'m, V: PartialEq> Said<'m, V> {
    /// Takes in what `part` says. `agree` judges what is not equal.
    fn say(
        &mut self,
        key: &str,
        value: V,
        part: &'m Part<'m>,
        agree: impl FnOnce(&V, &'m Part<'m>) -> Result<()>,
    ) -> Result<()> {
        if let Some((other, by)) = self.0.get(key)
            && *other != value
            && !part.is_built_on(by)
        {
            agree(other, by)?;
        }
        self.0.insert(key.to_owned(), (value, part));
        Ok(())
    }
}

/// The image as far as it has come.
#[derive(Default)]
struct Merging<'m> {
    draft: Draft,
    tree: Rootfs,
    labels: Said<'m, String>,
    env: Said<'m, String>,
    config_env: Said<'m, String>,
    apps: Said<'m, Application>,
    tags: Said<'m, Digest>,
}

impl<'m> Merging<'m> {
    fn merge(
        mut self,
        parts: &'m [Part<'m>],
        packing: &Packing<'_>,
        platform: &Platform,
        epoch: Option<i64>,
    ) -> Result<Member> {
        for (at, part) in parts.iter().enumerate() {
            let (below, _) = parts.split_at(at);
            self.words(part, packing)?;
            check_unlocked(part, below, packing)?;
            self.stack(part, below, packing)?;
        }
        if let (false, false) = (
            self.draft.launch.cmds.is_empty(),
            self.draft.launch.app_names.is_empty(),
        ) {
            let by = |is: fn(&Part<'_>) -> bool| parts.iter().find(|part| is(part)).map_or("", |part| part.name);
            let cmds = by(|part| !part.image.extension.launch.cmds.is_empty());
            let apps = by(|part| !part.image.extension.launch.app_names.is_empty());
            return Err(conflict(format!(
                "{cmds} runs commands at its end (CMDS), and {apps} launches apps (LAUNCH)"
            ))
            .hint(format!("build {cmds} with an APP, APPCMDS and LAUNCH instead of CMDS")));
        }
        let lock = parts
            .iter()
            .fold(Lock::default(), |below, part| part.lock.clone().over(below));
        if parts.iter().filter(|part| !part.lock.images.is_empty()).count() > 1 {
            let parts: Vec<_> = parts
                .iter()
                .map(|part| (&part.lock, part.unlocked.as_slice()))
                .collect();
            let files = merged_links(&parts)?;
            self.draft.add_images(Vec::new(), files, &lock, packing, &self.tree)?;
        }
        let Self { mut draft, labels, .. } = self;
        draft.labels = labels.0.into_iter().map(|(key, (value, _))| (key, value)).collect();
        draft.env = self.env.0.into_iter().map(|(key, (value, _))| (key, value)).collect();
        let config_env = self.config_env.0.into_iter();
        draft.config_env = config_env.map(|(key, (value, _))| format!("{key}={value}")).collect();
        draft.finish(platform, &BTreeMap::new(), &lock, epoch, packing.store)
    }

    /// What the image says about itself, beside its files.
    fn words(&mut self, part: &'m Part<'m>, packing: &Packing<'_>) -> Result<()> {
        let extension = &part.image.extension;
        let is_first = self.draft.layers.is_empty() && self.labels.0.is_empty();
        if is_first || extension.kind == ImageKind::KubeInstaller {
            self.draft.kind = extension.kind;
        }
        self.draft.author = self.draft.author.take().or_else(|| part.image.config.author.clone());
        for (key, value) in part.image.labels() {
            let is_binding = BINDING_LABELS.iter().any(|prefix| key.starts_with(prefix));
            self.labels
                .say(key, value.clone(), part, |other, by| match is_binding {
                    false => Ok(()),
                    true => Err(conflict(format!(
                        "{} has the label {key}={other}, and {} has {key}={value}",
                        by.name, part.name
                    ))
                    .hint("merge images that are for the same, or build one of them without that label")),
                })?;
        }
        for (key, value) in &extension.env {
            self.env.say(key, value.clone(), part, two_values(key, part))?;
        }
        for entry in &part.image.config.config.env {
            let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
            self.config_env
                .say(key, value.to_owned(), part, two_values(key, part))?;
        }
        for app in &extension.applications {
            self.app(app, part, packing)?;
        }
        for locked in &part.lock.images {
            let Some(tag) = locked.image.tag() else { continue };
            let name = format!("{}:{tag}", locked.image.repository());
            let digest = locked.image.digest().unwrap_or(locked.digest);
            self.tags.say(&name, digest, part, |other, by| {
                Err(conflict(format!(
                    "{name} is {other} in {}, and {digest} in {}",
                    by.name, part.name
                ))
                .hint("build one of them again so that both hold the same image, or give the two images two tags"))
            })?;
        }
        let listed = part.image.container_images.iter().cloned();
        let known = |image: &ContainerImage, all: &[ContainerImage]| all.iter().any(|other| other.image == image.image);
        for image in listed {
            if !known(&image, &self.draft.container_images) {
                self.draft.container_images.push(image);
            }
        }
        let launch = &mut self.draft.launch;
        launch.cmds.extend(extension.launch.cmds.iter().cloned());
        for app in &extension.launch.app_names {
            if !launch.app_names.contains(app) {
                launch.app_names.push(app.clone());
            }
        }
        Ok(())
    }

    /// An app of the same name has to be the same app.
    fn app(&mut self, app: &Application, part: &'m Part<'m>, packing: &Packing<'_>) -> Result<()> {
        let differ = |by: &Part<'_>| {
            conflict(format!(
                "{} and {} both have an app `{}`, and they are not the same",
                by.name, part.name, app.name
            ))
            .hint("build one of them with another name for its app")
        };
        if let Some((_, by)) = self.apps.0.get(&app.name).filter(|(other, _)| other == app) {
            let folder = apps::folder(&app.name);
            if !part.is_built_on(by) && !part.tree.is_alike(&by.tree, &folder, packing.layers()) {
                return Err(differ(by));
            }
        }
        self.apps.say(&app.name, app.clone(), part, |_, by| Err(differ(by)))?;
        let applications = &mut self.draft.applications;
        match applications.iter_mut().find(|known| known.name == app.name) {
            Some(known) => known.clone_from(app),
            None => applications.push(app.clone()),
        }
        Ok(())
    }

    /// Puts the layers of an image on top. Those that it shares with an image below from the ground up are there, and so is
    /// what was changed on top of them since.
    fn stack(&mut self, part: &Part<'_>, below: &[Part<'_>], packing: &Packing<'_>) -> Result<()> {
        let shared = below.iter().map(|other| part.shared(other)).max().unwrap_or(0);
        let is_new = |digest: &Digest| self.draft.layers.iter().all(|layer| layer.descriptor.digest != *digest);
        let replaced = self.tree.replaced_by(&part.tree, is_new);
        let replaced: Vec<&String> = replaced.iter().filter(|path| is_own_business(path)).collect();
        if let ([first, ..], [_, ..]) = (replaced.as_slice(), below) {
            let what = match replaced.len() {
                1 => format!("{} replaces `{first}`", part.name),
                count => format!("{} replaces `{first}` and {} more files", part.name, count - 1),
            };
            packing
                .progress
                .event(Event::Warning(&format!("{what} of what it is merged onto")));
        }
        let mut own = Rootfs::default();
        let mut kept = BTreeSet::new();
        for (at, layer) in part.layers().enumerate() {
            let digest = layer.descriptor.digest;
            let is_there = self.draft.layers.iter().any(|other| other.descriptor.digest == digest);
            // The listing of a container image's blob is its name: that it is not taken away is all that matters.
            let blob = layer.descriptor.annotations.get(annotation::FILE);
            let blob = blob.filter(|_| layer.descriptor.annotations.contains_key(annotation::BLOB));
            let listing = match blob {
                Some(path) => Listing(vec![(path.clone(), Listed::File)]),
                None => packing.layers().listing(&layer)?,
            };
            // A layer that is there may be covered by now. Then it comes once more.
            let is_shown = is_there && self.tree.shows(&digest, &listing);
            if at >= shared && !is_shown {
                let mut lost = self.tree.lost(&listing.without(is_hidden_link)).into_iter();
                if let Some(lost) = lost.find(|path| !own.has(path)) {
                    let what = format!("{} would remove `{lost}`, which is of another image", part.name);
                    return Err(conflict(what).hint(
                        "build it anew so that it neither deletes that path nor puts a file where others have a folder",
                    ));
                }
                self.tree.put_layer(layer.clone(), listing.clone(), None);
                self.draft.layers.push(layer.clone());
                kept.insert(at);
            }
            own.put_layer(layer, listing, None);
        }
        self.draft.history.extend(history(part, shared, &kept));
        Ok(())
    }
}

fn conflict(what: String) -> Error {
    Error::new(ErrorKind::Conflict, what)
}

fn two_values<'m>(key: &str, part: &'m Part<'m>) -> impl FnOnce(&String, &'m Part<'m>) -> Result<()> {
    // The values may be secrets.
    let what = format!("the variable {key} has another value in {}", part.name);
    move |_, by| {
        Err(conflict(format!("{what} than in {}", by.name))
            .hint("build one of them with another name for it, or as a variable of one app (APPENV)"))
    }
}

/// Whether a file that an image replaces is worth a word: lists and locks are everybody's, links are written anew.
fn is_own_business(path: &str) -> bool {
    !is_link(path) && path != LOCK_PATH && !LIST_PATHS.contains(&path)
}

/// A file of the registry's data, which the merge puts in order itself.
fn is_link(path: &str) -> bool {
    path.starts_with("registry/docker/registry/v2/")
}

/// A link of the registry that an image has no more. The merge decides which of them hold.
fn is_hidden_link(path: &str) -> bool {
    is_link(path) && path.ends_with("/.wh.link")
}

/// The history of the layers that were kept.
fn history(part: &Part<'_>, shared: usize, kept: &BTreeSet<usize>) -> Vec<History> {
    let history = &part.image.config.history;
    let layers = part.image.manifest.layers.len();
    if history.iter().filter(|entry| !entry.empty_layer).count() != layers {
        let words = History {
            created_by: Some(format!("merged from {}", part.name)),
            ..History::default()
        };
        return vec![words; kept.len()];
    }
    let mut at = 0;
    let is_kept = |entry: &&History| {
        let is_kept = if entry.empty_layer {
            at >= shared
        } else {
            kept.contains(&at)
        };
        at += usize::from(!entry.empty_layer);
        is_kept
    };
    history.iter().filter(is_kept).cloned().collect()
}

/// Images that sealer stored are known by their names alone and answer to their paths without a host: nobody else may take
/// such a path, and a tag that several have has to be the same image.
fn check_unlocked(part: &Part<'_>, below: &[Part<'_>], packing: &Packing<'_>) -> Result<()> {
    let all = |part: &Part<'_>| -> Vec<Reference> {
        let locked = part.lock.images.iter().map(|locked| locked.image.clone());
        locked.chain(part.unlocked.iter().cloned()).collect()
    };
    for other in below.iter().filter(|other| !part.is_built_on(other)) {
        let pairs = [(part, other), (other, part)];
        for (sealers, rest) in pairs {
            for (one, two) in sealers
                .unlocked
                .iter()
                .flat_map(|one| all(rest).into_iter().map(move |two| (one, two)))
            {
                if one.path() != two.path() || (one.host() == two.host() && one.tag() != two.tag()) {
                    continue;
                }
                let link = |part: &Part<'_>| match plain_tag_link(one)? {
                    Some(path) => part.tree.base_file(&path, packing.layers()),
                    None => Ok(None),
                };
                if one.host() == two.host()
                    && link(sealers)?.is_some_and(|own| link(rest).is_ok_and(|other| other == Some(own)))
                {
                    continue;
                }
                return Err(conflict(format!(
                    "{one} in {} and {two} in {} can't answer to one name in a registry",
                    sealers.name, rest.name
                ))
                .hint(format!(
                    "build {} anew with sealrs, which keeps names whole",
                    sealers.name
                )));
            }
        }
    }
    Ok(())
}
