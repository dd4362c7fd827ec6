//! Who is let in over SSH, and which servers are trusted, against real servers on loopback ports and a real agent.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support_ssh;

use std::fs;
use std::process::Command as Process;

use sealrs_image::error::ErrorKind;
use sealrs_installer::host::{HostKeyPolicy, Ssh, SshOptions};
use support_ssh::{Agent, Server, keygen, needs};

const PASSPHRASE: &str = "open sesame";

fn refusal(options: &SshOptions) -> String {
    let error = Ssh::new(options.clone()).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    error.to_string()
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn keys_of_every_sort_are_taken() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let kinds: [&[&str]; 7] = [
        &["ed25519"],
        &["ecdsa", "-b", "256"],
        &["ecdsa", "-b", "384"],
        &["ecdsa", "-b", "521"],
        &["rsa", "-b", "2048"],
        &["rsa", "-b", "2048", "-m", "PEM"],
        &["rsa", "-b", "2048", "-m", "PKCS8"],
    ];
    for (index, kind) in kinds.iter().enumerate() {
        for passphrase in ["", PASSPHRASE] {
            let mut options = server.options();
            options.identities = vec![server.key(&format!("{index}{}", passphrase.len()), kind, passphrase)];
            options.passphrase = Some(PASSPHRASE.to_owned());
            let connected = Ssh::new(options).connect();
            assert!(connected.is_ok(), "{kind:?} {passphrase:?}: {connected:?}");
        }
    }
}

#[test]
fn a_refusal_says_who_tried_what() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let mut options = server.options();
    let locked = server.key("locked", &["ed25519"], PASSPHRASE);
    let stranger = server.path("stranger");
    keygen(&stranger, &["ed25519"], "");
    options.identities = vec![server.path("missing"), locked.clone(), stranger];
    options.password = Some("wrong password".to_owned());
    options.agent = Some(server.path("no-agent"));
    let text = refusal(&options);
    let words = [
        "127.0.0.1 does not let",
        &options.user,
        "missing (",
        "locked (",
        "stranger",
        "no-agent (",
        "password",
    ];
    has(&text, &words);
    has(&text, &["it takes: publickey"]);
    assert!(!text.contains("wrong password"), "{text}");
    options.passphrase = Some("wrong passphrase".to_owned());
    let text = refusal(&options);
    has(&text, &["locked ("]);
    assert!(!text.contains("wrong passphrase"), "{text}");
    options.passphrase = Some(PASSPHRASE.to_owned());
    Ssh::new(options.clone()).connect().unwrap();
    options.identities.clear();
    options.password = None;
    options.agent = None;
    has(&refusal(&options), &["tried: nothing"]);
    // All that is said of options is free of secrets.
    options.password = Some("wrong password".to_owned());
    let shown = format!("{options:?} {:?}", Ssh::new(options.clone()));
    assert!(
        !shown.contains("wrong password") && !shown.contains(PASSPHRASE),
        "{shown}"
    );
}

#[test]
fn an_agent_signs_and_does_not_use_up_the_tries() {
    needs!("/usr/sbin/sshd", "/usr/bin/ssh-agent");
    let server = Server::start();
    let agent = Agent::start();
    let mut options = server.options();
    options.agent = Some(agent.socket());
    options.identities.clear();
    for kind in [&["ed25519"], &["ecdsa"], &["rsa"]] {
        let agent = Agent::start();
        agent.add(&server.key(kind[0], kind, ""), "");
        options.agent = Some(agent.socket());
        Ssh::new(options.clone()).connect().unwrap();
    }
    options.agent = Some(agent.socket());
    for number in 0..8 {
        let stranger = server.path(&format!("stranger{number}"));
        keygen(&stranger, &["ed25519"], "");
        agent.add(&stranger, "");
    }
    // A locked file that the agent can sign for, beside more keys than a server bears.
    let locked = server.key("locked", &["ed25519"], PASSPHRASE);
    agent.add(&locked, PASSPHRASE);
    options.identities = vec![server.path("key")];
    Ssh::new(options.clone()).connect().unwrap();
    options.identities = vec![locked.clone()];
    Ssh::new(options.clone()).connect().unwrap();
    fs::remove_file(server.path("locked.pub")).unwrap();
    Ssh::new(options.clone()).connect().unwrap();
    options.identities.clear();
    let text = refusal(&options);
    assert_eq!(text.matches("agent's key SHA256:").count(), 5, "{text}");
    has(&text, &["none of 4 more keys of the agent"]);
}

#[test]
fn a_server_may_want_two_proofs_or_bear_few_tries() {
    needs!("/usr/sbin/sshd");
    let both = Server::with("AuthenticationMethods publickey,publickey", "127.0.0.1");
    let second = both.key("second", &["ed25519"], "");
    let mut options = both.options();
    has(&refusal(&options), &["tried: key", "it takes: publickey"]);
    options.identities.push(second);
    Ssh::new(options).connect().unwrap();

    let strict = Server::with("MaxAuthTries 2", "127.0.0.1");
    let mut options = strict.options();
    for number in 0..3 {
        let stranger = strict.path(&format!("stranger{number}"));
        keygen(&stranger, &["ed25519"], "");
        options.identities.insert(0, stranger);
    }
    let text = refusal(&options);
    has(&text, &["stranger2", "stranger1", "ended the connection"]);
}

#[test]
fn unknown_and_changed_host_keys_are_refused() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let mut options = server.options();
    options.host_keys = HostKeyPolicy::Strict;
    has(&refusal(&options), &["is not in", "SHA256:"]);
    options.host_keys = HostKeyPolicy::AcceptNew;
    Ssh::new(options.clone()).connect().unwrap();
    options.host_keys = HostKeyPolicy::Strict;
    Ssh::new(options.clone()).connect().unwrap();
    let known = fs::read_to_string(&options.known_hosts).unwrap();
    let other = fs::read_to_string(server.path("key.pub")).unwrap();
    let name = known.split(' ').next().unwrap();
    fs::write(&options.known_hosts, format!("# hosts\n{name} {other}")).unwrap();
    options.host_keys = HostKeyPolicy::AcceptNew;
    let error = Ssh::new(options.clone()).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    has(&error.to_string(), &["has changed", "known_hosts:2"]);
    // The remedy is one.
    let remedy = error.remedy().unwrap();
    let line = remedy.split('`').nth(1).unwrap();
    has(line, &["ssh-keygen -R"]);
    assert!(Process::new("sh").args(["-c", line]).output().unwrap().status.success());
    Ssh::new(options.clone()).connect().unwrap();
    let known = fs::read_to_string(&options.known_hosts).unwrap();
    let revoked = format!("@revoked {}\n", known.lines().last().unwrap());
    fs::write(&options.known_hosts, revoked).unwrap();
    has(&refusal(&options), &["is revoked by"]);
    options.host_keys = HostKeyPolicy::Off;
    Ssh::new(options).connect().unwrap();
}

#[test]
fn the_key_that_is_known_is_asked_for() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let mut options = server.options();
    options.host_keys = HostKeyPolicy::Strict;
    let key = fs::read_to_string(server.path("host-ecdsa.pub")).unwrap();
    fs::write(&options.known_hosts, format!("[127.0.0.1]:{} {key}", server.port)).unwrap();
    Ssh::new(options.clone()).connect().unwrap();
    let hashed = Process::new("ssh-keygen")
        .arg("-H")
        .arg("-f")
        .arg(&options.known_hosts)
        .output();
    assert!(hashed.unwrap().status.success());
    assert!(fs::read_to_string(&options.known_hosts).unwrap().starts_with("|1|"));
    Ssh::new(options).connect().unwrap();
}
