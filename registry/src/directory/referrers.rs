//! What refers to a manifest: signatures, attestations, lists of parts.
//!
//! A manifest that was pushed here with a `subject` has a link in the subject's folder. Who pushed to a registry
//! that could not tell kept a list under a tag of its own (OCI distribution specification 1.1, "Referrers Tag
//! Schema"). Both count.

use std::collections::BTreeMap;

use sealrs_image::error::{ErrorKind, Result, ResultExt as _};
use sealrs_image::spec::media_type;
use serde::{Deserialize, Serialize};

use super::Directory;
use crate::digest::BlobDigest;
use crate::layout;
use crate::manifest::{Manifest, Referrer};
use crate::name::{Repository, Tag};
use crate::page::Page;

/// About how many bytes of descriptions go into one answer: what clients take.
const ANSWER: usize = 3 << 20;

/// A list of referrers, or a part of one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrers {
    schema_version: u32,
    media_type: &'static str,
    /// In the order of their digests.
    pub(crate) manifests: Vec<Referrer>,
    /// Whether more come after them.
    #[serde(skip)]
    pub(crate) more: bool,
}

impl Referrers {
    /// No referrers.
    pub(crate) fn none() -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::INDEX,
            manifests: Vec::new(),
            more: false,
        }
    }
}

impl Directory {
    /// What refers to a manifest, which need not be there itself. `wanted` is the only artifact type to list.
    pub(crate) fn referrers(
        &self,
        repository: &Repository,
        subject: &BlobDigest,
        wanted: Option<&str>,
        page: &Page,
    ) -> Result<Referrers> {
        // By digest, and described by a list that somebody kept, or by the manifest itself.
        let mut found: BTreeMap<BlobDigest, Option<Referrer>> = self
            .listed_by_hand(repository, subject)?
            .into_iter()
            .map(|referrer| (referrer.digest, Some(referrer)))
            .collect();
        let folder = layout::referrers(repository, subject);
        for algorithm in self.folders(&folder)? {
            for hex in self.folders(&format!("{folder}/{algorithm}"))? {
                if let Ok(digest) = format!("{algorithm}:{hex}").parse() {
                    found.insert(digest, None);
                }
            }
        }
        let after: Option<BlobDigest> = page.after.as_deref().and_then(|after| after.parse().ok());
        let most = page.size.unwrap_or(usize::MAX);
        let mut referrers = Referrers::none();
        let mut size = 0;
        for (digest, described) in found {
            if after.is_some_and(|after| digest <= after) {
                continue;
            }
            let described = match described {
                Some(described) => Some(described),
                None => self.described(repository, subject, &digest)?,
            };
            let Some(described) = described else { continue };
            if wanted.is_some() && described.artifact_type.as_deref() != wanted {
                continue;
            }
            size += described.length();
            if referrers.manifests.len() >= most || (size > ANSWER && !referrers.manifests.is_empty()) {
                referrers.more = !referrers.manifests.is_empty();
                break;
            }
            referrers.manifests.push(described);
        }
        Ok(referrers)
    }

    /// The list that clients kept under a tag.
    fn listed_by_hand(&self, repository: &Repository, subject: &BlobDigest) -> Result<Vec<Referrer>> {
        #[derive(Deserialize)]
        struct List {
            manifests: Option<Vec<serde_json::Value>>,
        }
        // The specification bounds the tag's length so.
        let hex: String = subject.hex().chars().take(64).collect();
        let tag: Tag = format!("{}-{hex}", subject.algorithm()).parse()?;
        let stored = match self.tag(repository, &tag)? {
            Some(list) => self.manifest(repository, &list)?,
            None => None,
        };
        let Some(stored) = stored.filter(|stored| stored.media_type == media_type::INDEX) else {
            return Ok(Vec::new());
        };
        let list: List = serde_json::from_slice(&stored.bytes).or_fail(ErrorKind::Integrity, || {
            format!("the list of referrers `{repository}:{tag}` cannot be read")
        })?;
        // One that says too little, or `null` for nothing, hides no other one.
        let referrer = |mut entry: serde_json::Value| {
            if let Some(fields) = entry.as_object_mut() {
                fields.retain(|_, value| !value.is_null());
            }
            serde_json::from_value(entry).ok()
        };
        Ok(list.manifests.into_iter().flatten().filter_map(referrer).collect())
    }

    /// A manifest as a referrer, if it still is one.
    fn described(
        &self,
        repository: &Repository,
        subject: &BlobDigest,
        digest: &BlobDigest,
    ) -> Result<Option<Referrer>> {
        let Some(stored) = self.manifest(repository, digest)? else {
            return Ok(None);
        };
        let parsed = Manifest::parse(&stored.bytes, None).ok();
        let size = stored.bytes.len() as u64;
        Ok(parsed
            .filter(|manifest| manifest.subject == Some(*subject))
            .map(|manifest| manifest.into_referrer(*digest, size)))
    }
}

impl Referrer {
    /// About its length in a document.
    fn length(&self) -> usize {
        let annotations: usize = self
            .annotations
            .iter()
            .map(|(key, value)| key.len() + value.len() + 8)
            .sum();
        annotations + self.media_type.len() + self.artifact_type.as_ref().map_or(0, String::len) + 300
    }
}
