//! `images.lock` of a ClusterImage: which container images are inside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ErrorKind, Result, ResultExt as _};
use crate::platform::Platform;
use crate::reference::Reference;

/// Where it lies in the rootfs.
pub const LOCK_PATH: &str = "images.lock";

/// `images.lock`: what each image of the lists was when the ClusterImage was built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// Always 1.
    pub schema_version: u32,
    /// Sorted by reference.
    pub images: Vec<Locked>,
}

/// An entry of the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Locked {
    /// The whole reference.
    pub image: Reference,
    /// What the reference stood for: an index or a manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The platform that is inside.
    pub platform: Platform,
    /// That platform's manifest.
    pub manifest: Digest,
    /// Bytes of the manifest, the config and the layers.
    pub size: u64,
    /// Every place that names it.
    pub asked_by: Vec<String>,
}

impl Lock {
    /// As a file has it.
    ///
    /// # Errors
    /// None that can be met.
    pub fn pretty(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).or_fail(ErrorKind::Internal, || "cannot write images.lock")?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The lock of an image built on another: its own entries, and those of the base that it does not replace.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        let mut images: BTreeMap<Reference, Locked> = BTreeMap::new();
        for locked in base.images.into_iter().chain(self.images) {
            images.insert(locked.image.clone(), locked);
        }
        Self {
            schema_version: 1,
            images: images.into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_over_a_base_keeps_what_it_does_not_replace() {
        let locked = |image: &str, content: &[u8]| Locked {
            image: image.parse().unwrap(),
            digest: Digest::of(content),
            media_type: String::new(),
            platform: Platform::host(),
            manifest: Digest::of(content),
            size: 1,
            asked_by: Vec::new(),
        };
        let base = Lock {
            schema_version: 1,
            images: vec![locked("a", b"1"), locked("b", b"1")],
        };
        let own = Lock {
            schema_version: 1,
            images: vec![locked("b", b"2"), locked("c", b"2")],
        };
        let merged = own.over(base);
        let found: Vec<_> = merged
            .images
            .iter()
            .map(|entry| (entry.image.familiar(), entry.digest))
            .collect();
        assert_eq!(
            found,
            [
                ("a:latest".to_owned(), Digest::of(b"1")),
                ("b:latest".to_owned(), Digest::of(b"2")),
                ("c:latest".to_owned(), Digest::of(b"2"))
            ]
        );
    }
}
