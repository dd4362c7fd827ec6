//! The secrets of a cluster, on the operator's side: made up when they are first needed, one file each that only its
//! owner reads, and in no plan. Hosts get those that a step needs together with the step.
//!
//! A name says what it is: `NAME.crt` and `NAME.key` are a certificate authority of its own and `NAME.hash` is the SHA-256 of
//! its public key, by which Kubernetes knows it; `NAME.ec` is a key to sign with and `NAME.pub` its public half, `NAME.rsa` and
//! `NAME.rsa-pub` are the same of another kind; `NAME.token` is a token for the bootstrap of Kubernetes, `pki/FILE` is a file of
//! the private registry's certificates, `options/POINTER` is what the user gave at that place of the options, and all others
//! are 256 random bits in hexadecimal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};

use crate::action::Action;
use crate::cluster::ClusterFiles;
use crate::options::LONGEST_LIFE;
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
        if let Some(place) = name.strip_prefix("options") {
            return self.given(place);
        }
        let path = self.files.secrets().join(name);
        if !path.exists() {
            self.make(name, &path)?;
        }
        read(&path)
    }

    /// For how many years authorities are valid.
    fn years(&self) -> Result<u16> {
        let path = self.files.options();
        let options = if path.exists() {
            self.options()?
        } else {
            serde_json::Value::Null
        };
        let years = options
            .pointer("/certificate-years")
            .and_then(serde_json::Value::as_u64);
        Ok(years
            .and_then(|years| u16::try_from(years).ok())
            .unwrap_or(LONGEST_LIFE))
    }

    fn options(&self) -> Result<serde_json::Value> {
        let path = self.files.options();
        serde_json::from_str(&read(&path)?).or_fail(ErrorKind::Integrity, || format!("{} is damaged", path.display()))
    }

    /// What stands at a place (RFC 6901) of the options that were kept.
    fn given(&self, place: &str) -> Result<String> {
        let path = self.files.options();
        let options = self.options()?;
        let text = options.pointer(place).and_then(|value| value.as_str());
        let missing = || {
            Error::new(
                ErrorKind::Integrity,
                format!("{} has no text at {place}", path.display()),
            )
        };
        text.map(str::to_owned).ok_or_else(missing)
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
                let (certificate, key) =
                    pki::new_authority(&format!("{} {stem}", self.files.cluster()), self.years()?)?;
                // The certificate comes last: with it, its key is there as well.
                files::write(&path.with_extension("key"), key.as_bytes(), 0o600)?;
                files::write(&path.with_extension("crt"), certificate.as_bytes(), 0o600)
            }
            Some((_, "token")) => files::write(path, bootstrap_token()?.as_bytes(), 0o600),
            Some((stem, "pub")) => {
                let public = pki::public_half(&self.get(&format!("{stem}.ec"))?)?;
                files::write(path, public.as_bytes(), 0o600)
            }
            Some((stem, "hash")) => {
                let hash = pki::hash_of_public_half(&self.get(&format!("{stem}.key"))?)?;
                files::write(path, hash.as_bytes(), 0o600)
            }
            Some((stem, "rsa-pub")) => {
                let public = pki::public_half_of_rsa(&self.get(&format!("{stem}.rsa"))?)?;
                files::write(path, public.as_bytes(), 0o600)
            }
            Some((_, "rsa")) => files::write(path, pki::new_rsa_key()?.as_bytes(), 0o600),
            Some((_, "ec")) => files::write(path, pki::new_signing_key()?.as_bytes(), 0o600),
            _ => files::write(path, random()?.as_bytes(), 0o600),
        }
    }
}

fn read(path: &PathBuf) -> Result<String> {
    fs::read_to_string(path).or_io(|| format!("cannot read {}", path.display()))
}

fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .or_io(|| "cannot get random numbers")?;
    Ok(bytes)
}

/// Six letters that name it, a dot, and sixteen that are secret. 32 letters of those that are allowed, so that all are as likely.
fn bootstrap_token() -> Result<String> {
    let letters = random_bytes::<22>()?.map(|byte| match byte % 32 {
        digit @ 0..6 => char::from(b'0' + digit),
        letter => char::from(b'a' + letter - 6),
    });
    let (id, secret) = letters.split_at(6);
    Ok(id.iter().chain(['.'].iter()).chain(secret).collect())
}

/// 256 random bits in hexadecimal.
fn random() -> Result<String> {
    Ok(random_bytes::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
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
        let token = get("join.token");
        let (id, secret) = token.split_once('.').unwrap();
        assert_eq!((id.len(), secret.len()), (6, 16));
        assert!(get("k0s/sa.pub").starts_with("-----BEGIN PUBLIC KEY-----"));
        assert_eq!(get("k0s/sa.pub"), pki::public_half(&get("k0s/sa.ec")).unwrap());
        fs::write(files.options(), r#"{"runtime-documents": [{"a": "given"}]}"#).unwrap();
        assert_eq!(get("options/runtime-documents/0/a"), "given");
        assert!(secrets.get("options/runtime-documents/1/a").is_err());
        // A key whose certificate was not written yet is made anew, with it.
        let lost = get("k3s/ca.key");
        fs::remove_file(files.secrets().join("k3s/ca.crt")).unwrap();
        assert!(get("k3s/ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
        assert_ne!(get("k3s/ca.key"), lost);
    }
}
