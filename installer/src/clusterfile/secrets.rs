//! Where secrets come from: the Clusterfile itself, a file, an environment variable, or somebody who is asked.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::progress::{Event, Progress};
use serde_saphyr::Spanned;
use zeroize::Zeroizing;

use super::cluster::{ExternalRegistry, LocalRegistry, Ssh};
use super::secret::Secret;

/// No password is longer; a file that was named by mistake may be.
const MOST_BYTES: u64 = 64 << 10;
/// The permission of everybody to read a file.
const OTHERS_READ: u32 = 0o004;

/// Where a secret is, as the Clusterfile says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretSource<'c> {
    /// In the Clusterfile, in clear.
    Clear(&'c Secret),
    /// In this file.
    File(&'c str),
    /// In this environment variable.
    Environment(&'c str),
}

impl<'c> SecretSource<'c> {
    fn of(
        clear: Option<&'c Spanned<Secret>>,
        file: Option<&'c Spanned<String>>,
        variable: Option<&'c Spanned<String>>,
    ) -> Option<Self> {
        let clear = clear.map(|secret| Self::Clear(&secret.value));
        let file = file.map(|file| Self::File(&file.value));
        let variable = variable.map(|variable| Self::Environment(&variable.value));
        clear.or(file).or(variable)
    }
}

impl Ssh {
    /// Where the password is; none if none was given.
    #[must_use]
    pub fn password(&self) -> Option<SecretSource<'_>> {
        SecretSource::of(
            self.passwd.as_ref(),
            self.passwd_file.as_ref(),
            self.passwd_env.as_ref(),
        )
    }

    /// Where the key's passphrase is; none if none was given.
    #[must_use]
    pub fn passphrase(&self) -> Option<SecretSource<'_>> {
        SecretSource::of(
            self.pk_passwd.as_ref(),
            self.pk_passwd_file.as_ref(),
            self.pk_passwd_env.as_ref(),
        )
    }
}

impl LocalRegistry {
    /// Where the password is; none if none was given.
    #[must_use]
    pub fn password(&self) -> Option<SecretSource<'_>> {
        SecretSource::of(
            self.password.as_ref(),
            self.password_file.as_ref(),
            self.password_env.as_ref(),
        )
    }
}

impl ExternalRegistry {
    /// Where the password is; none if none was given.
    #[must_use]
    pub fn password(&self) -> Option<SecretSource<'_>> {
        SecretSource::of(
            self.password.as_ref(),
            self.password_file.as_ref(),
            self.password_env.as_ref(),
        )
    }
}

/// Asks somebody for a secret, which is named.
pub type Ask = dyn Fn(&str) -> Result<Secret>;

/// Reads secrets.
pub struct Secrets<'a> {
    /// The Clusterfile's folder, which paths in it start from.
    pub folder: &'a Path,
    /// Is told of files that others can read.
    pub progress: &'a dyn Progress,
    /// Asks somebody for what the Clusterfile does not say where to find; none if nobody is there.
    pub ask: Option<&'a Ask>,
}

