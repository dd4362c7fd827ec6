//! The base images of `Kubefile.examples` are built from what a release looks like, served by this machine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::process::Command;

use serde_json::Value;
use support::files::FileServer;
use support::{Scratch, assert_has, fail, needs, succeed};

const SEALRS: &str = env!("CARGO_BIN_EXE_sealrs");

/// The files of a release, and the folder of the example that is built from it.
struct Release {
    scratch: Scratch,
    server: FileServer,
    example: String,
}

impl Release {
    /// Names and contents of its files, and the name of the one that has their digests, as `sha256sum` prints them in this mode.
    fn of(example: &str, files: &[(&str, &str)], sums: &str, mode: &str) -> Self {
        let scratch = Scratch::new();
        for (name, content) in files {
            scratch.write(&format!("release/{name}"), content);
        }
        let names = files.iter().map(|(name, _)| name);
        let mut sha256sum = Command::new("sha256sum");
        let listed = succeed(sha256sum.arg(mode).args(names).current_dir(scratch.path("release")));
        let served: Vec<(String, &[u8])> = files
            .iter()
            .map(|(name, text)| (*name, text.as_bytes()))
            .chain([(sums, listed.as_bytes())])
            .map(|(name, content)| (format!("/{name}"), content))
            .collect();
        let served: Vec<(&str, &[u8])> = served.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        Self {
            scratch,
            server: FileServer::start(&served),
            example: format!("{}/../Kubefile.examples/{example}", env!("CARGO_MANIFEST_DIR")),
        }
    }

    /// The flags that the example's script prints for this release.
    fn flags(&self, version: &str) -> Command {
        let mut command = Command::new(format!("{}/release-args.sh", self.example));
        command.args([version, "amd64", self.server.url("").trim_end_matches('/')]);
        command
    }

    fn sealrs(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SEALRS);
        command
            .args(["--root", &self.scratch.path("root"), "--quiet"])
            .args(arguments);
        command
    }

    fn build(&self, flags: &str) -> Command {
        let mut command = self.sealrs(&["build", "--no-cache", "--platform", "linux/amd64", "-t", "base:test"]);
        command
            .args(flags.split_whitespace())
            .arg(".")
            .current_dir(&self.example);
        command
    }
}

#[test]
fn k3s_and_k0s_from_the_files_of_a_release() {
    needs!("curl", "sha256sum");
    let k3s = [
        ("k3s", "the program"),
        ("k3s-airgap-images-amd64.tar.zst", "images"),
        ("k3s-images.txt", "docker.io/rancher/mirrored-pause:3.6\n"),
    ];
    let k0s = [
        ("k0s-v1.36.3+k0s.2-amd64", "the program"),
        ("k0s-airgap-bundle-v1.36.3+k0s.2-linux-amd64.tar", "images"),
        ("airgap-images-linux-amd64.txt", "quay.io/k0sproject/pause:3.10.2-0\n"),
    ];
    for (name, version, files, sums, mode) in [
        ("k3s", "v1.36.3+k3s1", k3s, "sha256sum-amd64.txt", "--text"),
        ("k0s", "v1.36.3+k0s.2", k0s, "sha256sums.txt", "--binary"),
    ] {
        let release = Release::of(name, &files, sums, mode);
        let flags = succeed(&mut release.flags(version));
        succeed(&mut release.build(&flags));
        let image: Value = serde_json::from_str(&succeed(&mut release.sealrs(&["inspect", "base:test"]))).unwrap();
        let labels = &image["imageExtension"]["labels"];
        assert_eq!(labels["cluster.alpha.sealer.io/cluster-runtime-type"], name, "{image}");
        assert_eq!(
            labels["cluster.alpha.sealer.io/cluster-runtime-version"], version,
            "{image}"
        );

        // A file that is not the one whose digest was published.
        let program = files[0].0;
        release.server.replace(&format!("/{program}"), b"another program");
        assert_has(&fail(&mut release.build(&flags), 4), &["sha256:", program]);
        release.server.replace(&format!("/{sums}"), b"");
        assert_has(&fail(&mut release.flags(version), 1), &["does not list"]);
    }
}
