//! Changes a credential file and nothing in it that is not meant, whoever else changes it at the same time.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::file;
use crate::lock;
use crate::remote::credentials::file::{broken, read_text};
use crate::remote::credentials::{DOCKER_HUB, Login, Secret, normalise};
use crate::remote::registry_name::RegistryName;

/// Links that lead to links are followed so often.
const MAX_LINKS: usize = 16;

/// Writes a login into a file, in place of an earlier one for the same registry. Without a login, the entry only says
/// that the credentials store knows the registry, as docker's does.
pub(super) fn put(path: &Path, registry: &RegistryName, login: Option<&Login>) -> Result<()> {
    let entry = match login.map(|login| (&login.user, &login.secret)) {
        None => json!({}),
        Some((user, Secret::Password(password))) => json!({"auth": STANDARD.encode(format!("{user}:{password}"))}),
        Some((user, Secret::IdentityToken(token))) => {
            json!({"auth": STANDARD.encode(format!("{user}:")), "identitytoken": token})
        }
    };
    edit(path, |auths| {
        remove_all(auths, registry);
        auths.insert(key_of(registry), entry);
        true
    })
}

/// Takes the entries for a registry out of a file. Whether there was one with credentials in it.
pub(super) fn remove(path: &Path, registry: &RegistryName) -> Result<bool> {
    // Nothing is made where nothing was.
    if !path.exists() {
        return Ok(false);
    }
    let mut held = false;
    edit(path, |auths| {
        let removed = remove_all(auths, registry);
        held = removed
            .iter()
            .any(|entry| entry.as_object().is_some_and(|entry| !entry.is_empty()));
        !removed.is_empty()
    })?;
    Ok(held)
}

/// What docker calls a registry.
pub(super) fn key_of(registry: &RegistryName) -> String {
    match registry.to_string() {
        name if name == "docker.io" => DOCKER_HUB.to_owned(),
        name => name,
    }
}

fn remove_all(auths: &mut Map<String, Value>, registry: &RegistryName) -> Vec<Value> {
    let name = registry.to_string();
    let keys: Vec<String> = auths.keys().filter(|key| normalise(key) == name).cloned().collect();
    keys.iter().filter_map(|key| auths.remove(key)).collect()
}

/// Has `change` change `auths`; it says whether it did.
fn edit(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<()> {
    let path = &followed(path)?;
    let place = || format!("cannot write the credentials to {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .or_io(place)?;
    let _lock = FileLock::take(path)?;
    let text = read_text(path)?.unwrap_or_default();
    let mut document: Map<String, Value> = match text.trim_ascii() {
        [] => Map::new(),
        text => serde_json::from_slice(text).map_err(|error| broken(path, &error))?,
    };
    let auths = document.entry("auths").or_insert_with(|| json!({}));
    if auths.is_null() {
        *auths = json!({});
    }
    let Some(auths) = auths.as_object_mut() else {
        let what = format!(
            "the credentials in {} cannot be changed: `auths` is no object",
            path.display()
        );
        return Err(Error::new(ErrorKind::Input, what).hint("mend the file"));
    };
    if !change(auths) {
        return Ok(());
    }
    // As docker writes it.
    let mut written = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    document
        .serialize(&mut serde_json::Serializer::with_formatter(&mut written, formatter))
        .map_err(|error| Error::new(ErrorKind::Internal, place()).because(error.to_string()))?;
    written.push(b'\n');
    // Under sudo the file stays its owner's.
    let owner = path.metadata().ok().map(|old| (old.uid(), old.gid()));
    file::write_owned(path, &written, 0o600, owner)
}

/// Where a file really is: a link to it (from a folder of settings) stays a link.
fn followed(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&path) else {
            return Ok(path);
        };
        path = path.parent().unwrap_or(Path::new(".")).join(target);
    }
    let what = format!("{} is a link that leads nowhere", path.display());
    Err(Error::new(ErrorKind::Input, what))
}

/// One at a time changes a file. A file of its own, because the other is replaced; it goes when its holder is done.
struct FileLock {
    path: PathBuf,
    _held: File,
}

impl FileLock {
    fn take(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let path = path.with_file_name(format!(".{name}.lock"));
        Ok(Self {
            _held: lock::own(&path)?,
            path,
        })
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
