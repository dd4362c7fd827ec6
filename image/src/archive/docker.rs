//! Docker's archive (`docker save`): `manifest.json`, configs, and layers as plain tars. Read as if it were OCI.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::Deserialize;

use super::{Archive, Extent, Place};
use crate::digest::{Digest, Hasher};
use crate::error::{IoResultExt as _, Result};
use crate::source::Source as _;
use crate::spec::{self, Config, Descriptor, Manifest, media_type};

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default, deserialize_with = "spec::null_is_empty")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "spec::null_is_empty")]
    layers: Vec<String>,
}

/// Makes an OCI manifest for each image of the archive.
pub(super) fn read(archive: &mut Archive, entries: &BTreeMap<String, Extent>) -> Result<()> {
    let bytes = archive.small_entry(entries, "manifest.json")?;
    let images: Vec<Saved> = spec::parse(&bytes, &format!("`manifest.json` of {}", archive.origin()))?;
    for image in images {
        let descriptor = read_image(archive, entries, &image)?;
        let names: Vec<_> = image.repo_tags.iter().filter_map(|name| name.parse().ok()).collect();
        if names.is_empty() {
            archive.images.push((None, descriptor));
        } else {
            archive
                .images
                .extend(names.into_iter().map(|name| (Some(name), descriptor.clone())));
        }
    }
    if archive.images.is_empty() {
        return Err(archive.damaged("its `manifest.json` lists no image"));
    }
    Ok(())
}

fn read_image(archive: &mut Archive, entries: &BTreeMap<String, Extent>, image: &Saved) -> Result<Descriptor> {
    let config_bytes = archive.small_entry(entries, &image.config)?;
    let config: Config = spec::parse(&config_bytes, &format!("`{}` of {}", image.config, archive.origin()))?;
    if config.rootfs.diff_ids.len() != image.layers.len() {
        return Err(archive.damaged(&format!(
            "`{}` lists {} layers where its config has {}",
            image.config,
            image.layers.len(),
            config.rootfs.diff_ids.len()
        )));
    }
    let mut layers = Vec::new();
    for (path, diff_id) in image.layers.iter().zip(&config.rootfs.diff_ids) {
        layers.push(layer(archive, entries, path, *diff_id)?);
    }
    let config_descriptor = add_made(archive, media_type::CONFIG, config_bytes);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: config_descriptor,
        layers,
        annotations: BTreeMap::new(),
    };
    let mut descriptor = add_made(archive, media_type::MANIFEST, spec::canonical(&manifest)?);
    descriptor.platform = Some(config.platform);
    Ok(descriptor)
}

/// A plain layer's digest is the one that the config states (and that copying verifies); only a packed one,
/// which some tools write, has to be read now.
fn layer(archive: &mut Archive, entries: &BTreeMap<String, Extent>, path: &str, diff_id: Digest) -> Result<Descriptor> {
    let Some(&extent) = entries.get(path) else {
        return Err(archive.damaged(&format!("it lacks the layer `{path}`")));
    };
    let place = || format!("cannot read `{path}` of {}", archive.origin());
    let mut start = Vec::new();
    archive
        .read_extent(extent, 0)
        .take(2)
        .read_to_end(&mut start)
        .or_io(place)?;
    let (kind, digest) = if start == [0x1f, 0x8b] {
        let mut hasher = Hasher::new();
        let mut reader = archive.read_extent(extent, 0);
        let mut buffer = vec![0u8; 256 << 10];
        loop {
            let read = reader.read(&mut buffer).or_io(place)?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
        (media_type::LAYER_GZIP, hasher.finish())
    } else {
        (media_type::LAYER, diff_id)
    };
    archive.blobs.insert(digest, Place::At(extent));
    Ok(Descriptor::new(kind, digest, extent.size))
}

fn add_made(archive: &mut Archive, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let descriptor = Descriptor::of(media_type, &bytes);
    archive.blobs.insert(descriptor.digest, Place::Made(bytes));
    descriptor
}
