//! Container images of apps come to those of the cluster, in the folder that its private registry serves.

use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};

use crate::files;

/// Moves all files of the registry at `from` into the one at `to`. Whoever pulls meanwhile sees an image when all of it is
/// there: bytes come first, then what a repository has, and then its tags. What was moved before is not there any more.
pub(super) fn add(from: &Path, to: &Path) -> Result<()> {
    let mut found = Vec::new();
    find(from, Path::new(""), &mut found)?;
    found.sort_by_key(|path| (rank(path), path.clone()));
    for path in found {
        let (source, target) = (from.join(&path), to.join(&path));
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).or_io(|| format!("cannot make the folder {}", folder.display()))?;
        // A blob is what its name says: the one that is there is as good, and may be being read.
        if rank(&path) == 0 && files::exists(&target) {
            files::remove_file(&source)?;
            continue;
        }
        fs::rename(&source, &target).or_io(|| format!("cannot move {} to {}", source.display(), target.display()))?;
    }
    files::remove_tree(from)
}

/// What has to be there before what.
fn rank(path: &Path) -> u8 {
    let has = |part: &str| path.components().any(|component| component.as_os_str() == part);
    match () {
        () if has("repositories") && has("tags") => 2,
        () if has("repositories") => 1,
        () => 0,
    }
}

fn find(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let folder = root.join(below);
    let place = || format!("cannot read the folder {}", folder.display());
    let entries = match fs::read_dir(&folder) {
        Err(error) if files::is_absent(&error) => return Ok(()),
        entries => entries.or_io(place)?,
    };
    for entry in entries {
        let entry = entry.or_io(place)?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().or_io(place)?;
        if kind.is_dir() {
            find(root, &path, found)?;
        } else if kind.is_file() {
            found.push(path);
        } else {
            // It may lead anywhere.
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("{} is neither a file nor a folder", root.join(&path).display()),
            )
            .hint("build the image again: a registry's folder has no links"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn images_are_added_and_tags_move() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let blob = "docker/registry/v2/blobs/sha256/ab/abc/data";
        let tag = "docker/registry/v2/repositories/app/_manifests/tags/1/current/link";
        let write = |root: &Path, path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        write(&to, blob, "there");
        write(&to, tag, "old");
        write(&from, blob, "again");
        write(&from, tag, "new");
        write(&from, "docker/registry/v2/blobs/sha256/cd/cde/data", "more");
        add(&from, &to).unwrap();
        let read = |path: &str| fs::read_to_string(to.join(path)).unwrap();
        assert_eq!((read(blob).as_str(), read(tag).as_str()), ("there", "new"));
        assert_eq!(read("docker/registry/v2/blobs/sha256/cd/cde/data"), "more");
        assert!(!from.exists());
        // It was done before.
        add(&from, &to).unwrap();
        assert!(rank(Path::new(blob)) < rank(Path::new(tag)));
        write(&from, blob, "x");
        symlink("/etc/passwd", from.join("link")).unwrap();
        assert_eq!(add(&from, &to).unwrap_err().kind(), ErrorKind::Integrity);
    }
}
