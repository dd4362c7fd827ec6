//! The document `kind: K3sConfig`: settings of k3s for all servers and for all agents.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::document::Document;
use super::mistakes::Mistakes;
use crate::member::Role;
pub(super) use crate::runtime::k3s::config::KIND;
use crate::runtime::k3s::config::check;

/// What k3s's `config.yaml` says, by role.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct K3sSpec {
    #[serde(default, rename = "server")]
    _server: BTreeMap<String, IgnoredAny>,
    #[serde(default, rename = "agent")]
    _agent: BTreeMap<String, IgnoredAny>,
}

/// Checks each setting against those that k3s has in that role.
pub(super) fn settings(document: &Document, mistakes: &mut Mistakes<'_>) {
    let _ = document.read::<K3sSpec>(mistakes);
    for (section, role) in [("server", Role::Master), ("agent", Role::Node)] {
        for (name, value) in document.settings(&["spec", section]) {
            if let Err(error) = check(role, &name.value, &value) {
                mistakes.at(name.referenced, error.to_string(), error.remedy().unwrap_or_default());
            }
        }
    }
}
