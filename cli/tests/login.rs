//! Logging in and out of registries, beside skopeo and docker's credential helpers; and lists of tags.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::images::{push, serve};
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, fail, needs, noise, run, succeed};

const HERE: &[&str] = &["linux/amd64"];

/// A registry with `app:v1`, TLS and a user `ops`. Its own certificate is `certs/ca.crt`.
fn guarded(scratch: &Scratch) -> (Registry, Registry) {
    let open = Registry::start(&Setup::default());
    push(scratch, &open, "app:v1", HERE, &[noise(1, 1000)]);
    scratch.write("htpasswd", run("htpasswd", &["-Bbn", "ops", "s3cret-word"]));
    fs::create_dir(scratch.path("certs")).unwrap();
    let (certificate, key) = (scratch.path("certs/ca.crt"), scratch.path("server.key"));
    let make = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ];
    let name = [
        "-subj",
        "/CN=server",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    run("openssl", &[&make[..], &name].concat());
    let registry = Registry::start(&Setup {
        tls: Some((certificate.into(), key.into())),
        htpasswd: Some(scratch.path("htpasswd").into()),
        storage: Some(open.storage().to_owned()),
        ..Setup::default()
    });
    (registry, open)
}

/// Runs a command with these words on its standard input; what it ends with, and all that it says.
fn fed(command: &mut Command, input: &str) -> (Option<i32>, String) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        support::text(&output.stdout) + &support::text(&output.stderr),
    )
}

#[track_caller]
fn log_in(command: &mut Command, password: &str) -> String {
    let (code, said) = fed(command, password);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(password.trim()), "{said}");
    said
}

fn config(scratch: &Scratch, path: &str) -> Value {
    serde_json::from_slice(&scratch.read(path)).unwrap()
}

#[test]
fn what_sealrs_keeps_skopeo_reads_and_the_other_way_round() {
    needs!("docker-registry", "skopeo", "openssl", "htpasswd");
    let scratch = Scratch::new();
    let (registry, _open) = guarded(&scratch);
    let host = registry.host();
    let certificate = scratch.path("certs/ca.crt");
    let login = [
        "login",
        &host,
        "-u",
        "ops",
        "--password-stdin",
        "--ca-file",
        &certificate,
    ];
    let search = ["search", &format!("{host}/app"), "--ca-file", &certificate];
    let image = format!("docker://{host}/app:v1");
    let certs = scratch.path("certs");
    let inspect = |scratch: &Scratch| {
        let mut command = scratch.command("skopeo");
        let file = scratch.path("home/.docker/config.json");
        command.args(["inspect", "--authfile", &file, "--cert-dir", &certs, &image]);
        command
    };

    // Nobody knows us, and a wrong password is not kept.
    assert_has(
        &scratch.fails(6, &search),
        &["there are no credentials", &format!("`sealrs login {host}`")],
    );
    let (code, said) = fed(&mut scratch.sealrs(&login), "guessed-word");
    assert_eq!(code, Some(6), "{said}");
    assert_has(&said, &["refuses the user `ops`", &host]);
    assert!(
        !said.contains("guessed-word") && !scratch.exists("home/.docker"),
        "{said}"
    );

    let said = log_in(&mut scratch.sealrs(&login), "s3cret-word\n");
    let file = scratch.path("home/.docker/config.json");
    assert_eq!(said, format!("logged in to {host} as ops, kept in {file}\n"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        config(&scratch, "home/.docker/config.json"),
        json!({"auths": {host.as_str(): {"auth": "b3BzOnMzY3JldC13b3Jk"}}})
    );
    succeed(&mut inspect(&scratch));
    assert_eq!(scratch.ok(&search), "v1\n");
    assert_eq!(
        scratch.json(&search),
        json!({"repository": format!("{host}/app"), "tags": ["v1"]})
    );

    // The other way round.
    let other = Scratch::new();
    let mut skopeo = other.command("skopeo");
    fs::create_dir(other.path("docker")).unwrap();
    let authfile = other.path("docker/config.json");
    skopeo.args([
        "login",
        "--authfile",
        &authfile,
        "--cert-dir",
        &certs,
        "-u",
        "ops",
        "--password-stdin",
        &host,
    ]);
    log_in(&mut skopeo, "s3cret-word");
    let searched = succeed(other.sealrs(&search).env("DOCKER_CONFIG", other.path("docker")));
    assert_eq!(searched, "v1\n");
    let said = succeed(
        other
            .sealrs(&["logout", &host])
            .env("DOCKER_CONFIG", other.path("docker")),
    );
    assert_eq!(said, format!("logged out of {host}, removed from {authfile}\n"));
    let mut skopeo = other.command("skopeo");
    fail(
        skopeo.args(["inspect", "--authfile", &authfile, "--cert-dir", &certs, &image]),
        1,
    );

    // Out again. Who is known by podman's file still is, and is told.
    fs::create_dir_all(scratch.path("home/.config/containers")).unwrap();
    fs::copy(&file, scratch.path("home/.config/containers/auth.json")).unwrap();
    let (code, said) = fed(&mut scratch.sealrs(&["logout", &host]), "");
    assert_eq!(code, Some(0), "{said}");
    assert_has(
        &said,
        &["logged out of", "still met as `ops`, by", "containers/auth.json"],
    );
    fs::remove_dir_all(scratch.path("home/.config")).unwrap();
    assert_eq!(
        scratch.ok(&["logout", &host]),
        format!("there was no login for {host}\n")
    );
    assert_eq!(
        scratch.json(&["logout", &host]),
        json!({"registry": host, "removedFrom": null})
    );
    assert_eq!(config(&scratch, "home/.docker/config.json"), json!({"auths": {}}));
    fail(&mut inspect(&scratch), 1);
    scratch.fails(6, &search);
}

/// A credential helper that keeps what it is given in a file by server, as docker's own does in a key ring.
const HELPER: &str = r#"#!/bin/sh
input=$(cat)
case $1 in
store)
    server=$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/')
    printf %s "$input" >"$RING/$(printf %s "$server" | tr /: __)" ;;
