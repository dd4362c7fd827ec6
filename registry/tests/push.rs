//! The push side of the OCI distribution specification, request by request.

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
use std::time::{Duration, SystemTime};

use sealrs_image::digest::Digest;
use sealrs_registry::layout;
use sealrs_registry::server::{PushPolicy, ServeOptions};
use support::{Answer, Ours, arrived, ask, begin_upload, files, have, noise, plainly, push_blob, send, succeed};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest of blobs that are there.
fn manifest(config: &[u8], layers: &[&[u8]]) -> serde_json::Value {
    let target =
        |bytes: &[u8]| serde_json::json!({"mediaType": "x/y", "digest": Digest::of(bytes), "size": bytes.len()});
    let layers: Vec<_> = layers.iter().map(|layer| target(layer)).collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": target(config), "layers": layers})
}

fn put(ours: &Ours, target: &str, media_type: &str, document: &serde_json::Value) -> Answer {
    let header = format!("Content-Type: {media_type}");
    send(ours.address, "PUT", target, &[&header], document.to_string().as_bytes())
}

fn refused(answer: &Answer, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(answer.code(), code, "{text}");
}

#[test]
fn an_upload_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let address = ours.address;
    let upload = begin_upload(address, "a/b");
    assert_eq!(arrived(address, &upload), 0);
    let answer = send(address, "PATCH", &upload, &["Content-Range: 0-4"], b"01234");
    assert_eq!((answer.status, answer.header("range")), (202, "0-4"));
    assert_eq!(answer.header("location"), upload);
    assert_eq!(answer.header("docker-upload-uuid"), upload.rsplit('/').next().unwrap());
    for method in ["PATCH", "PUT"] {
        for range in ["0-4", "4-5", "6-7"] {
            let header = format!("Content-Range: {range}");
            let target = format!("{upload}?digest={}", Digest::of(b"0123456789"));
            let length = if range == "0-4" { &b"01234"[..] } else { b"56" };
            let answer = send(address, method, &target, &[&header], length);
            refused(&answer, 416, "BLOB_UPLOAD_INVALID");
            assert_eq!(
                (answer.header("range"), answer.header("location")),
                ("0-4", upload.as_str())
            );
        }
    }
    for (header, code) in [
        ("5-4", "BLOB_UPLOAD_INVALID"),
        ("bytes 5-9/10", "BLOB_UPLOAD_INVALID"),
        ("5-9", "SIZE_INVALID"),
    ] {
        let answer = send(address, "PATCH", &upload, &[&format!("Content-Range: {header}")], b"56");
        refused(&answer, 400, code);
        assert_eq!(arrived(address, &upload), 5);
    }
    // Without a length: in chunks of HTTP's own, and to the end.
    let chunked = ["Transfer-Encoding: chunked", "Content-Range: 5-6"];
    let body = "1\r\n5\r\n1\r\n6\r\n0\r\n\r\n";
    let answer = {
        let mut stream = support::begin(address, "PATCH", &upload, &chunked);
        std::io::Write::write_all(&mut stream, body.as_bytes()).unwrap();
        support::read_answer(stream)
    };
    assert_eq!((answer.status, answer.header("range")), (202, "0-6"));
    refused(&send(address, "PUT", &upload, &[], b"789"), 400, "DIGEST_INVALID");
    let digest = Digest::of(b"0123456789");
    let answer = send(address, "PUT", &format!("{upload}?digest={digest}"), &[], b"789");
    assert_eq!(
        (answer.status, answer.header("docker-content-digest")),
        (201, digest.to_string().as_str())
    );
    assert_eq!(answer.header("location"), format!("/v2/a/b/blobs/{digest}"));
    assert_eq!(ours.get(answer.header("location")).body, b"0123456789");
    refused(&ask(address, "GET", &upload, &[]), 404, "BLOB_UPLOAD_UNKNOWN");
    let id: sealrs_registry::name::Repository = "a/b".parse().unwrap();
    assert_eq!(
        files(dir.path()),
        [layout::blob_data(digest), layout::layer_link(&id, digest)]
    );
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn whole_blobs_mounts_and_cancelled_uploads() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let address = ours.address;
    let digest = push_blob(address, "a", b"blob");
    for (query, status) in [
        (format!("mount={digest}&from=a"), 201),
        (format!("mount={digest}&from=nobody"), 202),
        (format!("mount={digest}&from=..%2F.."), 202),
        (format!("mount={}&from=a", Digest::of(b"other")), 202),
        (format!("mount={}", Digest::of(b"other")), 202),
        (format!("mount={digest}"), 201),
    ] {
        for repository in ["b", "c/d"] {
            let answer = send(
                address,
                "POST",
                &format!("/v2/{repository}/blobs/uploads/?{query}"),
                &[],
                b"",
            );
            assert_eq!(answer.status, status, "{query}");
            match status {
                201 => assert_eq!(ours.get(answer.header("location")).body, b"blob"),
                _ => {
                    let upload = answer.header("location");
                    assert_eq!(send(address, "DELETE", upload, &[], b"").status, 204);
                    refused(&send(address, "PATCH", upload, &[], b"x"), 404, "BLOB_UPLOAD_UNKNOWN");
                    refused(&send(address, "DELETE", upload, &[], b""), 404, "BLOB_UPLOAD_UNKNOWN");
                }
            }
        }
    }
    // Nothing at all is a blob too; and sha512, if a client wants it.
    push_blob(address, "a", b"");
    let long = "sha512:b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78";
    let target = format!("/v2/a/blobs/uploads/?digest={long}");
    refused(&send(address, "POST", &target, &[], b"ABC"), 400, "DIGEST_INVALID");
    let output = succeed(Command::new("sh").args(["-c", "printf ABC | sha512sum"]));
    let long = format!("sha512:{}", output.split(' ').next().unwrap());
    let target = format!("/v2/a/blobs/uploads/?digest={long}");
    assert_eq!(send(address, "POST", &target, &[], b"ABC").status, 201);
    assert_eq!(ours.get(&format!("/v2/a/blobs/{long}")).body, b"ABC");
    refused(&send(address, "POST", &target, &[], b"ABCD"), 400, "DIGEST_INVALID");
    assert!(
        !files(dir.path()).iter().any(|path| path.contains("_uploads")),
        "{:?}",
        files(dir.path())
    );
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let address = ours.address;
    let digest = Digest::of(b"right");
    let upload = begin_upload(address, "a");
    assert_eq!(send(address, "PATCH", &upload, &[], b"wro").status, 202);
    for target in [
        format!("{upload}?digest={digest}"),
        format!("/v2/a/blobs/uploads/?digest={digest}"),
    ] {
        let method = if target.starts_with(&upload) { "PUT" } else { "POST" };
        refused(&send(address, method, &target, &[], b"ng"), 400, "DIGEST_INVALID");
    }
    refused(&ask(address, "GET", &upload, &[]), 404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(ask(address, "GET", &format!("/v2/a/blobs/{digest}"), &[]).status, 404);
    assert_eq!(files(dir.path()), [""; 0]);
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn manifests_need_what_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let image = manifest(b"config", &[b"layer"]);
    let digest = Digest::of(image.to_string().as_bytes());
    refused(
        &put(&ours, "/v2/a/manifests/1", MANIFEST, &image),
        400,
        "MANIFEST_BLOB_UNKNOWN",
    );
    push_blob(ours.address, "a", b"config");
    push_blob(ours.address, "other", b"layer");
    refused(
        &put(&ours, "/v2/a/manifests/1", MANIFEST, &image),
        400,
        "MANIFEST_BLOB_UNKNOWN",
    );
    push_blob(ours.address, "a", b"layer");
    let wrong = format!("/v2/a/manifests/{}", Digest::of(b""));
    refused(&put(&ours, &wrong, MANIFEST, &image), 400, "DIGEST_INVALID");
    refused(&put(&ours, "/v2/a/manifests/1", INDEX, &image), 400, "MANIFEST_INVALID");
    refused(
        &put(&ours, "/v2/a/manifests/1", "application/json", &image),
        400,
        "MANIFEST_INVALID",
    );
    let mut lying = image.clone();
    lying["layers"][0]["size"] = 6.into();
    refused(&put(&ours, "/v2/a/manifests/1", MANIFEST, &lying), 400, "SIZE_INVALID");
    let mut big = image.clone();
    big["annotations"] = serde_json::json!({"a": "x".repeat(4 << 20)});
    refused(&put(&ours, "/v2/a/manifests/1", MANIFEST, &big), 413, "SIZE_INVALID");
    assert_eq!(ours.get("/v2/a/tags/list").json()["tags"], serde_json::json!([]));

    for target in ["1".to_owned(), digest.to_string(), format!("{digest}?tag=2&tag=3")] {
        let answer = put(&ours, &format!("/v2/a/manifests/{target}"), MANIFEST, &image);
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("location"), format!("/v2/a/manifests/{digest}"));
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(ours.get(answer.header("location")).body, image.to_string().as_bytes());
    }
    assert_eq!(
        ours.get("/v2/a/tags/list").json()["tags"],
        serde_json::json!(["1", "2", "3"])
    );

    // An index needs its members, unless the registry may hold some platforms only.
    let member =
        |digest: Digest, size: usize| serde_json::json!({"mediaType": MANIFEST, "digest": digest, "size": size});
    let members = [
        member(digest, image.to_string().len()),
        member(Digest::of(b"elsewhere"), 9),
    ];
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": members});
    refused(
        &put(&ours, "/v2/a/manifests/all", INDEX, &index),
        400,
        "MANIFEST_BLOB_UNKNOWN",
    );
    let whole = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": members[..1]});
    assert_eq!(put(&ours, "/v2/a/manifests/all", INDEX, &whole).status, 201);
    assert_eq!(ours.heard.all(), "");
    drop(ours);
    let sparse = Ours::start(ServeOptions {
        push: PushPolicy::AllowSparse,
        ..plainly(dir.path())
    });
    assert_eq!(put(&sparse, "/v2/a/manifests/all", INDEX, &index).status, 201);
    assert_eq!(sparse.get("/v2/a/manifests/all").json(), index);
}

