//! Image references: `host/path:tag@digest`, kept whole.
//!
//! The grammar is the one of the distribution project, with Docker's short names normalised:
//! `nginx` is `docker.io/library/nginx:latest`. Stricter than some: a path with an upper-case letter is refused
//! rather than taken for a Docker Hub name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

const DEFAULT_HOST: &str = "docker.io";

/// A parsed and normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with the port if one was given: `docker.io`, `localhost:5000`, `[::1]:5000`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository's path on that host: `library/nginx`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag: the one given, or `latest` when neither tag nor digest was.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the reference pins.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    #[must_use]
    pub fn selector(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Host and path, without tag and digest.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The short form that Docker shows: without `docker.io/` and `library/`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let whole = self.to_string();
        let short = whole.strip_prefix("docker.io/").unwrap_or(&whole);
        match short.strip_prefix("library/") {
            Some(rest) if short.len() < whole.len() && !rest.contains('/') => rest.to_owned(),
            _ => short.to_owned(),
        }
    }

    /// Whether an image can be given this name: one with a digest means the image of that digest for ever.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it has a digest.
    pub fn check_givable(&self) -> Result<()> {
        if self.digest.is_none() && self.tag.is_some() {
            return Ok(());
        }
        let what = format!("`{self}` can't be given: it has a digest");
        Err(Error::new(ErrorKind::Input, what).hint("give a name with a tag, for instance `example.com/k3s:v1`"))
    }

    /// The same image under a digest instead of a tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(
                ErrorKind::Input,
                format!("`{}` is not an image reference: {why}", text.escape_debug()),
            )
            .hint("write HOST/PATH:TAG, HOST/PATH@sha256:DIGEST or both, for instance `docker.io/library/nginx:1.27`")
        };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.len() > 1024 {
            return Err(bad("it is longer than 1024 characters"));
        }
        if text.contains("://") {
            return Err(bad("it starts with a URL scheme"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (
                name,
                Some(digest.parse::<Digest>().map_err(|error| bad(&error.to_string()))?),
            ),
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to the host's port.
        let last_part = name.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name.get(last_part..).and_then(|part| part.find(':')) {
            Some(at) => {
                let (name, tag) = name.split_at(last_part + at);
                (name, Some(tag.trim_start_matches(':')))
            }
            None => (name, None),
        };
        if let Some(tag) = tag {
            check_tag(tag).map_err(bad)?;
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if looks_like_host(host) => (host.to_ascii_lowercase(), path.to_owned()),
            Some(_) => (DEFAULT_HOST.to_owned(), name.to_owned()),
            None => (DEFAULT_HOST.to_owned(), format!("library/{name}")),
        };
        let (host, path) = match host.as_str() {
            "docker.io" | "index.docker.io" | "registry-1.docker.io" => {
                let path = if path.contains('/') {
                    path
                } else {
                    format!("library/{path}")
                };
                (DEFAULT_HOST.to_owned(), path)
            }
            _ => (host, path),
        };
        check_host(&host).map_err(bad)?;
        check_path(&path).map_err(bad)?;
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self {
            host,
            path,
            tag,
            digest,
        })
    }
}

fn looks_like_host(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("the host's `[` is not closed")?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("the host is not an IPv6 address");
        }
        return match port.strip_prefix(':') {
            None if port.is_empty() => Ok(()),
            Some(port) => check_port(port),
            None => Err("something other than a port follows the host"),
        };
    } else {
        match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        }
    };
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if name.len() > 253 || !name.split('.').all(label_ok) {
        return Err("the host is not a DNS name or an address");
    }
    port.map_or(Ok(()), check_port)
}

fn check_port(port: &str) -> Result<(), &'static str> {
    match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err("the port is not a number from 1 to 65535"),
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("the path has an upper-case letter, which no registry accepts");
    }
    if path.len() > 255 {
        return Err("the path is longer than 255 characters");
    }
    if !path.split('/').all(path_component_ok) {
        return Err(
            "the path's parts may have a-z and 0-9, separated by one `.`, one or two `_`, or any number of `-`",
        );
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn path_component_ok(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
        && part
            .split(alphanumeric)
            .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|byte| byte == b'-'))
}

/// Whether it is a tag; if not, why.
pub(crate) fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match tag.as_bytes() {
        [first, rest @ ..] if word(*first) && rest.len() < 128 => {
            if rest.iter().all(|&byte| word(byte) || byte == b'.' || byte == b'-') {
                Ok(())
            } else {
                Err("the tag may have letters, digits, `_`, `.` and `-` only")
            }
        }
        _ => Err("the tag has to start with a letter, digit or `_` and have at most 128 characters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_what_docker_normalises() {
        for (text, whole, familiar) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1", "docker.io/library/nginx:1", "nginx:1"),
            ("rancher/pause:3.6", "docker.io/rancher/pause:3.6", "rancher/pause:3.6"),
            ("index.docker.io/x", "docker.io/library/x:latest", "x:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            (
                "localhost:5000/a/b__c",
                "localhost:5000/a/b__c:latest",
                "localhost:5000/a/b__c:latest",
            ),
            ("[::1]:5000/a:b", "[::1]:5000/a:b", "[::1]:5000/a:b"),
            (
                "REGISTRY.Example.com/a---b",
                "registry.example.com/a---b:latest",
                "registry.example.com/a---b:latest",
            ),
            (
                "quay.io/library/x",
                "quay.io/library/x:latest",
                "quay.io/library/x:latest",
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), whole);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(whole.parse::<Reference>().unwrap(), reference);
        }
        let both: Reference = format!("a.b/c:t@{DIGEST}").parse().unwrap();
        assert_eq!((both.tag(), both.selector().as_str()), (Some("t"), DIGEST));
        assert_eq!(both.to_string(), format!("a.b/c:t@{DIGEST}"));
        let pinned: Reference = format!("a.b/c@{DIGEST}").parse().unwrap();
        assert_eq!(pinned.tag(), None);
    }

    #[test]
    fn refuses_what_is_no_reference() {
        for bad in [
            "",
            " ",
            "a b",
            "UPPER/x",
            "x:",
            "x:-a",
            "a//b",
            "/a",
            "a/",
            "a.b/",
            "-a",
            "a..b",
            "a___b",
            "_a",
            "https://a.b/c",
            "a.b:0/c",
            "a.b:99999/c",
            "a.b:+1/c",
            "[::1/c",
            "[zz]/c",
            "x@sha256:1",
            "x@md5:1",
            "a/../b",
            "${REGISTRY}/x",
            "{{ .Values.image }}",
            "x:a/b",
            "ä/b",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "`{bad}` was taken");
        }
    }
}
