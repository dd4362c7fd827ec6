//! The small files of a registry directory: which blobs make up which image, and what its tags mean.
//!
//! * Every image is stored under its host's folder and its path: `docker.io/library/nginx`,
//!   `localhost_5000/app` (see [`Host::folder`]). So the same path from two hosts stays two images.
//! * A path that only one host uses is stored without the host as well: `library/nginx`. It is the name under which
//!   sealer's images have always answered, and registries that know nothing of hosts' folders find it. A
//!   path whose own first part could be a host's folder (`quay.io/x`, on a mirror) gets no such second name: it would
//!   pass for that host's image.
//! * An image that was asked for by tag and digest answers to both: the tag means the pinned digest.

use std::collections::{BTreeMap, BTreeSet};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::images_lock::Referrer;
use sealrs_image::reference::Reference;

use crate::host::Host;
use crate::layout;
use crate::name::{Repository, Tag};

/// A container image whose blobs are, or will be, in the registry directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// What it was asked for as.
    pub reference: Reference,
    /// What its tag means: the digest of its index or manifest.
    pub root: Digest,
    /// All its manifests and indexes that are kept, [`StoredImage::root`] or not.
    pub manifests: Vec<Digest>,
    /// Its configs and layers.
    pub layers: Vec<Digest>,
    /// What refers to it. Their manifests and layers are among the others.
    pub referrers: Vec<Referrer>,
}

impl StoredImage {
    /// What the tag and a request without one mean: a digest in the reference says it, else the root.
    fn target(&self) -> Digest {
        self.reference.digest().unwrap_or(self.root)
    }

    fn keeps(&self, digest: Digest) -> bool {
        self.root == digest || self.manifests.contains(&digest)
    }
}

/// The files, by their path relative to the registry's directory, that make `images` part of it. The same
/// images give the same files, in whatever order they come. Blobs are not among them.
///
/// # Errors
/// [`ErrorKind::Input`] when two images claim one tag for different digests, or a name is too long for a
/// repository; [`ErrorKind::Internal`] when an image pins a digest that it does not hold.
pub fn link_files(images: &[StoredImage]) -> Result<BTreeMap<String, String>> {
    let hosts_of_path = hosts_by_path(images);
    let mut files = Files::default();
    for image in images {
        let reference = &image.reference;
        let target = image.target();
        if !image.keeps(target) {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("image {reference} was stored without {target}, which it names"),
            ));
        }
        let host = Host::of(reference);
        files.add(Repository::on(&host, reference.path())?, image)?;
        let plain: Repository = reference.path().parse()?;
        let is_only_host = hosts_of_path
            .get(reference.path())
            .is_some_and(|hosts| hosts.len() == 1);
        if is_only_host && !plain.is_on_a_host() {
            files.add(plain, image)?;
        }
    }
    Ok(files.contents)
}

/// The hosts that each path is used on. By folder: an IPv6 address can be written in several ways.
fn hosts_by_path(images: &[StoredImage]) -> BTreeMap<&str, BTreeSet<String>> {
    let mut hosts: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for image in images {
        hosts
            .entry(image.reference.path())
            .or_default()
            .insert(Host::of(&image.reference).folder());
    }
    hosts
}

#[derive(Default)]
struct Files<'a> {
    contents: BTreeMap<String, String>,
    /// Who said what a tag means.
    tagged: BTreeMap<(Repository, Tag), &'a StoredImage>,
}

impl<'a> Files<'a> {
    fn add(&mut self, repository: Repository, image: &'a StoredImage) -> Result<()> {
        for digest in image.manifests.iter().chain([&image.root]) {
            self.link(layout::revision_link(&repository, digest), digest);
        }
        for digest in &image.layers {
            self.link(layout::layer_link(&repository, digest), digest);
        }
        for Referrer { subject, digest, tag } in &image.referrers {
            match tag {
                Some(tag) => {
                    let tag: Tag = tag.parse()?;
                    self.link(layout::tag_link(&repository, &tag), digest);
                    self.link(layout::tag_index_link(&repository, &tag, *digest), digest);
                }
                None => {
                    let link = layout::referrer_link(&repository, &(*subject).into(), &(*digest).into());
                    self.link(link, digest);
                }
            }
        }
        let Some(tag) = image.reference.tag() else {
            return Ok(());
        };
        let tag: Tag = tag.parse()?;
        let target = image.target();
        self.link(layout::tag_link(&repository, &tag), &target);
        self.link(layout::tag_index_link(&repository, &tag, target), &target);
        match self.tagged.insert((repository, tag), image) {
            Some(other) if other.target() != target => Err(conflict(other, image)),
            _ => Ok(()),
        }
    }

    fn link(&mut self, path: String, digest: &Digest) {
        self.contents.insert(path, layout::link_content(digest));
    }
}

