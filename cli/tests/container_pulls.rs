//! Pulling container images over connections that break, and from registries that ask who is there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use base64::Engine as _;
use support::fault_proxy::{Fault, FaultProxy};
use support::images::{pull, push, serve, write_registry};
use support::registry::{Registry, Setup};
use support::{Running, Scratch, assert_has, fail, needs, noise, run, succeed, wait_until};

const HERE: &[&str] = &["linux/amd64"];
const KUBEFILE: &str = "FROM scratch\nCOPY . .\n";

/// A registry with one image whose layer is large, and the name of that layer.
fn large_image(scratch: &Scratch) -> (Registry, String, u64) {
    let upstream = Registry::start(&Setup::default());
    push(scratch, &upstream, "large:v1", HERE, &[noise(1, 3 << 20)]);
    let layout = scratch.path("layouts/large-v1");
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(Path::new(&layout).join("index.json")).unwrap()).unwrap();
    let manifest = support::insides::document(Path::new(&layout), &index["manifests"][0]["digest"]);
    let layer = &manifest["layers"][0];
    (
        upstream,
        layer["digest"].as_str().unwrap().to_owned(),
        layer["size"].as_u64().unwrap(),
    )
}

#[test]
fn a_pull_goes_on_where_the_connection_broke() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (upstream, layer, size) = large_image(&scratch);
    let proxy = FaultProxy::start(upstream.address);
    proxy.next(&layer, [Fault::Cut(1_000_000), Fault::Cut(500_000), Fault::Cut(0)]);
    scratch.write("context/imageList", format!("{}/large:v1\n", proxy.host()));
    let built = scratch.build("a:1", KUBEFILE, &[]);
    let ranges: Vec<Option<String>> = proxy
        .passed(&layer)
        .iter()
        .map(|passed| passed.request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges[1].as_deref(), Some("bytes=1000000-"), "{ranges:?}");
    assert_eq!(proxy.body_bytes(&layer), size, "no byte came twice");

    let undisturbed = Scratch::new();
    undisturbed.write("context/imageList", format!("{}/large:v1\n", proxy.host()));
    assert_eq!(undisturbed.build("a:1", KUBEFILE, &[]).digest(), built.digest());
}

#[test]
fn a_pull_goes_on_after_kill_9() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (upstream, layer, size) = large_image(&scratch);
    let proxy = FaultProxy::start(upstream.address);
    scratch.write("context/imageList", format!("{}/large:v1\n", proxy.host()));
    let partial_bytes = || -> u64 {
        let names = scratch.partial();
        let sizes = names
            .iter()
            .map(|name| scratch.read(&format!("root/store/partial/{name}")).len() as u64);
        sizes.sum()
    };
    fs::create_dir_all(scratch.path("root/store/partial")).unwrap();
    let mut before = 0;
    for round in 1..=3 {
        proxy.next(&layer, [Fault::Stall(700_000)]);
        let build = Running::start(&mut scratch.building("a:1", KUBEFILE, &["--quiet"]));
        wait_until("the pull hangs", || proxy.body_bytes(&layer) == round * 700_000);
        wait_until("what came is written", || partial_bytes() >= before + 600_000);
        build.kill();
        before = partial_bytes();
    }
    scratch.build("a:1", KUBEFILE, &[]);
    let total = proxy.body_bytes(&layer);
    assert!(total < size + 700_000, "{total} bytes came for {size}");
    assert!(scratch.partial().is_empty(), "{:?}", scratch.partial());

    let undisturbed = Scratch::new();
    undisturbed.write("context/imageList", format!("{}/large:v1\n", proxy.host()));
    let wanted = undisturbed.build("a:1", KUBEFILE, &[]);
    assert_eq!(scratch.json(&["inspect", "a:1"])["digest"], wanted.digest());
}

