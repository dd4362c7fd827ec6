//! Installing on this machine without leaving its mark on it: without root rights, under a scratch root.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sealrs_image::digest::Digest;
use serde_json::json;
use tempfile::TempDir;

use super::{Scratch, is_root, outcome, succeed, wait_until};

/// A scratch folder with a cluster of runtime `script` in it, whose registry is at `localhost:PORT`.
#[derive(Debug)]
pub struct Cluster {
    pub scratch: Scratch,
    pub port: u16,
    program: TempDir,
    nobody: Option<Child>,
}

impl Cluster {
    pub fn new() -> Self {
        // The program stays the same though it be built anew meanwhile.
        let program = tempfile::tempdir().unwrap();
        let own = program.path().join("sealrs");
        if fs::hard_link(env!("CARGO_BIN_EXE_sealrs"), &own).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_sealrs"), &own).unwrap();
        }
        Self {
            scratch: Scratch::new(),
            port: free_port(),
            program,
            nobody: is_root().then(nobody),
        }
    }

    /// sealrs without root rights, behind `before`.
    pub fn command(&self, before: &[&str], arguments: &[&str]) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(nobody) = &self.nobody {
            let enter = ["nsenter", "--user", "--preserve-credentials", "--target"];
            words.extend(enter.map(str::to_owned));
            words.push(nobody.id().to_string());
        }
        words.extend(before.iter().map(|&word| word.to_owned()));
        words.push(self.program.path().join("sealrs").display().to_string());
        let mut command = self.scratch.command(&words[0]);
        command.args(&words[1..]).args(arguments);
        command
    }

    /// The arguments that install `image` here.
    pub fn arguments<'a>(&self, image: &'a str, more: &[&'a str]) -> Vec<String> {
        let port = self.port.to_string();
        let own = ["run", image, "--registry-domain", "localhost", "--registry-port", &port];
        own.iter().chain(more).map(|&word| word.to_owned()).collect()
    }

    /// `sealrs run`.
    pub fn run(&self, image: &str, more: &[&str]) -> Command {
        let arguments = self.arguments(image, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.command(&[], &arguments)
    }

    /// `sealrs delete --all --force`.
    pub fn delete(&self) -> Command {
        self.command(&[], &["delete", "--all", "--force"])
    }

    /// Builds an image of runtime `script` from these files below `context/` and saves it as `NAME.tar`.
    #[track_caller]
    pub fn image(&self, name: &str, files: &[(&str, &str)], instructions: &str) {
        let _ = fs::remove_dir_all(self.scratch.path("context"));
        for (path, content) in files {
            self.scratch.program(&format!("context/{path}"), content);
        }
        let kubefile = format!(
            "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY . .\n{instructions}\n"
        );
        self.scratch.build(&format!("{name}:1"), &kubefile, &[]);
        self.scratch
            .ok(&["save", &format!("{name}:1"), "-o", &format!("{name}.tar"), "--force"]);
    }

    /// The files of the cluster.
    pub fn data(&self, name: &str) -> String {
        format!("root/data/my-cluster/{name}")
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        super::text(&self.scratch.read(&self.data(name)))
    }

    /// Asserts that nothing is left of a cluster, nor of an attempt at one.
    #[track_caller]
    pub fn assert_gone(&self, why: &str) {
        assert!(
            !self.scratch.exists("root/data"),
            "{why}: {:?}",
            below(&self.scratch.path("root/data"))
        );
        assert_eq!(self.processes(), Vec::<String>::new(), "{why}");
        assert!(
            TcpListener::bind(("127.0.0.1", self.port)).is_ok(),
            "{why}: the port is taken"
        );
    }

    /// The processes whose arguments name this root.
    pub fn processes(&self) -> Vec<String> {
        let root = self.scratch.path("root");
        let arguments = |id: &Path| fs::read(id.join("cmdline")).unwrap_or_default();
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|entry| super::text(&arguments(&entry.path())).replace('\0', " "))
            .filter(|command| command.contains(&root))
            .collect()
    }

    /// Ends the processes of the cluster, as a reboot would.
    pub fn kill_all(&self) {
        let root = self.scratch.path("root");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if name.parse::<u32>().is_ok() && super::text(&command).contains(&root) {
                let _ = outcome(self.scratch.command("kill").args(["-9", &name]));
            }
        }
        wait_until("all processes have ended", || self.processes().is_empty());
    }

    /// What a finished installation looks like: every path with its mode, and its content where no two installations
    /// differ in it.
    pub fn state(&self) -> BTreeMap<String, String> {
        let folder = self.scratch.path("root/data/my-cluster");
        let mut state = below(&folder);
        for (path, entry) in &mut state {
            let own = ["log/", "services/", "pki/", "certs/", "secrets/"]
                .iter()
                .any(|part| path.contains(part));
            let names_root = ["journal", "host-manifest", "plan.json", "environment.json"].contains(&path.as_str());
            if own || names_root {
                *entry = entry.split(' ').next().unwrap().to_owned();
            }
        }
        state
    }
}

