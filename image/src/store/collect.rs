//! Removing: names, the blobs that no name reaches, and what interrupted work left.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Store, entry_name};
use crate::digest::Digest;
use crate::error::{Context as _, IoResultExt as _, Result};
use crate::file;
use crate::graph;
use crate::lock;
use crate::reference::Reference;
use crate::spec::Descriptor;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs and partial files.
    pub files: u64,
    /// How many bytes they took.
    pub bytes: u64,
}

impl Store {
    /// Takes a name away, or all names of an image given by digest, and removes the blobs that only it reached.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Conflict`] when another process uses the store.
    pub fn remove(&self, image: &Descriptor, name: Option<&Reference>) -> Result<Collected> {
        let _lock = lock::try_exclusive(&self.path.join("lock"), || lock::in_use("the store"))?;
        self.edit_index(|index| {
            index.manifests.retain(|entry| match name {
                Some(name) => entry.digest != image.digest || entry_name(entry).as_ref() != Some(name),
                None => entry.digest != image.digest,
            });
        })?;
        let mut collected = Collected::default();
        // While another image is damaged nobody knows what it needs; `prune` will say so.
        let Ok(kept) = self.reachable() else {
            return Ok(collected);
        };
        // A damaged image has to be removable too; what it no longer tells of is left to `prune`.
        let blobs = graph::blobs(self, image).unwrap_or_else(|_| vec![image.clone()]);
        for blob in blobs.into_iter().map(|blob| blob.digest) {
            if !kept.contains(&blob) {
                remove_file(&self.blob_path(&blob), &mut collected)?;
            }
        }
        Ok(collected)
    }

    /// Removes every blob that no image reaches, and all partial files.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Conflict`] when another process uses the store.
    pub fn prune(&self) -> Result<Collected> {
        if !self.path.exists() {
            return Ok(Collected::default());
        }
        let _lock = lock::try_exclusive(&self.path.join("lock"), || lock::in_use("the store"))?;
        let kept = self.reachable()?;
        let mut collected = Collected::default();
        for (folder, partial) in [("blobs/sha256", false), ("partial", true)] {
            let folder = self.path.join(folder);
            let place = || format!("cannot read {}", folder.display());
            for entry in fs::read_dir(&folder).or_io(place)? {
                let entry = entry.or_io(place)?;
                let digest = entry
                    .file_name()
                    .to_str()
                    .and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
                if partial || !digest.is_some_and(|digest| kept.contains(&digest)) {
                    remove_file(&entry.path(), &mut collected)?;
                }
            }
        }
        let place = || format!("cannot read {}", self.path.display());
        for entry in fs::read_dir(&self.path).or_io(place)? {
            let entry = entry.or_io(place)?;
            // An index whose writer died before it had its name.
            if file::is_partial(&entry.file_name()) {
                remove_file(&entry.path(), &mut collected)?;
            }
        }
        Ok(collected)
    }

    fn reachable(&self) -> Result<BTreeSet<Digest>> {
        let mut kept = BTreeSet::new();
        for entry in self.index()?.manifests {
            let name = entry_name(&entry).map_or_else(|| entry.digest.to_string(), |name| name.familiar());
            let blobs = graph::blobs(self, &entry)
                .context(|| format!("image {name} of the store is damaged"))
                .map_err(|error| error.hint(format!("load or pull it again, or remove it with `sealrs rmi {name}`")))?;
            kept.extend(blobs.into_iter().map(|blob| blob.digest));
        }
        Ok(kept)
    }
}

fn remove_file(path: &Path, collected: &mut Collected) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    fs::remove_file(path).or_io(|| format!("cannot remove {}", path.display()))?;
    collected.files += 1;
    collected.bytes += metadata.len();
    Ok(())
}
