//! The document `kind: Cluster`, version 1, which becomes one of version 2.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};

use super::cluster::{ClusterSpec, Host, Ssh};
use super::mistakes::Mistakes;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ClusterSpecV1 {
    image: Option<String>,
    env: Vec<Spanned<String>>,
    provider: Option<Spanned<String>>,
    ssh: Ssh,
    network: Network,
    #[serde(rename = "certSANS")]
    cert_sans: Vec<String>,
    masters: Hosts,
    nodes: Hosts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Network {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "svcCIDR")]
    svc_cidr: Option<String>,
}

/// All but the addresses was for machines in a cloud.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Hosts {
    ip_list: Vec<Spanned<String>>,
    #[serde(rename = "cpu")]
    _cpu: Option<IgnoredAny>,
    #[serde(rename = "memory")]
    _memory: Option<IgnoredAny>,
    #[serde(rename = "count")]
    _count: Option<IgnoredAny>,
    #[serde(rename = "systemDisk")]
    _system_disk: Option<IgnoredAny>,
    #[serde(rename = "dataDisks")]
    _data_disks: Option<IgnoredAny>,
}

impl ClusterSpecV1 {
    /// The same cluster in version 2; `place` is that of the document.
    pub(super) fn convert(self, place: Location, mistakes: &mut Mistakes<'_>) -> ClusterSpec {
        if let Some(provider) = self.provider.filter(|provider| provider.value != "BAREMETAL") {
            mistakes.at(
                provider.referenced,
                format!("hosts of provider `{}` can't be made", provider.value),
                "write `BAREMETAL` and the addresses of hosts that are there",
            );
        }
        let spanned = |text: String| Spanned::new(text, place, place);
        let sans = Some(self.cert_sans.join(",")).filter(|sans| !sans.is_empty());
        // What `env` says itself comes later, and counts.
        let mut env: Vec<Spanned<String>> = [
            ("PodCIDR", self.network.pod_cidr),
            ("SvcCIDR", self.network.svc_cidr),
            ("CertSANs", sans),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some(spanned(format!("{name}={}", value?))))
        .collect();
        env.extend(self.env);
        let hosts = [("master", self.masters), ("node", self.nodes)]
            .into_iter()
            .filter(|(_, hosts)| !hosts.ip_list.is_empty())
            .map(|(role, hosts)| Host {
                ips: hosts.ip_list,
                roles: vec![spanned(role.to_owned())],
                ..Host::default()
            })
            .collect();
        ClusterSpec {
            image: self.image,
            env,
            hosts,
            ssh: self.ssh,
            ..ClusterSpec::default()
        }
    }
}
