//! Files that name images: which ones they are, and their text, within bounds.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use sealrs_image::error::{Error, ErrorKind, Result};

/// The definitions of the largest operators are 4 MiB.
const MAX_FILE: u64 = 16 << 20;

/// What stands for the parts of a template that are filled in when the cluster is made. No reference can hold it.
pub(super) const UNRENDERED: &str = "<template>";

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    List,
    Manifest,
    Kustomization,
    /// Perhaps: a `.tgz` may hold anything.
    Chart,
    Other,
}

impl FileKind {
    pub(super) fn of(name: &str) -> Self {
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if name == "imageList" {
            Self::List
        } else if ["kustomization.yaml", "kustomization.yml", "Kustomization"].contains(&name) {
            Self::Kustomization
        } else if ends(&[".yaml", ".yml", ".json", ".yaml.tmpl", ".yml.tmpl", ".json.tmpl"]) {
            Self::Manifest
        } else if ends(&[".tgz", ".tar.gz"]) {
            Self::Chart
        } else {
            Self::Other
        }
    }
}

/// The text of a file, which `shown` names in what is said of it.
pub(super) fn read(path: &Path, shown: &str) -> Result<String> {
    let wrong = |why: &str| Error::new(ErrorKind::Input, format!("{why}: its images are not known"));
    let unreadable = |error: std::io::Error| wrong("this can't be read").because(error);
    // A pipe would be waited for.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(wrong("this is no file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(wrong("this is larger than 16 MiB, which is not read").hint("split it"));
    }
    let text = String::from_utf8(bytes).map_err(|error| wrong("this is not UTF-8").because(error))?;
    match shown.ends_with(".tmpl") {
        true => Ok(without_actions(&text)),
        false => Ok(text),
    }
}

/// A template with [`UNRENDERED`] in place of its actions, and without the lines that are nothing else. All lines keep
/// their numbers.
fn without_actions(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, action)) = rest.split_once("{{") {
        text.push_str(before);
        let (action, after) = action.split_once("}}").unwrap_or((action, ""));
        text.push_str(UNRENDERED);
        text.extend(action.matches('\n'));
        rest = after;
    }
    text.push_str(rest);
    let lines = text.split('\n').map(|line| {
        let is_action = line.contains(UNRENDERED) && line.replace(UNRENDERED, "").trim().is_empty();
        if is_action { "" } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_of_templates_go_and_lines_stay() {
        let template = "a: {{ .X }}/y\n{{- if .Z }}\nb: 1\n  {{ end }}{{/* x\ny */}}\nc: 2\n{{ open";
        assert_eq!(without_actions(template), "a: <template>/y\n\nb: 1\n\n\nc: 2\n");
    }
}
