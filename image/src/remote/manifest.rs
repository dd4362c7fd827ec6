//! A registry's answer to the question for a manifest: what it is, and that it is what was expected.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{Descriptor, media_type};

/// What we can read, in the form of an `Accept` header.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or index as it came, with the descriptor that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes that the digest is of.
    pub bytes: Vec<u8>,
}

/// What tells the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl Document {
    /// Judges the bytes that came under the header `content_type`; `expected` is the digest they have to have, if known.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when they have another digest, say different things about what they are, or are
    /// nothing that sealrs reads.
    pub(super) fn new(bytes: Vec<u8>, content_type: Option<&str>, expected: Option<Digest>) -> Result<Self> {
        let digest = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("the registry sent {digest} where {expected} was expected"),
            )
            .hint("the registry's storage or something on the way to it is damaged"));
        }
        let media_type = kind(&bytes, content_type)?;
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        Ok(Self { descriptor, bytes })
    }
}

/// The media type of a document, by its own word and the header's.
fn kind(bytes: &[u8], content_type: Option<&str>) -> Result<String> {
    let header = content_type
        .and_then(|header| header.split(';').next())
        .unwrap_or_default();
    let header = header.trim().to_ascii_lowercase();
    let bad = |what: &str| Error::new(ErrorKind::Integrity, format!("the registry sent {what}"));
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|error| bad("a manifest that cannot be read").because(error))?;
    if header.starts_with("application/vnd.docker.distribution.manifest.v1") || shape.schema_version == Some(1) {
        return Err(bad("a manifest of Docker's old schema 1, which is not supported")
            .hint("push the image again with a client of this decade, for instance `skopeo copy --format v2s2`"));
    }
    // What could be read in two ways would be judged in one and used in the other (CVE-2021-41190).
    let (index, manifest) = (
        shape.manifests.is_some(),
        shape.layers.is_some() || shape.config.is_some(),
    );
    if index == manifest {
        return Err(bad(
            "a document that is neither clearly an index nor clearly a manifest",
        ));
    }
    let known = |name: &str| media_type::is_index(name) || media_type::is_manifest(name);
    let named = match shape.media_type.as_deref() {
        Some(own) if known(own) && known(&header) && own != header => {
            return Err(bad(&format!("a document as `{header}` that calls itself `{own}`")));
        }
        Some(own) if known(own) => own.to_owned(),
        Some(own) => {
            return Err(bad(&format!("a document of the unknown type `{}`", own.escape_debug())));
        }
        None if known(&header) => header,
        None if index => media_type::INDEX.to_owned(),
        None => media_type::MANIFEST.to_owned(),
    };
    if media_type::is_index(&named) == index {
        Ok(named)
    } else {
        Err(bad(&format!("a document that has not the form of its type `{named}`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;
    const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

    #[test]
    fn tells_what_a_document_is() {
        let with = |body: &str, own: &str| {
            body.replace(
                "\"schemaVersion\":2",
                &format!("\"schemaVersion\":2,\"mediaType\":\"{own}\""),
            )
        };
        let parameters = format!("{}; charset=utf-8", media_type::DOCKER_MANIFEST);
        for (body, header, expected) in [
            (INDEX.to_owned(), Some(media_type::INDEX), media_type::INDEX),
            (INDEX.to_owned(), Some(media_type::DOCKER_LIST), media_type::DOCKER_LIST),
            (INDEX.to_owned(), Some("application/json"), media_type::INDEX),
            (MANIFEST.to_owned(), None, media_type::MANIFEST),
            (
                MANIFEST.to_owned(),
                Some(parameters.as_str()),
                media_type::DOCKER_MANIFEST,
            ),
            (
                with(MANIFEST, media_type::DOCKER_MANIFEST),
                Some("text/plain"),
                media_type::DOCKER_MANIFEST,
            ),
        ] {
            let document = Document::new(body.clone().into_bytes(), header, None).unwrap();
            assert_eq!(document.descriptor.media_type, expected, "{body}");
            assert_eq!(document.descriptor.size, body.len() as u64);
        }
        let both = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_owned();
        let old = r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned();
        for (body, header, words) in [
            (both, Some(media_type::INDEX), "neither clearly"),
            ("{}".to_owned(), Some(media_type::INDEX), "neither clearly"),
            (INDEX.to_owned(), Some(media_type::MANIFEST), "not the form"),
            (with(INDEX, media_type::MANIFEST), None, "not the form"),
            (
                with(INDEX, media_type::INDEX),
                Some(media_type::DOCKER_LIST),
                "calls itself",
            ),
            (with(MANIFEST, "application/x"), None, "unknown type"),
            (old.clone(), None, "schema 1"),
            (
                old,
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                "schema 1",
            ),
            ("<html>".to_owned(), Some(media_type::INDEX), "cannot be read"),
        ] {
            let error = Document::new(body.clone().into_bytes(), header, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity);
            assert!(error.to_string().contains(words), "{body}: {error:?}");
        }
    }

    #[test]
    fn a_document_has_the_digest_that_was_asked_for() {
        let bytes = INDEX.as_bytes().to_vec();
        assert!(Document::new(bytes.clone(), None, Some(Digest::of(&bytes))).is_ok());
        let error = Document::new(bytes, None, Some(Digest::of(b""))).unwrap_err();
        assert!(error.to_string().contains("was expected"), "{error:?}");
    }
}
