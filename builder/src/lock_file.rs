//! The `images.lock` beside the Kubefile: what the container images were, so that a later build takes the same ones.
//! It has the form of the one in the rootfs, with the images of all platforms that were built.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::file;
use sealrs_image::finding::Finding;
use sealrs_image::images_lock::{LOCK_PATH, Lock, Locked};
use sealrs_image::platform::Platform;
use sealrs_image::reference::Reference;

use crate::image_list::Wanted;

/// What a build does with the lock file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LockUse {
    /// Nothing.
    #[default]
    Unused,
    /// Takes exactly what it says, or fails.
    Frozen,
    /// Writes what was taken.
    Update,
}

/// The lock that a build keeps to.
pub(crate) struct Frozen {
    lock: Lock,
    shown: String,
}

/// Where the lock of a Kubefile is.
pub(crate) fn path(kubefile: &Path) -> PathBuf {
    kubefile.with_file_name(LOCK_PATH)
}

/// Writes the lock of a build.
pub(crate) fn write(path: &Path, mut images: Vec<Locked>) -> Result<()> {
    images.sort_by_key(|locked| (locked.image.clone(), locked.platform.to_string()));
    let lock = Lock {
        schema_version: 1,
        images,
    };
    file::write(path, &lock.pretty()?, 0o644)
}

impl Frozen {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        const HINT: &str = "`sealrs build --update-lock` writes it anew";
        let shown = path.display().to_string();
        let bytes = fs::read(path).or_read(|| format!("cannot read the lock {shown}"));
        let bytes = bytes.map_err(|error| error.hint(HINT))?;
        let lock: Lock = serde_json::from_slice(&bytes).map_err(|error| {
            let what = format!("the lock {shown} can't be understood");
            Error::new(ErrorKind::Input, what).because(error).hint(HINT)
        })?;
        if lock.schema_version != 1 {
            let what = format!("the lock {shown} is of version {}, and 1 is known", lock.schema_version);
            return Err(Error::new(ErrorKind::Input, what).hint(HINT));
        }
        Ok(Self { lock, shown })
    }

    /// The images for a platform.
    pub(crate) fn of(&self, platform: &Platform) -> BTreeMap<&Reference, &Locked> {
        let own = self.lock.images.iter().filter(|locked| locked.platform == *platform);
        own.map(|locked| (&locked.image, locked)).collect()
    }

    /// Refuses a build that asks for other images than the lock has.
    pub(crate) fn check_names(&self, wanted: &[Wanted], platform: &Platform) -> Result<()> {
        let locked = self.of(platform);
        let asked: BTreeSet<&Reference> = wanted.iter().map(|wanted| &wanted.reference).collect();
        let missing = wanted.iter().filter(|wanted| !locked.contains_key(&wanted.reference));
        let mut wrong: Vec<Finding> = missing
            .map(|wanted| {
                let what = format!("{} is not in {} for {platform}", wanted.reference, self.shown);
                wanted.failure(&Error::new(ErrorKind::Input, what))
            })
            .collect();
        let unasked = locked.keys().filter(|image| !asked.contains(**image));
        wrong.extend(unasked.map(|image| {
            let what = format!("{image} is locked for {platform}, and nothing asks for it");
            Finding::new(ErrorKind::Input, &self.shown, what)
        }));
        self.refuse(wrong)
    }

    /// Refuses images that are not those of the lock.
    pub(crate) fn check_images(&self, images: &[Locked], platform: &Platform) -> Result<()> {
        let content = |locked: &Locked| (locked.digest, locked.manifest, locked.media_type.clone(), locked.size);
        let locked = self.of(platform);
        let other = images.iter().filter(|image| {
            let same = locked.get(&image.image).map(|locked| content(locked));
            same != Some(content(image))
        });
        let wrong = other.map(|image| {
            let what = format!(
                "{} is not what is locked: its manifest for {platform} is {}",
                image.image, image.manifest
            );
            Finding::new(ErrorKind::Integrity, &self.shown, what)
        });
        self.refuse(wrong.collect())
    }

    fn refuse(&self, mut wrong: Vec<Finding>) -> Result<()> {
        if wrong.is_empty() {
            return Ok(());
        }
        for finding in &mut wrong {
            finding.hint = Some("build with `--update-lock` if it should be so".to_owned());
        }
        let what = format!("the container images are not those of {}", self.shown);
        Err(Error::together(what, wrong))
    }
}
