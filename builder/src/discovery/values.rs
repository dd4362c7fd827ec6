//! What the values of a chart say of its images, sub-charts included. It is all that is known without helm; with helm
//! it tells which value an image comes from.

use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::finding::Finding;
use sealrs_image::reference::Reference;

use crate::discovery::candidates::{Around, Candidates, is_image};
use crate::discovery::node::{Node, Value, below};
use crate::discovery::scan::{Scan, Seen};
use crate::discovery::{Kind, file};

/// Charts in charts.
const MAX_DEPTH: usize = 8;

/// What the values of a chart name.
#[derive(Debug, Default)]
pub(super) struct ByValues {
    /// Each with the file that it is of, as the user knows it.
    pub(super) scans: Vec<(Scan, String)>,
    files: Vec<String>,
    /// A template that names an image by its values.
    asking: Option<(String, usize)>,
}

/// Reads the values of the chart in a folder, with files of more values over them.
pub(super) fn read(chart: &Path, shown: &str, more: &[(PathBuf, String)]) -> Result<ByValues> {
    let mut found = ByValues::default();
    let mut values = null();
    for (path, shown) in more {
        let own = found.file(path, shown)?;
        values = merged(values, own);
    }
    found.chart(chart, shown, values, "", 0)?;
    Ok(found)
}

impl ByValues {
    /// Which value an image comes from: `values.yaml:3 image`.
    pub(super) fn origin(&self, image: &Reference) -> Option<String> {
        self.scans.iter().find_map(|(scan, file)| {
            let seen = scan
                .seen
                .iter()
                .find(|seen| !seen.path.is_empty() && seen.text.parse::<Reference>().ok().as_ref() == Some(image))?;
            Some(format!("{file}:{} {}", seen.line, seen.path))
        })
    }

    /// That templates name images and nothing in the values does.
    pub(super) fn nothing(&self, shown: &str) -> Option<Finding> {
        let (template, line) = self.asking.as_ref()?;
        if self.scans.iter().any(|(scan, _)| !scan.seen.is_empty()) {
            return None;
        }
        let hint = "put helm on PATH, or name it with `--helm`";
        Some(Finding {
            hint: Some(hint.to_owned()),
            ..Finding::new(
                ErrorKind::Input,
                format!("{shown}/{template}"),
                "an image is named here, and no value says which: without helm it is not known",
            )
            .at(*line)
        })
    }

