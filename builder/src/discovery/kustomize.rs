//! Kustomizations: the images of what they refer to, with their `images` applied. What is referred to is not looked at
//! by itself: nobody applies it under its old names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::finding::Finding;

use crate::discovery::file::{self, FileKind};
use crate::discovery::node::{Node, Value};
use crate::discovery::patches::{Patches, is_of_container};
use crate::discovery::scan::{Scan, Seen, not_yaml};

/// Kustomizations in one another.
const MAX_DEPTH: usize = 16;
/// All of them and what they refer to, each as often as it is referred to.
const MAX_READ: usize = 10_000;
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// What is not understood, and may bring images.
const UNKNOWN: [&str; 6] = [
    "configurations",
    "helmCharts",
    "helmChartInflationGenerator",
    "generators",
    "transformers",
    "replacements",
];

/// The kustomizations of a folder.
#[derive(Debug)]
pub(super) struct Kustomizations {
    /// Nothing outside of it is read.
    root: PathBuf,
    /// As the user knows it.
    shown: String,
    /// Files that a kustomization refers to.
    pub(super) used: BTreeSet<PathBuf>,
    /// What was seen in which file.
    pub(super) scans: Vec<(Scan, String)>,
    /// Those that are being read, the outermost first.
    open: Vec<PathBuf>,
    read: usize,
}

/// An entry of `images`.
struct Change {
    name: String,
    new_name: Option<String>,
    new_tag: Option<String>,
    digest: Option<String>,
}

impl Kustomizations {
    pub(super) fn new(root: &Path, shown: &str) -> Result<Self> {
        let (root, shown) = match root.is_dir() {
            true => (root, shown.to_owned()),
            false => (
                root.parent()
                    .filter(|path| !path.as_os_str().is_empty())
                    .unwrap_or(Path::new(".")),
                Path::new(shown).parent().unwrap_or(Path::new("")).display().to_string(),
            ),
        };
        Ok(Self {
            root: root
                .canonicalize()
                .or_read(|| format!("cannot read {}", root.display()))?,
            shown,
            used: BTreeSet::new(),
            scans: Vec::new(),
            open: Vec::new(),
            read: 0,
        })
    }

    /// Reads these kustomizations: those that no other one refers to.
    pub(super) fn read(&mut self, files: &[PathBuf]) {
        let files: Vec<PathBuf> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
        let all: Vec<_> = files
            .into_iter()
            .map(|file| (self.kustomization(&file, Vec::new()), file))
            .collect();
        for (mut scans, file) in all {
            if self.used.contains(&file) {
                // Those of a circle are all referred to, and say so.
                scans.iter_mut().for_each(|(scan, _)| scan.seen.clear());
            }
            self.scans.extend(scans);
        }
    }

    /// What a kustomization gives. A component changes what is there `before`.
    fn kustomization(&mut self, path: &Path, before: Vec<(Scan, String)>) -> Vec<(Scan, String)> {
        self.open.push(path.to_owned());
        self.read += 1;
        let scans = self.opened(path, before);
        self.open.pop();
        scans
    }

    fn opened(&mut self, path: &Path, mut scans: Vec<(Scan, String)>) -> Vec<(Scan, String)> {
        let shown = self.shown(path);
        let mut own = Scan::default();
        let document = match file::read(path, &shown) {
            Ok(text) => match Node::read(&text) {
                Ok(documents) => documents.into_iter().next(),
                Err(error) => {
                    own.wrong.push(not_yaml(&error, &shown));
                    None
                }
            },
            Err(error) => {
                own.wrong.push(error.in_file(&shown));
                None
            }
        };
        let Some(document) = document else {
            scans.push((own, shown));
            return scans;
        };
        if let Some(version) = document.text_of("apiVersion")
            && !version.starts_with("kustomize.config.k8s.io/")
        {
            // Something of Flux, for instance.
            own.document(&document, &shown);
            scans.push((own, shown));
            return scans;
        }
        let wrong = |node: &Node, message: String| Finding::new(ErrorKind::Input, &shown, message).at(node.line);
        for key in UNKNOWN {
            if let Some(node) = document.get(key).filter(|node| !matches!(node.value, Value::Null)) {
                let message = format!("`{key}` is not understood: it may bring images");
                own.wrong.push(Finding {
                    hint: Some("put what `kustomize build` gives in the place of the kustomization".to_owned()),
                    ..wrong(node, message)
                });
            }
        }
        for key in ["resources", "bases", "components"] {
            for node in items(&document, key) {
                let Some(name) = node.text() else {
                    own.wrong
                        .push(wrong(node, format!("`{key}` has an entry that is no text")));
                    continue;
                };
                let before = match key {
                    "components" => scans.clone(),
                    _ => Vec::new(),
                };
                match self.follow(path, name, before) {
                    Ok(found) if key == "components" => scans = found,
                    Ok(found) => scans.extend(found),
                    Err(error) => own.wrong.push(error.in_file(&shown).at(node.line)),
                }
            }
        }
        let mut patches = Patches::default();
        // In the order in which kustomize applies them.
        for key in ["patchesStrategicMerge", "patches", "patchesJson6902"] {
            for node in items(&document, key) {
                match self.patch(path, node) {
                    Ok(Some((mut scan, documents, file))) => {
                        patches.apply(node.get("target"), &documents, &mut scan, &mut scans);
                        scans.push((scan, file));
                    }
                    Ok(None) => {}
                    Err(error) => own.wrong.push(error.in_file(&shown).at(node.line)),
                }
            }
        }
        for node in items(&document, "images") {
            match Change::of(node) {
                Some(change) => scans
                    .iter_mut()
                    .flat_map(|(scan, _)| &mut scan.seen)
                    .for_each(|seen| change.apply(seen)),
                None => own
                    .wrong
                    .push(wrong(node, "this entry of `images` is not understood".to_owned())),
            }
        }
        scans.push((own, shown));
        scans
    }

