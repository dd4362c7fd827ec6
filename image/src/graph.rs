//! Which blobs an image is made of: index, manifests, configs, layers.

use std::collections::BTreeSet;

use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::source::{Source, document};
use crate::spec::{self, Descriptor, Index, Manifest, media_type};

/// An image nests at most this deep; deeper is an attack or a defect.
pub(crate) const MAX_DEPTH: usize = 4;

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
                format!("{} of {} nests too deep", descriptor.digest, self.source.origin()),
            ));
        }
        let place = || format!("cannot read image {} of {}", descriptor.digest, self.source.origin());
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
            for blob in [manifest.config].into_iter().chain(manifest.layers) {
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

/// Whether a blob is JSON, as documents and configs are: small, and wanted before the payload.
#[must_use]
pub fn is_json(descriptor: &Descriptor) -> bool {
    descriptor.media_type.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::MAX_DOCUMENT;
    use crate::testing::Memory;

    fn index(memory: &mut Memory, members: Vec<Descriptor>) -> Descriptor {
        let bytes = spec::canonical(&Index::new(members)).unwrap();
        memory.add(media_type::INDEX, bytes)
    }

    fn image(memory: &mut Memory, layers: &[&str]) -> Descriptor {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| memory.add(media_type::LAYER, layer.as_bytes()))
            .map(|layer| (layer.clone(), layer.digest))
            .collect();
        memory.image(layers)
    }

    #[test]
    fn every_blob_comes_once_and_before_what_names_it() {
        let mut memory = Memory::default();
        let one = image(&mut memory, &["shared", "one", "shared"]);
        let two = image(&mut memory, &["two", "shared"]);
        let root = index(&mut memory, vec![one.clone(), two.clone(), one.clone()]);
        let found = blobs(&memory, &root).unwrap();
        let mut digests: Vec<_> = found.iter().map(|blob| blob.digest).collect();
        let at = |blob: &Descriptor| digests.iter().position(|digest| *digest == blob.digest);
        assert_eq!(at(&root), Some(found.len() - 1));
        assert_eq!(at(&one), Some(3), "after its two layers and its config");
        assert_eq!(found.len(), 3 + 2 + 2 + 1);
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), found.len());
    }

    #[test]
    fn a_platform_that_was_not_shipped_is_left_out_and_a_missing_image_is_not() {
        let mut memory = Memory::default();
        let (one, two) = (image(&mut memory, &["one"]), image(&mut memory, &["two"]));
        let root = index(&mut memory, vec![one.clone(), two.clone()]);
        memory.forget(one.digest);
        let found = blobs(&memory, &root).unwrap();
        assert_eq!(found.len(), 4, "two's layer, config and manifest, and the index");
        let error = blobs(&memory, &one).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        // A damaged one is no absent one.
        memory.damage(two.digest, |bytes| bytes[0] ^= 1);
        let error = blobs(&memory, &root).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(format!("{error:?}").contains(&two.digest.to_string()));
    }

    #[test]
    fn what_nests_too_deep_or_is_too_large_is_refused() {
        let mut memory = Memory::default();
        let mut root = image(&mut memory, &["layer"]);
        for depth in 1..=5 {
            root = index(&mut memory, vec![root]);
            assert_eq!(blobs(&memory, &root).is_ok(), depth <= 4, "{depth}");
        }
        root.size = MAX_DOCUMENT + 1;
        let error = blobs(&memory, &root).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        let text = memory.add(media_type::MANIFEST, b"no JSON".as_slice());
        let error = blobs(&memory, &text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
    }
}
