//! What lies in a folder, in words that can be compared.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sealrs_image::digest::Digest;

/// What there is below a folder: for each path its kind, mode, owner, content and, of files, time and attribute.
pub(crate) fn tree(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut first_names = HashMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&next)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let all = fs::symlink_metadata(&path).unwrap();
            let what = if all.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if all.is_dir() {
                folders.push(path);
                "folder".to_owned()
            } else {
                let first = first_names.entry(all.ino()).or_insert_with(|| name.clone());
                let mut content = Vec::new();
                File::open(&path).unwrap().read_to_end(&mut content).unwrap();
                let mut note = [0; 64];
                let note = rustix::fs::getxattr(&path, "user.note", &mut note[..]).map(|size| note[..size].to_vec());
                format!(
                    "{} bytes {} mtime {}.{} links {} first {first} note {note:?}",
                    all.size(),
                    Digest::of(&content).short(),
                    all.mtime(),
                    all.mtime_nsec(),
                    all.nlink(),
                )
            };
            let mode = if all.is_symlink() { 0 } else { all.mode() & 0o7777 };
            found.insert(name, format!("{mode:o} {}:{} {what}", all.uid(), all.gid()));
        }
    }
    found
}

/// Compares what a tool made with what we made.
pub(crate) fn assert_same_trees(theirs: &BTreeMap<String, String>, ours: &BTreeMap<String, String>, whose: &str) {
    assert!(ours.len() > 25, "only {} entries", ours.len());
    for (path, what) in ours {
        assert_eq!(theirs.get(path), Some(what), "{path}, by {whose}");
    }
    for path in theirs.keys() {
        assert!(ours.contains_key(path), "{path} is there by {whose} alone");
    }
}
