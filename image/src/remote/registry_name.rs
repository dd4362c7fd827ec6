//! What one logs in to: a registry, or the part of it below a path.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::remote::credentials::normalise;

/// `HOST[:PORT]`, or `HOST[:PORT]/PATH` for the repositories below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryName {
    name: String,
    /// Some repository in it.
    sample: Reference,
}

impl RegistryName {
    /// The registry's host, with the port if one was given.
    #[must_use]
    pub fn host(&self) -> &str {
        self.sample.host()
    }

    /// Whether it is only a part of a registry.
    #[must_use]
    pub fn has_path(&self) -> bool {
        !self.path().is_empty()
    }

    /// The path of the part that is meant, without slashes around it; empty for a whole registry.
    #[must_use]
    pub fn path(&self) -> &str {
        self.name.split_once('/').map_or("", |(_, path)| path)
    }

    /// Some repository in it, be it there or not.
    pub(super) fn sample(&self) -> &Reference {
        &self.sample
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for RegistryName {
    type Err = Error;

    /// Reads the name as credential files spell it, with the URLs of docker's.
    fn from_str(text: &str) -> Result<Self> {
        let name = normalise(text);
        let host = name.split('/').next().unwrap_or_default();
        let sample: Option<Reference> = format!("{name}/x").parse().ok();
        match sample {
            // A host that is none becomes a path of Docker Hub's.
            Some(sample) if sample.host() == host && !name.contains('@') => Ok(Self { name, sample }),
            _ => Err(Error::new(
                ErrorKind::Input,
                format!("`{}` is not a registry", text.escape_debug()),
            )
            .hint("write HOST or HOST:PORT, for instance `registry.example.com`, `localhost:5000`, `docker.io`; a path may follow")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_credential_files_have() {
        for (text, name, host) in [
            ("registry.example.com", "registry.example.com", "registry.example.com"),
            (
                "Registry.example.com:5000",
                "registry.example.com:5000",
                "registry.example.com:5000",
            ),
            (
                "https://registry.example.com/v2/",
                "registry.example.com",
                "registry.example.com",
            ),
            ("http://localhost:5000", "localhost:5000", "localhost:5000"),
            ("[::1]:5000", "[::1]:5000", "[::1]:5000"),
            ("https://index.docker.io/v1/", "docker.io", "docker.io"),
            ("index.docker.io", "docker.io", "docker.io"),
            ("docker.io/team", "docker.io/team", "docker.io"),
            ("quay.io/team/app/", "quay.io/team/app", "quay.io"),
        ] {
            let registry: RegistryName = text.parse().unwrap();
            assert_eq!((registry.to_string().as_str(), registry.host()), (name, host), "{text}");
            assert_eq!(registry.has_path(), name.contains('/'), "{text}");
            let joined = [registry.host(), registry.path()].join("/");
            assert_eq!(joined.trim_end_matches('/'), name, "{text}");
        }
        for text in [
            "",
            "/",
            "nginx",
            "a b.com",
            "quay.io/Team",
            "a.com:x",
            "user:word@a.com",
            "a.com/x@y",
            "ftp://a.com",
            "a.com//x",
        ] {
            let error = text.parse::<RegistryName>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input, "{text}");
        }
    }
}
