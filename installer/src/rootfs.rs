//! The rootfs: unpacked under a staging name, its templates filled in, and renamed when every digest held; and what a plan
//! needs to know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufReader, Read as _};
use std::path::Path;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::digest::VerifyingReader;
use sealrs_image::error::{Context as _, Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::layer::{Compression, MemberKind, TarReader, annotation};
use sealrs_image::progress::Progress;
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterFiles;
use crate::configuration::{self, Configuration};
use crate::environment::Environment;
use crate::template::{self, Values};
use crate::{files, hook};

/// Folders of the rootfs whose files plans depend on.
const LISTED: [&str; 6] = ["bin/", "etc/", "images/", hook::FOLDER, "scripts/", "statics/"];
/// The largest document that a plan is made from, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// What a plan needs to know of a rootfs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsFacts {
    /// The files below `bin/`, `etc/`, `images/`, `scripts/` and `statics/` with their sizes in bytes.
    pub files: BTreeMap<String, u64>,
    /// The content of the documents that were asked for.
    pub texts: BTreeMap<String, String>,
}

impl RootfsFacts {
    /// Whether there is a file at this path below the rootfs.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The files below a folder, given with its slash, with their sizes.
    pub fn below<'f>(&'f self, folder: &'f str) -> impl Iterator<Item = (&'f str, u64)> {
        self.files
            .range(folder.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(folder))
            .map(|(path, &size)| (path.as_str(), size))
    }

    /// Looks at an unpacked rootfs.
    ///
    /// # Errors
    /// Disk errors.
    pub fn of_folder(rootfs: &Path, texts: &[&str]) -> Result<Self> {
        let mut facts = Self::default();
        for folder in LISTED {
            facts.walk(rootfs, folder)?;
        }
        let hooks: Vec<String> = facts.below(hook::FOLDER).map(|(path, _)| path.to_owned()).collect();
        let hooks = hooks.iter().map(String::as_str).filter(|path| hook::is_of_image(path));
        for path in texts.iter().copied().chain(hooks) {
            let file = rootfs.join(path);
            // What a link leads to may be the host's.
            let is_file = || fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file());
            if let Some(&size) = facts.files.get(path).filter(|_| is_file()) {
                check_text(path, size)?;
                let text = fs::read_to_string(&file).or_io(|| format!("cannot read {}", file.display()))?;
                facts.texts.insert(path.to_owned(), text);
            }
        }
        Ok(facts)
    }

    fn walk(&mut self, rootfs: &Path, folder: &str) -> Result<()> {
        // Without the slash, a link is seen as one: it may lead out of the rootfs.
        let path = rootfs.join(folder.trim_end_matches('/'));
        let place = || format!("cannot read the folder {}", path.display());
        if path.is_symlink() {
            return Ok(());
        }
        let entries = match fs::read_dir(&path) {
            Err(error) if files::is_absent(&error) => return Ok(()),
            entries => entries.or_io(place)?,
        };
        for entry in entries {
            let entry = entry.or_io(place)?;
            let metadata = entry.metadata().or_io(place)?;
            let name = format!("{folder}{}", entry.file_name().to_string_lossy());
            if metadata.is_dir() {
                self.walk(rootfs, &format!("{name}/"))?;
            } else {
                let size = if metadata.is_file() { metadata.len() } else { 0 };
                self.files.insert(name, size);
            }
        }
        Ok(())
    }

    /// Looks at the rootfs that an image would unpack to, with the text of these documents and of all templates. Layers
    /// that hold a container image's blob are not read.
    ///
    /// # Errors
    /// As unpacking.
    pub(crate) fn of_image(source: &dyn Source, image: &ClusterImage, documents: &[&str]) -> Result<Self> {
        let mut facts = Self::default();
        for layer in &image.manifest.layers {
            if !layer.annotations.contains_key(annotation::BLOB) {
                facts
                    .take_in_layer(source, layer, documents)
                    .context(|| format!("cannot read layer {}", layer.digest))?;
            }
        }
        Ok(facts)
    }

    /// Puts what is configured in its place, as far as plans depend on it.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when data or file are not what a configuration takes them for.
    pub(crate) fn configure(&mut self, configurations: &[Configuration], documents: &[&str]) -> Result<()> {
        for configuration in configurations {
            let path = configuration.path.trim_start_matches('/');
            let matters = template::target(path).is_some() || documents.contains(&path) || hook::is_of_image(path);
            if matters {
                let text = configuration.apply(self.texts.get(path).map(String::as_str))?;
                self.files.insert(path.to_owned(), text.len() as u64);
                self.texts.insert(path.to_owned(), text);
            } else if is_listed(path) {
                self.files
                    .entry(path.to_owned())
                    .or_insert(configuration.data.len() as u64);
            }
        }
        Ok(())
    }

    /// Puts what templates make in their place.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when a template is wrong.
    pub(crate) fn render(&mut self, values: &Values<'_>) -> Result<()> {
        for (path, text) in std::mem::take(&mut self.texts) {
            let Some(target) = template::target(&path) else {
                // What a template makes comes over a file of that name.
                self.texts.entry(path).or_insert(text);
                continue;
            };
            let text = template::render(&text, &path, values)
                .context(|| format!("cannot make a file of the template {path}"))?;
            if is_listed(target) {
                self.files.insert(target.to_owned(), text.len() as u64);
            }
            if values.planned.contains(&target) {
                self.texts.insert(target.to_owned(), text);
            }
        }
        Ok(())
    }

    fn take_in_layer(&mut self, source: &dyn Source, layer: &Descriptor, texts: &[&str]) -> Result<()> {
        let packed = VerifyingReader::new(source.open(layer, 0)?, layer.digest, layer.size);
        let packed = BufReader::with_capacity(1 << 20, packed);
        let mut tar = TarReader::new(Compression::of_layer(&layer.media_type)?.inflater(packed)?);
        // A whiteout hides what lies in the layers below, not in its own.
        let mut fresh = BTreeSet::new();
        while let Some(member) = tar.next()? {
            let path = member.path.trim_start_matches("./").trim_end_matches('/').to_owned();
            if let Some(hidden) = whiteout(&path) {
                self.hide(&hidden, &fresh);
                continue;
            }
            let makes = template::target(&path);
            if makes.is_none() && !is_listed(&path) {
                continue;
            }
            let size = match &member.kind {
                MemberKind::Folder => continue,
                // Nothing is made of a template that is a link: it may lead out of the rootfs.
                MemberKind::Symlink(_) if makes.is_some() => continue,
                MemberKind::File(size) => *size,
                MemberKind::HardLink(target) => self.files.get(target.trim_start_matches("./")).copied().unwrap_or(0),
                MemberKind::Symlink(_) | MemberKind::Other(_) => 0,
            };
            let is_text = texts.contains(&path.as_str()) || hook::is_of_image(&path);
            if makes.is_some() || is_text {
                check_text(&path, size)?;
                let text = match &member.kind {
                    MemberKind::HardLink(target) => {
                        let first = self.texts.get(target.trim_start_matches("./"));
                        first.cloned().unwrap_or_default()
                    }
                    _ => {
                        let mut text = String::new();
                        tar.content()
                            .read_to_string(&mut text)
                            .or_io(|| format!("cannot read `{path}` of the image"))?;
                        text
                    }
                };
                self.texts.insert(path.clone(), text);
            }
            fresh.insert(path.clone());
            if !is_listed(&path) {
                continue;
            }
            self.files.insert(path, size);
        }
        tar.drain()
    }

    fn hide(&mut self, hidden: &str, fresh: &BTreeSet<String>) {
        let below = format!("{}/", hidden.trim_end_matches('/'));
        let gone = |path: &String| (path.starts_with(&below) || path.as_str() == hidden) && !fresh.contains(path);
        self.files.retain(|path, _| !gone(path));
        self.texts.retain(|path, _| !gone(path));
    }
}

