//! Small ClusterImages, the program that stands for `sealrs`, and looking at what is left.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::digest::Digest;
use sealrs_image::layer::{Entry, EntryKind, TarWriter};
use sealrs_image::platform::Platform;
use sealrs_image::spec::{Descriptor, media_type};
use sealrs_image::store::Store;
use serde_json::json;

/// A place for one test: a store with images, and a root that does not exist yet.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
    nobody: Option<Child>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("images")).unwrap();
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        Self {
            folder,
            store,
            nobody: is_root.then(nobody),
        }
    }

    /// A command that runs the program, behind `before`, without root rights: these tests shall leave their machine
    /// alone.
    pub(crate) fn command(&self, before: &[&str]) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(nobody) = &self.nobody {
            let target = nobody.id().to_string();
            words.extend(["nsenter", "--user", "--preserve-credentials", "--target"].map(str::to_owned));
            words.push(target);
        }
        words.extend(before.iter().map(|&word| word.to_owned()));
        words.push(program().display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The root that things are installed under.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root().join("data/c")
    }

    /// Writes an image with these files (mode 0755) into the store.
    pub(crate) fn image(&self, runtime: &str, files: &[(&str, &[u8])], extension: &serde_json::Value) -> Descriptor {
        let mut tar = TarWriter::new(Vec::new());
        for (path, content) in files {
            let entry = Entry {
                path,
                kind: EntryKind::File {
                    size: content.len() as u64,
                },
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: 0,
                xattrs: &[],
            };
            tar.append_file(&entry, &mut &content[..], &mut [0; 4096]).unwrap();
        }
        let tar = tar.finish().unwrap();
        let layer = self.store.put(media_type::LAYER, &tar).unwrap();
        let platform = Platform::host();
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {"Labels": {name::RUNTIME_TYPE: runtime}},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        let config = self
            .store
            .put(media_type::CONFIG, config.to_string().as_bytes())
            .unwrap();
        let mut annotations = BTreeMap::from([(name::EXTENSION, extension.to_string())]);
        let inside = json!([{"image": "docker.io/library/nginx:1"}]);
        annotations.insert(name::CONTAINER_IMAGES, inside.to_string());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": annotations,
        });
        self.store
            .put(media_type::MANIFEST, manifest.to_string().as_bytes())
            .unwrap()
    }

    pub(crate) fn read(&self, image: &Descriptor) -> ClusterImage {
        ClusterImage::read(&self.store, image, &Platform::host()).unwrap()
    }

    /// The arguments that install `image` without root rights on a port of its own.
    pub(crate) fn arguments(&self, image: &Descriptor, port: u16, more: &[&str]) -> Vec<String> {
        let mut arguments = vec![
            "run".to_owned(),
            self.path("images").display().to_string(),
            image.digest.to_string(),
            format!("root={}", self.root().display()),
            "cluster=c".to_owned(),
            "domain=localhost".to_owned(),
            format!("port={port}"),
        ];
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        arguments
    }

    pub(crate) fn run(&self, image: &Descriptor, port: u16, more: &[&str]) -> Output {
        self.command(&[])
            .args(self.arguments(image, port, more))
            .output()
            .unwrap()
    }

    pub(crate) fn delete(&self) -> Output {
        self.command(&[])
            .arg("delete")
            .arg(self.root())
            .arg("c")
            .output()
            .unwrap()
    }
}

/// Tests that fail leave no services behind.
impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.delete();
        if let Some(nobody) = &mut self.nobody {
            let _ = nobody.kill().and_then(|()| nobody.wait().map(drop));
        }
    }
}

/// A process that holds a user namespace in which root is nobody.
fn nobody() -> Child {
    let mut holder = Command::new("unshare")
        .args(["--user", "--map-user=65534", "--map-group=65534", "sleep", "600"])
        .spawn()
        .unwrap();
    let map = format!("/proc/{}/uid_map", holder.id());
    let mut tries = 0..500;
    while !fs::read_to_string(&map).is_ok_and(|map| map.contains("65534")) {
        assert!(
            holder.try_wait().unwrap().is_none() && tries.next().is_some(),
            "no user namespace"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    holder
}

/// The program that stands for `sealrs`.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/host");
    assert!(
        program.exists(),
        "{} is missing: cargo test -p sealrs-installer builds it",
        program.display()
    );
    program
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(crate) fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

/// Everything below a folder: paths, kinds, modes and contents. Generated keys, logs and process numbers are named
/// and not looked into.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.mode();
        if metadata.is_dir() {
            found.insert(name, format!("{mode:o}"));
            walk(root, &path, found);
            continue;
        }
        let own = ["log/", "services/", "pki/", "certs/", "secrets/"];
        let varies = own.iter().any(|part| name.contains(part))
            || ["journal", "host-manifest"].iter().any(|end| name.ends_with(end));
        let content = if varies { Vec::new() } else { fs::read(&path).unwrap() };
        found.insert(name, format!("{mode:o} {}", Digest::of(&content)));
    }
}

/// The processes whose arguments name a folder.
pub(crate) fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(command) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&folder) {
            found.push(command);
        }
    }
    found
}
