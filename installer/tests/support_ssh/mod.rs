//! Real SSH servers on loopback ports, and keys for them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealrs_installer::host::SshOptions;
use tempfile::TempDir;

/// Ends the test, with the reason printed, when a program that it needs is not there.
macro_rules! needs {
    ($($program:literal),+ $(,)?) => {
        $(
            if !std::path::Path::new($program).exists() {
                println!("skipped: this test needs `{}`", $program);
                return;
            }
        )+
    };
}
pub(crate) use needs;

/// A server with keys of its own. Ended when dropped.
pub(crate) struct Server {
    child: Child,
    address: &'static str,
    pub(crate) port: u16,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("CONT");
        let connections = self.connections();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for id in connections {
            kill(id, "KILL");
        }
    }
}

/// Makes a key.
pub(crate) fn keygen(file: &Path, kind: &[&str], passphrase: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", passphrase, "-t"])
        .args(kind)
        .arg("-f")
        .arg(file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

pub(crate) fn kill(id: u32, signal: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), &id.to_string()])
        .output();
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        sleep(Duration::from_millis(20));
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with("", "127.0.0.1")
    }

    /// With more lines of configuration, at an address of this host.
    pub(crate) fn with(more: &str, address: &'static str) -> Self {
        // The folder of sshd's unprivileged part, when this is root; elsewhere the service makes it.
        let _ = fs::create_dir("/run/sshd");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        keygen(&path.join("host"), &["ed25519"], "");
        keygen(&path.join("host-ecdsa"), &["ecdsa"], "");
        keygen(&path.join("key"), &["ed25519"], "");
        fs::copy(path.join("key.pub"), path.join("authorized")).unwrap();
        let port = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let at = path.display();
        let config = format!(
            "{more}\nPort {port}\nListenAddress {address}\nHostKey {at}/host\nHostKey {at}/host-ecdsa\n\
             AuthorizedKeysFile {at}/authorized\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
             PasswordAuthentication yes\n"
        );
        fs::write(path.join("config"), config).unwrap();
        let mut server = Self {
            child: daemon(&path),
            address,
            port,
            folder,
        };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let (address, port) = (self.address, self.port);
        let child = &mut self.child;
        wait_until("sshd listens", || {
            assert_eq!(child.try_wait().unwrap(), None, "sshd ended");
            TcpStream::connect((address, port)).is_ok()
        });
    }

    /// Ends the server and all connections, and starts it again.
    pub(crate) fn restart(&mut self) {
        let connections = self.connections();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for id in connections {
            kill(id, "KILL");
        }
        self.child = daemon(self.folder.path());
        self.wait();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new key that is let in.
    pub(crate) fn key(&self, name: &str, kind: &[&str], passphrase: &str) -> PathBuf {
        let file = self.path(name);
        keygen(&file, kind, passphrase);
        let mut keys = fs::read_to_string(self.path("authorized")).unwrap();
        keys.push_str(&fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap());
        fs::write(self.path("authorized"), keys).unwrap();
        file
    }

    /// How to reach it, with the key it knows from the start.
    pub(crate) fn options(&self) -> SshOptions {
        let mut options = SshOptions::new(self.address);
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        options.user = String::from_utf8(user).unwrap().trim().to_owned();
        options.port = self.port;
        options.identities = vec![self.path("key")];
        options.agent = None;
        options.known_hosts = self.path("known_hosts");
        options
    }

    /// The processes that serve a connection each.
    pub(crate) fn connections(&self) -> Vec<u32> {
        let listener = self.child.id().to_string();
        let output = Command::new("pgrep").args(["-P", &listener]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter_map(|id| id.parse().ok()).collect()
    }

    /// A signal to all that serve a connection.
    pub(crate) fn signal(&self, signal: &str) {
        for id in self.connections() {
            kill(id, signal);
        }
    }
}

fn daemon(folder: &Path) -> Child {
    Command::new("/usr/sbin/sshd")
        .args(["-D", "-f"])
        .arg(folder.join("config"))
        .arg("-E")
        .arg(folder.join("log"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A real agent. Ended when dropped.
pub(crate) struct Agent {
    child: Child,
    folder: TempDir,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("ssh-agent listens", || socket.exists());
        Self { child, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Gives it a key, by a copy that has lost its passphrase.
    pub(crate) fn add(&self, key: &Path, passphrase: &str) {
        let copy = self.folder.path().join("copy");
        fs::copy(key, &copy).unwrap();
        let bare = Command::new("ssh-keygen")
            .args(["-q", "-p", "-P", passphrase, "-N", "", "-f"])
            .arg(&copy)
            .output()
            .unwrap();
        assert!(bare.status.success(), "{}", String::from_utf8_lossy(&bare.stderr));
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(&copy)
            .env("SSH_AUTH_SOCK", self.socket())
            .output()
            .unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        fs::remove_file(copy).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
