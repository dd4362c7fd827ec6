//! `delete`: walks the host manifest backwards and takes back what was made, after any crash, without the image, and
//! as often as one likes.

use std::cmp::Reverse;
use std::fs;
use std::path::Path;

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::progress::{Event, Progress, Task};

use crate::cluster::ClusterFiles;
use crate::environment::Environment;
use crate::execute::PATIENCE;
use crate::host::Ssh;
use crate::host_manifest::{HostManifest, Made};
use crate::journal::{Journal, Stage};
use crate::member::{self, Access, Member};
use crate::node::{Node as _, There};
use crate::options::check_cluster_name;
use crate::sites::{self, Named};
use crate::summary::{Outcome, Summary};
use crate::undo::Remover;
use crate::{facts, files, process};

/// Removes a cluster from all of its hosts; `given` has the secrets with which they are reached.
///
/// What can't be removed is reported at the end, after all else was, and is tried again by the next call.
///
/// # Errors
/// [`ErrorKind::Conflict`] when the cluster is being worked on; [`ErrorKind::Step`] with all that could not be removed.
pub fn delete(root: &Path, cluster: &str, given: &Access, progress: &dyn Progress) -> Result<Summary> {
    check_cluster_name(cluster)?;
    let cluster_files = ClusterFiles::new(root, cluster);
    if !cluster_files.data().is_dir() {
        return of_this_host(root, cluster, progress);
    }
    let _lock = cluster_files.hold()?;
    let members = member::load(&cluster_files.members(), given)?;
    let mut others: Vec<Member> = members
        .into_iter()
        .filter(|member| !facts::is_here(member.address))
        .collect();
    if !others.is_empty() {
        mark(&cluster_files)?;
    }
    // The nodes first: masters that are gone leave them nothing to be members of.
    others.sort_by_key(|member| Reverse(member.role));
    let hosts = others.len();
    sites::on_all(
        &mut others,
        |member| member.address.to_string(),
        |member| {
            let host = Ssh::new(member.access.ssh(member.address));
            let mut node = There::connect(Box::new(host), &cluster_files, Path::new("/proc/self/exe"))?;
            node.delete(root, cluster, &Named::new(&member.address.to_string(), progress))
        },
    )
    .map_err(|error| {
        error.hint(format!(
            "put it right and delete again: only what is left is tried, and {} is kept until all is done",
            cluster_files.data().display()
        ))
    })?;
    let mut summary = of_this_host_locked(&cluster_files, progress)?;
    if hosts > 0 {
        summary.words = vec![format!(
            "removed cluster `{cluster}` and everything that was made for it on {hosts} hosts"
        )];
    }
    Ok(summary)
}

/// Notes that the deletion was begun.
fn mark(cluster_files: &ClusterFiles) -> Result<()> {
    let mut journal = Journal::open(&cluster_files.journal())?;
    if journal.stage() != Stage::Deleting {
        journal.deleting()?;
    }
    Ok(())
}

/// Removes what there is of a cluster on this host.
///
/// Only what does not stop running ends the removal: the rest may be in use.
///
/// # Errors
/// As [`delete`].
pub(crate) fn of_this_host(root: &Path, cluster: &str, progress: &dyn Progress) -> Result<Summary> {
    check_cluster_name(cluster)?;
    let cluster_files = ClusterFiles::new(root, cluster);
    if !cluster_files.data().is_dir() {
        // A deletion that was killed at its very end may have left it.
        files::remove_empty_folder(&root.join("data"))?;
        return Ok(summary(cluster, Outcome::Absent, 0));
    }
    let _lock = cluster_files.hold()?;
    of_this_host_locked(&cluster_files, progress)
}

/// As [`of_this_host`], when this process has locked the cluster's folder.
///
/// # Errors
/// As [`delete`].
pub(crate) fn of_this_host_locked(cluster_files: &ClusterFiles, progress: &dyn Progress) -> Result<Summary> {
    let mut manifest = HostManifest::open(&cluster_files.host_manifest(), &cluster_files.backup())?;
    mark(cluster_files)?;
    end_scripts(cluster_files);
    let (steps, folders) = take_back(cluster_files, &mut manifest, progress)?;
    remove_data(cluster_files)?;
    files::remove_empty_folder(&cluster_files.root().join("data"))?;
    for folder in folders {
        files::remove_empty_folder(&folder)?;
    }
    Ok(summary(cluster_files.cluster(), Outcome::Deleted, steps))
}

/// Ends scripts that a killed run left running: they would make anew what is taken back here.
fn end_scripts(cluster_files: &ClusterFiles) {
    let markers = fs::read_dir(cluster_files.running());
    for marker in markers.into_iter().flatten().flatten() {
        process::end(&process::readers_of(&marker.path()), PATIENCE);
    }
}

