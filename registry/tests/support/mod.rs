//! What the tests of this folder share: images made from nothing, both registries, and their clients.

#![allow(dead_code, missing_docs, unreachable_pub)] // Each test file uses its own part of this.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sealrs_image::digest::{Digest, Hasher};
use sealrs_image::error::Result;
use sealrs_image::progress::{Event, Progress};
use sealrs_registry::layout;
use sealrs_registry::links::{StoredImage, link_files};
use sealrs_registry::server::{PushPolicy, ServeOptions, serve};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Whether the tools are there. If not, the test says so and has nothing to do.
pub fn have(tools: &[&str]) -> bool {
    let is_there = |tool: &&&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
    };
    match tools.iter().find(|tool| !is_there(tool)) {
        Some(missing) => {
            println!("skipped: this test needs `{missing}`");
            false
        }
        None => true,
    }
}

/// Runs a command that has to succeed and gives its standard output.
pub fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// Runs a command that has to fail and gives its standard error.
pub fn fail(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// skopeo, with nobody's settings and credentials.
pub fn skopeo(home: &Path) -> Command {
    let mut command = Command::new("skopeo");
    command
        .arg("--insecure-policy")
        .env("HOME", home)
        .env_remove("REGISTRY_AUTH_FILE");
    command
}

/// Copies an image with skopeo over plain HTTP.
pub fn copy(home: &Path, from: &str, to: &str) -> Command {
    let mut command = skopeo(home);
    command.args([
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ]);
    command
}

/// A tiny image that tools understand.
pub struct Image {
    pub archive: PathBuf,
    pub manifest: Digest,
    pub layers: Vec<Digest>,
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    folder: TempDir,
}

impl Image {
    /// The tools that making one needs.
    pub const TOOLS: [&str; 3] = ["umoci", "skopeo", "gcc"];

    /// An image that differs from those with another `content`.
    pub fn new(content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, archive) = (folder.path().join("file"), folder.path().join("image.tar"));
        fs::write(&file, content).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/images/make-image.sh");
        succeed(
            Command::new("bash")
                .args([script, "pause", "docker.io/library/app:1"])
                .args([&archive, &file])
                .env("HOME", folder.path()),
        );
        let layout = folder.path().join("layout");
        fs::create_dir(&layout).unwrap();
        succeed(Command::new("tar").arg("xf").arg(&archive).arg("-C").arg(&layout));
        let blobs: BTreeMap<Digest, Vec<u8>> = fs::read_dir(layout.join("blobs/sha256"))
            .unwrap()
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .map(|bytes| (Digest::of(&bytes), bytes))
            .collect();
        let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let manifest: Digest = index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
        let layers = blobs.keys().copied().filter(|digest| *digest != manifest).collect();
        Self {
            archive,
            manifest,
            layers,
            blobs,
            folder,
        }
    }

    pub fn source(&self) -> String {
        format!("oci-archive:{}", self.archive.display())
    }

    /// An index of this image's manifest and of another one that nobody has.
    pub fn index(&self) -> Vec<u8> {
        let size = self.blobs[&self.manifest].len();
        let member = |digest: &Digest, size: usize, architecture: &str| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
                "platform": {"os": "linux", "architecture": architecture},
            })
        };
        let members = [
            member(&self.manifest, size, "amd64"),
            member(&Digest::of(b"elsewhere"), 9, "s390x"),
        ];
        let media_type = "application/vnd.oci.image.index.v1+json";
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": members})
            .to_string()
            .into_bytes()
    }

    pub fn stored_as(&self, name: &str) -> StoredImage {
        StoredImage {
            reference: name.parse().unwrap(),
            root: self.manifest,
            manifests: vec![self.manifest],
            layers: self.layers.clone(),
            referrers: Vec::new(),
        }
    }
}

/// Writes a registry directory: the links of `images`, and blobs.
pub fn write_directory<'a>(dir: &Path, images: &[StoredImage], blobs: impl IntoIterator<Item = &'a [u8]>) {
    for (path, content) in link_files(images).unwrap() {
        write(&dir.join(path), content.as_bytes());
    }
    for bytes in blobs {
        write(&dir.join(layout::blob_data(Digest::of(bytes))), bytes);
    }
}

pub fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A registry directory with one image of two tiny blobs, `docker.io/library/app:1`, that no tool would run.
pub struct Sample {
    pub dir: TempDir,
    pub manifest: Digest,
    pub layer: Digest,
}

impl Sample {
    pub const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    pub const LAYER: &[u8] = b"0123456789";

    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (manifest, layer) = (Digest::of(Self::MANIFEST), Digest::of(Self::LAYER));
        let image = StoredImage {
            reference: "app:1".parse().unwrap(),
            root: manifest,
            manifests: Vec::new(),
            layers: vec![layer],
            referrers: Vec::new(),
        };
        write_directory(dir.path(), &[image], [Self::MANIFEST, Self::LAYER]);
        Self { dir, manifest, layer }
    }

    pub fn blob(&self) -> String {
        format!("/v2/library/app/blobs/{}", self.layer)
    }

    /// Makes `size` zeros, which take no room on disk, the blob of the image.
    pub fn with_zeros(mut self, size: u64) -> Self {
        let mut hasher = Hasher::new();
        let zeros = vec![0; 1 << 20];
        for _ in 0..size >> 20 {
            hasher.update(&zeros);
        }
        self.layer = hasher.finish();
        let name = "library/app".parse().unwrap();
        let link = self.dir.path().join(layout::layer_link(&name, self.layer));
        write(&link, self.layer.to_string().as_bytes());
        write(&self.data(), b"");
        File::options()
            .write(true)
            .open(self.data())
            .unwrap()
            .set_len(size)
            .unwrap();
        self
    }

    /// The file of the blob.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join(layout::blob_data(self.layer))
    }
}

