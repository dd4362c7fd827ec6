//! The hosts of a cluster: what each is for, and how it is reached. Kept in the cluster's folder on the operator's side,
//! without secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::host::{HostKeyPolicy, SshOptions};

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the control plane.
    Master,
    /// Runs pods alone.
    Node,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Node => "node",
        })
    }
}

/// A host of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its address in the cluster, by which it is reached as well.
    pub address: IpAddr,
    /// What it is for.
    pub role: Role,
    /// How it is reached.
    pub access: Access,
    /// All roles that it was given, also those of the user's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Variables over those of the cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Labels of its node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints of its node, as `key=value:Effect`; those with `-` behind them are taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
}

impl Member {
    /// A host without anything special.
    #[must_use]
    pub fn new(address: IpAddr, role: Role, access: Access) -> Self {
        Self {
            address,
            role,
            access,
            roles: Vec::new(),
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
        }
    }
}

/// A host on the way to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    /// The user; none is the user of the host behind it.
    pub user: Option<String>,
    /// Name or address.
    pub host: String,
    /// The port of its SSH server.
    pub port: u16,
}

/// How a host is reached over SSH. Secrets are not stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Access {
    /// The user.
    pub user: String,
    /// The port.
    pub port: u16,
    /// Files with private keys.
    pub identities: Vec<PathBuf>,
    /// Hosts on the way, the nearest first.
    pub jumps: Vec<Jump>,
    /// What is done with the key that the host shows.
    pub host_keys: HostKeyPolicy,
    /// Keys that are known; none is the user's own file.
    pub known_hosts: Option<PathBuf>,
    /// The password.
    #[serde(skip)]
    pub password: Option<String>,
    /// The passphrase of keys.
    #[serde(skip)]
    pub passphrase: Option<String>,
    /// The password for sudo, where it is another one.
    #[serde(skip)]
    pub sudo_password: Option<String>,
}

/// root, by the agent's keys.
impl Default for Access {
    fn default() -> Self {
        Self {
            user: "root".to_owned(),
            port: 22,
            identities: Vec::new(),
            jumps: Vec::new(),
            host_keys: HostKeyPolicy::default(),
            known_hosts: None,
            password: None,
            passphrase: None,
            sudo_password: None,
        }
    }
}

/// Without the secrets.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("user", &self.user)
            .field("port", &self.port)
            .field("identities", &self.identities)
            .field("jumps", &self.jumps)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// For the SSH client.
    #[must_use]
    pub fn ssh(&self, address: IpAddr) -> SshOptions {
        let mut options = self.to(address.to_string(), self.port, &self.user);
        options.jumps = self
            .jumps
            .iter()
            .map(|jump| self.to(jump.host.clone(), jump.port, jump.user.as_ref().unwrap_or(&self.user)))
            .collect();
        options
    }

    fn to(&self, address: String, port: u16, user: &str) -> SshOptions {
        let mut options = SshOptions::new(address);
        options.port = port;
        user.clone_into(&mut options.user);
        options.identities.clone_from(&self.identities);
        options.password.clone_from(&self.password);
        options.passphrase.clone_from(&self.passphrase);
        options.sudo_password.clone_from(&self.sudo_password);
        options.host_keys = self.host_keys;
        if let Some(known_hosts) = &self.known_hosts {
            options.known_hosts.clone_from(known_hosts);
        }
        options
    }

    /// The same with the secrets of `given`, which is how this time all hosts are reached.
    fn with_secrets_of(mut self, given: &Self) -> Self {
        self.password.clone_from(&given.password);
        self.passphrase.clone_from(&given.passphrase);
        self.sudo_password.clone_from(&given.sudo_password);
        self
    }
}

/// Reads the hosts of a cluster; none when it has only the operator's own.
///
/// # Errors
/// [`ErrorKind::Integrity`] when the file is damaged.
pub(crate) fn load(path: &Path, given: &Access) -> Result<Vec<Member>> {
    let bytes = match fs::read(path) {
        Err(error) if files::is_absent(&error) => return Ok(Vec::new()),
        bytes => bytes.or_io(|| format!("cannot read {}", path.display()))?,
    };
    let members: Vec<Member> = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(ErrorKind::Integrity, format!("{} is damaged", path.display()))
            .because(error)
            .hint("put it right: it lists the hosts of the cluster")
    })?;
    let with_secrets = |member: Member| Member {
        access: member.access.with_secrets_of(given),
        ..member
    };
    Ok(members.into_iter().map(with_secrets).collect())
}

/// Writes the hosts of a cluster.
///
/// # Errors
/// Disk errors.
pub(crate) fn store(path: &Path, members: &[Member]) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(members).or_fail(ErrorKind::Internal, || "cannot write the hosts")?;
    files::keep(path, &bytes, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_stored_without_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("members.json");
        assert_eq!(load(&path, &Access::default()).unwrap(), []);
        let access = Access {
            user: "ops".into(),
            password: Some("hunter2".into()),
            ..Access::default()
        };
        let member = Member::new("10.0.0.1".parse().unwrap(), Role::Node, access.clone());
        store(&path, std::slice::from_ref(&member)).unwrap();
        let text = fs::read_to_string(&path).unwrap() + &format!("{member:?}");
        assert!(text.contains("ops") && !text.contains("hunter2"), "{text}");
        assert_eq!(load(&path, &access).unwrap(), [member]);
    }
}
