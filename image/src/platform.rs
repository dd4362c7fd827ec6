//! Platforms: operating system, architecture and variant, in Go's words (OCI image index, "platform").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::suggest::nearest;

/// For instance `linux/amd64` or `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Operating system in Go's words: `linux`.
    pub os: String,
    /// CPU variant: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of the machine that this runs on.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: None,
        }
    }

    /// Whether both mean the same hosts, so that an index has room for one of them only.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant == other.variant || self.architecture == "arm64")
    }

    /// Whether something built for `offered` runs where `self` is asked for.
    ///
    /// arm64 has one variant in practice (`v8`), which many indexes leave out; other variants must be equal,
    /// unless only one side names one.
    #[must_use]
    pub fn accepts(&self, offered: &Self) -> bool {
        self.os == offered.os
            && self.architecture == offered.architecture
            && match (&self.variant, &offered.variant) {
                _ if self.architecture == "arm64" => true,
                (Some(wanted), Some(offered)) => wanted == offered,
                _ => true,
            }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// The operating systems and architectures that Go has, by whose names OCI calls them (`go tool dist list`).
const SYSTEMS: [&str; 8] = [
    "linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasip1",
];
const ARCHITECTURES: [&str; 14] = [
    "amd64", "arm64", "arm", "386", "ppc64", "ppc64le", "s390x", "riscv64", "loong64", "mips", "mipsle", "mips64",
    "mips64le", "wasm",
];

impl Platform {
    /// What is doubtful about it: a word that is no system's or architecture's name, which may still be one.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let unknown = |word: &str, known: &[&str], what: &str| {
            (!known.contains(&word)).then(|| {
                let near = nearest(word, known.iter().copied());
                let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                format!("`{word}` is not {what} that is known{near}")
            })
        };
        unknown(&self.os, &SYSTEMS, "an operating system")
            .or_else(|| unknown(&self.architecture, &ARCHITECTURES, "an architecture"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => (&"", &"", None),
        };
        if !word(os) || !word(architecture) || !variant.is_none_or(|variant| word(variant)) {
            return Err(
                Error::new(ErrorKind::Input, format!("`{}` is not a platform", text.escape_debug()))
                    .hint("write OS/ARCHITECTURE, for instance `linux/amd64` or `linux/arm64`"),
            );
        }
        let architecture = match *architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self {
            architecture: architecture.to_owned(),
            os: (*os).to_owned(),
            variant: variant.map(|&variant| variant.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_matches() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(platform("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        assert!(platform("linux/arm64").accepts(&platform("linux/arm64/v8")));
        assert!(!platform("linux/arm/v6").accepts(&platform("linux/arm/v7")));
        assert!(platform("linux/arm64").is_same(&platform("linux/arm64/v8")));
        assert!(!platform("linux/arm").is_same(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").accepts(&platform("windows/amd64")));
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mistyped_platforms_are_doubtful() {
        let doubt = |text: &str| text.parse::<Platform>().unwrap().doubt();
        assert!(doubt("linux/amd46").unwrap().ends_with("did you mean `amd64`?"));
        assert!(doubt("linx/amd64").unwrap().contains("did you mean `linux`?"));
        for good in ["linux/amd64", "linux/arm/v7", "linux/x86_64"] {
            assert_eq!(doubt(good), None, "{good}");
        }
    }
}
