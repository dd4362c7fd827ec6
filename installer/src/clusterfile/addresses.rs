//! Addresses of hosts as people write them: `10.0.0.1,10.0.0.4-10.0.0.40,10.0.0.50-59,fd00::1`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// More hosts than this are a slip in a range.
pub const MOST: u128 = 5000;

/// Addresses in the order they were written, none twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(Vec<IpAddr>);

impl Addresses {
    /// The addresses.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.0
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut seen = BTreeSet::new();
        let mut addresses = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = ends(part)?;
            let count = (number(last) - number(first)).saturating_add(1);
            if count.saturating_add(addresses.len() as u128) > MOST {
                return Err(format!("`{text}` are more than {MOST} addresses"));
            }
            for step in 0..count {
                let address = nth(first, step);
                usable(address)?;
                if !seen.insert(address) {
                    return Err(format!("{address} is in it twice"));
                }
                addresses.push(address);
            }
        }
        Ok(Self(addresses))
    }
}

/// The first and the last address of a part; both are of one family and in order.
fn ends(part: &str) -> Result<(IpAddr, IpAddr), String> {
    let Some((first, last)) = part.split_once('-') else {
        let address = address(part)?;
        return Ok((address, address));
    };
    let first = address(first.trim())?;
    let last = match (first, last.trim().parse::<u8>()) {
        (IpAddr::V4(first), Ok(end)) => {
            let [a, b, c, _] = first.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, end))
        }
        _ => address(last.trim())?,
    };
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!(
            "`{part}` begins as IPv4 and ends as IPv6, or the other way round"
        ));
    }
    if last < first {
        return Err(format!("`{part}` ends before it begins"));
    }
    Ok((first, last))
}

fn address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) if text.is_empty() => Err("an address is missing".to_owned()),
        Err(_) => Err(format!("`{text}` is no IP address")),
    }
}

fn usable(address: IpAddr) -> Result<(), String> {
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{address} is not the address of a host"));
    }
    Ok(())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address `step` after `first`; the caller knows that there is one.
fn nth(first: IpAddr, step: u128) -> IpAddr {
    match first {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().wrapping_add(step as u32))),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().wrapping_add(step))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Result<Vec<String>, String> {
        let addresses: Addresses = text.parse()?;
        Ok(addresses.as_slice().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_and_ranges() {
        for (text, expected) in [
            ("10.0.0.1", vec!["10.0.0.1"]),
            ("10.0.0.3, 10.0.0.1", vec!["10.0.0.3", "10.0.0.1"]),
            ("10.0.0.255-10.0.1.1", vec!["10.0.0.255", "10.0.1.0", "10.0.1.1"]),
            ("10.0.0.4-5,10.0.0.9", vec!["10.0.0.4", "10.0.0.5", "10.0.0.9"]),
            ("fd00::ff-fd00::100", vec!["fd00::ff", "fd00::100"]),
            ("::ffff:10.0.0.1", vec!["10.0.0.1"]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(listed(text), Ok(expected), "{text}");
        }
        assert_eq!(listed("10.0.0.4-10.0.0.40").unwrap().len(), 37);
    }

    #[test]
    fn slips_are_told() {
        for (text, expected) in [
            ("", "an address is missing"),
            ("10.0.0.1,", "an address is missing"),
            ("10.0.0", "`10.0.0` is no IP address"),
            ("10.0.0.1-", "an address is missing"),
            ("10.0.0.1-256", "`256` is no IP address"),
            ("10.0.0.9-10.0.0.1", "`10.0.0.9-10.0.0.1` ends before it begins"),
            ("10.0.0.1-2,10.0.0.2", "10.0.0.2 is in it twice"),
            ("::ffff:10.0.0.1,10.0.0.1", "10.0.0.1 is in it twice"),
            ("0.0.0.0", "0.0.0.0 is not the address of a host"),
            ("224.0.0.1", "224.0.0.1 is not the address of a host"),
            (
                "10.0.0.0-10.255.0.0",
                "`10.0.0.0-10.255.0.0` are more than 5000 addresses",
            ),
            (
                "10.0.0.1-fd00::1",
                "`10.0.0.1-fd00::1` begins as IPv4 and ends as IPv6, or the other way round",
            ),
        ] {
            assert_eq!(listed(text), Err(expected.to_owned()), "{text}");
        }
        let all = "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert!(listed(all).unwrap_err().contains("more than"));
    }
}
