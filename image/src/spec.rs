//! The OCI documents that we read and write: descriptor, index, manifest, config (OCI image specification 1.1).
//!
//! Documents of container images are only read here and travel as the bytes they came in; documents that we
//! write are canonical (sorted keys, no white space), so that equal content has an equal digest.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::platform::Platform;

/// Media types of the OCI image specification and of Docker's schema 2.
pub mod media_type {
    /// OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer that is a plain tar.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer packed with gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer packed with zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, packed with gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    /// Whether it is a list of manifests.
    #[must_use]
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, INDEX | DOCKER_LIST)
    }

    /// Whether it is a manifest of one platform.
    #[must_use]
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, MANIFEST | DOCKER_MANIFEST)
    }
}

/// Annotation keys of the OCI image specification and of containerd.
pub mod annotation {
    /// The name of an image in a layout's `index.json`.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// When the image was made, RFC 3339.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// The full name under which containerd imports an image.
    pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
    /// The image that a member of an index attests something of (buildx).
    pub const ATTESTED: &str = "vnd.docker.reference.digest";
}

/// The largest manifest, index or config that is read, in bytes: what registries accept, with room.
pub const MAX_DOCUMENT: u64 = 16 << 20;

/// Points to a blob: media type, digest, size (descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Free words about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The platform it is for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Where foreign layers can be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What an artifact manifest holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor of a blob without annotations.
    #[must_use]
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
            urls: Vec::new(),
            artifact_type: None,
        }
    }

    /// A descriptor of these very bytes.
    #[must_use]
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// A list of manifests (image-index.md), also Docker's manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::INDEX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The members.
    #[serde(deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    /// Free words about the whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An index of `manifests`.
    #[must_use]
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
        }
    }

    /// Puts an image of one platform in. One of the same platform makes room for it and is given back. Members are
    /// sorted, so that the order in which they came makes no other index.
    pub fn put(&mut self, member: Descriptor) -> Option<Descriptor> {
        let is_same = |other: &Descriptor| match (&member.platform, &other.platform) {
            (Some(own), Some(other)) => own.is_same(other),
            _ => member.digest == other.digest,
        };
        let at = self.manifests.iter().position(is_same);
        let replaced = at.map(|at| self.manifests.remove(at));
        self.manifests.push(member);
        self.manifests
            .sort_by(|a, b| (&a.platform, a.digest).cmp(&(&b.platform, b.digest)));
        replaced
    }

    /// The member for `platform`.
    #[must_use]
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        self.manifests.iter().find(|member| {
            member
                .platform
                .as_ref()
                .is_some_and(|offered| platform.accepts(offered))
        })
    }

    /// The platforms of the members, for messages.
    #[must_use]
    pub fn platforms(&self) -> String {
        let all: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|member| member.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(ToString::to_string)
            .collect();
        all.join(", ")
    }
}

/// An image of one platform (manifest.md), also Docker's schema 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::MANIFEST`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// Free words about the whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The part of an image config (config.md) that sealrs uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The platform.
    #[serde(flatten)]
    pub platform: Platform,
    /// Labels and environment.
    #[serde(default)]
    pub config: ContainerConfig,
    /// The digests of the unpacked layers.
    pub rootfs: RootFs,
    /// One entry an instruction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// The `config` field of an image config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `NAME=value` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// Labels.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub labels: BTreeMap<String, String>,
}

/// The `rootfs` field of an image config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each unpacked layer, lowest first.
    #[serde(deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

/// What one instruction did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Tools written in Go write `null` for an empty list or map.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// JSON with sorted keys and without white space: equal content gives equal bytes.
///
/// # Errors
/// [`ErrorKind::Internal`] when the value is no JSON document.
pub fn canonical<T: Serialize>(document: &T) -> Result<Vec<u8>> {
    // serde_json's map is sorted, so a trip through `Value` sorts all keys.
    serde_json::to_value(document)
        .and_then(|value| serde_json::to_vec(&value))
        .or_fail(ErrorKind::Internal, || "cannot write a JSON document")
}

/// Reads a document that `origin` names in errors.
///
/// # Errors
/// [`ErrorKind::Integrity`] when the bytes are not such a document.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], origin: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Integrity,
            format!("{origin} cannot be read as an OCI document"),
        )
        .because(error)
    })
}

/// The media type of an index or manifest, by its own word or by its shape; `None` when it is neither.
#[must_use]
pub fn media_type_of(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    if shape.schema_version != 2 {
        return None;
    }
    let by_shape = match (shape.manifests, shape.layers) {
        (Some(_), None) => media_type::INDEX,
        (None, Some(_)) => media_type::MANIFEST,
        _ => return None,
    };
    Some(shape.media_type.unwrap_or_else(|| by_shape.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_bytes_do_not_depend_on_order() {
        let mut one = Descriptor::of(media_type::LAYER, b"x");
        one.annotations.insert("b".into(), "2".into());
        one.annotations.insert("a".into(), "1".into());
        let bytes = canonical(&one).unwrap();
        assert_eq!(parse::<Descriptor>(&bytes, "x").unwrap(), one);
        assert!(bytes.starts_with(br#"{"annotations":{"a":"1","b":"2"},"digest":"sha256:"#));
    }

    #[test]
    fn an_index_has_one_member_a_platform_in_any_order() {
        let member = |platform: &str, content: &[u8]| {
            let mut member = Descriptor::of(media_type::MANIFEST, content);
            member.platform = Some(platform.parse().unwrap());
            member
        };
        let all = [
            member("linux/arm64", b"1"),
            member("linux/amd64", b"2"),
            member("linux/arm/v7", b"3"),
            member("linux/arm/v6", b"4"),
        ];
        let index = |members: &[Descriptor]| {
            let mut index = Index::new(Vec::new());
            for member in members {
                assert_eq!(index.put(member.clone()), None);
            }
            index
        };
        let mut other = all.clone();
        other.reverse();
        let mut index = [index(&all), index(&other)];
        assert_eq!(index[0], index[1]);
        assert_eq!(index[0].manifests.len(), 4);
        assert_eq!(index[0].put(member("linux/arm64/v8", b"5")), Some(all[0].clone()));
        assert_eq!(index[0].manifests.len(), 4);
    }

    #[test]
    fn reads_a_config_by_docker() {
        let config: Config = parse(
            br#"{"architecture":"amd64","os":"linux","config":{"Labels":null,"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":[]},"docker_version":"20"}"#,
            "config",
        )
        .unwrap();
        assert_eq!(config.config.env, ["A=b"]);
        assert!(config.config.labels.is_empty());
    }
}
