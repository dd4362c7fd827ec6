//! What goes wrong on the way, and what the client makes of it.

use std::time::{Duration, Instant};

use sealrs_image::error::ErrorKind;
use sealrs_image::remote::{Client, Options};

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http::Response;
use crate::support::{have, noise};
use crate::{TOOLS, client, filled, manifest, quick, read, reference, whole};

fn impatient(stall_timeout: Duration) -> Client {
    Client::new(Options {
        stall_timeout,
        ..quick()
    })
    .unwrap()
}

#[test]
fn a_blob_cut_at_twenty_offsets_arrives_whole_and_costs_little_more() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 16 << 20);
    let proxy = FaultProxy::start(registry.address);
    let app = reference(&format!("{}/library/app:1", proxy.host()));
    let client = client();
    let layer = &manifest(&client, &app).unwrap().layers[0];
    // Each of the next twenty responses ends after so many bytes: somewhere within a twentieth, some of them at once.
    let piece = usize::try_from(layer.size / 21).unwrap();
    let cuts = noise(7, 40);
    let cuts = cuts
        .chunks(2)
        .map(|pair| usize::from(pair[0]) * 256 + usize::from(pair[1]));
    let cuts: Vec<u64> = cuts.map(|random| (piece * random / 65536) as u64).chain([0]).collect();
    proxy.next("/blobs/", cuts.iter().map(|cut| Fault::Cut(*cut)));
    assert_eq!(read(&client, &app, layer).unwrap().len() as u64, layer.size);
    let passed = proxy.passed("/blobs/");
    assert_eq!(passed.len(), cuts.len() + 1);
    assert!(passed[1..].iter().all(|passed| passed.status == 206), "{passed:?}");
    let moved = proxy.body_bytes("/blobs/");
    let most = layer.size + layer.size / 20 + (64 << 10);
    println!("{moved} bytes moved for {} ({} connections)", layer.size, passed.len());
    assert!((layer.size..=most).contains(&moved), "{moved} bytes for {}", layer.size);
}

#[test]
fn goes_on_after_what_may_pass() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 1 << 20);
    let proxy = FaultProxy::start(registry.address);
    let app = reference(&format!("{}/library/app:1", proxy.host()));
    let client = impatient(Duration::from_secs(1));
    let layer = &manifest(&client, &app).unwrap().layers[0];
    let answer = |status| Fault::Answer(Response::new(status));
    let busy = |pause: &str| Fault::Answer(Response::new(429).header("Retry-After", pause));
    for faults in [
        vec![Fault::Stall(1000)],
        vec![Fault::Stall(0)],
        vec![Fault::Cut(0), Fault::Cut(0), Fault::Cut(0)],
        vec![Fault::EndEarly(5000)],
        vec![
            Fault::EndEarly(0),
            Fault::Cut(1),
            Fault::Cut(1),
            Fault::EndEarly(1),
            Fault::Cut(1),
            Fault::Cut(1),
        ],
        vec![answer(500), answer(502), answer(503), answer(504), answer(408)],
        vec![Fault::Cut(5000), answer(503), busy("0"), Fault::Stall(100)],
        vec![Fault::Cut(70_000), Fault::IgnoreRange],
        vec![Fault::Cut(200_000), Fault::IgnoreRange, Fault::Cut(100_000)],
    ] {
        let said = format!("{faults:?}");
        proxy.next("/blobs/", faults);
        assert!(read(&client, &app, layer).is_ok(), "{said}");
    }
    let before = Instant::now();
    proxy.next(
        "/manifests/",
        [busy("1"), Fault::Cut(10), Fault::Stall(10), answer(500)],
    );
    assert!(manifest(&client, &app).is_ok());
    assert!(before.elapsed() >= Duration::from_secs(1), "Retry-After was not obeyed");
}

