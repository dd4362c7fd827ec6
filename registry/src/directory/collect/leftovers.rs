//! What crashes left: files that never got their names, and folders that hold nothing.
//!
//! A file is written under another name and then renamed. Nobody writes while garbage is collected, so such a name is of a
//! writer that is gone, if it is old enough that it cannot be one of another program.

use std::time::SystemTime;

use sealrs_image::error::{IoResultExt as _, Result};

use super::Collect;
use crate::directory::changes::Changes;
use crate::directory::{Directory, found};
use crate::layout;
use crate::name::{Repository, Tag, UploadId};

impl Directory {
    /// Removes what is left over in a repository. Gives the number of files and folders.
    pub(super) fn clear_repository(
        &self,
        repository: &Repository,
        options: &Collect,
        now: SystemTime,
    ) -> Result<usize> {
        let mut cleared = 0;
        // A tag without a meaning, with what it once meant.
        for name in self.folders(&layout::tags(repository))? {
            let Ok(tag) = name.parse::<Tag>() else { continue };
            let folder = layout::tag(repository, &tag);
            if !self.exists(&layout::tag_link(repository, &tag))? && !self.is_young(&folder, options.grace, now)? {
                cleared += 1;
                if !options.dry_run {
                    let mut changes = Changes::of(self);
                    changes.remove_folder(&folder)?;
                    changes.sync()?;
                }
            }
        }
        let manifests = layout::manifests(repository);
        for folder in ["revisions", "referrers", "tags"] {
            self.clear(&format!("{manifests}/{folder}"), options, now, &mut cleared)?;
        }
        self.clear(&layout::layers(repository), options, now, &mut cleared)?;
        Ok(cleared)
    }

    /// The same for blobs.
    pub(super) fn clear_blobs(&self, options: &Collect, now: SystemTime) -> Result<usize> {
        let mut cleared = 0;
        self.clear(&format!("{}/blobs", layout::ROOT), options, now, &mut cleared)?;
        Ok(cleared)
    }

    /// Clears the folders below a folder, and says whether anything is left in it.
    fn clear(&self, folder: &str, options: &Collect, now: SystemTime, cleared: &mut usize) -> Result<bool> {
        let failed = || self.cannot("list", folder);
        let Some(entries) = found(self.dir.read_dir(folder)).or_io(failed)? else {
            return Ok(false);
        };
        let mut is_left = false;
        for entry in entries {
            let entry = entry.or_io(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                is_left = true;
                continue;
            };
            let path = format!("{folder}/{name}");
            let kind = entry.file_type().or_io(failed)?;
            // How old it is, before what is in it goes.
            let is_young = self.is_young(&path, options.grace, now)?;
            let goes = match kind.is_dir() {
                true => !self.clear(&path, options, now, cleared)? && !is_young,
                false => kind.is_file() && !is_young && is_aside(&name),
            };
            if !goes {
                is_left = true;
                continue;
            }
            *cleared += 1;
            if options.dry_run {
                continue;
            }
            let removed = match kind.is_dir() {
                // Only an empty one goes.
                true => self.dir.remove_dir(&path),
                false => self.dir.remove_file(&path),
            };
            found(removed).or_io(|| self.cannot("remove", &path))?;
        }
        Ok(is_left)
    }
}

/// Whether it is the name of a `link` or `data` that was on its way.
fn is_aside(name: &str) -> bool {
    let id = name.strip_prefix("link.").or_else(|| name.strip_prefix("data."));
    id.is_some_and(|id| id.parse::<UploadId>().is_ok())
}
