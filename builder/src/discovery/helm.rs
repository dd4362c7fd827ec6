//! helm: found, and run within bounds, with nothing of the user's settings and without a cluster.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};

/// What no chart that ends takes.
const MAX_TIME: Duration = Duration::from_secs(120);
/// The largest known charts give 8 MiB.
const MAX_OUTPUT: u64 = 64 << 20;
const MAX_SAID: u64 = 1 << 20;

/// helm on PATH.
pub(super) fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("helm"))
        .find(|program| program.is_file())
}

/// What a chart is rendered with.
#[derive(Debug)]
pub(super) struct Rendering<'r> {
    pub(super) helm: &'r Path,
    pub(super) chart: &'r Path,
    /// Later ones win.
    pub(super) values: &'r [PathBuf],
    pub(super) kube_version: Option<&'r str>,
    pub(super) api_versions: &'r [String],
    /// helm's own files.
    pub(super) home: &'r Path,
}

impl Rendering<'_> {
    /// All objects of the chart, definitions included.
    pub(super) fn run(&self) -> Result<String> {
        let mut command = Command::new(self.helm);
        command
            .args(["template", "release"])
            .arg(self.chart)
            .args(["--include-crds", "--namespace", "default"]);
        for values in self.values {
            command.arg("--values").arg(values);
        }
        if let Some(version) = self.kube_version {
            command.args(["--kube-version", version]);
        }
        for version in self.api_versions {
            command.args(["--api-versions", version]);
        }
        // No settings, plugins and clusters of whoever builds: they would change what is found.
        command.env_clear();
        for variable in [
            "HOME",
            "HELM_CACHE_HOME",
            "HELM_CONFIG_HOME",
            "HELM_DATA_HOME",
            "TMPDIR",
        ] {
            command.env(variable, self.home);
        }
        command.env("KUBECONFIG", self.home.join("none"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let place = || format!("cannot run {}", self.helm.display());
        let mut child = command.spawn().or_io(place)?;
        let output = reading(child.stdout.take(), MAX_OUTPUT);
        let said = reading(child.stderr.take(), MAX_SAID);
        let is_success = wait(&mut child)?;
        let (output, said) = (joined(output), joined(said));
        if output.len() as u64 > MAX_OUTPUT {
            return Err(Error::new(ErrorKind::Input, "helm gives more than 64 MiB for it"));
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        if !is_success {
            return Err(Error::new(ErrorKind::Input, "helm can't render it")
                .because(Error::new(ErrorKind::Input, text(said)))
                .hint("give the values that it needs in `CHART.values.yaml` beside it, or with `--values`"));
        }
        String::from_utf8(output)
            .map_err(|error| Error::new(ErrorKind::Input, "what helm gives for it is not UTF-8").because(error))
    }
}

/// Reads a stream as far as it is wanted. What comes after it is not waited for: the writer ends.
fn reading(stream: Option<impl Read + Send + 'static>, most: u64) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What can't be read is missed by the exit code.
            let _ = stream.take(most + 1).read_to_end(&mut bytes);
        }
        bytes
    })
}

fn joined(reading: thread::JoinHandle<Vec<u8>>) -> Vec<u8> {
    reading.join().unwrap_or_default()
}

/// Waits until helm ends, and ends it when that takes too long.
fn wait(child: &mut Child) -> Result<bool> {
    let deadline = Instant::now() + MAX_TIME;
    loop {
        if let Some(status) = child.try_wait().or_io(|| "cannot wait for helm")? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            child.kill().or_io(|| "cannot end helm")?;
            child.wait().or_io(|| "cannot wait for helm")?;
            let what = format!("helm has not rendered it after {} seconds", MAX_TIME.as_secs());
            return Err(Error::new(ErrorKind::Input, what));
        }
        thread::sleep(Duration::from_millis(10));
    }
}