#[test]
fn wrong_bytes_never_get_in() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (upstream, layer, _) = large_image(&scratch);
    for fault in [
        Fault::Flip(2_000_000),
        Fault::Truncate(1_000_000),
        Fault::Append(b"more".to_vec()),
    ] {
        let proxy = FaultProxy::start(upstream.address);
        proxy.always(&layer, fault.clone());
        scratch.write("context/imageList", format!("{}/large:v1\n", proxy.host()));
        let (code, said) = support::outcome(&mut scratch.building("a:1", KUBEFILE, &[]));
        assert!(matches!(code, Some(4 | 5)), "{fault:?}: {code:?} {said}");
        assert_has(&said, &[&layer, &format!("{}/large:v1", proxy.host()), "imageList:1"]);
        assert_eq!(scratch.json(&["images"]), serde_json::json!([]));
    }
    // A manifest that is not what its digest says, in a store that does not know it yet.
    let other = Scratch::new();
    let proxy = FaultProxy::start(upstream.address);
    let digest = upstream_digest(&upstream);
    proxy.always("/manifests/", Fault::Flip(40));
    other.write("context/imageList", format!("{}/large@{digest}\n", proxy.host()));
    let said = other.build_fails(4, KUBEFILE, &[]);
    assert_has(&said, &[&digest, "imageList:1"]);
    // The store took no harm.
    scratch.write("context/imageList", format!("{}/large:v1\n", upstream.host()));
    scratch.build("a:1", KUBEFILE, &[]);
}

fn upstream_digest(upstream: &Registry) -> String {
    pull(&upstream.host(), "large:v1").to_string()
}

/// A certificate authority and a certificate for the loopback address, in `folder`.
fn certificates(folder: &str) {
    let script = r#"
        cd "$0"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ca -keyout ca.key -out ca.crt
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=registry -keyout server.key \
            -out server.crt -CA ca.crt -CAkey ca.key -addext basicConstraints=CA:FALSE \
            -addext subjectAltName=IP:127.0.0.1,DNS:localhost
    "#;
    run("bash", &["-ec", script, folder]);
}

#[test]
fn a_private_ca_and_a_password() {
    needs!("docker-registry", "skopeo", "openssl", "htpasswd");
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("pki")).unwrap();
    certificates(&scratch.path("pki"));
    let users = run("htpasswd", &["-Bbn", "ops", "s3cret-word"]);
    scratch.write("htpasswd", users);
    let open = Registry::start(&Setup::default());
    let digest = push(&scratch, &open, "app:v1", HERE, &[b"app".to_vec()]);
    let registry = Registry::start(&Setup {
        tls: Some((
            scratch.path("pki/server.crt").into(),
            scratch.path("pki/server.key").into(),
        )),
        htpasswd: Some(scratch.path("htpasswd").into()),
        storage: Some(open.storage().to_owned()),
        ..Setup::default()
    });
    let host = registry.host();
    scratch.write("context/imageList", format!("{host}/app:v1\n"));
    let ca = scratch.path("pki/ca.crt");

    let said = scratch.build_fails(5, KUBEFILE, &[]);
    assert_has(&said, &["imageList:1", &host, "certificate", "--ca-file"]);
    let said = scratch.build_fails(6, KUBEFILE, &["--ca-file", &ca]);
    assert_has(&said, &["imageList:1", &host, "hint:", "login"]);
    let said = scratch.build_fails(3, KUBEFILE, &["--ca-file", "no-such-file"]);
    assert_has(&said, &["no-such-file"]);

    let credentials = |user: &str| base64::engine::general_purpose::STANDARD.encode(user);
    let config = |auth: &str| format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
    scratch.write("docker/config.json", config(&credentials("ops:wrong-word")));
    let with = |scratch: &Scratch| {
        let mut command = scratch.building("a:1", KUBEFILE, &["--ca-file", &ca]);
        command.env("DOCKER_CONFIG", scratch.path("docker"));
        command
    };
    let said = fail(&mut with(&scratch), 6);
    assert_has(&said, &["imageList:1", &host]);
    assert!(
        !said.contains("wrong-word") && !said.contains(&credentials("ops:wrong-word")),
        "{said}"
    );
    scratch.write("docker/config.json", config(&credentials("ops:s3cret-word")));
    succeed(&mut with(&scratch));
    let lock = scratch.rootfs("a:1").file("images.lock");
    assert_has(&lock, &[&digest.to_string(), &format!("{host}/app:v1")]);

    // By podman's file, and by a helper, each in a store of its own.
    for way in ["podman", "helper"] {
        let other = Scratch::new();
        other.write("context/imageList", format!("{host}/app:v1\n"));
        let mut command = other.building("a:1", KUBEFILE, &["--ca-file", &ca]);
        if way == "podman" {
            let file = other.write("auth.json", config(&credentials("ops:s3cret-word")));
            command.env("REGISTRY_AUTH_FILE", file);
        } else {
            let helper = "#!/bin/sh\nread server\necho \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"ops\\\",\\\"Secret\\\":\\\"s3cret-word\\\"}\"\n";
            other.program("bin/docker-credential-mine", helper);
            other.write(
                "docker/config.json",
                format!(r#"{{"credHelpers": {{"{host}": "mine"}}}}"#),
            );
            let path = format!("{}:{}", other.path("bin"), std::env::var("PATH").unwrap());
            command.env("DOCKER_CONFIG", other.path("docker")).env("PATH", path);
        }
        succeed(&mut command);
    }
    // An insecure registry may have any certificate.
    let other = Scratch::new();
    other.write("context/imageList", format!("{host}/app:v1\n"));
    let mut command = other.building("a:1", KUBEFILE, &["--insecure-registry", &host]);
    succeed(command.env("DOCKER_CONFIG", scratch.path("docker")));
}

