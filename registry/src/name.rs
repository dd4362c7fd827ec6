//! The names that may become part of a path on disk: repositories and tags.
//!
//! A value of these types has passed the grammar of image references, so it holds no `..`, no empty part, no
//! leading `_` (which the layout keeps for itself) and nothing longer than a file name may be.

use std::fmt;
use std::str::FromStr;

use sealrs_image::error::{Error, ErrorKind, Result};
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
    fn what_is_shown_stays_short() {
        assert_eq!(shown("a\0b"), "a\\0b");
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 81);
    }
}