get)
    cat "$RING/$(printf %s "$input" | tr /: __)" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase)
    rm "$RING/$(printf %s "$input" | tr /: __)" || exit 1 ;;
esac
"#;

#[test]
fn a_credential_helper_keeps_what_it_is_for() {
    needs!("docker-registry", "skopeo", "openssl", "htpasswd");
    let scratch = Scratch::new();
    let (registry, open) = guarded(&scratch);
    let (host, open) = (registry.host(), open.host());
    let certificate = scratch.path("certs/ca.crt");
    scratch.program("bin/docker-credential-ring", HELPER);
    fs::create_dir(scratch.path("ring")).unwrap();
    // One helper for all, and none that is there for the other registry.
    let settings = json!({
        "credsStore": "ring", "credHelpers": {open.as_str(): "missing"}, "psFormat": "x",
        "auths": {host.as_str(): {"auth": "b2xkOm9sZA=="}},
    });
    scratch.write("home/.docker/config.json", settings.to_string());
    let sealrs = |arguments: &[&str]| {
        let mut command = scratch.sealrs(arguments);
        let path = format!("{}:{}", scratch.path("bin"), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("RING", scratch.path("ring"));
        command
    };
    let login = [
        "login",
        &host,
        "-u",
        "ops",
        "--password-stdin",
        "--ca-file",
        &certificate,
    ];
    let said = log_in(&mut sealrs(&login), "s3cret-word");
    assert_has(&said, &["kept in docker-credential-ring"]);
    let kept = scratch.list("ring");
    assert_eq!(kept, [host.replace(':', "_")]);
    assert_eq!(
        config(&scratch, &format!("ring/{}", kept[0])),
        json!({"ServerURL": host, "Username": "ops", "Secret": "s3cret-word"})
    );
    let mut expected = settings.clone();
    expected["auths"][&host] = json!({});
    assert_eq!(config(&scratch, "home/.docker/config.json"), expected);
    let search = ["search", &format!("{host}/app"), "--ca-file", &certificate];
    assert_eq!(succeed(&mut sealrs(&search)), "v1\n");

    let said = fed(
        sealrs(&["login", &format!("{host}/app"), "--ca-file", &certificate]).args(["-u", "ops", "--password-stdin"]),
        "s3cret-word",
    );
    assert_eq!(said.0, Some(2), "{said:?}");
    assert_has(&said.1, &["whole registries only", &format!("log in to {host}")]);
    let said = fed(
        &mut sealrs(&["login", &open, "-u", "ops", "--password-stdin"]),
        "s3cret-word",
    );
    assert_eq!(said.0, Some(6), "{said:?}");
    assert_has(
        &said.1,
        &["docker-credential-missing", "no such program", "config.json"],
    );
    assert_eq!(config(&scratch, "home/.docker/config.json"), expected);

    assert_has(
        &succeed(&mut sealrs(&["logout", &host])),
        &["removed from docker-credential-ring"],
    );
    assert!(scratch.list("ring").is_empty());
    assert_has(&succeed(&mut sealrs(&["logout", &host])), &["there was no login"]);
    expected["auths"] = json!({});
    assert_eq!(config(&scratch, "home/.docker/config.json"), expected);
    fail(&mut sealrs(&search), 6);

    // Docker Hub has its old name there.
    scratch.write(
        "ring/https___index.docker.io_v1_",
        r#"{"Username":"me","Secret":"s3cret-word"}"#,
    );
    assert_has(
        &succeed(&mut sealrs(&["logout", "docker.io"])),
        &["logged out of docker.io"],
    );
    assert!(scratch.list("ring").is_empty());
}

#[test]
fn logins_of_many_processes_lose_nothing() {
    needs!("docker-registry");
    let scratch = Scratch::new();
    let open = Registry::start(&Setup::default());
    scratch.write(
        "home/.docker/config.json",
        r#"{"auths": {"before.example.com": {"auth": "dTpw"}}, "HttpHeaders": {"a": "b"}}"#,
    );
    let names: Vec<String> = (1..=12).map(|number| format!("{}/team{number}", open.host())).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let scratch = &scratch;
            scope.spawn(move || {
                let said = log_in(
                    &mut scratch.sealrs(&["login", name, "-u", "ops", "--password-stdin"]),
                    "s3cret-word",
                );
                assert_has(&said, &["lets everybody in"]);
            });
        }
    });
    let config = config(&scratch, "home/.docker/config.json");
    assert_eq!(config["HttpHeaders"], json!({"a": "b"}));
    for name in names.iter().map(String::as_str).chain(["before.example.com"]) {
        assert!(config["auths"][name]["auth"].is_string(), "{name}: {config}");
    }
    assert_eq!(scratch.list("home/.docker"), ["config.json"]);
}

