//! Whether something holds that a step waits for.

mod objects;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};

use crate::action::Probe;
use crate::command;
use crate::service::Services;

/// How long one probe may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Whether it holds.
///
/// # Errors
/// Why it does not (yet).
pub(crate) fn check(probe: &Probe, services: &Services) -> Result<()> {
    match probe {
        Probe::Service(name) => {
            if services.status(name)?.active {
                Ok(())
            } else {
                Err(not_yet(format!("service {name} is not active")))
            }
        }
        Probe::Registry { address, name, ca } => registry(*address, name, ca),
        Probe::Prints {
            what,
            argv,
            env,
            starts,
        } => {
            let done = command::output(command::prepare(argv, env, &[])?, None, LIMIT)?
                .checked(|| format!("not yet: {what}"))?;
            if done.stdout.trim_start().starts_with(starts.as_str()) {
                Ok(())
            } else {
                Err(not_yet(format!("not yet: {what}")))
            }
        }
        Probe::Has {
            what,
            argv,
            env,
            pointer,
        } => {
            let done = command::output(command::prepare(argv, env, &[])?, None, LIMIT)?
                .checked(|| format!("not yet: {what}"))?;
            let printed: serde_json::Value = serde_json::from_str(&done.stdout)
                .or_fail(ErrorKind::Step, || format!("`{}` does not print JSON", argv.join(" ")))?;
            match printed.pointer(pointer) {
                Some(found) if !found.is_null() => Ok(()),
                _ => Err(not_yet(format!("not yet: {what}"))),
            }
        }
        Probe::ObjectsReady { what, argv, env } => {
            let done = command::output(command::prepare(argv, env, &[])?, None, LIMIT)?
                .checked(|| format!("not yet: {what}"))?;
            objects::ready(&done.stdout)
        }
        Probe::NodeReady { names, argv, env } => {
            let done = command::output(command::prepare(argv, env, &[])?, None, LIMIT)?
                .checked(|| "the nodes can't be listed".to_owned())?;
            nodes_ready(&done.stdout, names)
        }
    }
}

fn not_yet(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Step, what)
}

/// Whether a registry answers over TLS.
///
/// # Errors
/// Why it does not.
pub(crate) fn registry(address: SocketAddr, name: &str, ca: &Path) -> Result<()> {
    answers(address, name, ca).context(|| format!("the registry does not answer on {address}"))
}

/// `GET /v2/`, which every registry answers, if only to ask for a password (OCI distribution specification, end-1).
fn answers(address: SocketAddr, name: &str, ca: &Path) -> Result<()> {
    let stream = over_tls(address, name, ca, LIMIT)?;
    match ask(stream, name, "/v2/") {
        Ok(answer) if is_a_registrys(&answer) => Ok(()),
        Ok(other) => Err(not_yet(format!(
            "it answers `{}`",
            String::from_utf8_lossy(&other).escape_debug()
        ))),
        Err(error) => Err(without_tls(error, address, name, ca)),
    }
}

/// Whether an API server of the cluster with this certificate authority is ready. One that lets nobody ask is, too.
///
/// # Errors
/// Why it is not.
pub(crate) fn api_server(address: SocketAddr, ca: &Path) -> Result<()> {
    const NAME: &str = "kubernetes";
    let stream = over_tls(address, NAME, ca, Duration::from_secs(2))?;
    match ask(stream, NAME, "/readyz").or_io(|| "it does not answer")? {
        answer if matches!(answer.get(9..), Some(b"200" | b"401" | b"403")) => Ok(()),
        other => Err(not_yet(format!(
            "it answers `{}`",
            String::from_utf8_lossy(&other).escape_debug()
        ))),
    }
}

/// A connection over TLS, which is only set up when something is sent.
fn over_tls(
    address: SocketAddr,
    name: &str,
    ca: &Path,
    limit: Duration,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca)
        .or_fail(ErrorKind::Integrity, || format!("{} is no certificate", ca.display()))?;
    roots
        .add(certificate)
        .or_fail(ErrorKind::Integrity, || format!("{} is no certificate", ca.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_fail(ErrorKind::Internal, || "TLS can't be set up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server =
        ServerName::try_from(name.to_owned()).or_fail(ErrorKind::Input, || format!("`{name}` is no host name"))?;
    let connection =
        ClientConnection::new(Arc::new(config), server).or_fail(ErrorKind::Internal, || "TLS can't be set up")?;
    let stream = connect(address, limit).or_io(|| "cannot connect to it")?;
    Ok(StreamOwned::new(connection, stream))
}

fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// The begin of the answer, with its status.
fn ask(mut stream: impl Read + Write, name: &str, path: &str) -> io::Result<[u8; 12]> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = [0u8; 12];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn is_a_registrys(answer: &[u8; 12]) -> bool {
    matches!(
        answer,
        b"HTTP/1.1 200" | b"HTTP/1.1 401" | b"HTTP/1.0 200" | b"HTTP/1.0 401"
    )
}

/// Why TLS failed, as far as one can tell from outside.
fn without_tls(error: io::Error, address: SocketAddr, name: &str, ca: &Path) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
        let authority = ca.display();
        return not_yet(format!("its certificate is not one of {authority} for {name}")).because(error);
    }
    let plain = connect(address, LIMIT).and_then(|stream| ask(stream, name, "/v2/"));
    if plain.is_ok_and(|answer| is_a_registrys(&answer)) {
        return not_yet("it answers over plain HTTP, where TLS is expected");
    }
    not_yet("cannot talk to it over TLS").because(error)
}

