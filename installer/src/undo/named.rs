//! Containers that a script of the image starts under a name, with docker or nerdctl.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use sealrs_image::error::Result;

use crate::command::{self, Finished};

/// What runs containers by their names.
const TOOLS: [&str; 2] = ["docker", "nerdctl"];

/// A container may take a while to stop.
const LIMIT: Duration = Duration::from_secs(60);

/// The ids of the containers of this name. Programs are looked for in `folders` first.
pub(crate) fn ids(name: &str, folders: &[PathBuf]) -> BTreeSet<String> {
    find(name, folders).into_iter().map(|(_, id)| id).collect()
}

/// Removes the containers of this name, but those that were there before.
///
/// # Errors
/// When one can't be removed.
pub(super) fn remove(name: &str, kept: &BTreeSet<String>, folders: &[PathBuf]) -> Result<Option<String>> {
    let mut said = None;
    for (tool, id) in find(name, folders) {
        if !kept.contains(&id) {
            run(&[tool, "rm", "--force", &id], folders)?
                .checked(|| format!("{tool} does not remove the container {name}"))?;
            said = Some(format!("removed the container {name}"));
        }
    }
    Ok(said)
}

/// What is not installed or does not answer has no containers.
fn find(name: &str, folders: &[PathBuf]) -> Vec<(&'static str, String)> {
    let id = |tool: &'static str| {
        let shown = run(&[tool, "container", "inspect", name], folders).ok()?;
        let list: serde_json::Value = serde_json::from_str(&shown.stdout).ok()?;
        Some((tool, list.pointer("/0/Id")?.as_str()?.to_owned()))
    };
    TOOLS.into_iter().filter_map(id).collect()
}

fn run(argv: &[&str], folders: &[PathBuf]) -> Result<Finished> {
    let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
    command::output(command::prepare(&argv, &BTreeMap::new(), folders)?, None, LIMIT)
}
