//! Passwords, credential helpers and tokens.

use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::ErrorKind;
use sealrs_image::remote::{Client, Credentials, Options};

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http::Response;
use crate::support::registry::{Registry, Setup};
use crate::support::token_server::{self, TokenServer};
use crate::support::{self, have, own_process};
use crate::{TOOLS, filled, log_in, manifest, quick, read, reference, whole};

#[test]
fn logs_in_with_a_password() {
    if !have(&[&TOOLS[..], &["htpasswd"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = filled(folder.path(), 1000);
    let htpasswd = folder.path().join("htpasswd");
    fs::write(&htpasswd, support::run("htpasswd", &["-Bbn", "reader", "s3cret-word"])).unwrap();
    let registry = Registry::start(&Setup {
        htpasswd: Some(htpasswd),
        storage: Some(source.storage().to_owned()),
        ..Setup::default()
    });
    let app = reference(&format!("{}/library/app:1", registry.host()));
    let pull = |name: &str, password: &str| {
        let file = folder.path().join(name);
        let key = format!("http://{}", registry.host());
        let content = serde_json::json!({"auths": {key: {"username": "reader", "password": password}}});
        fs::write(&file, content.to_string()).unwrap();
        let client = Client::new(Options {
            credentials: Credentials::from_files(vec![file]).unwrap(),
            ..quick()
        });
        let client = client.unwrap();
        assert!(!format!("{client:?}").contains(password));
        read(&client, &app, &manifest(&client, &app)?.layers[1])
    };
    assert!(pull("right.json", "s3cret-word").is_ok());
    let error = pull("wrong.json", "guessed-word").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    let text = whole(&error);
    assert!(text.contains("`reader`") && text.contains("wrong.json"), "{text}");
    assert!(!text.contains("guessed-word"), "{text}");

    let client = Client::new(Options {
        credentials: Credentials::from_files(vec![folder.path().join("nothing.json")]).unwrap(),
        ..quick()
    });
    let error = manifest(&client.unwrap(), &app).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(error.remedy().unwrap().contains("nothing.json"), "{error:?}");
}

#[test]
fn asks_docker_credential_helpers() {
    let folder = tempfile::tempdir().unwrap();
    let search = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    if !own_process("login::asks_docker_credential_helpers", &[("PATH", &search)]) {
        return;
    }
    // The child has a folder of its own; the one in PATH is its parent's.
    let path = std::env::var("PATH").unwrap();
    let folder = PathBuf::from(path.split(':').next().unwrap());
    let script = |name: &str, body: &str| {
        let file = folder.join(format!("docker-credential-{name}"));
        fs::write(
            &file,
            format!("#!/bin/sh\n[ \"$1\" = get ] || exit 9\nserver=$(cat)\n{body}\n"),
        )
        .unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let log = folder.join("log").display().to_string();
    script(
        "good",
        &format!(
            r#"echo "$server" >>{log}; echo '{{"ServerURL":"'$server'","Username":"robot","Secret":"s3cret-word"}}'"#
        ),
    );
    script("token", r#"echo '{"Username":"<token>","Secret":"s3cret-word"}'"#);
    script("empty", "echo 'credentials not found in native keychain'; exit 1");
    script("locked", "echo 'the key ring is locked' >&2; exit 3");
    script("garbled", "echo 'Secret: s3cret-word'");
    let config = folder.join("config.json");
    let content = r#"{
        "credsStore": "empty",
        "credHelpers": {
            "good.example.com": "good", "https://index.docker.io/v1/": "good", "token.example.com:5000": "token",
            "empty.example.com": "empty", "locked.example.com": "locked", "garbled.example.com": "garbled",
            "missing.example.com": "no-such-thing", "path.example.com": "../x"
        },
        "auths": {"empty.example.com": {"username": "passed over"}, "store.example.com": {"username": "in the file"}}
    }"#;
    fs::write(&config, content).unwrap();
    let credentials = Credentials::from_files(vec![config]).unwrap();
    let find = |name: &str| credentials.find(&reference(name));

    let login = find("good.example.com/x").unwrap().unwrap();
    assert_eq!(
        (login.user.as_str(), login.origin.as_str()),
        ("robot", "docker-credential-good")
    );
    assert_eq!(find("good.example.com/y").unwrap().unwrap().user, "robot");
    assert_eq!(find("nginx").unwrap().unwrap().user, "robot");
    // Once a server; and Docker Hub has its old name.
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        "good.example.com\nhttps://index.docker.io/v1/\n"
    );
    let token = find("token.example.com:5000/x").unwrap().unwrap();
    assert!(format!("{token:?}").contains("IdentityToken"), "{token:?}");
    assert_eq!(find("empty.example.com/x").unwrap(), None);
    assert_eq!(find("store.example.com/x").unwrap().unwrap().user, "in the file");
    for (host, words) in [
        ("missing.example.com", "docker-credential-no-such-thing"),
        ("missing.example.com", "config.json"),
        ("locked.example.com", "the key ring is locked"),
        ("garbled.example.com", "docker-credential-garbled"),
        ("path.example.com", "no `/`"),
    ] {
        let error = find(&format!("{host}/x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
        let text = whole(&error);
        assert!(
            text.contains(words) && text.contains(host) && !text.contains("s3cret-word"),
            "{text}"
        );
    }
}

/// A registry that wants tokens, the server that gives them, and the one that keeps the files.
pub(crate) fn with_tokens(folder: &Path) -> (Registry, TokenServer, Registry) {
    let source = filled(folder, 100_000);
    let tokens = TokenServer::start(folder);
    let registry = Registry::start(&Setup {
        token: Some((
            format!("{}/token", tokens.server.url()),
            token_server::ISSUER.to_owned(),
            folder.join("token.pem"),
        )),
        storage: Some(source.storage().to_owned()),
        ..Setup::default()
    });
    (registry, tokens, source)
}

#[test]
fn gets_tokens_and_keeps_them() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, tokens, _storage) = with_tokens(folder.path());
    let entry = serde_json::json!({"username": token_server::USER, "password": token_server::PASSWORD});
    let app = reference(&format!("{}/library/app:1", registry.host()));

    // Many threads, one token.
    let client = log_in(folder.path(), &registry.host(), &entry);
    let layers = manifest(&client, &app).unwrap().layers;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for layer in &layers {
                    assert!(read(&client, &app, layer).is_ok());
                }
            });
        }
    });
    let asked = tokens.server.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].target.contains("service=test-registry"), "{asked:?}");
    assert!(
        asked[0].target.contains("scope=repository%3Alibrary%2Fapp%3Apull"),
        "{asked:?}"
    );

    // One that is over before it began is asked for again each time.
    tokens.life.store(0, std::sync::atomic::Ordering::SeqCst);
    let client = log_in(folder.path(), &registry.host(), &entry);
    manifest(&client, &app).unwrap();
    manifest(&client, &app).unwrap();
    assert_eq!(tokens.server.requests().len(), 3);

    // Identity tokens travel in a form, not in the URL.
    let entry = serde_json::json!({"identitytoken": token_server::IDENTITY});
    let client = log_in(folder.path(), &registry.host(), &entry);
    assert!(read(&client, &app, &layers[1]).is_ok());
    let last = tokens.server.requests().pop().unwrap();
    assert_eq!((last.method.as_str(), last.target.as_str()), ("POST", "/token"));

    let entry = serde_json::json!({"username": token_server::USER, "password": "guessed-word"});
    for (client, words) in [
        (log_in(folder.path(), &registry.host(), &entry), "`reader`"),
        (crate::client(), "there are no credentials"),
    ] {
        let error = manifest(&client, &app).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
        let text = whole(&error);
        assert!(
            text.contains(words) && text.contains("incorrect username or password"),
            "{text}"
        );
        assert!(!text.contains("guessed-word"), "{text}");
    }

    // One wrong password is one to the token server too, however many threads it stops.
    let client = log_in(folder.path(), &registry.host(), &entry);
    let before = tokens.server.requests().len();
    let together = std::sync::Barrier::new(8);
    tokens.pause.store(500, std::sync::atomic::Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                let error = manifest(&client, &app).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
                assert!(whole(&error).contains("`reader`"), "{error:?}");
            });
        }
    });
    let asked = tokens.server.requests().len() - before;
    assert!(asked < 8, "asked {asked} times with a wrong password");
}