#[test]
fn a_list_says_who_one_is_to_each_registry() {
    needs!("docker-registry", "skopeo", "htpasswd");
    let scratch = Scratch::new();
    let open = Registry::start(&Setup::default());
    push(&scratch, &open, "team/app:v1", HERE, &[b"app".to_vec()]);
    push(&scratch, &open, "open/app:v1", HERE, &[b"open".to_vec()]);
    let closed = |user: &str, password: &str| {
        let file = scratch.write(&format!("htpasswd-{user}"), run("htpasswd", &["-Bbn", user, password]));
        Registry::start(&Setup {
            htpasswd: Some(file.into()),
            storage: Some(open.storage().to_owned()),
            ..Setup::default()
        })
    };
    let (one, two) = (closed("one", "s3cret-one"), closed("two", "s3cret-two"));
    let list = |password: &str| {
        format!(
            "# of two teams\n- registry: {}\n  username: one\n  password: {password}\n  images:\n  - team/app:v1 # theirs\n\
             - username: two\n  password: s3cret-two\n  images: [\"{}/open/app:v1\"]\n",
            one.host(),
            two.host()
        )
    };
    scratch.write("context/manifests/readme", "nothing");
    scratch.write("auth.yaml", list("s3cret-wrong"));
    let file = scratch.path("auth.yaml");
    let said = scratch.build_fails(6, KUBEFILE, &["--image-list-with-auth", &file]);
    assert_has(
        &said,
        &["auth.yaml:6", "`one`", "auth.yaml:3", &one.host(), "the password there"],
    );
    assert!(!said.contains("s3cret"), "{said}");

    scratch.write("auth.yaml", list("s3cret-one"));
    let built = scratch.build("a:1", KUBEFILE, &["--image-list-with-auth", &file]);
    let lock = scratch.rootfs("a:1").file("images.lock");
    assert_has(
        &lock,
        &[
            &format!("{}/team/app:v1", one.host()),
            &format!("{}/open/app:v1", two.host()),
            "auth.yaml:6",
        ],
    );

    // It is never packed, unless nobody would notice: the ignore file has to say that it stays out.
    scratch.write("context/auth.yaml", list("s3cret-one"));
    let inside = scratch.path("context/auth.yaml");
    let said = scratch.build_fails(2, KUBEFILE, &["--image-list-with-auth", &inside]);
    assert_has(&said, &["Kubefile:2", "auth.yaml", "passwords", ".containerignore"]);
    scratch.write("context/.containerignore", "auth.yaml\n.containerignore\n");
    let again = scratch.build("a:1", KUBEFILE, &["--image-list-with-auth", &inside]);
    assert_eq!(again.0["containerImages"], built.0["containerImages"]);
    let (code, _) = support::outcome(std::process::Command::new("grep").args([
        "-rqF",
        "-e",
        "s3cret-one",
        "-e",
        "s3cret-two",
        &scratch.path("root"),
    ]));
    assert_eq!(code, Some(1), "a password lies in the store");

    scratch.write("auth.yaml", "- username: one\n  passwrd: s3cret-one\n  images: [a]\n");
    let said = scratch.build_fails(2, KUBEFILE, &["--image-list-with-auth", &file]);
    assert_has(&said, &["auth.yaml:2", "hint:", "`password`"]);
    assert!(!said.contains("s3cret"), "{said}");
    let said = scratch.build_fails(3, KUBEFILE, &["--image-list-with-auth", "no-such-file"]);
    assert_has(&said, &["no-such-file"]);
}

