//! The paths of the docker-distribution registry's version 2 filesystem layout, relative to the registry's
//! directory.
//!
//! Every blob, manifests included, lies once under `blobs`. Which of them belong to a repository, and what its tags
//! mean, is told by `link` files of one digest each. Only checked names and digests become paths.

use crate::digest::BlobDigest;
use crate::name::{Repository, Tag, UploadId};

/// The folder that holds `blobs` and `repositories`.
pub const ROOT: &str = "docker/registry/v2";

/// The folder of all repositories.
#[must_use]
pub fn repositories() -> String {
    format!("{ROOT}/repositories")
}

/// The file with a blob's bytes.
#[must_use]
pub fn blob_data(digest: impl Into<BlobDigest>) -> String {
    let digest = digest.into();
    let hex = digest.hex();
    let folder: String = hex.chars().take(2).collect();
    format!("{ROOT}/blobs/{}/{folder}/{hex}/data", digest.algorithm())
}

/// The folder of a repository's manifests and tags.
#[must_use]
pub fn manifests(repository: &Repository) -> String {
    format!("{ROOT}/repositories/{repository}/_manifests")
}

/// The folder of a repository's configs and layers.
#[must_use]
pub fn layers(repository: &Repository) -> String {
    format!("{ROOT}/repositories/{repository}/_layers")
}

/// The file that makes a config or layer part of a repository.
#[must_use]
pub fn layer_link(repository: &Repository, digest: impl Into<BlobDigest>) -> String {
    format!("{}/{}", layers(repository), link_of(&digest.into()))
}

/// The file that makes a manifest or index part of a repository.
#[must_use]
pub fn revision_link(repository: &Repository, digest: impl Into<BlobDigest>) -> String {
    format!("{}/revisions/{}", manifests(repository), link_of(&digest.into()))
}

/// The folder of a repository's tags.
#[must_use]
pub fn tags(repository: &Repository) -> String {
    format!("{}/tags", manifests(repository))
}

/// The folder of a tag.
#[must_use]
pub fn tag(repository: &Repository, tag: &Tag) -> String {
    format!("{}/{tag}", tags(repository))
}

/// The file that says what a tag means.
#[must_use]
pub fn tag_link(repository: &Repository, tag: &Tag) -> String {
    format!("{}/{tag}/current/link", tags(repository))
}

/// The file that says that a tag means, or once meant, this manifest.
#[must_use]
pub fn tag_index_link(repository: &Repository, tag: &Tag, digest: impl Into<BlobDigest>) -> String {
    format!("{}/{tag}/index/{}", tags(repository), link_of(&digest.into()))
}

/// The folder of what refers to a manifest. The layout has nothing like it, and other registries pass it by.
#[must_use]
pub fn referrers(repository: &Repository, subject: &BlobDigest) -> String {
    let (algorithm, hex) = (subject.algorithm(), subject.hex());
    format!("{}/referrers/{algorithm}/{hex}", manifests(repository))
}

/// The file that says that a manifest refers to `subject`.
#[must_use]
pub fn referrer_link(repository: &Repository, subject: &BlobDigest, digest: &BlobDigest) -> String {
    format!("{}/{}", referrers(repository, subject), link_of(digest))
}

/// The folder of a repository's uploads.
#[must_use]
pub fn uploads(repository: &Repository) -> String {
    format!("{ROOT}/repositories/{repository}/_uploads")
}

/// The folder of an upload.
#[must_use]
pub fn upload(repository: &Repository, id: &UploadId) -> String {
    format!("{}/{id}", uploads(repository))
}

/// The file with what arrived of an upload.
#[must_use]
pub fn upload_data(repository: &Repository, id: &UploadId) -> String {
    format!("{}/data", upload(repository, id))
}

/// The file that says when an upload began.
#[must_use]
pub fn upload_start(repository: &Repository, id: &UploadId) -> String {
    format!("{}/startedat", upload(repository, id))
}

fn link_of(digest: &BlobDigest) -> String {
    format!("{}/{}/link", digest.algorithm(), digest.hex())
}

/// What stands in a `link` file: the digest, without a line end.
#[must_use]
pub fn link_content(digest: impl Into<BlobDigest>) -> String {
    digest.into().to_string()
}

#[cfg(test)]
mod tests {
    use sealrs_image::digest::Digest;

    use super::*;

    #[test]
    fn the_paths_of_the_layout() {
        let digest = Digest::of(b"");
        let hex = digest.hex();
        let repository: Repository = "docker.io/library/nginx".parse().unwrap();
        let tag: Tag = "1.27".parse().unwrap();
        let home = "docker/registry/v2/repositories/docker.io/library/nginx";
        let long = BlobDigest::Sha512([0xab; 64]);
        let long_hex = "ab".repeat(64);
        let id: UploadId = "01234567-89ab-4def-8123-456789abcdef".parse().unwrap();
        for (path, expected) in [
            (
                blob_data(long),
                format!("docker/registry/v2/blobs/sha512/ab/{long_hex}/data"),
            ),
            (
                layer_link(&repository, long),
                format!("{home}/_layers/sha512/{long_hex}/link"),
            ),
            (
                upload_data(&repository, &id),
                format!("{home}/_uploads/01234567-89ab-4def-8123-456789abcdef/data"),
            ),
            (
                referrer_link(&repository, &long, &digest.into()),
                format!("{home}/_manifests/referrers/sha512/{long_hex}/sha256/{hex}/link"),
            ),
            (
                blob_data(digest),
                format!("docker/registry/v2/blobs/sha256/e3/{hex}/data"),
            ),
            (
                layer_link(&repository, digest),
                format!("{home}/_layers/sha256/{hex}/link"),
            ),
            (
                revision_link(&repository, digest),
                format!("{home}/_manifests/revisions/sha256/{hex}/link"),
            ),
            (
                tag_link(&repository, &tag),
                format!("{home}/_manifests/tags/1.27/current/link"),
            ),
            (
                tag_index_link(&repository, &tag, digest),
                format!("{home}/_manifests/tags/1.27/index/sha256/{hex}/link"),
            ),
            (link_content(digest), format!("sha256:{hex}")),
        ] {
            assert_eq!(path, expected);
        }
    }
}
