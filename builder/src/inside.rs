//! Looks into layers: what they hold, and small files of theirs. A layer never changes, so what was seen once is
//! cached under its digest: a large base is read at the first build on it only.

use std::io::Read;

use sealrs_image::digest::{Digest, VerifyingReader};
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{Member, MemberKind, PackedLayer, TarReader};
use sealrs_image::rootfs;
use sealrs_image::source::Source as _;
use sealrs_image::spec::MAX_DOCUMENT;
use sealrs_image::store::Store;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::contents::{Contents, ItemKind};
use crate::context::clean;

/// The entries of a layer, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing(pub(crate) Vec<(String, Listed)>);

/// What an entry of a layer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Listed {
    Folder,
    File,
    Symlink(String),
    HardLink(String),
}

impl Listing {
    /// What the layer of `contents` holds.
    pub(crate) fn of(contents: &Contents) -> Self {
        let listed = |kind: &ItemKind| match kind {
            ItemKind::Folder => Listed::Folder,
            ItemKind::File(_) => Listed::File,
            ItemKind::Symlink(target) => Listed::Symlink(target.clone()),
            ItemKind::HardLink(target) => Listed::HardLink(target.clone()),
        };
        let entries = contents.entries.iter();
        Self(entries.map(|(path, item)| (path.clone(), listed(&item.kind))).collect())
    }

    /// The entries but for some.
    pub(crate) fn without(&self, is_left_out: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(path, _)| !is_left_out(path));
        Self(kept.cloned().collect())
    }

    /// Takes in an entry of a layer. Devices and the like are refused when it is unpacked.
    fn add(&mut self, member: &Member) -> Result<()> {
        let path = clean(&member.path)?;
        let listed = match &member.kind {
            MemberKind::Folder => Listed::Folder,
            MemberKind::Symlink(target) => Listed::Symlink(target.clone()),
            MemberKind::HardLink(target) => Listed::HardLink(clean(target)?),
            MemberKind::File(_) | MemberKind::Other(_) => Listed::File,
        };
        if !path.is_empty() {
            self.0.push((path, listed));
        }
        Ok(())
    }
}

/// Layers of the store, with the cache of what is in them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layers<'b> {
    pub(crate) store: &'b Store,
    pub(crate) cache: &'b Cache,
}

impl Layers<'_> {
    /// What a layer holds.
    pub(crate) fn listing(&self, layer: &PackedLayer) -> Result<Listing> {
        let digest = &layer.descriptor.digest;
        if let Some(listing) = self.cache.listing(digest) {
            return Ok(listing);
        }
        let mut listing = Listing::default();
        self.read(layer, |member, _| listing.add(member))?;
        self.cache.remember_listing(digest, &listing)?;
        Ok(listing)
    }

    /// The content of a small file of a layer.
    pub(crate) fn file(&self, layer: &PackedLayer, path: &str) -> Result<Vec<u8>> {
        let key = Digest::of(format!("file of layer 1 {} {path}", layer.descriptor.digest).as_bytes());
        if let Some(bytes) = self.cache.file(&key) {
            return Ok(bytes);
        }
        let mut found = None;
        self.read(layer, |member, content| {
            if clean(&member.path)? == path && matches!(member.kind, MemberKind::File(size) if size <= MAX_DOCUMENT) {
                let mut bytes = Vec::new();
                content
                    .read_to_end(&mut bytes)
                    .or_io(|| format!("cannot read `{path}`"))?;
                found = Some(bytes);
            }
            Ok(())
        })?;
        let bytes = found.ok_or_else(|| {
            let what = format!(
                "layer {} has no file `{path}`, or one too large",
                layer.descriptor.digest
            );
            Error::new(ErrorKind::Integrity, what)
        })?;
        self.cache.remember_file(&key, &bytes)?;
        Ok(bytes)
    }

    fn read(&self, layer: &PackedLayer, mut entry: impl FnMut(&Member, &mut dyn Read) -> Result<()>) -> Result<()> {
        let PackedLayer { descriptor, diff_id } = layer;
        let packed = VerifyingReader::new(self.store.open(descriptor, 0)?, descriptor.digest, descriptor.size);
        rootfs::unpacked(packed, &descriptor.media_type, *diff_id, None, |tar| {
            let mut tar = TarReader::new(tar);
            while let Some(member) = tar.next()? {
                entry(&member, &mut tar.content())?;
            }
            tar.drain()
        })
        .context(|| format!("cannot read layer {}", descriptor.digest))
    }
}
