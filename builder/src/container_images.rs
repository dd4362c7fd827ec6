//! Container images into the rootfs: resolves them, fetches each blob once, and lays them out as registry data.
//!
//! Each large blob becomes a layer of its own, written straight from the network into the store; documents, links
//! and small blobs share one layer. Both depend on the images alone, so equal images give equal layers anywhere.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sealrs_image::cluster_image::ContainerImage;
use sealrs_image::copy::in_parallel;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::finding::Finding;
use sealrs_image::images_lock::{Lock, Locked, Referrer};
use sealrs_image::layer::{self, Compression, PackedLayer};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress, Task};
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, RemoteSource};
use sealrs_image::source::{Source, document};
use sealrs_image::spec::{self, Config, Descriptor, Index, Manifest, media_type};
use sealrs_image::store::Store;
use sealrs_registry::layout;
use sealrs_registry::links::{StoredImage, link_files};
use sealrs_registry::name::{Repository, Tag};

use crate::asked::Asked;
use crate::cache::Cache;
use crate::image_list::Wanted;
use crate::image_sources::{self, ImageSource, InOrder, Local, Opening};
use crate::pack::{collected, lock};
use crate::referrers::{self, Carried, Place};

/// Blobs of at least so many bytes are layers of their own. Below it, a layer's own cost (a request, a file, a line
/// in the manifest) outweighs what sharing it saves.
pub(crate) const OWN_LAYER: u64 = 256 << 10;

/// The folder of the rootfs that the registry serves.
pub(crate) const REGISTRY: &str = "registry";

/// What fetching needs.
pub(crate) struct Fetching<'b> {
    pub(crate) client: &'b Client,
    pub(crate) store: &'b Store,
    pub(crate) cache: &'b Cache,
    /// What was resolved for other platforms: a tag means one image in all of a build.
    pub(crate) resolved: &'b Mutex<BTreeMap<Reference, Digest>>,
    pub(crate) platform: &'b Platform,
    /// Says which images may be missing.
    pub(crate) asked: &'b Asked,
    /// Places on this machine that are looked at first.
    pub(crate) sources: &'b [ImageSource],
    /// Which signatures and the like come along, if they do.
    pub(crate) referrers: Option<ReferrersOf>,
    /// Whether what was asked before is known.
    pub(crate) use_cache: bool,
    /// Requests and downloads at once.
    pub(crate) jobs: usize,
    pub(crate) progress: &'b dyn Progress,
}

/// Which referrers of images come along.
pub(crate) enum ReferrersOf {
    /// Those that there are.
    Images,
    /// Those of a lock.
    Lock(BTreeMap<Reference, Vec<Referrer>>),
}

/// Container images as parts of a ClusterImage.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// One large blob each, sorted by their paths.
    pub(crate) layers: Vec<PackedLayer>,
    /// Everything small, by its path in the rootfs.
    pub(crate) files: Files,
    /// The images that were fetched.
    pub(crate) own: Vec<Locked>,
    /// Those, and the base's.
    pub(crate) lock: Lock,
}

/// Small files by their paths in the rootfs.
type Files = BTreeMap<String, Vec<u8>>;

/// An image whose documents were read.
struct Resolved {
    wanted: Wanted,
    root: Descriptor,
    /// The documents, the root first.
    documents: Vec<(Descriptor, Vec<u8>)>,
    manifest: Manifest,
    manifest_digest: Digest,
    /// Which place on this machine had it; none is its registry.
    local: Option<usize>,
    /// What refers to it.
    referrers: Vec<Carried>,
}

impl Resolved {
    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifest.layers.iter().chain([&self.manifest.config])
    }

    /// Its own blobs, and those of what refers to it.
    fn all_blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs()
            .chain(self.referrers.iter().flat_map(|carried| &carried.blobs))
    }

    /// Its own documents, and those of what refers to it.
    fn all_documents(&self) -> impl Iterator<Item = &(Descriptor, Vec<u8>)> {
        let carried = self.referrers.iter().flat_map(|carried| &carried.documents);
        self.documents.iter().chain(carried)
    }

    fn referrers(&self) -> Vec<Referrer> {
        self.referrers.iter().map(|carried| carried.referrer.clone()).collect()
    }

    fn size(&self) -> u64 {
        let documents: u64 = self.documents.iter().map(|(descriptor, _)| descriptor.size).sum();
        documents + self.blobs().map(|blob| blob.size).sum::<u64>()
    }
}

