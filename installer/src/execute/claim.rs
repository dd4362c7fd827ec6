//! Looks at what others are about to fill or make, so that what was there before can stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{IoResultExt as _, Result};

use crate::action::Claim;
use crate::cluster::ClusterFiles;
use crate::host_manifest::{HostManifest, Made};
use crate::undo::{in_cgroup, named, pod_networks, rules_and_chains, slices};
use crate::{files, process};

/// Where named network namespaces are mounted (ip-netns(8)).
pub(crate) const NAMESPACES: &str = "/run/netns";

/// What is to be written down for a claim.
pub(super) fn observe(claim: &Claim, manifest: &HostManifest, cluster: &ClusterFiles) -> Result<Vec<Made>> {
    let made = match claim {
        Claim::Tree(path) => Made::Tree {
            path: path.clone(),
            // Folders that we made ourselves on the way to a file were not there before.
            kept: if manifest.has_folder(path) {
                None
            } else {
                names_in(path)?
            },
        },
        Claim::Folder(path) => {
            let made = Made::Folder { path: path.clone() };
            return Ok(if files::exists(path) { Vec::new() } else { vec![made] });
        }
        Claim::PodNetworks(path) => Made::PodNetworks {
            path: path.clone(),
            kept: pod_networks::paths_below(path)?,
        },
        Claim::Container(name) => {
            let (kept, silent) = named::look(name, &super::program_folders(cluster));
            Made::Container {
                name: name.clone(),
                kept,
                silent,
            }
        }
        Claim::Processes { cgroups, socket } => {
            let running = process::all();
            // A name under which others have processes tells nothing: shims and what is below them still count.
            let foreign = |name: &String| running.iter().any(|other| in_cgroup(other, std::slice::from_ref(name)));
            Made::Processes {
                cgroups: cgroups.iter().filter(|name| !foreign(name)).cloned().collect(),
                socket: socket.clone(),
            }
        }
        Claim::Mounts(below) => Made::Mounts {
            below: below.clone(),
            kept: mounts_below(below)?,
        },
        Claim::NetworkNamespaces(prefix) => return namespaces(prefix),
        Claim::Interfaces(names) => Made::Interfaces {
            names: names
                .iter()
                .filter(|name| !Path::new("/sys/class/net").join(name).exists())
                .cloned()
                .collect(),
        },
        Claim::Firewall { prefixes, programs } => Made::Firewall {
            prefixes: prefixes.clone(),
            programs: programs.clone(),
            kept: rules_and_chains(prefixes, programs),
        },
        Claim::Slice(name) => Made::Slice {
            name: name.clone(),
            kept: slices::cgroups(&slices::hierarchies()?, name),
        },
        Claim::Sysctls(names) => Made::Sysctls { values: sysctls(names) },
        Claim::Command(program) => Made::Command {
            argv: program.argv.clone(),
            folder: program.folder.clone(),
            env: program.env.clone(),
        },
        Claim::Hook { name, program } => Made::Hook {
            name: name.clone(),
            argv: program.argv.clone(),
            folder: program.folder.clone(),
            env: program.env.clone(),
        },
    };
    Ok(vec![made])
}

/// The first namespace makes the folder.
fn namespaces(prefix: &str) -> Result<Vec<Made>> {
    let path = Path::new(NAMESPACES);
    let names = names_in(path)?;
    let folder = names.is_none().then(|| Made::Folder { path: path.to_owned() });
    let kept = names.unwrap_or_default();
    let namespaces = Made::NetworkNamespaces {
        prefix: prefix.to_owned(),
        kept: kept.into_iter().filter(|name| name.starts_with(prefix)).collect(),
    };
    Ok(folder.into_iter().chain([namespaces]).collect())
}

/// The names in a folder; `None` when it is not there.
fn names_in(path: &Path) -> Result<Option<BTreeSet<String>>> {
    let place = || format!("cannot read the folder {}", path.display());
    let entries = match fs::read_dir(path) {
        Err(error) if files::is_absent(&error) => return Ok(None),
        entries => entries.or_io(place)?,
    };
    entries
        .map(|entry| Ok(entry.or_io(place)?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()
        .map(Some)
}

/// The mount points below these folders, and the folders themselves if they are some. Folders may be links: mounts are
/// known by where these lead.
pub(crate) fn mounts_below(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let folders: Vec<PathBuf> = folders
        .iter()
        .map(|folder| fs::canonicalize(folder).unwrap_or_else(|_| folder.clone()))
        .collect();
    let mut mounts = files::mounts()?;
    mounts.retain(|mount| folders.iter().any(|folder| mount.starts_with(folder)));
    Ok(mounts)
}

/// The present values; kernels lack one or the other.
fn sysctls(names: &[String]) -> BTreeMap<String, String> {
    names
        .iter()
        .filter_map(|name| {
            let value = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
            Some((name.clone(), value.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_mounts_behind_links() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        assert!(mounts_below(&[link]).unwrap().contains(&"/proc".into()));
        assert!(mounts_below(&[folder.path().to_owned()]).unwrap().is_empty());
    }
}
