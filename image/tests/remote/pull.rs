//! What a pull is when all goes well.

use std::io::Read as _;

use sealrs_image::copy::{self, StoreSink};
use sealrs_image::digest::Digest;
use sealrs_image::error::ErrorKind;
use sealrs_image::progress::Silent;
use sealrs_image::remote::RemoteSource;
use sealrs_image::source::Source as _;
use sealrs_image::spec::{self, Descriptor, Index, media_type};
use sealrs_image::store::Store;

use crate::support::http::{Response, Server};
use crate::support::registry::{Registry, Setup};
use crate::support::{have, image, noise};
use crate::{TOOLS, client, filled, manifest, read, reference, whole};

#[test]
fn pulls_from_a_plain_registry_on_this_host() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 3 << 20);
    let layout = folder.path().join("two");
    image::layout(&layout, "two", &["linux/amd64", "linux/arm64"], &[b"two".to_vec()]);
    registry.push(&format!("{}:two", layout.display()), "team/two:1.0");
    let client = client();

    let app = reference(&format!("{}/library/app:1", registry.host()));
    let by_tag = client.manifest(&app, "1").unwrap();
    assert_eq!(by_tag.descriptor, Descriptor::of(media_type::MANIFEST, &by_tag.bytes));
    let by_digest = client.manifest(&app, &by_tag.descriptor.digest.to_string()).unwrap();
    assert_eq!(by_digest, by_tag);
    let layer = &manifest(&client, &app).unwrap().layers[0];
    let blob = read(&client, &app, layer).unwrap();
    for offset in [1, layer.size / 2, layer.size - 1, layer.size] {
        let mut rest = Vec::new();
        client
            .blob(&app, layer, offset)
            .unwrap()
            .read_to_end(&mut rest)
            .unwrap();
        assert!(rest == blob[usize::try_from(offset).unwrap()..], "from {offset}");
    }

    // The whole index with all its platforms, through the same engine as everything else.
    let two = reference(&format!("{}/team/two:1.0", registry.host()));
    let index = client.manifest(&two, "1.0").unwrap();
    assert_eq!(index.descriptor.media_type, media_type::INDEX);
    assert_eq!(spec::parse::<Index>(&index.bytes, "index").unwrap().manifests.len(), 2);
    let store = Store::open(&folder.path().join("root")).unwrap();
    let source = RemoteSource {
        client: client.clone(),
        repository: two.clone(),
    };
    let sink = StoreSink {
        store: &store,
        root: index.descriptor.clone(),
        names: vec![two.clone()],
    };
    copy::copy(&source, &index.descriptor, Box::new(sink), 4, &Silent).unwrap();
    assert_eq!(store.resolve(&two).unwrap().unwrap().digest, index.descriptor.digest);

    let six = Registry::start(&Setup {
        storage: Some(registry.storage().to_owned()),
        address: Some("::1".to_owned()),
        ..Setup::default()
    });
    assert!(manifest(&client, &reference(&format!("{}/library/app:1", six.host()))).is_ok());

    let missing = Digest::of(b"missing");
    let absent_blob = Descriptor::new(media_type::LAYER, missing, 7);
    for (error, words) in [
        (client.manifest(&app, "2").unwrap_err(), "library/app:2"),
        (
            client.manifest(&app, &missing.to_string()).unwrap_err(),
            "library/app@sha256:",
        ),
        (
            manifest(&client, &reference(&format!("{}/no/such:1", registry.host()))).unwrap_err(),
            "no/such:1",
        ),
        (client.blob(&app, &absent_blob, 0).unwrap_err(), &missing.to_string()),
        (source.open(&absent_blob, 0).err().unwrap(), &missing.to_string()),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(
            whole(&error).contains(words) && whole(&error).contains("404"),
            "{error:?}"
        );
    }
    for bad in ["", "a/b", "../1", "a?b", "sha256:12", "a b"] {
        assert_eq!(
            client.manifest(&app, bad).unwrap_err().kind(),
            ErrorKind::Input,
            "{bad}"
        );
    }
}

#[test]
fn foreign_layers_come_from_elsewhere_only_if_the_registry_lacks_them() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 1000);
    let client = client();
    let app = reference(&format!("{}/library/app:1", registry.host()));
    let elsewhere = Server::start(|request| match request.header("range") {
        Some(_) => Response::new(206).header("Content-Range", "bytes 2-6/7").body("reign"),
        None => Response::new(200).body("foreign"),
    });
    let mut here = manifest(&client, &app).unwrap().layers[0].clone();
    here.urls = vec![format!("{}/x", elsewhere.url())];
    assert!(read(&client, &app, &here).is_ok());
    assert_eq!(elsewhere.requests().len(), 0);

    let mut foreign = Descriptor::of(media_type::LAYER, b"foreign");
    foreign.urls = here.urls;
    assert_eq!(read(&client, &app, &foreign).unwrap(), b"foreign");
    let mut rest = String::new();
    client
        .blob(&app, &foreign, 2)
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    assert_eq!(rest, "reign");
    assert_eq!(elsewhere.requests().len(), 2);

    foreign.urls = vec!["http://192.0.2.1/x".to_owned()];
    let error = client.blob(&app, &foreign, 0).unwrap_err();
    assert!(whole(&error).contains("is not safe"), "{error:?}");
}

#[test]
fn a_server_may_send_a_range_in_parts() {
    let body = noise(3, 10_000);
    let blob = Descriptor::of(media_type::LAYER, &body);
    let registry = Server::start(move |request| {
        let from: usize = match request.header("range") {
            Some(range) => range
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse()
                .unwrap(),
            None if request.target.contains("/blobs/") => 0,
            None => return Response::new(200),
        };
        let end = (from + 3000).min(body.len());
        let range = format!("bytes {from}-{}/{}", end - 1, body.len());
        Response::new(206)
            .header("Content-Range", &range)
            .body(&body[from..end])
    });
    let app = reference(&format!("{}/a/b:1", registry.host()));
    assert_eq!(read(&client(), &app, &blob).unwrap().len(), 10_000);
    let blobs = registry
        .requests()
        .iter()
        .filter(|request| request.target.contains("/blobs/"))
        .count();
    assert_eq!(blobs, 4);
}