impl Fetching<'_> {
    /// Fetches `wanted`. `base` are the images that lower layers hold already, `listed` what the base's annotation says
    /// of them: it names those of a base without a lock as well.
    pub(crate) fn fetch(&self, wanted: Vec<Wanted>, base: Lock, listed: &[ContainerImage]) -> Result<Fetched> {
        if wanted.is_empty() {
            return Ok(Fetched {
                lock: base,
                ..Fetched::default()
            });
        }
        let names: Vec<Reference> = wanted.iter().map(|wanted| wanted.reference.clone()).collect();
        let opening = Opening {
            store: self.store,
            platform: self.platform,
            wanted: &names,
            progress: self.progress,
        };
        let locals = image_sources::open(self.sources, &opening)?;
        let resolved = self.resolve_all(wanted, &locals)?;
        let mut files = BTreeMap::new();
        for (descriptor, bytes) in resolved.iter().flat_map(Resolved::all_documents) {
            files.insert(blob_path(&descriptor.digest), bytes.clone());
        }
        let (layers, small) = self.fetch_blobs(&resolved, &locals)?;
        let other_platform = |image: &Resolved| Some(image.wanted.failure(&self.check_platform(image, &small).err()?));
        refuse(resolved.iter().filter_map(other_platform).collect(), resolved.len())?;
        files.extend(small);

        let stored: Vec<StoredImage> = resolved.iter().map(stored).collect();
        for (path, content) in links(stored, &base, listed)? {
            files.insert(path, content);
        }
        let own = Lock {
            schema_version: 1,
            images: resolved.iter().map(|image| self.locked(image)).collect(),
        };
        Ok(Fetched {
            layers,
            files,
            own: own.images.clone(),
            lock: own.over(base),
        })
    }

    fn locked(&self, image: &Resolved) -> Locked {
        Locked {
            image: image.wanted.reference.clone(),
            digest: image.root.digest,
            media_type: image.root.media_type.clone(),
            platform: self.platform.clone(),
            manifest: image.manifest_digest,
            size: image.size(),
            asked_by: image.wanted.asked_by.clone(),
            referrers: image.referrers(),
        }
    }

    /// Resolves all, and says of each that fails why, and who asked for it.
    fn resolve_all(&self, wanted: Vec<Wanted>, locals: &[Local]) -> Result<Vec<Resolved>> {
        let count = wanted.len();
        let resolved = Mutex::new(Vec::new());
        let failed = Mutex::new(Vec::new());
        {
            let _task = Task::begin(self.progress, &format!("resolving {count} container images"), None);
            in_parallel(wanted, self.jobs, |wanted| {
                let image = self.resolve(&wanted, locals);
                match image.and_then(|image| self.with_referrers(image, locals)) {
                    Ok(image) => push(&resolved, image),
                    Err(error) if self.asked.allows(&wanted.reference) => {
                        let finding = wanted.failure(&error);
                        let warning = format!("allowed: {}: {}", finding.place(), finding.message);
                        self.progress.event(Event::Warning(&warning));
                    }
                    Err(error) => push(&failed, wanted.failure(&error)),
                }
                Ok(())
            })?;
        }
        refuse(collected(failed), count)?;
        let mut resolved = collected(resolved);
        resolved.sort_by(|a, b| a.wanted.reference.cmp(&b.wanted.reference));
        Ok(resolved)
    }

    /// Adds what refers to the image.
    fn with_referrers(&self, image: Resolved, locals: &[Local]) -> Result<Resolved> {
        let reference = image.wanted.reference.clone();
        self.referring(image, locals).map_err(|error| {
            let kind = error.kind();
            let what = format!("cannot take along what refers to {reference}");
            let leave = "leave signatures and the like behind with `--no-referrers`";
            let hint = match error.remedy() {
                Some(remedy) => format!("{remedy}; or {leave}"),
                None => leave.to_owned(),
            };
            Error::new(kind, what).because(error).hint(hint)
        })
    }

    /// Adds what refers to the image, looked for where it is itself; or, of a lock, what it says.
    fn referring(&self, mut image: Resolved, locals: &[Local]) -> Result<Resolved> {
        let Some(wanted) = &self.referrers else {
            return Ok(image);
        };
        let reference = &image.wanted.reference;
        let registry = RemoteSource {
            client: self.client.clone(),
            repository: reference.clone(),
        };
        let own = image.local.and_then(|number| locals.get(number));
        let mut found = match wanted {
            ReferrersOf::Lock(locked) => locked.get(reference).cloned().unwrap_or_default(),
            ReferrersOf::Images => {
                let subjects: Vec<Digest> = image.documents.iter().map(|(document, _)| document.digest).collect();
                match own {
                    Some(local) => referrers::find(&Place::Local(local, reference), &subjects, self.progress),
                    None => self.registry_referrers(reference, &subjects),
                }?
            }
        };
        // A lock may be read by people.
        found.sort();
        let before: Vec<&dyn Source> = own
            .map(Local::source)
            .into_iter()
            .chain([self.store as &dyn Source])
            .collect();
        let source = InOrder(before.into_iter().chain([&registry as &dyn Source]).collect());
        for referrer in found {
            let digest = referrer.digest;
            let known = own.map(|local| local.document(digest)).transpose()?.flatten();
            let root = match known {
                Some((descriptor, _)) => descriptor,
                None => self.document(reference, &digest.to_string())?.0,
            };
            let carried = Carried::read(&source, &root, referrer)?;
            for (descriptor, bytes) in &carried.documents {
                self.store.put(&descriptor.media_type, bytes)?;
            }
            image.referrers.push(carried);
        }
        Ok(image)
    }

    /// What a registry has that refers to an image. That of a pinned one is asked for once, as the image is.
    fn registry_referrers(&self, reference: &Reference, subjects: &[Digest]) -> Result<Vec<Referrer>> {
        let key = format!("referrers 1 {} {subjects:?}", reference.repository());
        let key = Digest::of(key.as_bytes());
        let is_pinned = reference.digest().is_some();
        if let Some(known) = self.cache.referrers(&key).filter(|_| is_pinned && self.use_cache) {
            return Ok(known);
        }
        if let Some(root) = subjects.first().filter(|_| self.client.has_mirrors(reference)) {
            self.client.manifest(reference, &root.to_string())?;
        }
        let home = Place::Registry(self.client, self.client.home(reference));
        let found = referrers::find(&home, subjects, self.progress)?;
        self.cache.remember_referrers(&key, &found)?;
        Ok(found)
    }

    /// Finds an image in the first place that has it for the platform.
    fn resolve(&self, wanted: &Wanted, locals: &[Local]) -> Result<Resolved> {
        let reference = wanted.reference.clone();
        let known = lock(self.resolved).get(&reference).copied();
        for (number, local) in locals.iter().enumerate() {
            let Some(digest) = known.or_else(|| local.named(&reference)) else {
                continue;
            };
            let read = |selector: &str| {
                let found = local.document(selector.parse()?)?;
                found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("it lacks {selector}")))
            };
            match self.resolve_in(wanted, &digest.to_string(), read) {
                Ok(image) if self.is_of_platform(&image, local)? => {
                    for (descriptor, bytes) in &image.documents {
                        self.store.put(&descriptor.media_type, bytes)?;
                    }
                    lock(self.resolved).insert(reference, image.root.digest);
                    return Ok(Resolved {
                        local: Some(number),
                        ..image
                    });
                }
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let selector = known.map_or_else(|| reference.selector(), |digest| digest.to_string());
        let image = self.resolve_in(wanted, &selector, |selector| self.document(&reference, selector));
        let image = image.map_err(|error| match locals.is_empty() {
            true => error,
            false => {
                let what = format!(
                    "no image source has {reference} for {}, and its registry has to be asked",
                    self.platform
                );
                Error::new(error.kind(), what).because(error)
            }
        })?;
        lock(self.resolved).insert(reference, image.root.digest);
        Ok(image)
    }

    /// Reads the documents of an image, by a tag or digest and then by digests.
    fn resolve_in(
        &self,
        wanted: &Wanted,
        selector: &str,
        read: impl Fn(&str) -> Result<(Descriptor, Vec<u8>)>,
    ) -> Result<Resolved> {
        let reference = &wanted.reference;
        let place = || format!("cannot resolve {reference}");
        let (root, bytes) = read(selector).context(place)?;
        let mut documents = vec![(root.clone(), bytes)];
        if media_type::is_index(&root.media_type) {
            let bytes = documents.first().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
            let index: Index = spec::parse(bytes, &format!("the index of {reference}"))?;
            let member = index.select(self.platform).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, place())
                    .because(Error::new(
                        ErrorKind::NotFound,
                        format!("it has no platform {}", self.platform),
                    ))
                    .hint(format!("it has: {}", index.platforms()))
            })?;
            documents.push(read(&member.digest.to_string()).context(place)?);
        }
        let Some((descriptor, bytes)) = documents.last() else {
            return Err(Error::new(ErrorKind::Internal, place()));
        };
        if !media_type::is_manifest(&descriptor.media_type) {
            return Err(Error::new(ErrorKind::Integrity, place()).because(Error::new(
                ErrorKind::Integrity,
                format!("its media type is `{}`, which is no image", descriptor.media_type),
            )));
        }
        let manifest: Manifest = spec::parse(bytes, &format!("the manifest of {reference}"))?;
        Ok(Resolved {
            manifest_digest: descriptor.digest,
            wanted: wanted.clone(),
            root,
            documents,
            manifest,
            local: None,
            referrers: Vec::new(),
        })
    }

    /// Whether what a place on this machine has is for the platform: it may have pulled another one.
    fn is_of_platform(&self, image: &Resolved, local: &Local) -> Result<bool> {
        let config = &image.manifest.config;
        match local.document(config.digest)? {
            Some((_, bytes)) => {
                let small = Files::from([(blob_path(&config.digest), bytes)]);
                Ok(self.check_platform(image, &small).is_ok())
            }
            None => Ok(false),
        }
    }

    /// An index says which platform a member is for; of an image without one only its config does.
    fn check_platform(&self, image: &Resolved, small: &Files) -> Result<()> {
        let config = &image.manifest.config;
        let of_image = config.media_type == media_type::CONFIG || config.media_type == media_type::DOCKER_CONFIG;
        let Some(bytes) = small.get(&blob_path(&config.digest)).filter(|_| of_image) else {
            return Ok(());
        };
        let found: Config = spec::parse(bytes, &format!("the config of {}", image.wanted.reference))?;
        if self.platform.accepts(&found.platform) {
            return Ok(());
        }
        let reference = &image.wanted.reference;
        let what = format!("{reference} is for {}, not for {}", found.platform, self.platform);
        Err(Error::new(ErrorKind::NotFound, what)
            .hint("name an image of that platform, or one whose index has it, in the image list"))
    }

    /// A document by tag or digest. What has a digest and was read before comes from the store.
    fn document(&self, reference: &Reference, selector: &str) -> Result<(Descriptor, Vec<u8>)> {
        if let Ok(digest) = selector.parse::<Digest>()
            && let Some(size) = self.store.size(&digest)
        {
            let mut descriptor = Descriptor::new("", digest, size);
            let bytes = document(self.store, &descriptor)?;
            if let Some(kind) = spec::media_type_of(&bytes) {
                descriptor.media_type = kind;
                return Ok((descriptor, bytes));
            }
        }
        let document = self.client.manifest(reference, selector)?;
        self.store.put(&document.descriptor.media_type, &document.bytes)?;
        Ok((document.descriptor, document.bytes))
    }

    /// Fetches every blob once, the largest first: large ones as layers, small ones as files.
    fn fetch_blobs(&self, images: &[Resolved], locals: &[Local]) -> Result<(Vec<PackedLayer>, Files)> {
        let mut blobs: BTreeMap<Digest, (&Descriptor, &Resolved)> = BTreeMap::new();
        for image in images {
            for blob in image.all_blobs() {
                blobs.entry(blob.digest).or_insert((blob, image));
            }
        }
        let mut blobs: Vec<_> = blobs.into_values().collect();
        blobs.sort_by_key(|(blob, _)| (std::cmp::Reverse(blob.size), blob.digest));
        let mut missing = Vec::new();
        let mut layers = Vec::new();
        let mut small = Vec::new();
        for (blob, image) in blobs {
            if let Some(layer) = self.layer_of(blob) {
                layers.push(layer);
            } else if blob.size < OWN_LAYER && self.store.has(&blob.digest) {
                small.push((blob_path(&blob.digest), document(self.store, blob)?));
            } else {
                missing.push((blob, image));
            }
        }
        let bytes = missing.iter().map(|(blob, _)| blob.size).sum();
        if missing.is_empty() {
            self.progress.event(Event::Message(&format!(
                "all blobs of {} container images are in the store",
                images.len()
            )));
        }
        let what = format!("pulling {} container images", images.len());
        let task = Task::begin(self.progress, &what, Some(bytes));
        let layers = Mutex::new(layers);
        let small = Mutex::new(small);
        in_parallel(missing, self.jobs, |(blob, image)| {
            let wanted = &image.wanted;
            let place = || {
                format!(
                    "cannot pull blob {} of {}, asked for by {}",
                    blob.digest,
                    wanted.reference,
                    wanted.asked_by.join(", ")
                )
            };
            let registry = RemoteSource {
                client: self.client.clone(),
                repository: wanted.reference.clone(),
            };
            let own = image.local.and_then(|number| locals.get(number)).map(Local::source);
            let source = InOrder(own.into_iter().chain([&registry as &dyn Source]).collect());
            let fetch = || {
                if blob.size >= OWN_LAYER {
                    push(&layers, self.fetch_layer(blob, &source, &task)?);
                } else {
                    self.store.fetch(blob, &source, &task)?;
                    push(&small, (blob_path(&blob.digest), document(self.store, blob)?));
                }
                Ok(())
            };
            // A mirror that broke off is given up the second time, and the next place goes on from there.
            let again =
                |error: &Error| error.kind() == ErrorKind::Network && self.client.has_mirrors(&wanted.reference);
            match fetch() {
                Err(error) if again(&error) => fetch(),
                done => done,
            }
            .context(place)
        })
        .map_err(|error| error.needing(bytes))?;
        let mut layers = collected(layers);
        layers.sort_by(|a, b| {
            let path = |layer: &PackedLayer| layer.descriptor.annotations.get(layer::annotation::FILE).cloned();
            path(a).cmp(&path(b))
        });
        Ok((layers, collected(small).into_iter().collect()))
    }

    /// The layer of a large blob, when the store has it.
    fn layer_of(&self, blob: &Descriptor) -> Option<PackedLayer> {
        if blob.size < OWN_LAYER {
            return None;
        }
        let layer = self.cache.layer(&layer_key(blob))?;
        self.store.has(&layer.descriptor.digest).then_some(layer)
    }

    fn fetch_layer(&self, blob: &Descriptor, source: &dyn Source, task: &Task<'_>) -> Result<PackedLayer> {
        let path = blob_path(&blob.digest);
        let envelope = layer::single_file(&path, 0o644, blob.size)?;
        let (digest, size) = self.store.fetch_enveloped(blob, &envelope, source, task)?;
        let mut layer = PackedLayer::new(Compression::None, digest, size, digest, size);
        let annotations = &mut layer.descriptor.annotations;
        annotations.insert(layer::annotation::FILE.to_owned(), path);
        annotations.insert(layer::annotation::BLOB.to_owned(), blob.digest.to_string());
        self.cache.remember_layer(&layer_key(blob), &layer)?;
        Ok(layer)
    }
}