#[test]
fn removing_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let address = ours.address;
    let delete = |target: &str| send(address, "DELETE", target, &[], b"").status;
    for content in [b"1", b"2"] {
        push_blob(address, "a", content);
        let tags = format!("tag={0}&tag={0}x", content[0] - b'0');
        let image = manifest(content, &[]);
        let digest = Digest::of(image.to_string().as_bytes());
        assert_eq!(
            put(&ours, &format!("/v2/a/manifests/{digest}?{tags}"), MANIFEST, &image).status,
            201
        );
    }
    let digest = Digest::of(manifest(b"1", &[]).to_string().as_bytes());
    assert_eq!(delete("/v2/a/manifests/1"), 202);
    assert_eq!(delete("/v2/a/manifests/1"), 404);
    assert_eq!(
        ours.get("/v2/a/tags/list").json()["tags"],
        serde_json::json!(["1x", "2", "2x"])
    );
    assert_eq!(ours.get(&format!("/v2/a/manifests/{digest}")).status, 200);
    assert_eq!(delete(&format!("/v2/a/manifests/{digest}")), 202);
    assert_eq!(delete(&format!("/v2/a/manifests/{digest}")), 404);
    assert_eq!(
        ours.get("/v2/a/tags/list").json()["tags"],
        serde_json::json!(["2", "2x"])
    );
    assert_eq!(ours.get("/v2/a/manifests/1x").code(), "MANIFEST_UNKNOWN");
    let blob = format!("/v2/a/blobs/{}", Digest::of(b"1"));
    assert_eq!((delete(&blob), ours.get(&blob).status, delete(&blob)), (202, 404, 404));
    for target in ["/v2/nobody/manifests/1", "/v2/a/manifests/3"] {
        assert_eq!(delete(target), 404, "{target}");
    }
    refused(
        &send(address, "DELETE", "/v2/a/tags/list", &[], b""),
        405,
        "UNSUPPORTED",
    );
    // A tag that only half exists, as after a power failure, is none.
    fs::create_dir_all(
        dir.path()
            .join("docker/registry/v2/repositories/a/_manifests/tags/half/index"),
    )
    .unwrap();
    assert_eq!(
        ours.get("/v2/a/tags/list").json()["tags"],
        serde_json::json!(["2", "2x"])
    );
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn referrers_come_and_go_with_their_manifests() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    push_blob(ours.address, "a", b"config");
    let subject = Digest::of(b"subject, which need not be there");
    let mut expected = Vec::new();
    for number in 0..5 {
        let mut image = manifest(b"config", &[]);
        image["subject"] = serde_json::json!({"mediaType": MANIFEST, "digest": subject, "size": 1});
        image["annotations"] = serde_json::json!({"number": number.to_string(), "long": "x".repeat(1 << 20)});
        if number > 0 {
            image["artifactType"] = format!("x/{}", number % 2).into();
        }
        let answer = put(&ours, &format!("/v2/a/manifests/n{number}"), MANIFEST, &image);
        assert_eq!(
            (answer.status, answer.header("oci-subject")),
            (201, subject.to_string().as_str())
        );
        expected.push(answer.header("docker-content-digest").to_owned());
    }
    let first = expected[0].clone();
    expected.sort();
    // They do not fit into one answer.
    let all = |start: &str| {
        let (mut seen, mut answers, mut next) = (Vec::new(), 0, Some(start.to_owned()));
        while let Some(target) = next {
            let answer = ours.get(&target);
            assert_eq!((answer.status, answer.header("content-type")), (200, INDEX));
            let members = answer.json()["manifests"].as_array().unwrap().clone();
            seen.extend(
                members
                    .iter()
                    .map(|member| member["digest"].as_str().unwrap().to_owned()),
            );
            answers += 1;
            next = answer
                .header("link")
                .strip_prefix('<')
                .map(|link| link.strip_suffix(">; rel=\"next\"").unwrap().to_owned());
        }
        (seen, answers)
    };
    let start = format!("/v2/a/referrers/{subject}");
    let (seen, answers) = all(&start);
    assert_eq!(seen, expected);
    assert!(answers > 1);
    assert_eq!(all(&format!("{start}?artifactType=x/1&n=1")).0.len(), 2);
    assert_eq!(
        all(&format!("{start}?artifactType=x%2Fy")).0,
        std::slice::from_ref(&first),
        "the type of its config"
    );
    assert_eq!(ours.ask("DELETE", &format!("/v2/a/manifests/{first}"), &[]).status, 202);
    expected.retain(|digest| *digest != first);
    assert_eq!(all(&start).0, expected);
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn another_host_s_name_stays_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::open(dir.path());
    let digest = Digest::of(b"blob");
    let target = format!("/v2/app/blobs/uploads/?digest={digest}&ns=quay.io");
    let answer = send(ours.address, "POST", &target, &[], b"blob");
    assert_eq!(answer.header("location"), format!("/v2/quay.io/app/blobs/{digest}"));
    for (target, status) in [
        (format!("/v2/app/blobs/{digest}?ns=quay.io"), 200),
        (format!("/v2/app/blobs/{digest}?ns=ghcr.io"), 404),
        (format!("/v2/app/blobs/{digest}"), 404),
        (format!("/v2/quay.io/app/blobs/{digest}"), 200),
    ] {
        assert_eq!(ours.get(&target).status, status, "{target}");
    }
    let upload = send(ours.address, "POST", "/v2/app/blobs/uploads/?ns=quay.io", &[], b"");
    let upload = upload.header("location").to_owned();
    assert!(upload.starts_with("/v2/quay.io/app/"), "{upload}");
    let answer = send(ours.address, "PUT", &format!("{upload}?digest={digest}"), &[], b"blob");
    assert_eq!(answer.status, 201);
}

