//! The secrets of a cluster, on the operator's side: made up when they are first needed, one file each that only its
//! owner reads, and in no plan. Hosts get those that a step needs together with the step.
//!
//! A name says what it is: `NAME.crt` and `NAME.key` are a certificate authority of its own, `NAME.ec` is a key to sign
//! with, `pki/FILE` is a file of the private registry's certificates, and all others are 256 random bits in hexadecimal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sealrs_image::error::{IoResultExt as _, Result};

use crate::action::Action;
use crate::cluster::ClusterFiles;
use crate::{files, pki};

/// Secrets by name.
pub(crate) type Bundle = BTreeMap<String, String>;

/// The secrets of one cluster.
#[derive(Debug)]
pub(crate) struct Secrets<'f> {
    files: &'f ClusterFiles,
}

impl<'f> Secrets<'f> {
    pub(crate) fn new(files: &'f ClusterFiles) -> Self {
        Self { files }
    }

    /// Those that an action needs.
    ///
    /// # Errors
    /// Disk errors.
    pub(crate) fn of(&self, action: &Action) -> Result<Bundle> {
        let names = action.secrets();
        names
            .into_iter()
            .map(|name| Ok((name.to_owned(), self.get(name)?)))
            .collect()
    }

    fn get(&self, name: &str) -> Result<String> {
        if let Some(file) = name.strip_prefix("pki/") {
            return read(&self.files.pki().join(file));
        }
        let path = self.files.secrets().join(name);
        if !path.exists() {
            self.make(name, &path)?;
        }
        read(&path)
    }

    fn make(&self, name: &str, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(path);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .or_io(|| format!("cannot make the folder {}", folder.display()))?;
        match name.rsplit_once('.') {
            Some((stem, "crt" | "key")) => {
                let (certificate, key) = pki::new_authority(&format!("{} {stem}", self.files.cluster()))?;
                // The certificate comes last: with it, its key is there as well.
                files::write(&path.with_extension("key"), key.as_bytes(), 0o600)?;
                files::write(&path.with_extension("crt"), certificate.as_bytes(), 0o600)
            }
            Some((_, "ec")) => files::write(path, pki::new_signing_key()?.as_bytes(), 0o600),
            _ => files::write(path, random()?.as_bytes(), 0o600),
        }
    }
}

fn read(path: &PathBuf) -> Result<String> {
    fs::read_to_string(path).or_io(|| format!("cannot read {}", path.display()))
}

/// 256 random bits in hexadecimal.
fn random() -> Result<String> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .or_io(|| "cannot get random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_made_once_and_belong_together() {
        let root = tempfile::tempdir().unwrap();
        let files = ClusterFiles::new(root.path(), "c");
        let secrets = Secrets::new(&files);
        let get = |name: &str| secrets.get(name).unwrap();
        assert_eq!(get("token").len(), 64);
        assert_eq!(get("token"), get("token"));
        assert_ne!(get("token"), get("other"));
        // A key whose certificate was not written yet is made anew, with it.
        let lost = get("k3s/ca.key");
        fs::remove_file(files.secrets().join("k3s/ca.crt")).unwrap();
        assert!(get("k3s/ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
        assert_ne!(get("k3s/ca.key"), lost);
    }
}
