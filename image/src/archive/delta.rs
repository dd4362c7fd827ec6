//! Archives that hold only what another image lacks (`save --since`), and which image that is.

use std::collections::BTreeSet;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::Archive;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::graph;
use crate::reference::Reference;
use crate::source::{Extent, Source};
use crate::spec::{self, Descriptor};
use crate::store::Store;

/// Annotation of an image in an archive's `index.json`: the images whose blobs were left out, a list of [`Base`]s as
/// JSON.
const BASES: &str = "dev.sealrs.archive.bases";

/// An image that the other side has to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Its name where the archive was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Reference>,
}

impl std::fmt::Display for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({})", name.familiar(), self.digest),
            None => write!(f, "{}", self.digest),
        }
    }
}

/// What an archive need not hold, because the other side has it.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    bases: Vec<Base>,
    /// Layers of the bases. Documents always travel, so that an archive tells what it is about.
    without: BTreeSet<Digest>,
}

impl Delta {
    /// Leaves out of the image under `image` what the image `base` of another source has. A base that has nothing
    /// in common with the image is not needed, so it is not asked for later.
    ///
    /// # Errors
    /// What reading the documents of both images meets.
    pub fn since(
        &mut self,
        source: &dyn Source,
        image: &Descriptor,
        base_source: &dyn Source,
        base: &Descriptor,
        name: Option<Reference>,
    ) -> Result<()> {
        let there: BTreeSet<Digest> = layers(base_source, base)?.map(|layer| layer.digest).collect();
        let before = self.without.len();
        let shared = layers(source, image)?.map(|layer| layer.digest);
        self.without.extend(shared.filter(|layer| there.contains(layer)));
        if self.without.len() > before {
            self.bases.push(Base {
                digest: base.digest,
                name,
            });
        }
        Ok(())
    }

    /// The images that the other side has to have.
    #[must_use]
    pub fn bases(&self) -> &[Base] {
        &self.bases
    }

    pub(super) fn leaves_out(&self, blob: &Descriptor) -> bool {
        self.without.contains(&blob.digest)
    }

    /// Writes the bases down in an entry of `index.json`.
    pub(super) fn note(&self, entry: &mut Descriptor) -> Result<()> {
        if self.bases.is_empty() {
            return Ok(());
        }
        let bases = String::from_utf8_lossy(&spec::canonical(&self.bases)?).into_owned();
        entry.annotations.insert(BASES.to_owned(), bases);
        Ok(())
    }
}

fn layers(source: &dyn Source, image: &Descriptor) -> Result<impl Iterator<Item = Descriptor>> {
    let blobs = graph::blobs(source, image)?.into_iter();
    Ok(blobs.filter(|blob| !graph::is_json(blob)))
}

/// Takes the bases out of an entry of `index.json`: they say something about the archive, not about the image.
pub(super) fn take_bases(entry: &mut Descriptor) -> Result<Vec<Base>> {
    match entry.annotations.remove(BASES) {
        Some(text) => spec::parse(text.as_bytes(), &format!("annotation `{BASES}` of {}", entry.digest)),
        None => Ok(Vec::new()),
    }
}

/// Makes sure that the store holds the images without which what `origin` names is not whole.
pub(super) fn check_bases(origin: &str, bases: &[Base], store: Option<&Store>) -> Result<()> {
    let absent = absent(bases, store)?;
    match absent.is_empty() {
        true => Ok(()),
        false => Err(needs(origin, &absent)),
    }
}

/// The bases that the store does not list.
fn absent(bases: &[Base], store: Option<&Store>) -> Result<Vec<Base>> {
    if bases.is_empty() {
        return Ok(Vec::new());
    }
    let images = store.map(Store::list).transpose()?.unwrap_or_default();
    let listed: BTreeSet<Digest> = images.into_iter().map(|(_, image)| image.digest).collect();
    let absent = bases.iter().filter(|base| !listed.contains(&base.digest));
    Ok(absent.cloned().collect())
}

/// That a store lacks images.
fn needs(origin: &str, bases: &[Base]) -> Error {
    let names: Vec<String> = bases.iter().map(ToString::to_string).collect();
    let (images, them) = match names.as_slice() {
        [_] => ("image", "it"),
        _ => ("images", "them"),
    };
    Error::new(
        ErrorKind::NotFound,
        format!(
            "{origin} needs the {images} {}, which the store has not",
            names.join(" and ")
        ),
    )
    .hint(format!(
        "the archive was saved with `--since`: load or pull {them} first, or save it without `--since`"
    ))
}

impl Archive {
    /// Whether the blob is inside.
    #[must_use]
    pub fn holds(&self, blob: &Descriptor) -> bool {
        self.blobs.contains_key(&blob.digest)
    }

    /// Makes sure that archive and store together hold all of the image under `root`, before anything is written.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming the image that the store has to have, or the blob.
    pub fn check_complete(&self, root: &Descriptor, store: Option<&Store>) -> Result<()> {
        for blob in graph::blobs(self, root)? {
            let stored = || store.and_then(|store| store.size(&blob.digest)) == Some(blob.size);
            if !self.holds(&blob) && !stored() {
                return Err(self.lacks(&blob, store));
            }
        }
        Ok(())
    }

    pub(super) fn lacks(&self, blob: &Descriptor, store: Option<&Store>) -> Error {
        let lacking = Error::new(
            ErrorKind::NotFound,
            format!("{} lacks blob {}", self.origin(), blob.digest),
        );
        let absent = match absent(&self.bases, store) {
            Ok(absent) => absent,
            Err(error) => return error,
        };
        match (self.bases.first(), absent.is_empty()) {
            (None, _) if let Some(url) = blob.urls.first() => lacking.hint(format!(
                "other tools leave out what may not be passed on (this is at {}): pull the image from a registry",
                url.escape_debug()
            )),
            (None, _) => lacking.hint("save the image again, or copy the file again from where it came"),
            (Some(_), false) => needs(&self.origin(), &absent).because(lacking),
            (Some(base), true) => lacking.hint(format!(
                "the image {base} of the store should have it: load or pull that image again"
            )),
        }
    }
}

/// An archive together with the store that holds what it lacks.
#[derive(Debug)]
pub struct Completed {
    /// Asked first.
    pub archive: Archive,
    /// Holds the images that the archive was saved `--since`.
    pub store: Store,
}

impl Source for Completed {
    fn origin(&self) -> String {
        self.archive.origin()
    }

    fn extent(&self, blob: &Descriptor) -> Option<Extent> {
        self.archive.extent(blob).or_else(|| self.store.extent(blob))
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        if self.archive.holds(blob) {
            return self.archive.open(blob, offset);
        }
        self.store.open(blob, offset).map_err(|error| match error.kind() {
            ErrorKind::NotFound => self.archive.lacks(blob, Some(&self.store)),
            _ => error,
        })
    }
}
