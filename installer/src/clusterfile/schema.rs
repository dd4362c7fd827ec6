//! The JSON schema of Clusterfiles, for editors and other programs. A test holds it to the types.

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use crate::member::Role;
use crate::runtime::k3s::config::settings;

/// All but the settings of k3s, which have a list of their own.
const BASE: &str = include_str!("schema.json");

/// The schema of each document of a Clusterfile (draft 7).
#[must_use]
pub fn schema() -> Value {
    let mut schema: Value = serde_json::from_str(BASE).unwrap_or_default();
    for (section, role) in [("server", Role::Master), ("agent", Role::Node)] {
        let properties: serde_json::Map<String, Value> = settings(role)
            .into_iter()
            .map(|(name, sort)| (name.to_owned(), json!({ "type": types(sort) })))
            .collect();
        let place = format!("/definitions/K3sSpec/properties/{section}");
        if let Some(Value::Object(section)) = schema.pointer_mut(&place) {
            section.insert("properties".to_owned(), properties.into());
        }
    }
    schema
}

/// k3s takes texts for anything, and one value for a list.
fn types(sort: &str) -> &'static [&'static str] {
    match sort {
        "bool" => &["boolean", "string"],
        "int" => &["integer", "string"],
        "list" => &["array", "string", "number", "boolean"],
        _ => &["string", "number", "boolean"],
    }
}
