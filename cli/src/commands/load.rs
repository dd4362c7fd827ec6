//! `sealrs load`

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::archive::Archive;
use sealrs_image::copy::{StoreSink, copy};
use sealrs_image::digest::Digest;
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::reference::Reference;
use sealrs_image::spec::Descriptor;
use sealrs_image::store::Store;
use serde::Serialize;

use crate::printer::Printer;

/// How many blobs are copied at once: hashing is what takes the time, so as many as there are cores.
fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Read the images of an archive file into the store: sealrs's own, skopeo's, or Docker's.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sealrs load -i k3s.tar")]
pub(crate) struct Load {
    /// Archive file.
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,

    /// Name for the image, instead of the one in the file.
    #[arg(short, long, value_name = "NAME")]
    tag: Option<Reference>,
}

#[derive(Debug, Serialize)]
struct Loaded {
    names: Vec<String>,
    digest: Digest,
    bytes: u64,
    blobs: u64,
    skipped: u64,
}

impl Load {
    pub(crate) fn run(self, root: &Path, printer: &Printer) -> Result<()> {
        let archive = Archive::open(&self.input)?;
        let images = self.images(&archive)?;
        let store = Store::open(root)?;
        let _lock = store.share()?;
        let mut loaded = Vec::new();
        for (descriptor, names) in images {
            let sink = StoreSink {
                store: &store,
                root: descriptor.clone(),
                names: names.clone(),
            };
            let copied = copy(&archive, &descriptor, Box::new(sink), jobs(), &*printer.progress())
                .context(|| format!("cannot load {}", self.input.display()))?;
            loaded.push(Loaded {
                names: names.iter().map(Reference::familiar).collect(),
                digest: descriptor.digest,
                bytes: copied.bytes,
                blobs: copied.blobs,
                skipped: copied.skipped,
            });
        }
        printer.result(&loaded, |loaded| {
            let line = |image: &Loaded| {
                let name = if image.names.is_empty() {
                    format!("{} (it has no name: use `sealrs tag`)", image.digest)
                } else {
                    image.names.join(", ")
                };
                format!(
                    "loaded {name} ({} in {} blobs, {} were there)\n",
                    HumanBytes(image.bytes),
                    image.blobs,
                    image.skipped
                )
            };
            loaded.iter().map(line).collect()
        })
    }

    /// The images of the archive, each once with all its names.
    fn images(&self, archive: &Archive) -> Result<Vec<(Descriptor, Vec<Reference>)>> {
        let mut images: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
        for (name, descriptor) in archive.images() {
            match images.iter_mut().find(|(known, _)| known.digest == descriptor.digest) {
                Some((_, names)) => names.extend(name.clone()),
                None => images.push((descriptor.clone(), name.iter().cloned().collect())),
            }
        }
        if let Some(tag) = &self.tag {
            match images.as_mut_slice() {
                [(_, names)] => *names = vec![tag.clone()],
                _ => {
                    return Err(Error::new(
                        ErrorKind::Input,
                        format!(
                            "{} holds {} images, so `--tag` fits none",
                            self.input.display(),
                            images.len()
                        ),
                    )
                    .hint("load it without `--tag`, then use `sealrs tag`"));
                }
            }
        }
        Ok(images)
    }
}
