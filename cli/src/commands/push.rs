//! `sealrs push`

use std::path::{Path, PathBuf};

use clap::Args;
use sealrs_builder::{Relocated, RelocatedImage, Relocation};
use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::locate::{Located, locate};
use sealrs_image::platform::Platform;
use sealrs_image::push::Pusher;
use sealrs_image::reference::Reference;
use sealrs_image::remote::RegistryName;
use sealrs_image::store::Store;
use sealrs_image::wanted::Wanted;
use sealrs_installer::mirror::{Configuration, Mirror};

use super::moved;
use super::remote::Registries;
use crate::printer::Printer;

/// Send an image of the store, or of an archive file, to a registry. What the registry has is not sent again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs push registry.example.com/edge/k3s:v1
  sealrs push k3s.tar registry.example.com/edge/k3s:v1
  sealrs push k3s.tar --container-images-to registry.local/mirror --mirror-config config")]
pub(crate) struct Push {
    /// Name of an image in the store, the start of its digest, or an archive file.
    #[arg(value_name = "NAME|FILE")]
    image: String,

    /// Name that it gets at the registry; its own if this is not given.
    #[arg(value_name = "DESTINATION")]
    destination: Option<Reference>,

    /// Platform to push, of an image that has several. All of them if it is not given; of container images inside, those
    /// of this host's platform.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    /// Send the container images that are inside, and not the image itself, to this registry, below the path that is
    /// given. Prints their new names, and what containerd and k3s have to know to pull them by their original ones.
    #[arg(long, value_name = "REGISTRY[/PATH]", conflicts_with = "destination")]
    container_images_to: Option<RegistryName>,

    /// Folder to write that configuration into, instead of printing it: `certs.d` for containerd, `registries.yaml` for k3s.
    #[arg(long, value_name = "DIR", requires = "container_images_to")]
    mirror_config: Option<PathBuf>,

    #[command(flatten)]
    registries: Registries,
}

impl Push {
    /// A push of all platforms.
    pub(super) fn all_of(image: String, destination: Option<Reference>, registries: Registries) -> Self {
        Self {
            image,
            destination,
            platform: None,
            container_images_to: None,
            mirror_config: None,
            registries,
        }
    }

    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let store = Store::open(root)?;
        let _lock = store.share()?;
        let located = locate(root, &self.image)?;
        if let Some(to) = &self.container_images_to {
            let sent = self.send_container_images(to, &located, &store, printer);
            return sent.map_err(|error| located.explain(error));
        }
        located.check_complete()?;
        let name = self.destination.or(located.name.clone()).ok_or_else(|| {
            Error::new(
                ErrorKind::Input,
                format!("`{}` has no name to be pushed to", self.image),
            )
            .hint("give one after it: `sealrs push IMAGE registry.example.com/edge/k3s:v1`")
        })?;
        let client = self.registries.client()?;
        let pusher = Pusher {
            store: &store,
            client: &client,
            jobs: self.registries.jobs,
        };
        let wanted = self
            .platform
            .map_or(Wanted::All, |platform| Wanted::Platforms(vec![platform]));
        let (pushed, copied) = pusher
            .push(&*located.source, &located.root, &name, &wanted, &*printer.progress())
            .map_err(|error| located.explain(error))?;
        let document = serde_json::json!({
            "name": name.familiar(),
            "digest": pushed.digest,
            "blobs": copied.blobs,
            "bytes": copied.bytes,
            "skipped": copied.skipped,
            "mounted": copied.mounted,
        });
        printer.result(&document, |_| {
            format!("pushed {} {} ({})", name.familiar(), pushed.digest, moved(&copied))
        })
    }

    fn send_container_images(
        &self,
        to: &RegistryName,
        located: &Located,
        store: &Store,
        printer: &Printer,
    ) -> Result<()> {
        located.check_complete()?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let image = ClusterImage::read(&*located.source, &located.root, &platform)?;
        let client = self.registries.client()?;
        let relocation = Relocation {
            to,
            client: &client,
            store,
            jobs: self.registries.jobs,
            progress: &*printer.progress(),
        };
        let relocated = relocation.send(&*located.source, &image)?;
        let mirror = Mirror {
            url: relocated.registry.url.clone(),
            ca: self.registries.ca_file()?.filter(|_| relocated.registry.verified),
            unverified: relocated.registry.tls && !relocated.registry.verified,
        };
        let configuration = mirror.configuration(&relocated.hosts(), to.path());
        if let Some(folder) = &self.mirror_config {
            configuration.write(folder)?;
        }
        let document = serde_json::json!({
            "images": relocated.images,
            "referrers": relocated.referrers,
            "mirrorConfiguration": configuration,
            "blobs": relocated.copied.blobs,
            "bytes": relocated.copied.bytes,
            "skipped": relocated.copied.skipped,
            "mounted": relocated.copied.mounted,
        });
        printer.result(&document, |_| self.told(&relocated, &configuration))
    }

    /// The new names and the configuration, for people.
    fn told(&self, relocated: &Relocated, configuration: &Configuration) -> String {
        let mut text = String::new();
        for RelocatedImage {
            image,
            name,
            digest,
            index,
        } in &relocated.images
        {
            text.push_str(&format!("{image} -> {name} {digest}"));
            if let Some(index) = index {
                text.push_str(&format!(" (its index was {index})"));
            }
            text.push('\n');
        }
        text.push_str(&format!(
            "pushed {} container images{} ({})\n",
            relocated.images.len(),
            match relocated.referrers {
                0 => String::new(),
                count => format!(" and {count} signatures and the like"),
            },
            moved(&relocated.copied)
        ));
        if let Some(folder) = &self.mirror_config {
            text.push_str(&format!(
                "wrote the configuration to {0}: `certs.d` belongs to containerd's /etc/containerd, `registries.yaml` to \
                 k3s's /etc/rancher/k3s\n",
                folder.display()
            ));
            return text;
        }
        for (host, toml) in &configuration.containerd {
            text.push_str(&format!("\n# /etc/containerd/certs.d/{host}/hosts.toml\n{toml}"));
        }
        text.push_str(&format!("\n# /etc/rancher/k3s/registries.yaml\n{}", configuration.k3s));
        text
    }
}