#[test]
fn hostile_pushes_stay_inside() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("registry");
    fs::create_dir(&dir).unwrap();
    let ours = Ours::open(&dir);
    let digest = Digest::of(b"evil");
    for up in ["../", "%2e%2e/", "..%2f", "%2e%2e%2f", "..%5c", ".%00./", "%252e%252e/"] {
        for times in [1, 4, 7] {
            let climb = up.repeat(times);
            for (method, target) in [
                ("POST", format!("/v2/{climb}evil/blobs/uploads/?digest={digest}")),
                ("POST", format!("/v2/{climb}blobs/uploads/?digest={digest}")),
                ("POST", format!("/v2/a/blobs/uploads/?digest=sha256:{climb}evil")),
                ("POST", format!("/v2/a/blobs/uploads/?mount={climb}evil")),
                ("POST", format!("/v2/a/blobs/uploads/?ns={climb}evil")),
                ("PATCH", format!("/v2/a/blobs/uploads/{climb}evil")),
                ("PUT", format!("/v2/a/blobs/uploads/{climb}evil?digest={digest}")),
                ("DELETE", format!("/v2/a/blobs/uploads/{climb}evil")),
                ("PUT", format!("/v2/a/manifests/{climb}evil")),
                ("PUT", format!("/v2/a/manifests/sha256:{climb}evil")),
                ("PUT", format!("/v2/a/manifests/{digest}?tag={climb}evil")),
                ("DELETE", format!("/v2/a/manifests/{climb}evil")),
                ("DELETE", format!("/v2/{climb}a/manifests/evil")),
            ] {
                let answer = send(ours.address, method, &target, &[], b"evil");
                assert!(
                    [400, 404, 405].contains(&answer.status),
                    "{method} {target}: {}",
                    answer.status
                );
            }
        }
    }
    // Folders that are links to somebody else's.
    let outside = outer.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let home = dir.join("docker/registry/v2/repositories/linked");
    fs::create_dir_all(&home).unwrap();
    for folder in ["_uploads", "_layers", "_manifests"] {
        std::os::unix::fs::symlink(&outside, home.join(folder)).unwrap();
    }
    let answer = send(ours.address, "POST", "/v2/linked/blobs/uploads/", &[], b"");
    assert_eq!(answer.status, 500);
    let answer = send(
        ours.address,
        "POST",
        &format!("/v2/linked/blobs/uploads/?digest={digest}"),
        &[],
        b"evil",
    );
    assert_eq!(answer.status, 500);
    assert_eq!(files(&outside), [""; 0]);
    let entries: Vec<_> = fs::read_dir(outer.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(files(&dir), [""; 0]);
}

