//! FROM: nothing, an archive file, an image of the store, or one of a registry.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sealrs_image::archive::Archive;
use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::copy::{BlobSink, copy, in_parallel};
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::layer::{PackedLayer, annotation};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Progress, Task};
use sealrs_image::pull::{PullPolicy, Puller};
use sealrs_image::reference::Reference;
use sealrs_image::remote::Client;
use sealrs_image::spec::{self, Descriptor};
use sealrs_image::store::Store;
use sealrs_image::wanted::Wanted;

use crate::image_list::{LOCK_PATH, Lock};
use crate::inside::Layers;
use crate::rootfs::Rootfs;

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
        let puller = Puller {
            store: self.store,
            client: self.client,
            policy: self.policy,
            jobs: self.jobs,
        };
        let wanted = Wanted::Fitting(platform.clone());
        Ok(puller.pull(&reference, &wanted, self.progress)?.root)
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
