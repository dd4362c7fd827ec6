//! The ClusterImage: an OCI image whose unpacked layers are a rootfs, with sealer's annotations and labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::graph::MAX_DEPTH;
use crate::layer;
use crate::platform::Platform;
use crate::source::{Source, document};
use crate::spec::{self, Config, Descriptor, Index, Manifest, media_type};

/// Names that sealer gave to annotations and labels.
pub mod name {
    /// Manifest annotation: what the image is ([`super::Extension`] as JSON). An image without it is no ClusterImage.
    pub const EXTENSION: &str = "sealer.image.extension";
    /// Manifest annotation: the container images inside (a list of [`super::ContainerImage`] as JSON).
    pub const CONTAINER_IMAGES: &str = "sealer.image.container.images";
    /// Label: one of [`super::RUNTIMES`].
    pub const RUNTIME_TYPE: &str = "cluster.alpha.sealer.io/cluster-runtime-type";
    /// Label: the runtime's version.
    pub const RUNTIME_VERSION: &str = "cluster.alpha.sealer.io/cluster-runtime-version";
    /// Label: `docker` or `containerd`.
    pub const CONTAINER_RUNTIME_TYPE: &str = "cluster.alpha.sealer.io/container-runtime-type";
    /// Label prefix of an app that is a network plugin; its name follows.
    pub const CNI_PREFIX: &str = "cluster.alpha.sealer.io/kube-cni-";
    /// Label prefix of an app that is a storage plugin; its name follows.
    pub const CSI_PREFIX: &str = "cluster.alpha.sealer.io/kube-csi-";
    /// Label: the Kubernetes versions that the apps support.
    pub const KUBE_VERSION: &str = "app.alpha.sealer.io/supported-kube-version";
    /// Label: the version of the tool that built the image.
    pub const BUILDER_VERSION: &str = "io.sealer.version";
}

/// The cluster runtimes: what the label [`name::RUNTIME_TYPE`] can be. Not each is available in each version of sealrs.
pub const RUNTIMES: [&str; 4] = ["k3s", "k0s", "kubernetes", "script"];

/// What is in the annotation [`name::EXTENSION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// What built it.
    #[serde(default)]
    pub build_client: BuildClient,
    /// Always `v1alpha1`.
    #[serde(default)]
    pub schema_version: String,
    /// `kube-installer` or `app-installer`.
    #[serde(rename = "type", default)]
    pub kind: ImageKind,
    /// The apps, those of the base first.
    #[serde(default, deserialize_with = "spec::null_is_empty")]
    pub applications: Vec<Application>,
    /// The image's environment: what templates and scripts see.
    #[serde(default, deserialize_with = "spec::null_is_empty")]
    pub env: BTreeMap<String, String>,
    /// What `run` starts at its end.
    #[serde(default)]
    pub launch: Launch,
}

/// The versions of what built an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildClient {
    /// The version of the builder. The key is sealer's.
    #[serde(default)]
    pub sealer_version: String,
    /// Only sealer fills it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub buildah_version: String,
}

/// What an image installs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageKind {
    /// A cluster, and perhaps apps.
    #[default]
    #[serde(rename = "kube-installer")]
    KubeInstaller,
    /// Only apps, into a cluster that is there.
    #[serde(rename = "app-installer")]
    AppInstaller,
}

/// An app of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its name; its files lie in `application/apps/<name>/`.
    pub name: String,
    /// `helm`, `kube`, `shell` or empty.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The files that its type's command works on.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "spec::null_is_empty"
    )]
    pub files: Vec<String>,
    /// Always `v1`.
    #[serde(default)]
    pub version: String,
    /// Its environment.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "spec::null_is_empty"
    )]
    pub env: BTreeMap<String, String>,
    /// Commands that start it instead of its type's.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "spec::null_is_empty"
    )]
    pub cmds: Vec<String>,
}

/// What `run` starts at its end: commands, or else apps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Shell commands.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "spec::null_is_empty"
    )]
    pub cmds: Vec<String>,
    /// Names of apps.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "spec::null_is_empty"
    )]
    pub app_names: Vec<String>,
}

/// An entry of the annotation [`name::CONTAINER_IMAGES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerImage {
    /// The whole reference.
    pub image: String,
    /// The app that asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app_name: String,
    /// The platform that is inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// One platform of a ClusterImage, with its documents read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterImage {
    /// Points to the manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: Config,
    /// What the image is.
    pub extension: Extension,
    /// The container images inside.
    pub container_images: Vec<ContainerImage>,
}

