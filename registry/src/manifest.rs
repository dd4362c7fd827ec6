//! A manifest or index as a registry has to understand it: what it needs, and what it refers to.

use std::collections::BTreeMap;

use sealrs_image::spec::media_type;
use serde::{Deserialize, Serialize};

use crate::digest::BlobDigest;
use crate::directory::media_type_of;
use crate::refusal::Refusal;

/// The largest manifest that can be pushed, in bytes: what other registries take, and what the specification asks for.
pub(crate) const MAX_PUSHED: usize = 4 << 20;

/// A manifest or index.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// What it is.
    pub(crate) media_type: String,
    /// What it refers to.
    pub(crate) subject: Option<BlobDigest>,
    /// The config and layers that have to be there.
    pub(crate) blobs: Vec<Target>,
    /// The manifests that have to be there.
    pub(crate) members: Vec<Target>,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

/// Something that a manifest points to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    pub(crate) media_type: Option<String>,
    pub(crate) digest: BlobDigest,
    pub(crate) size: u64,
}

/// What stands in a list of referrers (OCI distribution specification 1.1, "Listing Referrers").
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub(crate) media_type: String,
    pub(crate) digest: BlobDigest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The fields of manifests and indexes that mean something here. Tools written in Go write `null` for empty lists.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u32>,
    config: Option<Target>,
    layers: Option<Vec<Target>>,
    manifests: Option<Vec<Target>>,
    subject: Option<Target>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads a manifest that is pushed as `content_type`.
    ///
    /// # Errors
    /// The refusal of what is no manifest that any registry of this layout would give out again.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Refusal> {
        let bad = |why: &str| Refusal::bad_manifest(why);
        let media_type = media_type_of(bytes).map_err(|error| bad(&error.to_string()))?;
        // The layout does not keep the header, so the document alone has to tell what it is.
        let told = content_type.map(|told| told.split(';').next().unwrap_or_default().trim());
        if let Some(told) = told
            && !told.eq_ignore_ascii_case(&media_type)
        {
            return Err(bad(&format!(
                "it was sent as `{}` and is `{media_type}`",
                told.escape_debug()
            )));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
        if document.schema_version != Some(2) {
            return Err(bad("its `schemaVersion` is not 2"));
        }
        let (blobs, members) = if media_type::is_index(&media_type) {
            // Taken for a manifest by one client and for an index by another, it would be two images.
            if document.config.is_some() || document.layers.is_some() {
                return Err(bad("an index has no `config` and no `layers`"));
            }
            (Vec::new(), document.manifests.unwrap_or_default())
        } else if media_type::is_manifest(&media_type) {
            if document.manifests.is_some() {
                return Err(bad("a manifest of one image has no `manifests`"));
            }
            let config = document.config.ok_or_else(|| bad("it has no `config`"))?;
            let layers = document.layers.unwrap_or_default();
            (std::iter::once(config).chain(layers).collect(), Vec::new())
        } else {
            return Err(bad(&format!("the type `{media_type}` is not known here")));
        };
        let config_type = blobs.first().and_then(|config: &Target| config.media_type.clone());
        Ok(Self {
            artifact_type: document
                .artifact_type
                .filter(|artifact| !artifact.is_empty())
                .or(config_type),
            subject: document.subject.map(|subject| subject.digest),
            blobs: blobs.into_iter().filter(|blob| !blob.is_foreign()).collect(),
            members,
            annotations: document.annotations.unwrap_or_default(),
            media_type,
        })
    }

    /// Its entry in a list of referrers.
    pub(crate) fn into_referrer(self, digest: BlobDigest, size: u64) -> Referrer {
        Referrer {
            media_type: self.media_type,
            digest,
            size,
            artifact_type: self.artifact_type,
            annotations: self.annotations,
        }
    }
}

impl Target {
    /// Whether it is a layer that may not be passed on: clients fetch it elsewhere.
    fn is_foreign(&self) -> bool {
        let kind = self.media_type.as_deref().unwrap_or_default();
        kind.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || kind.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

#[cfg(test)]
mod tests {
    use sealrs_image::digest::Digest;

    use super::*;

    #[test]
    fn says_what_it_needs() {
        let (config, layer, foreign) = (Digest::of(b"c"), Digest::of(b"l"), Digest::of(b"f"));
        let subject = "application/vnd.oci.image.manifest.v1+json";
        let text = serde_json::json!({
            "schemaVersion": 2, "config": {"mediaType": "x/config", "digest": config, "size": 1},
            "layers": [
                {"mediaType": "x/y", "digest": layer, "size": 2},
                {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": foreign, "size": 3},
            ],
            "subject": {"mediaType": subject, "digest": foreign, "size": 9},
            "annotations": {"a": "b"},
        })
        .to_string();
        for header in [
            None,
            Some(media_type::MANIFEST),
            Some("Application/vnd.oci.image.manifest.v1+JSON; q=1"),
        ] {
            let manifest = Manifest::parse(text.as_bytes(), header).unwrap();
            let blobs: Vec<_> = manifest.blobs.iter().map(|blob| blob.digest).collect();
            assert_eq!(blobs, [config.into(), layer.into()]);
            assert_eq!(manifest.subject, Some(foreign.into()));
            let referrer = manifest.into_referrer(layer.into(), 5);
            assert_eq!(referrer.artifact_type.as_deref(), Some("x/config"));
            assert_eq!(referrer.annotations.len(), 1);
        }
        let empty = br#"{"schemaVersion":2,"manifests":null,"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
        assert!(Manifest::parse(empty, None).unwrap().members.is_empty());
    }

    #[test]
    fn refuses_what_is_none() {
        let config = format!(r#"{{"digest":"{}","size":1}}"#, Digest::of(b""));
        for (text, header, part) in [
            ("", None, "JSON"),
            ("[]", None, "JSON"),
            ("{}", None, "mediaType"),
            (r#"{"manifests":[]}"#, None, "schemaVersion"),
            (r#"{"schemaVersion":1,"manifests":[]}"#, None, "schemaVersion"),
            (r#"{"schemaVersion":2,"layers":[]}"#, None, "config"),
            (r#"{"schemaVersion":2,"manifests":[{}]}"#, None, "digest"),
            (
                r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:..","size":1}]}"#,
                None,
                "digest",
            ),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#,
                Some("application/json"),
                "application/json",
            ),
            (r#"{"schemaVersion":2,"mediaType":"x/y"}"#, Some("x/y"), "x/y"),
            (
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":[]}"#,
                None,
                "an index",
            ),
            (
                &format!(
                    r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[],"config":{config}}}"#
                ),
                None,
                "one image",
            ),
        ] {
            let refusal = Manifest::parse(text.as_bytes(), header).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (400, "MANIFEST_INVALID"));
            assert!(refusal.message.contains(part), "{text}: {}", refusal.message);
        }
    }
}
