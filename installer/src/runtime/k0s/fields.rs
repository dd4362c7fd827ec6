//! Checks a `ClusterConfig` against all fields that it has. k0s itself lets errors pass in `api`, `network`, `storage` and
//! `images`, and starts with its defaults in their place.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sealrs_image::suggest;
use serde_json::Value;

use crate::options::is_host_name;

/// The newest k0s whose fields are listed: what a newer one has is not known.
pub(super) const NEWEST: (u32, u32) = (1, 36);

fn table() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("config-fields.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
}

/// What is wrong with the `spec` of a `ClusterConfig`: each with its place. Unknown fields come second.
pub(super) fn check(spec: &Value) -> (Vec<String>, Vec<String>) {
    let mut found = Found::default();
    found.look(spec, "", "spec");
    (found.wrong, found.unknown)
}

#[derive(Debug, Default)]
struct Found {
    wrong: Vec<String>,
    unknown: Vec<String>,
}

impl Found {
    /// `path` is the place in the table, `place` the one for people.
    fn look(&mut self, value: &Value, path: &str, place: &str) {
        if value.is_null() {
            return;
        }
        if let Some((_, kind)) = table().find(|(known, _)| *known == path) {
            if let Some(wanted) = kind_fault(kind, value) {
                self.wrong.push(format!("`{place}` takes {wanted}, not `{value}`"));
            }
            return;
        }
        match value {
            Value::Object(fields) => {
                if table().any(|(known, _)| known.starts_with(&format!("{path}[]"))) {
                    self.wrong.push(format!("`{place}` takes a list"));
                    return;
                }
                let names = names_below(path);
                for (name, value) in fields {
                    let place = format!("{place}.{name}");
                    if names.contains(name.as_str()) {
                        let path = if path.is_empty() {
                            name.clone()
                        } else {
                            format!("{path}.{name}")
                        };
                        self.look(value, &path, &place);
                    } else {
                        let nearest = suggest::nearest(name, names.iter().copied());
                        let hint = nearest.map_or_else(String::new, |nearest| format!(": did you mean `{nearest}`?"));
                        self.unknown
                            .push(format!("there is no `{}`{hint}", place.escape_debug()));
                    }
                }
            }
            Value::Array(items) => {
                let path = format!("{path}[]");
                if !table().any(|(known, _)| known.starts_with(&path)) {
                    self.wrong.push(format!("`{place}` takes no list"));
                    return;
                }
                for (number, item) in items.iter().enumerate() {
                    let place = format!("{place}[{number}]");
                    if item.is_object() {
                        self.look(item, &path, &place);
                    } else {
                        self.wrong.push(format!("`{place}` takes fields, not `{item}`"));
                    }
                }
            }
            other => self.wrong.push(format!("`{place}` takes fields, not `{other}`")),
        }
    }
}

/// The names of the fields right below a place.
fn names_below(path: &str) -> BTreeSet<&'static str> {
    table()
        .filter_map(|(known, _)| {
            let rest = if path.is_empty() {
                known
            } else {
                known.strip_prefix(path)?.strip_prefix('.')?
            };
            rest.split(['.', '[']).next()
        })
        .collect()
}

/// What a field of this kind takes instead, in words.
fn kind_fault(kind: &str, value: &Value) -> Option<String> {
    if let Some(kind) = kind.strip_prefix("list-of ") {
        let Value::Array(items) = value else {
            return Some("a list".to_owned());
        };
        return items.iter().find_map(|item| kind_fault(kind, item));
    }
    if let Some(kind) = kind.strip_prefix("map-of ") {
        let Value::Object(fields) = value else {
            return Some("names with values".to_owned());
        };
        return fields.values().find_map(|field| kind_fault(kind, field));
    }
    if let Some(choices) = kind.strip_prefix("one-of ") {
        let good = value
            .as_str()
            .is_some_and(|text| choices.split('|').any(|choice| choice == text));
        return (!good).then(|| format!("one of {}", choices.replace('|', ", ")));
    }
    let text = value.as_str();
    let (good, wanted) = match kind {
        "any" => (true, ""),
        "bool" => (value.is_boolean(), "true or false"),
        "int" => (value.is_i64(), "a number"),
        "port" => (
            value.as_u64().is_some_and(|port| (1..=65535).contains(&port)),
            "a port from 1 to 65535",
        ),
        "ip" => (text.is_some_and(|text| text.parse::<IpAddr>().is_ok()), "an IP address"),
        "host" => (text.is_some_and(is_host), "a host's name or address, without scheme"),
        "cidr" => (text.is_some_and(is_range), "a range of addresses such as 10.244.0.0/16"),
        "duration" => (text.is_some_and(is_duration), "a time such as `1h30m`"),
        "image" => (text.is_some_and(is_image_name), "an image's name without tag"),
        "source" => (
            text.is_some_and(|text| {
                let schemes = ["mysql://", "postgres://", "postgresql://", "sqlite://", "nats://"];
                let plain = |letter: char| !letter.is_control() && !"\"\\".contains(letter);
                schemes.iter().any(|scheme| text.starts_with(scheme)) && text.chars().all(plain)
            }),
            "a data source such as `mysql://USER:PASSWORD@tcp(HOST:3306)/kine`",
        ),
        "url" => (
            text.is_some_and(|text| text.starts_with("https://") || text.starts_with("http://")),
            "a URL such as `https://HOST:2379`",
        ),
        _ => (text.is_some(), "a text: put it in quotes"),
    };
    (!good).then(|| wanted.to_owned())
}

