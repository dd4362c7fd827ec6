//! FROM: nothing, an archive file, an image of the store, or one of a registry.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use sealrs_image::archive::Archive;
use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::copy::{BlobSink, copy, in_parallel};
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::layer::{PackedLayer, annotation};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress, Task};
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, RemoteSource};
use sealrs_image::spec::{self, Descriptor, Index, media_type};
use sealrs_image::store::Store;

use crate::image_list::{LOCK_PATH, Lock};
use crate::inside::Layers;
use crate::rootfs::Rootfs;

/// When FROM asks the registry although the store has the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Never when the store has it.
    #[default]
    Missing,
    /// Always.
    Always,
    /// Not even when the store lacks it.
    Never,
}

impl FromStr for PullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "missing" => Ok(Self::Missing),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(Error::new(ErrorKind::Input, format!("`{text}` is not a pull policy"))
                .hint("write missing, always or never")),
        }
    }
}

/// Finds the base of an image, and brings it into the store.
pub(crate) struct Finding<'b> {
    pub(crate) store: &'b Store,
    pub(crate) client: &'b Client,
    pub(crate) context: &'b Path,
    pub(crate) policy: PullPolicy,
    pub(crate) jobs: usize,
    pub(crate) progress: &'b dyn Progress,
}

impl Finding<'_> {
    /// The image that FROM's `name` means; `None` for `scratch`.
    pub(crate) fn find(&self, name: &str, platform: &Platform) -> Result<Option<ClusterImage>> {
        if name == "scratch" {
            return Ok(None);
        }
        let root = if name.starts_with(['/', '.']) || name.ends_with(".tar") {
            self.in_archive(name)
        } else {
            self.by_reference(name, platform)
        };
        let place = || format!("cannot use `{name}` as the base");
        let root = root.context(place)?;
        let image = ClusterImage::read(self.store, &root, platform).context(place)?;
        let own = &image.config.platform;
        if !platform.accepts(own) {
            return Err(Error::new(ErrorKind::NotFound, place())
                .because(Error::new(
                    ErrorKind::NotFound,
                    format!("it is for {own}, not for {platform}"),
                ))
                .hint(format!(
                    "build for {own}, or write `FROM --platform={own} {name}` if its files run on {platform}"
                )));
        }
        Ok(Some(image))
    }

    fn in_archive(&self, name: &str) -> Result<Descriptor> {
        let path = self.context.join(name);
        let archive = Archive::open(&path)?;
        let images = archive.images();
        let Some((_, root)) = images.first() else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{} holds no image", path.display()),
            ));
        };
        if images.iter().any(|(_, other)| other.digest != root.digest) {
            return Err(
                Error::new(ErrorKind::Input, format!("{} holds several images", path.display()))
                    .hint("load it with `sealrs load -i`, then write the image's name in FROM"),
            );
        }
        // Only what the new image is made of is wanted: the archive's names are not the store's business.
        copy(&archive, root, Box::new(BlobSink(self.store)), self.jobs, self.progress)?;
        Ok(root.clone())
    }

    fn by_reference(&self, name: &str, platform: &Platform) -> Result<Descriptor> {
        let reference: Reference = name.parse()?;
        let there = self.store.resolve(&reference)?;
        match (there, self.policy) {
            (Some(root), PullPolicy::Missing | PullPolicy::Never) => Ok(root),
            (None, PullPolicy::Never) => Err(Error::new(
                ErrorKind::NotFound,
                format!("the store has no image {}", reference.familiar()),
            )
            .hint("load it with `sealrs load -i FILE`, or allow pulling with `--pull missing`")),
            _ => self.pull(&reference, platform),
        }
    }

    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Descriptor> {
        self.progress.event(Event::Message(&format!("pulling {reference}")));
        let document = self.client.manifest(reference, &reference.selector())?;
        let root = document.descriptor;
        let mut member = root.clone();
        if media_type::is_index(&root.media_type) {
            let index: Index = spec::parse(&document.bytes, &format!("the index of {reference}"))?;
            member = index.select(platform).cloned().ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("{reference} has no platform {platform}"))
                    .hint(format!("it has: {}", index.platforms()))
            })?;
        }
        let source = RemoteSource {
            client: self.client.clone(),
            repository: reference.clone(),
        };
        copy(
            &source,
            &member,
            Box::new(BlobSink(self.store)),
            self.jobs,
            self.progress,
        )?;
        // The name stays with the index: a digest in it means the index. Other platforms are simply not there.
        self.store.put(&root.media_type, &document.bytes)?;
        self.store.tag(Some(reference), &root)?;
        Ok(root)
    }
}

/// What a base's layers unpack to. They are read when this is the first build on them.
pub(crate) fn rootfs(image: &ClusterImage, layers: Layers<'_>, jobs: usize, progress: &dyn Progress) -> Result<Rootfs> {
    let packed = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
    let mut packed: Vec<PackedLayer> = packed
        .map(|(descriptor, &diff_id)| PackedLayer {
            descriptor: descriptor.clone(),
            diff_id,
        })
        // Blobs of container images: nobody copies into their folders.
        .filter(|layer| !layer.descriptor.annotations.contains_key(annotation::BLOB))
        .collect();
    let listings = Mutex::new(BTreeMap::new());
    {
        let _task = Task::begin(progress, "looking into the base", None);
        in_parallel(packed.iter().enumerate().collect(), jobs, |(at, layer)| {
            let listing = layers.listing(layer)?;
            listings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(at, listing);
            Ok(())
        })
        .context(|| "cannot look into the base")?;
    }
    let mut rootfs = Rootfs::default();
    let listings = listings.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (layer, listing) in packed.drain(..).zip(listings.into_values()) {
        rootfs.put_layer(layer, listing, None);
    }
    Ok(rootfs)
}

/// The lock of the container images that a base holds. One that sealer built has none.
pub(crate) fn lock(rootfs: &Rootfs, layers: Layers<'_>) -> Result<Lock> {
    match rootfs.base_file(LOCK_PATH, layers)? {
        Some(bytes) => spec::parse(&bytes, "the base's images.lock"),
        None => Ok(Lock::default()),
    }
}