#[test]
fn a_token_that_is_refused_in_the_middle_is_replaced() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, tokens, _storage) = with_tokens(folder.path());
    let proxy = FaultProxy::start(registry.address);
    let entry = serde_json::json!({"username": token_server::USER, "password": token_server::PASSWORD});
    let client = log_in(folder.path(), &proxy.host(), &entry);
    let app = reference(&format!("{}/library/app:1", proxy.host()));
    let layer = &manifest(&client, &app).unwrap().layers[0];
    let challenge = format!(
        r#"Bearer realm="{}/token",service="test-registry",scope="repository:library/app:pull",error="invalid_token""#,
        tokens.server.url()
    );
    let unauthorized = Response::new(401).header("WWW-Authenticate", &challenge);
    // Cut in the middle, refused on coming back: the cached token is given up, and the blob goes on.
    proxy.next(
        "/blobs/",
        [Fault::Cut(layer.size / 2), Fault::Answer(unauthorized.clone())],
    );
    assert!(read(&client, &app, layer).is_ok());
    assert_eq!(tokens.server.requests().len(), 2);
    // Refused with a fresh one too: that is an answer.
    proxy.next(
        "/blobs/",
        [Fault::Answer(unauthorized.clone()), Fault::Answer(unauthorized)],
    );
    let error = client.blob(&app, layer, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    let text = whole(&error);
    assert!(
        text.contains(&layer.digest.to_string()) && text.contains("library/app:1"),
        "{text}"
    );
}
