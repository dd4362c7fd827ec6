//! What is on a host, to be compared with what was there before.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::host::Host;

/// Prints what there is.
const SCRIPT: &str = include_str!("state.sh");

/// What stays when a cluster is deleted, and why that is right.
const STAYS: [&str; 1] = [
    // systemd reaches it once for services that want the network, and never gives it back.
    "unit network-online.target ",
];

/// Everything on a host that an installation could change.
#[derive(Debug)]
pub struct State(BTreeSet<String>);

impl State {
    pub fn of(host: &Host) -> Self {
        let (printed, leaves) = (host.script(SCRIPT), host.product.leaves());
        let may_stay = |line: &&str| {
            !STAYS.iter().any(|known| line.starts_with(known)) && !leaves.iter().any(|path| line.contains(path))
        };
        Self(printed.lines().filter(may_stay).map(str::to_owned).collect())
    }

    /// The lines that are in only one of the two.
    pub fn difference(&self, after: &Self) -> String {
        difference(&self.0, &after.0)
    }
}

/// The lines that are in only one of two sets.
pub fn difference<Line: Ord + Display>(before: &BTreeSet<Line>, after: &BTreeSet<Line>) -> String {
    let missing = before.difference(after).map(|line| format!("- {line}\n"));
    let added = after.difference(before).map(|line| format!("+ {line}\n"));
    missing.chain(added).collect()
}
