//! The names that may become part of a path on disk: repositories, tags and uploads.
//!
//! A value of these types has passed the grammar of image references, so it holds no `..`, no empty part, no
//! leading `_` (which the layout keeps for itself) and nothing longer than a file name may be.

use std::fmt;
use std::str::FromStr;

use sealrs_image::error::{Error, ErrorKind, Result, ResultExt as _};
use sealrs_image::reference::Reference;

use crate::host::Host;

/// A repository in a registry directory: `library/nginx`, `docker.io/library/nginx`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// The repository of `path` on `host`, under the host's folder.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when both together are longer than a repository's name may be.
    pub fn on(host: &Host, path: &str) -> Result<Self> {
        format!("{}/{path}", host.folder()).parse()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name starts with the folder of a host, as [`Repository::on`] makes it.
    #[must_use]
    pub fn is_on_a_host(&self) -> bool {
        self.0.split_once('/').is_some_and(|(first, _)| Host::is_folder(first))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Repository {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // A reference's grammar is the one place that knows what a name may be. A name that smuggles in a tag or
        // a digest comes out shorter than it went in.
        match format!("localhost/{text}").parse::<Reference>() {
            Ok(reference) if reference.path() == text => Ok(Self(text.to_owned())),
            Ok(_) => Err(bad_repository(text)),
            Err(error) => Err(bad_repository(text).because(error)),
        }
    }
}

fn bad_repository(text: &str) -> Error {
    Error::new(
        ErrorKind::Input,
        format!("`{}` is not a repository's name", shown(text)),
    )
    .hint("a name has at most 255 characters: parts of a-z, 0-9, `.`, `_` and `-` with `/` between them")
}

/// A tag of an image: `1.27`, `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match format!("localhost/x:{text}").parse::<Reference>() {
            Ok(reference) if reference.tag() == Some(text) => Ok(Self(text.to_owned())),
            _ => Err(Error::new(ErrorKind::Input, format!("`{}` is not a tag", shown(text)))
                .hint("a tag has at most 128 letters, digits, `_`, `.` and `-`")),
        }
    }
}

/// An upload under way, as its client knows it: a UUID of version 4, as the docker-distribution registry has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(String);

impl UploadId {
    /// A new one, which nobody can guess.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the system has no randomness to give.
    pub fn random() -> Result<Self> {
        let mut bytes = [0u8; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .or_fail(ErrorKind::Internal, || "cannot get random bytes from the system")?;
        // RFC 9562, section 5.4: the version and the variant.
        let random = u128::from_be_bytes(bytes);
        let number = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let digits = format!("{number:032x}");
        let mut text = String::with_capacity(36);
        for (place, digit) in digits.chars().enumerate() {
            if matches!(place, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(digit);
        }
        Ok(Self(text))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UploadId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_good = |(place, byte): (usize, u8)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        match text.len() == 36 && text.bytes().enumerate().all(is_good) {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::new(
                ErrorKind::Input,
                format!("`{}` is not an upload", shown(text)),
            )),
        }
    }
}

/// What somebody else sent, fit for a message: escaped, and not at any length.
pub(crate) fn shown(text: &str) -> String {
    const LENGTH: usize = 80;
    let mut shown: String = text.escape_debug().take(LENGTH).collect();
    if text.escape_debug().nth(LENGTH).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for good in [
            "a",
            "library/nginx",
            "docker.io/a/b",
            "localhost_5000/app",
            "a/b__c/d-e",
        ] {
            assert_eq!(good.parse::<Repository>().unwrap().as_str(), good);
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            ".",
            "a/.",
            "_a",
            "a/_manifests",
            "A",
            "a:b",
            "a@b",
            "a\0b",
            "a b",
            "ä",
            "a\\b",
            "a:latest",
            &long,
        ] {
            assert!(bad.parse::<Repository>().is_err(), "`{bad}` was taken");
        }
        assert!("a".repeat(255).parse::<Repository>().is_ok());
    }

    #[test]
    fn tags() {
        for good in ["latest", "1.2.3", "_x", "v1-rc.1"] {
            assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
        }
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "a:b",
            "a b",
            "a\0",
            &digest,
            &"a".repeat(129),
        ] {
            assert!(bad.parse::<Tag>().is_err(), "`{bad}` was taken");
        }
    }

    #[test]
    fn uploads() {
        let (one, other) = (UploadId::random().unwrap(), UploadId::random().unwrap());
        assert_ne!(one, other);
        let text = one.to_string();
        assert_eq!(text.parse::<UploadId>().unwrap(), one);
        assert_eq!(&text[14..15], "4", "{text}");
        assert!("89ab".contains(&text[19..20]), "{text}");
        for bad in [
            "",
            "..",
            &text[1..],
            &text.to_uppercase().replace('4', "G"),
            &text.replace('-', "/"),
        ] {
            assert!(bad.parse::<UploadId>().is_err(), "`{bad}` was taken");
        }
    }

    #[test]
    fn what_is_shown_stays_short() {
        assert_eq!(shown("a\0b"), "a\\0b");
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 81);
    }
}
