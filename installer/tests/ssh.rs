//! Hosts over SSH, against real servers on loopback ports: programs, files, connections that break.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support_ssh;

use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sealrs_image::error::{Error, ErrorKind};
use sealrs_installer::host::{Command, Host as _, Ssh};
use support_ssh::{Server, needs, wait_until};

fn sh(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

/// All that an error says.
fn whole(error: &Error) -> String {
    format!("{error}: {}", error.causes().join(": "))
}

/// Bytes that no compression or repetition hides.
fn noise(len: u32) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Bytes without end, slowly.
struct Slow;

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        thread::sleep(Duration::from_millis(1));
        buffer.fill(7);
        Ok(buffer.len())
    }
}

#[test]
fn runs_programs_and_moves_files() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let host = Ssh::new(server.options());
    let script = Command::new("sh").args(["-c", "cat; echo \"$1\" >&2; exit 3", "sh", r"it's $HOME \ `id`"]);
    let output = host.run(&script.stdin("in")).unwrap();
    assert_eq!((output.status, output.stdout.as_slice()), (Some(3), b"in".as_slice()));
    assert_eq!(output.stderr, "it's $HOME \\ `id`\n");

    let bytes = noise(9_000_001);
    let file = server.path("big file");
    let path = file.to_str().unwrap();
    let len = bytes.len() as u64;
    let error = host
        .upload(path, 0o640, &mut bytes.as_slice(), len + 1, false)
        .unwrap_err();
    assert!(whole(&error).contains("not all of"), "{error:?}");
    assert!(!file.exists());
    host.upload(path, 0o640, &mut bytes.as_slice(), len, false).unwrap();
    assert!(fs::read(&file).unwrap() == bytes);
    let back = host.run(&Command::new("cat").arg(path)).unwrap();
    assert!(back.stdout == bytes);
    let error = host
        .upload("/no/such/folder/file", 0o640, &mut b"".as_slice(), 0, false)
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot write /no/such/folder/file on 127.0.0.1");
    let facts = host.facts(false).unwrap();
    assert_eq!(facts.machine, std::env::consts::ARCH);
    assert!(facts.folder.is_some());

    let mut session = host.start(&Command::new("cat")).unwrap();
    let (mut stdin, mut stdout) = (session.take_stdin().unwrap(), session.take_stdout().unwrap());
    for word in [b"one", b"two"] {
        stdin.write_all(word).unwrap();
        let mut answer = [0; 3];
        stdout.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, word);
    }
    drop(stdin);
    assert!(session.wait(Duration::from_secs(10)).unwrap().success());
    // Nobody reads, nobody writes: nothing hangs.
    let session = host.start(&sh("cat; head -c 50000000 /dev/zero; exit 4")).unwrap();
    assert_eq!(session.wait(Duration::from_secs(60)).unwrap().status, Some(4));
    let error = host.run(&sh("head -c 20000000 /dev/zero")).unwrap_err();
    assert!(whole(&error).contains("more than 16 MiB"), "{error:?}");
}

#[test]
fn ends_are_told_as_they_were() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let host = Ssh::new(server.options());
    for status in [0, 1, 77, 255] {
        assert_eq!(host.run(&sh(&format!("exit {status}"))).unwrap().status, Some(status));
    }
    for signal in ["TERM", "KILL", "SEGV"] {
        let output = host.run(&sh(&format!("kill -{signal} $$"))).unwrap();
        assert_eq!((output.status, output.signal.as_deref()), (None, Some(signal)));
        let error = output.checked("cannot go on").unwrap_err();
        assert!(
            whole(&error).contains(&format!("ended by signal {signal}")),
            "{error:?}"
        );
    }
    let output = host.run(&Command::new("/no/such/program")).unwrap();
    assert_eq!(output.status, Some(127));
    assert!(output.stderr.contains("/no/such/program"), "{output:?}");
    // More input than the program reads is no failure; its end counts.
    let output = host.run(&sh("exit 5").stdin(noise(20_000_000))).unwrap();
    assert_eq!(output.status, Some(5));
}

