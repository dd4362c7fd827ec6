//! The lists of container images that are given beside the Kubefile: what is wanted more, and what is left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, Result, ResultExt as _};
use sealrs_image::finding::Finding;
use sealrs_image::progress::{Event, Progress};
use sealrs_image::reference::Reference;
use sealrs_image::suggest::nearest_image;

use crate::build::Options;
use crate::image_list::{self, Wanted};

/// What the lists of the command line say.
pub(crate) struct Asked {
    wanted: Vec<Wanted>,
    ignored: Vec<Wanted>,
    /// The lines of files that name what may be missing.
    allowed: Vec<String>,
}

impl Asked {
    /// Reads the lists. At the beginning: what is wrong in them should not wait for the packing.
    pub(crate) fn read(options: &Options) -> Result<Self> {
        let mut wrong = Vec::new();
        let mut read = |paths: &[PathBuf]| -> Result<Vec<Wanted>> {
            let mut all = Vec::new();
            for path in paths {
                let text = read_list(path)?;
                all.extend(image_list::parse(&text, &path.display().to_string(), &mut wrong));
            }
            Ok(all)
        };
        let (mut wanted, ignored) = (read(&options.image_lists)?, read(&options.ignored_image_lists)?);
        image_list::refuse(wrong)?;
        let with_auth = options.image_lists_with_auth.iter().flat_map(|list| &list.wanted);
        wanted.extend(with_auth.cloned());
        let mut allowed = Vec::new();
        for path in &options.allow_unresolved {
            let text = read_list(path)?;
            let lines = text.trim_start_matches('\u{feff}').lines();
            let lines = lines.map(|line| line.split(" #").next().unwrap_or(line).trim());
            let lines = lines.map(|line| line.trim_matches(['"', '\'']).trim());
            allowed.extend(
                lines
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .map(str::to_owned),
            );
        }
        Ok(Self {
            wanted,
            ignored,
            allowed,
        })
    }

    /// Whether an image may be missing.
    pub(crate) fn allows(&self, image: &Reference) -> bool {
        self.allowed
            .iter()
            .any(|line| line.parse().ok().as_ref() == Some(image))
    }

    /// Refuses what is wrong, but for files, lines and folders that may be; of those it is said.
    pub(crate) fn refuse(&self, wrong: Vec<Finding>, progress: &dyn Progress) -> Result<()> {
        let is_allowed = |finding: &Finding| {
            self.allowed.iter().map(|line| line.trim_end_matches('/')).any(|line| {
                let below = finding.file.strip_prefix(line);
                line == finding.place() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let (allowed, mut wrong): (Vec<_>, Vec<_>) = wrong.into_iter().partition(is_allowed);
        for finding in allowed {
            progress.event(Event::Warning(&format!(
                "allowed: {}: {}",
                finding.place(),
                finding.message
            )));
        }
        for finding in &mut wrong {
            let allow = "name it in a file of `--allow-unresolved` if it needs no images";
            let hint = finding.hint.as_ref().map(|hint| format!("{hint}; or {allow}"));
            finding.hint = hint.or_else(|| Some(allow.to_owned()));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::together(
                "images may be missing: not all manifests and charts can be understood",
                wrong,
            )),
        }
    }

    /// Everything that asks for a container image, less what is ignored. Says which lines leave nothing out: a misspelt
    /// name would pull what was not wanted.
    pub(crate) fn join(&self, mut lists: Vec<Wanted>, progress: &dyn Progress) -> Vec<Wanted> {
        lists.extend(self.wanted.iter().cloned());
        let mut wanted = image_list::join(lists);
        let names: BTreeSet<Reference> = wanted.iter().map(|entry| entry.reference.clone()).collect();
        let ignored = image_list::join(self.ignored.clone());
        for entry in ignored.iter().filter(|entry| !names.contains(&entry.reference)) {
            let (places, name) = (entry.asked_by.join(", "), entry.reference.familiar());
            let hint = match nearest_image(&entry.reference, &names) {
                Some(near) => format!("; did you mean `{}`?", near.familiar()),
                None => String::new(),
            };
            progress.event(Event::Warning(&format!("{places}: nothing names {name}{hint}")));
        }
        wanted.retain(|entry| ignored.iter().all(|ignored| ignored.reference != entry.reference));
        wanted
    }
}

fn read_list(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Input,
        };
        let what = format!("cannot read the image list {}", path.display());
        let hint = "give a file that names one container image a line";
        Error::new(kind, what).because(error).hint(hint)
    })?;
    String::from_utf8(bytes).or_fail(ErrorKind::Input, || format!("{} is not a text", path.display()))
}
