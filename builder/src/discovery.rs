//! Which container images files of Kubernetes name, and where.

mod candidates;
mod kinds;
mod manifest;
mod node;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::finding::Finding;
use sealrs_image::reference::Reference;
use serde::Serialize;
use walkdir::WalkDir;

use crate::image_list;
use node::Node;

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
/// A folder or a file can't be read. What can't be understood is in the answer.
pub fn discover(root: &Path) -> Result<Discovered> {
    let mut discovered = Discovered::default();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            Error::new(ErrorKind::Input, format!("can't read {}", root.display())).because(std::io::Error::from(error))
        })?;
        let name = entry.file_name().to_string_lossy();
        let file = entry.path().display().to_string();
        let is_list = name == "imageList";
        let is_yaml = [".yaml", ".yml", ".json", ".yaml.tmpl", ".yml.tmpl"]
            .iter()
            .any(|end| name.ends_with(end));
        if entry.file_type().is_dir() {
            continue;
        }
        // A file that was named itself is a list, if it is nothing else.
        let is_list = is_list || (entry.depth() == 0 && !is_yaml && !name.ends_with(".tgz"));
        if (is_list || is_yaml) && entry.path_is_symlink() && entry.depth() > 0 {
            discovered.wrong.push(Finding {
                hint: Some("put the file itself there".to_owned()),
                ..Finding::new(ErrorKind::Input, &file, "this is a link, and links are not followed")
            });
        } else if name == "Chart.yaml" || name.ends_with(".tgz") {
            discovered.wrong.push(Finding {
                hint: Some("run `helm template` and give its output".to_owned()),
                ..Finding::new(ErrorKind::Input, &file, "this is a chart, and charts are not rendered")
            });
        } else if is_list || is_yaml {
            let text = std::fs::read_to_string(entry.path())
                .map_err(|error| Error::new(ErrorKind::Input, format!("can't read {file}")).because(error))?;
            if is_list {
                discovered.list(&text, &file);
            } else {
                discovered.manifest(&text, &file);
            }
        }
    }
    Ok(discovered)
}

impl Discovered {
    fn list(&mut self, text: &str, file: &str) {
        for wanted in image_list::parse(text, file, &mut self.wrong) {
            let place = wanted.asked_by.first().and_then(|place| place.rsplit_once(':'));
            let line = place.and_then(|(_, line)| line.parse().ok()).unwrap_or(0);
            self.images.insert(Found {
                image: wanted.reference,
                kind: Kind::List,
                file: file.to_owned(),
                line,
                path: String::new(),
            });
        }
    }

    fn manifest(&mut self, text: &str, file: &str) {
        let documents = match Node::read(text) {
            Ok(documents) => documents,
            Err(error) => {
                let line = error
                    .location()
                    .and_then(|location| usize::try_from(location.line()).ok());
                let mut finding = Finding::new(ErrorKind::Input, file, "this is not YAML: its images are not known");
                finding.line = line;
                finding
                    .causes
                    .push(error.to_string().lines().next().unwrap_or_default().to_owned());
                self.wrong.push(finding);
                return;
            }
        };
        for document in &documents {
            let mut typed = Vec::new();
            manifest::images(document, "", &mut typed);
            let mut known = BTreeSet::new();
            for (path, line, image) in typed {
                known.insert((line, image.to_owned()));
                match image.parse::<Reference>() {
                    Ok(image) => self.add(image, Kind::Typed, file, line, path),
                    Err(error) => self.wrong.push(error.in_file(file).at(line)),
                }
            }
            let mut candidates = Vec::new();
            candidates::candidates(document, "", &mut candidates);
            for (path, line, image) in candidates {
                if known.contains(&(line, image.clone())) {
                    continue;
                }
                if let Ok(image) = image.parse::<Reference>() {
                    self.add(image, Kind::Candidate, file, line, path);
                }
            }
        }
    }

    fn add(&mut self, image: Reference, kind: Kind, file: &str, line: usize, path: String) {
        let file = file.to_owned();
        self.images.insert(Found {
            image,
            kind,
            file,
            line,
            path,
        });
    }
}