#[test]
fn asks_for_user_and_password_on_a_terminal_and_shows_no_password() {
    needs!("docker-registry", "skopeo", "openssl", "htpasswd", "script");
    let scratch = Scratch::new();
    let (registry, _open) = guarded(&scratch);
    let line = format!(
        "{} login {} --ca-file {}",
        env!("CARGO_BIN_EXE_sealrs"),
        registry.host(),
        scratch.path("certs/ca.crt")
    );
    // script(1) is the terminal.
    let mut child = scratch
        .command("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    let mut wait_for = |words: &str| {
        let mut byte = [0];
        while !support::text(&shown).contains(words) {
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "{}", support::text(&shown));
            shown.push(byte[0]);
        }
    };
    wait_for("User for ");
    keyboard.write_all(b"ops\n").unwrap();
    wait_for("Password: ");
    // The prompt may come before the echo is off.
    std::thread::sleep(std::time::Duration::from_millis(300));
    keyboard.write_all(b"s3cret-word\n").unwrap();
    wait_for("kept in");
    screen.read_to_end(&mut shown).unwrap();
    drop(keyboard);
    assert!(child.wait().unwrap().success());
    let shown = support::text(&shown);
    assert_has(&shown, &["ops", "logged in to"]);
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(config(&scratch, "home/.docker/config.json")["auths"][registry.host()]["auth"].is_string());
}

#[test]
fn what_is_no_login_is_refused() {
    let scratch = Scratch::new();
    for (arguments, input, words) in [
        (&["login", "127.0.0.1:1"][..], "x", "nobody is there to ask"),
        (&["login", "127.0.0.1:1", "-u", "ops"], "x", "--password-stdin"),
        (&["login", "127.0.0.1:1", "--password-stdin"], "x", "--username"),
        (
            &["login", "127.0.0.1:1", "-u", "ops", "-p", "s3cret-word"],
            "",
            "unexpected argument '-p'",
        ),
        (
            &["login", "127.0.0.1:1", "-u", "ops", "--password-stdin"],
            "\n",
            "the password is empty",
        ),
        (
            &["login", "127.0.0.1:1", "-u", "ops", "--password-stdin"],
            "a\nb\n",
            "more than one line",
        ),
        (
            &["login", "127.0.0.1:1", "-u", "o:s", "--password-stdin"],
            "x",
            "neither `:`",
        ),
        (
            &["login", "nginx", "-u", "ops", "--password-stdin"],
            "x",
            "is not a registry",
        ),
        (&["logout", "nginx"], "", "is not a registry"),
        (&["search", "example.com/app:v1"], "", "without tag"),
        (&["search", "NGINX"], "", "not an image reference"),
    ] {
        let (code, said) = fed(&mut scratch.sealrs(arguments), input);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert_has(&said, &[words]);
    }
    let long = "x".repeat(100_000);
    let (code, said) = fed(
        &mut scratch.sealrs(&["login", "127.0.0.1:1", "-u", "ops", "--password-stdin"]),
        &long,
    );
    assert_eq!(code, Some(2), "{said}");
    assert_has(&said, &["too long"]);
    assert!(!scratch.exists("home/.docker"));
}

#[test]
fn lists_the_tags_of_all_pages() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    push(&scratch, &registry, "team/app:v1", HERE, &[noise(1, 1000)]);
    // In the registry's own files: pushing so many takes minutes.
    let tags = registry
        .storage()
        .join("docker/registry/v2/repositories/team/app/_manifests/tags");
    let link = fs::read(tags.join("v1/current/link")).unwrap();
    for number in 2..=1050 {
        let folder = tags.join(format!("v{number}/current"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("link"), &link).unwrap();
    }
    let served = serve(&scratch, Path::new(registry.storage()), &[]);
    let searched = scratch.ok(&["search", &format!("{}/team/app", served.host)]);
    let expected: Vec<String> = (1..=1050).map(|number| format!("v{number}")).collect();
    assert_eq!(searched.lines().collect::<Vec<_>>(), expected);
    assert_has(
        &scratch.fails(3, &["search", &format!("{}/no/such", served.host)]),
        &["no/such"],
    );
}
