//! `sealrs build`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use sealrs_builder::{Built, BuiltPlatform, ImageListWithAuth, ImageSource, LockUse, Options, build};
use sealrs_image::cluster_image::ImageKind;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::layer::Compression;
use sealrs_image::platform::Platform;
use sealrs_image::pull::PullPolicy;
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Credentials, Mirror};
use sealrs_image::store::Store;

use super::images_in::Charts;
use super::remote::Registries;
use super::{assignment, variable};
use crate::printer::Printer;

/// Build a ClusterImage from a Kubefile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs build -f Kubefile -t registry.example.com/edge/k3s:v1 .
  sealrs build -t k3s:v1 --build-arg K3S_VERSION=v1.36.3+k3s1 --image-list images.txt .
  sealrs build -t k3s:v1 --platform linux/amd64,linux/arm64 .")]
pub(crate) struct Build {
    /// Kubefile to build.
    #[arg(short, long, default_value = "Kubefile", value_name = "FILE")]
    file: PathBuf,

    /// Name of the image.
    #[arg(short, long, value_name = "NAME")]
    tag: Reference,

    /// Build context: the folder that COPY, ADD and APP take from.
    #[arg(default_value = ".", value_name = "CONTEXT")]
    context: PathBuf,

    /// Platform to build for; this machine's if left out. With several, the image is an index of them. May be given
    /// several times.
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<Platform>,

    /// Value of an ARG; without `=`, that of the environment. May be given several times.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]", value_parser = variable)]
    build_args: Vec<(String, String)>,

    /// Label to add. May be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = assignment)]
    labels: Vec<(String, String)>,

    /// What the image installs: `kube-installer` (a cluster) or `app-installer` (apps into one).
    #[arg(long = "type", value_name = "TYPE", default_value = "kube-installer", value_parser = image_kind)]
    kind: ImageKind,

    /// File that lists more container images, one a line. May be given several times.
    #[arg(long = "image-list", value_name = "FILE")]
    image_lists: Vec<PathBuf>,

    /// File that lists more container images with the logins for them, in YAML: entries of `registry`, `username`, `password`
    /// and `images`. May be given several times.
    #[arg(long = "image-list-with-auth", value_name = "FILE")]
    image_lists_with_auth: Vec<PathBuf>,

    /// File that lists container images to leave out. May be given several times.
    #[arg(long = "ignored-image-list", value_name = "FILE")]
    ignored_image_lists: Vec<PathBuf>,

    /// File that names what may be missing: container images that can't be pulled, and manifests and charts that can't be
    /// understood, one a line. May be given several times.
    #[arg(long, value_name = "FILE")]
    allow_unresolved: Vec<PathBuf>,

    /// Take exactly the container images of `images.lock` beside the Kubefile, or fail.
    #[arg(long, conflicts_with = "update_lock")]
    frozen: bool,

    /// Write the container images that were taken to `images.lock` beside the Kubefile.
    #[arg(long)]
    update_lock: bool,

    /// Where container images are taken from before registries are asked: an archive (of `save`, `docker save`, `podman save` or
    /// skopeo), the folder of an OCI layout, or `store`, `docker`, `podman` or `containerd` of this machine. May be given several
    /// times; the first one that has an image for the platform counts.
    #[arg(long = "image-source", value_name = "SOURCE")]
    image_sources: Vec<ImageSource>,

    /// Leave signatures, attestations and other things behind that refer to container images.
    #[arg(long)]
    no_referrers: bool,

    /// Pull what image lists name, and not what manifests and charts do.
    #[arg(long)]
    no_discovery: bool,

    #[command(flatten)]
    charts: Charts,

    /// `all` pulls the container images, `lite` does not.
    #[arg(long, value_name = "MODE", default_value = "all", value_parser = ["all", "lite"])]
    build_mode: String,

    /// When FROM asks the registry: `missing` (only if the store lacks the image), `always` or `never`.
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pull: PullPolicy,

    /// How layers are packed: `zstd`, `gzip` (for old registries and tools) or `none`.
    #[arg(long, value_name = "KIND", default_value_t)]
    compression: Compression,

    /// Pack every layer anew.
    #[arg(long)]
    no_cache: bool,

    /// Registry, or path of one, that is asked in place of another: `docker.io=registry.local:5000/dockerhub`. May be given
    /// several times; they are asked in their order, and HOST itself at last.
    #[arg(long = "mirror", value_name = "HOST=REGISTRY[/PATH]", help_heading = "Registries")]
    mirrors: Vec<Mirror>,

