//! The end of a build or a merge: the platforms that were made become one image, and get its name. Before that, nothing
//! names them.

use std::collections::{BTreeMap, BTreeSet};

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::platform::Platform;
use sealrs_image::reference::Reference;
use sealrs_image::spec::{self, Descriptor, Index, annotation, media_type};
use sealrs_image::store::Store;

/// An image of one platform, in the store, without a name.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its manifest, with its platform.
    pub(crate) descriptor: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// The names of the container images inside.
    pub(crate) container_images: Vec<String>,
    /// Layers that were packed now.
    pub(crate) packed: usize,
    /// Layers that the cache had.
    pub(crate) cached: usize,
}

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image's manifest, or the index of its platforms.
    pub descriptor: Descriptor,
    /// Each platform.
    pub platforms: Vec<BuiltPlatform>,
    /// Bytes of all packed layers, each counted once.
    pub size: u64,
    /// Layers that were packed now.
    pub packed: usize,
    /// Layers that the cache had.
    pub cached: usize,
    /// Container images inside, each name counted once.
    pub container_images: usize,
}

/// One platform of what was built.
#[derive(Debug, Clone)]
pub struct BuiltPlatform {
    /// Its manifest, with its platform.
    pub descriptor: Descriptor,
    /// Bytes of its packed layers, each counted once.
    pub size: u64,
    /// Container images inside.
    pub container_images: usize,
}

/// Platforms that can be members of one index.
pub(crate) fn distinct(platforms: &[Platform]) -> Result<&[Platform]> {
    for (at, platform) in platforms.iter().enumerate() {
        if platforms.iter().take(at).any(|other| other.is_same(platform)) {
            let what = format!("platform {platform} is given twice");
            return Err(Error::new(ErrorKind::Input, what).hint("name each platform once"));
        }
    }
    if platforms.is_empty() {
        return Err(Error::new(ErrorKind::Input, "no platform is given").hint("name one, for instance `linux/amd64`"));
    }
    Ok(platforms)
}

/// Gives `name` to the only member, or to an index of all. `now` is noted beside the image, not in it.
pub(crate) fn publish(name: &Reference, now: Option<&str>, members: &[Member], store: &Store) -> Result<Built> {
    let mut index = Index::new(Vec::new());
    for member in members {
        index.put(member.descriptor.clone());
    }
    let descriptor = match members {
        [only] => only.descriptor.clone(),
        _ => store.put(media_type::INDEX, &spec::canonical(&index)?)?,
    };
    let mut entry = descriptor.clone();
    if let Some(now) = now {
        entry.annotations.insert(annotation::CREATED.to_owned(), now.to_owned());
    }
    store.tag(Some(name), &entry)?;
    let all = members.iter().flat_map(|member| &member.container_images);
    Ok(Built {
        descriptor,
        size: size(members.iter().flat_map(|member| &member.layers)),
        packed: members.iter().map(|member| member.packed).sum(),
        cached: members.iter().map(|member| member.cached).sum(),
        container_images: all.collect::<BTreeSet<_>>().len(),
        platforms: members
            .iter()
            .map(|member| BuiltPlatform {
                descriptor: member.descriptor.clone(),
                size: size(member.layers.iter()),
                container_images: member.container_images.len(),
            })
            .collect(),
    })
}

fn size<'l>(layers: impl Iterator<Item = &'l Descriptor>) -> u64 {
    let sizes: BTreeMap<_, _> = layers.map(|layer| (layer.digest, layer.size)).collect();
    sizes.into_values().fold(0, u64::saturating_add)
}
