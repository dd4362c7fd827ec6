//! How this host finds the registry by its name.

use std::net::IpAddr;

use crate::facts::HostFacts;

/// How hosts find the registry by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The name leads to this host already.
    Known,
    /// It has to be written into the hosts file.
    HostsFile,
    /// It leads elsewhere, and says where.
    Elsewhere(IpAddr),
    /// It leads nowhere, and the hosts file can't be changed.
    Unwritable,
}

/// How the registry's name is found on this host; `registry` is the address of the one that has it.
pub(crate) fn naming(facts: &HostFacts, domain: &str, registry: IpAddr) -> Naming {
    if domain == "localhost" {
        return Naming::Known;
    }
    let is_right = |ip: IpAddr| ip == registry || facts.has_address(registry) && facts.has_address(ip);
    let leads_to = |ip: IpAddr| {
        if is_right(ip) {
            Naming::Known
        } else {
            Naming::Elsewhere(ip)
        }
    };
    if let Ok(ip) = domain.parse() {
        return leads_to(ip);
    }
    let line = facts
        .hosts
        .iter()
        .find(|line| line.names.iter().any(|name| name.eq_ignore_ascii_case(domain)));
    match (line, facts.registry_addresses.as_slice()) {
        // The line of another cluster goes with that cluster.
        (Some(line), _) if line.cluster.is_some() && facts.hosts_writable && is_right(line.ip) => Naming::HostsFile,
        (Some(line), _) => leads_to(line.ip),
        (None, _) if facts.hosts_writable => Naming::HostsFile,
        (None, [first, ..]) => leads_to(*first),
        (None, []) => Naming::Unwritable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::HostsLine;
    use crate::facts::tests::server;

    #[test]
    fn finds_out_how_the_registry_is_found() {
        let naming = |facts: &HostFacts, domain: &str| naming(facts, domain, "10.88.0.11".parse().unwrap());
        let mut facts = server();
        assert_eq!(naming(&facts, "localhost"), Naming::Known);
        assert_eq!(naming(&facts, "10.88.0.11"), Naming::Known);
        let elsewhere = "10.88.0.12".parse().unwrap();
        assert_eq!(naming(&facts, "10.88.0.12"), Naming::Elsewhere(elsewhere));
        assert_eq!(naming(&facts, "sea.hub"), Naming::HostsFile);
        facts.hosts_writable = false;
        assert_eq!(naming(&facts, "sea.hub"), Naming::Unwritable);
        facts.registry_addresses = vec!["10.88.0.11".parse().unwrap()];
        assert_eq!(naming(&facts, "sea.hub"), Naming::Known);
        facts.hosts = vec![HostsLine {
            ip: elsewhere,
            names: vec!["x".into(), "Sea.Hub".into()],
            cluster: Some("other".into()),
        }];
        assert_eq!(naming(&facts, "sea.hub"), Naming::Elsewhere(elsewhere));
        // Another cluster's line may go any time; one's own stays.
        facts.hosts[0].ip = "10.88.0.11".parse().unwrap();
        assert_eq!(naming(&facts, "sea.hub"), Naming::Known);
        facts.hosts_writable = true;
        assert_eq!(naming(&facts, "sea.hub"), Naming::HostsFile);
        facts.hosts[0].cluster = None;
        assert_eq!(naming(&facts, "sea.hub"), Naming::Known);
    }

    #[test]
    fn another_hosts_registry_is_there_and_not_here() {
        let mut facts = server();
        let registry: IpAddr = "10.88.0.12".parse().unwrap();
        assert_eq!(naming(&facts, "10.88.0.12", registry), Naming::Known);
        assert_eq!(
            naming(&facts, "10.88.0.11", registry),
            Naming::Elsewhere("10.88.0.11".parse().unwrap())
        );
        assert_eq!(naming(&facts, "sea.hub", registry), Naming::HostsFile);
        facts.hosts = vec![HostsLine {
            ip: registry,
            names: vec!["sea.hub".into()],
            cluster: None,
        }];
        assert_eq!(naming(&facts, "sea.hub", registry), Naming::Known);
    }
}