    #[command(flatten)]
    registries: Registries,
}

impl Build {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let lists = self
            .image_lists_with_auth
            .iter()
            .map(|path| ImageListWithAuth::read(path));
        let image_lists_with_auth = lists.collect::<Result<Vec<_>>>()?;
        let logins = image_lists_with_auth.iter().flat_map(ImageListWithAuth::logins);
        let credentials = Credentials::from_environment()?.with(logins);
        let client = self.registries.client_with(self.mirrors, credentials)?;
        let options = Options {
            kubefile: self.file,
            context: self.context,
            name: self.tag.clone(),
            platforms: platforms_or_host(self.platforms),
            build_args: unique(self.build_args)?,
            labels: unique(self.labels)?,
            kind: self.kind,
            image_lists: self.image_lists,
            image_lists_with_auth,
            ignored_image_lists: self.ignored_image_lists,
            allow_unresolved: self.allow_unresolved,
            image_sources: self.image_sources,
            referrers: !self.no_referrers,
            discovery: (!self.no_discovery).then(|| self.charts.discovery()),
            lock: match (self.frozen, self.update_lock) {
                (true, _) => LockUse::Frozen,
                (_, true) => LockUse::Update,
                _ => LockUse::Unused,
            },
            fetch_images: self.build_mode == "all",
            pull: self.pull,
            compression: self.compression,
            use_cache: !self.no_cache,
            jobs: self.registries.jobs,
            epoch: source_date_epoch()?,
            now: Some(now()),
        };
        let built = build(&options, root, &store, &client, &*printer.progress())?;
        show(printer, "built", &self.tag, &built)
    }
}

/// Says what was built or merged.
pub(super) fn show(printer: &Printer, verb: &str, name: &Reference, built: &Built) -> Result<()> {
    let platform = |member: &BuiltPlatform| {
        serde_json::json!({
            "platform": member.descriptor.platform.as_ref().map(ToString::to_string),
            "digest": member.descriptor.digest,
            "size": member.size,
            "containerImages": member.container_images,
        })
    };
    let document = serde_json::json!({
        "name": name.familiar(),
        "digest": built.descriptor.digest,
        "size": built.size,
        "layersPacked": built.packed,
        "layersCached": built.cached,
        "containerImages": built.container_images,
        "platforms": built.platforms.iter().map(platform).collect::<Vec<_>>(),
    });
    printer.result(&document, |_| {
        let mut text = format!(
            "{verb} {} {} ({}; {} layers packed, {} cached; {} container images)",
            name.familiar(),
            built.descriptor.digest,
            HumanBytes(built.size),
            built.packed,
            built.cached,
            built.container_images
        );
        if built.platforms.len() > 1 {
            for BuiltPlatform { descriptor, size, .. } in &built.platforms {
                let platform = descriptor.platform.as_ref().map(ToString::to_string);
                let platform = platform.unwrap_or_default();
                text.push_str(&format!("\n  {platform} {} ({})", descriptor.digest, HumanBytes(*size)));
            }
        }
        text
    })
}

/// The platforms that were asked for.
pub(super) fn platforms_or_host(platforms: Vec<Platform>) -> Vec<Platform> {
    match platforms.is_empty() {
        true => vec![Platform::host()],
        false => platforms,
    }
}

fn image_kind(text: &str) -> Result<ImageKind, String> {
    match text {
        "kube-installer" => Ok(ImageKind::KubeInstaller),
        "app-installer" => Ok(ImageKind::AppInstaller),
        _ => Err("write kube-installer or app-installer".to_owned()),
    }
}

fn unique(assignments: Vec<(String, String)>) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for (name, value) in assignments {
        if map.insert(name.clone(), value).is_some() {
            return Err(Error::new(ErrorKind::Input, format!("`{name}` is given twice")).hint("give it once"));
        }
    }
    Ok(map)
}

/// The time stamp of reproducible builds (reproducible-builds.org).
pub(super) fn source_date_epoch() -> Result<Option<i64>> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(None),
        Ok(text) => match text.trim().parse::<i64>() {
            Ok(seconds) if seconds >= 0 => Ok(Some(seconds)),
            _ => Err(Error::new(ErrorKind::Input, format!("SOURCE_DATE_EPOCH is `{text}`"))
                .hint("give seconds since 1970, for instance `date +%s`")),
        },
    }
}

/// RFC 3339, whole seconds.
pub(super) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}