/// Refuses `failed` of `count` images.
fn refuse(mut failed: Vec<Finding>, count: usize) -> Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    failed.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let what = format!("{} of {count} container images can't be had", failed.len());
    Err(Error::together(what, failed))
}

/// The link files of the registry, by their paths in the rootfs. The images of the base are linked anew, because what
/// is added decides which of them answer to a name without a host; a link of the base that no longer holds is
/// whited out (layer.md).
fn links(stored: Vec<StoredImage>, base: &Lock, listed: &[ContainerImage]) -> Result<Files> {
    let unlocked = unlocked(base, listed);
    let below = inherited(base);
    let old = link_files_beside(&unlocked, &below)?;
    linked(&over(below, stored), &unlocked, vec![old])
}

/// The link files of several ClusterImages in one, by their paths in the rootfs: those of later ones over those of earlier
/// ones. Each has a lock, and perhaps images that are in none.
pub(crate) fn merged_links(parts: &[(&Lock, &[Reference])]) -> Result<Files> {
    let mut stored = Vec::new();
    let mut old = Vec::new();
    for (lock, unlocked) in parts {
        let own = inherited(lock);
        old.push(link_files_beside(unlocked, &own)?);
        stored = over(stored, own);
    }
    let unlocked: Vec<Reference> = parts
        .iter()
        .flat_map(|(_, unlocked)| unlocked.iter().cloned())
        .collect();
    linked(&stored, &unlocked, old)
}

