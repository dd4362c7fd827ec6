//! Damaged blobs are set aside, so that the next `load` or `pull` brings them again.

use std::fs;

use super::Store;
use crate::error::{IoResultExt as _, Result};
use crate::file::sync_folder;
use crate::lock;
use crate::progress::{Silent, Task};
use crate::spec::Descriptor;
use crate::verify;

impl Store {
    /// Takes blobs that are damaged out of the store. They are kept as partial files until the next `prune`, for
    /// whoever wants to see what became of them. Each is read again before, alone: one that somebody has replaced
    /// meanwhile, or that only looked wrong, stays. Gives those that were set aside.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Conflict`] when another process uses the store.
    pub fn set_aside(&self, blobs: &[Descriptor]) -> Result<Vec<Descriptor>> {
        let _lock = lock::try_exclusive(&self.path.join("lock"), || lock::in_use("the store"))?;
        let task = Task::begin(&Silent, "reading again", None);
        let mut aside = Vec::new();
        for blob in blobs {
            let path = self.blob_path(&blob.digest);
            if !path.exists() || verify::read(self, blob, &task).is_ok() {
                continue;
            }
            let target = self.path.join("partial").join(format!("{}.damaged", blob.digest.hex()));
            fs::rename(&path, target).or_io(|| format!("cannot set {} aside", path.display()))?;
            aside.push(blob.clone());
        }
        sync_folder(&self.path.join("blobs/sha256"))?;
        Ok(aside)
    }
}