/// An address of this machine that is not loopback. Nothing is sent to find it.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[test]
fn plain_http_only_where_it_is_allowed() {
    needs!("docker-registry", "skopeo");
    let Some(address) = own_address() else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let scratch = Scratch::new();
    let open = Registry::start(&Setup::default());
    push(&scratch, &open, "app:v1", HERE, &[b"app".to_vec()]);
    let registry = Registry::start(&Setup {
        address: Some(address.clone()),
        storage: Some(open.storage().to_owned()),
        ..Setup::default()
    });
    let host = registry.host();
    scratch.write("context/imageList", format!("{host}/app:v1\n"));
    let said = scratch.build_fails(5, KUBEFILE, &[]);
    assert_has(&said, &["imageList:1", &host, &format!("--insecure-registry {host}")]);
    let said = scratch.build_fails(5, KUBEFILE, &["--insecure-registry", "other.example.com"]);
    assert_has(&said, &["imageList:1", &host]);
    for allowed in [host.as_str(), address.as_str()] {
        scratch.build("a:1", KUBEFILE, &["--no-cache", "--insecure-registry", allowed]);
    }
    for wrong in ["http://x", "x/y", ""] {
        let said = scratch.build_fails(2, KUBEFILE, &["--insecure-registry", wrong]);
        assert_has(&said, &["--insecure-registry", "hint:"]);
    }
}

#[test]
fn the_built_in_registry_with_tls_and_passwords() {
    needs!("docker-registry", "skopeo", "openssl", "htpasswd");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let digest = push(&scratch, &upstream, "app:v1", HERE, &[noise(1, 300_000)]);
    scratch.write("context/imageList", format!("{}/app:v1\n", upstream.host()));
    scratch.build("a:1", KUBEFILE, &[]);
    write_registry(&scratch.rootfs("a:1"), Path::new(&scratch.path("registry")));
    fs::create_dir(scratch.path("pki")).unwrap();
    certificates(&scratch.path("pki"));
    scratch.write("htpasswd", run("htpasswd", &["-Bbn", "ops", "word"]));
    let (certificate, key, users) = (
        scratch.path("pki/server.crt"),
        scratch.path("pki/server.key"),
        scratch.path("htpasswd"),
    );
    let flags = ["--tls-cert", &certificate, "--tls-key", &key, "--htpasswd", &users];
    let mut served = serve(&scratch, Path::new(&scratch.path("registry")), &flags);
    fs::create_dir(scratch.path("certs")).unwrap();
    fs::copy(scratch.path("pki/ca.crt"), scratch.path("certs/ca.crt")).unwrap();
    let source = format!("docker://{}/app@{digest}", served.host);
    let certs = scratch.path("certs");
    let copy = |more: &[&str]| {
        let target = format!("oci:{}:{}", scratch.path("pulled"), more.len());
        let base = ["--insecure-policy", "copy", "--quiet", "--src-cert-dir", &certs];
        let mut command = scratch.command("skopeo");
        command.args([&base[..], more, &[&source, &target]].concat());
        command
    };
    succeed(&mut copy(&["--src-creds", "ops:word"]));
    assert!(!copy(&["--src-creds", "ops:other"]).status().unwrap().success());
    assert!(!copy(&["--src-no-creds"]).status().unwrap().success());

    // It ends by itself when it is asked to.
    let process = served.process.0.id().to_string();
    run("kill", &["-TERM", &process]);
    assert!(served.process.0.wait().unwrap().success());

    let taken = upstream.host();
    for (flags, code, words) in [
        (vec!["--tls-cert", certificate.as_str()], 2, "--tls-key"),
        (vec!["--tls-cert", "nothing", "--tls-key", key.as_str()], 3, "nothing"),
        (vec!["--htpasswd", "nothing"], 3, "nothing"),
        (vec!["--listen", "127.0.0.1:99999"], 2, "99999"),
        (vec!["--listen", "192.0.2.1:5000"], 2, "192.0.2.1:5000"),
        (vec!["--listen", taken.as_str()], 8, taken.as_str()),
    ] {
        let folder = scratch.path("registry");
        let arguments = [&["registry", "serve", "--dir", &folder][..], &flags].concat();
        let (found, said) = support::outcome(&mut scratch.sealrs(&arguments));
        assert_has(&said, &[words]);
        assert_eq!(found, Some(code), "{flags:?}: {said}");
    }
    assert_has(
        &scratch.fails(3, &["registry", "serve", "--dir", "nowhere"]),
        &["nowhere"],
    );
}
