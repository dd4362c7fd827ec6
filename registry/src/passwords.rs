//! Who may use the registry: a file of users and bcrypt hashes, as `htpasswd -B` writes it, and Basic
//! authentication (RFC 7617).
//!
//! bcrypt is slow on purpose, and clients send the password with every request. So a password that was found right is
//! remembered, as a digest, for as long as the server runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;
use hyper::header::HeaderValue;
use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use tokio::sync::Semaphore;

/// How many passwords are hashed at once: wrong guesses must not take every core from those who download.
const HASHED_AT_ONCE: usize = 2;

/// The users and their passwords' hashes.
pub(crate) struct Passwords {
    hashes: BTreeMap<String, String>,
    /// For each user the digest of `user:password` that was found right.
    verified: Mutex<BTreeMap<String, Digest>>,
    hashing: Semaphore,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords({} users)", self.hashes.len())
    }
}

impl Passwords {
    /// Reads a file.
    ///
    /// # Errors
    /// What reading a file may meet; [`ErrorKind::Input`], with the line, when it is not as it should be.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).or_io(|| format!("cannot read the password file `{shown}`"))?;
        Self::parse(&text, &shown)
    }

    fn parse(text: &str, origin: &str) -> Result<Self> {
        let mut hashes = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line itself stays out of the message: it may hold a password that somebody wrote down.
            let bad = |why: &str| {
                Error::new(
                    ErrorKind::Input,
                    format!("password file `{origin}`, line {number}: {why}"),
                )
                .hint("write each line with `htpasswd -B`: USER:HASH, with a hash that starts with `$2y$`")
            };
            let (user, hash) = line
                .split_once(':')
                .ok_or_else(|| bad("there is no `:` after the user's name"))?;
            if user.is_empty() {
                return Err(bad("the user's name is empty"));
            }
            let parts: HashParts = hash
                .parse()
                .map_err(|error| bad("the hash is not a bcrypt hash").because(error))?;
            if !(4..=31).contains(&parts.get_cost()) {
                return Err(bad("the bcrypt hash's cost is not from 4 to 31"));
            }
            if hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
                return Err(bad("the user is there twice"));
            }
        }
        if hashes.is_empty() {
            return Err(
                Error::new(ErrorKind::Input, format!("password file `{origin}` has no users"))
                    .hint("add one with `htpasswd -B`, or leave the option out to let everybody in"),
            );
        }
        Ok(Self {
            hashes,
            verified: Mutex::default(),
            hashing: Semaphore::new(HASHED_AT_ONCE),
        })
    }

    /// Whether an `Authorization` header holds a user and the right password.
    pub(crate) async fn admit(self: &Arc<Self>, header: Option<&HeaderValue>) -> bool {
        let Some((user, password)) = header.and_then(credentials) else {
            return false;
        };
        let digest = Digest::of(format!("{user}:{password}").as_bytes());
        if self.is_verified(&user, &digest) {
            return true;
        }
        let Ok(_permit) = self.hashing.acquire().await else {
            return false;
        };
        // Another request may have waited for the same.
        if self.is_verified(&user, &digest) {
            return true;
        }
        let passwords = Arc::clone(self);
        let checked = tokio::task::spawn_blocking(move || {
            let is_right = passwords.check(&user, &password);
            if is_right {
                passwords.remember(user, digest);
            }
            is_right
        });
        checked.await.unwrap_or(false)
    }

    fn check(&self, user: &str, password: &str) -> bool {
        match self.hashes.get(user) {
            Some(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            None => {
                // An unknown user takes as long as a known one, so the time does not tell who exists.
                let any = self.hashes.values().next();
                let _ = any.map(|hash| bcrypt::verify(password, hash));
                false
            }
        }
    }

    fn is_verified(&self, user: &str, digest: &Digest) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(user).is_some_and(|known| is_equal(known, digest))
    }

    fn remember(&self, user: String, digest: Digest) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.insert(user, digest);
    }
}

/// Compares in a time that does not depend on where the two differ.
fn is_equal(one: &Digest, other: &Digest) -> bool {
    let (one, other) = (one.hex(), other.hex());
    let differences = one.bytes().zip(other.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b));
    std::hint::black_box(differences) == 0
}

/// The user and password in `Basic BASE64`.
fn credentials(header: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(password: &str) -> String {
        bcrypt::hash_with_result(password, 4)
            .unwrap()
            .format_for_version(bcrypt::Version::TwoY)
    }

    fn basic(text: &str) -> HeaderValue {
        HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap()
    }

    #[tokio::test]
    async fn admits_the_right_password_only() {
        let file = format!("# users\n\nadmin:{}\r\nother:{}\n", hash("p:ss wörd"), hash("x"));
        let passwords = Arc::new(Passwords::parse(&file, "f").unwrap());
        // Twice: the second time from memory.
        for _ in 0..2 {
            assert!(passwords.admit(Some(&basic("admin:p:ss wörd"))).await);
            for wrong in [
                "admin:",
                "admin:x",
                "other:p:ss wörd",
                "nobody:x",
                "admin",
                ":",
                "",
                "ADMIN:p:ss wörd",
            ] {
                assert!(!passwords.admit(Some(&basic(wrong))).await, "{wrong}");
            }
        }
        assert_eq!(passwords.verified.lock().unwrap().len(), 1);
        assert!(!passwords.admit(None).await);
        for wrong in ["", "Basic", "Basic !", "Bearer eDp4", "eDp4"] {
            assert!(
                !passwords.admit(Some(&HeaderValue::from_static(wrong))).await,
                "{wrong}"
            );
        }
        let lower = format!("basic {}", STANDARD.encode("other:x"));
        assert!(passwords.admit(Some(&HeaderValue::from_str(&lower).unwrap())).await);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = format!("a:{}", hash("x"));
        for (text, place) in [
            ("a".to_owned(), "line 1"),
            (format!("{good}\n:{}", hash("x")), "line 2"),
            (format!("\n{good}\nb:secret"), "line 3"),
            (format!("{good}\nb:$apr1$q$x"), "line 2"),
            (format!("{good}\n{good}"), "line 2"),
            (good.replace("$04$", "$99$"), "line 1"),
            ("# none\n".to_owned(), "no users"),
        ] {
            let error = Passwords::parse(&text, "/etc/f").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input);
            assert!(
                error.to_string().contains("/etc/f") && error.to_string().contains(place),
                "{error}"
            );
            assert!(!format!("{error:?}").contains("secret"));
        }
    }

    #[test]
    fn digests_compare() {
        let digest = Digest::of(b"a");
        assert!(is_equal(&digest, &Digest::of(b"a")));
        assert!(!is_equal(&digest, &Digest::of(b"b")));
    }
}