impl std::fmt::Debug for Secrets<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Secrets<'_> {
    /// The secret, which is `what`: "the password of root". None if it was not given, and nobody can be asked.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the file or variable is not there, [`ErrorKind::Input`] when it is empty or no text,
    /// and what asking fails with.
    pub fn get(&self, source: Option<SecretSource<'_>>, what: &str) -> Result<Option<Secret>> {
        match source {
            Some(SecretSource::Clear(secret)) => Ok(Some(secret.clone())),
            Some(SecretSource::File(file)) => self.of_file(file, what).map(Some),
            Some(SecretSource::Environment(name)) => of_environment(name, what).map(Some),
            None => self.ask.map(|ask| ask(what)).transpose(),
        }
    }

    /// A path of the Clusterfile: it begins at its folder, or at the home folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match name.strip_prefix("~/") {
            Some(below) => std::env::home_dir().unwrap_or_default().join(below),
            None => self.folder.join(name),
        }
    }

    fn of_file(&self, name: &str, what: &str) -> Result<Secret> {
        let place = || format!("cannot read {what} from {name}");
        let path = self.path(name);
        let mut file = File::open(&path).or_read(place)?;
        let found = file.metadata().or_read(place)?;
        if found.is_dir() {
            return Err(Error::new(ErrorKind::Input, place()).because(Error::new(ErrorKind::Input, "it is a folder")));
        }
        if found.is_file() && found.permissions().mode() & OTHERS_READ != 0 {
            let warning = format!("everybody on this host can read {name}, which holds {what}: `chmod 600` it");
            self.progress.event(Event::Warning(&warning));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.by_ref()
            .take(MOST_BYTES + 1)
            .read_to_end(&mut bytes)
            .or_read(place)?;
        if bytes.len() as u64 > MOST_BYTES {
            let error = Error::new(ErrorKind::Input, place());
            return Err(error.because(Error::new(ErrorKind::Input, "it is too long for a secret")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| {
            Error::new(ErrorKind::Input, place()).because(Error::new(ErrorKind::Input, "it is not in UTF-8"))
        })?;
        // Editors and `echo` end a file with a line feed.
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        filled(line, || format!("{name}, which is to hold {what}, is empty"))
    }
}

fn of_environment(name: &str, what: &str) -> Result<Secret> {
    let hint = format!("set it in the environment of sealrs, for instance with `read -rs {name} && export {name}`");
    match std::env::var(name) {
        Ok(value) => {
            let value = Zeroizing::new(value);
            filled(&value, || {
                format!("the variable {name}, which is to hold {what}, is empty")
            })
            .map_err(|error| error.hint(hint))
        }
        Err(std::env::VarError::NotPresent) => Err(Error::new(
            ErrorKind::NotFound,
            format!("the variable {name}, which is to hold {what}, is not set"),
        )
        .hint(hint)),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::new(
            ErrorKind::Input,
            format!("the variable {name}, which is to hold {what}, is not in UTF-8"),
        )),
    }
}

fn filled(text: &str, otherwise: impl FnOnce() -> String) -> Result<Secret> {
    match text {
        "" => Err(Error::new(ErrorKind::Input, otherwise())),
        _ => Ok(Secret::from(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Progress for Heard {
        fn event(&self, event: Event<'_>) {
            if let Event::Warning(text) = event {
                self.0.lock().unwrap().push(text.to_owned());
            }
        }
    }

    #[test]
    fn secrets_come_from_files_variables_and_people() {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard::default();
        let ask = |what: &str| Ok(Secret::from(format!("asked for {what}")));
        let secrets = Secrets {
            folder: folder.path(),
            progress: &heard,
            ask: Some(&ask),
        };
        let write = |name: &str, text: &[u8], mode: u32| {
            fs::write(folder.path().join(name), text).unwrap();
            fs::set_permissions(folder.path().join(name), Permissions::from_mode(mode)).unwrap();
        };
        write("own", b"a b\r\n", 0o600);
        write("open", b"x\n\n", 0o644);
        write("empty", b"\n", 0o600);
        write("binary", b"\xff", 0o600);
        write("big", &[b'a'; 70_000], 0o600);
        let get = |source| secrets.get(source, "the password of root");
        let file = |name| get(Some(SecretSource::File(name))).map(|secret| secret.unwrap().reveal().to_owned());
        assert_eq!(file("own").unwrap(), "a b");
        assert!(heard.0.lock().unwrap().is_empty());
        assert_eq!(file("open").unwrap(), "x\n");
        assert_eq!(heard.0.lock().unwrap().len(), 1);
        assert!(heard.0.lock().unwrap()[0].contains("`chmod 600`"));
        let own = folder.path().join("own");
        assert_eq!(file(own.to_str().unwrap()).unwrap(), "a b");
        for (name, kind, says) in [
            ("nothing", ErrorKind::NotFound, "the password of root from nothing"),
            ("empty", ErrorKind::Input, "is empty"),
            ("binary", ErrorKind::Input, "not in UTF-8"),
            ("big", ErrorKind::Input, "too long"),
            (".", ErrorKind::Input, "a folder"),
        ] {
            let error = file(name).unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(format!("{error:?}").contains(says), "{error:?}");
        }
        // Cargo sets it for tests.
        let variable = |name| get(Some(SecretSource::Environment(name))).map(Option::unwrap);
        assert_eq!(variable("CARGO_PKG_NAME").unwrap().reveal(), env!("CARGO_PKG_NAME"));
        let error = variable("SEALRS_NO_SUCH_VARIABLE").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error.remedy().unwrap().contains("export SEALRS_NO_SUCH_VARIABLE"),
            "{error:?}"
        );
        assert_eq!(get(None).unwrap().unwrap().reveal(), "asked for the password of root");
        let alone = Secrets { ask: None, ..secrets };
        assert_eq!(alone.get(None, "it").unwrap(), None);
        assert_eq!(
            format!("{:?}", SecretSource::Clear(&Secret::from("x".to_owned()))),
            "Clear(Secret(…))"
        );
    }
}
