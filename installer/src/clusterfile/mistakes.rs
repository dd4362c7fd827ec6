//! What is wrong in a Clusterfile, collected to be shown together.

use sealrs_image::error::{Error, ErrorKind, Result};
use sealrs_image::finding::Finding;
use sealrs_image::suggest::nearest;
use serde_saphyr::Location;

/// Lines that are longer are not shown.
const WIDEST: usize = 160;

pub(super) struct Mistakes<'t> {
    file: &'t str,
    lines: Vec<&'t str>,
    findings: Vec<Finding>,
}

impl<'t> Mistakes<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            lines: text.lines().collect(),
            findings: Vec::new(),
        }
    }

    /// Something wrong with the file as a whole.
    pub(super) fn whole(&mut self, message: &str, hint: &str) {
        let mut finding = Finding::new(ErrorKind::Input, self.file, message);
        finding.hint = Some(hint.to_owned());
        self.findings.push(finding);
    }

    /// Something wrong at a place.
    pub(super) fn at(&mut self, place: Location, message: impl Into<String>, hint: impl Into<String>) {
        let hint = hint.into();
        let mut finding = Finding::new(ErrorKind::Input, self.file, message);
        finding.hint = Some(hint).filter(|hint| !hint.is_empty());
        if place.line() > 0 {
            let line = usize::try_from(place.line()).unwrap_or(usize::MAX);
            let column = usize::try_from(place.column()).unwrap_or(usize::MAX).max(1);
            finding.line = Some(line);
            finding.column = Some(column);
            // A line with a password is not shown.
            let shown = self.lines.get(line - 1).filter(|text| {
                !text.to_lowercase().contains("passw")
                    && text.chars().count() <= WIDEST
                    && !text.chars().any(char::is_control)
            });
            if let Some(text) = shown {
                let number = line.to_string();
                let blank = " ".repeat(number.len());
                let indent = " ".repeat(column.min(WIDEST) - 1);
                finding.excerpt = format!("\n  {number} | {text}\n  {blank} | {indent}^");
                finding.source = Some((*text).to_owned());
            }
        }
        self.findings.push(finding);
    }

    /// What the YAML parser or a type found.
    pub(super) fn yaml(&mut self, error: &serde_saphyr::Error) {
        let error = error.without_snippet();
        let place = error.location().unwrap_or(Location::UNKNOWN);
        match error {
            serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
                let hint = suggestion(field, expected);
                self.at(place, format!("there is no field `{field}`"), hint);
            }
            serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } => {
                let hint = suggestion(variant, expected);
                self.at(place, format!("`{variant}` is not known here"), hint);
            }
            serde_saphyr::Error::SerdeMissingField { field, .. } => {
                self.at(place, format!("the field `{field}` is missing"), "add it");
            }
            other => self.at(place, other.to_string(), ""),
        }
    }

    /// The findings as one error, if there are any.
    pub(super) fn into_result(mut self) -> Result<()> {
        self.findings.sort_by_key(|finding| (finding.line, finding.column));
        let count = match self.findings.len() {
            0 => return Ok(()),
            1 => "an error".to_owned(),
            count => format!("{count} errors"),
        };
        Err(Error::together(format!("{} has {count}", self.file), self.findings))
    }
}

/// What may be meant by `word`, or else all that is known.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}
