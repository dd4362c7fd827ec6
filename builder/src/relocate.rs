//! The container images of a ClusterImage, without the ClusterImage, to a registry that is there already.
//!
//! An image keeps its tag and digest, and its host becomes a part of its path: the same path of two hosts stays two
//! images, and a container runtime that is told of the registry finds each by its original name.

use std::collections::{BTreeMap, BTreeSet};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::copy::{Copied, copy, in_parallel};
use sealrs_image::digest::Digest;
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::images_lock::Referrer;
use sealrs_image::progress::{Event, Progress};
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, Met, RegistryName, RegistrySink, Shipment};
use sealrs_image::source::Source;
use sealrs_image::spec::{self, Descriptor, Index, media_type};
use sealrs_image::store::Store;
use sealrs_registry::host::Host;
use serde::Serialize;

use crate::bundled::{Bundled, BundledImage, BundledReferrer};
use crate::referrers;

/// Sends container images to a registry.
#[derive(Clone, Copy)]
pub struct Relocation<'r> {
    /// The registry, with the path below which the images go.
    pub to: &'r RegistryName,
    /// Who talks to it.
    pub client: &'r Client,
    /// Remembers unfinished uploads.
    pub store: &'r Store,
    /// How many blobs move at once.
    pub jobs: usize,
    /// Who is told.
    pub progress: &'r dyn Progress,
}

impl std::fmt::Debug for Relocation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relocation({})", self.to)
    }
}

/// Where images went.
#[derive(Debug)]
pub struct Relocated {
    /// The images, sorted by their original names.
    pub images: Vec<RelocatedImage>,
    /// How many signatures and the like went with them.
    pub referrers: usize,
    /// What moved.
    pub copied: Copied,
    /// How the registry was met.
    pub registry: Met,
}

/// Where an image went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RelocatedImage {
    /// Its original name.
    pub image: Reference,
    /// Its name at the registry.
    pub name: Reference,
    /// What both names mean.
    pub digest: Digest,
    /// What the original name means, where the registry did not take the image's index: the new one means the one
    /// platform's manifest then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
}

impl Relocated {
    /// The hosts whose images went.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<Host> {
        self.images.iter().map(|image| Host::of(&image.image)).collect()
    }
}

impl Relocation<'_> {
    /// Sends the container images of `image`, whose layers are in `source`.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when there are none, or a name can't be one at the registry; [`ErrorKind::NotFound`] when
    /// one is not whole, or is pinned to an index that the registry does not take; what the registry may meet.
    pub fn send(&self, source: &dyn Source, image: &ClusterImage) -> Result<Relocated> {
        if source.is_sequential() {
            let what = format!(
                "the container images in {} can't be sent while they come",
                source.origin()
            );
            return Err(
                Error::new(ErrorKind::Input, what).hint("write it into a file first, or load it into the store")
            );
        }
        let (mut bundled, mut images) = Bundled::read(source, image)?;
        if images.is_empty() {
            let what = format!("the ClusterImage in {} has no container images inside", source.origin());
            return Err(Error::new(ErrorKind::Input, what).hint("`sealrs inspect IMAGE` lists them"));
        }
        images.sort_by(|one, other| one.reference.cmp(&other.reference));
        let mut referring = Vec::new();
        for image in &images {
            referring.extend(with_it(&new_name(self.to, image)?, image)?);
        }
        let mut shipments: Vec<Shipment> = images
            .into_iter()
            .map(|image| {
                Ok(Shipment {
                    name: new_name(self.to, &image)?,
                    image: image.reference,
                    root: image.root,
                    blobs: image.blobs,
                    instead: image.only,
                })
            })
            .collect::<Result<_>>()?;
        let count = shipments.len();
        shipments.extend(referring.iter().map(|(shipment, _)| shipment.clone()));
        let roots = shipments.iter().map(|shipment| shipment.root.clone()).collect();
        // The engine copies what one document names.
        let list = bundled.add_document(media_type::INDEX, spec::canonical(&Index::new(roots))?);
        let sink = RegistrySink::new(self.client.clone(), &bundled, shipments.clone(), self.jobs)
            .resuming_in(self.store.partial_folder());
        let mut copied = copy(&bundled, &list, Box::new(&sink), self.jobs, self.progress)
            .context(|| format!("cannot send the container images to {}", self.to))?;
        // Neither the list nor an index that was refused went anywhere.
        let refused = sink.refused();
        copied.skipped = copied.skipped.saturating_sub(1);
        let indexes: BTreeSet<(Digest, u64)> = shipments
            .iter()
            .filter(|shipment| refused.contains(&shipment.root.digest))
            .map(|shipment| (shipment.root.digest, shipment.root.size))
            .collect();
        for (_, size) in indexes {
            copied.blobs = copied.blobs.saturating_sub(1);
            copied.bytes = copied.bytes.saturating_sub(size);
        }
        let registry = shipments
            .first()
            .map(|shipment| self.client.meet(&shipment.name))
            .transpose()?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "images went to no registry"))?;
        self.list(&referring)?;
        let images: Vec<RelocatedImage> = shipments
            .into_iter()
            .take(count)
            .map(|shipment| relocated(shipment, &refused))
            .collect();
        self.tell_changed(&images);
        let digests: BTreeSet<Digest> = referring.iter().map(|(_, referrer)| referrer.digest).collect();
        Ok(Relocated {
            images,
            referrers: digests.len(),
            copied,
            registry,
        })
    }

    /// Makes sure that the registry lists what went there.
    fn list(&self, referring: &[(Shipment, Referrer)]) -> Result<()> {
        let mut lists: BTreeMap<(String, Digest), (&Reference, Vec<Descriptor>)> = BTreeMap::new();
        for (shipment, referrer) in referring.iter().filter(|(_, referrer)| referrer.tag.is_none()) {
            let list = lists.entry((shipment.name.repository(), referrer.subject));
            let (_, list) = list.or_insert_with(|| (&shipment.name, Vec::new()));
            list.push(shipment.root.clone());
        }
        let lists = lists.into_iter().collect();
        in_parallel(lists, self.jobs, |((repository, subject), (name, list))| {
            referrers::list(self.client, name, &subject, &list)
                .context(|| format!("cannot have {repository} list what refers to {subject}"))
        })?;
        Ok(())
    }

    fn tell_changed(&self, images: &[RelocatedImage]) {
        for RelocatedImage {
            name, digest, index, ..
        } in images
        {
            if let Some(index) = index {
                self.progress.event(Event::Warning(&format!(
                    "{name} is {digest} there and no longer {index}: the registry takes no index whose other platforms are missing"
                )));
            }
        }
    }
}

