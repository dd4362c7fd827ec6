//! `sealrs manifest`

use std::path::Path;

use clap::{Args, Subcommand};
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::image_index::{self, Changed, NamedIndex, Which};
use sealrs_image::locate::locate;
use sealrs_image::platform::Platform;
use sealrs_image::pull::{PullPolicy, Puller};
use sealrs_image::reference::Reference;
use sealrs_image::spec::Descriptor;
use sealrs_image::store::Store;

use super::build::now;
use super::push::Push;
use super::remote::Registries;
use crate::printer::Printer;

/// Put images of one platform each together under one name: an OCI index, which docker calls a manifest list.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sealrs manifest create edge/k3s:v1 edge/k3s-amd64:v1 edge/k3s-arm64:v1
  sealrs manifest push edge/k3s:v1 registry.example.com/edge/k3s:v1")]
pub(crate) enum Manifest {
    Create(Box<Create>),
    Add(Box<Add>),
    Remove(Remove),
    Inspect(Inspect),
    Push(Box<PushAll>),
}

/// Make an index of images, or an empty one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs manifest create edge/k3s:v1 edge/k3s-amd64:v1 registry.example.com/edge/k3s-arm64:v1
  sealrs manifest create edge/k3s:v1")]
pub(crate) struct Create {
    /// Name of the index. No image of the store may have it.
    #[arg(value_name = "NAME")]
    name: Reference,

    /// Images: names in the store or in a registry, or starts of digests. One with several platforms brings them all.
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,

    #[command(flatten)]
    registries: Registries,
}

/// Add an image to an index. It takes the place of the one for the same platform.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs manifest add edge/k3s:v1 edge/k3s-arm64:v1
  sealrs manifest add edge/k3s:v1 registry.example.com/edge/k3s:v2 --platform linux/arm64")]
pub(crate) struct Add {
    /// Name of the index in the store.
    #[arg(value_name = "NAME")]
    name: Reference,

    /// Image: a name in the store or in a registry, or the start of a digest.
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Platform to take, of an image that has several. All of them if it is not given.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    #[command(flatten)]
    registries: Registries,
}

/// Take an image out of an index. Its blobs go with `sealrs prune`, if nothing else uses them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs manifest remove edge/k3s:v1 linux/arm64
  sealrs manifest remove edge/k3s:v1 sha256:3f2a91c0")]
pub(crate) struct Remove {
    /// Name of the index in the store.
    #[arg(value_name = "NAME")]
    name: Reference,

    /// The image's platform, its digest, or six digits of that or more.
    #[arg(value_name = "DIGEST|PLATFORM")]
    member: Which,
}

/// Show an index as it is, as JSON.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs manifest inspect edge/k3s:v1
  sealrs manifest inspect k3s.tar | jq '.manifests[].platform'")]
pub(crate) struct Inspect {
    /// Name of an index in the store, the start of its digest, or an archive file.
    #[arg(value_name = "NAME|FILE")]
    image: String,
}

/// Send an index to a registry, with all its images.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs manifest push registry.example.com/edge/k3s:v1
  sealrs manifest push edge/k3s:v1 registry.example.com/edge/k3s:v1")]
pub(crate) struct PushAll {
    /// Name of the index in the store, or the start of its digest.
    #[arg(value_name = "NAME")]
    image: String,

    /// Name that it gets at the registry; its own if this is not given.
    #[arg(value_name = "DESTINATION")]
    destination: Option<Reference>,

    #[command(flatten)]
    registries: Registries,
}

impl Manifest {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        match self {
            Self::Create(create) => create.run(root, printer),
            Self::Add(add) => add.run(root, printer),
            Self::Remove(remove) => remove.run(root, printer),
            Self::Inspect(inspect) => inspect.run(root, printer),
            Self::Push(push) => push.run(root, printer),
        }
    }
}

impl Create {
    fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let _lock = store.share()?;
        let mut images = Vec::new();
        for image in &self.images {
            images.extend(found(&store, &self.registries, image, None, printer)?);
        }
        let now = now();
        let index = NamedIndex {
            store: &store,
            name: &self.name,
            now: &now,
        };
        show(printer, "created", &self.name, &index.create(images)?)
    }
}

impl Add {
    fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let _lock = store.share()?;
        let images = found(&store, &self.registries, &self.image, self.platform.as_ref(), printer)?;
        let now = now();
        let index = NamedIndex {
            store: &store,
            name: &self.name,
            now: &now,
        };
        show(printer, "changed", &self.name, &index.add(&images)?)
    }
}

impl Remove {
    fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let _lock = store.share()?;
        let now = now();
        let index = NamedIndex {
            store: &store,
            name: &self.name,
            now: &now,
        };
        show(printer, "changed", &self.name, &index.remove(&self.member)?)
    }
}

impl Inspect {
    fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let located = locate(root, &self.image)?;
        let index = image_index::read(&*located.source, &located.root).map_err(|error| located.explain(error))?;
        let document = serde_json::to_value(index)
            .map_err(|error| Error::new(ErrorKind::Internal, "cannot show the index as JSON").because(error))?;
        printer.result(&document, |document| format!("{document:#}"))
    }
}

impl PushAll {
    fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let located = locate(root, &self.image)?;
        if image_index::read(&*located.source, &located.root)?.manifests.is_empty() {
            let what = format!("the index {} is empty", self.image);
            return Err(Error::new(ErrorKind::Input, what)
                .hint(format!("add images with `sealrs manifest add {} IMAGE`", self.image)));
        }
        Push::all_of(self.image, self.destination, self.registries).run(root, printer)
    }
}

/// The images of one platform each that a user named.
fn found(
    store: &Store,
    registries: &Registries,
    image: &str,
    platform: Option<&Platform>,
    printer: &Printer,
) -> Result<Vec<Descriptor>> {
    let client = registries.client()?;
    let puller = Puller {
        store,
        client: &client,
        policy: PullPolicy::Missing,
        jobs: registries.jobs,
    };
    image_index::find(&puller, image, platform, &*printer.progress())
}

fn show(printer: &Printer, verb: &str, name: &Reference, changed: &Changed) -> Result<()> {
    let rows = |members: &[Descriptor]| -> Vec<serde_json::Value> {
        let row = |member: &Descriptor| {
            let platform = member.platform.as_ref().map(ToString::to_string);
            serde_json::json!({"platform": platform, "digest": member.digest})
        };
        members.iter().map(row).collect()
    };
    let document = serde_json::json!({
        "name": name.familiar(),
        "digest": changed.root.digest,
        "platforms": rows(&changed.index.manifests),
        "removed": rows(&changed.gone),
    });
    printer.result(&document, |_| {
        let mut text = format!("{verb} {} {}", name.familiar(), changed.root.digest);
        let members = changed.index.manifests.iter().map(|member| ("", member));
        for (note, member) in members.chain(changed.gone.iter().map(|member| (", taken out", member))) {
            let platform = member.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("\n  {platform} {}{note}", member.digest));
        }
        text
    })
}
