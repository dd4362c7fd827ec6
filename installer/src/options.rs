//! What the user wants, resolved: no command line types, no defaults left open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};

use serde::{Deserialize, Serialize};

use crate::approval::Approval;
use crate::apps::AppSettings;
use crate::cluster::ClusterFiles;
use crate::configuration::Configuration;
use crate::hook::{self, Hook};
use crate::member::{Member, Role};
use crate::{environment, files};

/// The most years that a certificate may be valid, and what it is when nothing is said: nobody renews one at a site without a
/// network.
pub const LONGEST_LIFE: u16 = 100;

/// How and where a ClusterImage is installed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Where sealrs keeps everything.
    #[serde(skip)]
    pub root: PathBuf,
    /// The cluster's name: its folder is `<root>/data/<cluster>`.
    #[serde(skip)]
    pub cluster: String,
    /// The name under which hosts reach the private registry.
    pub registry_domain: String,
    /// Its TCP port.
    pub registry_port: u16,
    /// For how many years the certificates are valid that sealrs makes: authorities, and the private registry's.
    pub certificate_years: u16,
    /// The hosts; none means this one alone.
    #[serde(skip)]
    pub members: Vec<Member>,
    /// This host's address, where the default route's is not the right one.
    pub host_ip: Option<IpAddr>,
    /// Environment for scripts, on top of the image's.
    pub env: BTreeMap<String, String>,
    /// Commands to run at the end instead of the image's.
    pub cmds: Option<Vec<String>>,
    /// Apps to launch instead of the image's.
    pub apps: Option<Vec<String>>,
    /// What is said of apps, by their names.
    pub app_settings: BTreeMap<String, AppSettings>,
    /// For how many seconds apps may become ready, where that is waited for.
    #[serde(skip)]
    pub wait: Option<u64>,
    /// `KEY=VALUE` each: settings for the cluster runtime, on top of the image's.
    pub runtime_config: Vec<String>,
    /// Documents of a Clusterfile that cluster runtimes read themselves, whole: each with its `apiVersion` and `kind`.
    pub runtime_documents: Vec<serde_json::Value>,
    /// What runs containers, where the cluster runtime brings nothing: `containerd` or `docker`; none is the image's.
    pub container_runtime: Option<String>,
    /// Names of addresses on all hosts.
    pub host_aliases: Vec<(IpAddr, Vec<String>)>,
    /// What is written into the rootfs, in this order.
    pub configurations: Vec<Configuration>,
    /// Scripts, besides those of the image.
    pub hooks: Vec<Hook>,
    /// The plan that was agreed to: another one is not followed.
    #[serde(skip)]
    pub approval: Option<Approval>,
    /// Only what was interrupted is gone on with.
    #[serde(skip)]
    pub resume: bool,
    #[serde(skip, default = "own_program")]
    /// The sealrs program: its copy serves the registry and supervises services.
    pub executable: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/var/lib/sealer"),
            cluster: "my-cluster".to_owned(),
            registry_domain: "sea.hub".to_owned(),
            registry_port: 5000,
            certificate_years: LONGEST_LIFE,
            members: Vec::new(),
            host_ip: None,
            env: BTreeMap::new(),
            cmds: None,
            apps: None,
            app_settings: BTreeMap::new(),
            wait: None,
            runtime_config: Vec::new(),
            runtime_documents: Vec::new(),
            container_runtime: None,
            host_aliases: Vec::new(),
            configurations: Vec::new(),
            hooks: Vec::new(),
            approval: None,
            resume: false,
            executable: own_program(),
        }
    }
}

fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Values of the environment and of the runtime's settings may be secrets: only their names are shown.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("root", &self.root)
            .field("cluster", &self.cluster)
            .field("registry", &self.registry_url())
            .field("members", &self.members)
            .field("host_ip", &self.host_ip)
            .field("env", &self.env.keys())
            .finish_non_exhaustive()
    }
}

impl Options {
    /// `domain:port` of the private registry.
    #[must_use]
    pub fn registry_url(&self) -> String {
        format!("{}:{}", self.registry_domain, self.registry_port)
    }

