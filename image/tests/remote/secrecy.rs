//! Where credentials never go.

use std::fs;

use sealrs_image::error::ErrorKind;

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http::{Response, Server};
use crate::support::registry::{Registry, Setup};
use crate::support::{self, have};
use crate::{TOOLS, filled, log_in, manifest, read, reference, whole};

#[test]
fn nobody_but_the_registry_sees_the_credentials() {
    if !have(&[&TOOLS[..], &["htpasswd"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let plain = filled(folder.path(), 100_000);
    let htpasswd = folder.path().join("htpasswd");
    fs::write(&htpasswd, support::run("htpasswd", &["-Bbn", "reader", "s3cret-word"])).unwrap();
    let registry = Registry::start(&Setup {
        htpasswd: Some(htpasswd),
        storage: Some(plain.storage().to_owned()),
        ..Setup::default()
    });
    // The registry sends its blobs' readers to another server, as with storage in a cloud. That one asks who they are.
    let (front, cloud) = (FaultProxy::start(registry.address), FaultProxy::start(plain.address));
    let entry = serde_json::json!({"username": "reader", "password": "s3cret-word"});
    let client = log_in(folder.path(), &front.host(), &entry);
    let app = reference(&format!("{}/library/app:1", front.host()));
    let layer = &manifest(&client, &app).unwrap().layers[0];
    let elsewhere = format!("http://{}/v2/library/app/blobs/{}", cloud.host(), layer.digest);
    front.always(
        "/blobs/",
        Fault::Answer(Response::new(307).header("Location", &elsewhere)),
    );
    cloud.next("/blobs/", [Fault::Cut(70_000)]);
    assert!(read(&client, &app, layer).is_ok());
    let (sent, received) = (front.passed("/blobs/"), cloud.passed("/blobs/"));
    assert_eq!((sent.len(), received.len()), (2, 2));
    assert!(
        sent.iter()
            .all(|passed| passed.request.header("authorization").is_some())
    );
    assert!(
        received
            .iter()
            .all(|passed| passed.request.header("authorization").is_none()),
        "{received:?}"
    );
    assert!(received[1].request.header("range").is_some());
    assert!(sent[0].request.header("user-agent").unwrap().starts_with("sealrs/"));

    // Even if it asks, and even if it sends them back to the registry.
    let ask = Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let back = format!("http://{}/v2/library/app/manifests/1", front.host());
    let back = Response::new(307).header("Location", &back);
    for (answer, words) in [(ask, "answered 401"), (back, "refuses")] {
        cloud.next("/blobs/", [Fault::Answer(answer)]);
        let error = client.blob(&app, layer, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
        assert!(whole(&error).contains(words), "{error:?}");
    }
    assert!(
        cloud
            .passed("")
            .iter()
            .all(|passed| passed.request.header("authorization").is_none())
    );
    let last = front.passed("/manifests/").pop().unwrap();
    assert!(last.request.header("authorization").is_none(), "{last:?}");

    // Round and round; and out to where nobody protects anything.
    let around = format!("http://{}/v2/library/app/blobs/{}", front.host(), layer.digest);
    for (location, times, words) in [
        (around.as_str(), 5, "redirects without end"),
        ("http://192.0.2.1/x", 1, "is not safe"),
    ] {
        let redirect = Fault::Answer(Response::new(302).header("Location", location));
        cloud.next("/blobs/", vec![redirect; times]);
        let error = client.blob(&app, layer, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
        assert!(whole(&error).contains(words), "{error:?}");
    }
    assert!(read(&client, &app, layer).is_ok());
}

#[test]
fn a_token_server_gets_no_credentials_over_an_unsafe_way() {
    let registry = Server::start(|_| {
        Response::new(401).header(
            "WWW-Authenticate",
            r#"Bearer realm="http://192.0.2.1/token",service="x""#,
        )
    });
    let folder = tempfile::tempdir().unwrap();
    let entry = serde_json::json!({"username": "reader", "password": "s3cret-word"});
    let client = log_in(folder.path(), &registry.host(), &entry);
    let error = manifest(&client, &reference(&format!("{}/a/b:1", registry.host()))).unwrap_err();
    assert!(
        whole(&error).contains("192.0.2.1 by http, which is not safe"),
        "{error:?}"
    );
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}
