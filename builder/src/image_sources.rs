//! Places on this machine that have container images, so that a build need not ask registries: archives, layouts, the
//! store, and what docker, podman and containerd keep.

mod containerd;
mod engine;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use sealrs_image::archive::Archive;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layout::Layout;
use sealrs_image::platform::Platform;
use sealrs_image::progress::Progress;
use sealrs_image::reference::Reference;
use sealrs_image::source::Source;
use sealrs_image::spec::{self, Descriptor, MAX_DOCUMENT};
use sealrs_image::store::Store;

/// A place on this machine that has container images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// The store that is built into.
    Store,
    /// Docker's images, by its own program.
    Docker,
    /// Podman's images, by its own program.
    Podman,
    /// Containerd's images in all its namespaces, by `ctr`.
    Containerd,
    /// An archive of any kind, or the folder of an OCI layout.
    Path(PathBuf),
}

impl FromStr for ImageSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "store" => Self::Store,
            "docker" => Self::Docker,
            "podman" => Self::Podman,
            "containerd" => Self::Containerd,
            "" => return Err(Error::new(ErrorKind::Input, "an image source has no name")),
            path => Self::Path(path.into()),
        })
    }
}

/// What opening a source needs.
pub(crate) struct Opening<'b> {
    pub(crate) store: &'b Store,
    pub(crate) platform: &'b Platform,
    /// The images that are looked for.
    pub(crate) wanted: &'b [Reference],
    pub(crate) progress: &'b dyn Progress,
}

/// A source that was opened.
pub(crate) struct Local {
    names: Vec<(Reference, Descriptor)>,
    source: Box<dyn Source>,
}

/// Opens sources, in their order.
///
/// # Errors
/// What is no source, and programs that fail.
pub(crate) fn open(sources: &[ImageSource], opening: &Opening<'_>) -> Result<Vec<Local>> {
    let mut opened = Vec::new();
    for source in sources {
        match source {
            ImageSource::Store => {
                let named = opening.store.list()?.into_iter();
                opened.push(Local {
                    names: named.filter_map(|(name, image)| Some((name?, image))).collect(),
                    source: Box::new(opening.store.clone()),
                });
            }
            ImageSource::Docker => opened.extend(engine::open("docker", &["save"], opening)?),
            ImageSource::Podman => {
                let save = ["save", "--quiet", "--format", "docker-archive", "--multi-image-archive"];
                opened.extend(engine::open("podman", &save, opening)?);
            }
            ImageSource::Containerd => opened.extend(containerd::open()?),
            ImageSource::Path(path) => opened.push(at(path)?),
        }
    }
    Ok(opened)
}

fn at(path: &Path) -> Result<Local> {
    if path.is_dir() {
        let layout = Layout::open(path)?;
        return Ok(Local {
            names: layout.named().to_vec(),
            source: Box::new(layout),
        });
    }
    if !Archive::is_there(path) {
        let what = format!("there is no image source {}", path.display());
        return Err(Error::new(ErrorKind::NotFound, what).hint(
            "name an archive, the folder of an OCI layout, or one of `store`, `docker`, `podman` and `containerd`",
        ));
    }
    Ok(Local::of_archive(Archive::open(path)?))
}

impl Local {
    fn of_archive(archive: Archive) -> Self {
        let named = archive.images().iter().cloned();
        Self {
            names: named.filter_map(|(name, image)| Some((name?, image))).collect(),
            source: Box::new(archive),
        }
    }

    /// The digest of what it has under a name: a pinned one has it in itself.
    pub(crate) fn named(&self, image: &Reference) -> Option<Digest> {
        let under_name = || self.names.iter().find(|(name, _)| name == image);
        image
            .digest()
            .or_else(|| under_name().map(|(_, descriptor)| descriptor.digest))
    }

    /// A document, if it is there.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it has another digest.
    pub(crate) fn document(&self, digest: Digest) -> Result<Option<(Descriptor, Vec<u8>)>> {
        let place = || format!("cannot read {digest} of {}", self.source.origin());
        let reader = match self.source.open(&Descriptor::new("", digest, 0), 0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            reader => reader?,
        };
        let mut bytes = Vec::new();
        reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).or_io(place)?;
        if bytes.len() as u64 > MAX_DOCUMENT || Digest::of(&bytes) != digest {
            return Err(Error::new(ErrorKind::Integrity, place()).because(Error::new(
                ErrorKind::Integrity,
                "its bytes have another digest, or are no document",
            )));
        }
        let kind = spec::media_type_of(&bytes).unwrap_or_default();
        Ok(Some((Descriptor::new(kind, digest, bytes.len() as u64), bytes)))
    }

    pub(crate) fn source(&self) -> &dyn Source {
        &*self.source
    }
}

/// Several sources of blobs, each asked when those before it lack one.
pub(crate) struct InOrder<'b>(pub(crate) Vec<&'b dyn Source>);

impl Source for InOrder<'_> {
    fn origin(&self) -> String {
        self.0.last().map(|source| source.origin()).unwrap_or_default()
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let mut lacking = None;
        for source in &self.0 {
            match source.open(blob, offset) {
                Err(error) if error.kind() == ErrorKind::NotFound => lacking = Some(error),
                opened => return opened,
            }
        }
        Err(lacking.unwrap_or_else(|| Error::new(ErrorKind::NotFound, format!("nothing has {}", blob.digest))))
    }
}

/// Runs a program that lists something, to its end.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|error| cannot_run(&program, error))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        return Err(failed(&program, &said));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn cannot_run(program: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Input, format!("cannot run `{program}`"))
        .because(error)
        .hint(format!(
            "install `{program}`, or leave out this image source: an archive can take its place"
        ))
}

fn failed(program: &str, said: &str) -> Error {
    Error::new(ErrorKind::Input, format!("`{program}` does not give its images"))
        .because(Error::new(ErrorKind::Input, said))
        .hint(format!("see that `{program} images` works for this user"))
}
