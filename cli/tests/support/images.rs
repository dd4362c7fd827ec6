//! Container images: made, pushed, and pulled again.

use std::fs;
use std::path::Path;
use std::process::Command;

use sealrs_image::digest::Digest;

use super::insides::{Kind, Rootfs};
use super::registry::Registry;
use super::{Running, Scratch, image, run, wait_until};

/// Pushes a small image with these layers as `name` (`path:tag`); gives the digest of its manifest or index.
pub fn push(scratch: &Scratch, registry: &Registry, name: &str, platforms: &[&str], layers: &[Vec<u8>]) -> Digest {
    let layout = scratch.path(&format!("layouts/{}", name.replace(['/', ':'], "-")));
    image::layout(Path::new(&layout), "v1", platforms, layers);
    registry.push(&format!("{layout}:v1"), name);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(Path::new(&layout).join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap()
}

/// Has skopeo pull an image whole, every blob verified; gives the digest of what the registry answers to the name.
#[track_caller]
pub fn pull(host: &str, name: &str) -> Digest {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("docker://{host}/{name}");
    let target = format!("oci:{}/pulled:v1", folder.path().display());
    let options = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"];
    run("skopeo", &[&options[..], &[&source, &target]].concat());
    Digest::of(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &source]))
}

/// Whether a name is answered at all.
pub fn answers(host: &str, name: &str) -> bool {
    let output = Command::new("skopeo")
        .args([
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{host}/{name}"),
        ])
        .output()
        .unwrap();
    output.status.success()
}

/// Writes the registry's part of a rootfs into a folder, as unpacking it would.
pub fn write_registry(rootfs: &Rootfs, folder: &Path) {
    for (path, entry) in &rootfs.0 {
        let Some(below) = path.strip_prefix("registry/") else {
            continue;
        };
        let target = folder.join(below);
        match &entry.kind {
            Kind::Folder => fs::create_dir_all(&target).unwrap(),
            Kind::File(content) => {
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::write(&target, content).unwrap();
            }
            other => panic!("{path} is {other:?}"),
        }
    }
}

/// `sealrs registry serve`, on a port of the system's choice.
#[derive(Debug)]
pub struct Served {
    pub host: String,
    pub process: Running,
}

/// Serves a folder.
pub fn serve(scratch: &Scratch, folder: &Path, more: &[&str]) -> Served {
    let log = fs::File::create(scratch.path("serve.log")).unwrap();
    let folder = folder.display().to_string();
    let arguments = ["registry", "serve", "--dir", &folder, "--listen", "127.0.0.1:0"];
    let mut command = scratch.sealrs(&[&arguments[..], more].concat());
    let process = Running::start(command.stderr(log));
    let said = || super::text(&scratch.read("serve.log"));
    wait_until("the registry serves", || said().contains("serving "));
    let said = said();
    let (_, host) = said.lines().find_map(|line| line.rsplit_once("://")).unwrap();
    Served {
        host: host.to_owned(),
        process,
    }
}
