use std::fs;

use sealrs_image::digest::Digest;

use super::*;
use crate::links::{StoredImage, link_files};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
const LAYER: &[u8] = b"layer";

/// A registry directory that holds an image under each of these names.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn with(images: &[&str]) -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        let images: Vec<StoredImage> = images
            .iter()
            .map(|name| StoredImage {
                reference: name.parse().unwrap(),
                root: Digest::of(MANIFEST),
                manifests: Vec::new(),
                layers: vec![Digest::of(LAYER)],
                referrers: Vec::new(),
            })
            .collect();
        for (path, content) in link_files(&images).unwrap() {
            scratch.write(&path, content.as_bytes());
        }
        for bytes in [MANIFEST, LAYER] {
            scratch.write(&layout::blob_data(Digest::of(bytes)), bytes);
        }
        scratch
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Makes room for something else at `path`.
    fn clear(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::remove_file(&path).unwrap();
        path
    }

    fn open(&self) -> Directory {
        Directory::open(self.0.path()).unwrap()
    }
}

fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

fn digest(bytes: &[u8]) -> BlobDigest {
    Digest::of(bytes).into()
}

#[test]
fn finds_what_was_stored() {
    let scratch = Scratch::with(&["nginx:1"]);
    let directory = scratch.open();
    assert!(directory.is_in_use().unwrap());
    for name in ["library/nginx", "docker.io/library/nginx"] {
        let name = repository(name);
        let digest = directory.tag(&name, &"1".parse().unwrap()).unwrap().unwrap();
        let manifest = directory.manifest(&name, &digest).unwrap().unwrap();
        assert_eq!(
            (manifest.bytes.as_slice(), manifest.media_type.as_str()),
            (MANIFEST, media_type::MANIFEST)
        );
        let blob = directory.blob(&name, &Digest::of(LAYER).into()).unwrap().unwrap();
        assert_eq!(
            (io::read_to_string(blob.file).unwrap().as_bytes(), blob.size),
            (LAYER, 5)
        );
        assert!(directory.tag(&name, &"2".parse().unwrap()).unwrap().is_none());
        assert!(directory.manifest(&name, &Digest::of(LAYER).into()).unwrap().is_none());
        assert!(directory.blob(&name, &Digest::of(MANIFEST).into()).unwrap().is_none());
    }
    assert!(
        directory
            .blob(&repository("other"), &Digest::of(LAYER).into())
            .unwrap()
            .is_none()
    );
}

#[test]
fn each_host_gets_its_own_image_and_no_other() {
    let scratch = Scratch::with(&[
        "nginx:1",
        "quay.io/app:1",
        "ghcr.io/app:1",
        "localhost:5000/team/app:1",
        "mirror.corp/quay.io/tool:1",
    ]);
    // As a registry that knows nothing of hosts stores an image.
    scratch.write(
        &layout::tag_link(&repository("classic/app"), &"1".parse().unwrap()),
        b"",
    );
    scratch.write(
        &layout::tag_link(&repository("quay.io/dotted/app"), &"1".parse().unwrap()),
        b"",
    );
    let directory = scratch.open();
    for (name, upstream, found) in [
        ("library/nginx", None, Some("library/nginx")),
        ("docker.io/library/nginx", None, Some("docker.io/library/nginx")),
        ("library/nginx", Some("docker.io"), Some("docker.io/library/nginx")),
        (
            "library/nginx",
            Some("index.docker.io"),
            Some("docker.io/library/nginx"),
        ),
        ("library/nginx", Some("quay.io"), None),
        ("app", None, None),
        ("app", Some("quay.io"), Some("quay.io/app")),
        ("app", Some("ghcr.io"), Some("ghcr.io/app")),
        ("app", Some("docker.io"), None),
        ("quay.io/app", None, Some("quay.io/app")),
        ("quay.io/app", Some("mirror.corp"), None),
        ("quay.io/tool", Some("mirror.corp"), Some("mirror.corp/quay.io/tool")),
        ("tool", Some("quay.io"), None),
        ("quay.io/tool", None, None),
        ("team/app", Some("localhost:5000"), Some("localhost_5000/team/app")),
        ("team/app", Some("localhost:5001"), None),
        ("classic/app", None, Some("classic/app")),
        ("classic/app", Some("docker.io"), Some("classic/app")),
        ("dotted/app", Some("docker.io"), None),
        // A mirror's path that has the host in it.
        (
            "docker.io/library/nginx",
            Some("docker.io"),
            Some("docker.io/library/nginx"),
        ),
        ("quay.io/app", Some("ghcr.io"), None),
        ("library", None, None),
        ("docker.io", None, None),
    ] {
        let upstream: Option<Host> = upstream.map(|host| host.parse().unwrap());
        let result = directory.find(&repository(name), upstream.as_ref()).unwrap();
        assert_eq!(result.as_ref().map(Repository::as_str), found, "{name} of {upstream:?}");
    }
}

