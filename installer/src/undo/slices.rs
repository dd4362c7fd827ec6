//! A slice of cgroups that a runtime makes for its containers. Nothing else in a hierarchy is looked at: systemd and other
//! runtimes have theirs there, empty ones as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealrs_image::error::Result;

use crate::{command, files};

/// Where hierarchies of cgroups are mounted (cgroups(7)).
const ROOT: &str = "/sys/fs/cgroup";

/// The mount points of this host's hierarchies: several of version 1, one of version 2, or both.
///
/// # Errors
/// When /proc can't be read.
pub(crate) fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = files::mounts_with_kinds()?.into_iter();
    Ok(mounts
        .filter(|(path, kind)| path.starts_with(ROOT) && matches!(kind.as_str(), "cgroup" | "cgroup2"))
        .map(|(path, _)| path)
        .collect())
}

/// The cgroups of a slice, as cgroupfs and as systemd name it: those at the top of a hierarchy, and all below them. A name can
/// be a path; those on the way to it count as well.
pub(crate) fn cgroups(hierarchies: &[PathBuf], name: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies {
        for top in [name.to_owned(), format!("{name}.slice")] {
            walk(&hierarchy.join(top), &mut found);
        }
        let above = Path::new(name)
            .ancestors()
            .skip(1)
            .filter(|above| above.parent().is_some());
        found.extend(above.map(|above| hierarchy.join(above)).filter(|above| above.is_dir()));
    }
    found
}

fn walk(path: &Path, found: &mut BTreeSet<PathBuf>) {
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    found.insert(path.to_owned());
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        walk(&entry.path(), found);
    }
}

/// Removes the cgroups of a slice in all hierarchies, but those that were there before.
///
/// # Errors
/// When systemd can't be asked, or /proc can't be read.
pub(super) fn remove(name: &str, kept: &BTreeSet<PathBuf>) -> Result<Option<String>> {
    if kept.is_empty() && !name.contains('/') && Path::new("/run/systemd/system").is_dir() {
        // Fails where there is no such slice.
        command::run(
            &["systemctl", "stop", &format!("{name}.slice")],
            Duration::from_secs(60),
        )?;
    }
    remove_from(&hierarchies()?, name, kept);
    Ok(None)
}

fn remove_from(hierarchies: &[PathBuf], name: &str, kept: &BTreeSet<PathBuf>) {
    // A cgroup comes after those that it is in.
    for path in cgroups(hierarchies, name).iter().rev() {
        if !kept.contains(path) {
            // One in use stays, as the kernel wants it.
            let _ = files::remove_empty_folder(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_cgroups_of_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::create_dir_all(root.path().join(name)).unwrap();
        let hierarchies = ["blkio", "memory"].map(|name| root.path().join(name));
        // Of other runtimes: with names of their own, in slices of their own, and in a slice that is older than ours.
        let foreign = [
            "blkio/default/box",
            "blkio/system.slice/kubepods/pod",
            "blkio/kubepods.slice.d",
            "memory/kubepods/foreign",
            "pids/kubepods",
        ];
        foreign.iter().for_each(|name| make(name));
        let all = |name: &str| cgroups(&[root.path().to_owned()], name);
        let before = ["blkio", "memory", "pids"].map(all);
        let kept = cgroups(&hierarchies, "kubepods");
        assert_eq!(kept.len(), 2, "{kept:?}");
        for ours in [
            "blkio/kubepods/burstable/pod1/1",
            "blkio/kubepods.slice/kubepods-pod2.slice",
            "memory/kubepods/besteffort",
        ] {
            make(ours);
        }
        remove_from(&hierarchies, "kubepods", &kept);
        assert_eq!(["blkio", "memory", "pids"].map(all), before);

        let kept = cgroups(&hierarchies, "system.slice/box.service");
        assert_eq!(kept, BTreeSet::from([root.path().join("blkio/system.slice")]));
        make("blkio/system.slice/box.service");
        make("memory/system.slice/box.service");
        remove_from(&hierarchies, "system.slice/box.service", &kept);
        assert!(root.path().join("blkio/system.slice/kubepods").exists());
        assert!(!root.path().join("blkio/system.slice/box.service").exists());
        assert!(!root.path().join("memory/system.slice").exists());
    }

    #[test]
    fn finds_the_hierarchies_of_this_host() {
        for hierarchy in hierarchies().unwrap() {
            assert!(
                hierarchy.is_dir() && hierarchy.starts_with(ROOT),
                "{}",
                hierarchy.display()
            );
        }
    }
}