/// Where a registry keeps what the name of an image without its host means.
pub(crate) fn plain_tag_link(reference: &Reference) -> Result<Option<String>> {
    let Some(tag) = reference.tag() else {
        return Ok(None);
    };
    let (repository, tag): (Repository, Tag) = (reference.path().parse()?, tag.parse()?);
    Ok(Some(format!("{REGISTRY}/{}", layout::tag_link(&repository, &tag))))
}

/// The images of a lock. The links of their layers are there.
fn inherited(lock: &Lock) -> Vec<StoredImage> {
    let inherited = lock.images.iter().map(|locked| StoredImage {
        reference: locked.image.clone(),
        root: locked.digest,
        manifests: vec![locked.digest, locked.manifest],
        layers: Vec::new(),
        referrers: locked.referrers.clone(),
    });
    inherited.collect()
}

/// Images over others. Only a tag can be given to another image; the one that had it goes on answering to its digest.
fn over(mut below: Vec<StoredImage>, above: Vec<StoredImage>) -> Vec<StoredImage> {
    let name = |image: &StoredImage| (image.reference.repository(), image.reference.tag().map(str::to_owned));
    let replaced: Vec<_> = above.iter().map(name).collect();
    for image in &mut below {
        if image.reference.tag().is_some() && replaced.contains(&name(image)) {
            let digest = image.reference.digest().unwrap_or(image.root);
            image.reference = image.reference.with_digest(digest);
        }
    }
    below.extend(above);
    below
}

