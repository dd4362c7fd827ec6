//! The cluster's environment: what scripts, hooks and commands see (sealer's names). The image's variables first,
//! then the user's, then those that sealrs sets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::error::{Error, ErrorKind, Result};

use crate::options::Options;

/// Variables by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// A variable that sealrs sets, so that no other value of it would count; and what to do instead.
pub(crate) fn set_by_sealrs(name: &str) -> Option<(&str, &'static str)> {
    let instead = match name.strip_prefix("Local").unwrap_or(name) {
        "RegistryDomain" | "RegistryPort" | "RegistryURL" | "REGISTRY_DOMAIN" | "REGISTRY_PORT" | "REGISTRY_URL" => {
            "choose the registry's address with `--registry-domain` and `--registry-port`"
        }
        "HostIP" | "HostIPFamily" | "HOST_IP" => "choose the host's address with `--host-ip`",
        "KubeSvcIP" | "DNSSvcIP" => "give the range that it is taken from: `-e SvcCIDR=10.96.0.0/22`",
        "CLUSTER" => "choose the cluster's name with `--cluster`",
        "ROOTFS" => "it follows from `--root` and `--cluster`",
        "ROLE" | "REGISTRY_CA" | "KUBECONFIG" => "leave it out, or give the variable another name",
        _ => return None,
    };
    Some((name, instead))
}

/// The environment of a cluster on the host with this address.
///
/// # Errors
/// [`ErrorKind::Input`] when `SvcCIDR` is no range of addresses.
pub(crate) fn of(image: &ClusterImage, options: &Options, host_ip: IpAddr) -> Result<Environment> {
    let mut environment = image.extension.env.clone();
    environment.extend(options.env.clone());
    if let Some(member) = options.member(host_ip) {
        environment.extend(member.env.clone());
    }
    let (domain, port) = (&options.registry_domain, options.registry_port);
    for prefix in ["LocalRegistry", "Registry"] {
        environment.insert(format!("{prefix}Domain"), domain.clone());
        environment.insert(format!("{prefix}Port"), port.to_string());
        environment.insert(format!("{prefix}URL"), options.registry_url());
    }
    environment.insert("HostIP".to_owned(), host_ip.to_string());
    if host_ip.is_ipv6() {
        environment.insert("HostIPFamily".to_owned(), "6".to_owned());
    }
    let of_image = image.labels().get(name::CONTAINER_RUNTIME_TYPE);
    if let Some(kind) = options.container_runtime.as_ref().or(of_image) {
        environment.insert("ContainerRuntime".to_owned(), kind.clone());
    }
    if let Some(ranges) = environment.get("SvcCIDR").cloned() {
        let (kubernetes, dns) = service_addresses(&ranges)?;
        environment.insert("KubeSvcIP".to_owned(), kubernetes.to_string());
        environment.insert("DNSSvcIP".to_owned(), dns.to_string());
    }
    Ok(environment)
}

/// The first and the tenth address of the first range.
fn service_addresses(ranges: &str) -> Result<(IpAddr, IpAddr)> {
    let bad = || {
        Error::new(
            ErrorKind::Input,
            format!("SvcCIDR `{}` is not a range of addresses", ranges.escape_debug()),
        )
        .hint("write it like `10.96.0.0/22`")
    };
    let first = ranges.split(',').next().unwrap_or_default().trim();
    let (net, prefix) = first.split_once('/').ok_or_else(bad)?;
    let prefix: u32 = prefix.parse().map_err(|error| bad().because(error))?;
    let at = |offset: u32| -> Result<IpAddr> {
        match net.parse().map_err(|error| bad().because(error))? {
            IpAddr::V4(net) => {
                let mask = u32::MAX
                    .checked_shl(32u32.checked_sub(prefix).ok_or_else(bad)?)
                    .unwrap_or(0);
                Ok(IpAddr::V4(Ipv4Addr::from(
                    (u32::from(net) & mask).saturating_add(offset),
                )))
            }
            IpAddr::V6(net) => {
                let mask = u128::MAX
                    .checked_shl(128u32.checked_sub(prefix).ok_or_else(bad)?)
                    .unwrap_or(0);
                Ok(IpAddr::V6(Ipv6Addr::from(
                    (u128::from(net) & mask).saturating_add(u128::from(offset)),
                )))
            }
        }
    };
    Ok((at(1)?, at(10)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sealrs_sets_is_known() {
        for own in ["RegistryURL", "LocalRegistryPort", "HostIP", "CLUSTER", "ROOTFS"] {
            assert_eq!(set_by_sealrs(own).map(|(name, _)| name), Some(own));
        }
        for other in ["SvcCIDR", "Local", "PATH", "registryurl"] {
            assert_eq!(set_by_sealrs(other), None);
        }
    }

    #[test]
    fn takes_addresses_from_the_service_range() {
        let of = |text: &str| service_addresses(text).map(|(first, tenth)| (first.to_string(), tenth.to_string()));
        assert_eq!(
            of("10.96.7.9/22,fd00::/108").unwrap(),
            ("10.96.4.1".into(), "10.96.4.10".into())
        );
        assert_eq!(of("fd00::/108").unwrap(), ("fd00::1".into(), "fd00::a".into()));
        for bad in ["", "10.96.0.0", "10.96.0.0/33", "x/8", "10.96.0.0/x"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
