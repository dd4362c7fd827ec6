//! A file that the clusters of a host share: a block of each between markers, and nothing else. What was there before the
//! first of them is set aside beside it, and comes back with the end of the last.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::file;

use crate::{files, hosts_file};

/// Writes the block of a cluster, in place of an earlier one.
///
/// # Errors
/// [`ErrorKind::Conflict`] when both the file and what was set aside for it are somebody else's, or when another cluster's
/// block has one of the same tables, which may be in a file once; disk errors.
pub(crate) fn put(path: &Path, cluster: &str, text: &str) -> Result<()> {
    for table in text.lines().filter(|line| line.starts_with('[')) {
        if let Some(other) = clusters_with(path, table).iter().find(|other| *other != cluster) {
            let what = format!("cluster `{other}` has `{table}` in {} already", path.display());
            return Err(Error::new(ErrorKind::Conflict, what)
                .hint("two private registries of one host need two ports: choose another with `--registry-port`"));
        }
    }
    let mut blocks = read(path)?.unwrap_or_default();
    if !has_blocks(&blocks) {
        set_aside(path)?;
        blocks.clear();
    }
    let (with, _) = hosts_file::with_block(&blocks, cluster, text);
    if with == blocks {
        return Ok(());
    }
    files::write(path, with.as_bytes(), 0o644)
}

/// Removes the block of a cluster; with the last block what was there before comes back. Says so, if it is worth a line.
///
/// # Errors
/// Disk errors.
pub(crate) fn remove(path: &Path, cluster: &str) -> Result<Option<String>> {
    file::remove_partials(path)?;
    let (rest, found) = hosts_file::without_block(&read(path)?.unwrap_or_default(), cluster);
    let before = before(path);
    let is_set_aside = files::exists(&before);
    if !rest.is_empty() && found {
        files::write(path, rest.as_bytes(), 0o644)?;
    }
    if has_blocks(&rest) {
        return Ok(None);
    }
    match (rest.is_empty(), is_set_aside) {
        (true, true) => {
            rename(&before, path)?;
            Ok(Some(format!("restored {}", path.display())))
        }
        (true, false) if found => files::remove_file(path).map(|()| None),
        (false, true) => Ok(Some(format!(
            "kept {}: it was changed since; what was there before is {}",
            path.display(),
            before.display()
        ))),
        (false, false) if found => Ok(Some(format!("kept {}: it was changed since", path.display()))),
        // It was never written, or was restored already.
        _ => Ok(None),
    }
}

/// The clusters in whose block this line is.
pub(crate) fn clusters_with(path: &Path, wanted: &str) -> Vec<String> {
    // What can't be read holds no blocks of ours.
    let text = read(path).ok().flatten().unwrap_or_default();
    let mut found = Vec::new();
    let mut cluster = None;
    for line in text.lines() {
        match (hosts_file::marked(line), cluster) {
            (Some(begins), _) => cluster = begins,
            (None, Some(name)) if line == wanted => found.push(name.to_owned()),
            (None, _) => {}
        }
    }
    found
}

/// The clusters that have a block in a file `name` in one of the folders in `folder`.
pub(crate) fn clusters_below(folder: &Path, name: &str) -> BTreeSet<String> {
    // What can't be read holds no blocks of ours.
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    let texts = folders.filter_map(|entry| read(&entry.path().join(name)).ok().flatten());
    let begins = |text: String| {
        let marked = text.lines().filter_map(hosts_file::marked).flatten();
        marked.map(str::to_owned).collect::<Vec<_>>()
    };
    texts.flat_map(begins).collect()
}

fn has_blocks(text: &str) -> bool {
    text.lines().any(|line| hosts_file::marked(line).is_some())
}

fn set_aside(path: &Path) -> Result<()> {
    let before = before(path);
    match (files::exists(path), files::exists(&before)) {
        (false, _) => Ok(()),
        (true, false) => rename(path, &before),
        (true, true) => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} is not as sealrs wrote it, and {} is in the way of setting it aside",
                path.display(),
                before.display()
            ),
        )
        .hint("keep the one that you want, move the other one away, and run again")),
    }
}

/// Where what was there before waits.
fn before(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".before-sealrs");
    name.into()
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).or_io(|| format!("cannot rename {} to {}", from.display(), to.display()))?;
    file::sync_folder(file::folder_of(to))
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if files::is_absent(&error) => Ok(None),
        text => text.map(Some).or_io(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn each_cluster_has_its_block_whichever_goes_first() {
        for order in [["one", "two"], ["two", "one"]] {
            for foreign in [None, Some("server = \"https://mirror\"\n"), Some("")] {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("hosts.toml");
                if let Some(foreign) = foreign {
                    fs::write(&path, foreign).unwrap();
                }
                for (cluster, entry) in [("one", "[a]\nx = 1"), ("two", "[b]"), ("one", "[c]\nx = 1")] {
                    put(&path, cluster, entry).unwrap();
                }
                assert_eq!(clusters_with(&path, "x = 1"), ["one"]);
                assert_eq!(
                    text(&path),
                    "# BEGIN sealrs two\n[b]\n# END sealrs two\n# BEGIN sealrs one\n[c]\nx = 1\n# END sealrs one\n"
                );
                for cluster in [order[0], order[0]] {
                    assert_eq!(remove(&path, cluster).unwrap(), None);
                    assert!(text(&path).starts_with(&format!("# BEGIN sealrs {}\n", order[1])));
                }
                for _ in 0..2 {
                    remove(&path, order[1]).unwrap();
                    assert_eq!(read(&path).unwrap().as_deref(), foreign);
                    assert!(!before(&path).exists());
                }
            }
        }
    }

    #[test]
    fn a_crash_between_setting_aside_and_writing_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.toml");
        fs::write(&path, "foreign").unwrap();
        set_aside(&path).unwrap();
        assert!(remove(&path, "one").unwrap().unwrap().contains("restored"));
        assert_eq!(text(&path), "foreign");
        set_aside(&path).unwrap();
        put(&path, "one", "[a]").unwrap();
        remove(&path, "one").unwrap();
        assert_eq!(text(&path), "foreign");
    }

    #[test]
    fn what_somebody_wrote_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.toml");
        fs::write(&path, "foreign").unwrap();
        put(&path, "one", "[a]").unwrap();
        fs::write(&path, format!("{}[mine]\n", text(&path))).unwrap();
        let said = remove(&path, "one").unwrap().unwrap();
        assert!(
            said.contains("changed since") && said.contains(".before-sealrs"),
            "{said}"
        );
        assert_eq!(
            (text(&path), text(&before(&path))),
            ("[mine]\n".into(), "foreign".into())
        );
        let error = put(&path, "two", "[b]").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(text(&path), "[mine]\n");
    }
}
