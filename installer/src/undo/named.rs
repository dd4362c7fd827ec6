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
///
/// # Errors
/// When a program that is installed does not answer: nobody can tell what it has.
pub(crate) fn ids(name: &str, folders: &[PathBuf]) -> Result<BTreeSet<String>> {
    let found = find(name, folders)?.into_iter();
    Ok(found.map(|(_, id)| id).collect())
}

/// Removes the containers of this name, but those that were there before.
///
/// # Errors
/// When one can't be removed, or a program that is installed does not answer.
pub(super) fn remove(name: &str, kept: &BTreeSet<String>, folders: &[PathBuf]) -> Result<Option<String>> {
    let mut said = None;
    for (tool, id) in find(name, folders)? {
        if !kept.contains(&id) {
            run(&[tool, "rm", "--force", &id], folders)?
                .checked(|| format!("{tool} does not remove the container {name}"))?;
            said = Some(format!("removed the container {name}"));
        }
    }
    Ok(said)
}

/// What is not installed has no containers.
fn find(name: &str, folders: &[PathBuf]) -> Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for tool in TOOLS {
        if !command::is_installed(tool, folders) {
            continue;
        }
        let list = run(
            &[tool, "ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}}"],
            folders,
        )?;
        let list = list
            .checked(|| format!("{tool} does not say whether there is a container {name}"))
            .map_err(|error| {
                error.hint(format!(
                    "start what {tool} talks to, or remove {tool} if nothing uses it"
                ))
            })?;
        let ids = list.stdout.lines().filter_map(|line| line.split_once(' '));
        let named = ids.filter(|(_, names)| names.split(',').any(|other| other == name));
        found.extend(named.map(|(id, _)| (tool, id.to_owned())));
    }
    Ok(found)
}

fn run(argv: &[&str], folders: &[PathBuf]) -> Result<Finished> {
    let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
    command::output(command::prepare(&argv, &BTreeMap::new(), folders)?, None, LIMIT)
}
