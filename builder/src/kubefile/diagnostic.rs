//! What is wrong in a file that a user wrote, where, and what would be right.
//!
//! All findings of a file are collected and shown together, each with its line and a caret. The text is the same
//! on every run and has no colour: `Kubefile:3:6: error: …`, a form that editors and terminals can jump to.

use std::fmt;
use std::sync::Arc;

use sealrs_image::error::{Error, ErrorKind};
use sealrs_image::finding::{Finding, listed};
use unicode_width::UnicodeWidthChar;

/// Columns of a source line that are shown around the place; longer lines are cut there.
const WINDOW: usize = 120;

/// A place in a file. Lines and columns count from 1, columns and length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    /// The line.
    pub(crate) line: usize,
    /// The first character.
    pub(crate) column: usize,
    /// How many characters of that line are meant, at least 1.
    pub(crate) length: usize,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but probably does not do what its author thinks.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    severity: Severity,
    kind: ErrorKind,
    span: Option<Span>,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Diagnostic {
    /// An error at a place. `message` says what is wrong, without a full stop.
    #[must_use]
    pub(crate) fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::error_in_file(message)
        }
    }

    /// An error that concerns the file as a whole.
    #[must_use]
    pub(crate) fn error_in_file(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            kind: ErrorKind::Input,
            span: None,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// A warning at a place.
    #[must_use]
    pub(crate) fn warning(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(span, message)
        }
    }

    /// A failure of a later stage, at the place that asked for what failed.
    #[must_use]
    pub(crate) fn failure(span: Span, error: &Error) -> Self {
        Self {
            kind: error.kind(),
            causes: error.causes(),
            hint: error.remedy().map(str::to_owned),
            ..Self::error(span, error.to_string())
        }
    }

    /// The same finding with what would be right: an imperative sentence.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// How bad it is.
    #[must_use]
    pub(crate) fn severity(&self) -> Severity {
        self.severity
    }

    #[cfg(test)]
    /// Where it is; `None` if it concerns the file as a whole.
    #[must_use]
    pub(crate) fn span(&self) -> Option<Span> {
        self.span
    }

    #[cfg(test)]
    /// What is wrong.
    #[must_use]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// The findings of one file, in the order of its lines.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Diagnostics {
    file: String,
    source: Arc<str>,
    entries: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The findings `entries` of `file`, whose text is `source`.
    #[must_use]
    pub(crate) fn new(file: impl Into<String>, source: impl Into<Arc<str>>, mut entries: Vec<Diagnostic>) -> Self {
        entries.sort_by_key(|entry| entry.span.map(|span| (span.line, span.column)));
        Self {
            file: file.into(),
            source: source.into(),
            entries,
        }
    }

    #[cfg(test)]
    /// The findings.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.entries.iter()
    }

    /// Each finding as text of its own that does not say how bad it is: who shows a warning calls it one.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.findings().into_iter().map(|finding| finding.text(""))
    }

    /// The findings with their places and lines.
    fn findings(&self) -> Vec<Finding> {
        let lines: Vec<&str> = self.source.split('\n').collect();
        let file = printable(&self.file);
        let found = |entry: &Diagnostic| {
            let line = entry.span.map(|span| {
                let line = lines.get(span.line.saturating_sub(1)).copied().unwrap_or_default();
                line.trim_start_matches('\u{feff}').trim_end_matches('\r')
            });
            Finding {
                line: entry.span.map(|span| span.line),
                column: entry.span.map(|span| span.column),
                causes: entry.causes.clone(),
                source: line.map(str::to_owned),
                hint: entry.hint.clone(),
                excerpt: match (line, entry.span) {
                    (Some(line), Some(span)) => excerpt(line, span),
                    _ => String::new(),
                },
                ..Finding::new(entry.kind, file.as_str(), entry.message.as_str())
            }
        };
        self.entries.iter().map(found).collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&listed(&self.findings()))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Diagnostics {}

/// The errors as one error, which has all of them.
impl From<Diagnostics> for Error {
    fn from(mut diagnostics: Diagnostics) -> Self {
        diagnostics.entries.retain(|entry| entry.severity == Severity::Error);
        let count = match diagnostics.entries.len() {
            1 => "an error".to_owned(),
            count => format!("{count} errors"),
        };
        let file = printable(&diagnostics.file);
        Error::together(format!("{file} has {count}"), diagnostics.findings())
    }
}

