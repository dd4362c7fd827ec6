//! The pull side of the OCI distribution specification, request by request.

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
use std::process::Command;

use sealrs_registry::layout;
use sealrs_registry::links::StoredImage;
use support::{Image, Ours, Sample, copy, fail, have, succeed, write, write_directory};

#[test]
fn manifests_and_their_headers() {
    let sample = Sample::new();
    let ours = Ours::plain(sample.dir.path());
    let digest = sample.manifest.to_string();
    for target in ["1", &digest, &digest.replace(':', "%3A")] {
        let target = format!("/v2/library/app/manifests/{target}");
        let got = ours.ask("GET", &target, &["Accept: application/vnd.oci.image.index.v1+json"]);
        assert_eq!((got.status, got.body.as_slice()), (200, Sample::MANIFEST));
        let head = ours.ask("HEAD", &target, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0));
        for answer in [&got, &head] {
            assert_eq!(
                answer.header("content-type"),
                "application/vnd.oci.image.manifest.v1+json"
            );
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("etag"), format!("\"{digest}\""));
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
            assert_eq!(answer.header("content-length"), Sample::MANIFEST.len().to_string());
        }
        for etag in [
            format!("\"{digest}\""),
            format!("\"x\", W/\"{digest}\""),
            "*".to_owned(),
        ] {
            let answer = ours.ask("GET", &target, &[&format!("If-None-Match: {etag}")]);
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{etag}");
            assert_eq!(answer.header("docker-content-digest"), digest);
        }
        assert_eq!(ours.ask("GET", &target, &["If-None-Match: \"x\""]).status, 200);
    }
}

#[test]
fn the_small_documents() {
    let sample = Sample::new();
    let ours = Ours::plain(sample.dir.path());
    for target in ["/v2/", "/v2"] {
        assert_eq!((ours.get(target).status, ours.get(target).text()), (200, "{}"));
    }
    let tags = ours.get("/v2/library/app/tags/list");
    assert_eq!(tags.json(), serde_json::json!({"name": "library/app", "tags": ["1"]}));
    let referrers = ours.get(&format!("/v2/library/app/referrers/{}", sample.manifest));
    assert_eq!(
        referrers.header("content-type"),
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(referrers.json()["manifests"], serde_json::json!([]));
    assert_eq!(referrers.json()["schemaVersion"], 2);

    // A client of a registry without the referrers API kept them under a tag.
    let signature = sealrs_image::digest::Digest::of(b"signature");
    let list = serde_json::json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": signature, "size": 9,
            "artifactType": "x/signature", "annotations": {"a": "b"}},
    ]});
    let list = list.to_string().into_bytes();
    let image = StoredImage {
        reference: format!("app:sha256-{}", sample.manifest.hex()).parse().unwrap(),
        root: sealrs_image::digest::Digest::of(&list),
        manifests: Vec::new(),
        layers: Vec::new(),
        referrers: Vec::new(),
    };
    write_directory(sample.dir.path(), &[image], [list.as_slice()]);
    let target = format!("/v2/library/app/referrers/{}", sample.manifest);
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(ours.get(&target).json()["manifests"], list["manifests"]);
    for (wanted, count) in [("x/signature", 1), ("x%2Fsignature", 1), ("x/other", 0)] {
        let filtered = ours.get(&format!("{target}?artifactType={wanted}"));
        assert_eq!(
            filtered.json()["manifests"].as_array().unwrap().len(),
            count,
            "{wanted}"
        );
        assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    }
    let nobody = ours.get(&format!("/v2/nobody/referrers/{}", sample.manifest));
    assert_eq!(
        (nobody.status, &nobody.json()["manifests"]),
        (200, &serde_json::json!([]))
    );
}

