//! Health and counters.

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
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use sealrs_registry::server::{PushPolicy, ServeOptions};
use support::{Ours, Sample, ask, begin, begin_upload, have, plainly, send, succeed, wait_for};

#[test]
fn health_needs_no_password() {
    if !have(&["htpasswd"]) {
        return;
    }
    let sample = Sample::new();
    let htpasswd = sample.dir.path().join("htpasswd");
    let users = succeed(Command::new("htpasswd").args(["-nbB", "-C", "5", "admin", "secret"]));
    fs::write(&htpasswd, users).unwrap();
    let ours = Ours::start(ServeOptions {
        htpasswd: Some(htpasswd),
        ..plainly(sample.dir.path())
    });
    assert_eq!(ours.get("/v2/").status, 401);
    for _ in 0..2 {
        let answer = ours.get("/healthz");
        assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    }
    assert_eq!(ours.ask("HEAD", "/healthz", &[]).status, 200);
    assert_eq!(send(ours.address, "PUT", "/healthz", &[], b"x").status, 405);
    assert_eq!(ours.get("/healthz/").status, 401);
    assert_eq!(ours.get("/metrics").status, 401, "the counters are elsewhere");
    assert_eq!(ours.heard.all(), "");

    fs::rename(sample.dir.path().join("docker"), sample.dir.path().join("away")).unwrap();
    let answer = ours.get("/healthz");
    assert_eq!(answer.status, 503);
    assert!(!answer.text().contains("docker"), "{}", answer.text());
    assert!(ours.heard.all().contains("/healthz"), "{}", ours.heard.all());
}

#[test]
fn an_empty_registry_is_well() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Ours::plain(dir.path()).get("/healthz").status, 200);
    assert_eq!(Ours::open(dir.path()).get("/healthz").status, 200);
}

/// The value of a counter.
fn counter(address: SocketAddr, name: &str) -> u64 {
    let answer = ask(address, "GET", "/metrics", &[]);
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let value = answer
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

#[test]
fn counters() {
    let sample = Sample::new().with_zeros(8 << 20);
    let ours = Ours::start(ServeOptions {
        push: PushPolicy::Allow,
        metrics: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        ..plainly(sample.dir.path())
    });
    let said = ours.heard.all();
    let address = said.split_once("http://").unwrap().1.split_once("/metrics").unwrap().0;
    let address: SocketAddr = address.parse().unwrap();
    let got = "sealrs_registry_requests_total{method=\"GET\",code=\"200\"}";
    assert_eq!(counter(address, got), 0, "those for counters do not count");
    for _ in 0..3 {
        assert_eq!(ours.get(&sample.blob()).body.len(), 8 << 20);
    }
    assert_eq!(ours.get("/v2/nobody/manifests/1").status, 404);
    assert_eq!(counter(address, got), 3);
    assert_eq!(
        counter(address, "sealrs_registry_requests_total{method=\"GET\",code=\"404\"}"),
        1
    );
    let sent = counter(address, "sealrs_registry_sent_bytes_total");
    assert!(sent > 24 << 20 && sent < 25 << 20, "{sent}");
    assert_eq!(counter(address, "sealrs_registry_verified_bytes_total"), 8 << 20);

    let upload = begin_upload(ours.address, "a");
    let mut stream = begin(ours.address, "PATCH", &upload, &["Content-Length: 1000000"]);
    stream.write_all(&[7; 500_000]).unwrap();
    wait_for("the upload", || counter(address, "sealrs_registry_uploads") == 1);
    assert!(counter(address, "sealrs_registry_connections") >= 1);
    wait_for("its bytes", || {
        counter(address, "sealrs_registry_received_bytes_total") >= 500_000
    });
    drop(stream);
    wait_for("its end", || counter(address, "sealrs_registry_uploads") == 0);
    wait_for("the end of connections", || {
        counter(address, "sealrs_registry_connections") == 0
    });

    assert_eq!(ask(address, "GET", "/healthz", &[]).status, 200);
    assert_eq!(ask(address, "GET", "/v2/", &[]).status, 404, "nothing of the registry");
    assert_eq!(send(address, "POST", "/metrics", &[], b"").status, 405);
    drop(ours);
    std::thread::sleep(Duration::from_millis(50));
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "it ends with the server"
    );
}