    /// Checks what can be checked without looking at the host.
    ///
    /// # Errors
    /// [`ErrorKind::Input`], naming the flag.
    pub fn validate(&self) -> Result<()> {
        check_cluster_name(&self.cluster)?;
        if !is_host_name(&self.registry_domain) {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`{}` is not a host name", self.registry_domain.escape_debug()),
            )
            .hint("give `--registry-domain` a DNS name such as `sea.hub`, or an IPv4 address"));
        }
        if self.registry_port == 0 {
            return Err(Error::new(ErrorKind::Input, "port 0 is no port for the registry")
                .hint("give `--registry-port` a number from 1 to 65535"));
        }
        if let Some(bad) = self.env.keys().find(|name| !is_variable_name(name)) {
            return Err(Error::new(
                ErrorKind::Input,
                format!("`{}` is not a variable's name", bad.escape_debug()),
            )
            .hint("a name has letters, digits and `_` and does not start with a digit: `-e NAME=value`"));
        }
        if let Some((name, instead)) = self.env.keys().find_map(|name| environment::set_by_sealrs(name)) {
            return Err(
                Error::new(ErrorKind::Input, format!("`{name}` is set by sealrs itself")).hint(instead.to_owned()),
            );
        }
        self.check_members()?;
        hook::check(&self.hooks, &self.all_roles())?;
        if !self.root.is_absolute() {
            return Err(Error::new(
                ErrorKind::Input,
                format!("the root {} is not an absolute path", self.root.display()),
            )
            .hint("give `--root` a path that starts with `/`"));
        }
        Ok(())
    }

    /// Keeps what was wanted of the cluster, for hosts that come later.
    ///
    /// # Errors
    /// Disk errors.
    pub(crate) fn keep(&self, cluster: &ClusterFiles) -> Result<()> {
        let bytes = serde_json::to_vec(self).or_fail(ErrorKind::Internal, || "cannot write the options")?;
        files::keep(&cluster.options(), &bytes, 0o600)
    }

    /// What was wanted of a cluster that is there.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] when it is damaged.
    pub(crate) fn kept(files: &ClusterFiles) -> Result<Self> {
        let path = files.options();
        let bytes = std::fs::read(&path).or_io(|| format!("cannot read {}", path.display()))?;
        let kept: Self = serde_json::from_slice(&bytes)
            .or_fail(ErrorKind::Integrity, || format!("{} is damaged", path.display()))?;
        Ok(Self {
            root: files.root().to_owned(),
            cluster: files.cluster().to_owned(),
            ..kept
        })
    }

    /// The member with this address.
    #[must_use]
    pub fn member(&self, address: IpAddr) -> Option<&Member> {
        self.members.iter().find(|member| member.address == address)
    }

    /// The roles of the host with this address: those that it was given, or else what it is for.
    pub(crate) fn roles(&self, address: IpAddr, role: Role) -> Vec<String> {
        match self.member(address) {
            Some(member) if !member.roles.is_empty() => member.roles.clone(),
            _ => vec![role.to_string()],
        }
    }

    fn all_roles(&self) -> Vec<String> {
        let of_members = self
            .members
            .iter()
            .flat_map(|member| self.roles(member.address, member.role));
        let mut all: Vec<String> = of_members.collect();
        if self.members.is_empty() {
            all.push(Role::Master.to_string());
        }
        all.sort();
        all.dedup();
        all
    }

    fn check_members(&self) -> Result<()> {
        let Some(first) = self.members.first() else {
            return Ok(());
        };
        let wrong = |what: String, hint: &str| Err(Error::new(ErrorKind::Input, what).hint(hint));
        if first.role != Role::Master {
            return wrong(
                "a cluster needs a master".to_owned(),
                "name at least one with `--masters`",
            );
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.members.iter().find(|member| !seen.insert(member.address)) {
            return wrong(format!("host {} is named twice", twice.address), "name each host once");
        }
        if self.host_ip.is_some() {
            return wrong(
                "`--host-ip` is for a cluster of this host alone".to_owned(),
                "leave it out: hosts have the addresses by which they are named",
            );
        }
        if self.members.len() > 1 && self.registry_domain == "localhost" {
            return wrong(
                "`localhost` is another host for each of several hosts".to_owned(),
                "choose another name with `--registry-domain`; it needs no DNS",
            );
        }
        Ok(())
    }
}

/// Cluster names become folders, unit names and markers in files.
///
/// # Errors
/// [`ErrorKind::Input`] when the name is none.
pub(crate) fn check_cluster_name(name: &str) -> Result<()> {
    let good = name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'));
    if good {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Input,
        format!("`{}` is not a name for a cluster", name.escape_debug()),
    )
    .hint("a name has up to 63 letters, digits, `-`, `_` or `.` and starts with a letter or digit"))
}

pub(crate) fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
        })
}

pub(crate) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_would_leave_their_place() {
        for bad in ["", "..", "a/b", "-x", "a b", "a\nb", &"x".repeat(64)] {
            assert!(check_cluster_name(bad).is_err(), "{bad}");
        }
        for good in ["my-cluster", "edge_1", "0.a"] {
            check_cluster_name(good).unwrap();
        }
        let domain = |domain: &str| Options {
            registry_domain: domain.to_owned(),
            ..Options::default()
        };
        for bad in ["", "a..b", "-a", "a b", "sea.hub:5000", "x\ny"] {
            assert!(domain(bad).validate().is_err(), "{bad}");
        }
        for good in ["sea.hub", "localhost", "10.0.0.1"] {
            domain(good).validate().unwrap();
        }
    }

    #[test]
    fn values_of_variables_are_not_shown() {
        let mut options = Options::default();
        options.env.insert("PASSWORD".into(), "hunter2".into());
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
