//! Certificates for one registry: the folders `certs.d/HOST:PORT/` of docker, which podman and skopeo read too.
//!
//! `*.crt` are authorities to believe for that host, `NAME.cert` and `NAME.key` are who we are to it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};

/// The folders `certs.d` of the user who runs this and of this host, the most important first: podman's
/// `~/.config/containers/certs.d` and `/etc/containers/certs.d`, then docker's `/etc/docker/certs.d`.
#[must_use]
pub fn certificate_folders() -> Vec<PathBuf> {
    default_folders(|name| std::env::var_os(name))
}

fn default_folders(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    let own = own.map(|folder| folder.join("containers/certs.d"));
    let shared = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    own.into_iter().chain(shared).collect()
}

/// What a folder holds for its host.
#[derive(Debug, Default)]
pub(super) struct HostCertificates {
    /// Authorities to believe beside the usual ones.
    pub(super) authorities: Vec<Authority>,
    /// Who we are.
    pub(super) identity: Option<Identity>,
}

/// A certificate to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) certificate: CertificateDer<'static>,
    /// The file that it is from, for messages.
    pub(super) file: PathBuf,
}

/// A client certificate, those that it was issued by, and its key.
pub(super) struct Identity {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// The certificate's file, for messages.
    pub(super) file: PathBuf,
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.file.display())
    }
}

impl HostCertificates {
    /// Those of the first of `folders` that knows the URL's host, as podman has it.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when a file is no certificate or one of a pair lacks the other; [`ErrorKind::Disk`] when one
    /// can't be read.
    pub(super) fn find(folders: &[PathBuf], url: &Url) -> Result<Option<Self>> {
        let names = names_of(url);
        for folder in folders
            .iter()
            .flat_map(|folder| names.iter().map(|name| folder.join(name)))
        {
            // A `certs.d` that we may not even look into holds nothing for us.
            if folder.is_dir() {
                return Self::read(&folder).map(Some);
            }
        }
        Ok(None)
    }

    fn read(folder: &Path) -> Result<Self> {
        let place = || format!("cannot read the certificates in {}", folder.display());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).or_io(place)? {
            files.push(entry.or_io(place)?.path());
        }
        files.sort();
        let is = |file: &Path, extension: &str| file.extension().is_some_and(|found| found == extension);
        let mut found = Self::default();
        for file in &files {
            if is(file, "crt") {
                found.authorities.extend(read_authorities(file)?);
            } else if is(file, "cert") {
                if let Some(other) = &found.identity {
                    let what = format!(
                        "there are two client certificates: {} and {}",
                        other.file.display(),
                        file.display()
                    );
                    return Err(Error::new(ErrorKind::Input, what).hint("keep the one that the registry wants"));
                }
                found.identity = Some(Identity::read(
                    file,
                    &partner(&files, file, "key", "an authority's certificate ends in `.crt`")?,
                )?);
            } else if is(file, "key") {
                partner(&files, file, "cert", "a client's certificate ends in `.cert`")?;
            }
        }
        Ok(found)
    }
}

impl Identity {
    fn read(file: &Path, key: &Path) -> Result<Self> {
        let certificates = read_certificates(file)?;
        let place = || format!("cannot read the key {}", key.display());
        let pem = std::fs::read(key).or_io(place)?;
        // What the parser says may quote the key.
        let parsed = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            Error::new(ErrorKind::Input, format!("there is no usable key in {}", key.display())).hint(
                "it has to hold a key in PEM form that needs no password: `-----BEGIN PRIVATE KEY-----` and so on",
            )
        })?;
        Ok(Self {
            certificates,
            key: parsed,
            file: file.to_owned(),
        })
    }
}

/// The certificates of a PEM file, to be believed.
///
/// # Errors
/// When it can't be read or holds none.
pub(super) fn read_authorities(file: &Path) -> Result<Vec<Authority>> {
    let authority = |certificate| Authority {
        certificate,
        file: file.to_owned(),
    };
    Ok(read_certificates(file)?.into_iter().map(authority).collect())
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let place = || format!("cannot read the certificate file {}", file.display());
    let pem = std::fs::read(file).or_io(place)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .or_fail(ErrorKind::Input, place)?;
    if certificates.is_empty() {
        return Err(Error::new(
            ErrorKind::Input,
            format!("there is no certificate in {}", file.display()),
        )
        .hint("it has to hold certificates in PEM form: `-----BEGIN CERTIFICATE-----` and so on"));
    }
    Ok(certificates)
}

/// The other file of a pair.
fn partner(files: &[PathBuf], file: &Path, extension: &str, hint: &str) -> Result<PathBuf> {
    let other = file.with_extension(extension);
    if files.contains(&other) {
        return Ok(other);
    }
    let what = format!("{} is there without {}", file.display(), other.display());
    Err(Error::new(ErrorKind::Input, what).hint(format!("put it there, or take both away ({hint})")))
}

/// What a URL's host may be called there: with its port, and without when that is the usual one.
fn names_of(url: &Url) -> Vec<String> {
    let host = url.host_str().unwrap_or_default();
    let mut names = Vec::new();
    if let Some(port) = url.port_or_known_default() {
        names.push(format!("{host}:{port}"));
    }
    if url.port().is_none() {
        names.push(host.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_where_podman_and_docker_do() {
        let folders = |variables: &'static [(&str, &str)]| {
            default_folders(|name| {
                let pair = variables.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| OsString::from(value))
            })
        };
        let shared = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
        for (variables, own) in [
            ([("HOME", "/h")].as_slice(), Some("/h/.config/containers/certs.d")),
            (
                &[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")],
                Some("/c/containers/certs.d"),
            ),
            (&[("HOME", "")], None),
        ] {
            let expected: Vec<PathBuf> = own.into_iter().chain(shared).map(PathBuf::from).collect();
            assert_eq!(folders(variables), expected);
        }
    }

    #[test]
    fn finds_the_folder_of_a_host() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("first"), root.path().join("second"));
        let folders = [first.clone(), second.clone()];
        for folder in [
            first.join("a.com:5000"),
            second.join("a.com:5000"),
            second.join("b.com"),
            second.join("c.com:443"),
        ] {
            std::fs::create_dir_all(folder).unwrap();
        }
        // Told apart by what is broken in it.
        std::fs::write(second.join("a.com:5000/x.key"), "").unwrap();
        for (url, known) in [
            ("https://a.com:5000/v2/", true),
            ("https://a.com/v2/", false),
            ("https://b.com/v2/", true),
            ("https://b.com:5000/v2/", false),
            ("https://c.com/v2/", true),
        ] {
            let found = HostCertificates::find(&folders, &url.parse().unwrap()).unwrap();
            assert_eq!(found.is_some(), known, "{url}");
        }
        let error = HostCertificates::find(&folders[1..], &"https://a.com:5000/".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("x.cert"), "{error:?}");
    }

    #[test]
    fn half_a_pair_and_broken_files_are_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a.com");
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (files, words) in [
            (&[("client.cert", certificate)][..], "client.key"),
            (&[("client.key", "")], "client.cert"),
            (&[("ca.crt", "hello")], "ca.crt"),
            (&[("a.cert", certificate), ("a.key", "hunter2")], "a.key"),
        ] {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, content) in files {
                std::fs::write(folder.join(name), content).unwrap();
            }
            let error =
                HostCertificates::find(&[root.path().to_owned()], &"https://a.com/".parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input, "{error:?}");
            assert!(error.to_string().contains(words), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