/// Tests that fail leave no services behind.
impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = outcome(&mut self.delete());
        if let Some(nobody) = &mut self.nobody {
            let _ = nobody.kill().and_then(|()| nobody.wait().map(drop));
        }
    }
}

/// A process that holds a user namespace in which root is nobody.
fn nobody() -> Child {
    let mut holder = Command::new("unshare")
        .args(["--user", "--map-user=65534", "--map-group=65534", "sleep", "900"])
        .spawn()
        .unwrap();
    let map = format!("/proc/{}/uid_map", holder.id());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fs::read_to_string(&map).is_ok_and(|map| map.contains("65534")) {
        let runs = holder.try_wait().unwrap().is_none();
        assert!(runs && Instant::now() < deadline, "no user namespace");
        std::thread::sleep(Duration::from_millis(2));
    }
    holder
}

/// A port that nobody listens on, and that the system gives to nobody who asks for any.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Tests in other processes begin elsewhere.
    let own = std::process::id().wrapping_mul(7);
    let mut ports = std::iter::repeat_with(|| own.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)))
        .map(|number| 20_000 + u16::try_from(number % 10_000).unwrap());
    ports
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .unwrap()
}

/// Everything below a folder: mode, and a link's target or a file's digest.
pub fn below(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(Path::new(folder), Path::new(folder), &mut found);
    found
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = format!("{:o}", metadata.mode());
        if metadata.is_dir() {
            found.insert(name, mode);
            walk(root, &path, found);
        } else if metadata.is_symlink() {
            found.insert(name, format!("{mode} {}", fs::read_link(&path).unwrap().display()));
        } else {
            found.insert(name, format!("{mode} {}", Digest::of(&fs::read(&path).unwrap())));
        }
    }
}

/// Writes an archive of a ClusterImage with one layer as it is, however wrong; gives the layer's digest.
pub fn write_archive(scratch: &Scratch, file: &str, layer: &[u8], media_type: &str) -> Digest {
    let layout = scratch.path(&format!("{file}.layout"));
    fs::create_dir_all(format!("{layout}/blobs/sha256")).unwrap();
    let blob = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        fs::write(format!("{layout}/blobs/sha256/{}", digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let layer_blob = blob(layer, media_type);
    let platform = sealrs_image::platform::Platform::host();
    let config = json!({
        "os": platform.os, "architecture": platform.architecture,
        "config": {"Labels": {"cluster.alpha.sealer.io/cluster-runtime-type": "script"}},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer)]},
    });
    let config = blob(
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let extension = json!({"schemaVersion": "v1alpha1", "type": "kube-installer"}).to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer_blob],
        "annotations": {"sealer.image.extension": extension},
    });
    let manifest = blob(manifest.to_string().as_bytes(), media_type);
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(format!("{layout}/index.json"), index.to_string()).unwrap();
    fs::write(format!("{layout}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    succeed(scratch.command("tar").args(["-cf", file, "-C", &layout, "."]));
    Digest::of(layer)
}