/// Whether the list of nodes (JSON of the Kubernetes API) has all of these, ready; or any one that is ready.
fn nodes_ready(list: &str, names: &[String]) -> Result<()> {
    let list: serde_json::Value =
        serde_json::from_str(list).or_fail(ErrorKind::Step, || "the list of nodes can't be read")?;
    let items = list.get("items").and_then(|items| items.as_array());
    let nodes = items.map(Vec::as_slice).unwrap_or_default();
    if names.is_empty() {
        return match nodes {
            [] => Err(not_yet("there is no node yet")),
            [node] => node_ready("the node", node),
            nodes if nodes.iter().any(|node| node_ready("", node).is_ok()) => Ok(()),
            _ => Err(not_yet("no node is ready")),
        };
    }
    names.iter().try_for_each(|name| {
        let is_meant = |node: &&serde_json::Value| node.pointer("/metadata/name").is_some_and(|found| found == name);
        match nodes.iter().find(is_meant) {
            Some(node) => node_ready(&format!("node {name}"), node),
            None => Err(not_yet(format!("there is no node {name} yet"))),
        }
    })
}

fn node_ready(name: &str, node: &serde_json::Value) -> Result<()> {
    let conditions = node.pointer("/status/conditions").and_then(|found| found.as_array());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.get("type").is_some_and(|kind| kind == "Ready"));
    let field = |field: &str| ready?.get(field)?.as_str();
    match (field("status"), field("message")) {
        (Some("True"), _) => Ok(()),
        (_, Some(reason)) => Err(not_yet(format!("{name} is not ready: {reason}"))),
        (_, None) => Err(not_yet(format!("{name} is not ready"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::TcpListener;
    use std::thread;

    /// A listener that answers each connection so.
    fn listen(answer: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || listener.incoming().flatten().for_each(answer));
        address
    }

    fn pki(folder: &Path) {
        let names = BTreeSet::from(["sea.hub".to_owned()]);
        crate::pki::make(folder, "c", &names, &BTreeSet::new(), 1).unwrap();
    }

    #[test]
    fn tells_why_a_registry_does_not_answer_over_tls() {
        let scratch = tempfile::tempdir().unwrap();
        let (folder, other) = (scratch.path().join("own"), scratch.path().join("other"));
        pki(&folder);
        pki(&other);
        let why = |address: SocketAddr| {
            let error = answers(address, "sea.hub", &folder.join("ca.crt")).unwrap_err();
            format!("{error} {:?}", error.causes())
        };
        let plain = listen(|mut stream| {
            let mut begin = [0; 3];
            stream.read_exact(&mut begin).unwrap();
            let status = if &begin == b"GET" { "200 OK" } else { "400 Bad Request" };
            stream
                .write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())
                .unwrap();
        });
        assert!(why(plain).contains("plain HTTP"), "{}", why(plain));
        let silent = listen(drop);
        assert!(why(silent).contains("cannot talk to it over TLS"), "{}", why(silent));

        let read = |name: &str| other.join(name);
        let chain = vec![CertificateDer::from_pem_file(read("registry.crt")).unwrap()];
        let key = rustls::pki_types::PrivateKeyDer::from_pem_file(read("registry.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let foreign = listen(move |stream| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = StreamOwned::new(connection, stream).read(&mut [0; 12]);
        });
        assert!(why(foreign).contains("its certificate"), "{}", why(foreign));
        assert!(
            answers(foreign, "sea.hub", &read("ca.crt")).is_err_and(|error| !error.to_string().contains("certificate"))
        );
    }

    #[test]
    fn reads_lists_of_nodes() {
        let list = |status: &str| {
            format!(
                r#"{{"items":[{{"metadata":{{"name":"a"}},"status":{{"conditions":[{{"type":"MemoryPressure","status":"False"}},
                {{"type":"Ready","status":"{status}","message":"no network"}}]}}}}]}}"#
            )
        };
        nodes_ready(&list("True"), &[]).unwrap();
        nodes_ready(&list("True"), &["a".to_owned()]).unwrap();
        let missing = nodes_ready(&list("True"), &["a".to_owned(), "b".to_owned()]).unwrap_err();
        assert!(missing.to_string().contains("no node b yet"));
        for names in [vec![], vec!["a".to_owned()]] {
            let error = nodes_ready(&list("False"), &names).unwrap_err();
            assert!(error.to_string().contains("no network"));
        }
        let none = nodes_ready(r#"{"items":[]}"#, &[]).unwrap_err();
        assert!(none.to_string().contains("no node yet"));
        assert!(nodes_ready("No resources found", &[]).is_err());
    }
}
