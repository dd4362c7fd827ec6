//! The connected side: Debian's docker-registry answers as Docker Hub, as quay.io and as a registry of one's own, on the
//! loopback of the hosts' network, where nobody else sees it.

use std::fs;
use std::process::{Command, Stdio};

use sealrs_image::digest::Digest;

use super::host::Host;
use crate::support::{Running, run, succeed};

/// The names that lead to it.
const NAMES: &str = "127.0.0.1 localhost docker.io registry-1.docker.io quay.io\n";

/// Two registries on one storage: TLS on port 443, plain HTTP on port 5000. Both end with it.
#[derive(Debug)]
pub struct Upstream<'h> {
    host: &'h Host,
    _tls: Running,
    _plain: Running,
}

impl<'h> Upstream<'h> {
    pub fn start(host: &'h Host) -> Self {
        host.scratch.write("hosts", NAMES);
        certificates(host);
        let folder = |name: &str| host.scratch.path(&format!("upstream/{name}"));
        let tls = format!(
            "  tls: {{certificate: {}, key: {}}}\n",
            folder("server.crt"),
            folder("server.key")
        );
        let upstream = Self {
            host,
            _tls: serve(host, "tls", 443, &tls),
            _plain: serve(host, "plain", 5000, ""),
        };
        for port in [443, 5000] {
            let line = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
            host.wait_until("the upstream registry", || {
                host.connected("bash", &["-c", &line])
                    .stderr(Stdio::null())
                    .status()
                    .unwrap()
                    .success()
            });
        }
        upstream
    }

    /// A command where it answers.
    pub fn connected(&self, program: &str, arguments: &[&str]) -> Command {
        self.host.connected(program, arguments)
    }

    /// The certificate authority of its certificate.
    pub fn ca(&self) -> String {
        self.host.scratch.path("upstream/trust/ca.crt")
    }

    /// Has skopeo push an archive's image under this name; gives the digest of its manifest.
    pub fn push(&self, archive: &str, name: &str) -> Digest {
        let plain = name.starts_with("localhost:5000/");
        let host_and_path = name.replacen("docker.io/", "registry-1.docker.io/", 1);
        let target = format!("docker://{host_and_path}");
        let source = format!("oci-archive:{archive}");
        let trust = self.host.scratch.path("upstream/trust");
        let options = match plain {
            true => ["--dest-tls-verify=false".to_owned(), String::new()],
            false => ["--dest-cert-dir".to_owned(), trust],
        };
        let mut arguments = vec!["--insecure-policy", "copy", "--quiet"];
        arguments.extend(options.iter().map(String::as_str).filter(|option| !option.is_empty()));
        arguments.extend([source.as_str(), target.as_str()]);
        succeed(&mut self.host.connected("skopeo", &arguments));
        Digest::of(&run("skopeo", &["inspect", "--raw", &source]))
    }
}

fn serve(host: &Host, name: &str, port: u16, tls: &str) -> Running {
    let configuration = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: '127.0.0.1:{port}'\n  secret: test\n{tls}",
        host.scratch.path("upstream/storage")
    );
    let file = host.scratch.write(&format!("upstream/{name}.yml"), configuration);
    let mut command = host.connected("docker-registry", &["serve", &file]);
    Running::start(command.stderr(Stdio::null()))
}

/// A certificate authority and a certificate for the names of public registries.
fn certificates(host: &Host) {
    let script = "\
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 10 \
          -subj /CN=test -addext basicConstraints=critical,CA:TRUE && \
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr \
          -subj /CN=test && \
        echo subjectAltName=DNS:docker.io,DNS:registry-1.docker.io,DNS:quay.io >names && \
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 10 -extfile names -out server.crt && cp ca.crt trust";
    fs::create_dir_all(host.scratch.path("upstream/trust")).unwrap();
    succeed(
        Command::new("bash")
            .args(["-c", script])
            .current_dir(host.scratch.path("upstream")),
    );
}
