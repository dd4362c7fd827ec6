//! How a host is reached over SSH.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sealrs_image::error::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// What is done with the key that a host shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyPolicy {
    /// Only keys that are known are accepted.
    Strict,
    /// The key of a host that is not known is accepted and noted. A changed key is refused.
    #[default]
    AcceptNew,
    /// Every key is accepted.
    Off,
}

impl FromStr for HostKeyPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "strict" => Ok(Self::Strict),
            "accept-new" => Ok(Self::AcceptNew),
            "off" => Ok(Self::Off),
            _ => Err(
                Error::new(ErrorKind::Input, format!("{text:?} is no policy for host keys"))
                    .hint("use strict, accept-new or off"),
            ),
        }
    }
}

/// Where a host is and who is let in.
#[derive(Clone)]
pub struct SshOptions {
    /// What the host is called in messages.
    pub name: String,
    /// Name, IPv4 or IPv6 address.
    pub address: String,
    /// The port of its SSH server.
    pub port: u16,
    /// The user to be.
    pub user: String,
    /// Files with private keys, tried first and in this order. The agent signs for those that are locked.
    pub identities: Vec<PathBuf>,
    /// For keys that are encrypted.
    pub passphrase: Option<String>,
    /// For password and keyboard-interactive authentication.
    pub password: Option<String>,
    /// For sudo, if it is not `password`.
    pub sudo_password: Option<String>,
    /// The socket of an agent, whose other keys are tried next: the first few, because servers end a connection after
    /// some. Preset from `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
    /// Hosts on the way, the nearest first. Their own `jumps` are not looked at.
    pub jumps: Vec<SshOptions>,
    /// What is done with the key that the host shows.
    pub host_keys: HostKeyPolicy,
    /// Keys that are known, in OpenSSH's format.
    pub known_hosts: PathBuf,
    /// Time for reaching the server and agreeing on keys.
    pub connect_limit: Duration,
    /// Time for all of authentication.
    pub auth_limit: Duration,
    /// How often a silent server is asked whether it is there; three times without an answer end the connection.
    pub keep_alive: Duration,
}

impl SshOptions {
    /// root at port 22, with the agent and the known hosts of this user.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        let address = address.into();
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        Self {
            name: address.clone(),
            address,
            port: 22,
            user: "root".to_owned(),
            identities: Vec::new(),
            passphrase: None,
            password: None,
            sudo_password: None,
            agent: std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
            jumps: Vec::new(),
            host_keys: HostKeyPolicy::default(),
            known_hosts: home.join(".ssh/known_hosts"),
            connect_limit: Duration::from_secs(15),
            auth_limit: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// Without the secrets.
impl fmt::Debug for SshOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshOptions")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("identities", &self.identities)
            .field("jumps", &self.jumps)
            .field("host_keys", &self.host_keys)
            .finish_non_exhaustive()
    }
}