/// Takes back everything but the folders that the cluster's own folder is in; these are returned, innermost first.
fn take_back(
    cluster_files: &ClusterFiles,
    manifest: &mut HostManifest,
    progress: &dyn Progress,
) -> Result<(usize, Vec<std::path::PathBuf>)> {
    let task = Task::begin(progress, "removing the cluster", None);
    let remover = Remover {
        files: cluster_files,
        environment: environment(cluster_files)?,
        progress,
    };
    let mut failures = Vec::new();
    let mut folders = Vec::new();
    let mut steps = 0;
    for (number, made) in manifest.standing() {
        match &made {
            Made::Folder { path } if cluster_files.data().starts_with(path) => {
                folders.push(path.clone());
                continue;
            }
            _ => {}
        }
        match remover.undo(number, &made, manifest) {
            Ok(said) => {
                if let Some(said) = said {
                    progress.event(Event::Message(&said));
                }
                manifest.undone(number)?;
                steps += 1;
            }
            Err(error) => {
                failures.push(error);
                // What still runs must not lose its data, and would make anew what is taken back.
                if matches!(made, Made::Service { .. } | Made::Processes { .. }) {
                    break;
                }
            }
        }
    }
    drop(task);
    fail_with(cluster_files, failures)?;
    Ok((steps, folders))
}

fn fail_with(cluster_files: &ClusterFiles, mut failures: Vec<Error>) -> Result<()> {
    let Some(first) = failures.first() else {
        return Ok(());
    };
    let hint = format!(
        "{}; then delete again: only what is left is tried, and {} is kept until all is done",
        first.remedy().unwrap_or("put it right"),
        cluster_files.data().display()
    );
    if failures.len() == 1
        && let Some(only) = failures.pop()
    {
        return Err(Error::new(
            ErrorKind::Step,
            format!("cluster `{}` could not be removed wholly", cluster_files.cluster()),
        )
        .because(only)
        .hint(hint));
    }
    let lines: Vec<String> = failures
        .iter()
        .map(|failure| {
            let causes = failure.causes();
            let why = if causes.is_empty() {
                String::new()
            } else {
                format!(": {}", causes.join(": "))
            };
            format!("\n  - {failure}{why}")
        })
        .collect();
    Err(Error::new(
        ErrorKind::Step,
        format!(
            "cluster `{}` could not be removed wholly; {} things are left:{}",
            cluster_files.cluster(),
            failures.len(),
            lines.concat()
        ),
    )
    .hint(hint))
}

/// The environment that the cluster's scripts ran with. A cluster whose run ended before it had one ran no scripts.
pub(crate) fn environment(cluster_files: &ClusterFiles) -> Result<Environment> {
    let path = cluster_files.environment();
    let bytes = match fs::read(&path) {
        Err(error) if files::is_absent(&error) => return Ok(Environment::new()),
        bytes => bytes.or_io(|| format!("cannot read {}", path.display()))?,
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(ErrorKind::Integrity, format!("{} is damaged", path.display()))
            .because(error)
            .hint("put it right, or remove it: then scripts of the image run without the cluster's variables")
    })
}

/// Removes the cluster's folder. The manifest, by which one sees that a deletion is under way, goes last.
fn remove_data(cluster_files: &ClusterFiles) -> Result<()> {
    let data = cluster_files.data();
    let last = [cluster_files.journal(), cluster_files.host_manifest()];
    let entries = fs::read_dir(&data).or_io(|| format!("cannot read the folder {}", data.display()))?;
    for entry in entries {
        let path = entry
            .or_io(|| format!("cannot read the folder {}", data.display()))?
            .path();
        if !last.contains(&path) {
            files::remove_tree(&path)?;
        }
    }
    for path in &last {
        files::remove_file(path)?;
    }
    files::remove_empty_folder(&data)?;
    Ok(())
}

fn summary(cluster: &str, outcome: Outcome, steps: usize) -> Summary {
    let words = match outcome {
        Outcome::Absent => format!("there is no cluster `{cluster}`"),
        _ => {
            format!("removed cluster `{cluster}` and everything that was made for it on this host")
        }
    };
    Summary {
        cluster: cluster.to_owned(),
        outcome,
        image: None,
        runtime: None,
        registry: None,
        rootfs: None,
        kubeconfig: None,
        steps,
        words: vec![words],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Manager;
    use sealrs_image::progress::Silent;

    #[test]
    fn what_still_runs_keeps_its_data() {
        let root = tempfile::tempdir().unwrap();
        let files = ClusterFiles::new(root.path(), "c");
        // A lock that can't be opened: nobody knows whether the service ended.
        let lock = files.services().join("x.lock");
        fs::create_dir_all(&lock).unwrap();
        let tree = root.path().join("runtime");
        fs::create_dir(&tree).unwrap();
        let mut manifest = HostManifest::open(&files.host_manifest(), &files.backup()).unwrap();
        let made = [
            Made::Tree {
                path: tree.clone(),
                kept: None,
            },
            Made::Service {
                name: "x".into(),
                manager: Manager::Supervised,
            },
        ];
        for made in made {
            manifest.record(made).unwrap();
        }
        drop(manifest);
        let error = of_this_host(root.path(), "c", &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Step);
        assert!(tree.is_dir());
        fs::remove_dir(lock).unwrap();
        of_this_host(root.path(), "c", &Silent).unwrap();
        assert!(!tree.exists() && !files.data().exists());
    }

    #[test]
    fn a_damaged_environment_is_not_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let files = ClusterFiles::new(root.path(), "c");
        fs::create_dir_all(files.data()).unwrap();
        fs::write(files.environment(), "{").unwrap();
        let error = of_this_host(root.path(), "c", &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        fs::remove_file(files.environment()).unwrap();
        of_this_host(root.path(), "c", &Silent).unwrap();
    }
}