    fn chart(&mut self, chart: &Path, shown: &str, over: Node, prefix: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::Input,
                "its sub-charts lie too deep in one another",
            ));
        }
        let about = self.file(&chart.join("Chart.yaml"), &format!("{shown}/Chart.yaml"))?;
        let path = chart.join("values.yaml");
        let own = match path.is_file() {
            true => self.file(&path, &format!("{shown}/values.yaml"))?,
            false => null(),
        };
        let mut values = merged(own, over);
        let subs = sub_charts(chart)?;
        let global = values.get("global").cloned();
        let mut used = Vec::new();
        for (folder, name) in &subs {
            let dependencies = about.get("dependencies");
            let mut named: Vec<(&str, bool)> = dependencies
                .into_iter()
                .flat_map(|list| match &list.value {
                    Value::List(items) => items.as_slice(),
                    _ => &[],
                })
                .filter(|item| item.text_of("name") == Some(name))
                .map(|item| (item.text_of("alias").unwrap_or(name), is_enabled(item, &values)))
                .collect();
            if named.is_empty() {
                named.push((name, true));
            }
            for (alias, is_enabled) in named {
                used.push(alias.to_owned());
                if is_enabled {
                    let mut over = values.get(alias).cloned().unwrap_or_else(null);
                    if let Some(global) = &global {
                        let global = Node {
                            value: Value::Map(vec![("global".to_owned(), global.clone())]),
                            ..null()
                        };
                        over = merged(over, global);
                    }
                    let file = folder.file_name().unwrap_or_default().to_string_lossy();
                    let shown = format!("{shown}/charts/{}", file.trim_end_matches(".unpacked"));
                    self.chart(folder, &shown, over, &below(prefix, alias), depth + 1)?;
                }
            }
        }
        if let Value::Map(entries) = &mut values.value {
            entries.retain(|(key, _)| !used.contains(key));
        }
        let registry = global.as_ref().and_then(|global| global.text_of("imageRegistry"));
        let around = Around {
            version: about.get("appVersion").and_then(Node::word),
            registry: registry.filter(|text| !text.is_empty()),
            ..Around::default()
        };
        let mut candidates = Candidates::default();
        candidates.read(&values, "", "", around);
        for found in candidates.images {
            let seen = Seen {
                text: found.text,
                kind: Kind::Candidate,
                line: found.line,
                path: below(prefix, &found.place),
                container: None,
            };
            self.add(seen, self.files.get(found.source).cloned().unwrap_or_default());
        }
        self.annotations(&about, shown);
        self.templates(chart, shown)
    }

    /// The images that the author of a chart lists.
    fn annotations(&mut self, about: &Node, shown: &str) {
        for key in ["artifacthub.io/images", "images"] {
            let Some(node) = about.get("annotations").and_then(|all| all.get(key)) else {
                continue;
            };
            let mut candidates = Candidates::default();
            candidates.read(node, "", &format!("annotations.{key}"), Around::default());
            for found in candidates.images {
                let seen = Seen {
                    text: found.text,
                    kind: Kind::Candidate,
                    line: found.line,
                    path: found.place,
                    container: None,
                };
                self.add(seen, format!("{shown}/Chart.yaml"));
            }
        }
    }

    /// Lines of templates that name a whole image, or one that values have to name.
    fn templates(&mut self, chart: &Path, shown: &str) -> Result<()> {
        let templates = chart.join("templates");
        if !templates.is_dir() {
            return Ok(());
        }
        for entry in walkdir::WalkDir::new(&templates).sort_by_file_name() {
            let entry = entry
                .map_err(std::io::Error::from)
                .or_read(|| "cannot read the templates")?;
            let name = entry
                .path()
                .strip_prefix(chart)
                .unwrap_or(entry.path())
                .display()
                .to_string();
            if !entry.file_type().is_file() || !(name.ends_with(".yaml") || name.ends_with(".yml")) {
                continue;
            }
            let shown = format!("{shown}/{name}");
            for (number, line) in file::read(entry.path(), &shown)?.lines().enumerate() {
                let Some(image) = line.trim().trim_start_matches("- ").strip_prefix("image:") else {
                    continue;
                };
                let image = image.trim().trim_matches(['"', '\'']);
                if image.contains("{{") {
                    self.asking.get_or_insert_with(|| (name.clone(), number + 1));
                } else if is_image(image) {
                    let seen = Seen {
                        text: image.to_owned(),
                        kind: Kind::Candidate,
                        line: number + 1,
                        path: String::new(),
                        container: None,
                    };
                    self.add(seen, shown.clone());
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, seen: Seen, file: String) {
        let scan = Scan {
            seen: vec![seen],
            wrong: Vec::new(),
        };
        self.scans.push((scan, file));
    }

    /// Reads a file of values.
    fn file(&mut self, path: &Path, shown: &str) -> Result<Node> {
        let text = file::read(path, shown)?;
        let documents = Node::read(&text).map_err(|error| {
            let cause = error.to_string().lines().next().unwrap_or_default().to_owned();
            Error::new(ErrorKind::Input, format!("{shown} can't be understood"))
                .because(Error::new(ErrorKind::Input, cause))
        })?;
        let mut node = documents.into_iter().next().unwrap_or_else(null);
        node.place(self.files.len(), 0);
        self.files.push(shown.to_owned());
        Ok(node)
    }
}

/// The folders of sub-charts, and their names.
fn sub_charts(chart: &Path) -> Result<Vec<(PathBuf, String)>> {
    let folder = chart.join("charts");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut subs = Vec::new();
    for entry in fs::read_dir(&folder).or_read(|| "cannot read the sub-charts")? {
        let path = entry.or_read(|| "cannot read the sub-charts")?.path();
        let about = path.join("Chart.yaml");
        if about.is_file() {
            let text = file::read(&about, "Chart.yaml")?;
            let documents = Node::read(&text).unwrap_or_default();
            let name = documents.first().and_then(|about| about.text_of("name"));
            let name = name
                .ok_or_else(|| Error::new(ErrorKind::Input, "a sub-chart has no name"))?
                .to_owned();
            subs.push((path, name));
        }
    }
    subs.sort();
    Ok(subs)
}

/// Whether values want a sub-chart: by the first of its conditions that they have, or by its tags.
fn is_enabled(dependency: &Node, values: &Node) -> bool {
    let flag = |path: &str| {
        let node = path.trim().split('.').try_fold(values, Node::get)?;
        match node.value {
            Value::True => Some(true),
            Value::Other => Some(false),
            _ => None,
        }
    };
    let condition = dependency.text_of("condition").unwrap_or_default();
    if let Some(is_wanted) = condition.split(',').find_map(flag) {
        return is_wanted;
    }
    let Some(Node {
        value: Value::List(tags),
        ..
    }) = dependency.get("tags")
    else {
        return true;
    };
    let flags: Vec<bool> = tags
        .iter()
        .filter_map(Node::text)
        .filter_map(|tag| flag(&format!("tags.{tag}")))
        .collect();
    flags.is_empty() || flags.contains(&true)
}

/// Values with others over them.
fn merged(under: Node, over: Node) -> Node {
    match (under.value, over.value) {
        (Value::Map(mut entries), Value::Map(others)) => {
            for (key, node) in others {
                match entries.iter().position(|(known, _)| *known == key) {
                    Some(at) => {
                        let (_, known) = entries.swap_remove(at);
                        entries.push((key, merged(known, node)));
                    }
                    None => entries.push((key, node)),
                }
            }
            Node {
                value: Value::Map(entries),
                line: under.line,
                source: under.source,
            }
        }
        // A key without a value in a file that is all comments.
        (value, Value::Null) => Node {
            value,
            line: under.line,
            source: under.source,
        },
        (_, value) => Node {
            value,
            line: over.line,
            source: over.source,
        },
    }
}

fn null() -> Node {
    Node {
        line: 0,
        source: 0,
        value: Value::Null,
    }
}
