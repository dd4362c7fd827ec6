//! Ways through proxies: a real one, which lets through whom it is told to.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sealrs_image::error::{Error, ErrorKind};
use sealrs_image::remote::{Client, Options};

use crate::support::http::{Acceptor, Response, read_request};
use crate::support::registry::{Registry, Setup};
use crate::support::{certificate, have, own_process};
use crate::{TOOLS, filled, manifest, quick, read, reference, whole};

/// A proxy whose every CONNECT leads to that port of this host. Host names in it need not exist.
struct Proxy {
    acceptor: Acceptor,
    /// What it was asked for.
    log: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `authorization`: what it wants to see in `Proxy-Authorization`.
    fn start(authorization: Option<&'static str>) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let acceptor = Acceptor::start(move |mut client| {
            let Some((request, head)) = read_request(&mut client) else {
                return;
            };
            lines
                .lock()
                .unwrap()
                .push(format!("{} {}", request.method, request.target));
            if request.header("proxy-authorization") != authorization {
                let _ = client.write_all(&Response::new(407).header("Proxy-Authenticate", "Basic").bytes());
                return;
            }
            let authority = match request.method.as_str() {
                "CONNECT" => request.target.as_str(),
                _ => request.target.trim_start_matches("http://").split('/').next().unwrap(),
            };
            let port: u16 = authority.rsplit(':').next().unwrap().parse().unwrap();
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else {
                let _ = client.write_all(&Response::new(502).bytes());
                return;
            };
            if request.method == "CONNECT" {
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            } else {
                // One request a connection.
                let head = head.trim_end().to_owned() + "\r\nConnection: close\r\n\r\n";
                server.write_all(head.as_bytes()).unwrap();
            }
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let _ = std::io::copy(&mut client, &mut server);
        });
        Self { acceptor, log }
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}{}", self.acceptor.address)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

/// A registry with TLS, whose certificate (by `FOLDER/ca.pem`) is for names that only a proxy can reach, and the one
/// that keeps its files.
fn registry(folder: &Path) -> (Registry, Registry) {
    let path = |name: &str| folder.join(name);
    certificate(folder, "ca", "", None);
    certificate(folder, "server", "DNS:proxied.example.com,DNS:localhost", Some("ca"));
    let source = filled(folder, 1000);
    let registry = Registry::start(&Setup {
        tls: Some((path("server.pem"), path("server.key"))),
        storage: Some(source.storage().to_owned()),
        ..Setup::default()
    });
    (registry, source)
}

/// Pulls `library/app:1` from a host, in a process with the proxies of its own environment.
fn pull(host: &str, insecure: bool) -> Result<(), Error> {
    let authority = PathBuf::from(std::env::var("SEALRS_TEST_FOLDER").unwrap()).join("ca.pem");
    let client = Client::new(Options {
        ca_files: authority.is_file().then_some(authority).into_iter().collect(),
        insecure_hosts: insecure.then(|| host.to_owned()).into_iter().collect(),
        attempts: 1,
        ..quick()
    })?;
    let app = reference(&format!("{host}/library/app:1"));
    read(&client, &app, &manifest(&client, &app)?.layers[0]).map(drop)
}

/// The test's own child with these variables; in it, gives true.
fn child(test: &str, folder: &Path, port: u16, variables: &[(&str, &str)]) -> bool {
    let (folder, port) = (folder.display().to_string(), port.to_string());
    let own = [("SEALRS_TEST_FOLDER", folder.as_str()), ("SEALRS_TEST_PORT", &port)];
    own_process(test, &[&own[..], variables].concat())
}

fn port_in_child() -> Option<u16> {
    std::env::var("SEALRS_TEST_PORT").ok().map(|port| port.parse().unwrap())
}