#[test]
fn what_takes_too_long_is_stopped_on_the_host() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let host = Ssh::new(server.options());
    for (name, trap) in [("polite", ""), ("stubborn", "trap '' TERM HUP;")] {
        let file = server.path(name);
        let script = format!("{trap} echo $$ >'{}'; while :; do sleep 0.1; done", file.display());
        let start = Instant::now();
        let error = host.run(&sh(&script).limit(Duration::from_secs(2))).unwrap_err();
        assert!(whole(&error).contains("did not end within 2s"), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(10));
        let id = fs::read_to_string(&file).unwrap();
        let process = Path::new("/proc").join(id.trim());
        wait_until(name, || !process.exists());
    }
    // It does not read what it is sent, and the others of the connection go on.
    let stuck = sh("sleep 60").limit(Duration::from_secs(1)).stdin(noise(30_000_000));
    let start = Instant::now();
    thread::scope(|scope| {
        let stuck = scope.spawn(|| host.run(&stuck).unwrap_err());
        thread::sleep(Duration::from_millis(300));
        assert!(host.run(&sh("true")).unwrap().success());
        stuck.join().unwrap();
    });
    assert!(host.run(&sh("true")).unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(10));
    let session = host.start(&sh("sleep 60")).unwrap();
    session.stop()();
    session.wait(Duration::from_secs(5)).unwrap_err();
    assert_eq!(server.connections().len(), 1, "all of this was one connection");
}

#[test]
fn what_was_left_behind_holds_nothing_up() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let host = Ssh::new(server.options());
    let start = Instant::now();
    let error = host.run(&sh("setsid sleep 25 & exit 0")).unwrap_err();
    assert!(whole(&error).contains("holds its output open"), "{error:?}");
    assert!(error.remedy().unwrap().contains("/dev/null"), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(20));
    let quiet = host
        .run(&sh("setsid sleep 25 >/dev/null 2>&1 </dev/null & exit 0"))
        .unwrap();
    assert!(quiet.success());
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn many_programs_share_one_connection() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let host = Ssh::new(server.options());
    thread::scope(|scope| {
        for number in 0..8_u8 {
            let host = &host;
            scope.spawn(move || {
                let bytes = vec![number; 3_000_000];
                let output = host.run(&Command::new("cat").stdin(bytes.clone())).unwrap();
                assert!(output.stdout == bytes);
            });
        }
    });
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn too_many_sessions_are_an_error_that_says_so() {
    needs!("/usr/sbin/sshd");
    let server = Server::with("MaxSessions 1", "127.0.0.1");
    let host = Ssh::new(server.options());
    let first = host.start(&Command::new("cat")).unwrap();
    let error = host.run(&sh("true")).unwrap_err();
    assert!(error.remedy().unwrap().contains("MaxSessions"), "{error:?}");
    drop(first);
    wait_until("the session is free again", || host.run(&sh("true")).is_ok());
}

#[test]
fn a_connection_that_is_cut_is_an_error_and_made_again() {
    needs!("/usr/sbin/sshd");
    let mut server = Server::start();
    let host = Ssh::new(server.options());
    let file = server.path("upload");
    let path = file.to_str().unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        let run = scope.spawn(|| host.run(&sh("sleep 60")).unwrap_err());
        let upload = scope.spawn(|| {
            host.upload(path, 0o600, &mut Slow.take(1 << 30), 1 << 30, false)
                .unwrap_err()
        });
        wait_until("the upload begins", || {
            fs::read_dir(file.parent().unwrap()).unwrap().any(|entry| {
                let entry = entry.unwrap();
                entry.file_name().to_string_lossy().starts_with("upload.part") && entry.metadata().unwrap().len() > 0
            })
        });
        server.signal("KILL");
        for error in [run.join().unwrap(), upload.join().unwrap()] {
            assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
            assert!(whole(&error).contains("the connection broke"), "{error:?}");
            assert!(error.remedy().unwrap().contains("run again"), "{error:?}");
        }
    });
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    wait_until("nothing is left of the upload", || {
        fs::read_dir(file.parent().unwrap())
            .unwrap()
            .all(|entry| !entry.unwrap().file_name().to_string_lossy().starts_with("upload"))
    });
    assert!(host.run(&sh("true")).unwrap().success(), "it connects anew");
    server.restart();
    assert!(host.run(&sh("true")).unwrap().success(), "and again");
    drop(server);
    let error = host.run(&sh("true")).unwrap_err();
    assert!(whole(&error).contains("cannot connect to 127.0.0.1"), "{error:?}");
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let mut options = server.options();
    options.keep_alive = Duration::from_secs(1);
    options.connect_limit = Duration::from_secs(2);
    let host = Ssh::new(options);
    host.connect().unwrap();
    let file = server.path("upload");
    let path = file.to_str().unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        let run = scope.spawn(|| host.run(&sh("sleep 60")).unwrap_err());
        let upload = scope.spawn(|| {
            host.upload(path, 0o600, &mut Slow.take(1 << 30), 1 << 30, false)
                .unwrap_err()
        });
        thread::sleep(Duration::from_secs(1));
        server.signal("STOP");
        for error in [run.join().unwrap(), upload.join().unwrap()] {
            assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
        }
    });
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert!(host.run(&sh("true")).unwrap().success(), "it connects anew");
}

