//! Who we are to a registry: the credential files of docker and podman, and docker's credential helpers.
//!
//! The files are docker's `config.json` and podman's `auth.json`: one format, except that podman's keys may go on
//! after the host with a path. Docker Hub is `https://index.docker.io/v1/` in them. They are all read; what `login` keeps
//! goes where docker would put it.

mod file;
mod helper;
mod writer;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::remote::registry_name::RegistryName;

use file::AuthFile;
pub(super) use file::normalise;
use helper::Helper;

/// What Docker Hub is called in credential files and by helpers.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Where credentials are looked up.
#[derive(Debug, Default)]
pub struct Credentials {
    /// Logins for single repositories, which come before all others.
    given: Vec<(String, Login)>,
    /// The files that exist, the most important first.
    files: Vec<AuthFile>,
    /// All files that were looked for.
    places: Vec<PathBuf>,
    /// What helpers said, by helper and server: some take seconds.
    answers: Mutex<Vec<(String, String, Option<Login>)>>,
}

/// A user's credentials for a registry. Never shows its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user, empty with some identity tokens.
    pub user: String,
    /// What proves it.
    pub(super) secret: Secret,
    /// Where it was found, for messages: a file or a helper.
    pub origin: String,
}

/// A proof of identity. Shown as `<redacted>`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// For Basic authentication, also with a token server.
    Password(String),
    /// An OAuth2 refresh token for the token server.
    IdentityToken(String),
}

impl Login {
    /// A user and his password, from the user himself.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when they can't be what they should be.
    pub fn new(user: &str, password: String) -> Result<Self> {
        let bad = |what: &str| Err(Error::new(ErrorKind::Input, what));
        if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
            return bad("a user's name may not be empty, and has neither `:` nor control characters in it");
        }
        if password.is_empty() {
            return bad("the password is empty");
        }
        // No header and no credential file could carry it.
        if password.contains(['\0', '\r', '\n']) {
            return bad("the password has more than one line");
        }
        Ok(Self {
            user: user.to_owned(),
            secret: Secret::Password(password),
            origin: "the command line".to_owned(),
        })
    }
}

/// What became of a login that was to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Where it was: a file or a helper. None if it was nowhere.
    pub place: Option<String>,
    /// Who one still is to the registry, by another file or another entry.
    pub still: Option<Login>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(<redacted>)",
            Self::IdentityToken(_) => "IdentityToken(<redacted>)",
        })
    }
}

impl Credentials {
    /// No credentials: every registry is met as a stranger.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of the user who runs this: `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, then podman's
    /// `$REGISTRY_AUTH_FILE`, or else `$XDG_RUNTIME_DIR/containers/auth.json` and `~/.config/containers/auth.json`.
    ///
    /// # Errors
    /// When one of the files is there and can't be read.
    pub fn from_environment() -> Result<Self> {
        Self::from_files(default_places(|name| std::env::var_os(name)))
    }

    /// Those of the files of `places` that exist; earlier ones win.
    ///
    /// # Errors
    /// [`ErrorKind::Input`](crate::error::ErrorKind::Input), naming the file and line, when one is broken;
    /// [`ErrorKind::Disk`](crate::error::ErrorKind::Disk) when one can't be read.
    pub fn from_files(places: Vec<PathBuf>) -> Result<Self> {
        let mut files = Vec::new();
        for place in &places {
            files.extend(AuthFile::read(place)?);
        }
        Ok(Self {
            given: Vec::new(),
            files,
            places,
            answers: Mutex::default(),
        })
    }

