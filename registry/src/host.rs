//! The registry host that an image is named after, and the folder that stands for it.
//!
//! Images keep their host as the first part of their repository's name, where `:` is not allowed. So the folder of
//! `docker.io` is `docker.io`, of `localhost:5000` `localhost_5000`; an IPv6 address loses its brackets and
//! is written out in its eight groups, `[::1]:5000` is `0_0_0_0_0_0_0_1_5000`. No DNS name has a `_`, so two
//! hosts never share a folder.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::reference::Reference;

use crate::name::shown;

/// A registry's host, with the port if it is named with one, normalised as in references.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

impl Host {
    /// The host of an image.
    #[must_use]
    pub fn of(reference: &Reference) -> Self {
        Self(reference.host().to_owned())
    }

    /// The name of the folder that holds this host's repositories.
    #[must_use]
    pub fn folder(&self) -> String {
        let bracketed = self.0.strip_prefix('[').and_then(|rest| {
            let (address, port) = rest.split_once(']')?;
            Some((address.parse::<Ipv6Addr>().ok()?, port))
        });
        let Some((address, port)) = bracketed else {
            return self.0.replace(':', "_");
        };
        let groups = address.segments().map(|group| format!("{group:x}"));
        groups.join("_") + &port.replace(':', "_")
    }

    /// Whether [`Host::folder`] can have made `name`.
    #[must_use]
    pub fn is_folder(name: &str) -> bool {
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        let is_group = |text: &str| u16::from_str_radix(text, 16).is_ok();
        let parts: Vec<&str> = name.split('_').collect();
        match parts.as_slice() {
            [host] => host.contains('.') || *host == "localhost",
            [_, port] => is_port(port),
            [groups @ .., port] if parts.len() == 9 => groups.iter().all(|group| is_group(group)) && is_port(port),
            groups if parts.len() == 8 => groups.iter().all(|group| is_group(group)),
            _ => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(ErrorKind::Input, format!("`{}` is not a registry's host", shown(text)))
                .hint("write HOST or HOST:PORT as image references have it, for instance `docker.io`")
        };
        // Without one of these a reference's grammar takes the text for the first part of a path.
        if !(text.contains(['.', ':']) || text == "localhost") {
            return Err(bad());
        }
        let reference: Reference = format!("{text}/library/x")
            .parse()
            .map_err(|error| bad().because(error))?;
        match reference.path() {
            "library/x" => Ok(Self::of(&reference)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_folder() {
        for (host, folder) in [
            ("docker.io", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("Registry.Example.com:5000", "registry.example.com_5000"),
            ("localhost", "localhost"),
            ("localhost:5000", "localhost_5000"),
            ("10.0.0.1:443", "10.0.0.1_443"),
            ("[::1]:5000", "0_0_0_0_0_0_0_1_5000"),
            ("[0:0::1]:5000", "0_0_0_0_0_0_0_1_5000"),
            ("[2001:db8::ff]", "2001_db8_0_0_0_0_0_ff"),
        ] {
            let host: Host = host.parse().unwrap();
            assert_eq!(host.folder(), folder);
            assert!(Host::is_folder(folder), "{folder}");
        }
    }

    #[test]
    fn paths_are_no_folders_of_hosts() {
        for name in [
            "library",
            "my_team",
            "a__b",
            "team_0",
            "team_99999",
            "1_2_3",
            "a_b_c_d_e_f_g_h",
        ] {
            assert!(!Host::is_folder(name), "{name}");
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        for bad in [
            "",
            "library",
            "registry",
            "a.b/c",
            "a.b@c",
            "..",
            "a.b:x",
            "a b.c",
            "https://a.b",
            "a_b.c",
        ] {
            assert!(bad.parse::<Host>().is_err(), "`{bad}` was taken");
        }
    }
}
