//! Rules of the hosts of a Clusterfile.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sealrs_image::suggest::nearest;
use serde_saphyr::Location;

use super::addresses::Addresses;
use super::cluster::{ClusterSpec, Host, Ssh};
use super::label;
use super::mistakes::Mistakes;
use super::rules::{one_source, port, report};

/// Of an even number of masters no more can fail than of one less.
pub(super) fn odd_masters(spec: &ClusterSpec, mistakes: &mut Mistakes<'_>) {
    let masters = spec
        .hosts
        .iter()
        .filter(|host| host.roles.iter().any(|role| role.value == "master"));
    let ips: Vec<_> = masters.flat_map(|host| &host.ips).collect();
    let parsed = ips.iter().filter_map(|ips| ips.value.parse::<Addresses>().ok());
    let count: usize = parsed.map(|addresses| addresses.as_slice().len()).sum();
    if let Some(first) = ips.first().filter(|_| count > 0 && count.is_multiple_of(2)) {
        let message = format!(
            "there are {count} masters: no more of them may fail than of {}",
            count - 1
        );
        let hint = "take an odd number, unless the cluster's data is in a database outside of it";
        mistakes.warn(first.referenced, message, hint);
    }
}

pub(super) fn addresses(
    host: &Host,
    place: Location,
    seen: &mut BTreeMap<IpAddr, Location>,
    mistakes: &mut Mistakes<'_>,
) {
    if host.ips.is_empty() {
        let place = host.roles.first().map_or(place, |role| role.referenced);
        mistakes.absent(place, "a host has no address", "add `ips`");
    }
    for ips in &host.ips {
        let parsed = match ips.value.parse::<Addresses>() {
            Ok(parsed) => parsed,
            Err(message) => {
                mistakes.at(
                    ips.referenced,
                    message,
                    "write an address, or a range as `10.0.0.4-10.0.0.40`",
                );
                continue;
            }
        };
        for &address in parsed.as_slice() {
            if seen
                .keys()
                .next()
                .is_some_and(|first| first.is_ipv4() != address.is_ipv4())
            {
                let message = format!("{address} is not of the same family as the hosts before it");
                mistakes.at(
                    ips.referenced,
                    message,
                    "give all hosts IPv4 addresses, or all of them IPv6",
                );
                break;
            }
            if let Some(other) = seen.insert(address, ips.referenced) {
                let message = format!("the host {address} is there already, in line {}", other.line());
                mistakes.at(ips.referenced, message, "name each host once, with all its roles");
            }
        }
    }
}

pub(super) fn roles(host: &Host, place: Location, mistakes: &mut Mistakes<'_>) {
    const KNOWN: [&str; 2] = ["master", "node"];
    if host.roles.is_empty() {
        let place = host.ips.first().map_or(place, |ip| ip.referenced);
        mistakes.absent(place, "a host has no role", "add `roles: [master]` or `roles: [node]`");
    }
    let joins = host.roles.iter().any(|role| KNOWN.contains(&role.value.as_str()));
    for role in &host.roles {
        // Roles of one's own are welcome: only where no other role is known may one of them be a slip.
        if let Some(near) = nearest(&role.value, KNOWN).filter(|_| !joins) {
            let message = format!("there is no role `{}`", role.value);
            mistakes.at(role.referenced, message, format!("did you mean `{near}`?"));
        } else {
            report(
                role,
                label::key(&role.value),
                "roles become labels of the node",
                mistakes,
            );
        }
    }
}

pub(super) fn ssh(ssh: &Ssh, mistakes: &mut Mistakes<'_>) {
    if let Some(encrypted) = ssh.encrypted.as_ref().filter(|encrypted| encrypted.value) {
        let hint = "its key is public: use `passwdFile` or `passwdEnv`";
        mistakes.at(encrypted.referenced, "sealer's encryption is not supported", hint);
    }
    port(ssh.port.as_ref(), mistakes);
    let sources = [
        ("passwd", &ssh.passwd, &ssh.passwd_file, &ssh.passwd_env),
        ("pkPasswd", &ssh.pk_passwd, &ssh.pk_passwd_file, &ssh.pk_passwd_env),
    ];
    for (name, clear, file, env) in sources {
        one_source(name, clear.as_ref(), [file, env], mistakes);
    }
}
