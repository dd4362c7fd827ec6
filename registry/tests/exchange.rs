//! One directory, two registries: Debian's docker-registry and ours take turns, and skopeo pulls from both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::path::Path;
use std::process::Command;

use sealrs_image::digest::Digest;
use sealrs_registry::links::StoredImage;
use support::{Debian, Image, Ours, ask, copy, have, skopeo, succeed, write_directory};

/// Pulls an image and says what manifest it had.
fn pulled(home: &Path, image: &str) -> Digest {
    let folder = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", folder.path().join("image").display());
    succeed(&mut copy(home, image, &target));
    Digest::of(&std::fs::read(folder.path().join("image/manifest.json")).unwrap())
}

#[test]
fn we_serve_what_docker_registry_wrote() {
    if !have(&Image::TOOLS) || !have(&["docker-registry", "curl"]) {
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = Image::new("one");
    let index = image.index();
    {
        let debian = Debian::start(dir.path());
        succeed(&mut copy(home.path(), &image.source(), &debian.image("library/app:1")));
        succeed(&mut copy(home.path(), &image.source(), &debian.image("deep/er/app:v2")));
        // docker-registry takes no index with a missing member, so this one has just the one that is there.
        let mut whole: serde_json::Value = serde_json::from_slice(&index).unwrap();
        whole["manifests"].as_array_mut().unwrap().truncate(1);
        let file = home.path().join("index.json");
        std::fs::write(&file, whole.to_string()).unwrap();
        succeed(
            Command::new("curl")
                .args([
                    "-sSf",
                    "-X",
                    "PUT",
                    "-H",
                    "Content-Type: application/vnd.oci.image.index.v1+json",
                ])
                .arg("--data-binary")
                .arg(format!("@{}", file.display()))
                .arg(format!("http://{}/v2/library/app/manifests/all", debian.address)),
        );
    }
    let ours = Ours::plain(dir.path());
    let digest = image.manifest;
    for name in [
        "library/app:1",
        "library/app:all",
        "deep/er/app:v2",
        &format!("library/app@{digest}"),
    ] {
        assert_eq!(pulled(home.path(), &ours.image(name)), digest, "{name}");
    }
    let raw =
        succeed(skopeo(home.path()).args(["inspect", "--raw", "--tls-verify=false", &ours.image("library/app:all")]));
    let by_digest = format!("library/app@{}", Digest::of(raw.as_bytes()));
    assert_eq!(pulled(home.path(), &ours.image(&by_digest)), digest);
    let listed = succeed(skopeo(home.path()).args(["list-tags", "--tls-verify=false", &ours.image("library/app")]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["Tags"], serde_json::json!(["1", "all"]));
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn both_registries_serve_what_the_links_say() {
    if !have(&Image::TOOLS) || !have(&["docker-registry"]) {
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (Image::new("one"), Image::new("two"));
    let index = one.index();
    let pinned = Digest::of(&index);
    let images = [
        one.stored_as("docker.io/library/only:1"),
        one.stored_as("quay.io/team/app:v1"),
        two.stored_as("localhost:5000/team/app:v1"),
        two.stored_as(&format!("[::1]:5000/six@{}", two.manifest)),
        StoredImage {
            root: pinned,
            ..one.stored_as(&format!("ghcr.io/many:1@{pinned}"))
        },
    ];
    let blobs = one.blobs.values().chain(two.blobs.values()).chain([&index]);
    write_directory(dir.path(), &images, blobs.map(Vec::as_slice));

    let (ours, debian) = (Ours::plain(dir.path()), Debian::start(dir.path()));
    for (name, expected) in [
        ("docker.io/library/only:1".to_owned(), one.manifest),
        ("library/only:1".to_owned(), one.manifest),
        (format!("library/only@{}", one.manifest), one.manifest),
        ("quay.io/team/app:v1".to_owned(), one.manifest),
        ("localhost_5000/team/app:v1".to_owned(), two.manifest),
        (format!("0_0_0_0_0_0_0_1_5000/six@{}", two.manifest), two.manifest),
        (format!("six@{}", two.manifest), two.manifest),
        ("ghcr.io/many:1".to_owned(), one.manifest),
        (format!("ghcr.io/many@{pinned}"), one.manifest),
        (format!("ghcr.io/many@{}", one.manifest), one.manifest),
    ] {
        for image in [ours.image(&name), debian.image(&name)] {
            assert_eq!(pulled(home.path(), &image), expected, "{image}");
        }
    }
    // docker-registry does not know a repository without tags.
    for (target, debian_agrees) in [
        ("/v2/_catalog", true),
        ("/v2/quay.io/team/app/tags/list", true),
        ("/v2/0_0_0_0_0_0_0_1_5000/six/tags/list", false),
        ("/v2/ghcr.io/many/manifests/1", true),
    ] {
        let accept = "Accept: application/vnd.oci.image.index.v1+json";
        let (mine, theirs) = (
            ask(ours.address, "GET", target, &[accept]),
            ask(debian.address, "GET", target, &[accept]),
        );
        assert_eq!(mine.status, if debian_agrees { theirs.status } else { 200 }, "{target}");
        if debian_agrees {
            assert_eq!(mine.json(), theirs.json(), "{target}");
            for header in ["docker-content-digest", "docker-distribution-api-version", "etag"] {
                assert_eq!(mine.header(header), theirs.header(header), "{header} of {target}");
            }
        }
    }
    assert_eq!(ours.get("/v2/team/app/tags/list").code(), "NAME_UNKNOWN");
    assert_eq!(ours.heard.all(), "");
}
