//! Hosts over SSH against a real sshd on a loopback port.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use sealrs_installer::host::{Command, Host as _, HostKeyPolicy, Ssh, SshOptions};
use tempfile::TempDir;

/// A server with keys of its own. Ended when dropped.
struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keygen(file: &Path, passphrase: &str) {
    let _ = fs::remove_file(file);
    let made = Process::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
        .arg(file)
        .status();
    assert!(made.unwrap().success());
}

impl Server {
    fn start() -> Self {
        // sshd's folder for its unprivileged part; the service makes it elsewhere.
        let _ = fs::create_dir("/run/sshd");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        for (name, passphrase) in [("host", ""), ("key", ""), ("locked", "open sesame")] {
            keygen(&path.join(name), passphrase);
        }
        let keys = ["key.pub", "locked.pub"].map(|name| fs::read_to_string(path.join(name)).unwrap());
        fs::write(path.join("authorized"), keys.concat()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = path.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication yes\nMaxAuthTries 20\n"
        );
        fs::write(path.join("config"), config).unwrap();
        let child = Process::new("/usr/sbin/sshd")
            .args(["-D", "-f"])
            .arg(path.join("config"))
            .stderr(Stdio::null())
            .spawn()
            .expect("openssh-server is needed");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, folder }
    }

    fn options(&self, key: &str) -> SshOptions {
        let mut options = SshOptions::new("127.0.0.1");
        options.user = String::from_utf8(Process::new("id").arg("-un").output().unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned();
        options.port = self.port;
        options.identities = vec![self.folder.path().join(key)];
        options.agent = None;
        options.known_hosts = self.folder.path().join("known_hosts");
        options
    }
}

#[test]
fn runs_programs_and_moves_files() {
    let server = Server::start();
    let host = Ssh::new(server.options("key"));
    let script = Command::new("sh").args(["-c", "cat; echo \"$1\" >&2; exit 3", "sh", "it's $HOME"]);
    let output = host.run(&script.stdin("in")).unwrap();
    assert_eq!((output.status, output.stdout.as_slice()), (Some(3), b"in".as_slice()));
    assert_eq!(output.stderr, "it's $HOME\n");

    let bytes: Vec<u8> = (0..9_000_001_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let file = server.folder.path().join("big file");
    let path = file.to_str().unwrap();
    let len = bytes.len() as u64;
    assert!(host.upload(path, 0o640, &mut bytes.as_slice(), len + 1, false).is_err());
    assert!(!file.exists());
    host.upload(path, 0o640, &mut bytes.as_slice(), len, false).unwrap();
    assert!(fs::read(&file).unwrap() == bytes);
    let back = host.run(&Command::new("cat").arg(path)).unwrap();
    assert!(back.stdout == bytes);
    assert_eq!(host.facts(false).unwrap().machine, std::env::consts::ARCH);

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

    let start = Instant::now();
    let sleep = Command::new("sleep").arg("60").limit(Duration::from_millis(300));
    assert!(host.run(&sleep).is_err());
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_locked_key_needs_its_passphrase_and_a_refusal_says_what_was_tried() {
    let server = Server::start();
    let mut options = server.options("locked");
    options.password = Some("wrong password".to_owned());
    let error = Ssh::new(options.clone()).connect().unwrap_err().to_string();
    for word in [options.user.as_str(), "locked (", "password", "it takes: publickey"] {
        assert!(error.contains(word), "{word} is not in: {error}");
    }
    assert!(!error.contains("wrong password"), "{error}");
    options.passphrase = Some("open sesame".to_owned());
    Ssh::new(options).connect().unwrap();
}

#[test]
fn unknown_and_changed_host_keys_are_refused() {
    let server = Server::start();
    let mut options = server.options("key");
    options.host_keys = HostKeyPolicy::Strict;
    let error = Ssh::new(options.clone()).connect().unwrap_err().to_string();
    assert!(error.contains("is not in"), "{error}");
    options.host_keys = HostKeyPolicy::AcceptNew;
    Ssh::new(options.clone()).connect().unwrap();
    let known = fs::read_to_string(&options.known_hosts).unwrap();
    let other = fs::read_to_string(server.folder.path().join("key.pub")).unwrap();
    let name = known.split(' ').next().unwrap();
    fs::write(&options.known_hosts, format!("{name} {other}")).unwrap();
    let error = Ssh::new(options.clone()).connect().unwrap_err().to_string();
    assert!(
        error.contains("has changed") && error.contains("known_hosts:1"),
        "{error}"
    );
}

#[test]
fn a_jump_host_is_the_way_to_another() {
    let (near, far) = (Server::start(), Server::start());
    let mut options = far.options("key");
    options.jumps = vec![near.options("key")];
    let output = Ssh::new(options)
        .run(&Command::new("sh").args(["-c", "echo $SSH_CONNECTION"]))
        .unwrap();
    assert!(output.success(), "{output:?}");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = SshOptions::new("127.0.0.1");
    options.port = silent.local_addr().unwrap().port();
    options.connect_limit = Duration::from_millis(300);
    let error = Ssh::new(options).connect().unwrap_err();
    assert!(error.causes().concat().contains("no answer within"), "{error:?}");
}
