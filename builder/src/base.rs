//! FROM: nothing, an archive file, an image of the store, or one of a registry.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use sealrs_image::archive::Archive;
use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::copy::{BlobSink, copy};
use sealrs_image::digest::{Digest, VerifyingReader};
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{MemberKind, TarReader, annotation};
use sealrs_image::platform::Platform;
use sealrs_image::progress::{Event, Progress};
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, RemoteSource};
use sealrs_image::rootfs;
use sealrs_image::source::Source as _;
use sealrs_image::spec::{self, Descriptor, Index, media_type};
use sealrs_image::store::Store;

use crate::image_list::{LOCK_PATH, Lock};

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

/// The lock of the container images that a base holds already.
pub(crate) fn lock(store: &Store, image: &ClusterImage) -> Result<Lock> {
    if image.container_images.is_empty() {
        return Ok(Lock::default());
    }
    // The lock is written last, so it is looked for from the top.
    for (layer, &diff_id) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids).rev() {
        if layer.annotations.contains_key(annotation::FILE) {
            continue;
        }
        if let Some(bytes) = read_file(store, layer, diff_id, LOCK_PATH)? {
            return spec::parse(&bytes, "the base's images.lock");
        }
    }
    // An image that sealer built lists its images in an annotation only.
    Ok(Lock::default())
}

/// The content of a small file of a layer, if the layer has it.
pub(crate) fn read_file(store: &Store, layer: &Descriptor, diff_id: Digest, path: &str) -> Result<Option<Vec<u8>>> {
    let mut found = None;
    read_layer(store, layer, diff_id, |tar| {
        while let Some(member) = tar.next()? {
            if member.path == path && matches!(member.kind, MemberKind::File(size) if size <= spec::MAX_DOCUMENT) {
                let mut bytes = Vec::new();
                tar.content()
                    .read_to_end(&mut bytes)
                    .or_io(|| format!("cannot read `{path}`"))?;
                found = Some(bytes);
            }
        }
        tar.drain()
    })?;
    Ok(found)
}

/// The folders of a base, for the rule that COPY to an existing folder goes into it.
pub(crate) fn folders(store: &Store, image: &ClusterImage) -> Result<BTreeSet<String>> {
    let mut folders = BTreeSet::new();
    for (layer, &diff_id) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
        if layer.annotations.contains_key(annotation::FILE) {
            continue;
        }
        read_layer(store, layer, diff_id, |tar| {
            while let Some(member) = tar.next()? {
                if matches!(member.kind, MemberKind::Folder) {
                    let path = member.path.trim_start_matches("./").trim_end_matches('/');
                    folders.insert(path.to_owned());
                } else if let Some((folder, _)) = member.path.trim_start_matches("./").rsplit_once('/') {
                    folders.insert(folder.to_owned());
                }
            }
            tar.drain()
        })?;
    }
    Ok(folders)
}

fn read_layer(
    store: &Store,
    layer: &Descriptor,
    diff_id: Digest,
    mut read: impl FnMut(&mut TarReader<&mut dyn Read>) -> Result<()>,
) -> Result<()> {
    let packed = VerifyingReader::new(store.open(layer, 0)?, layer.digest, layer.size);
    rootfs::unpacked(packed, &layer.media_type, diff_id, None, |tar| {
        read(&mut TarReader::new(tar))
    })
    .context(|| format!("cannot read layer {} of the base", layer.digest))
}
