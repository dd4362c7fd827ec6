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
    /// An authority (PEM): it speaks, over TLS, only to whom that has issued a certificate.
    pub client_authority: Option<PathBuf>,
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
    folder: tempfile::TempDir,
}

impl Registry {
    pub fn start(setup: &Setup) -> Self {
        for _ in 0..5 {
            if let Some(registry) = Self::try_start(setup) {
                return registry;
            }
        }
        panic!("docker-registry does not start");
    }

    /// None when it ended at once: somebody else took the port that was free a moment before.
    fn try_start(setup: &Setup) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let own_storage = || folder.path().join("storage");
        let storage = setup.storage.clone().unwrap_or_else(own_storage);
        let address = setup.address.as_deref().unwrap_or("127.0.0.1");
        let free = TcpListener::bind((address, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let file = folder.path().join("config.yml");
        std::fs::write(&file, configuration(setup, address, &storage)).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut registry = Self {
            process,
            address,
            storage,
            folder,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            let log = || std::fs::read_to_string(registry.folder.path().join("log"));
            assert!(
                Instant::now() < deadline,
                "docker-registry does not come up: {:?}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
            if registry.process.try_wait().unwrap().is_some() {
                println!("docker-registry ended: {:?}", log());
                return None;
            }
        }
        // Had somebody else answered, this one would not run.
        std::thread::sleep(Duration::from_millis(20));
        registry.process.try_wait().unwrap().is_none().then_some(registry)
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

fn configuration(setup: &Setup, address: SocketAddr, storage: &Path) -> String {
    let mut text = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}}}\n\
         validation: {{manifests: {{urls: {{allow: ['.*']}}}}}}\n\
         http:\n  addr: '{address}'\n  secret: test\n",
        storage.display()
    );
    if let Some((certificate, key)) = &setup.tls {
        let (certificate, key) = (certificate.display(), key.display());
        let wanted = setup.client_authority.as_ref();
        let clients = wanted.map_or(String::new(), |file| format!(", clientcas: [{}]", file.display()));
        writeln!(text, "  tls: {{certificate: {certificate}, key: {key}{clients}}}").unwrap();
    }
    if let Some(file) = &setup.htpasswd {
        let file = file.display();
        writeln!(text, "auth: {{htpasswd: {{realm: test, path: {file}}}}}").unwrap();
    }
    if let Some((realm, issuer, certificate)) = &setup.token {
        writeln!(
            text,
            "auth: {{token: {{realm: '{realm}', service: test-registry, issuer: {issuer}, rootcertbundle: {}}}}}",
            certificate.display()
        )
        .unwrap();
    }
    text
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
