//! The paths of the docker-distribution registry's version 2 filesystem layout, relative to the registry's
//! directory.
//!
//! Every blob, manifests included, lies once under `blobs`. Which of them belong to a repository, and what its tags
//! mean, is told by `link` files of one digest each. Only checked names and digests become paths.

use sealrs_image::digest::Digest;

use crate::name::{Repository, Tag};

/// The folder that holds `blobs` and `repositories`.
pub const ROOT: &str = "docker/registry/v2";

/// The folder of all repositories.
#[must_use]
pub fn repositories() -> String {
    format!("{ROOT}/repositories")
}

/// The file with a blob's bytes.
#[must_use]
pub fn blob_data(digest: &Digest) -> String {
    let hex = digest.hex();
    let folder: String = hex.chars().take(2).collect();
    format!("{ROOT}/blobs/sha256/{folder}/{hex}/data")
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
pub fn layer_link(repository: &Repository, digest: &Digest) -> String {
    format!("{}/sha256/{}/link", layers(repository), digest.hex())
}

/// The file that makes a manifest or index part of a repository.
#[must_use]
pub fn revision_link(repository: &Repository, digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}/revisions/sha256/{hex}/link", manifests(repository))
}

/// The folder of a repository's tags.
#[must_use]
pub fn tags(repository: &Repository) -> String {
    format!("{}/tags", manifests(repository))
}

/// The file that says what a tag means.
#[must_use]
pub fn tag_link(repository: &Repository, tag: &Tag) -> String {
    format!("{}/{tag}/current/link", tags(repository))
}

/// The file that says that a tag means, or once meant, this manifest.
#[must_use]
pub fn tag_index_link(repository: &Repository, tag: &Tag, digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}/{tag}/index/sha256/{hex}/link", tags(repository))
}

/// What stands in a `link` file: the digest, without a line end.
#[must_use]
pub fn link_content(digest: &Digest) -> String {
    digest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_the_layout() {
        let digest = Digest::of(b"");
        let hex = digest.hex();
        let repository: Repository = "docker.io/library/nginx".parse().unwrap();
        let tag: Tag = "1.27".parse().unwrap();
        let home = "docker/registry/v2/repositories/docker.io/library/nginx";
        for (path, expected) in [
            (
                blob_data(&digest),
                format!("docker/registry/v2/blobs/sha256/e3/{hex}/data"),
            ),
            (
                layer_link(&repository, &digest),
                format!("{home}/_layers/sha256/{hex}/link"),
            ),
            (
                revision_link(&repository, &digest),
                format!("{home}/_manifests/revisions/sha256/{hex}/link"),
            ),
            (
                tag_link(&repository, &tag),
                format!("{home}/_manifests/tags/1.27/current/link"),
            ),
            (
                tag_index_link(&repository, &tag, &digest),
                format!("{home}/_manifests/tags/1.27/index/sha256/{hex}/link"),
            ),
            (link_content(&digest), format!("sha256:{hex}")),
        ] {
            assert_eq!(path, expected);
        }
    }
}
