//! Which blobs an image is made of: index, manifests, configs, layers.

use std::collections::BTreeSet;

use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::source::{Source, document};
use crate::spec::{self, Descriptor, Index, Manifest, media_type};

/// An image nests at most this deep; deeper is an attack or a defect.
const MAX_DEPTH: usize = 4;

/// All blobs that `root` reaches, each once: children before the documents that name them, `root` last.
///
/// A member of an index that the source lacks is left out: a platform that was not shipped.
///
/// # Errors
/// [`ErrorKind::Integrity`] when a document is damaged or nests too deep; [`ErrorKind::NotFound`] when `root` or a
/// manifest's own parts are missing.
pub fn blobs(source: &dyn Source, root: &Descriptor) -> Result<Vec<Descriptor>> {
    let mut walk = Walk {
        source,
        seen: BTreeSet::new(),
        found: Vec::new(),
    };
    walk.visit(root, 0)?;
    Ok(walk.found)
}

struct Walk<'s> {
    source: &'s dyn Source,
    seen: BTreeSet<crate::digest::Digest>,
    found: Vec<Descriptor>,
}

impl Walk<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<()> {
        if !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!(
                    "{} of {} nests too deep",
                    descriptor.digest,
                    self.source.origin()
                ),
            ));
        }
        let place = || {
            format!(
                "cannot read image {} of {}",
                descriptor.digest,
                self.source.origin()
            )
        };
        if media_type::is_index(&descriptor.media_type) {
            let bytes = document(self.source, descriptor).context(place)?;
            let index: Index = spec::parse(&bytes, &descriptor.digest.to_string())?;
            for member in &index.manifests {
                match self.visit(member, depth + 1) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        self.seen.remove(&member.digest);
                    }
                    other => other?,
                }
            }
        } else if media_type::is_manifest(&descriptor.media_type) {
            let bytes = document(self.source, descriptor).context(place)?;
            let manifest: Manifest = spec::parse(&bytes, &descriptor.digest.to_string())?;
            for blob in manifest.layers.into_iter().chain([manifest.config]) {
                if self.seen.insert(blob.digest) {
                    self.found.push(blob);
                }
            }
        }
        self.found.push(descriptor.clone());
        Ok(())
    }
}

/// Whether a blob is a document that names others, rather than payload.
#[must_use]
pub fn is_document(descriptor: &Descriptor) -> bool {
    media_type::is_index(&descriptor.media_type) || media_type::is_manifest(&descriptor.media_type)
}