#[test]
fn lists_come_in_pages() {
    let sample = Sample::new();
    let image = |name: &str| StoredImage {
        reference: name.parse().unwrap(),
        root: sample.manifest,
        manifests: Vec::new(),
        layers: Vec::new(),
        referrers: Vec::new(),
    };
    let images: Vec<StoredImage> = ["app:b", "app:C", "app:a", "quay.io/x:1"].map(image).to_vec();
    write_directory(sample.dir.path(), &images, []);
    let ours = Ours::plain(sample.dir.path());
    for (start, field, expected) in [
        ("/v2/library/app/tags/list", "tags", vec!["1", "a", "b", "C"]),
        (
            "/v2/_catalog",
            "repositories",
            vec!["docker.io/library/app", "library/app", "quay.io/x", "x"],
        ),
    ] {
        assert_eq!(ours.get(start).json()[field], serde_json::json!(expected));
        let (mut seen, mut next) = (Vec::new(), Some(format!("{start}?n=3")));
        while let Some(target) = next {
            let answer = ours.get(&target);
            seen.push(answer.json()[field].as_array().unwrap().clone());
            next = answer
                .header("link")
                .strip_prefix('<')
                .map(|link| link.strip_suffix(">; rel=\"next\"").unwrap().to_owned());
        }
        assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(serde_json::json!(seen.concat()), serde_json::json!(expected));
        assert_eq!(ours.get(&format!("{start}?n=0")).json()[field], serde_json::json!([]));
        assert_eq!(ours.get(&format!("{start}?n=x")).status, 400);
    }
}

#[test]
fn what_is_not_there() {
    let sample = Sample::new();
    let ours = Ours::plain(sample.dir.path());
    let (manifest, layer) = (sample.manifest, sample.layer);
    for (target, status, code) in [
        ("/v2/nothing/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/library/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/library/app/manifests/2".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/library/app/manifests/{layer}"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/library/app/blobs/{manifest}"), 404, "BLOB_UNKNOWN"),
        (format!("/v2/nothing/blobs/{layer}"), 404, "NAME_UNKNOWN"),
        ("/v2/library/app/blobs/sha256:0".to_owned(), 400, "DIGEST_INVALID"),
        ("/elsewhere".to_owned(), 404, "UNSUPPORTED"),
    ] {
        let answer = ours.get(&target);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{target}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        let head = ours.ask("HEAD", &target, &[]);
        assert_eq!((head.status, head.body.len()), (status, 0), "{target}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
        let answer = ours.ask(method, "/v2/library/app/blobs/uploads/", &["Content-Length: 0"]);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (405, "UNSUPPORTED"),
            "{method}"
        );
        assert_eq!(answer.header("allow"), "GET, HEAD");
    }
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn ranges_by_curl() {
    if !have(&["curl"]) {
        return;
    }
    let sample = Sample::new();
    let ours = Ours::plain(sample.dir.path());
    let etag = format!("\"{}\"", sample.layer);
    let curl = |arguments: &[&str]| {
        let format = "%{stderr}%{http_code} %header{content-range} %header{content-length} %header{accept-ranges}";
        let output = Command::new("curl")
            .args(["-sS", "-w", format])
            .args(arguments)
            .arg(format!("http://{}{}", ours.address, sample.blob()))
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    for (arguments, body, told) in [
        (&[][..], "0123456789", "200  10 bytes"),
        (&["-r", "2-4"], "234", "206 bytes 2-4/10 3 bytes"),
        (&["-r", "7-"], "789", "206 bytes 7-9/10 3 bytes"),
        (&["-r", "-2"], "89", "206 bytes 8-9/10 2 bytes"),
        (&["-r", "0-99"], "0123456789", "206 bytes 0-9/10 10 bytes"),
        (&["-r", "0-1,4-5"], "0123456789", "200  10 bytes"),
        (
            &["-r", "2-4", "-H", &format!("If-Range: {etag}")],
            "234",
            "206 bytes 2-4/10 3 bytes",
        ),
        (&["-r", "2-4", "-H", "If-Range: \"x\""], "0123456789", "200  10 bytes"),
        (&["-H", &format!("If-None-Match: {etag}")], "", "304   bytes"),
        (&["--head", "-r", "2-4", "-o", "/dev/null"], "", "200  10 bytes"),
    ] {
        let (got, status) = curl(arguments);
        assert_eq!((got.as_str(), status.as_str()), (body, told), "{arguments:?}");
    }
    let (body, status) = curl(&["-r", "10-"]);
    assert!(status.starts_with("416 bytes */10 "), "{status}");
    assert!(body.contains("RANGE_INVALID"), "{body}");
    let resumed = sample.dir.path().join("resumed");
    fs::write(&resumed, "0123").unwrap();
    curl(&["-C", "-", "-o", &resumed.display().to_string()]);
    assert_eq!(fs::read(&resumed).unwrap(), Sample::LAYER);
}

#[test]
fn an_image_is_given_out_under_its_own_host_only() {
    let dir = tempfile::tempdir().unwrap();
    let blobs: [&[u8]; 3] = [
        br#"{"config":{},"layers":[],"a":1}"#,
        br#"{"config":{},"layers":[],"a":2}"#,
        br#"{"config":{},"layers":[],"a":3}"#,
    ];
    let digests = blobs.map(sealrs_image::digest::Digest::of);
    let image = |name: &str, which: usize| StoredImage {
        reference: name.parse().unwrap(),
        root: digests[which],
        manifests: Vec::new(),
        layers: Vec::new(),
        referrers: Vec::new(),
    };
    let images = [
        image("quay.io/app:1", 0),
        image("ghcr.io/app:1", 1),
        image("library/solo:1", 2),
    ];
    write_directory(dir.path(), &images, blobs);
    let ours = Ours::plain(dir.path());
    for (target, host, found) in [
        ("/v2/app/manifests/1?ns=quay.io", "sea.hub:5000", Some(0)),
        ("/v2/app/manifests/1?ns=ghcr.io", "sea.hub:5000", Some(1)),
        ("/v2/app/manifests/1?ns=docker.io", "sea.hub:5000", None),
        ("/v2/app/manifests/1", "sea.hub:5000", None),
        ("/v2/quay.io/app/manifests/1", "sea.hub:5000", Some(0)),
        ("/v2/quay.io/app/manifests/1?ns=sea.hub:5000", "sea.hub:5000", Some(0)),
        (
            "/v2/library/solo/manifests/1?ns=sea.hub%3A5000",
            "sea.hub:5000",
            Some(2),
        ),
        ("/v2/library/solo/manifests/1?ns=docker.io", "sea.hub:5000", Some(2)),
        ("/v2/library/solo/manifests/1?ns=quay.io", "sea.hub:5000", None),
        ("/v2/library/solo/manifests/1", "sea.hub:5000", Some(2)),
    ] {
        let answer = ours.ask("GET", target, &[&format!("Host: {host}")]);
        match found {
            Some(which) => assert_eq!(answer.body, blobs[which], "{target}"),
            None => assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "NAME_UNKNOWN"),
                "{target}"
            ),
        }
    }
}

