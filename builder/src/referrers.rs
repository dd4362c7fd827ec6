//! What refers to container images and comes along with them: signatures, attestations, lists of parts. Registries list
//! it, and cosign keeps it under tags that are made of the image's digest.

use std::collections::{BTreeMap, BTreeSet};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::graph::{Graph, is_document};
use sealrs_image::images_lock::Referrer;
use sealrs_image::progress::{Event, Progress};
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, Document, list_tag};
use sealrs_image::source::{Source, document};
use sealrs_image::spec::{self, Descriptor, Index, media_type};
use serde::Deserialize;

use crate::image_sources::Local;

/// Endings of cosign's tags (sigstore/cosign, specs/SIGNATURE_SPEC.md).
const COSIGN: [&str; 3] = ["sig", "att", "sbom"];
/// Signatures of signatures, and no further.
const MAX_DEPTH: usize = 2;
/// More than this refer to no image that is in use.
const MOST: usize = 10_000;

/// Where referrers of an image are looked for: where the image itself is.
pub(crate) enum Place<'p> {
    /// A repository.
    Registry(&'p Client, Reference),
    /// A place on this machine, where the image has this name.
    Local(&'p Local, &'p Reference),
}

impl Place<'_> {
    /// What a tag of the repository means.
    fn tag(&self, tag: &str) -> Result<Option<Document>> {
        match self {
            Self::Registry(client, repository) => match client.manifest(repository, tag) {
                Ok(document) => Ok(Some(document)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Self::Local(local, image) => {
                let name: Reference = format!("{}:{tag}", image.repository()).parse()?;
                let found = local.named(&name).map(|digest| local.document(digest)).transpose()?;
                Ok(found
                    .flatten()
                    .map(|(descriptor, bytes)| Document { descriptor, bytes }))
            }
        }
    }

    fn listed(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        match self {
            Self::Registry(client, repository) => client.referrers(repository, subject),
            Self::Local(..) => match self.tag(&list_tag(subject))? {
                Some(list) if media_type::is_index(&list.descriptor.media_type) => {
                    Ok(spec::parse::<Index>(&list.bytes, "the list of referrers")?.manifests)
                }
                _ => Ok(Vec::new()),
            },
        }
    }
}

/// Looks for everything that refers to these manifests. What is of a kind that can't be carried is told.
pub(crate) fn find(place: &Place<'_>, subjects: &[Digest], progress: &dyn Progress) -> Result<Vec<Referrer>> {
    let mut found = BTreeSet::new();
    let mut level: BTreeSet<Digest> = subjects.iter().copied().collect();
    let mut seen = level.clone();
    for _ in 0..MAX_DEPTH {
        let mut next = BTreeSet::new();
        for subject in level {
            for listed in place.listed(&subject)? {
                if !is_document(&listed) {
                    progress.event(Event::Warning(&format!(
                        "{} refers to {subject} and stays behind: its media type is `{}`",
                        listed.digest,
                        listed.media_type.escape_debug()
                    )));
                    continue;
                }
                found.insert(Referrer {
                    subject,
                    digest: listed.digest,
                    tag: None,
                });
                next.insert(listed.digest);
            }
            for ending in COSIGN {
                let tag = format!("{}.{ending}", list_tag(&subject));
                if let Some(document) = place.tag(&tag)? {
                    found.insert(Referrer {
                        subject,
                        digest: document.descriptor.digest,
                        tag: Some(tag),
                    });
                }
            }
            if found.len() > MOST {
                let what = format!("more than {MOST} signatures and the like refer to it");
                return Err(Error::new(ErrorKind::Integrity, what));
            }
        }
        level = next.into_iter().filter(|digest| seen.insert(*digest)).collect();
        if level.is_empty() {
            break;
        }
    }
    Ok(found.into_iter().collect())
}

/// A referrer with its parts.
pub(crate) struct Carried {
    pub(crate) referrer: Referrer,
    /// Its documents, itself among them.
    pub(crate) documents: Vec<(Descriptor, Vec<u8>)>,
    /// Its configs and layers.
    pub(crate) blobs: Vec<Descriptor>,
}

impl Carried {
    /// Reads the documents of a referrer.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it refers to something else than was said.
    pub(crate) fn read(source: &dyn Source, root: &Descriptor, referrer: Referrer) -> Result<Self> {
        let graph = Graph::read(source, root, 1)?;
        let known = graph.over(source);
        let (mut documents, mut blobs) = (Vec::new(), Vec::new());
        for blob in &graph.blobs {
            match is_document(blob) {
                true => documents.push((blob.clone(), document(&known, blob)?)),
                false => blobs.push(blob.clone()),
            }
        }
        let own = documents
            .iter()
            .find(|(descriptor, _)| descriptor.digest == root.digest);
        let said = own.and_then(|(_, bytes)| subject(bytes));
        // cosign's have the subject in their tag alone.
        if said != Some(referrer.subject) && referrer.tag.is_none() {
            let what = format!("{} does not refer to {}, as is listed", root.digest, referrer.subject);
            return Err(Error::new(ErrorKind::Integrity, what));
        }
        Ok(Self {
            referrer,
            documents,
            blobs,
        })
    }
}

/// The descriptor of a referrer as lists have it (OCI distribution specification 1.1, "Listing Referrers").
pub(crate) fn listed(mut descriptor: Descriptor, manifest: &[u8]) -> Descriptor {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Artifact {
        artifact_type: Option<String>,
        config: Option<Config>,
        // Tools written in Go write `null` for nothing.
        annotations: Option<BTreeMap<String, String>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        media_type: String,
    }
    if let Ok(artifact) = serde_json::from_slice::<Artifact>(manifest) {
        let config = artifact.config.map(|config| config.media_type);
        descriptor.artifact_type = artifact.artifact_type.filter(|kind| !kind.is_empty()).or(config);
        descriptor.annotations = artifact.annotations.unwrap_or_default();
    }
    descriptor
}

/// Makes sure that a repository lists what refers to a manifest: where the registry keeps no list, clients keep one under a
/// tag ("Referrers Tag Schema"). What is listed already stays.
///
/// # Errors
/// What the registry may meet.
pub(crate) fn list(client: &Client, repository: &Reference, subject: &Digest, referrers: &[Descriptor]) -> Result<()> {
    let mut there = client.referrers(repository, subject)?;
    let known: BTreeSet<Digest> = there.iter().map(|referrer| referrer.digest).collect();
    let missing: Vec<&Descriptor> = referrers.iter().filter(|one| !known.contains(&one.digest)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    there.extend(missing.into_iter().cloned());
    let list = spec::canonical(&Index::new(there))?;
    let descriptor = Descriptor::of(media_type::INDEX, &list);
    client.put_manifest(repository, &list_tag(subject), &descriptor, &list)
}

/// What a manifest says that it refers to.
fn subject(manifest: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Referring {
        subject: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        digest: Digest,
    }
    Some(serde_json::from_slice::<Referring>(manifest).ok()?.subject?.digest)
}
