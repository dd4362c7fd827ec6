//! Which container images files of Kubernetes name, and where.

mod candidates;
mod chart;
mod file;
mod helm;
mod kinds;
mod kustomize;
mod manifest;
mod node;
mod patches;
mod scan;
mod split;
mod stage;
#[cfg(test)]
mod tests;
mod text;
mod values;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::finding::Finding;
use sealrs_image::reference::Reference;
use serde::Serialize;
use walkdir::WalkDir;

use crate::image_list;
use chart::Chart;
use file::{FileKind, UNRENDERED};
use kustomize::Kustomizations;
use scan::{Scan, doubtful};
use values::ByValues;

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
    /// The chart that it is of. The file is then a template, and the line that of what the template gives.
    pub chart: Option<String>,
    /// The file, line and path of the chart's value that names it.
    pub value: Option<String>,
}

/// What was found, and what could not be understood.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Sorted by image.
    pub images: BTreeSet<Found>,
    /// Files and lines that can't be understood: images may be missing.
    pub wrong: Vec<Finding>,
    /// What was not done as well as it could be.
    pub notes: Vec<String>,
}

/// How files are read.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// The helm that renders charts; without it, the one on PATH.
    pub helm: Option<PathBuf>,
    /// Files of values for all charts, over those that lie beside them. Later ones win.
    pub values: Vec<PathBuf>,
    /// The Kubernetes version that charts are rendered for.
    pub kube_version: Option<String>,
    /// More API versions that the cluster has.
    pub api_versions: Vec<String>,
}

/// Whether a file is read at all, by its path.
pub(crate) fn may_name_images(path: &str) -> bool {
    FileKind::of(path.rsplit('/').next().unwrap_or(path)) != FileKind::Other
}

impl Discovery {
    /// Reads a file, or all files below a folder, which `shown` names in what is said of them.
    ///
    /// # Errors
    /// A folder, helm or the values can't be read. What can't be understood is in the answer.
    pub fn read(&self, root: &Path, shown: &str) -> Result<Discovered> {
        let own = self.checked()?;
        let mut discovered = Discovered::default();
        let (mut charts, mut files) = (Vec::new(), Vec::new());
        let mut entries = WalkDir::new(root).sort_by_file_name().into_iter();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| {
                Error::new(ErrorKind::Input, format!("can't read {shown}")).because(std::io::Error::from(error))
            })?;
            let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
            let shown = match entry.depth() {
                0 => shown.to_owned(),
                _ => Path::new(shown).join(below).display().to_string(),
            };
            let kind = FileKind::of(&entry.file_name().to_string_lossy());
            let is_folder = entry.file_type().is_dir() || (entry.depth() == 0 && entry.path().is_dir());
            if is_folder && entry.path().join("Chart.yaml").symlink_metadata().is_ok() {
                charts.push((entry.path().to_owned(), shown));
                entries.skip_current_dir();
            } else if is_folder {
                continue;
            } else if entry.depth() > 0 && entry.path_is_symlink() {
                // What a link to a folder hides is not known, whatever its name is.
                if kind != FileKind::Other || entry.path().is_dir() {
                    discovered.wrong.push(Finding {
                        hint: Some("put what it leads to in its place".to_owned()),
                        ..Finding::new(ErrorKind::Input, &shown, "this is a link, and links are not followed")
                    });
                }
            } else if kind == FileKind::Chart {
                match stage::is_chart(entry.path()) {
                    Ok(true) => charts.push((entry.path().to_owned(), shown)),
                    Ok(false) if entry.depth() > 0 => {}
                    Ok(false) => discovered
                        .wrong
                        .push(Finding::new(ErrorKind::Input, &shown, "this is no chart")),
                    Err(error) => discovered.wrong.push(error.in_file(&shown)),
                }
            } else if kind != FileKind::Other || entry.depth() == 0 {
                files.push((entry.into_path(), shown, kind));
            }
        }
        let mut values = BTreeSet::new();
        for (path, shown) in charts {
            match Chart::open(&path, &shown) {
                Ok(chart) => {
                    values.extend(chart.values_files().cloned());
                    chart.read(&own, &mut discovered);
                }
                Err(error) => discovered.wrong.push(error.in_file(&shown)),
            }
        }
        let mut kustomizations = Kustomizations::new(root, shown)?;
        let is_one = |kind: &FileKind| *kind == FileKind::Kustomization;
        let ones: Vec<PathBuf> = files
            .iter()
            .filter(|(.., kind)| is_one(kind))
            .map(|(path, ..)| path.clone())
            .collect();
        kustomizations.read(&ones);
        for (scan, file) in std::mem::take(&mut kustomizations.scans) {
            discovered.add(scan, &file, None, None);
        }
        for (path, shown, kind) in files {
            let is_known = |path: &PathBuf| values.contains(path) || kustomizations.used.contains(path);
            if is_one(&kind) || path.canonicalize().is_ok_and(|path| is_known(&path)) {
                continue;
            }
            match kind {
                // A file that was named itself is a list, if it is nothing else.
                FileKind::List | FileKind::Other => discovered.list(&path, &shown),
                _ => discovered.manifest(&path, &shown),
            }
        }
        Ok(discovered)
    }

    /// The same with whole paths: helm takes others for names of repositories.
    fn checked(&self) -> Result<Self> {
        let mut own = self.clone();
        own.values = self
            .values
            .iter()
            .map(|path| chart::absolute(path))
            .collect::<Result<_>>()?;
        if let Some(helm) = &self.helm {
            own.helm = Some(
                helm.canonicalize()
                    .or_read(|| format!("cannot find helm at {}", helm.display()))?,
            );
        }
        Ok(own)
    }

    fn helm(&self) -> Option<PathBuf> {
        self.helm.clone().or_else(helm::on_path)
    }
}

impl Discovered {
    /// Takes in what was found elsewhere.
    pub fn extend(&mut self, other: Self) {
        self.images.extend(other.images);
        self.wrong.extend(other.wrong);
        self.notes.extend(other.notes);
    }

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
                chart: None,
                value: None,
            });
        }
    }

    fn manifest(&mut self, path: &Path, shown: &str) {
        match file::read(path, shown) {
            Ok(text) => self.add(Scan::of(&text, shown), shown, None, None),
            Err(error) => self.wrong.push(error.in_file(shown)),
        }
    }

    /// Takes in what was seen in a file, perhaps of a chart.
    fn add(&mut self, scan: Scan, shown: &str, chart: Option<&str>, by_values: Option<&ByValues>) {
        if !scan.wrong.is_empty() {
            // What several kustomizations refer to is read several times.
            let of_file = self.wrong.iter().filter(|wrong| wrong.file == shown);
            let mut known: BTreeSet<(Option<usize>, String)> =
                of_file.map(|wrong| (wrong.line, wrong.message.clone())).collect();
            for wrong in scan.wrong {
                if known.insert((wrong.line, wrong.message.clone())) {
                    self.wrong.push(wrong);
                }
            }
        }
        for seen in scan.seen {
            match seen.text.parse::<Reference>() {
                Ok(image) => {
                    self.images.insert(Found {
                        value: by_values.and_then(|values| values.origin(&image)),
                        image,
                        kind: seen.kind,
                        file: shown.to_owned(),
                        line: seen.line,
                        path: seen.path,
                        chart: chart.map(str::to_owned),
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
