//! Which container images files of Kubernetes name, and where.

mod candidates;
mod file;
mod kinds;
mod manifest;
mod node;
mod scan;
mod split;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeSet;
use std::path::Path;

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::finding::Finding;
use sealrs_image::reference::Reference;
use serde::Serialize;
use walkdir::WalkDir;

use crate::image_list;
use file::{FileKind, UNRENDERED};
use scan::{Scan, doubtful};

/// How sure it is that something is an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A field that holds an image by its type.
    Typed,
    /// A line of an image list.
    List,
    /// Something that looks like an image where any text may be.
    Candidate,
}

impl Kind {
    /// The word for people and programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Typed => "typed",
            Self::List => "list",
            Self::Candidate => "candidate",
        }
    }
}

/// An image and the place that names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Found {
    /// The whole reference.
    pub image: Reference,
    /// How sure it is.
    pub kind: Kind,
    /// The file, as the user knows it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The path of keys in the file's document; empty in a list.
    pub path: String,
}

/// What was found, and what could not be understood.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Sorted by image.
    pub images: BTreeSet<Found>,
    /// Files and lines that can't be understood: images may be missing.
    pub wrong: Vec<Finding>,
}

/// Reads a file, or all files below a folder.
///
/// # Errors
/// A folder can't be read. What can't be understood is in the answer.
pub fn discover(root: &Path) -> Result<Discovered> {
    let mut discovered = Discovered::default();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            Error::new(ErrorKind::Input, format!("can't read {}", root.display())).because(std::io::Error::from(error))
        })?;
        let file = entry.path().display().to_string();
        let name = entry.file_name().to_string_lossy();
        let kind = FileKind::of(&name);
        if entry.file_type().is_dir() {
            continue;
        }
        if entry.depth() > 0 && entry.path_is_symlink() {
            // What a link to a folder hides is not known, whatever its name is.
            if kind != FileKind::Other || entry.path().is_dir() {
                discovered.wrong.push(Finding {
                    hint: Some("put what it leads to in its place".to_owned()),
                    ..Finding::new(ErrorKind::Input, &file, "this is a link, and links are not followed")
                });
            }
        } else if name == "Chart.yaml" || kind == FileKind::Chart {
            discovered.wrong.push(Finding {
                hint: Some("run `helm template` and give its output".to_owned()),
                ..Finding::new(ErrorKind::Input, &file, "this is a chart, and charts are not rendered")
            });
        } else if kind == FileKind::List || (kind == FileKind::Other && entry.depth() == 0) {
            // A file that was named itself is a list, if it is nothing else.
            discovered.list(entry.path(), &file);
        } else if kind != FileKind::Other {
            discovered.manifest(entry.path(), &file);
        }
    }
    Ok(discovered)
}

impl Discovered {
    fn list(&mut self, path: &Path, shown: &str) {
        let text = match file::read(path, shown) {
            Ok(text) => text,
            Err(error) => return self.wrong.push(error.in_file(shown)),
        };
        for wanted in image_list::parse(&text, shown, &mut self.wrong) {
            let place = wanted.asked_by.first().and_then(|place| place.rsplit_once(':'));
            let line = place.and_then(|(_, line)| line.parse().ok()).unwrap_or(0);
            self.images.insert(Found {
                image: wanted.reference,
                kind: Kind::List,
                file: shown.to_owned(),
                line,
                path: String::new(),
            });
        }
    }

    fn manifest(&mut self, path: &Path, shown: &str) {
        match file::read(path, shown) {
            Ok(text) => self.add(Scan::of(&text, shown), shown),
            Err(error) => self.wrong.push(error.in_file(shown)),
        }
    }

    /// Takes in what was seen in a file.
    fn add(&mut self, scan: Scan, shown: &str) {
        self.wrong.extend(scan.wrong);
        for seen in scan.seen {
            match seen.text.parse::<Reference>() {
                Ok(image) => {
                    self.images.insert(Found {
                        image,
                        kind: seen.kind,
                        file: shown.to_owned(),
                        line: seen.line,
                        path: seen.path,
                    });
                }
                Err(_) if seen.text.contains(UNRENDERED) => {
                    self.wrong.push(doubtful(&seen.text, shown).at(seen.line));
                }
                Err(error) => self.wrong.push(error.in_file(shown).at(seen.line)),
            }
        }
    }
}
