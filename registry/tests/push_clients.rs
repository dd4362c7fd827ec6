//! Real clients push to us, and Debian's docker-registry serves what they pushed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use sealrs_image::digest::Digest;
use support::{Debian, Image, Ours, arrived, ask, copy, fail, files, have, noise, send, skopeo, succeed};

/// Pulls an image and says what manifest it had.
fn pulled(home: &Path, image: &str) -> Digest {
    let folder = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", folder.path().join("image").display());
    succeed(&mut copy(home, image, &target));
    Digest::of(&fs::read(folder.path().join("image/manifest.json")).unwrap())
}

#[test]
fn skopeo_pushes_and_both_registries_serve_it() {
    if !have(&Image::TOOLS) || !have(&["docker-registry"]) {
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = Ours::open(dir.path());
    let (one, two) = (Image::new("one"), Image::new("two"));
    // The second time all is there already; the third time it is there in another repository.
    for name in ["library/app:1", "library/app:same", "deep/er/app:v2"] {
        succeed(&mut copy(home.path(), &one.source(), &ours.image(name)));
    }
    succeed(&mut copy(home.path(), &two.source(), &ours.image("library/app:2")));
    // A tag that moves, from registry to registry.
    succeed(&mut copy(
        home.path(),
        &ours.image("library/app:1"),
        &ours.image("library/app:moved"),
    ));
    succeed(&mut copy(
        home.path(),
        &ours.image("library/app:2"),
        &ours.image("library/app:moved"),
    ));
    // As docker's schema 2.
    let mut schema_2 = copy(home.path(), &one.source(), &ours.image("library/app:docker"));
    succeed(schema_2.args(["--format", "v2s2"]));

    let debian = Debian::start(dir.path());
    for (name, image) in [
        ("library/app:1", &one),
        ("library/app:same", &one),
        ("library/app:2", &two),
        ("library/app:moved", &two),
        ("deep/er/app:v2", &one),
    ] {
        for place in [ours.image(name), debian.image(name)] {
            assert_eq!(pulled(home.path(), &place), image.manifest, "{place}");
        }
    }
    let schema_2 = "library/app:docker";
    assert_eq!(
        pulled(home.path(), &ours.image(schema_2)),
        pulled(home.path(), &debian.image(schema_2))
    );
    for target in ["/v2/_catalog", "/v2/library/app/tags/list"] {
        let (mine, theirs) = (ours.get(target).json(), ask(debian.address, "GET", target, &[]).json());
        let sorted = |list: &serde_json::Value, field: &str| {
            let mut names: Vec<String> = serde_json::from_value(list[field].clone()).unwrap_or_default();
            names.sort();
            names
        };
        for field in ["repositories", "tags"] {
            assert_eq!(sorted(&mine, field), sorted(&theirs, field), "{target}");
        }
    }

    // skopeo removes the manifest and so all tags that mean it; the rest stays, for both.
    succeed(skopeo(home.path()).args(["delete", "--tls-verify=false", &ours.image("library/app:1")]));
    for place in [ours.image("library/app:same"), debian.image("library/app:same")] {
        let message = fail(&mut copy(home.path(), &place, "dir:/nowhere"));
        assert!(message.contains("manifest unknown"), "{message}");
    }
    assert_eq!(pulled(home.path(), &debian.image("library/app:2")), two.manifest);
    assert_eq!(pulled(home.path(), &debian.image("deep/er/app:v2")), one.manifest);
    assert!(!files(dir.path()).iter().any(|path| path.contains("_uploads")));
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn skopeo_pushes_an_index_with_its_members() {
    if !have(&Image::TOOLS) || !have(&["docker-registry"]) {
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = Ours::open(dir.path());
    let (one, two) = (Image::new("one"), Image::new("two"));
    for image in [&one, &two] {
        let name = format!("many@{}", image.manifest);
        succeed(&mut copy(home.path(), &image.source(), &ours.image(&name)));
    }
    let member = |image: &Image, architecture: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.manifest,
            "size": image.blobs[&image.manifest].len(), "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let members = [member(&one, "amd64"), member(&two, "arm64")];
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": members}).to_string();
    let header = format!("Content-Type: {media_type}");
    let answer = send(
        ours.address,
        "PUT",
        "/v2/many/manifests/1",
        &[&header],
        index.as_bytes(),
    );
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));

    // All of it, to a place where nothing is yet, and from there through docker-registry.
    let mut whole = copy(home.path(), &ours.image("many:1"), &ours.image("mirrored/many:1"));
    succeed(whole.arg("--all"));
    let debian = Debian::start(dir.path());
    for place in [ours.image("mirrored/many:1"), debian.image("mirrored/many:1")] {
        let raw = succeed(skopeo(home.path()).args(["inspect", "--raw", "--tls-verify=false", &place]));
        assert_eq!(raw, index, "{place}");
        for (architecture, image) in [("amd64", &one), ("arm64", &two)] {
            let folder = home.path().join(architecture);
            let target = format!("dir:{}", folder.display());
            let mut command = skopeo(home.path());
            command.args(["--override-arch", architecture]);
            command.args(["copy", "--quiet", "--src-tls-verify=false", &place, &target]);
            succeed(&mut command);
            let manifest = fs::read(folder.join("manifest.json")).unwrap();
            assert_eq!(Digest::of(&manifest), image.manifest, "{place} {architecture}");
        }
    }
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn buildah_pushes_what_it_made() {
    if !have(&["buildah", "skopeo", "docker-registry"]) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this test needs root for buildah");
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = Ours::open(dir.path());
    let (file, policy) = (home.path().join("file"), home.path().join("policy.json"));
    // Several of the pieces that the registry takes in at a time.
    fs::write(&file, noise(5 << 20, 1)).unwrap();
    fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command
            .args(["--storage-driver", "vfs", "--root"])
            .arg(home.path().join("root"));
        command
            .arg("--runroot")
            .arg(home.path().join("run"))
            .args(arguments)
            .env("HOME", home.path());
        succeed(&mut command).trim().to_owned()
    };
    let (policy, file) = (policy.display().to_string(), file.display().to_string());
    let container = buildah(&["from", "--signature-policy", &policy, "scratch"]);
    buildah(&["copy", "--quiet", &container, &file, "/file"]);
    buildah(&[
        "commit",
        "--quiet",
        "--signature-policy",
        &policy,
        &container,
        "localhost/made:1",
    ]);
    let digest_file = home.path().join("digest");
    for (format, name) in [("oci", "made/app:oci"), ("v2s2", "made/app:docker")] {
        let digest_option = format!("--digestfile={}", digest_file.display());
        buildah(&[
            "push",
            "--quiet",
            "--tls-verify=false",
            "--signature-policy",
            &policy,
            "--format",
            format,
            &digest_option,
            "localhost/made:1",
            &ours.image(name),
        ]);
        let digest = fs::read_to_string(&digest_file).unwrap();
        let debian = Debian::start(dir.path());
        for place in [ours.image(name), debian.image(name)] {
            assert_eq!(pulled(home.path(), &place).to_string(), digest.trim(), "{place}");
        }
    }
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn an_upload_that_docker_registry_began_is_finished_here() {
    if !have(&["docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = noise(2 << 20, 9);
    let digest = Digest::of(&bytes);
    let half = bytes.len() / 2;
    let id = {
        let debian = Debian::start(dir.path());
        let answer = send(debian.address, "POST", "/v2/a/blobs/uploads/", &[], b"");
        let location = answer.header("location");
        let target = &location[location.find("/v2/").unwrap()..];
        let answer = send(debian.address, "PATCH", target, &[], &bytes[..half]);
        assert_eq!(answer.status, 202);
        answer.header("docker-upload-uuid").to_owned()
    };
    let ours = Ours::open(dir.path());
    let upload = format!("/v2/a/blobs/uploads/{id}");
    assert_eq!(arrived(ours.address, &upload), half as u64);
    let answer = send(
        ours.address,
        "PUT",
        &format!("{upload}?digest={digest}"),
        &[],
        &bytes[half..],
    );
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    let debian = Debian::start(dir.path());
    let target = format!("/v2/a/blobs/{digest}");
    assert!(ask(debian.address, "GET", &target, &[]).body == bytes);
    assert!(
        !dir.path()
            .join("docker/registry/v2/repositories/a/_uploads")
            .join(id)
            .exists()
    );
    assert_eq!(ours.heard.all(), "");
}
