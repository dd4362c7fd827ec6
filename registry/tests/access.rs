//! Who may ask, and what a hostile request gets.

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
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sealrs_registry::server::ServeOptions;
use sealrs_registry::tls::TlsFiles;
use support::{Image, Ours, Sample, fail, have, plainly, skopeo, succeed, write_directory};

/// A self-signed certificate for 127.0.0.1, in a folder as skopeo wants it, and its key beside the folder.
fn certificate(dir: &Path) -> (PathBuf, TlsFiles) {
    let trusted = dir.join("trusted");
    fs::create_dir(&trusted).unwrap();
    let files = TlsFiles {
        certificate: trusted.join("ca.crt"),
        key: dir.join("server.pem"),
    };
    succeed(
        Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args([
                "-subj",
                "/CN=registry",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
            ])
            .arg(&files.key)
            .arg("-out")
            .arg(&files.certificate),
    );
    (trusted, files)
}

#[test]
fn skopeo_pulls_over_tls_with_the_password() {
    if !have(&Image::TOOLS) || !have(&["openssl", "htpasswd", "curl"]) {
        return;
    }
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = Image::new("one");
    write_directory(
        dir.path(),
        &[image.stored_as("app:1")],
        image.blobs.values().map(Vec::as_slice),
    );
    let (trusted, tls) = certificate(home.path());
    let htpasswd = home.path().join("htpasswd");
    fs::write(
        &htpasswd,
        succeed(Command::new("htpasswd").args(["-nbB", "-C", "10", "admin", "s3cret word"])),
    )
    .unwrap();
    let ours = Ours::start(ServeOptions {
        tls: Some(tls.clone()),
        htpasswd: Some(htpasswd),
        ..plainly(dir.path())
    });
    let pull = |arguments: &[&str]| {
        let target = format!("dir:{}", home.path().join("pulled").display());
        let mut command = skopeo(home.path());
        command
            .args(["copy", "--quiet"])
            .args(arguments)
            .args([&ours.image("library/app:1"), &target]);
        command
    };
    let certificates = format!("--src-cert-dir={}", trusted.display());
    succeed(&mut pull(&[&certificates, "--src-creds=admin:s3cret word"]));
    for wrong in [
        "--src-creds=admin:s3cret",
        "--src-creds=root:s3cret word",
        "--src-no-creds",
    ] {
        let message = fail(&mut pull(&[&certificates, wrong]));
        assert!(
            message.contains("unauthorized")
                || message.contains("authentication required")
                || message.contains("user name and password"),
            "{message}"
        );
    }
    assert!(fail(&mut pull(&["--src-creds=admin:s3cret word"])).contains("certificate"));

    let curl = |arguments: &[&str]| {
        let base = format!("https://{}/v2/", ours.address);
        let output = Command::new("curl")
            .args(["-sS", "-D", "-", "--cacert"])
            .arg(&tls.certificate)
            .args(arguments)
            .arg(base)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().to_ascii_lowercase()
    };
    let refused = curl(&[]);
    for part in [
        "http/1.1 401",
        "www-authenticate: basic realm=",
        "docker-distribution-api-version: registry/2.0",
        "\"unauthorized\"",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    assert!(curl(&["-u", "admin:s3cret word", "--tlsv1.2", "--tls-max", "1.2"]).contains("http/1.1 200"));

    // bcrypt at cost 10 takes tens of milliseconds; once is enough.
    let start = Instant::now();
    let urls: Vec<String> = (0..100).map(|_| format!("https://{}/v2/", ours.address)).collect();
    succeed(
        Command::new("curl")
            .args(["-sSf", "-u", "admin:s3cret word", "--cacert"])
            .arg(&tls.certificate)
            .args(urls),
    );
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn hostile_requests_stay_inside() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("registry");
    let sample = Sample::new();
    fs::rename(sample.dir.path(), &dir).unwrap();
    // What a request must not reach: beside the directory, and files of the directory that are no content.
    let secret = "SECRET-OF-ANOTHER";
    fs::write(outer.path().join("secret"), secret).unwrap();
    fs::write(dir.join("secret"), secret).unwrap();
    fs::write(
        dir.join("docker/registry/v2/repositories/library/app/_manifests/secret"),
        secret,
    )
    .unwrap();
    let ours = Ours::plain(&dir);

    let ups = [
        "../",
        "%2e%2e/",
        "..%2f",
        "%2e%2e%2f",
        "..%5c",
        "..\\",
        ".%00./",
        "....//",
        "%252e%252e/",
    ];
    for up in ups {
        for times in [1, 4, 7, 12] {
            let climb = up.repeat(times);
            for target in [
                format!("/{climb}secret"),
                format!("/v2/{climb}secret"),
                format!("/v2/{climb}manifests/secret"),
                format!("/v2/library/app/manifests/{climb}secret"),
                format!("/v2/library/app/blobs/{climb}secret"),
                format!("/v2/library/app/blobs/sha256:{climb}secret"),
                format!("/v2/{climb}registry/docker/registry/v2/repositories/library/app/manifests/1"),
                format!("/v2/{climb}x/tags/list"),
                format!("/v2/library/app/manifests/1?ns={climb}x"),
                format!("/v2/library/app/tags/list?last={climb}"),
                format!("/v2/library/app/tags/{climb}list"),
            ] {
                let answer = ours.get(&target);
                let body = String::from_utf8_lossy(&answer.body);
                assert!(!body.contains(secret) && !body.contains("root:"), "{target}: {body}");
                let is_list = target.contains("?last=");
                let expected: &[u16] = if is_list { &[200, 400] } else { &[400, 404] };
                assert!(expected.contains(&answer.status), "{target}: {}", answer.status);
            }
        }
    }
    for target in [
        format!("/v2/{}/manifests/1", "a/".repeat(10_000)),
        format!("/v2/{}/tags/list", "a".repeat(60_000)),
        format!("/v2/library/app/manifests/{}", "a".repeat(60_000)),
        format!("/v2/library/app/tags/list?last={}", "a".repeat(60_000)),
        format!("/v2/library/app/manifests/1?ns={}", "a.".repeat(30_000)),
        format!("/{}", "a".repeat(200_000)),
        "/v2/library/app/_manifests/secret".to_owned(),
        "/v2/library/app/_manifests/tags/1/current/link".to_owned(),
        "/v2/library/app/manifests/_manifests".to_owned(),
        "/v2/\u{202e}/tags/list".to_owned(),
        "*".to_owned(),
        "http://other/etc/passwd".to_owned(),
    ] {
        let answer = ours.get(&target);
        let shown: String = target.chars().take(60).collect();
        assert!(
            [200, 400, 404, 414, 431].contains(&answer.status),
            "{shown}: {}",
            answer.status
        );
        assert!(answer.body.len() < 1000, "{shown}");
        assert!(!String::from_utf8_lossy(&answer.body).contains(secret), "{shown}");
    }
    assert_eq!(
        ours.get("/v2/library/app/manifests/1").status,
        200,
        "the server goes on"
    );
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn no_http_is_no_harm() {
    let sample = Sample::new();
    let ours = Ours::plain(sample.dir.path());
    for bytes in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        &[b'A'; 1 << 20],
    ] {
        let mut stream = TcpStream::connect(ours.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(ours.get("/v2/").status, 200);
}