#[test]
fn goes_through_the_proxy_that_the_environment_names() {
    const NAME: &str = "proxy::goes_through_the_proxy_that_the_environment_names";
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    if let Some(port) = port_in_child() {
        pull(&format!("proxied.example.com:{port}"), false).unwrap();
        // Past it: what NO_PROXY names, with a port or without, and this very host.
        for direct in ["direct.example.com", "sub.direct.example.com", "port.example.com"] {
            let error = pull(&format!("{direct}:{port}"), false).unwrap_err();
            assert!(whole(&error).contains("cannot be resolved"), "{error:?}");
        }
        pull(&format!("localhost:{port}"), false).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, _storage) = registry(folder.path());
    let port = registry.address.port();
    let no_proxy = format!("direct.example.com, port.example.com:{port}");
    for (proxy_name, no_proxy_name) in [
        ("HTTPS_PROXY", "NO_PROXY"),
        ("https_proxy", "no_proxy"),
        ("ALL_PROXY", "NO_PROXY"),
    ] {
        let proxy = Proxy::start(None);
        let variables = [(proxy_name, proxy.url("")), (no_proxy_name, no_proxy.clone())];
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        child(NAME, folder.path(), port, &variables);
        let asked = proxy.asked();
        let expected = format!("CONNECT proxied.example.com:{port}");
        assert!(
            !asked.is_empty() && asked.iter().all(|line| *line == expected),
            "{proxy_name}: {asked:?}"
        );
    }
}

#[test]
fn plain_http_goes_through_its_own_proxy() {
    const NAME: &str = "proxy::plain_http_goes_through_its_own_proxy";
    if !have(&TOOLS) {
        return;
    }
    if let Some(port) = port_in_child() {
        pull(&format!("plain.example.com:{port}"), true).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = filled(folder.path(), 1000);
    let port = source.address.port();
    let proxy = Proxy::start(None);
    child(
        NAME,
        folder.path(),
        port,
        &[("HTTP_PROXY", &proxy.url("")), ("HTTPS_PROXY", &proxy.url(""))],
    );
    let asked = proxy.asked();
    let first = format!("GET http://plain.example.com:{port}/v2/");
    assert!(asked.iter().any(|line| line.starts_with(&first)), "{asked:?}");
}

#[test]
fn a_proxy_may_ask_who_is_there() {
    const NAME: &str = "proxy::a_proxy_may_ask_who_is_there";
    // user:p@ss word
    const AUTHORIZATION: &str = "Basic dXNlcjpwQHNzIHdvcmQ=";
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    if let Some(port) = port_in_child() {
        let pulled = pull(&format!("proxied.example.com:{port}"), false);
        let proxy = std::env::var("SEALRS_TEST_PROXY").unwrap();
        let told = |kind: ErrorKind, words: &str| {
            let error = pulled.as_ref().unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            let text = whole(error);
            assert!(text.contains(&proxy) && text.contains("proxied.example.com"), "{text}");
            assert!(
                text.contains(words) && !text.contains("p%40ss") && !text.contains("p@ss"),
                "{text}"
            );
        };
        match std::env::var("SEALRS_TEST_CASE").unwrap().as_str() {
            "known" => pulled.unwrap(),
            "unknown" => told(ErrorKind::Auth, "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"),
            "dead" => told(ErrorKind::Network, "cannot connect to the proxy"),
            "nameless" => told(ErrorKind::Network, "cannot be resolved"),
            "nowhere" => told(ErrorKind::Network, "does not connect to proxied.example.com"),
            "untrusted" => told(ErrorKind::Network, "is not trusted"),
            case => panic!("{case}"),
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, _storage) = registry(folder.path());
    let other = tempfile::tempdir().unwrap();
    let port = registry.address.port();
    let proxy = Proxy::start(Some(AUTHORIZATION));
    let address = proxy.acceptor.address.to_string();
    let known = proxy.url("user:p%40ss%20word@");
    for (case, folder, port, url, named) in [
        ("known", &folder, port, known.as_str(), address.as_str()),
        ("unknown", &folder, port, &proxy.url(""), &address),
        ("unknown", &folder, port, &proxy.url("user:p%40ss@"), &address),
        ("dead", &folder, port, "http://user:p%40ss@127.0.0.1:1", "127.0.0.1:1"),
        (
            "nameless",
            &folder,
            port,
            "http://user:p%40ss@proxy.invalid:3128",
            "proxy.invalid:3128",
        ),
        ("nowhere", &folder, 1, &known, &address),
        ("untrusted", &other, port, &known, &address),
    ] {
        let variables = [
            ("HTTPS_PROXY", url),
            ("SEALRS_TEST_CASE", case),
            ("SEALRS_TEST_PROXY", named),
        ];
        child(NAME, folder.path(), port, &variables);
    }
}