#[test]
fn lists_tags_and_repositories() {
    let scratch = Scratch::with(&["a/b:1", "a/b:v2", "a/b/c:1", "quay.io/x:1"]);
    scratch.write("docker/registry/v2/repositories/a/b/_manifests/tags/.bad/x", b"");
    scratch.write("docker/registry/v2/repositories/NOT/_manifests/x", b"");
    scratch.write("docker/registry/v2/repositories/stray", b"");
    let directory = scratch.open();
    let all = Page::default();
    assert_eq!(directory.tags(&repository("a/b"), &all).unwrap().names, ["1", "v2"]);
    let expected = ["a/b", "a/b/c", "docker.io/a/b", "docker.io/a/b/c", "quay.io/x", "x"];
    assert_eq!(directory.repositories(&all).unwrap().names, expected);
}

#[test]
fn an_empty_directory_has_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = Directory::open(scratch.path()).unwrap();
    assert!(!directory.is_in_use().unwrap());
    assert!(directory.repositories(&Page::default()).unwrap().names.is_empty());
    assert!(directory.find(&repository("a"), None).unwrap().is_none());

    let error = Directory::open(&scratch.path().join("missing")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.remedy().unwrap().contains("docker/registry/v2"));
}

#[test]
fn damage_is_an_error_and_not_an_answer() {
    let scratch = Scratch::with(&["a.b/c:1"]);
    let name = repository("a.b/c");
    let (manifest, layer) = (digest(MANIFEST), digest(LAYER));
    let directory = scratch.open();
    let integrity = |result: Result<bool>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Integrity);

    for bad in [
        "",
        "sha256:",
        &format!("{manifest}\n"),
        "../../../etc/passwd",
        &"x".repeat(1000),
    ] {
        scratch.write(&layout::tag_link(&name, &"1".parse().unwrap()), bad.as_bytes());
        integrity(directory.tag(&name, &"1".parse().unwrap()).map(|found| found.is_some()));
    }
    for bad in [&b"{}"[..], b"", b"not what the digest says"] {
        scratch.write(&layout::blob_data(manifest), bad);
        integrity(directory.manifest(&name, &manifest).map(|found| found.is_some()));
    }
    let data = scratch.clear(&layout::blob_data(layer));
    assert!(directory.blob(&name, &layer).unwrap().is_none());
    rustix::fs::mkfifoat(rustix::fs::CWD, &data, 0o600.into()).unwrap();
    integrity(directory.blob(&name, &layer).map(|found| found.is_some()));
}

#[test]
fn links_do_not_lead_out() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let scratch = Scratch::with(&["a.b/c:1"]);
    let (name, layer) = (repository("a.b/c"), digest(LAYER));
    let up = format!("{}{}", "../".repeat(40), secret.strip_prefix("/").unwrap().display());
    for target in [secret.display().to_string(), up] {
        let data = scratch.clear(&layout::blob_data(layer));
        std::os::unix::fs::symlink(&target, &data).unwrap();
        assert!(fs::read(&data).is_ok(), "the test's link has to work");
        assert!(scratch.open().blob(&name, &layer).is_err(), "{target}");
    }
    // A folder of repositories that is really somebody else's.
    let inner = Scratch::with(&["d.e/f:1"]);
    let home = "docker/registry/v2/repositories";
    std::os::unix::fs::symlink(
        inner.0.path().join(home).join("d.e"),
        scratch.0.path().join(home).join("d.e"),
    )
    .unwrap();
    assert!(scratch.open().find(&repository("d.e/f"), None).is_err());
    assert_eq!(
        scratch.open().repositories(&Page::default()).unwrap().names,
        ["a.b/c", "c"]
    );
}

#[test]
fn media_types() {
    for (document, expected) in [
        (
            r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
            Some(media_type::INDEX),
        ),
        (
            r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#,
            Some(media_type::DOCKER_MANIFEST),
        ),
        (r#"{"manifests":[]}"#, Some(media_type::INDEX)),
        (r#"{"config":{},"layers":[]}"#, Some(media_type::MANIFEST)),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, Some(DOCKER_SCHEMA_1)),
        (
            r#"{"schemaVersion":1,"fsLayers":[],"signatures":[]}"#,
            Some(DOCKER_SCHEMA_1_SIGNED),
        ),
        (r#"{"mediaType":"a/b\r\nX: y","manifests":[]}"#, Some(media_type::INDEX)),
        (r#"{"manifests":[],"layers":[]}"#, None),
        ("{}", None),
        ("[]", None),
        ("", None),
    ] {
        assert_eq!(
            media_type_of(document.as_bytes()).ok().as_deref(),
            expected,
            "{document}"
        );
    }
}