    /// An entry that is a patch, in itself or in a file: what it names, its documents, and where they are.
    fn patch(&mut self, from: &Path, node: &Node) -> Result<Option<(Scan, Vec<Node>, String)>> {
        let (text, file) = match node.text() {
            Some(text) if text.contains('\n') => (Some(text), None),
            Some(name) => (None, Some(name)),
            None => (node.text_of("patch"), node.text_of("path")),
        };
        if let Some(text) = text {
            let shown = self.shown(from);
            let (mut scan, mut documents) = Scan::with_documents(text, &shown);
            // A text in several lines begins below its key.
            let line = node.get("patch").unwrap_or(node).line.saturating_sub(1);
            scan.seen.iter_mut().for_each(|seen| seen.line += line);
            documents.iter_mut().for_each(|document| document.place(0, line));
            return Ok(Some((scan, documents, shown)));
        }
        let Some(name) = file else { return Ok(None) };
        let file = self.find(from, name)?;
        let shown = self.shown(&file);
        let (scan, documents) = Scan::with_documents(&file::read(&file, &shown)?, &shown);
        Ok(Some((scan, documents, shown)))
    }

    /// What a name in a kustomization gives: a file, or a folder with another one, that changes what is there `before`.
    fn follow(&mut self, from: &Path, name: &str, before: Vec<(Scan, String)>) -> Result<Vec<(Scan, String)>> {
        let file = self.find(from, name)?;
        let own_name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if FileKind::of(&own_name) == FileKind::Kustomization {
            if self.open.contains(&file) || self.open.len() >= MAX_DEPTH || self.read >= MAX_READ {
                return Err(
                    Error::new(ErrorKind::Input, format!("`{name}` is referred to too often"))
                        .hint("see that kustomizations do not refer to one another in a circle"),
                );
            }
            return Ok(self.kustomization(&file, before));
        }
        let shown = self.shown(&file);
        let text = file::read(&file, &shown)?;
        let mut scans = before;
        scans.push((Scan::of(&text, &shown), shown));
        Ok(scans)
    }

    /// The file that a name in a kustomization leads to.
    fn find(&mut self, from: &Path, name: &str) -> Result<PathBuf> {
        let refuse = |why: &str, hint: &str| Err(Error::new(ErrorKind::Input, format!("`{name}` {why}")).hint(hint));
        let folder = from.parent().unwrap_or(&self.root);
        let Ok(path) = folder.join(name).canonicalize() else {
            return refuse(
                "is not here: its images are not known",
                "put it beside the kustomization; nothing is fetched",
            );
        };
        if !path.starts_with(&self.root) {
            return refuse(
                "is outside: its images are not known",
                "give a folder that holds it as well",
            );
        }
        let file = match path.is_dir() {
            true => NAMES.iter().map(|name| path.join(name)).find(|path| path.is_file()),
            false => Some(path),
        };
        let Some(file) = file else {
            return refuse("is a folder without a kustomization", "name the files in it");
        };
        self.read += 1;
        if self.read > MAX_READ {
            return refuse(
                "is too much: 10,000 files are read",
                "put what `kustomize build` gives in the place of the kustomization",
            );
        }
        self.used.insert(file.clone());
        Ok(file)
    }

    fn shown(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        Path::new(&self.shown).join(below).display().to_string()
    }
}

fn items<'n>(document: &'n Node, key: &str) -> &'n [Node] {
    document.get(key).map_or(&[], Node::items)
}

impl Change {
    fn of(node: &Node) -> Option<Self> {
        let word = |key: &str| {
            node.get(key)
                .and_then(Node::word)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let known = ["name", "newName", "newTag", "digest"];
        if !node.entries().iter().all(|(key, _)| known.contains(&key.as_str())) {
            return None;
        }
        Some(Self {
            name: word("name")?,
            new_name: word("newName"),
            new_tag: word("newTag"),
            digest: word("digest"),
        })
    }

    /// Changes the images of containers, as kustomize does, and no others.
    fn apply(&self, seen: &mut Seen) {
        if !is_of_container(seen) {
            return;
        }
        let last = seen.text.rfind('/').map_or(0, |at| at + 1);
        let end = seen
            .text
            .get(last..)
            .and_then(|part| part.find([':', '@']))
            .map_or(seen.text.len(), |at| last + at);
        let (name, rest) = seen.text.split_at(end);
        if name != self.name {
            return;
        }
        let name = self.new_name.as_deref().unwrap_or(name);
        seen.text = match (&self.new_tag, &self.digest) {
            (_, Some(digest)) => format!("{name}@{digest}"),
            (Some(tag), None) => format!("{name}:{tag}"),
            (None, None) => format!("{name}{rest}"),
        };
    }
}