#[test]
fn ways_lead_over_jump_hosts_and_ipv6() {
    needs!("/usr/sbin/sshd");
    let (first, second, far) = (Server::start(), Server::start(), Server::start());
    let mut options = far.options();
    options.jumps = vec![first.options(), second.options()];
    options.jumps[0].name = "bastion".to_owned();
    let host = Ssh::new(options.clone());
    let bytes = noise(5_000_000);
    assert!(host.run(&Command::new("cat").stdin(bytes.clone())).unwrap().stdout == bytes);
    for server in [&first, &second, &far] {
        assert_eq!(server.connections().len(), 1);
    }
    // The way breaks in its middle.
    second.signal("KILL");
    wait_until("it is noticed", || server_is_free(&second));
    assert!(host.run(&sh("true")).unwrap().success());

    options.jumps[0].identities.clear();
    let error = Ssh::new(options.clone()).connect().unwrap_err();
    assert!(error.to_string().contains("by way of bastion"), "{error:?}");
    assert!(whole(&error).contains("bastion does not let"), "{error:?}");
    options.jumps = vec![Server::with("AllowTcpForwarding no", "127.0.0.1").options()];
    let error = Ssh::new(options).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");

    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this host has no IPv6");
        return;
    }
    let six = Server::with("", "::1");
    let output = Ssh::new(six.options()).run(&sh("echo $SSH_CONNECTION")).unwrap();
    assert!(output.stdout.starts_with(b"::1 "), "{output:?}");
    let known = fs::read_to_string(six.path("known_hosts")).unwrap();
    assert!(
        known.starts_with(&format!("[::1]:{} ssh-ed25519 ", six.port)),
        "{known}"
    );
    let mut options = six.options();
    options.jumps = vec![far.options()];
    assert!(Ssh::new(options).run(&sh("true")).unwrap().success());
}

fn server_is_free(server: &Server) -> bool {
    server.connections().is_empty()
}

#[test]
fn what_is_no_ssh_server_is_told() {
    let limit = Duration::from_millis(500);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = sealrs_installer::host::SshOptions::new("127.0.0.1");
    options.port = listener.local_addr().unwrap().port();
    options.agent = None;
    options.connect_limit = limit;
    let error = Ssh::new(options.clone()).connect().unwrap_err();
    assert!(whole(&error).contains("no answer within 500ms"), "{error:?}");
    let server = thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    // The first connection is the one that was given up.
    let error = Ssh::new(options.clone()).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
    server.join().unwrap();
    let error = Ssh::new(options.clone()).connect().unwrap_err();
    assert!(whole(&error).contains("refused"), "{error:?}");
    options.address = "no-such-host.invalid".to_owned();
    let error = Ssh::new(options).connect().unwrap_err();
    assert!(error.to_string().contains("no-such-host.invalid"), "{error:?}");
}

/// By hand: `cargo test --release -p sealrs-installer --test ssh -- --ignored --nocapture gibibyte`.
#[test]
#[ignore = "measures"]
fn a_gibibyte_beside_ssh() {
    needs!("/usr/sbin/sshd");
    let server = Server::start();
    let host = Ssh::new(server.options());
    host.connect().unwrap();
    let source = server.path("source");
    fs::write(&source, noise(1 << 30)).unwrap();
    let target = server.path("target");
    let path = target.to_str().unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        let mut file = fs::File::open(&source).unwrap();
        host.upload(path, 0o600, &mut file, 1 << 30, false).unwrap();
        println!("upload: {:?}", start.elapsed());
        let start = Instant::now();
        let copied = std::process::Command::new("ssh")
            .args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-i"])
            .arg(server.path("key"))
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", server.path("known_hosts").display()))
            .args(["-p", &server.port.to_string(), "127.0.0.1"])
            .arg(format!("cat >'{path}' && sync '{path}'"))
            .stdin(fs::File::open(&source).unwrap())
            .status();
        assert!(copied.unwrap().success());
        println!("ssh cat: {:?}", start.elapsed());
    }
    let start = Instant::now();
    let mut session = host.start(&Command::new("cat").arg(path)).unwrap();
    let count = std::io::copy(&mut session.take_stdout().unwrap(), &mut std::io::sink()).unwrap();
    assert_eq!(count, 1 << 30);
    println!("download: {:?}", start.elapsed());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}