/// The links of `stored`, and whiteouts for those of `old` that are not among them.
fn linked(stored: &[StoredImage], unlocked: &[Reference], old: Vec<BTreeMap<String, String>>) -> Result<Files> {
    let now = link_files_beside(unlocked, stored)?;
    let mut files = BTreeMap::new();
    for path in old.into_iter().flat_map(BTreeMap::into_keys) {
        if !now.contains_key(&path) {
            let (folder, file) = path.rsplit_once('/').unwrap_or(("", &path));
            files.insert(format!("{REGISTRY}/{folder}/.wh.{file}"), Vec::new());
        }
    }
    for (path, content) in now {
        files.insert(format!("{REGISTRY}/{path}"), content.into_bytes());
    }
    Ok(files)
}

/// The link files of images that lie beside others which sealer stored. Those answer to their names without a host
/// only, so another host's image may not take such a name.
fn link_files_beside(unlocked: &[Reference], stored: &[StoredImage]) -> Result<BTreeMap<String, String>> {
    let mut files = link_files(stored)?;
    for taken in unlocked {
        let other =
            |image: &StoredImage| image.reference.path() == taken.path() && image.reference.host() != taken.host();
        if stored.iter().any(other) {
            let repository = format!("{}/{}/", layout::repositories(), taken.path());
            files.retain(|path, _| !path.strip_prefix(&repository).is_some_and(|rest| rest.starts_with('_')));
        }
    }
    Ok(files)
}