/// A source line, and below it carets under the span.
fn excerpt(line: &str, span: Span) -> String {
    let length = line.chars().count();
    let column = span.column.saturating_sub(1).min(length);
    // Far to the right of a long line: show what is around the place.
    let first = if column > WINDOW * 3 / 4 {
        column - WINDOW / 2
    } else {
        0
    };
    let mut shown = String::new();
    let mut indent = String::new();
    let mut carets = String::new();
    if first > 0 {
        shown.push('…');
        indent.push(' ');
    }
    for (index, character) in line.chars().enumerate().skip(first).take(WINDOW) {
        // Tabs and control characters have no width of their own.
        let (character, width) = match character {
            '\t' => (' ', 1),
            other if is_unprintable(other) => ('\u{fffd}', 1),
            other => (other, other.width().unwrap_or(1)),
        };
        shown.push(character);
        if index < column {
            indent.extend(std::iter::repeat_n(' ', width));
        } else if index < column.saturating_add(span.length) {
            carets.extend(std::iter::repeat_n('^', width));
        }
    }
    if length > first.saturating_add(WINDOW) {
        shown.push('…');
    }
    if carets.is_empty() {
        carets.push('^');
    }
    let number = span.line.to_string();
    let blank = " ".repeat(number.len());
    format!("\n  {number} | {shown}\n  {blank} | {indent}{carets}")
}

/// `text` in back quotes, fit for a message: shortened, and without characters that a terminal would obey.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown = printable(text);
    if let Some((end, _)) = shown.char_indices().nth(LONGEST) {
        shown.truncate(end);
        shown.push('…');
    }
    format!("`{shown}`")
}

fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unprintable(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Control characters, and those that change the direction of what follows.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, line: usize, column: usize, length: usize) -> String {
        let span = Span { line, column, length };
        Diagnostics::new("Kubefile", source, vec![Diagnostic::error(span, "no")]).to_string()
    }

    #[test]
    fn draws_the_caret_under_the_place() {
        let table = [
            ("FROM a", 1, 6, 1, "  1 | FROM a\n    |      ^"),
            ("x\r\nCOPY a b\r\n", 2, 6, 3, "  2 | COPY a b\n    |      ^^^"),
            ("\tCOPY", 1, 2, 4, "  1 |  COPY\n    |  ^^^^"),
            ("名前 x", 1, 4, 1, "  1 | 名前 x\n    |      ^"),
            ("名前 x", 1, 1, 2, "  1 | 名前 x\n    | ^^^^"),
            ("a\u{1b}[31m", 1, 2, 1, "  1 | a\u{fffd}[31m\n    |  ^"),
            ("\u{feff}FROM", 1, 1, 4, "  1 | FROM\n    | ^^^^"),
            ("short", 1, 80, 9, "  1 | short\n    |      ^"),
            ("gone", 7, 1, 1, "  7 | \n    | ^"),
        ];
        for (source, line, column, length, expected) in table {
            let text = rendered(source, line, column, length);
            let (_, excerpt) = text.split_once('\n').unwrap();
            assert_eq!(excerpt, expected, "{source:?}");
        }
    }

    #[test]
    fn shows_the_part_of_a_long_line_that_matters() {
        let source = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let text = rendered(&source, 1, 501, 4);
        let mut lines = text.lines().skip(1);
        let shown = lines.next().unwrap();
        let carets = lines.next().unwrap();
        assert!(shown.chars().count() < 140, "{shown}");
        let start = carets.chars().position(|c| c == '^').unwrap();
        assert_eq!(shown.chars().skip(start).take(4).collect::<String>(), "HERE");
    }

    #[test]
    fn becomes_one_error_that_shows_all() {
        let span = |line| Span {
            line,
            column: 1,
            length: 1,
        };
        let findings = Diagnostics::new(
            "Kubefile",
            "a\nb\nc",
            vec![
                Diagnostic::error(span(3), "third"),
                Diagnostic::warning(span(1), "only a warning"),
                Diagnostic::error(span(2), "second").hint("write it well"),
            ],
        );
        let error = Error::from(findings);
        assert_eq!(error.kind(), ErrorKind::Input);
        assert_eq!(error.to_string(), "Kubefile has 2 errors");
        assert_eq!(
            listed(error.findings()),
            "Kubefile:2:1: error: second\n  2 | b\n    | ^\n  hint: write it well\n\n\
             Kubefile:3:1: error: third\n  3 | c\n    | ^"
        );
    }

    #[test]
    fn quotes_without_control_characters() {
        assert_eq!(quoted("a\u{1b}b"), "`a\\u{1b}b`");
        assert_eq!(quoted("it's \\ \"fine\""), "`it's \\ \"fine\"`");
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), 83);
    }
}
