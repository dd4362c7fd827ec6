//! `sealrs load`

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use sealrs_image::archive::{Archive, Received, open_stream};
use sealrs_image::copy::{Copied, StoreSink, copy};
use sealrs_image::digest::Digest;
use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::reference::Reference;
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;
use sealrs_image::store::Store;
use serde::Serialize;

use super::{cores, tell_kind};
use crate::printer::Printer;

/// Read the images of an archive file into the store: sealrs's own, skopeo's, or Docker's.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sealrs load -i k3s.tar
  ssh build sealrs save k3s:v1 -o - | sealrs load -i -")]
pub(crate) struct Load {
    /// Archive file, the first part of one, or `-` for one that comes through a pipe.
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
        let place = || match self.input == Path::new("-") {
            true => "cannot load the archive from standard input".to_owned(),
            false => format!("cannot load {}", self.input.display()),
        };
        let loaded = match open_stream(&self.input)? {
            Some((input, origin)) => {
                let store = Store::open(root)?;
                let _lock = store.share()?;
                let mut received = Received::read(input, origin, &store, &*printer.progress()).context(place)?;
                let images = self.images(received.images())?;
                let mut loaded = Vec::new();
                for (descriptor, names) in images {
                    let copied = take_in(&store, &received, &descriptor, &names, printer).context(place)?;
                    let copied = received.account(&descriptor, copied).context(place)?;
                    loaded.push(told(&descriptor, &names, copied));
                }
                loaded
            }
            None => {
                let archive = Archive::open(&self.input)?;
                let images = self.images(archive.images())?;
                let store = Store::open(root)?;
                let _lock = store.share()?;
                let explained = |error| archive.explain(error);
                for (descriptor, _) in &images {
                    archive
                        .check_complete(descriptor, Some(&store))
                        .map_err(explained)
                        .context(place)?;
                }
                let mut loaded = Vec::new();
                for (descriptor, names) in images {
                    let copied = take_in(&store, &archive, &descriptor, &names, printer)
                        .map_err(explained)
                        .context(place)?;
                    loaded.push(told(&descriptor, &names, copied));
                }
                loaded
            }
        };
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

    /// The images of an archive, each once with all its names.
    fn images(&self, listed: &[(Option<Reference>, Descriptor)]) -> Result<Vec<(Descriptor, Vec<Reference>)>> {
        let mut images: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
        for (name, descriptor) in listed {
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

fn take_in(
    store: &Store,
    source: &dyn Source,
    image: &Descriptor,
    names: &[Reference],
    printer: &Printer,
) -> Result<Copied> {
    let sink = StoreSink {
        store,
        root: image.clone(),
        names: names.to_vec(),
    };
    let copied = copy(source, image, Box::new(sink), cores(), &*printer.progress())?;
    let name = names
        .first()
        .map_or_else(|| image.digest.to_string(), Reference::familiar);
    tell_kind(store, image, &name, printer);
    Ok(copied)
}

fn told(image: &Descriptor, names: &[Reference], copied: Copied) -> Loaded {
    Loaded {
        names: names.iter().map(Reference::familiar).collect(),
        digest: image.digest,
        bytes: copied.bytes,
        blobs: copied.blobs,
        skipped: copied.skipped,
    }
}
