//! One credential file: `config.json` or `auth.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::reference::Reference;
use crate::remote::credentials::helper::Helper;
use crate::remote::credentials::{DOCKER_HUB, Login, Secret};
use crate::spec::null_is_empty;

/// Some tools leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A credential file that was read.
pub(super) struct AuthFile {
    path: PathBuf,
    content: Content,
}

/// Shows the path alone: the content is secret.
impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthFile({})", self.path.display())
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default, deserialize_with = "null_is_empty")]
    auths: BTreeMap<String, Entry>,
    #[serde(default, deserialize_with = "null_is_empty")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    creds_store: String,
}

#[derive(Deserialize, Default)]
struct Entry {
    /// Base64 of `user:password`.
    #[serde(default, deserialize_with = "null_is_empty")]
    auth: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    username: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    password: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    identitytoken: String,
}

impl AuthFile {
    /// The file, none if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = read_text(path)? else { return Ok(None) };
        // Docker and podman begin with an empty file.
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let content = serde_json::from_slice(&text).map_err(|error| broken(path, &error))?;
        Ok(Some(Self {
            path: path.to_owned(),
            content,
        }))
    }

    /// The helper for this very host.
    pub(super) fn helper_of(&self, host: &str) -> Option<Helper<'_>> {
        let (_, name) = self
            .content
            .cred_helpers
            .iter()
            .find(|(key, _)| normalise(key) == host)?;
        self.helper(name)
    }

    /// The helper for all hosts.
    pub(super) fn store(&self) -> Option<Helper<'_>> {
        self.helper(&self.content.creds_store)
    }

    fn helper<'a>(&'a self, name: &'a str) -> Option<Helper<'a>> {
        let file = self.path.as_path();
        (!name.is_empty()).then_some(Helper { name, file })
    }

    /// The entry of `auths` with the longest key that covers the repository.
    pub(super) fn entry(&self, repository: &Reference) -> Result<Option<Login>> {
        let repository = repository.repository();
        let covers = |key: &str| {
            let rest = repository.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut entries: Vec<(String, &String, &Entry)> = self
            .content
            .auths
            .iter()
            .map(|(key, entry)| (normalise(key), key, entry))
            .filter(|(normal, _, _)| covers(normal))
            .collect();
        entries.sort_by_key(|(normal, _, _)| std::cmp::Reverse(normal.len()));
        for (_, key, entry) in entries {
            let login = self.login(key, entry)?;
            if login.is_some() {
                return Ok(login);
            }
        }
        Ok(None)
    }

    /// What an entry says; nothing when it only marks that the credentials store knows it.
    fn login(&self, key: &str, entry: &Entry) -> Result<Option<Login>> {
        let (mut user, mut password) = (entry.username.clone(), entry.password.clone());
        if !entry.auth.is_empty() {
            let decoded = BASE64
                .decode(entry.auth.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
            let Some((name, secret)) = pair else {
                let what = format!(
                    "the credentials for `{}` in {} are broken",
                    key.escape_debug(),
                    self.path.display()
                );
                return Err(Error::new(ErrorKind::Input, what)
                    .hint("`auth` has to be the base64 of USER:PASSWORD; log in again to have it written"));
            };
            // Old versions of docker pad with NUL.
            (user, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
        }
        let secret = if !entry.identitytoken.is_empty() {
            Secret::IdentityToken(entry.identitytoken.clone())
        } else if !user.is_empty() {
            Secret::Password(password)
        } else {
            return Ok(None);
        };
        Ok(Some(Login {
            user,
            secret,
            origin: self.path.display().to_string(),
        }))
    }
}

/// The bytes of a credential file, none if there is none.
pub(super) fn read_text(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).or_io(|| format!("cannot read the credentials in {}", path.display())),
    }
}

/// The failure of a file that is not what it should be. The parser's own message may quote a password.
pub(super) fn broken(path: &Path, error: &serde_json::Error) -> Error {
    let place = format!("{}, line {}, column {}", path.display(), error.line(), error.column());
    Error::new(
        ErrorKind::Input,
        format!("the credentials in {place} cannot be read: that is not docker's format"),
    )
    .hint("mend the file, or move it away and log in anew with `sealrs login`")
}

/// The host, and podman's path after it, that a key of the file is for, as a reference spells them.
pub(in crate::remote) fn normalise(key: &str) -> String {
    if key == DOCKER_HUB {
        return "docker.io".to_owned();
    }
    let stripped = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = match stripped {
        // Docker's keys: a URL of the registry's API, of which only the host counts.
        Some(url) => (url.split('/').next().unwrap_or_default(), ""),
        None => match key.split_once('/') {
            Some((host, "v1/" | "v2/" | "v1" | "v2" | "")) => (host, ""),
            Some((host, path)) => (host, path.trim_end_matches('/')),
            None => (key, ""),
        },
    };
    let host = match host.to_ascii_lowercase() {
        host if matches!(host.as_str(), "index.docker.io" | "registry-1.docker.io") => "docker.io".to_owned(),
        host => host,
    };
    match path {
        "" => host,
        path => format!("{host}/{path}"),
    }
}
