//! Blobs that changed on the disk: nobody gets all of one, and a push mends it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use sealrs_registry::server::ServeOptions;
use sealrs_registry::tls::TlsFiles;
use support::{Ours, Sample, ask, begin, have, plainly, push_blob, send, succeed};

const SIZE: u64 = 32 << 20;

/// Changes one byte of the sample's blob.
fn flip(sample: &Sample, offset: u64) {
    let file = File::options().write(true).open(sample.data()).unwrap();
    file.write_all_at(&[1], offset).unwrap();
}

/// How many bytes of a body came, however the connection ended, and the first line of the answer.
fn received(mut stream: std::net::TcpStream) -> (String, u64) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let first = String::from_utf8_lossy(&bytes[..head])
        .lines()
        .next()
        .unwrap()
        .to_owned();
    (first, (bytes.len() - head) as u64)
}

#[test]
fn a_flipped_byte_breaks_the_download_and_is_refused_afterwards() {
    // Where it is flipped, and what is asked for: all, what is before it, behind it, around it.
    for (offset, range, asked) in [
        (0, None, SIZE),
        (SIZE - 1, None, SIZE),
        (SIZE / 2, None, SIZE),
        (SIZE - 1, Some("Range: bytes=0-8388607"), 8 << 20),
        (0, Some("Range: bytes=-8388608"), 8 << 20),
        (SIZE - 1, Some("Range: bytes=0-99"), 100),
        (SIZE / 2, Some("Range: bytes=16777216-16777216"), 1),
    ] {
        let sample = Sample::new().with_zeros(SIZE);
        flip(&sample, offset);
        let ours = Ours::plain(sample.dir.path());
        let (status, got) = received(begin(ours.address, "GET", &sample.blob(), range.as_slice()));
        assert!(status.contains(" 20"), "{status}");
        assert!(got < asked, "{got} of {asked} bytes, flipped at {offset}");
        for header in [None, range] {
            let answer = ours.ask("GET", &sample.blob(), header.as_slice());
            assert_eq!((answer.status, answer.code().as_str()), (500, "BLOB_DAMAGED"));
        }
        // It is told by another thread than the one that answers.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !ours.heard.all().contains("is damaged") && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let said = ours.heard.all();
        assert!(said.contains(&sample.layer.hex()), "{said}");
        assert_eq!(said.matches("is damaged").count(), 1, "once: {said}");
        // Everything else is served.
        assert_eq!(ours.get("/v2/library/app/manifests/1").status, 200);
    }
}

#[test]
fn over_tls_too() {
    if !have(&["openssl", "curl"]) {
        return;
    }
    let sample = Sample::new().with_zeros(SIZE);
    let (certificate, key) = (sample.dir.path().join("c.pem"), sample.dir.path().join("k.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    succeed(
        openssl
            .args(["-subj", "/CN=x", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    );
    let ours = Ours::start(ServeOptions {
        tls: Some(TlsFiles { certificate, key }),
        ..plainly(sample.dir.path())
    });
    let url = format!("https://{}{}", ours.address, sample.blob());
    let pull = || {
        let mut curl = Command::new("curl");
        let output = curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url]);
        let output = output.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    for _ in 0..2 {
        assert_eq!(pull(), (true, format!("200 {SIZE}")));
    }
    flip(&sample, SIZE / 3);
    assert!(!pull().0);
    assert!(pull().1.starts_with("500 "));
}

#[test]
fn a_range_of_a_whole_blob_comes_whole_the_first_time() {
    let sample = Sample::new().with_zeros(SIZE);
    flip(&sample, 0);
    let ours = Ours::open(sample.dir.path());
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (at / 1000 % 251) as u8;
    }
    let digest = push_blob(ours.address, "a", &bytes);
    drop(ours);
    // A server that does not know the blob yet.
    for (first, last) in [(0, SIZE - 1), (5, 5), (1_000_000, 9_999_999), (SIZE - 70_000, SIZE - 1)] {
        let ours = Ours::plain(sample.dir.path());
        let range = format!("Range: bytes={first}-{last}");
        let answer = ours.ask("GET", &format!("/v2/a/blobs/{digest}"), &[&range]);
        assert_eq!(answer.status, 206);
        let wanted = &bytes[usize::try_from(first).unwrap()..=usize::try_from(last).unwrap()];
        assert!(answer.body == wanted, "{range}: {}", answer.body.len());
        assert_eq!(ours.heard.all(), "");
    }
}

#[test]
fn a_push_mends_it() {
    let sample = Sample::new().with_zeros(SIZE);
    let ours = Ours::open(sample.dir.path());
    let zeros = vec![0; usize::try_from(SIZE).unwrap()];
    assert_eq!(ours.ask("HEAD", &sample.blob(), &[]).status, 200);
    flip(&sample, 5_000_000);
    let (_, got) = received(begin(ours.address, "GET", &sample.blob(), &[]));
    assert!(got < SIZE);
    // Who pushes is told to send it, and nobody mounts it.
    assert_eq!(ours.ask("HEAD", &sample.blob(), &[]).status, 404);
    let mount = format!("/v2/other/blobs/uploads/?mount={}", sample.layer);
    assert_eq!(send(ours.address, "POST", &mount, &[], b"").status, 202);
    push_blob(ours.address, "library/app", &zeros);
    assert_eq!(ours.ask("HEAD", &sample.blob(), &[]).status, 200);
    assert!(ask(ours.address, "GET", &sample.blob(), &[]).body == zeros);
    assert_eq!(send(ours.address, "POST", &mount, &[], b"").status, 201);
}
