//! What network plugins write down below `/var/lib/cni`: a cached result for each container (libcni's `results` and
//! `cache/results`), and the addresses that are taken in each network (host-local's `networks`). Tools such as nerdctl
//! keep theirs at the same place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{IoResultExt as _, Result};
use serde::Deserialize;

use crate::files;

/// A cached result, as far as it tells whose it is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cached {
    network_name: String,
    cni_args: Vec<(String, String)>,
}

/// The path, if there is something, and all below it.
pub(crate) fn paths_below(path: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        let place = || format!("cannot read the folder {}", folder.display());
        let entries = match fs::read_dir(&folder) {
            Err(error) if files::is_absent(&error) => continue,
            entries => entries.or_io(place)?,
        };
        found.insert(folder.clone());
        for entry in entries {
            let entry = entry.or_io(place)?;
            if entry.file_type().or_io(place)?.is_dir() {
                open.push(entry.path());
            } else {
                found.insert(entry.path());
            }
        }
    }
    Ok(found)
}

/// Removes what came since, but for what belongs to containers that are no pods, and to their networks.
pub(super) fn remove(path: &Path, kept: &BTreeSet<PathBuf>) -> Result<Option<String>> {
    let found = paths_below(path)?;
    let mut foreign = BTreeSet::new();
    for result in found.iter().filter(|file| is_result(file)) {
        if let Some(network) = foreign_network(result) {
            foreign.insert(result.clone());
            foreign.insert(path.join("networks").join(network));
        }
    }
    // Folders come after what is in them.
    for path in found.iter().rev().filter(|path| !kept.contains(*path)) {
        if foreign.iter().any(|foreign| path.starts_with(foreign)) {
            continue;
        }
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            files::remove_empty_folder(path)?;
        } else {
            files::remove_file(path)?;
        }
    }
    Ok(None)
}

fn is_result(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|folder| folder == "results")
}

/// The network of a result that is not a pod's. What can't be read is taken for a pod's: others write what libcni does.
fn foreign_network(result: &Path) -> Option<String> {
    let cached: Cached = serde_json::from_slice(&fs::read(result).ok()?).ok()?;
    let is_pod = cached.cni_args.iter().any(|(name, _)| name == "K8S_POD_NAME");
    // A name with a path in it would lead elsewhere.
    let is_name = !cached.network_name.is_empty() && !cached.network_name.contains('/');
    (!is_pod && is_name).then_some(cached.network_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_others_keep_their_networks() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cni");
        assert!(paths_below(&path).unwrap().is_empty());
        let write = |name: &str, text: &str| {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("networks/before/10.9.0.2", "1");
        let kept = paths_below(&path).unwrap();
        assert_eq!(kept.len(), 4);

        let pod =
            r#"{"kind":"cniCacheV1","networkName":"cbr0","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAME","x"]]}"#;
        write("results/cbr0-1-eth0", pod);
        write("cache/results/cbr0-2-eth0", pod);
        write("results/cut-off", "{");
        write("networks/cbr0/10.42.0.2", "1");
        write("networks/cbr0/lock", "");
        write("flannel/1", "{}");
        write("networks/before/10.9.0.3", "2");
        write(
            "results/bridge-3-eth0",
            r#"{"kind":"cniCacheV1","networkName":"bridge"}"#,
        );
        write("networks/bridge/10.4.0.2", "3");
        remove(&path, &kept).unwrap();

        let left: Vec<PathBuf> = paths_below(&path).unwrap().difference(&kept).cloned().collect();
        let expected = [
            "networks/bridge",
            "networks/bridge/10.4.0.2",
            "results",
            "results/bridge-3-eth0",
        ];
        assert_eq!(left, expected.map(|name| path.join(name)));
        // Without containers of others nothing is left.
        fs::remove_file(path.join("results/bridge-3-eth0")).unwrap();
        remove(&path, &BTreeSet::new()).unwrap();
        assert!(!path.exists());
        remove(&path, &BTreeSet::new()).unwrap();
    }
}