#[test]
fn a_damaged_blob_is_not_taken_by_anybody() {
    if !have(&Image::TOOLS) {
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = Image::new("one");
    write_directory(
        dir.path(),
        &[image.stored_as("app:1")],
        image.blobs.values().map(Vec::as_slice),
    );
    let ours = Ours::plain(dir.path());
    let pull = |name: &str| {
        let target = format!("dir:{}", tempfile::tempdir().unwrap().path().display());
        copy(home.path(), &ours.image(name), &target)
    };
    succeed(&mut pull("library/app:1"));

    let layer = image
        .layers
        .iter()
        .max_by_key(|digest| image.blobs[digest].len())
        .unwrap();
    let data = dir.path().join(layout::blob_data(layer));
    let mut bytes = image.blobs[layer].clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&data, &bytes);
    assert!(fail(&mut pull("library/app:1")).contains("500"), "a changed layer");
    let answer = ours.get(&format!("/v2/library/app/blobs/{layer}"));
    assert_eq!((answer.status, answer.code().as_str()), (500, "BLOB_DAMAGED"));
    let said = ours.heard.all();
    assert_eq!(said.matches("is damaged").count(), 1, "once: {said}");
    assert!(said.contains(&layer.hex()), "{said}");
    write(&data, &bytes[..middle]);
    fail(&mut pull("library/app:1"));
    fs::remove_file(&data).unwrap();
    fail(&mut pull("library/app:1"));
    write(&data, &image.blobs[layer]);
    succeed(&mut pull("library/app:1"));
    assert_eq!(
        ours.heard.all().lines().count(),
        2,
        "each damage once: {}",
        ours.heard.all()
    );

    // A manifest is small enough for the server to see for itself.
    let data = dir.path().join(layout::blob_data(image.manifest));
    let mut bytes = image.blobs[&image.manifest].clone();
    bytes.push(b' ');
    write(&data, &bytes);
    let answer = ours.get("/v2/library/app/manifests/1");
    assert_eq!((answer.status, answer.code().as_str()), (500, "UNKNOWN"));
    let dir = dir.path().display().to_string();
    assert!(!answer.text().contains(&dir), "{}", answer.text());
    assert!(
        ours.heard.all().contains(&image.manifest.to_string()),
        "{}",
        ours.heard.all()
    );
    fail(&mut pull("library/app:1"));
}
