//! The registry client against Debian's docker-registry, filled by skopeo, and against servers that misbehave.

mod support;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sealrs_image::copy::{self, StoreSink};
use sealrs_image::digest::{Digest, VerifyingReader};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::progress::Silent;
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, Credentials, Options, RemoteSource};
use sealrs_image::source::Source as _;
use sealrs_image::spec::{self, Descriptor, Index, Manifest, media_type};
use sealrs_image::store::Store;

use support::fault_proxy::{Fault, FaultProxy};
use support::http::{Response, Server};
use support::registry::{Registry, Setup};
use support::token_server::{self, TokenServer};
use support::{certificate, have, image, noise, own_process};

const TOOLS: [&str; 2] = ["docker-registry", "skopeo"];

fn quick() -> Options {
    Options {
        first_pause: Duration::from_millis(5),
        ..Options::default()
    }
}

fn client() -> Client {
    Client::new(quick()).unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A registry with `library/app:1`: one platform, a large layer and a small one.
fn filled(folder: &Path, large: usize) -> Registry {
    let registry = Registry::start(&Setup::default());
    fill(&registry, folder, large);
    registry
}

fn fill(registry: &Registry, folder: &Path, large: usize) {
    let layout = folder.join("layout");
    image::layout(
        &layout,
        "app",
        &["linux/amd64"],
        &[noise(1, large), b"small".to_vec()],
    );
    registry.push(&format!("{}:app", layout.display()), "library/app:1");
}

fn manifest(client: &Client, repository: &Reference) -> Result<Manifest> {
    let document = client.manifest(repository, &repository.selector())?;
    spec::parse(&document.bytes, "manifest")
}

/// Reads a blob through and verifies it.
fn read(client: &Client, repository: &Reference, blob: &Descriptor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    VerifyingReader::new(client.blob(repository, blob, 0)?, blob.digest, blob.size)
        .read_to_end(&mut bytes)
        .or_io(|| "cannot pull")?;
    Ok(bytes)
}

fn whole(error: &Error) -> String {
    format!("{error:?}")
}

#[test]
fn pulls_from_a_plain_registry_on_this_host() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 3 << 20);
    let layout = folder.path().join("two");
    image::layout(
        &layout,
        "two",
        &["linux/amd64", "linux/arm64"],
        &[b"two".to_vec()],
    );
    registry.push(&format!("{}:two", layout.display()), "team/two:1.0");
    let client = client();

    let app = reference(&format!("{}/library/app:1", registry.host()));
    let by_tag = client.manifest(&app, "1").unwrap();
    assert_eq!(
        by_tag.descriptor,
        Descriptor::of(media_type::MANIFEST, &by_tag.bytes)
    );
    let by_digest = client
        .manifest(&app, &by_tag.descriptor.digest.to_string())
        .unwrap();
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
        assert!(
            rest == blob[usize::try_from(offset).unwrap()..],
            "from {offset}"
        );
    }

    // The whole index with all its platforms, through the same engine as everything else.
    let two = reference(&format!("{}/team/two:1.0", registry.host()));
    let index = client.manifest(&two, "1.0").unwrap();
    assert_eq!(index.descriptor.media_type, media_type::INDEX);
    assert_eq!(
        spec::parse::<Index>(&index.bytes, "index")
            .unwrap()
            .manifests
            .len(),
        2
    );
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
    assert_eq!(
        store.resolve(&two).unwrap().unwrap().digest,
        index.descriptor.digest
    );

    let missing = Digest::of(b"missing");
    let absent_blob = Descriptor::new(media_type::LAYER, missing, 7);
    for (error, words) in [
        (client.manifest(&app, "2").unwrap_err(), "library/app:2"),
        (
            client.manifest(&app, &missing.to_string()).unwrap_err(),
            "library/app@sha256:",
        ),
        (
            manifest(
                &client,
                &reference(&format!("{}/no/such:1", registry.host())),
            )
            .unwrap_err(),
            "no/such:1",
        ),
        (
            client.blob(&app, &absent_blob, 0).unwrap_err(),
            &missing.to_string(),
        ),
        (
            source.open(&absent_blob, 0).err().unwrap(),
            &missing.to_string(),
        ),
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
fn believes_only_certificates_that_it_has_reason_to() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let source = filled(folder.path(), 1000);
    certificate(folder.path(), "ca", "", None);
    certificate(folder.path(), "signed", "IP:127.0.0.1", Some("ca"));
    certificate(
        folder.path(),
        "elsewhere",
        "DNS:elsewhere.example.com",
        Some("ca"),
    );
    certificate(folder.path(), "self", "IP:127.0.0.1", None);
    certificate(
        folder.path(),
        "self-elsewhere",
        "DNS:elsewhere.example.com",
        None,
    );
    let registry = |name: &str| {
        Registry::start(&Setup {
            tls: Some((path(&format!("{name}.pem")), path(&format!("{name}.key")))),
            storage: Some(source.storage().to_owned()),
            ..Setup::default()
        })
    };
    let pull = |registry: &Registry, ca: &str, insecure: bool| {
        let client = Client::new(Options {
            ca_files: [ca]
                .iter()
                .filter(|ca| !ca.is_empty())
                .map(|ca| path(ca))
                .collect(),
            insecure_hosts: insecure
                .then(|| "127.0.0.1".to_owned())
                .into_iter()
                .collect(),
            ..quick()
        });
        let app = reference(&format!("{}/library/app:1", registry.host()));
        let client = client.unwrap();
        read(&client, &app, &manifest(&client, &app)?.layers[0])
    };
    let began = Instant::now();
    let signed = registry("signed");
    assert!(pull(&signed, "ca.pem", false).is_ok());
    assert!(pull(&signed, "", true).is_ok());
    let error = pull(&signed, "", false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(whole(&error).contains("is not trusted"), "{error:?}");
    assert!(error.remedy().unwrap().contains("--ca-file"), "{error:?}");

    let elsewhere = registry("elsewhere");
    let error = pull(&elsewhere, "ca.pem", false).unwrap_err();
    assert!(whole(&error).contains("is for another name"), "{error:?}");
    assert!(pull(&elsewhere, "ca.pem", true).is_ok());

    // `openssl req -x509` makes a server's certificate that is an authority too.
    let own = registry("self");
    assert!(pull(&own, "self.pem", false).is_ok());
    let error = pull(&own, "ca.pem", false).unwrap_err();
    assert!(
        whole(&error).contains("certificate of 127.0.0.1"),
        "{error:?}"
    );
    let error = pull(&registry("self-elsewhere"), "self-elsewhere.pem", false).unwrap_err();
    assert!(
        whole(&error).contains("certificate of 127.0.0.1"),
        "{error:?}"
    );
    // None of these is a thing to try again.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn speaks_plain_http_to_others_only_when_told() {
    // An address of this host that is not loopback; nothing is sent to find it.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let address = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    let Some(address) = address.ok().filter(|address| !address.ip().is_loopback()) else {
        println!("skipped: this host has no address but loopback");
        return;
    };
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = filled(folder.path(), 1000);
    let registry = Registry::start(&Setup {
        storage: Some(source.storage().to_owned()),
        address: Some(address.ip().to_string()),
        ..Setup::default()
    });
    let app = reference(&format!("{}/library/app:1", registry.host()));
    let error = manifest(&client(), &app).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(whole(&error).contains("does not speak TLS"), "{error:?}");
    let hint = format!("--insecure-registry {}", registry.host());
    assert!(error.remedy().unwrap().contains(&hint), "{error:?}");
    for insecure in [registry.host(), address.ip().to_string()] {
        let client = Client::new(Options {
            insecure_hosts: vec![insecure],
            ..quick()
        });
        assert!(manifest(&client.unwrap(), &app).is_ok());
    }
}

