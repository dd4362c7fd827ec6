//! A real containerd, sent here by the settings for other hosts, gets each image under its original name; and it pushes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Image, Ours, fail, have, succeed, wait_for, write, write_directory};

struct Containerd {
    child: Child,
    home: tempfile::TempDir,
}

impl Containerd {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        // Nothing but the place where blobs are fetched to.
        fs::write(
            at("config.toml"),
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )
        .unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(at("config.toml"))
            .arg("--root")
            .arg(at("root"))
            .arg("--state")
            .arg(at("state"))
            .arg("--address")
            .arg(at("socket"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let containerd = Self { child, home };
        wait_for("containerd", || {
            containerd
                .ctr(&["version"])
                .output()
                .is_ok_and(|output| output.status.success())
        });
        containerd
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.home.path().join("socket"))
            .args(arguments);
        command
    }

    fn fetch(&self, hosts: &Path, name: &str) -> Command {
        self.ctr(&["content", "fetch", "--hosts-dir", &hosts.display().to_string(), name])
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_name_gets_its_own_image() {
    if !have(&Image::TOOLS) || !have(&["containerd", "ctr"]) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this test needs root for containerd");
        return;
    }
    let (dir, hosts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two, three) = (Image::new("one"), Image::new("two"), Image::new("three"));
    let images = [
        one.stored_as("docker.io/library/app:1"),
        two.stored_as("quay.io/library/app:1"),
        three.stored_as("registry.example.com:5000/library/solo:1"),
        three.stored_as(&format!("ghcr.io/pinned:1@{}", three.manifest)),
    ];
    let blobs = [&one, &two, &three].into_iter().flat_map(|image| image.blobs.values());
    write_directory(dir.path(), &images, blobs.map(Vec::as_slice));
    let ours = Ours::plain(dir.path());
    for host in ["docker.io", "quay.io", "ghcr.io", "registry.example.com:5000"] {
        let mirror = format!("http://{}", ours.address);
        let settings =
            format!("server = \"{mirror}\"\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        write(&hosts.path().join(host).join("hosts.toml"), settings.as_bytes());
    }
    let containerd = Containerd::start();
    for (name, image) in [
        ("docker.io/library/app:1".to_owned(), &one),
        ("quay.io/library/app:1".to_owned(), &two),
        (format!("quay.io/library/app@{}", two.manifest), &two),
        ("registry.example.com:5000/library/solo:1".to_owned(), &three),
        ("ghcr.io/pinned:1".to_owned(), &three),
        (format!("ghcr.io/pinned:1@{}", three.manifest), &three),
    ] {
        succeed(&mut containerd.fetch(hosts.path(), &name));
        let listed = succeed(&mut containerd.ctr(&["images", "list", &format!("name=={name}")]));
        assert!(listed.contains(&image.manifest.to_string()), "{name}: {listed}");
    }
    for name in [
        "ghcr.io/library/app:1",
        "quay.io/library/solo:1",
        "docker.io/library/app:2",
    ] {
        let message = fail(&mut containerd.fetch(hosts.path(), name));
        assert!(message.contains("not found"), "{name}: {message}");
    }
    assert_eq!(ours.heard.all(), "");
}

#[test]
fn containerd_pushes_what_it_has() {
    if !have(&Image::TOOLS) || !have(&["containerd", "ctr"]) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this test needs root for containerd");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new("one");
    let ours = Ours::open(dir.path());
    let containerd = Containerd::start();
    let archive = image.archive.display().to_string();
    succeed(&mut containerd.ctr(&["images", "import", "--no-unpack", &archive]));
    let listed = succeed(&mut containerd.ctr(&["images", "list", "--quiet"]));
    let name = listed.lines().next().unwrap();
    let target = format!("{}/team/app:1", ours.address);
    for _ in 0..2 {
        succeed(&mut containerd.ctr(&["images", "push", "--plain-http", &target, name]));
    }
    let manifest = ours.get("/v2/team/app/manifests/1");
    assert_eq!(manifest.header("docker-content-digest"), image.manifest.to_string());
    for layer in &image.layers {
        let body = ours.get(&format!("/v2/team/app/blobs/{layer}")).body;
        assert!(body == image.blobs[layer], "{layer}");
    }
    assert_eq!(ours.heard.all(), "");
}
