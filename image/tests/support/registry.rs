//! Debian's docker-registry as a process of the test, filled by skopeo.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::run;

/// How it protects itself.
#[derive(Debug, Default)]
pub struct Setup {
    /// Certificate and key: it speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A file by htpasswd: it asks for user and password.
    pub htpasswd: Option<PathBuf>,
    /// Token server's URL, issuer, and the certificate that its tokens are signed with.
    pub token: Option<(String, String, PathBuf)>,
    /// The storage of another registry, to be served again.
    pub storage: Option<PathBuf>,
    /// The address to listen on, if not loopback.
    pub address: Option<String>,
}

/// A running registry; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    pub address: SocketAddr,
    storage: PathBuf,
    _folder: tempfile::TempDir,
}

impl Registry {
    pub fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = setup
            .storage
            .clone()
            .unwrap_or_else(|| folder.path().join("storage"));
        let address = setup.address.as_deref().unwrap_or("127.0.0.1");
        // The port is free until somebody else takes it in the next millisecond.
        let address = TcpListener::bind((address, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let mut configuration = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: '{address}'\n  secret: test\n",
            storage.display()
        );
        if let Some((certificate, key)) = &setup.tls {
            let (certificate, key) = (certificate.display(), key.display());
            writeln!(
                configuration,
                "  tls: {{certificate: {certificate}, key: {key}}}"
            )
            .unwrap();
        }
        if let Some(file) = &setup.htpasswd {
            writeln!(
                configuration,
                "auth: {{htpasswd: {{realm: test, path: {}}}}}",
                file.display()
            )
            .unwrap();
        }
        if let Some((realm, issuer, certificate)) = &setup.token {
            writeln!(
                configuration,
                "auth: {{token: {{realm: '{realm}', service: test-registry, issuer: {issuer}, rootcertbundle: {}}}}}",
                certificate.display()
            )
            .unwrap();
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, configuration).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self {
            process,
            address,
            storage,
            _folder: folder,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            let log =
                || std::fs::read_to_string(registry._folder.path().join("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "docker-registry does not come up: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Its files.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Has skopeo push an OCI layout's image `from` (`DIR:TAG`) as `name` (`path:tag`), all its platforms.
    pub fn push(&self, from: &str, name: &str) {
        let source = format!("oci:{from}");
        let target = format!("docker://{}/{name}", self.address);
        let options = [
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--dest-tls-verify=false",
        ];
        run("skopeo", &[&options[..], &[&source, &target]].concat());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
