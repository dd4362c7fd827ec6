//! Tokens that end before the transfer does.

use std::io::Read as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sealrs_image::error::ErrorKind;

use crate::login::with_tokens;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::{have, token_server};
use crate::{TOOLS, log_in, manifest, read, reference, whole};

#[test]
fn a_token_that_ends_in_the_middle_of_a_pull_is_replaced() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, tokens, _storage) = with_tokens(folder.path());
    let proxy = FaultProxy::start(registry.address);
    let entry = serde_json::json!({"username": token_server::USER, "password": token_server::PASSWORD});
    let app = reference(&format!("{}/library/app:1", proxy.host()));
    let asked = || tokens.server.requests().len();
    tokens.life.store(1, Ordering::SeqCst);
    let client = log_in(folder.path(), &proxy.host(), &entry);
    let layers = manifest(&client, &app).unwrap().layers;
    assert_eq!(asked(), 1);
    // Between two blobs.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(read(&client, &app, &layers[1]).is_ok());
    assert_eq!(asked(), 2);
    // Within one: the connection breaks when the token is over.
    let layer = &layers[0];
    proxy.next(&layer.digest.to_string(), [Fault::Cut(layer.size / 2)]);
    let mut blob = client.blob(&app, layer, 0).unwrap();
    let mut bytes = vec![0; 1000];
    blob.read_exact(&mut bytes).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let before = asked();
    blob.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, layer.size);
    assert_eq!(asked(), before + 1);
    // The registry never saw one that was over: each request it got was answered.
    let answers = proxy.passed("/v2/library/");
    assert!(answers.iter().all(|passed| passed.status != 401), "{answers:?}");
}

#[test]
fn a_token_that_the_registry_finds_too_old_is_replaced() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, tokens, _storage) = with_tokens(folder.path());
    let proxy = FaultProxy::start(registry.address);
    let entry = serde_json::json!({"username": token_server::USER, "password": token_server::PASSWORD});
    let app = reference(&format!("{}/library/app:1", proxy.host()));
    // It says five minutes and means two seconds.
    tokens.lies.store(true, Ordering::SeqCst);
    let client = log_in(folder.path(), &proxy.host(), &entry);
    let layers = manifest(&client, &app).unwrap().layers;
    std::thread::sleep(Duration::from_millis(3500));
    assert!(read(&client, &app, &layers[0]).is_ok());
    assert_eq!(tokens.server.requests().len(), 2);
    let answers = proxy.passed("/blobs/");
    assert_eq!(answers[0].status, 401, "the registry refused the old one: {answers:?}");
}

#[test]
fn a_token_server_that_fails_in_the_middle_is_named() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, tokens, _storage) = with_tokens(folder.path());
    let entry = serde_json::json!({"username": token_server::USER, "password": token_server::PASSWORD});
    let app = reference(&format!("{}/library/app:1", registry.host()));
    tokens.life.store(0, Ordering::SeqCst);
    let client = log_in(folder.path(), &registry.host(), &entry);
    let layer = &manifest(&client, &app).unwrap().layers[0];
    for (status, kind, words) in [
        (503, ErrorKind::Network, "answered 503"),
        (401, ErrorKind::Auth, "refuses"),
        (200, ErrorKind::Auth, "without a token"),
    ] {
        tokens.status.store(status, Ordering::SeqCst);
        let error = read(&client, &app, layer).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        let text = whole(&error);
        assert!(text.contains(words) && text.contains(&tokens.server.host()), "{text}");
        assert!(
            text.contains(&layer.digest.to_string()) && text.contains("library/app:1"),
            "{text}"
        );
        assert!(!text.contains(token_server::PASSWORD), "{text}");
    }
    // And once it is well again, so are we.
    tokens.status.store(0, Ordering::SeqCst);
    assert!(read(&client, &app, layer).is_ok());
}
