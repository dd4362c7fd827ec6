//! Hosts on the command line.

use clap::Args;
use sealrs_installer::clusterfile::addresses::Addresses;
use sealrs_installer::member::{self, Member, Role};

/// Hosts and what they are for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hosts")]
pub(crate) struct Hosts {
    /// Addresses of masters, with commas between them; ranges as 10.0.0.4-10.0.0.9.
    #[arg(short, long, value_name = "ADDRESSES")]
    masters: Option<Addresses>,

    /// Addresses of nodes.
    #[arg(short, long, value_name = "ADDRESSES")]
    nodes: Option<Addresses>,
}

impl Hosts {
    /// The hosts, masters first, all reached in the same way.
    pub(crate) fn members(self, access: &member::Access) -> Vec<Member> {
        let with_role = |addresses: Option<Addresses>, role: Role| {
            let addresses = addresses.unwrap_or_default();
            let member = |&address| Member::new(address, role, access.clone());
            addresses.as_slice().iter().map(member).collect::<Vec<_>>()
        };
        let mut members = with_role(self.masters, Role::Master);
        members.extend(with_role(self.nodes, Role::Node));
        members
    }

    /// Whether none is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.masters.is_none() && self.nodes.is_none()
    }
}
