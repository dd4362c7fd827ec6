//! One of several things that are wrong at once, each with its own place, causes and remedy: the lines of a Kubefile,
//! the images of a list. [`Error::together`] makes one failure of them.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// More than this are counted, not shown to people: the first ones explain the rest.
const SHOWN: usize = 20;

/// Something that is wrong, where, and what to do about it. Programs get it as it is serialised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What sort of failure it is.
    #[serde(rename = "code")]
    pub kind: ErrorKind,
    /// The file that it is about, as the user knows it.
    pub file: String,
    /// The line, from 1; none if the file as a whole is meant.
    pub line: Option<usize>,
    /// The first character of the line that is meant, from 1.
    pub column: Option<usize>,
    /// What is wrong, without a full stop.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// That line of the file.
    pub source: Option<String>,
    /// What to do about it: an imperative sentence.
    pub hint: Option<String>,
    /// That line as people see it, with marks below it: begins with a line feed, or is empty.
    #[serde(skip)]
    pub excerpt: String,
}

impl Finding {
    /// Something wrong in `file`.
    #[must_use]
    pub fn new(kind: ErrorKind, file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            file: file.into(),
            line: None,
            column: None,
            message: message.into(),
            causes: Vec::new(),
            source: None,
            hint: None,
            excerpt: String::new(),
        }
    }

    /// The same finding at a line.
    #[must_use]
    pub fn at(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    /// Its place: `Kubefile:3:6`.
    #[must_use]
    pub fn place(&self) -> String {
        let mut place = self.file.clone();
        for number in [self.line, self.column].into_iter().flatten() {
            let _ = write!(place, ":{number}");
        }
        place
    }

    /// The finding for people, called `word`.
    #[must_use]
    pub fn text(&self, word: &str) -> String {
        let mut text = format!("{}: {word}{}{}", self.place(), self.message, self.excerpt);
        for cause in &self.causes {
            let _ = write!(text, "\n  cause: {}", cause.replace('\n', "\n         "));
        }
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\n  hint: {hint}");
        }
        text
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text("error: "))
    }
}

impl Error {
    /// What is wrong in `file`, told by this failure.
    #[must_use]
    pub fn in_file(&self, file: impl Into<String>) -> Finding {
        Finding {
            causes: self.causes(),
            hint: self.remedy().map(str::to_owned),
            ..Finding::new(self.kind(), file, self.to_string())
        }
    }
}

/// Findings for people, with an empty line between them.
#[must_use]
pub fn listed(findings: &[Finding]) -> String {
    let mut texts: Vec<String> = findings.iter().take(SHOWN).map(Finding::to_string).collect();
    if let Some(more) = findings.len().checked_sub(SHOWN).filter(|&more| more > 0) {
        texts.push(format!("… and {more} more"));
    }
    texts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_place_causes_and_hint() {
        let error = Error::new(ErrorKind::Auth, "cannot resolve a/b:1")
            .because(Error::new(ErrorKind::Auth, "it answered 401\nwith words"))
            .hint("log in");
        let finding = error.in_file("imageList").at(3);
        assert_eq!(
            finding.to_string(),
            "imageList:3: error: cannot resolve a/b:1\n  cause: it answered 401\n         with words\n  hint: log in"
        );
        assert_eq!(
            serde_json::to_value(&finding).unwrap(),
            serde_json::json!({
                "code": "auth", "file": "imageList", "line": 3, "column": null, "message": "cannot resolve a/b:1",
                "causes": ["it answered 401\nwith words"], "source": null, "hint": "log in",
            })
        );
    }

    #[test]
    fn counts_what_is_too_much_to_show() {
        let findings = vec![Finding::new(ErrorKind::Input, "Kubefile", "no"); SHOWN + 3];
        let text = listed(&findings);
        assert_eq!(text.matches("error: no").count(), SHOWN);
        assert!(text.ends_with("… and 3 more"));
    }
}
