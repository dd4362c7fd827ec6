//! Addresses, routes and names of this host, read from /proc and the hosts file: no program is needed for it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _, UdpSocket};

use serde::{Deserialize, Serialize};

use crate::hosts_file;

/// An address of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The interface that has it, if that is known.
    pub interface: Option<String>,
}

impl Address {
    /// Whether the interface looks like one that container software made.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        const MADE: [&str; 9] = [
            "docker", "br-", "cni", "veth", "virbr", "flannel", "cali", "kube", "lxc",
        ];
        self.interface
            .as_deref()
            .is_some_and(|name| MADE.iter().any(|start| name.starts_with(start)))
    }
}

/// An address of the hosts file with its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsLine {
    /// The address.
    pub ip: IpAddr,
    /// The names, as they stand there.
    pub names: Vec<String>,
    /// The cluster in whose block it is.
    pub cluster: Option<String>,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The interface that packets leave by.
    pub interface: String,
    /// Where it leads.
    pub destination: IpAddr,
    /// How many bits of that count.
    pub prefix: u32,
}

pub(super) fn routes() -> Vec<Route> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut routes = parse_routes(&read("/proc/net/route"));
    routes.extend(parse_routes_v6(&read("/proc/net/ipv6_route")));
    routes
}

pub(super) fn has_default_route(routes: &[Route]) -> bool {
    routes.iter().any(|route| route.prefix == 0)
}

pub(super) fn addresses(routes: &[Route]) -> Vec<Address> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut addresses: Vec<Address> = parse_fib_trie(&read("/proc/net/fib_trie"))
        .into_iter()
        .map(|ip| Address {
            ip: IpAddr::V4(ip),
            interface: interface_of(ip, routes),
        })
        .collect();
    addresses.extend(parse_if_inet6(&read("/proc/net/if_inet6")));
    addresses
}

/// The interface whose subnet holds the address: the narrowest, as the kernel chooses.
fn interface_of(ip: Ipv4Addr, routes: &[Route]) -> Option<String> {
    routes
        .iter()
        .filter_map(|route| match route.destination {
            IpAddr::V4(net) if route.prefix > 0 => Some((route, net)),
            _ => None,
        })
        .filter(|(route, net)| {
            let mask = u32::MAX.checked_shl(32 - route.prefix).unwrap_or(0);
            u32::from(*net) & mask == u32::from(ip) & mask
        })
        .max_by_key(|(route, _)| route.prefix)
        .map(|(route, _)| route.interface.clone())
}

/// The source address of packets to the world. Connecting a UDP socket sends nothing.
pub(super) fn default_address() -> Option<IpAddr> {
    let source = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses for documentation (RFC 5737, RFC 3849): nothing but a default route leads there.
    source("0.0.0.0:0", "192.0.2.1:9")
        .or_else(|| source("[::]:0", "[2001:db8::1]:9"))
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// What a name resolves to; nothing when it does not.
pub(super) fn resolve(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs();
    found.map_or_else(
        |_| Vec::new(),
        |addresses| addresses.map(|address| address.ip()).collect(),
    )
}

/// Whether a host name needs no name service.
pub(crate) fn is_address_or_localhost(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

/// /proc/net/route: hexadecimal numbers in the host's byte order.
fn parse_routes(text: &str) -> Vec<Route> {
    let number = |field: Option<&str>| {
        let number = u32::from_str_radix(field?, 16).ok()?;
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    };
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some(Route {
                interface: (*fields.first()?).to_owned(),
                destination: IpAddr::V4(number(fields.get(1).copied())?),
                prefix: u32::from(number(fields.get(7).copied())?).count_ones(),
            })
        })
        .collect()
}

/// /proc/net/ipv6_route: destination, prefix length, source, its prefix length, next hop, metric, references, use,
/// flags, interface.
fn parse_routes_v6(text: &str) -> Vec<Route> {
    /// `RTF_REJECT` of linux/ipv6_route.h: a route to nowhere.
    const REJECT: u32 = 0x200;
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let interface = *fields.get(9)?;
            let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
            if interface == "lo" || flags & REJECT != 0 {
                return None;
            }
            Some(Route {
                interface: interface.to_owned(),
                destination: IpAddr::V6(parse_v6(fields.first()?)?),
                prefix: u32::from_str_radix(fields.get(1)?, 16).ok()?,
            })
        })
        .collect()
}

/// /proc/net/fib_trie: a `/32 host LOCAL` leaf is an address of this host.
fn parse_fib_trie(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut leaf = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(ip) = leaf.filter(|ip| !ip.is_loopback())
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}

/// /proc/net/if_inet6: address, interface number, prefix length, scope, flags, interface. Scope 0 is global.
fn parse_if_inet6(text: &str) -> Vec<Address> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if *fields.get(3)? != "00" {
                return None;
            }
            Some(Address {
                ip: IpAddr::V6(parse_v6(fields.first()?)?),
                interface: fields.get(5).map(|&name| name.to_owned()),
            })
        })
        .collect()
}

fn parse_v6(hex: &str) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?))
}

/// hosts(5).
pub(crate) fn parse_hosts(text: &str) -> Vec<HostsLine> {
    let mut cluster = None;
    text.lines()
        .filter_map(|line| {
            if let Some(of) = hosts_file::marked(line) {
                cluster = of.map(str::to_owned);
            }
            let mut words = line.split('#').next()?.split_whitespace();
            Some(HostsLine {
                ip: words.next()?.parse().ok()?,
                names: words.map(str::to_owned).collect(),
                cluster: cluster.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let routes = parse_routes(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t0100580A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t0000580A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n",
        );
        assert!(has_default_route(&routes));
        assert!(!has_default_route(&routes[1..]));
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
             |-- 10.88.0.11\n        /32 host LOCAL\nLocal:\n     |-- 127.0.0.1\n        /32 host LOCAL\n     \
             |-- 10.88.0.11\n        /32 host LOCAL\n     |-- 172.17.0.1\n        /32 host LOCAL\n     \
             |-- 172.17.255.255\n        /32 link BROADCAST\n";
        let found = parse_fib_trie(trie);
        assert_eq!(found, [Ipv4Addr::new(10, 88, 0, 11), Ipv4Addr::new(172, 17, 0, 1)]);
        assert_eq!(interface_of(found[0], &routes).as_deref(), Some("eth0"));
        assert_eq!(interface_of(found[1], &routes).as_deref(), Some("docker0"));
        let v6 = parse_if_inet6(
            "00000000000000000000000000000001 01 80 10 80       lo\n\
             fe80000000000000000000fffe000001 02 40 20 80     eth0\n\
             20010db8000000000000000000000005 02 40 00 80     eth0\n",
        );
        assert_eq!(v6.len(), 1);
        assert_eq!(v6[0].ip.to_string(), "2001:db8::5");
        let zero = "0".repeat(32);
        let reject = format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n");
        assert!(parse_routes_v6(&reject).is_empty());
        let real = format!(
            "{zero} 00 {zero} 00 fe80000000000000000000fffe000001 00000400 00000001 00000000 00000003     eth0\n"
        );
        assert!(has_default_route(&parse_routes_v6(&real)));
    }

    #[test]
    fn reads_a_hosts_file() {
        let lines = parse_hosts(
            "127.0.0.1 localhost # me\n\n# BEGIN sealrs c\n10.0.0.1\tsea.hub a\n# END sealrs c\nbroken x\n::1 b\n",
        );
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].names, ["sea.hub", "a"]);
        let clusters: Vec<_> = lines.iter().map(|line| line.cluster.as_deref()).collect();
        assert_eq!(clusters, [None, Some("c"), None]);
    }
}
