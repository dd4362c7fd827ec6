//! What the tests of this folder share: a scratch folder to run sealrs in, the insides of images, and the servers and
//! faults that the tests of the `image` crate have too.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_macros,
    unused_imports,
    clippy::print_stdout,
    reason = "each test file uses its own part of this"
)]

pub mod cluster;
#[path = "../../../image/tests/support/fault_proxy.rs"]
pub mod fault_proxy;
pub mod files;
#[path = "../../../image/tests/support/http.rs"]
pub mod http;
#[path = "../../../image/tests/support/image.rs"]
pub mod image;
pub mod images;
pub mod insides;
pub mod kills;
pub mod latency;
#[path = "../../../image/tests/support/registry.rs"]
pub mod registry;
pub mod relay;
pub mod small_disk;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Ends the test, with the reason printed, when a program that it needs is not there.
macro_rules! needs {
    ($($program:literal),+ $(,)?) => {
        $(
            if !$crate::support::is_installed($program) {
                println!("skipped: this test needs `{}`", $program);
                return;
            }
        )+
    };
}
pub(crate) use needs;

/// Ends the test, with the reason printed, when it does not run as root.
macro_rules! needs_root {
    () => {
        if !$crate::support::is_root() {
            println!("skipped: this test needs root");
            return;
        }
    };
}
pub(crate) use needs_root;

pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

pub fn is_root() -> bool {
    let own = fs::metadata("/proc/self").unwrap();
    std::os::unix::fs::MetadataExt::uid(&own) == 0
}

/// Runs a program that has to succeed; gives its output.
pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    succeed(Command::new(program).args(arguments)).into_bytes()
}

/// Runs a command that has to succeed; gives its standard output.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{said}",
        output.status,
        text(&output.stdout)
    );
    text(&output.stdout)
}

/// Runs a command that has to end with this exit code; gives its standard error.
#[track_caller]
pub fn fail(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?}: {}\n{}{said}",
        output.status,
        text(&output.stdout)
    );
    said
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that a text has all these parts.
#[track_caller]
pub fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes that no compression shortens, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder of the test's own, in which sealrs has its root and nothing of the user's settings.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        Self { folder }
    }

    /// A path in the folder, as arguments of commands need it.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A file in the folder, with its parents.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// A file that can be run.
    pub fn program(&self, name: &str, content: &str) -> String {
        let path = self.write(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.folder.path().join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.folder.path().join(name).symlink_metadata().is_ok()
    }

    /// The names in a folder, sorted.
    pub fn list(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// sealrs in the folder, with its root in `root`.
    pub fn sealrs(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_sealrs"));
        command.args(arguments);
        command
    }

    /// Any program in the folder, with the same environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("HOME", self.path("home"))
            .env("SEALRS_ROOT", self.path("root"))
            .env("LC_ALL", "C.UTF-8");
        for variable in [
            "DOCKER_CONFIG",
            "REGISTRY_AUTH_FILE",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "SOURCE_DATE_EPOCH",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "http_proxy",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// sealrs has to succeed; gives its standard output.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        succeed(&mut self.sealrs(arguments))
    }

    /// sealrs has to succeed; gives its result as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        json(&mut self.sealrs(arguments))
    }

    /// sealrs has to end with this exit code; gives its standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        fail(&mut self.sealrs(arguments), code)
    }

    /// Writes `Kubefile` and builds `NAME` from the context `context`, which has to succeed.
    #[track_caller]
    pub fn build(&self, name: &str, kubefile: &str, more: &[&str]) -> Built {
        Built(json(&mut self.building(name, kubefile, more)))
    }

    /// As [`Scratch::build`], but has to fail; gives the standard error.
    #[track_caller]
    pub fn build_fails(&self, code: i32, kubefile: &str, more: &[&str]) -> String {
        fail(&mut self.building("fails:1", kubefile, more), code)
    }

    /// The command of a build.
    pub fn building(&self, name: &str, kubefile: &str, more: &[&str]) -> Command {
        self.write("Kubefile", kubefile);
        fs::create_dir_all(self.path("context")).unwrap();
        let mut command = self.sealrs(&["build", "-f", "Kubefile", "-t", name]);
        command.args(more).arg("context");
        command
    }

    /// The layers of an image in the store, by its name or digest.
    #[track_caller]
    pub fn layers(&self, image: &str) -> Vec<insides::Layer> {
        let inspected = self.json(&["inspect", image]);
        insides::layers(Path::new(&self.path("root/store")), &inspected["manifestv1"])
    }

    /// What unpacking an image of the store gives.
    #[track_caller]
    pub fn rootfs(&self, image: &str) -> insides::Rootfs {
        insides::merged(&self.layers(image))
    }

    /// Half-written blobs in the store.
    pub fn partial(&self) -> Vec<String> {
        self.list("root/store/partial")
    }
}

/// Runs sealrs with JSON as its output.
#[track_caller]
pub fn json(command: &mut Command) -> Value {
    let out = succeed(command.args(["--quiet", "--output", "json"]));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// What `sealrs build` answered.
#[derive(Debug)]
pub struct Built(pub Value);

impl Built {
    pub fn digest(&self) -> &str {
        self.0["digest"].as_str().unwrap()
    }

    pub fn packed(&self) -> u64 {
        self.0["layersPacked"].as_u64().unwrap()
    }

    pub fn cached(&self) -> u64 {
        self.0["layersCached"].as_u64().unwrap()
    }
}

/// An exit status and what was said, for commands that may end either way.
pub fn outcome(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), text(&stdout) + &text(&stderr))
}

/// The keys of a document, each with the kind of its value.
pub fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), shape(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.first().map(shape).into_iter().collect(),
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
    }
}
