//! Lists of tags. (Debian's docker-registry gives them in one page; `cli/tests/login.rs` has a real registry with several.)

use sealrs_image::error::ErrorKind;

use crate::login::with_tokens;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http::{Request, Response, Server};
use crate::support::registry::Registry;
use crate::support::{have, token_server};
use crate::{TOOLS, client, filled, log_in, reference, whole};

/// Gives `library/app` so many tags, in the registry's own files.
fn tag(registry: &Registry, count: usize) {
    let tags = registry
        .storage()
        .join("docker/registry/v2/repositories/library/app/_manifests/tags");
    let link = std::fs::read(tags.join("1/current/link")).unwrap();
    for number in 2..=count {
        let folder = tags.join(number.to_string()).join("current");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("link"), &link).unwrap();
    }
}

#[test]
fn lists_all_tags() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 1000);
    let app = reference(&format!("{}/library/app", registry.host()));
    assert_eq!(client().tags(&app).unwrap(), ["1"]);
    tag(&registry, 300);
    let proxy = FaultProxy::start(registry.address);
    let app = reference(&format!("{}/library/app", proxy.host()));
    // A list that comes only half is asked for again.
    proxy.next("/tags/list", [Fault::Cut(100)]);
    let tags = client().tags(&app).unwrap();
    let expected: Vec<String> = (1..=300).map(|number| number.to_string()).collect();
    assert_eq!(tags, expected);
    assert!(
        proxy.passed("/tags/list").len() >= 2,
        "{:?}",
        proxy.passed("/tags/list").len()
    );
    let error = client()
        .tags(&reference(&format!("{}/no/such", registry.host())))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(whole(&error).contains("no/such"), "{error:?}");
}

#[test]
fn a_list_needs_what_a_pull_needs() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, _tokens, _storage) = with_tokens(folder.path());
    let app = reference(&format!("{}/library/app", registry.host()));
    let entry = serde_json::json!({"username": token_server::USER, "password": token_server::PASSWORD});
    assert_eq!(
        log_in(folder.path(), &registry.host(), &entry).tags(&app).unwrap(),
        ["1"]
    );
    let error = client().tags(&app).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(error.remedy().unwrap().contains("sealrs login"), "{error:?}");
}

#[test]
fn follows_links_within_the_list_only() {
    let tags = |pages: fn(&Request) -> Response| {
        let server = Server::start(move |request| match request.target.as_str() {
            "/v2/" => Response::new(200),
            _ => pages(request),
        });
        let tags = client().tags(&reference(&format!("{}/a/b", server.host())));
        (tags, server.requests())
    };
    // An inner name of the registry, and an order of its own; twice the same tag.
    let (listed, requests) = tags(|request| {
        if request.target.contains("last=") {
            return Response::new(200).body(r#"{"tags": ["v1.9", "v1.2"]}"#);
        }
        let link = r#"<http://192.0.2.1/v2/other/tags/list?last=v1.10&n=2>; rel="next""#;
        Response::new(200)
            .header("Link", link)
            .body(r#"{"tags": ["v1.10", "v1.9"]}"#)
    });
    assert_eq!(listed.unwrap(), ["v1.2", "v1.9", "v1.10"]);
    assert_eq!(requests.last().unwrap().target, "/v2/a/b/tags/list?last=v1.10&n=2");

    let (listed, _) = tags(|_| Response::new(200).body(r#"{"name": "a/b", "tags": null}"#));
    assert_eq!(listed.unwrap(), [""; 0]);
    for (pages, words) in [
        (
            (|_| {
                Response::new(200)
                    .header("Link", "<?last=a>; rel=next")
                    .body(r#"{"tags": ["a"]}"#)
            }) as fn(&Request) -> Response,
            "without end",
        ),
        (|_| Response::new(200).body("{\"tags\": [\"a\\u001b[2J\"]}"), "no tag"),
        (|_| Response::new(200).body("<html>"), "cannot be read"),
        (|_| Response::new(200).body(vec![b' '; 17 << 20]), "more than"),
    ] {
        let (listed, _) = tags(pages);
        let error = listed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
        let text = whole(&error);
        assert!(
            text.contains(words) && !text.contains('\x1b') && text.contains("a/b"),
            "{text}"
        );
    }
}