fn conflict(one: &StoredImage, other: &StoredImage) -> Error {
    let (name, tag) = (one.reference.repository(), one.reference.tag().unwrap_or_default());
    Error::new(
        ErrorKind::Input,
        format!(
            "`{name}:{tag}` is asked for with two meanings: {} (by `{}`) and {} (by `{}`)",
            one.target(),
            one.reference,
            other.target(),
            other.reference
        ),
    )
    .hint("keep one of the two, or leave the tag out of the one with a digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: &str, root: &str) -> StoredImage {
        StoredImage {
            reference: reference.parse().unwrap(),
            root: Digest::of(root.as_bytes()),
            manifests: vec![Digest::of(root.as_bytes())],
            layers: vec![Digest::of(b"layer")],
            referrers: Vec::new(),
        }
    }

    /// `REPOSITORY:TAG` of all tags.
    fn tags(files: &BTreeMap<String, String>) -> Vec<String> {
        files
            .keys()
            .filter_map(|path| {
                let path = path.strip_prefix("docker/registry/v2/repositories/")?;
                let (repository, tag) = path.strip_suffix("/current/link")?.split_once("/_manifests/tags/")?;
                Some(format!("{repository}:{tag}"))
            })
            .collect()
    }

    #[test]
    fn a_path_of_one_host_also_answers_without_it() {
        let files = link_files(&[image("nginx:1", "a"), image("localhost:5000/app:2", "b")]).unwrap();
        assert_eq!(
            tags(&files),
            [
                "app:2",
                "docker.io/library/nginx:1",
                "library/nginx:1",
                "localhost_5000/app:2"
            ]
        );
        let digest = Digest::of(b"a");
        let home = "docker/registry/v2/repositories/library/nginx";
        let layer = Digest::of(b"layer");
        for (path, content) in [
            (format!("{home}/_layers/sha256/{}/link", layer.hex()), layer),
            (
                format!("{home}/_manifests/revisions/sha256/{}/link", digest.hex()),
                digest,
            ),
            (format!("{home}/_manifests/tags/1/current/link"), digest),
            (
                format!("{home}/_manifests/tags/1/index/sha256/{}/link", digest.hex()),
                digest,
            ),
        ] {
            assert_eq!(files.get(&path), Some(&content.to_string()), "{path}");
        }
        assert_eq!(files.len(), 16);
    }

    #[test]
    fn a_path_of_two_hosts_needs_its_host() {
        let files = link_files(&[
            image("quay.io/app:1", "a"),
            image("ghcr.io/app:1", "b"),
            image("ghcr.io/app:2", "c"),
        ])
        .unwrap();
        assert_eq!(tags(&files), ["ghcr.io/app:1", "ghcr.io/app:2", "quay.io/app:1"]);
    }

    #[test]
    fn a_path_that_looks_like_a_host_keeps_its_host() {
        let files = link_files(&[
            image("mirror.corp/quay.io/x:1", "a"),
            image("mirror.corp/localhost_5000/x:1", "b"),
            image("[::1]:5000/y:1", "c"),
        ])
        .unwrap();
        assert_eq!(
            tags(&files),
            [
                "0_0_0_0_0_0_0_1_5000/y:1",
                "mirror.corp/localhost_5000/x:1",
                "mirror.corp/quay.io/x:1",
                "y:1"
            ]
        );
    }

    #[test]
    fn two_spellings_of_an_address_are_one_host() {
        let files = link_files(&[image("[::1]/y:1", "a"), image("[0::1]/y:2", "b")]).unwrap();
        assert_eq!(
            tags(&files),
            ["0_0_0_0_0_0_0_1/y:1", "0_0_0_0_0_0_0_1/y:2", "y:1", "y:2"]
        );
    }

    #[test]
    fn tag_and_digest_mean_the_same() {
        let index = Digest::of(b"index");
        let mut pinned = image(&format!("nginx:1@{index}"), "manifest");
        pinned.manifests.push(index);
        let files = link_files(&[pinned.clone()]).unwrap();
        let home = "docker/registry/v2/repositories/docker.io/library/nginx/_manifests";
        assert_eq!(
            files.get(&format!("{home}/tags/1/current/link")),
            Some(&index.to_string())
        );
        for digest in [index, Digest::of(b"manifest")] {
            assert!(files.contains_key(&format!("{home}/revisions/sha256/{}/link", digest.hex())));
        }

        let only_digest = image(&format!("nginx@{}", Digest::of(b"a")), "a");
        assert!(tags(&link_files(&[only_digest]).unwrap()).is_empty());

        pinned.manifests.clear();
        assert_eq!(link_files(&[pinned]).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn what_refers_to_an_image_is_found_by_its_subject_or_its_tag() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let mut signed = image("nginx:1", "a");
        signed.referrers = vec![
            Referrer {
                subject: digest("a"),
                digest: digest("sbom"),
                tag: None,
            },
            Referrer {
                subject: digest("a"),
                digest: digest("sig"),
                tag: Some("sha256-a.sig".to_owned()),
            },
        ];
        let files = link_files(&[signed]).unwrap();
        for home in ["library/nginx", "docker.io/library/nginx"] {
            let home = format!("docker/registry/v2/repositories/{home}/_manifests");
            for (path, content) in [
                (
                    format!(
                        "{home}/referrers/sha256/{}/sha256/{}/link",
                        digest("a").hex(),
                        digest("sbom").hex()
                    ),
                    "sbom",
                ),
                (format!("{home}/tags/sha256-a.sig/current/link"), "sig"),
            ] {
                assert_eq!(files.get(&path), Some(&digest(content).to_string()), "{path}");
            }
        }
    }

    #[test]
    fn the_same_tag_cannot_mean_two_digests() {
        let pinned = format!("nginx:1@{}", Digest::of(b"b"));
        let error = link_files(&[image("nginx:1", "a"), image(&pinned, "b")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        for part in ["docker.io/library/nginx:1", &Digest::of(b"a").to_string(), &pinned] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(link_files(&[image("nginx:1", "a"), image("docker.io/nginx:1", "a")]).is_ok());
    }

    #[test]
    fn the_order_of_the_images_does_not_matter() {
        let mut images = [image("a:1", "a"), image("quay.io/b:1", "b"), image("ghcr.io/b:1", "c")];
        let files = link_files(&images).unwrap();
        images.reverse();
        assert_eq!(link_files(&images).unwrap(), files);
    }
}