fn is_host(text: &str) -> bool {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let (name, port) = match bare.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, port),
        _ => (bare, "1"),
    };
    bare.parse::<IpAddr>().is_ok() || (is_host_name(name) && port.parse::<u16>().is_ok())
}

fn is_range(text: &str) -> bool {
    range(text).is_some()
}

fn range(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (IpAddr, u32) = (address.parse().ok()?, bits.parse().ok()?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

/// Whether two ranges have addresses in common.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (Some((one, bits)), Some((other, more))) = (range(one), range(other)) else {
        return false;
    };
    let bits = bits.min(more);
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let start = |address: std::net::Ipv4Addr| u32::from(address).checked_shr(32 - bits).unwrap_or(0);
            start(one) == start(other)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let start = |address: std::net::Ipv6Addr| u128::from(address).checked_shr(128 - bits).unwrap_or(0);
            start(one) == start(other)
        }
        _ => false,
    }
}

/// A time as Go reads it.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let Some((_, unit)) = number.filter(|&at| at > 0).and_then(|at| rest.split_at_checked(at)) else {
            return false;
        };
        let units = ["ns", "us", "µs", "ms", "h", "m", "s"];
        let Some(after) = units.iter().find_map(|known| unit.strip_prefix(known)) else {
            return false;
        };
        rest = after;
    }
    !text.is_empty()
}

fn is_image_name(text: &str) -> bool {
    let last = text.rsplit('/').next().unwrap_or_default();
    !last.contains(':') && text.parse::<sealrs_image::reference::Reference>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_what_k0s_lets_pass() {
        for (spec, says) in [
            (
                json!({"api": {"adress": "10.0.0.1"}}),
                "there is no `spec.api.adress`: did you mean `address`?",
            ),
            (json!({"api": {"ca": {"expires": "1h"}}}), "`spec.api.ca.expires`"),
            (
                json!({"network": {"kubeProxy": {"mod": "x"}}}),
                "`spec.network.kubeProxy.mod`",
            ),
            (
                json!({"storage": {"etcd": {"peerAdress": "x"}}}),
                "did you mean `peerAddress`?",
            ),
            (json!({"images": {"repo": "x"}}), "`spec.images.repo`"),
            (json!({"api": {"externalAddress": "https://x"}}), "without scheme"),
            (
                json!({"storage": {"etcd": {"peerAddress": "foo bar"}}}),
                "an IP address",
            ),
            (
                json!({"storage": {"type": "kine", "kine": {"dataSource": "bogus://x"}}}),
                "a data source",
            ),
            (json!({"storage": {"type": "sqlite"}}), "one of etcd, kine"),
            (json!({"images": {"pause": {"image": "UPPER/x"}}}), "an image's name"),
            (json!({"api": {"extraArgs": {"x": 30}}}), "put it in quotes"),
            (json!({"api": {"port": 70000}}), "a port"),
            (json!({"network": {"podCIDR": "10.244.0.0/33"}}), "a range"),
            (json!({"network": []}), "takes no list"),
            (json!({"workerProfiles": {"name": "x"}}), "takes a list"),
            (
                json!({"workerProfiles": [{"nam": "x"}]}),
                "`spec.workerProfiles[0].nam`",
            ),
            (json!({"api": {"ca": {"expiresAfter": "1 day"}}}), "a time"),
            (json!("x"), "takes fields"),
        ] {
            let (wrong, unknown) = check(&spec);
            let all = [wrong, unknown].concat();
            assert_eq!(all.len(), 1, "{spec}: {all:?}");
            assert!(all[0].contains(says), "{spec}: {all:?}");
        }
    }

    #[test]
    fn takes_what_k0s_takes() {
        let spec = json!({
            "api": {"address": "10.0.0.1", "sans": ["a.b", "fd00::1"], "externalAddress": "lb.example",
                    "extraArgs": {"v": "2"}, "ca": {"expiresAfter": "87600h0m0s"}},
            "storage": {"type": "kine", "kine": {"dataSource": "mysql://u:p@tcp(db:3306)/kine"}},
            "images": {"repository": "sea.hub:5000", "pause": {"image": "quay.io/k0sproject/pause", "version": "3.10"}},
            "network": {"dualStack": {"enabled": false}, "provider": "custom", "kubeProxy": {"disabled": true}},
            "workerProfiles": [{"name": "x", "values": {"anything": [1]}}],
            "extensions": null,
        });
        assert_eq!(check(&spec), (Vec::new(), Vec::new()));
        assert!(table().count() > 195);
        assert!(overlap("10.96.0.0/12", "10.100.0.0/16"));
        assert!(!overlap("10.96.0.0/12", "10.244.0.0/16"));
        assert!(overlap("0.0.0.0/0", "10.0.0.0/8"));
    }
}
