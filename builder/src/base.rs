//! FROM: nothing, an archive file, an image of the store, or one of a registry.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sealrs_image::archive::Archive;
use sealrs_image::cluster_image::{ClusterImage, select};
use sealrs_image::copy::{BlobSink, copy, in_parallel};
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::graph::blobs;
use sealrs_image::images_lock::{LOCK_PATH, Lock};
use sealrs_image::layer::{PackedLayer, annotation};
use sealrs_image::locate::near;
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Progress, Task};
use sealrs_image::pull::{PullPolicy, Puller};
use sealrs_image::reference::Reference;
use sealrs_image::remote::Client;
use sealrs_image::spec::{self, Descriptor};
use sealrs_image::store::Store;
use sealrs_image::wanted::Wanted;

use crate::cache::Cache;
use crate::inside::Layers;
use crate::rootfs::Rootfs;

/// Finds the base of an image, or images that are merged, and brings them into the store.
pub(crate) struct Finding<'b> {
    pub(crate) store: &'b Store,
    pub(crate) client: &'b Client,
    pub(crate) cache: &'b Cache,
    pub(crate) context: &'b Path,
    pub(crate) policy: PullPolicy,
    pub(crate) jobs: usize,
    pub(crate) progress: &'b dyn Progress,
}

impl Finding<'_> {
    /// Brings the image that `name` means into the store, with all these platforms.
    pub(crate) fn bring(&self, name: &str, platforms: &[Platform]) -> Result<Descriptor> {
        match is_archive(name) {
            true => self.in_archive(name),
            false => self.by_reference(name, platforms),
        }
    }

    /// Reads an image that is in the store, which has to be for `platform`.
    pub(crate) fn read(&self, root: &Descriptor, platform: &Platform) -> Result<ClusterImage> {
        let image = ClusterImage::read(self.store, root, platform)?;
        let own = &image.config.platform;
        if platform.accepts(own) {
            return Ok(image);
        }
        Err(Error::new(ErrorKind::NotFound, format!("it is for {own}, not for {platform}")).hint(format!(
            "take {own}, or an image that is for {platform}; in a Kubefile, `FROM --platform={own}` if its files run \
             on {platform}"
        )))
    }

    /// The same image as far as it is at hand: nothing is fetched or kept. None if it is not.
    ///
    /// # Errors
    /// What is wrong with an archive, or with the name.
    pub(crate) fn peek(&self, name: &str, platform: &Platform) -> Result<Option<ClusterImage>> {
        let place = || unusable(name);
        if is_archive(name) {
            let (archive, root) = self.archive(name).context(place)?;
            return ClusterImage::read(&archive, &root, platform).context(place).map(Some);
        }
        let reference: Reference = name.parse().context(place)?;
        let root = match self.store.resolve(&reference)? {
            Some(root) => Some(root),
            None => self.cache.base(&reference, platform),
        };
        Ok(root.and_then(|root| ClusterImage::read(self.store, &root, platform).ok()))
    }

    fn archive(&self, name: &str) -> Result<(Archive, Descriptor)> {
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
        let root = root.clone();
        Ok((archive, root))
    }

    fn in_archive(&self, name: &str) -> Result<Descriptor> {
        let (archive, root) = self.archive(name)?;
        // Only what the new image is made of is wanted: the archive's names are not the store's business.
        copy(
            &archive,
            &root,
            Box::new(BlobSink(self.store)),
            self.jobs,
            self.progress,
        )?;
        Ok(root)
    }

    fn by_reference(&self, name: &str, platforms: &[Platform]) -> Result<Descriptor> {
        let reference: Reference = name.parse()?;
        let puller = Puller {
            store: self.store,
            client: self.client,
            policy: self.policy,
            jobs: self.jobs,
        };
        // An image without an index is looked at later, when it can be said what FROM may do about it.
        let wanted = Wanted::Fitting(platforms.to_vec());
        // Who builds on an image did not ask to keep it: it gets no name in the store, and a name that is there stays
        // where it is. The cache knows the image until `prune`.
        let named = self.store.resolve(&reference)?;
        let is_named = named.is_some();
        let known = named.or_else(|| self.known(&reference, platforms));
        let found = puller.fetch(&reference, known, &wanted, self.progress);
        let root = found.map_err(|error| self.suggest(&reference, error))?.root;
        if !is_named {
            for platform in platforms {
                self.cache.remember_base(&reference, platform, &root)?;
            }
        }
        Ok(root)
    }

    /// What the cache knows as the image of this name, if the store still has it for all platforms.
    fn known(&self, reference: &Reference, platforms: &[Platform]) -> Option<Descriptor> {
        let mut roots = platforms.iter().map(|platform| {
            let root = self.cache.base(reference, platform)?;
            self.is_whole(&root, platform).then_some(root)
        });
        let first = roots.next().flatten()?;
        roots.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }

    /// A name that no registry answers to may be a mistyped one of the store.
    fn suggest(&self, name: &Reference, error: Error) -> Error {
        match near(self.store, name) {
            Ok(Some(near)) => {
                let otherwise = error.remedy().map(|hint| format!(" Otherwise: {hint}"));
                let hint = format!("did you mean `{}`, which is in the store?", near.familiar());
                Error::new(error.kind(), format!("cannot find {}", name.familiar()))
                    .because(error)
                    .hint(hint + &otherwise.unwrap_or_default())
            }
            _ => error,
        }
    }

    /// Whether the store still has all of an image that has no name in it.
    fn is_whole(&self, root: &Descriptor, platform: &Platform) -> bool {
        let found = select(self.store, root, platform).and_then(|manifest| blobs(self.store, &manifest));
        found.is_ok_and(|blobs| blobs.iter().all(|blob| self.store.has(&blob.digest)))
    }
}

/// What is said of a base that is of no use.
pub(crate) fn unusable(name: &str) -> String {
    format!("cannot use `{name}` as the base")
}

/// Whether FROM names a file.
fn is_archive(name: &str) -> bool {
    name.starts_with(['/', '.']) || name.ends_with(".tar")
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
