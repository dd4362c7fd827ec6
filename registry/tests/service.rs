//! The server as a process among others: starting, stopping, slow clients, memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind};
use sealrs_image::progress::Silent;
use sealrs_registry::layout;
use sealrs_registry::server::{ServeOptions, run, serve};
use sealrs_registry::tls::TlsFiles;
use support::{Ours, Process, Sample, ask, have, noise, plainly, push_blob, succeed, write};

/// Starts a server that must not start.
fn start_error(options: &ServeOptions) -> Error {
    let ready = |_: &[SocketAddr]| panic!("the server started");
    run(options, Arc::new(Silent), ready).unwrap_err()
}

#[test]
fn a_server_that_cannot_start_says_why() {
    if !have(&["openssl"]) {
        return;
    }
    let sample = Sample::new();
    let dir = sample.dir.path();
    let good = plainly(dir);

    let error = start_error(&plainly(&dir.join("missing")));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("missing"), "{error}");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = start_error(&ServeOptions {
        listen: vec![address],
        ..good.clone()
    });
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(
        error.remedy().unwrap().contains(&address.port().to_string()),
        "{error:?}"
    );

    let nowhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 0));
    for listen in [vec![nowhere], Vec::new()] {
        let error = start_error(&ServeOptions { listen, ..good.clone() });
        assert_eq!(error.kind(), ErrorKind::Input);
    }

    for (text, kind, part) in [
        (None, ErrorKind::NotFound, "htpasswd"),
        (Some("# none\n"), ErrorKind::Input, "no users"),
        (Some("\nadmin:plain\n"), ErrorKind::Input, "line 2"),
    ] {
        let htpasswd = dir.join("htpasswd");
        if let Some(text) = text {
            fs::write(&htpasswd, text).unwrap();
        }
        let error = start_error(&ServeOptions {
            htpasswd: Some(htpasswd),
            ..good.clone()
        });
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(part), "{error}");
    }

    let (certificate, key, other) = (dir.join("c.pem"), dir.join("k.pem"), dir.join("other.pem"));
    for key in [&other, &key] {
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
                ])
                .args(["-subj", "/CN=x", "-keyout"])
                .arg(key)
                .arg("-out")
                .arg(&certificate),
        );
    }
    let garbled = dir.join("garbled.pem");
    fs::write(
        &garbled,
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let missing = dir.join("missing.pem");
    for (certificate, key, kind, part) in [
        (&missing, &key, ErrorKind::NotFound, "missing.pem"),
        (&certificate, &missing, ErrorKind::NotFound, "missing.pem"),
        (&key, &key, ErrorKind::Input, "has no certificate"),
        (&garbled, &key, ErrorKind::Input, "garbled.pem"),
        (&certificate, &certificate, ErrorKind::Input, "has no private key"),
        (&certificate, &other, ErrorKind::Input, "cannot be used together"),
    ] {
        let error = start_error(&ServeOptions {
            tls: Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            ..good.clone()
        });
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn an_empty_directory_is_served_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Ours::plain(dir.path());
    assert!(ours.heard.all().contains("holds no images"), "{}", ours.heard.all());
    assert_eq!(ours.get("/v2/_catalog").json(), serde_json::json!({"repositories": []}));
    assert_eq!(ours.get("/v2/x/manifests/1").code(), "NAME_UNKNOWN");
}

#[test]
fn several_addresses_and_both_families() {
    let sample = Sample::new();
    let listen = vec![
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    ];
    if TcpListener::bind(listen[1]).is_err() {
        println!("skipped: this host has no IPv6");
        return;
    }
    let options = ServeOptions {
        listen,
        ..plainly(sample.dir.path())
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (sender, addresses) = std::sync::mpsc::channel();
    let server = async move {
        let ready = |bound: &[SocketAddr]| sender.send(bound.to_vec()).unwrap();
        serve(&options, Arc::new(Silent), ready, std::future::pending()).await
    };
    let server = runtime.spawn(server);
    let bound = addresses.recv().unwrap();
    assert_eq!(bound.len(), 2);
    for address in bound {
        assert_eq!(ask(address, "GET", "/v2/", &[]).status, 200, "{address}");
    }
    server.abort();

    // The same port for all addresses of both families: neither socket may take the other's.
    let port = support::free_address().port();
    let options = ServeOptions {
        listen: vec![
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
        ],
        ..plainly(sample.dir.path())
    };
    let ours = Ours::start(options);
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        (Ipv6Addr::LOCALHOST, port).into(),
    ] {
        assert_eq!(ask(address, "GET", "/v2/", &[]).status, 200, "{address}");
    }
    drop(ours);
}

/// Asks for the sample's blob without reading the answer.
fn begin_download(ours: &Ours, sample: &Sample) -> TcpStream {
    let mut stream = TcpStream::connect(ours.address).unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", sample.blob());
    stream.write_all(request.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

#[test]
fn downloads_under_way_end_before_the_server_does() {
    let size = 64 << 20;
    let sample = Sample::new().with_zeros(size);
    let mut ours = Ours::plain(sample.dir.path());
    let mut idle = TcpStream::connect(ours.address).unwrap();
    let mut stream = begin_download(&ours, &sample);
    let mut first = [0; 1000];
    stream.read_exact(&mut first).unwrap();
    ours.begin_stop();
    support::wait_for("the end of listening", || TcpStream::connect(ours.address).is_err());
    let mut rest = Vec::new();
    let start = Instant::now();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() as u64 > size - 1000, "{}", rest.len());
    assert_eq!(idle.read(&mut first).unwrap_or(0), 0, "an idle connection is closed");
    assert!(ours.heard.all().contains("stopping"), "{}", ours.heard.all());
    ours.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn a_client_that_hangs_does_not_keep_the_server() {
    let sample = Sample::new().with_zeros(64 << 20);
    let mut ours = Ours::plain(sample.dir.path());
    let stream = begin_download(&ours, &sample);
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    ours.begin_stop();
    ours.join().unwrap();
    let elapsed = start.elapsed();
    assert!(
        elapsed > Duration::from_secs(5) && elapsed < Duration::from_secs(15),
        "{elapsed:?}"
    );
    drop(stream);
}

#[test]
fn slow_clients_get_everything_and_hold_up_nobody() {
    let size = 16 << 20;
    let sample = Sample::new().with_zeros(size);
    let ours = Ours::plain(sample.dir.path());
    let hanging: Vec<TcpStream> = (0..100).map(|_| begin_download(&ours, &sample)).collect();
    let mut slow = begin_download(&ours, &sample);
    for _ in 0..20 {
        assert_eq!(ours.get("/v2/library/app/manifests/1").status, 200);
        slow.read_exact(&mut [0; 100]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut received = 2000;
    let mut buffer = vec![0; 1 << 16];
    while received < size {
        received += slow.read(&mut buffer).unwrap() as u64;
    }
    drop(hanging);
}

/// Asks for `target` over a connection that stays open, and reads the answer's body.
fn ask_on(stream: &mut BufReader<TcpStream>, target: &str, header: &str) -> Vec<u8> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    body
}

#[test]
fn many_clients_at_once_get_the_right_bytes_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let blobs: Vec<Vec<u8>> = [5_000_000, 16 << 20, 70_000, 1000, 3 << 20]
        .into_iter()
        .zip(1..)
        .map(|(size, seed)| noise(size, seed))
        .collect();
    let first = Process::start(dir.path());
    let targets: Vec<String> = blobs
        .iter()
        .map(|bytes| format!("/v2/a/blobs/{}", push_blob(first.address, "a", bytes)))
        .collect();
    drop(first);
    // One that knows none of the blobs.
    let server = Process::start(dir.path());
    std::thread::scope(|scope| {
        for client in 0..64 {
            let (blobs, targets, address) = (&blobs, &targets, server.address);
            scope.spawn(move || {
                let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
                for round in 0..blobs.len() {
                    let number = (client + round) % blobs.len();
                    let (bytes, target) = (&blobs[number], &targets[number]);
                    assert!(ask_on(&mut stream, target, "") == *bytes, "{target}");
                    let (start, end) = (bytes.len() / 3, bytes.len() - client);
                    let range = format!("Range: bytes={start}-{}\r\n", end - 1);
                    assert!(
                        ask_on(&mut stream, target, &range) == bytes[start..end],
                        "{range} of {target}"
                    );
                    assert!(!ask_on(&mut stream, "/v2/a/tags/list", "").is_empty());
                }
            });
        }
    });
    let peak = server.peak_memory();
    println!("64 clients: {} MiB", peak >> 20);
    assert!(peak < 96 << 20, "{peak} bytes");
}

#[test]
fn a_blob_that_shrinks_breaks_the_connection() {
    let size: u64 = 64 << 20;
    let sample = Sample::new().with_zeros(size);
    let ours = Ours::plain(sample.dir.path());
    let mut stream = begin_download(&ours, &sample);
    stream.read_exact(&mut [0; 1000]).unwrap();
    File::options()
        .write(true)
        .open(sample.data())
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!((rest.len() as u64) < size - 1000, "the client has to notice");
    assert_eq!(ours.get("/v2/").status, 200);
}

#[test]
fn a_link_to_a_big_file_is_a_manifest_for_nobody() {
    let sample = Sample::new();
    let fake = Digest::of(b"big");
    let name = "library/app".parse().unwrap();
    write(
        &sample.dir.path().join(layout::revision_link(&name, fake)),
        fake.to_string().as_bytes(),
    );
    let data = sample.dir.path().join(layout::blob_data(fake));
    write(&data, b"");
    File::create(&data).unwrap().set_len(1 << 40).unwrap();
    let ours = Ours::plain(sample.dir.path());
    let answer = ours.get(&format!("/v2/library/app/manifests/{fake}"));
    assert_eq!((answer.status, answer.code().as_str()), (500, "UNKNOWN"));
}
