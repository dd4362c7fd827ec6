//! The registry client against Debian's docker-registry, filled by skopeo, and against servers that misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may panic, and says why it is skipped"
)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod faults;
mod login;
mod moving;
mod proxy;
mod pull;
mod secrecy;
mod tags;
mod tls;
mod tokens;
mod uploads;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use sealrs_image::digest::VerifyingReader;
use sealrs_image::error::{Error, IoResultExt as _, Result};
use sealrs_image::reference::Reference;
use sealrs_image::remote::{Client, Credentials, Options};
use sealrs_image::spec::{self, Descriptor, Manifest};

use support::registry::{Registry, Setup};
use support::{image, noise};

const TOOLS: [&str; 2] = ["docker-registry", "skopeo"];

fn quick() -> Options {
    Options {
        first_pause: Duration::from_millis(5),
        ..Options::default()
    }
}

fn client() -> Client {
    Client::new(quick()).unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A registry with `library/app:1`: one platform, a large layer and a small one.
fn filled(folder: &Path, large: usize) -> Registry {
    let registry = Registry::start(&Setup::default());
    fill(&registry, folder, large);
    registry
}

fn fill(registry: &Registry, folder: &Path, large: usize) {
    let layout = folder.join("layout");
    image::layout(&layout, "app", &["linux/amd64"], &[noise(1, large), b"small".to_vec()]);
    registry.push(&format!("{}:app", layout.display()), "library/app:1");
}

fn manifest(client: &Client, repository: &Reference) -> Result<Manifest> {
    let document = client.manifest(repository, &repository.selector())?;
    spec::parse(&document.bytes, "manifest")
}

/// Reads a blob through and verifies it.
fn read(client: &Client, repository: &Reference, blob: &Descriptor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    VerifyingReader::new(client.blob(repository, blob, 0)?, blob.digest, blob.size)
        .read_to_end(&mut bytes)
        .or_io(|| "cannot pull")?;
    Ok(bytes)
}

fn whole(error: &Error) -> String {
    format!("{error:?}")
}

fn log_in(folder: &Path, host: &str, entry: &serde_json::Value) -> Client {
    let file = folder.join("config.json");
    fs::write(&file, serde_json::json!({"auths": {host: entry}}).to_string()).unwrap();
    let credentials = Credentials::from_files(vec![file]).unwrap();
    Client::new(Options { credentials, ..quick() }).unwrap()
}
