//! Image lists: one container image a line, with comments; and the lock that says what they were resolved to.

use std::collections::BTreeMap;

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::platform::Platform;
use sealrs_image::reference::Reference;
use serde::{Deserialize, Serialize};

/// Where the lists lie in the rootfs.
pub(crate) const LIST_PATHS: [&str; 2] = ["imageList", "manifests/imageList"];
/// Where the lock lies in the rootfs.
pub(crate) const LOCK_PATH: &str = "images.lock";

/// A container image that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The whole reference.
    pub(crate) reference: Reference,
    /// Every place that names it: `manifests/imageList:3`.
    pub(crate) asked_by: Vec<String>,
}

/// Reads a list. `origin` names it in errors and in the lock.
///
/// # Errors
/// [`ErrorKind::Input`] with every line that is no reference.
pub(crate) fn parse(text: &str, origin: &str) -> Result<Vec<Wanted>> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut wrong = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.split(" #").next().unwrap_or(line).trim();
        let line = line.trim_matches(['"', '\'']).trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{origin}:{}", number + 1);
        match line.parse::<Reference>() {
            Ok(reference) => wanted.push(Wanted {
                reference,
                asked_by: vec![place],
            }),
            Err(error) => wrong.push(format!("{place}: {error}")),
        }
    }
    if wrong.is_empty() {
        return Ok(wanted);
    }
    Err(Error::new(
        ErrorKind::Input,
        format!("{origin} names images that can't be understood"),
    )
    .because(Error::new(ErrorKind::Input, wrong.join("\n")))
    .hint("write one image a line, for instance `docker.io/library/nginx:1.27`; comments start with `#`"))
}

/// Joins lists: each image once, with all who asked for it.
#[must_use]
pub(crate) fn join(lists: Vec<Wanted>) -> Vec<Wanted> {
    let mut joined: BTreeMap<Reference, Vec<String>> = BTreeMap::new();
    for wanted in lists {
        let asked_by = joined.entry(wanted.reference).or_default();
        for place in wanted.asked_by {
            if !asked_by.contains(&place) {
                asked_by.push(place);
            }
        }
    }
    joined
        .into_iter()
        .map(|(reference, asked_by)| Wanted { reference, asked_by })
        .collect()
}

/// `images.lock`: what each image of the lists was when the ClusterImage was built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lock {
    /// Always 1.
    pub(crate) schema_version: u32,
    /// Sorted by reference.
    pub(crate) images: Vec<Locked>,
}

/// An entry of the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Locked {
    /// The whole reference.
    pub(crate) image: Reference,
    /// What the reference stood for: an index or a manifest.
    pub(crate) digest: Digest,
    /// Its media type.
    pub(crate) media_type: String,
    /// The platform that is inside.
    pub(crate) platform: Platform,
    /// That platform's manifest.
    pub(crate) manifest: Digest,
    /// Bytes of the manifest, the config and the layers.
    pub(crate) size: u64,
    /// Every place that names it.
    pub(crate) asked_by: Vec<String>,
}

impl Lock {
    /// The lock of an image built on another: its own entries, and those of the base that it does not replace.
    #[must_use]
    pub(crate) fn over(self, base: Self) -> Self {
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
    fn reads_comments_quotes_and_names_every_wrong_line() {
        let list = parse(
            "\u{feff}# base\nnginx\n\n \"docker.io/library/nginx:latest\" # again\r\nquay.io/a/b:1\n",
            "imageList",
        )
        .unwrap();
        let joined = join(list);
        assert_eq!(joined.len(), 2);
        assert_eq!(joined[0].asked_by, ["imageList:2", "imageList:4"]);

        let error = parse("nginx\nUPPER/x\n{{ .Values.image }}\n", "m/imageList").unwrap_err();
        let causes = error.causes().join("\n");
        assert!(
            causes.contains("m/imageList:2") && causes.contains("m/imageList:3"),
            "{causes}"
        );
    }

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