#[test]
fn logs_in_with_a_password() {
    if !have(&[&TOOLS[..], &["htpasswd"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = filled(folder.path(), 1000);
    let htpasswd = folder.path().join("htpasswd");
    fs::write(
        &htpasswd,
        support::run("htpasswd", &["-Bbn", "reader", "s3cret-word"]),
    )
    .unwrap();
    let registry = Registry::start(&Setup {
        htpasswd: Some(htpasswd),
        storage: Some(source.storage().to_owned()),
        ..Setup::default()
    });
    let app = reference(&format!("{}/library/app:1", registry.host()));
    let pull = |name: &str, password: &str| {
        let file = folder.path().join(name);
        let key = format!("http://{}", registry.host());
        let content =
            serde_json::json!({"auths": {key: {"username": "reader", "password": password}}});
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
    assert!(
        text.contains("`reader`") && text.contains("wrong.json"),
        "{text}"
    );
    assert!(!text.contains("guessed-word"), "{text}");

    let client = Client::new(Options {
        credentials: Credentials::from_files(vec![folder.path().join("nothing.json")]).unwrap(),
        ..quick()
    });
    let error = manifest(&client.unwrap(), &app).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(
        error.remedy().unwrap().contains("nothing.json"),
        "{error:?}"
    );
}

#[test]
fn asks_docker_credential_helpers() {
    let folder = tempfile::tempdir().unwrap();
    let search = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    if !own_process("asks_docker_credential_helpers", &[("PATH", &search)]) {
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
    script(
        "token",
        r#"echo '{"Username":"<token>","Secret":"s3cret-word"}'"#,
    );
    script(
        "empty",
        "echo 'credentials not found in native keychain'; exit 1",
    );
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
    assert_eq!(
        find("store.example.com/x").unwrap().unwrap().user,
        "in the file"
    );
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

/// A registry that wants tokens, and the server that gives them.
fn with_tokens(folder: &Path) -> (Registry, TokenServer) {
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
    (registry, tokens)
}

fn log_in(folder: &Path, host: &str, entry: &serde_json::Value) -> Client {
    let file = folder.join("config.json");
    fs::write(
        &file,
        serde_json::json!({"auths": {host: entry}}).to_string(),
    )
    .unwrap();
    let credentials = Credentials::from_files(vec![file]).unwrap();
    Client::new(Options {
        credentials,
        ..quick()
    })
    .unwrap()
}

#[test]
fn gets_tokens_and_keeps_them() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, tokens) = with_tokens(folder.path());
    let entry =
        serde_json::json!({"username": token_server::USER, "password": token_server::PASSWORD});
    let app = reference(&format!("{}/library/app:1", registry.host()));

    // Many threads, one token.
    let client = log_in(folder.path(), &registry.host(), &entry);
    let layers = manifest(&client, &app).unwrap().layers;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                layers
                    .iter()
                    .for_each(|layer| assert!(read(&client, &app, layer).is_ok()))
            });
        }
    });
    let asked = tokens.server.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].target.contains("service=test-registry"),
        "{asked:?}"
    );
    assert!(
        asked[0]
            .target
            .contains("scope=repository%3Alibrary%2Fapp%3Apull"),
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
    assert_eq!(
        (last.method.as_str(), last.target.as_str()),
        ("POST", "/token")
    );

    let entry = serde_json::json!({"username": token_server::USER, "password": "guessed-word"});
    for (client, words) in [
        (log_in(folder.path(), &registry.host(), &entry), "`reader`"),
        (self::client(), "there are no credentials"),
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
}

#[test]
fn a_token_that_is_refused_in_the_middle_is_replaced() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (registry, tokens) = with_tokens(folder.path());
    let proxy = FaultProxy::start(registry.address);
    let entry =
        serde_json::json!({"username": token_server::USER, "password": token_server::PASSWORD});
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
        [
            Fault::Cut(layer.size / 2),
            Fault::Answer(unauthorized.clone()),
        ],
    );
    assert!(read(&client, &app, layer).is_ok());
    assert_eq!(tokens.server.requests().len(), 2);
    // Refused with a fresh one too: that is an answer.
    proxy.next(
        "/blobs/",
        [
            Fault::Answer(unauthorized.clone()),
            Fault::Answer(unauthorized),
        ],
    );
    let error = client.blob(&app, layer, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    let text = whole(&error);
    assert!(
        text.contains(&layer.digest.to_string()) && text.contains("library/app:1"),
        "{text}"
    );
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
    let cuts: Vec<u64> = cuts
        .map(|random| (piece * random / 65536) as u64)
        .chain([0])
        .collect();
    proxy.next("/blobs/", cuts.iter().map(|cut| Fault::Cut(*cut)));
    assert_eq!(read(&client, &app, layer).unwrap().len() as u64, layer.size);
    let passed = proxy.passed("/blobs/");
    assert_eq!(passed.len(), cuts.len() + 1);
    assert!(
        passed[1..].iter().all(|passed| passed.status == 206),
        "{passed:?}"
    );
    let moved = proxy.body_bytes("/blobs/");
    let most = layer.size + layer.size / 20 + (64 << 10);
    println!(
        "{moved} bytes moved for {} ({} connections)",
        layer.size,
        passed.len()
    );
    assert!(
        (layer.size..=most).contains(&moved),
        "{moved} bytes for {}",
        layer.size
    );
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
    let client = Client::new(Options {
        stall_timeout: Duration::from_millis(300),
        ..quick()
    });
    let client = client.unwrap();
    let layer = &manifest(&client, &app).unwrap().layers[0];
    let answer = |status| Fault::Answer(Response::new(status));
    let busy = |pause: &str| Fault::Answer(Response::new(429).header("Retry-After", pause));
    for faults in [
        vec![Fault::Stall(1000)],
        vec![Fault::Stall(0), Fault::Stall(0)],
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
        vec![
            answer(500),
            answer(502),
            answer(503),
            answer(504),
            answer(408),
        ],
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
    assert!(
        before.elapsed() >= Duration::from_secs(1),
        "Retry-After was not obeyed"
    );
}

#[test]
fn gives_up_on_what_does_not_pass_and_says_what_and_where() {
    if !have(&TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = filled(folder.path(), 100_000);
    let client = Client::new(Options {
        stall_timeout: Duration::from_millis(100),
        ..quick()
    });
    let client = client.unwrap();
    let denied =
        Response::new(403).body(r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#);
    let bad_range = Response::new(206)
        .header("Content-Range", "bytes 5-9/10")
        .body("hello");
    for (fault, kind, words, requests) in [
        (
            Fault::Answer(Response::new(500)),
            ErrorKind::Network,
            "answered 500",
            6,
        ),
        (
            Fault::Answer(Response::new(429)),
            ErrorKind::Network,
            "answered 429",
            6,
        ),
        (
            Fault::Answer(Response::new(429).header("Retry-After", "7200")),
            ErrorKind::Network,
            "asks to wait 7200 s",
            1,
        ),
        (Fault::Cut(0), ErrorKind::Network, "broke off", 6),
        (Fault::Stall(0), ErrorKind::Network, "sent nothing", 6),
        (
            Fault::EndEarly(0),
            ErrorKind::Integrity,
            "ended the blob after 0 of",
            6,
        ),
        (
            Fault::Truncate(500),
            ErrorKind::Integrity,
            "announces 500 bytes",
            1,
        ),
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
        (
            Fault::Answer(denied),
            ErrorKind::Auth,
            "DENIED: not for you",
            1,
        ),
        (
            Fault::Answer(Response::new(404)),
            ErrorKind::NotFound,
            "answered 404",
            1,
        ),
        (
            Fault::Answer(Response::new(400)),
            ErrorKind::Network,
            "answered 400",
            1,
        ),
        (
            Fault::Answer(Response::new(302)),
            ErrorKind::Network,
            "without saying where",
            1,
        ),
    ] {
        let proxy = FaultProxy::start(registry.address);
        let app = reference(&format!("{}/library/app:1", proxy.host()));
        let layer = &manifest(&client, &app).unwrap().layers[0];
        proxy.always("/blobs/", fault.clone());
        let error = read(&client, &app, layer).unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error:?}");
        let text = whole(&error);
        assert!(text.contains(words), "{fault:?}: {text}");
        assert!(
            text.contains(&layer.digest.to_string()),
            "{fault:?}: {text}"
        );
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
    let digest = client
        .manifest(&whole_app, "1")
        .unwrap()
        .descriptor
        .digest
        .to_string();
    let old = Response::new(200)
        .header(
            "Content-Type",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        )
        .body(r#"{"schemaVersion":1}"#);
    let huge = Response::new(200).body(vec![b' '; 17 << 20]);
    for (fault, selector, kind, words) in [
        (Fault::Flip(30), "1", ErrorKind::Integrity, "was asked for"),
        (
            Fault::Flip(30),
            digest.as_str(),
            ErrorKind::Integrity,
            "was asked for",
        ),
        (
            Fault::Truncate(30),
            digest.as_str(),
            ErrorKind::Integrity,
            "was asked for",
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
fn nobody_but_the_registry_sees_the_credentials() {
    if !have(&[&TOOLS[..], &["htpasswd"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let plain = filled(folder.path(), 100_000);
    let htpasswd = folder.path().join("htpasswd");
    fs::write(
        &htpasswd,
        support::run("htpasswd", &["-Bbn", "reader", "s3cret-word"]),
    )
    .unwrap();
    let registry = Registry::start(&Setup {
        htpasswd: Some(htpasswd),
        storage: Some(plain.storage().to_owned()),
        ..Setup::default()
    });
    // The registry sends its blobs' readers to another server, as with storage in a cloud. That one asks who they are.
    let (front, cloud) = (
        FaultProxy::start(registry.address),
        FaultProxy::start(plain.address),
    );
    let entry = serde_json::json!({"username": "reader", "password": "s3cret-word"});
    let client = log_in(folder.path(), &front.host(), &entry);
    let app = reference(&format!("{}/library/app:1", front.host()));
    let layer = &manifest(&client, &app).unwrap().layers[0];
    let elsewhere = format!(
        "http://{}/v2/library/app/blobs/{}",
        cloud.host(),
        layer.digest
    );
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
    assert!(
        sent[0]
            .request
            .header("user-agent")
            .unwrap()
            .starts_with("sealrs/")
    );

    // Even if it asks, and even if it sends them back to the registry.
    let ask = Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let back = format!("http://{}/v2/library/app/manifests/1", front.host());
    let back = Response::new(307).header("Location", &back);
    for (answer, words) in [(ask, "answered 401"), (back, "answered 401")] {
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
    let around = format!(
        "http://{}/v2/library/app/blobs/{}",
        front.host(),
        layer.digest
    );
    for (location, words) in [
        (around.as_str(), "redirects without end"),
        ("http://192.0.2.1/x", "is not safe"),
    ] {
        cloud.next(
            "/blobs/",
            (0..10).map(|_| Fault::Answer(Response::new(302).header("Location", location))),
        );
        let error = client.blob(&app, layer, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
        assert!(whole(&error).contains(words), "{error:?}");
        let unused = std::iter::from_fn(|| client.blob(&app, layer, 0).err()).count();
        assert!(unused <= 10);
    }
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
        Some(_) => Response::new(206)
            .header("Content-Range", "bytes 2-6/7")
            .body("reign"),
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
        (
            "no-such-host.invalid/a/b:1".to_owned(),
            "no-such-host.invalid",
        ),
    ] {
        let error = manifest(&client, &reference(&name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
        assert!(whole(&error).contains(words), "{error:?}");
        assert!(error.remedy().is_some(), "{error:?}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn goes_through_the_proxy_that_the_environment_names() {
    if !have(&[&TOOLS[..], &["openssl"]].concat()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (proxy, log) = connect_proxy();
    let environment = [
        ("HTTPS_PROXY", format!("http://{}", proxy.address)),
        ("NO_PROXY", "direct.example.com".to_owned()),
        ("SEALRS_TEST_FOLDER", folder.path().display().to_string()),
        ("SEALRS_TEST_PORT", String::new()),
    ];
    if let Ok(port) = std::env::var("SEALRS_TEST_PORT") {
        // In the child: by a name that only the proxy can reach.
        let folder = PathBuf::from(std::env::var("SEALRS_TEST_FOLDER").unwrap());
        let client = Client::new(Options {
            ca_files: vec![folder.join("ca.pem")],
            attempts: 1,
            ..quick()
        });
        let client = client.unwrap();
        let app = reference(&format!("proxied.example.com:{port}/library/app:1"));
        assert!(read(&client, &app, &manifest(&client, &app).unwrap().layers[0]).is_ok());
        // Past it: what NO_PROXY names, and this very host.
        let direct = reference(&format!("direct.example.com:{port}/library/app:1"));
        assert!(manifest(&client, &direct).is_err());
        let local = reference(&format!("localhost:{port}/library/app:1"));
        assert!(manifest(&client, &local).is_ok());
        return;
    }
    certificate(folder.path(), "ca", "", None);
    certificate(
        folder.path(),
        "server",
        "DNS:proxied.example.com,DNS:localhost",
        Some("ca"),
    );
    let source = filled(folder.path(), 1000);
    let registry = Registry::start(&Setup {
        tls: Some((path("server.pem"), path("server.key"))),
        storage: Some(source.storage().to_owned()),
        ..Setup::default()
    });
    let port = registry.address.port().to_string();
    let mut variables: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    variables[3].1 = &port;
    own_process(
        "goes_through_the_proxy_that_the_environment_names",
        &variables,
    );
    let asked = log.lock().unwrap().clone();
    assert!(
        !asked.is_empty()
            && asked
                .iter()
                .all(|line| *line == format!("CONNECT proxied.example.com:{port}")),
        "{asked:?}"
    );
}

/// A proxy that lets nobody out: every CONNECT leads to that port of this host.
fn connect_proxy() -> (
    support::http::Acceptor,
    std::sync::Arc<std::sync::Mutex<Vec<String>>>,
) {
    use std::io::Write as _;
    let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let lines = std::sync::Arc::clone(&log);
    let acceptor = support::http::Acceptor::start(move |mut client| {
        let Some((request, _)) = support::http::read_request(&mut client) else {
            return;
        };
        lines
            .lock()
            .unwrap()
            .push(format!("{} {}", request.method, request.target));
        let port: u16 = request.target.rsplit(':').next().unwrap().parse().unwrap();
        let mut server = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut client, &mut server);
    });
    (acceptor, log)
}