/// What refers to an image, to go where the image goes.
fn with_it(name: &Reference, image: &BundledImage) -> Result<Vec<(Shipment, Referrer)>> {
    let repository = name.repository();
    let shipment = |bundled: &BundledReferrer| {
        let name = match &bundled.referrer.tag {
            Some(tag) => format!("{repository}:{tag}"),
            None => format!("{repository}@{}", bundled.root.digest),
        };
        let shipment = Shipment {
            image: image.reference.clone(),
            name: name.parse()?,
            root: bundled.root.clone(),
            blobs: bundled.blobs.clone(),
            instead: None,
        };
        Ok((shipment, bundled.referrer.clone()))
    };
    image.referrers.iter().map(shipment).collect()
}

fn relocated(shipment: Shipment, refused: &BTreeSet<Digest>) -> RelocatedImage {
    let root = shipment.root.digest;
    let manifest = shipment.instead.filter(|_| refused.contains(&root));
    RelocatedImage {
        image: shipment.image,
        name: shipment.name,
        digest: manifest.as_ref().map_or(root, |manifest| manifest.digest),
        index: manifest.map(|_| root),
    }
}

/// `registry.local/prefix/docker.io/library/nginx:1.27`.
fn new_name(to: &RegistryName, image: &BundledImage) -> Result<Reference> {
    let original = &image.reference;
    let mut text = format!("{to}/{}/{}", Host::of(original).folder(), original.path());
    if let Some(tag) = original.tag().filter(|_| image.tagged) {
        text = format!("{text}:{tag}");
    }
    match original.digest() {
        Some(digest) => text = format!("{text}@{digest}"),
        None if !image.tagged => text = format!("{text}@{}", image.root.digest),
        None => {}
    }
    text.parse()
        .context(|| format!("{original} can't have a name below {to}"))
}

#[cfg(test)]
mod tests {
    use sealrs_image::spec::Descriptor;

    use super::*;

    fn renamed(to: &str, original: &str, tagged: bool) -> Result<String> {
        let image = BundledImage {
            reference: original.parse().unwrap(),
            root: Descriptor::of(media_type::MANIFEST, b"root"),
            blobs: Vec::new(),
            only: None,
            tagged,
            referrers: Vec::new(),
        };
        Ok(new_name(&to.parse().unwrap(), &image)?.to_string())
    }

    #[test]
    fn the_host_becomes_a_part_of_the_path() {
        let digest = Digest::of(b"root");
        for (to, original, expected) in [
            ("r.local", "nginx", "r.local/docker.io/library/nginx:latest"),
            ("r.local/p/q", "nginx:1", "r.local/p/q/docker.io/library/nginx:1"),
            ("r.local/p", "quay.io/nginx:1", "r.local/p/quay.io/nginx:1"),
            ("r.local:5000/p", "Quay.io/a/b:V1", "r.local:5000/p/quay.io/a/b:V1"),
            ("localhost/p", "localhost:5000/a:1", "localhost/p/localhost_5000/a:1"),
            ("r.local", "[::1]:5000/a:1", "r.local/0_0_0_0_0_0_0_1_5000/a:1"),
            ("[::1]:80/p", "10.0.0.1:443/a:1", "[::1]:80/p/10.0.0.1_443/a:1"),
            // The registry's own images, too: what goes below a prefix stays below it.
            ("r.local/p", "r.local/p/a:1", "r.local/p/r.local/p/a:1"),
            (
                "r.local",
                &format!("a@{digest}"),
                &format!("r.local/docker.io/library/a@{digest}"),
            ),
            (
                "r.local",
                &format!("q.io/a:1@{digest}"),
                &format!("r.local/q.io/a:1@{digest}"),
            ),
        ] {
            assert_eq!(renamed(to, original, true).unwrap(), expected, "{original}");
        }
        // A tag that means another image by now.
        assert_eq!(
            renamed("r.local", "q.io/a:1", false).unwrap(),
            format!("r.local/q.io/a@{digest}")
        );
    }

    #[test]
    fn a_name_that_gets_too_long_is_refused_with_both_names() {
        let long = format!("q.io/{}:1", "a".repeat(250));
        let error = renamed("r.local/prefix", &long, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains(&long) && error.to_string().contains("r.local/prefix"));
    }
}