fn is_listed(path: &str) -> bool {
    LISTED.iter().any(|folder| path.starts_with(folder))
}

fn check_text(path: &str, size: u64) -> Result<()> {
    if size <= MAX_TEXT {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Input,
        format!("`{path}` of the image has {size} bytes, more than a configuration may have ({MAX_TEXT})"),
    ))
}

/// What a whiteout hides (OCI image specification, layer.md, "Whiteouts"); a folder's content ends in a slash.
fn whiteout(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let hidden = name.strip_prefix(".wh.")?;
    if hidden == ".wh..opq" {
        return Some(format!("{folder}/"));
    }
    Some(if folder.is_empty() {
        hidden.to_owned()
    } else {
        format!("{folder}/{hidden}")
    })
}

/// Unpacks the image for a cluster and fills in its templates, unless that was done. Nothing has the rootfs's name before
/// all of it is right.
///
/// # Errors
/// What unpacking meets; then nothing is left of it.
pub(crate) fn unpack(
    files: &ClusterFiles,
    source: &dyn Source,
    image: &ClusterImage,
    configurations: &[Configuration],
    values: &Values<'_>,
    apps: &BTreeMap<String, Environment>,
    progress: &dyn Progress,
) -> Result<()> {
    let (staging, rootfs) = (files.staging(), files.rootfs());
    if rootfs.is_dir() {
        return Ok(());
    }
    // What an interrupted run left can't be told from a whole one, nor is it worth comparing.
    crate::files::remove_tree(&staging)?;
    fs::create_dir_all(&staging).or_io(|| format!("cannot make the folder {}", staging.display()))?;
    let made = sealrs_image::rootfs::unpack(source, image, &staging, progress)
        .and_then(|_| configuration::write_all(&staging, configurations))
        .and_then(|()| template::render_all(&staging, values))
        .and_then(|()| template::render_apps(&staging, values, apps));
    if let Err(error) = made {
        // The reason counts more than what can't be tidied up; the next run tries again.
        let _ = crate::files::remove_tree(&staging);
        return Err(error);
    }
    fs::rename(&staging, &rootfs).or_io(|| format!("cannot rename {} to {}", staging.display(), rootfs.display()))?;
    sealrs_image::file::sync_folder(&files.of_image())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_whiteouts() {
        assert_eq!(whiteout("bin/.wh.k3s").as_deref(), Some("bin/k3s"));
        assert_eq!(whiteout("bin/.wh..wh..opq").as_deref(), Some("bin/"));
        assert_eq!(whiteout(".wh.bin").as_deref(), Some("bin"));
        assert_eq!(whiteout("bin/k3s"), None);
    }

    #[test]
    fn hides_what_lies_below() {
        let files = ["bin/a", "bin/b", "bin/b/c", "binary"].map(|path| (path.to_owned(), 1));
        let mut facts = RootfsFacts {
            files: BTreeMap::from(files),
            texts: BTreeMap::new(),
        };
        facts.hide("bin/b", &BTreeSet::new());
        assert_eq!(facts.below("bin/").collect::<Vec<_>>(), [("bin/a", 1)]);
        facts.hide("bin/", &BTreeSet::from(["bin/a".to_owned()]));
        assert!(facts.has("bin/a") && facts.has("binary"));
        facts.hide("bin", &BTreeSet::new());
        assert!(!facts.has("bin/a") && facts.has("binary"));
    }
}