    /// The same, with logins for single repositories, which come before those of files.
    #[must_use]
    pub fn with<'l>(mut self, logins: impl IntoIterator<Item = &'l (Reference, Login)>) -> Self {
        let logins = logins.into_iter();
        self.given
            .extend(logins.map(|(repository, login)| (repository.repository(), login.clone())));
        self
    }

    /// The login that was given for a repository.
    pub(super) fn given(&self, repository: &Reference) -> Option<&Login> {
        let name = repository.repository();
        let given = self.given.iter().find(|(known, _)| *known == name);
        given.map(|(_, login)| login)
    }

    /// The credentials for a repository: those that were given for it, or the first file's that knows any. May run a helper and take its time.
    ///
    /// # Errors
    /// [`ErrorKind::Auth`](crate::error::ErrorKind::Auth) when a helper is missing or fails;
    /// [`ErrorKind::Input`](crate::error::ErrorKind::Input) when an entry is broken.
    pub fn find(&self, repository: &Reference) -> Result<Option<Login>> {
        if let Some(login) = self.given(repository) {
            return Ok(Some(login.clone()));
        }
        for file in &self.files {
            if let Some(helper) = file.helper_of(repository.host()) {
                // A host's own helper has the last word on it.
                return self.ask(helper, repository.host());
            }
            if let Some(helper) = file.store() {
                let login = self.ask(helper, repository.host())?;
                if login.is_some() {
                    return Ok(login);
                }
            }
            let login = file.entry(repository)?;
            if login.is_some() {
                return Ok(login);
            }
        }
        Ok(None)
    }

    /// The files that were looked for, for messages.
    pub(super) fn places(&self) -> String {
        let places: Vec<String> = self.places.iter().map(|place| place.display().to_string()).collect();
        places.join(", ")
    }

    /// Keeps a login for a registry where docker would: in the first of the files, with mode 0600, or with the helper
    /// that it names. Gives the place.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when no file is known or the file is broken; [`ErrorKind::Auth`] when the helper fails;
    /// [`ErrorKind::Disk`] when the file can't be written. It is as it was then.
    pub fn store(&self, registry: &RegistryName, login: &Login) -> Result<String> {
        let path = self.own_file()?;
        let file = AuthFile::read(path)?;
        let Some(helper) = file.as_ref().and_then(|file| helper_for(file, registry)) else {
            writer::put(path, registry, Some(login))?;
            return Ok(path.display().to_string());
        };
        if registry.has_path() {
            let what = format!(
                "{} keeps logins for whole registries only, not for {registry}",
                helper.program()
            );
            return Err(Error::new(ErrorKind::Input, what).hint(format!("log in to {}", registry.host())));
        }
        helper.store(&writer::key_of(registry), login)?;
        // As docker does, also so that no secret stays in the file.
        writer::put(path, registry, None)?;
        Ok(helper.program())
    }

    /// Forgets the login for a registry where [`Credentials::store`] keeps it.
    ///
    /// # Errors
    /// As with [`Credentials::store`].
    pub fn forget(&self, registry: &RegistryName) -> Result<Forgotten> {
        let path = self.own_file()?;
        let file = AuthFile::read(path)?;
        let mut place = None;
        if !registry.has_path()
            && let Some(helper) = file.as_ref().and_then(|file| helper_for(file, registry))
            && helper.erase(&writer::key_of(registry))?
        {
            place = Some(helper.program());
        }
        if writer::remove(path, registry)? {
            place.get_or_insert_with(|| path.display().to_string());
        }
        let still = Self::from_files(self.places.clone())?.find(registry.sample())?;
        Ok(Forgotten { place, still })
    }

    /// The file that logins are kept in.
    fn own_file(&self) -> Result<&Path> {
        self.places.first().map(PathBuf::as_path).ok_or_else(|| {
            Error::new(ErrorKind::Input, "no place for credentials is known").hint("set HOME or DOCKER_CONFIG")
        })
    }

    fn ask(&self, helper: Helper<'_>, host: &str) -> Result<Option<Login>> {
        let server = match host {
            "docker.io" => DOCKER_HUB,
            host => host,
        };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answers
            .iter()
            .find(|(asked, of, _)| asked == helper.name && of == server);
        if let Some((_, _, login)) = known {
            return Ok(login.clone());
        }
        let login = helper.get(server)?;
        answers.push((helper.name.to_owned(), server.to_owned(), login.clone()));
        Ok(login)
    }
}

/// The helper that keeps the logins of a registry, if it is not the file itself.
fn helper_for<'a>(file: &'a AuthFile, registry: &RegistryName) -> Option<Helper<'a>> {
    file.helper_of(registry.host()).or_else(|| file.store())
}

fn default_places(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let in_home = |path: &str| folder("HOME").map(|home| home.join(path));
    let docker = folder("DOCKER_CONFIG").or_else(|| in_home(".docker"));
    let podman = match folder("REGISTRY_AUTH_FILE") {
        Some(file) => vec![Some(file)],
        None => vec![
            folder("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
            folder("XDG_CONFIG_HOME")
                .or_else(|| in_home(".config"))
                .map(|folder| folder.join("containers/auth.json")),
        ],
    };
    let docker = docker.map(|folder| folder.join(Path::new("config.json")));
    [docker].into_iter().chain(podman).flatten().collect()
}

#[cfg(test)]
mod tests;
