//! What is wrong in a Clusterfile, collected to be shown together.

use std::collections::BTreeSet;

use sealrs_image::error::ErrorKind;
use sealrs_image::finding::Finding;
use sealrs_image::suggest::nearest;
use serde_saphyr::{Error as Yaml, Location};

use super::Lint;
use super::hidden;
use super::tree::Node;

/// Lines that are longer are not shown.
const WIDEST: usize = 160;

pub(super) struct Mistakes<'t> {
    file: &'t str,
    lines: Vec<&'t str>,
    /// The lines that are not shown.
    hidden: BTreeSet<u64>,
    /// Whether parts of the document were left out, so that nothing is known of what it lacks.
    pub(super) partial: bool,
    findings: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl<'t> Mistakes<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            lines: text.lines().collect(),
            hidden: BTreeSet::new(),
            partial: false,
            findings: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Something wrong with the file as a whole.
    pub(super) fn whole(&mut self, message: &str, hint: &str) {
        let mut finding = Finding::new(ErrorKind::Input, self.file, message);
        finding.hint = Some(hint.to_owned());
        self.findings.push(finding);
    }

    /// Secrets in a document stay hidden.
    pub(super) fn hide(&mut self, document: &Node, text: &str) {
        hidden::collect(document, text, &mut self.hidden);
    }

    /// Something wrong at a place.
    pub(super) fn at(&mut self, place: Location, message: impl Into<String>, hint: impl Into<String>) {
        let finding = self.finding(place, message.into(), hint.into());
        self.findings.push(finding);
    }

    /// Something that is not there, unless it was left out.
    pub(super) fn absent(&mut self, place: Location, message: impl Into<String>, hint: impl Into<String>) {
        if !self.partial {
            self.at(place, message, hint);
        }
    }

    /// Something that may be wrong.
    pub(super) fn warn(&mut self, place: Location, message: impl Into<String>, hint: impl Into<String>) {
        let finding = self.finding(place, message.into(), hint.into());
        self.warnings.push(finding);
    }

    fn finding(&self, place: Location, message: String, hint: String) -> Finding {
        let mut finding = Finding::new(ErrorKind::Input, self.file, message);
        finding.hint = Some(hint).filter(|hint| !hint.is_empty());
        if place.line() > 0 {
            let line = usize::try_from(place.line()).unwrap_or(usize::MAX);
            let column = usize::try_from(place.column()).unwrap_or(usize::MAX).max(1);
            finding.line = Some(line);
            finding.column = Some(column);
            let shown = self.lines.get(line - 1).filter(|text| {
                text.chars().count() <= WIDEST && !text.chars().any(char::is_control) && !self.is_hidden(line)
            });
            if let Some(text) = shown {
                let number = line.to_string();
                let blank = " ".repeat(number.len());
                let indent = " ".repeat(column.min(WIDEST) - 1);
                finding.excerpt = format!("\n  {number} | {text}\n  {blank} | {indent}^");
                finding.source = Some((*text).to_owned());
            }
        }
        finding
    }

    fn is_hidden(&self, line: usize) -> bool {
        let text = |line: usize| self.lines.get(line).copied().unwrap_or_default();
        // A value may stand below its name.
        let above = line.checked_sub(2).map(text).unwrap_or_default();
        self.hidden.contains(&(line as u64))
            || hidden::may_hold(text(line - 1))
            || above.trim_end().ends_with(':') && hidden::may_hold(above)
    }

    /// What the YAML parser found.
    pub(super) fn yaml(&mut self, error: &Yaml) {
        let error = error.without_snippet();
        let place = error.location().unwrap_or(Location::UNKNOWN);
        if is_too_much(error) {
            let message = "the document is too deep, too long, or made of too many aliases";
            self.at(place, message, "write what a cluster needs, without aliases of aliases");
        } else if matches!(error, Yaml::UnknownAnchor { .. }) {
            let hint = "put a value that begins with `*` in quotes";
            self.at(place, "there is no anchor of this name", hint);
        } else {
            self.at(place, error.to_string(), "");
        }
    }

    /// What is wrong and what may be, in the order of the lines.
    pub(super) fn told(mut self) -> Lint {
        for findings in [&mut self.findings, &mut self.warnings] {
            findings.sort_by_key(|finding| (finding.line, finding.column));
        }
        Lint {
            errors: self.findings,
            warnings: self.warnings,
        }
    }
}

fn is_too_much(error: &Yaml) -> bool {
    match error {
        Yaml::Budget { .. } | Yaml::AliasReplayLimitExceeded { .. } | Yaml::AliasReplayStackDepthExceeded { .. } => {
            true
        }
        Yaml::AliasError { error, .. } => is_too_much(error),
        _ => false,
    }
}

/// What may be meant by `word`, or else all that is known.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}