/// The images of a base that its annotation names and its lock does not: sealer and older tools write no lock.
pub(crate) fn unlocked(base: &Lock, listed: &[ContainerImage]) -> Vec<Reference> {
    let listed = listed.iter().filter_map(|image| image.image.parse::<Reference>().ok());
    listed
        .filter(|reference| base.images.iter().all(|locked| locked.image != *reference))
        .collect()
}

/// What the annotation of a ClusterImage says of its container images: those of the lock, and those of the base that
/// are in no lock, as its annotation has them.
pub(crate) fn listed(lock: &Lock, base: Vec<ContainerImage>) -> Vec<ContainerImage> {
    let is_locked = |image: &ContainerImage| {
        let reference = image.image.parse::<Reference>().ok();
        reference.is_some_and(|reference| lock.images.iter().any(|locked| locked.image == reference))
    };
    let own = lock.images.iter().map(|locked| ContainerImage {
        image: locked.image.to_string(),
        app_name: String::new(),
        platform: Some(locked.platform.clone()),
    });
    own.chain(base.into_iter().filter(|image| !is_locked(image))).collect()
}

pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("{REGISTRY}/{}", layout::blob_data(digest))
}

/// The layer depends on the blob alone, so the blob's digest is the key.
fn layer_key(blob: &Descriptor) -> Digest {
    Digest::of(format!("blob layer 2 {} {}", blob.digest, blob.size).as_bytes())
}

fn stored(image: &Resolved) -> StoredImage {
    StoredImage {
        reference: image.wanted.reference.clone(),
        root: image.root.digest,
        manifests: image.all_documents().map(|(descriptor, _)| descriptor.digest).collect(),
        layers: image.all_blobs().map(|blob| blob.digest).collect(),
        referrers: image.referrers(),
    }
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    lock(list).push(item);
}