/// Remembers what it is told.
#[derive(Default)]
pub struct Heard(Mutex<Vec<String>>);

impl Heard {
    pub fn all(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Progress for Heard {
    fn event(&self, event: Event<'_>) {
        if let Event::Message(text) | Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

/// Plain HTTP on a port of the system's choice.
pub fn plainly(dir: &Path) -> ServeOptions {
    ServeOptions {
        dir: dir.to_owned(),
        listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        tls: None,
        htpasswd: None,
        push: PushPolicy::Refuse,
        metrics: None,
    }
}

/// Our server, running in this process until it is dropped.
pub struct Ours {
    pub address: SocketAddr,
    pub heard: Arc<Heard>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Ours {
    pub fn start(options: ServeOptions) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, addresses) = mpsc::channel();
        let heard = Arc::new(Heard::default());
        let progress = heard.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let stop = async {
                let _ = stopped.await;
            };
            let ready = |bound: &[SocketAddr]| sender.send(bound[0]).unwrap();
            runtime.block_on(serve(&options, progress, ready, stop))
        });
        let address = addresses.recv().expect("the server has to start");
        Self {
            address,
            heard,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn plain(dir: &Path) -> Self {
        Self::start(plainly(dir))
    }

    /// One that takes pushes.
    pub fn open(dir: &Path) -> Self {
        Self::start(ServeOptions {
            push: PushPolicy::Allow,
            ..plainly(dir)
        })
    }

    /// `docker://ADDRESS/NAME`
    pub fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    pub fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[])
    }

    pub fn ask(&self, method: &str, target: &str, headers: &[&str]) -> Answer {
        ask(self.address, method, target, headers)
    }

    /// Asks the server to stop, without waiting.
    pub fn begin_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for its end.
    pub fn join(mut self) -> Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to one request.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of the error document.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

/// Sends a request as it is written, without any cleaning, and reads the whole answer.
pub fn ask(address: SocketAddr, method: &str, target: &str, headers: &[&str]) -> Answer {
    read_answer(begin(address, method, target, headers))
}

/// The same with a body.
pub fn send(address: SocketAddr, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
    let length = format!("Content-Length: {}", body.len());
    let mut stream = begin(address, method, target, &[headers, &[&length]].concat());
    let _ = stream.write_all(body);
    read_answer(stream)
}

/// Sends the head of a request.
pub fn begin(address: SocketAddr, method: &str, target: &str, headers: &[&str]) -> TcpStream {
    try_begin(address, method, target, headers).unwrap()
}

/// The same to a server that may be gone.
pub fn try_begin(address: SocketAddr, method: &str, target: &str, headers: &[&str]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        request.push_str("Host: registry\r\n");
    }
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    // The server may answer and close before it has read all of a hostile request.
    let _ = stream.write_all(format!("{request}\r\n").as_bytes());
    Ok(stream)
}

/// Reads the whole answer to a request.
pub fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("an HTTP answer");
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let (first, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    Answer {
        status: first.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: fields
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: bytes[end + 4..].to_vec(),
    }
}

/// Uploads a blob in one request.
pub fn push_blob(address: SocketAddr, repository: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let answer = send(address, "POST", &target, &[], bytes);
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    digest
}

/// Begins an upload and gives its place.
pub fn begin_upload(address: SocketAddr, repository: &str) -> String {
    let answer = send(address, "POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
    assert_eq!((answer.status, answer.header("range")), (202, "0-0"));
    answer.header("location").to_owned()
}

/// How many bytes arrived of an upload; 0 and 1 look the same.
pub fn arrived(address: SocketAddr, upload: &str) -> u64 {
    let answer = ask(address, "GET", upload, &[]);
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    let last: u64 = answer.header("range").strip_prefix("0-").unwrap().parse().unwrap();
    if last == 0 { 0 } else { last + 1 }
}

/// Bytes that no pattern holds, the same for the same seed.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect()
}

/// Our server as a process of its own, until it is dropped: killed.
pub struct Process {
    pub address: SocketAddr,
    child: Child,
}

impl Process {
    pub fn start(dir: &Path) -> Self {
        let test = std::env::current_exe().unwrap();
        let program = test.parent().unwrap().parent().unwrap().join("examples/serve");
        let mut child = Command::new(program).arg(dir).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().trim_matches(['[', ']']).parse();
        let address = address.unwrap_or_else(|_| panic!("{line}"));
        Self { address, child }
    }

    /// The most memory that it has used so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kilobytes << 10
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All files in a folder, by their paths in it.
pub fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

/// Debian's docker-registry on a directory, until it is dropped.
pub struct Debian {
    pub address: SocketAddr,
    child: Child,
    _settings: TempDir,
}

impl Debian {
    pub fn start(dir: &Path) -> Self {
        let address = free_address();
        let settings = tempfile::tempdir().unwrap();
        let file = settings.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            dir.display()
        );
        fs::write(&file, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let debian = Self {
            address,
            child,
            _settings: settings,
        };
        wait_for("docker-registry", || TcpStream::connect(address).is_ok());
        debian
    }

    pub fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

pub fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
}