#[test]
fn a_password_is_for_pushing_too() {
    if !have(&["htpasswd"]) {
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let htpasswd = home.path().join("htpasswd");
    let line = succeed(Command::new("htpasswd").args(["-nbB", "-C", "4", "admin", "secret"]));
    fs::write(&htpasswd, line).unwrap();
    let ours = Ours::start(ServeOptions {
        htpasswd: Some(htpasswd),
        push: PushPolicy::Allow,
        ..plainly(dir.path())
    });
    let digest = Digest::of(b"blob");
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    for (credentials, status) in [
        ("X: y", 401),
        ("Authorization: Basic YWRtaW46d3Jvbmc=", 401),
        ("Authorization: Basic YWRtaW46c2VjcmV0", 201),
    ] {
        let answer = send(ours.address, "POST", &target, &[credentials], b"blob");
        assert_eq!(answer.status, status);
        assert_eq!(dir.path().join(layout::blob_data(digest)).exists(), status == 201);
    }
    // One that sends much before it looks gets to read why all the same.
    let answer = send(ours.address, "POST", &target, &[], &noise(900 << 10, 1));
    refused(&answer, 401, "UNAUTHORIZED");
}

#[test]
fn old_uploads_expire_and_young_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (old, young) = {
        let ours = Ours::open(dir.path());
        let uploads = [begin_upload(ours.address, "a/b"), begin_upload(ours.address, "a/b")];
        for upload in &uploads {
            assert_eq!(send(ours.address, "PATCH", upload, &[], b"0123").status, 202);
        }
        uploads.into()
    };
    let id = |upload: &str| upload.rsplit('/').next().unwrap().to_owned();
    let folder = dir.path().join("docker/registry/v2/repositories/a/b/_uploads");
    let data = fs::File::options()
        .write(true)
        .open(folder.join(id(&old)).join("data"))
        .unwrap();
    let week = Duration::from_secs(7 * 24 * 3600 + 60);
    data.set_modified(SystemTime::now() - week).unwrap();
    // What is no upload is none of ours.
    fs::create_dir(folder.join("other")).unwrap();
    let ours = Ours::open(dir.path());
    support::wait_for("the end of the old upload", || !folder.join(id(&old)).exists());
    refused(&ask(ours.address, "GET", &old, &[]), 404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(arrived(ours.address, &young), 4);
    assert!(folder.join("other").exists());
    support::wait_for("a word about it", || ours.heard.all().contains("removed 1 uploads"));
}