impl ClusterImage {
    /// Reads the ClusterImage under `root`, for `platform` if `root` is an index.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the platform is not there, [`ErrorKind::Input`] when it is no ClusterImage,
    /// [`ErrorKind::Integrity`] when a document is damaged.
    pub fn read(source: &dyn Source, root: &Descriptor, platform: &Platform) -> Result<Self> {
        let descriptor = select(source, root, platform)?;
        let bytes = document(source, &descriptor)?;
        let manifest: Manifest = spec::parse(&bytes, &format!("manifest {}", descriptor.digest))?;
        let Some(extension) = manifest.annotations.get(name::EXTENSION) else {
            return Err(Error::new(
                ErrorKind::Input,
                format!("{} of {} is not a ClusterImage", descriptor.digest, source.origin()),
            )
            .because(Error::new(
                ErrorKind::Input,
                format!("its manifest has no annotation `{}`", name::EXTENSION),
            ))
            .hint("build one with `sealrs build`; a container image belongs into a ClusterImage's `imageList`"));
        };
        let damaged = |what: &str| format!("annotation `{what}` of {}", descriptor.digest);
        let extension = spec::parse(extension.as_bytes(), &damaged(name::EXTENSION))?;
        let container_images = match manifest.annotations.get(name::CONTAINER_IMAGES) {
            Some(list) if list != "null" => spec::parse(list.as_bytes(), &damaged(name::CONTAINER_IMAGES))?,
            _ => Vec::new(),
        };
        let bytes = document(source, &manifest.config).context(|| "cannot read the image's config")?;
        let config: Config = spec::parse(&bytes, &format!("config {}", manifest.config.digest))?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!(
                    "image {} has {} layers and {} digests of unpacked layers",
                    descriptor.digest,
                    manifest.layers.len(),
                    config.rootfs.diff_ids.len()
                ),
            ));
        }
        Ok(Self {
            descriptor,
            manifest,
            config,
            extension,
            container_images,
        })
    }

    /// The labels, sealer's among them ([`name`]).
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.config.config.labels
    }

    /// Bytes of all packed layers.
    #[must_use]
    pub fn packed_size(&self) -> u64 {
        let sizes = self.manifest.layers.iter().map(|layer| layer.size);
        sizes.fold(0, u64::saturating_add)
    }

    /// About how many bytes the rootfs takes on disk. Exact for our own images; for a layer that does not tell,
    /// four times its packed size.
    #[must_use]
    pub fn unpacked_size(&self) -> u64 {
        self.manifest
            .layers
            .iter()
            .map(|layer| match unpacked_size(layer) {
                Some(size) => size,
                None if layer.media_type == media_type::LAYER => layer.size,
                None => layer.size.saturating_mul(4),
            })
            .fold(0, u64::saturating_add)
    }
}

/// The size of a layer's unpacked tar in bytes, when its descriptor tells.
pub(crate) fn unpacked_size(layer: &Descriptor) -> Option<u64> {
    layer.annotations.get(layer::annotation::UNPACKED)?.parse().ok()
}

/// The images that `root` stands for and `source` has, each with its platform: itself, or the members of an index.
/// Members that are for no platform (attestations) are left out.
///
/// # Errors
/// [`ErrorKind::Integrity`] when a document is damaged, [`ErrorKind::NotFound`] when `root` is not there.
pub fn members(source: &dyn Source, root: &Descriptor) -> Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    let mut waiting = vec![(root.clone(), 0)];
    while let Some((mut descriptor, depth)) = waiting.pop() {
        let is_index = media_type::is_index(&descriptor.media_type);
        if !is_index && !media_type::is_manifest(&descriptor.media_type) || depth > MAX_DEPTH {
            continue;
        }
        let bytes = match document(source, &descriptor) {
            // A platform that was not shipped.
            Err(error) if error.kind() == ErrorKind::NotFound && depth > 0 => continue,
            read => read?,
        };
        let name = descriptor.digest.to_string();
        if is_index {
            let index: Index = spec::parse(&bytes, &name)?;
            // The first is to be the next.
            waiting.extend(index.manifests.into_iter().rev().map(|member| (member, depth + 1)));
            continue;
        }
        if descriptor.platform.is_none() {
            let manifest: Manifest = spec::parse(&bytes, &name)?;
            let config: Config = spec::parse(&document(source, &manifest.config)?, &name)?;
            descriptor.platform = Some(config.platform);
        }
        if descriptor
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os != "unknown")
        {
            found.push(descriptor);
        }
    }
    Ok(found)
}

/// The manifest for `platform` under `root`.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it has no such platform; what reading an index meets.
pub fn select(source: &dyn Source, root: &Descriptor, platform: &Platform) -> Result<Descriptor> {
    let mut current = root.clone();
    // An index may hold an index; two levels are more than anyone makes.
    for _ in 0..3 {
        if media_type::is_manifest(&current.media_type) {
            return Ok(current);
        }
        if !media_type::is_index(&current.media_type) {
            break;
        }
        let bytes = document(source, &current)?;
        let index: Index = spec::parse(&bytes, &format!("index {}", current.digest))?;
        current = match (index.select(platform), index.manifests.as_slice()) {
            (Some(member), _) => member.clone(),
            // An index of one member that names no platform leaves no choice.
            (None, [only]) if only.platform.is_none() => only.clone(),
            (None, _) => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "image {} of {} has no platform {platform}",
                        root.digest,
                        source.origin()
                    ),
                )
                .hint(format!("it has: {}", index.platforms())));
            }
        };
    }
    Err(Error::new(
        ErrorKind::Input,
        format!(
            "{} of {} is neither an image nor an index of images",
            root.digest,
            source.origin()
        ),
    )
    .because(Error::new(
        ErrorKind::Input,
        format!("its media type is `{}`", current.media_type),
    )))
}
