//! The document `kind: Cluster`, version 2.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::secret::Secret;

/// What a cluster shall be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterSpec {
    /// The ClusterImage.
    pub image: Option<String>,
    /// `NAME=VALUE`, the last one of a name counts.
    pub env: Vec<Spanned<String>>,
    /// Arguments of commands, as sealer's files may have them.
    #[serde(rename = "cmd_args")]
    pub cmd_args: Vec<String>,
    /// Commands instead of what the image launches.
    pub cmd: Vec<String>,
    /// Apps instead of those the image launches.
    pub app_names: Option<Vec<String>>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// How all hosts are reached, unless they say otherwise.
    pub ssh: Ssh,
    /// What runs containers.
    pub container_runtime: Option<ContainerRuntime>,
    /// Names of addresses on all hosts.
    pub host_aliases: Vec<HostAlias>,
    /// Where the container images come from.
    pub registry: Registry,
    /// The folder of the cluster's data on hosts.
    pub data_root: Option<String>,
}

/// Hosts that are alike.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// Addresses and ranges of them.
    pub ips: Vec<Spanned<String>>,
    /// `master`, `node`, and names of one's own.
    pub roles: Vec<Spanned<String>>,
    /// `NAME=VALUE` for these hosts.
    pub env: Vec<Spanned<String>>,
    /// Labels of the nodes.
    pub labels: BTreeMap<String, Spanned<String>>,
    /// Taints of the nodes.
    pub taints: Vec<Spanned<String>>,
    /// How these hosts are reached.
    pub ssh: Ssh,
}

/// How hosts are reached. Of a password, only one source is given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Ssh {
    /// Whether `passwd` is encrypted as sealer does it: refused.
    pub encrypted: Option<Spanned<bool>>,
    /// The user, `root` if none.
    pub user: Option<String>,
    /// The password.
    pub passwd: Option<Spanned<Secret>>,
    /// A file with the password.
    pub passwd_file: Option<Spanned<String>>,
    /// The environment variable with the password.
    pub passwd_env: Option<Spanned<String>>,
    /// The file of the private key.
    pub pk: Option<String>,
    /// The key's passphrase.
    pub pk_passwd: Option<Spanned<Secret>>,
    /// A file with the key's passphrase.
    pub pk_passwd_file: Option<Spanned<String>>,
    /// The environment variable with the key's passphrase.
    pub pk_passwd_env: Option<Spanned<String>>,
    /// The port, 22 if none.
    pub port: Option<Spanned<String>>,
}

/// What runs containers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerRuntime {
    /// `containerd` or `docker`.
    #[serde(rename = "type")]
    pub name: Spanned<String>,
}

/// Names of an address.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostAlias {
    /// The address.
    pub ip: Spanned<String>,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// Where the container images come from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Registry {
    /// A registry on the masters.
    pub local_registry: Option<LocalRegistry>,
    /// A registry that is there.
    pub external_registry: Option<ExternalRegistry>,
}

/// A registry on the masters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalRegistry {
    /// Its name, `sea.hub` if none.
    pub domain: Option<String>,
    /// Its port, 5000 if none.
    pub port: Option<Spanned<String>>,
    /// The user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Spanned<Secret>>,
    /// Whether all masters have it.
    pub ha: Option<bool>,
    /// Whether it speaks HTTP.
    pub insecure: Option<bool>,
    /// Its certificate.
    pub cert: Certificate,
}

/// The certificate of a registry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Certificate {
    /// What else it is valid for.
    pub subject_alt_name: SubjectAltName,
}

/// What else a certificate is valid for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SubjectAltName {
    /// Names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ips: Vec<Spanned<String>>,
}

/// A registry that is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalRegistry {
    /// Its name.
    pub domain: Spanned<String>,
    /// Its port.
    #[serde(default)]
    pub port: Option<Spanned<String>>,
    /// The user.
    #[serde(default)]
    pub username: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Spanned<Secret>>,
}