#[test]
fn gives_up_on_what_does_not_pass_and_says_what_and_where() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 100_000);
    let denied = Response::new(403).body(r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#);
    let bad_range = Response::new(206).header("Content-Range", "bytes 5-9/10").body("hello");
    for (fault, kind, words, requests) in [
        (Fault::Answer(Response::new(500)), ErrorKind::Network, "answered 500", 6),
        (Fault::Answer(Response::new(429)), ErrorKind::Network, "answered 429", 6),
        (
            Fault::Answer(Response::new(429).header("Retry-After", "7200")),
            ErrorKind::Network,
            "no further request for 7200 s",
            1,
        ),
        (Fault::Cut(0), ErrorKind::Network, "broke off", 6),
        (Fault::Stall(0), ErrorKind::Network, "sent nothing", 6),
        (Fault::EndEarly(0), ErrorKind::Integrity, "ended the blob after 0 of", 6),
        (Fault::Truncate(500), ErrorKind::Integrity, "announces 500 bytes", 1),
        (
            Fault::Append(b"x".to_vec()),
            ErrorKind::Integrity,
            "more than the blob's",
            1,
        ),
        (Fault::Flip(50_000), ErrorKind::Integrity, "is damaged", 1),
        (
            Fault::Answer(bad_range),
            ErrorKind::Integrity,
            "sends the range `bytes 5-9/10`",
            1,
        ),
        (Fault::Answer(denied), ErrorKind::Auth, "DENIED: not for you", 1),
        (
            Fault::Answer(Response::new(404)),
            ErrorKind::NotFound,
            "answered 404",
            1,
        ),
        (Fault::Answer(Response::new(400)), ErrorKind::Network, "answered 400", 1),
        (
            Fault::Answer(Response::new(302)),
            ErrorKind::Network,
            "without saying where",
            1,
        ),
    ] {
        // A busy machine stalls too: only where that is the point, it counts.
        let client = match fault {
            Fault::Stall(_) => impatient(Duration::from_millis(500)),
            _ => client(),
        };
        let proxy = FaultProxy::start(registry.address);
        let app = reference(&format!("{}/library/app:1", proxy.host()));
        let layer = &manifest(&client, &app).unwrap().layers[0];
        proxy.always("/blobs/", fault.clone());
        let error = read(&client, &app, layer).unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error:?}");
        let text = whole(&error);
        assert!(text.contains(words), "{fault:?}: {text}");
        assert!(text.contains(&layer.digest.to_string()), "{fault:?}: {text}");
        if !matches!(fault, Fault::Flip(_)) {
            assert!(
                text.contains("library/app:1") && text.contains(&proxy.host()),
                "{fault:?}: {text}"
            );
        }
        assert_eq!(proxy.passed("/blobs/").len(), requests, "{fault:?}");
    }
}

#[test]
fn manifests_that_are_not_what_they_should_be_are_refused() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 100);
    let client = client();
    let whole_app = reference(&format!("{}/library/app:1", registry.host()));
    let digest = client.manifest(&whole_app, "1").unwrap().descriptor.digest.to_string();
    let old = Response::new(200)
        .header(
            "Content-Type",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        )
        .body(r#"{"schemaVersion":1}"#);
    let huge = Response::new(200).body(vec![b' '; 17 << 20]);
    for (fault, selector, kind, words) in [
        (Fault::Flip(30), "1", ErrorKind::Integrity, "was expected"),
        (Fault::Flip(30), digest.as_str(), ErrorKind::Integrity, "was expected"),
        (
            Fault::Truncate(30),
            digest.as_str(),
            ErrorKind::Integrity,
            "was expected",
        ),
        (Fault::Answer(old), "1", ErrorKind::Integrity, "schema 1"),
        (
            Fault::Answer(huge),
            "1",
            ErrorKind::Integrity,
            "more than 16777216 bytes",
        ),
    ] {
        let proxy = FaultProxy::start(registry.address);
        let app = reference(&format!("{}/library/app:1", proxy.host()));
        proxy.always("/manifests/", fault);
        let error = client.manifest(&app, selector).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(
            whole(&error).contains(words) && whole(&error).contains("library/app"),
            "{error:?}"
        );
    }
}

#[test]
fn a_host_that_is_not_there_is_named_soon() {
    let began = Instant::now();
    let client = client();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (name, words) in [
        (format!("{free}/a/b:1"), "cannot connect to 127.0.0.1"),
        ("no-such-host.invalid/a/b:1".to_owned(), "no-such-host.invalid"),
    ] {
        let error = manifest(&client, &reference(&name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
        assert!(whole(&error).contains(words), "{error:?}");
        assert!(error.remedy().is_some(), "{error:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
