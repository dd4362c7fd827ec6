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

/// What there is of this name: the ids of containers, and the programs that are installed and do not answer. Programs are
/// looked for in `folders` first.
pub(crate) fn look(name: &str, folders: &[PathBuf]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut ids, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for tool in installed(folders) {
        match list(tool, name, folders) {
            Ok(found) => ids.extend(found),
            Err(_) => drop(silent.insert(tool.to_owned())),
        }
    }
    (ids, silent)
}

/// Removes the containers of this name, but those that were there before. Of a program that was silent then, nobody can
/// tell: its containers stay.
///
/// # Errors
/// When one can't be removed, or a program does not answer any more.
pub(super) fn remove(
    name: &str,
    kept: &BTreeSet<String>,
    silent: &BTreeSet<String>,
    folders: &[PathBuf],
) -> Result<Option<String>> {
    let mut said = None;
    for tool in installed(folders) {
        let was_silent = silent.contains(tool);
        let found = match list(tool, name, folders) {
            Err(_) if was_silent => continue,
            found => found?,
        };
        for id in found.iter().filter(|id| !kept.contains(*id)) {
            if was_silent {
                said = Some(format!(
                    "kept the container {name}: {tool} did not answer when the cluster was made, so it may be another's"
                ));
                continue;
            }
            run(&[tool, "rm", "--force", id], folders)?
                .checked(|| format!("{tool} does not remove the container {name}"))?;
            said = Some(format!("removed the container {name}"));
        }
    }
    Ok(said)
}

fn installed(folders: &[PathBuf]) -> impl Iterator<Item = &'static str> {
    TOOLS.into_iter().filter(|tool| command::is_installed(tool, folders))
}

/// The ids of a program's containers of this name.
fn list(tool: &str, name: &str, folders: &[PathBuf]) -> Result<Vec<String>> {
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
    Ok(named.map(|(id, _)| id.to_owned()).collect())
}

fn run(argv: &[&str], folders: &[PathBuf]) -> Result<Finished> {
    let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
    command::output(command::prepare(&argv, &BTreeMap::new(), folders)?, None, LIMIT)
}
