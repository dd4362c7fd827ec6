//! Showing credentials to a registry before they are kept.

use std::fs;

use sealrs_image::error::ErrorKind;
use sealrs_image::remote::{Client, Credentials, Login, Options, RegistryName, Welcome};

use crate::login::with_tokens;
use crate::support::http::{Response, Server};
use crate::support::registry::{Registry, Setup};
use crate::support::{self, certificate, have, token_server};
use crate::{TOOLS, client, filled, manifest, quick, reference, whole};

fn name(text: &str) -> RegistryName {
    text.parse().unwrap()
}

fn login(user: &str, password: &str) -> Login {
    Login::new(user, password.to_owned()).unwrap()
}

#[test]
fn a_registry_says_whether_it_knows_somebody() {
    if !have(&[&TOOLS[..], &["htpasswd", "openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let open = filled(folder.path(), 1000);
    fs::write(
        path("htpasswd"),
        support::run("htpasswd", &["-Bbn", "reader", "s3cret-word"]),
    )
    .unwrap();
    certificate(folder.path(), "ca", "", None);
    certificate(folder.path(), "server", "IP:127.0.0.1", Some("ca"));
    let registry = Registry::start(&Setup {
        tls: Some((path("server.pem"), path("server.key"))),
        htpasswd: Some(path("htpasswd")),
        storage: Some(open.storage().to_owned()),
        ..Setup::default()
    });
    let options = || Options {
        ca_files: vec![path("ca.pem")],
        ..quick()
    };
    let client = Client::new(options()).unwrap();
    let right = login("reader", "s3cret-word");
    assert_eq!(client.check(&name(&registry.host()), &right).unwrap(), Welcome::Known);
    for wrong in [login("reader", "guessed-word"), login("nobody", "s3cret-word")] {
        let error = client.check(&name(&registry.host()), &wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        let text = whole(&error);
        assert!(
            text.contains(&format!("`{}`", wrong.user)) && text.contains(&registry.host()),
            "{text}"
        );
        assert!(!text.contains("word`") && !text.contains("guessed-word"), "{text}");
    }
    assert_eq!(client.check(&name(&open.host()), &right).unwrap(), Welcome::Everybody);

    // What is kept is used by the next client.
    let file = path("docker/config.json");
    let credentials = || Credentials::from_files(vec![file.clone()]).unwrap();
    credentials().store(&name(&registry.host()), &right).unwrap();
    let client = Client::new(Options {
        credentials: credentials(),
        ..options()
    });
    let app = reference(&format!("{}/library/app:1", registry.host()));
    assert!(manifest(&client.unwrap(), &app).is_ok());
}

#[test]
fn a_token_server_says_whether_it_knows_somebody() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, tokens, _storage) = with_tokens(folder.path());
    let right = login(token_server::USER, token_server::PASSWORD);
    assert_eq!(client().check(&name(&registry.host()), &right).unwrap(), Welcome::Known);
    let asked = tokens.server.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].target.contains("account=reader") && !asked[0].target.contains("scope"),
        "{asked:?}"
    );
    let error = client()
        .check(&name(&registry.host()), &login("reader", "guessed-word"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    let text = whole(&error);
    assert!(
        text.contains("refuses the user `reader`") && text.contains("incorrect username or password"),
        "{text}"
    );
    assert!(!text.contains("guessed-word"), "{text}");
}

#[test]
fn what_is_no_registry_gets_no_login() {
    let server = Server::start(|_| Response::new(404));
    let error = client()
        .check(&name(&server.host()), &login("reader", "word"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.remedy().unwrap().contains("not a registry"), "{error:?}");
    // A registry that sends us away gets no more than that.
    let other = Server::start(|_| Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\""));
    let elsewhere = other.url();
    let server = Server::start(move |_| Response::new(307).header("Location", &elsewhere));
    let error = client()
        .check(&name(&server.host()), &login("reader", "word"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    let requests = other.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.header("authorization").is_none()));
}
