//! What stands against hosts being in one cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Finding;
use crate::facts::System;
use crate::member::Role;

/// Clocks that are this many milliseconds apart keep hosts from trusting each other, and this many are a sign.
const APART: (i64, i64) = (30_000, 5_000);

/// A host as the others see it.
#[derive(Debug, Clone)]
pub(crate) struct Neighbour {
    pub(crate) host: IpAddr,
    pub(crate) role: Role,
    pub(crate) hostname: String,
    /// What was seen of it now; nothing of a host that was a member before.
    pub(crate) seen: Option<Seen>,
}

/// What was seen of a host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// What tells hosts apart that were copied.
    pub(crate) machine_id: String,
    /// Milliseconds that its clock is ahead of the operator's, and how sure that is.
    pub(crate) ahead: (i64, i64),
    /// Whether something keeps its clock right.
    pub(crate) keeps_time: bool,
}

impl Seen {
    /// What a host said of itself, asked and answered at these times of the operator's clock.
    pub(crate) fn new(system: &System, asked: u64, answered: u64) -> Self {
        let number = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        // It looks at its clock at the very end.
        let sure = number(answered.saturating_sub(asked));
        Self {
            machine_id: system.machine_id.clone(),
            ahead: (number(system.clock).saturating_sub(number(answered)), sure),
            keeps_time: ["chronyd", "ntpd", "openntpd", "systemd-timesyn"]
                .iter()
                .any(|name| system.processes.contains(*name)),
        }
    }
}

/// What stands against these hosts being in one cluster.
pub(crate) fn together(hosts: &[Neighbour], quorum: bool) -> Vec<Finding> {
    let mut found = doubles(
        hosts.iter().map(|host| (host.host, host.hostname.to_ascii_lowercase())),
        |first, name| {
            Finding::error(
                "hostname",
                format!("it has the same name as {first}: {name}"),
                "give one of them another name with `hostnamectl hostname NAME`",
            )
        },
    );
    let ids = hosts
        .iter()
        .filter_map(|host| Some((host.host, host.seen.as_ref()?.machine_id.clone())));
    found.extend(doubles(ids, |first, _| {
        Finding::warning(
            "machine-id",
            format!("it has the same machine-id as {first}, as copies have"),
            "`rm /etc/machine-id && systemd-machine-id-setup`, and reboot",
        )
    }));
    found.extend(clocks(hosts));
    let masters = hosts.iter().filter(|host| host.role == Role::Master).count();
    if quorum && masters > 0 && masters.is_multiple_of(2) {
        let one_less = masters.saturating_sub(1);
        found.push(Finding::warning(
            "masters",
            format!(
                "{masters} masters bear the loss of {}, no more than {one_less} do",
                one_less / 2
            ),
            "take an odd number",
        ));
    }
    found
}

/// Hosts of which another one before them has the same.
fn doubles(hosts: impl Iterator<Item = (IpAddr, String)>, finding: impl Fn(IpAddr, &str) -> Finding) -> Vec<Finding> {
    let mut known: BTreeMap<String, IpAddr> = BTreeMap::new();
    let mut found = Vec::new();
    for (host, word) in hosts.filter(|(_, word)| !word.is_empty()) {
        match known.get(&word) {
            Some(first) => found.push(finding(*first, &word).on(host)),
            None => drop(known.insert(word, host)),
        }
    }
    found
}

/// Clocks are compared with the one in the middle; of two hosts, with that of the operator, where certificates are made.
fn clocks(hosts: &[Neighbour]) -> Vec<Finding> {
    let seen: Vec<(IpAddr, &Seen)> = hosts
        .iter()
        .filter_map(|host| Some((host.host, host.seen.as_ref()?)))
        .collect();
    let mut found = Vec::new();
    let mut all: Vec<i64> = seen.iter().map(|(_, seen)| seen.ahead.0).chain([0]).collect();
    all.sort_unstable();
    let middle = match seen.len() {
        0..=2 => 0,
        _ => all.get(all.len() / 2).copied().unwrap_or(0),
    };
    let reference = match seen.len() {
        0..=2 => "that of this machine",
        _ => "most others",
    };
    for (host, of_host) in &seen {
        let (ahead, sure) = of_host.ahead;
        let finding = clock("its clock", ahead.saturating_sub(middle), sure, reference);
        found.extend(finding.map(|finding| finding.on(*host)));
    }
    // What this machine's clock says is in the certificates that it makes.
    found.extend(clock(
        "the clock of this machine, where sealrs runs,",
        0_i64.saturating_sub(middle),
        0,
        "those of the hosts",
    ));
    if seen.len() > 1 {
        let alone = seen.iter().filter(|(_, seen)| !seen.keeps_time);
        found.extend(alone.map(|(host, _)| {
            Finding::warning(
                "time-service",
                "nothing keeps its clock right",
                "install chrony, with a server that all hosts reach",
            )
            .on(*host)
        }));
    }
    found
}

fn clock(whose: &str, ahead: i64, sure: i64, reference: &str) -> Option<Finding> {
    let apart = ahead.abs().saturating_sub(sure);
    let (far, near) = APART;
    if apart <= near {
        return None;
    }
    let word = if ahead > 0 { "ahead of" } else { "behind" };
    let problem = format!(
        "{whose} is {} s {word} {reference}",
        ahead.abs().saturating_add(500) / 1000
    );
    let remedy = "set it with `date -s`, and let chrony keep it";
    Some(match apart > far {
        true => Finding::error("clock", problem, remedy),
        false => Finding::warning("clock", problem, remedy),
    })
}
