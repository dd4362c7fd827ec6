//! Cuts a Kubefile into statements: an instruction's name, its arguments on one line, and its heredocs.
//!
//! Takes care of what is the same for all instructions: byte order mark, line ends (LF or CRLF, also within
//! heredocs), parser directives, comments, continued lines, and heredocs.

use std::iter::Enumerate;
use std::str::Split;

use super::diagnostic::{Diagnostic, Span, quoted};
use super::keyword::Keyword;
use super::source_text::SourceText;
use super::words::{split_flags, split_words, unquote};

/// The largest Kubefile, in bytes. Larger files belong into the build context.
const LARGEST_FILE: usize = 1 << 20;

/// The longest line, in bytes: what Docker reads.
const LONGEST_LINE: usize = 1 << 16;

/// Heredocs of one instruction.
const MOST_HEREDOCS: usize = 100;

/// One instruction as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) keyword: SourceText,
    /// All behind the keyword, without blanks around it.
    pub(super) arguments: SourceText,
    pub(super) heredocs: Vec<Heredoc>,
    /// A heredoc of it is wrong, which was reported.
    pub(super) is_broken: bool,
}

impl Statement {
    /// The instruction on one line, without its heredocs' lines.
    pub(super) fn original(&self) -> String {
        let line = format!("{} {}", self.keyword.as_str(), self.arguments.as_str());
        line.trim_end().to_owned()
    }
}

/// A file within the Kubefile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// The word that announces it: `<<EOF`.
    pub(super) word: SourceText,
    /// The line that ends it, and the file's name if it is copied into a folder.
    pub(super) delimiter: String,
    /// Whether variables are expanded: the delimiter is not quoted.
    pub(super) expand: bool,
    /// Its lines, each with a line feed; leading tabs are gone if it began with `<<-`.
    pub(super) body: SourceText,
}

/// What a Kubefile consists of.
#[derive(Debug)]
pub(super) struct Lexed {
    pub(super) statements: Vec<Statement>,
    /// How many of them, from the first on, are certain. Behind a broken heredoc nobody knows where it ends, and after a
    /// wrong directive nothing is cut as its author meant.
    pub(super) certain: usize,
    /// The character that escapes others and continues lines.
    pub(super) escape: char,
}

/// Cuts `source` into statements. What is wrong goes to `problems`.
pub(super) fn lex(source: &str, problems: &mut Vec<Diagnostic>) -> Lexed {
    let mut lexer = Lexer {
        lines: source
            .strip_prefix('\u{feff}')
            .unwrap_or(source)
            .split('\n')
            .enumerate(),
        escape: '\\',
        directives: Some(Vec::new()),
        has_wrong_directive: false,
        problems,
    };
    let mut statements = Vec::new();
    if lexer.is_text(source) {
        while let Some(statement) = lexer.statement() {
            statements.push(statement);
        }
    }
    let certain = match statements.iter().position(|statement| statement.is_broken) {
        _ if lexer.has_wrong_directive => 0,
        Some(broken) => broken,
        None => statements.len(),
    };
    Lexed {
        statements,
        certain,
        escape: lexer.escape,
    }
}

struct Lexer<'a> {
    lines: Enumerate<Split<'a, char>>,
    escape: char,
    /// The directives seen; `None` once something else came.
    directives: Option<Vec<String>>,
    has_wrong_directive: bool,
    problems: &'a mut Vec<Diagnostic>,
}

/// One line of the file, without its end.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn is_comment(self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    fn is_blank(self) -> bool {
        self.text.trim().is_empty()
    }

    /// The line without leading blanks.
    fn trimmed(self) -> SourceText {
        SourceText::new(self.text, self.number, 1).trim()
    }

    /// The line up to its continuation mark, if it has one: an escape character at its end that is not escaped itself.
    fn continued(self, escape: char) -> Option<&'a str> {
        let text = self.text.trim_end_matches([' ', '\t']);
        let marks = text.len() - text.trim_end_matches(escape).len();
        text.strip_suffix(escape).filter(|_| marks % 2 == 1)
    }
}

impl<'a> Lexer<'a> {
    /// Bounds that keep the work in proportion, and files that are no text.
    fn is_text(&mut self, source: &str) -> bool {
        let before = self.problems.len();
        if source.len() > LARGEST_FILE {
            self.problems.push(
                Diagnostic::error_in_file(format!(
                    "the file has {} bytes, more than the {LARGEST_FILE} that a Kubefile may have",
                    source.len()
                ))
                .hint("put large files into the build context and `COPY` them"),
            );
            return false;
        }
        for (index, line) in source.split('\n').enumerate() {
            let at = |column| Span {
                line: index + 1,
                column,
                length: 1,
            };
            if line.len() > LONGEST_LINE {
                self.problems.push(
                    Diagnostic::error(
                        at(1),
                        format!(
                            "the line has {} bytes, more than the {LONGEST_LINE} that a line may have",
                            line.len()
                        ),
                    )
                    .hint("continue it on further lines with `\\` at the end"),
                );
            }
            if let Some(before) = line.find('\0').and_then(|offset| line.get(..offset)) {
                let message = "the file has a NUL byte, so it is no text";
                self.problems
                    .push(Diagnostic::error(at(before.chars().count() + 1), message).hint("save it as UTF-8"));
            }
        }
        self.problems.len() == before
    }

    fn line(&mut self) -> Option<Line<'a>> {
        self.lines.next().map(|(index, text)| Line {
            number: index + 1,
            text: text.trim_end_matches('\r'),
        })
    }

    fn statement(&mut self) -> Option<Statement> {
        loop {
            let line = self.line()?;
            if line.is_comment() {
                self.directive(line);
                continue;
            }
            self.directives = None;
            if line.is_blank() {
                continue;
            }
            let text = self.logical_line(line).trim();
            // A line of nothing but continuation marks.
            if text.is_empty() {
                continue;
            }
            let end = text.as_str().find(char::is_whitespace).unwrap_or(text.as_str().len());
            let mut statement = Statement {
                keyword: text.slice(0..end),
                arguments: text.slice(end..text.as_str().len()).trim(),
                heredocs: Vec::new(),
                is_broken: false,
            };
            self.heredocs(&mut statement);
            return Some(statement);
        }
    }

    /// `# escape=` and its like, which count only on the first lines.
    fn directive(&mut self, line: Line<'_>) {
        let Some(seen) = &mut self.directives else {
            return;
        };
        let comment = line.trimmed();
        let parsed = comment.as_str().strip_prefix('#').and_then(|text| text.split_once('='));
        let name = parsed.map(|(name, _)| name.trim().to_lowercase());
        let (Some((_, value)), Some(name @ ("escape" | "syntax" | "check"))) = (parsed, name.as_deref()) else {
            self.directives = None;
            return;
        };
        if seen.iter().any(|other| other == name) {
            self.has_wrong_directive = true;
            self.problems.push(
                Diagnostic::error(comment.span(), format!("only one {name} parser directive can be used"))
                    .hint("leave this line out"),
            );
            return;
        }
        seen.push(name.to_owned());
        match (name, value.trim()) {
            ("escape", "\\") => self.escape = '\\',
            ("escape", "`") => self.escape = '`',
            ("escape", value) => {
                self.has_wrong_directive = true;
                self.problems.push(
                    Diagnostic::error(comment.span(), format!("invalid ESCAPE {}", quoted(value)))
                        .hint("write `# escape=\\` or `` # escape=` ``"),
                );
            }
            _ => self.problems.push(
                Diagnostic::warning(comment.span(), format!("`# {name}=` has no effect in a Kubefile"))
                    .hint("leave this line out"),
            ),
        }
    }

    /// `first` and the lines that continue it, joined.
    fn logical_line(&mut self, first: Line<'a>) -> SourceText {
        let mut text = SourceText::default();
        let mut line = first;
        loop {
            let Some(continued) = line.continued(self.escape) else {
                text.push(line.text, line.number, 1);
                return text;
            };
            text.push(continued, line.number, 1);
            let mut blank = None;
            line = loop {
                let Some(next) = self.line() else {
                    return text;
                };
                if next.is_blank() {
                    blank.get_or_insert(next.number);
                } else if !next.is_comment() {
                    break next;
                }
            };
            if let Some(blank) = blank {
                self.problems.push(
                    Diagnostic::warning(
                        line.trimmed().span(),
                        format!(
                            "this still belongs to the instruction of line {}, although line {blank} is blank",
                            first.number
                        ),
                    )
                    .hint("take the blank line out, or the continuation mark above it"),
                );
            }
        }
    }

    /// Reads the lines of the heredocs that the statement announces.
    fn heredocs(&mut self, statement: &mut Statement) {
        let takes_heredocs = Keyword::parse(statement.keyword.as_str()).is_some_and(Keyword::takes_heredocs);
        if !takes_heredocs || !statement.arguments.as_str().contains("<<") {
            return;
        }
        let (_, arguments) = split_flags(&statement.arguments, self.escape);
        for word in heredoc_words(&arguments, self.escape) {
            if statement.heredocs.len() == MOST_HEREDOCS {
                self.problems.push(Diagnostic::error(
                    word.span(),
                    format!("an instruction can have {MOST_HEREDOCS} heredocs at most"),
                ));
                statement.is_broken = true;
                return;
            }
            match self.heredoc(word) {
                Ok(heredoc) => statement.heredocs.push(heredoc),
                Err(problem) => {
                    self.problems.push(problem);
                    statement.is_broken = true;
                }
            }
        }
    }

    fn heredoc(&mut self, word: SourceText) -> Result<Heredoc, Diagnostic> {
        let text = word.as_str();
        let operator = text.find("<<").map_or(text.len(), |offset| offset + 2);
        let (strip_tabs, start) = match text.get(operator..) {
            Some(rest) if rest.starts_with('-') => (true, operator + 1),
            _ => (false, operator),
        };
        let name = word.slice(start..text.len()).trim();
        let expand = !name.as_str().contains(['\'', '"']);
        let Some(delimiter) = unquote(name.as_str(), self.escape).filter(|name| !name.is_empty()) else {
            return Err(
                Diagnostic::error(word.span(), "this heredoc has no delimiter, or its quote is not closed")
                    .hint("write a word behind `<<`, and end the heredoc with a line that consists of it"),
            );
        };
        let mut body = SourceText::default();
        while let Some(line) = self.line() {
            let line_text = match strip_tabs {
                true => line.text.trim_start_matches('\t'),
                false => line.text,
            };
            if line_text == delimiter {
                return Ok(Heredoc {
                    word,
                    delimiter,
                    expand,
                    body,
                });
            }
            let column = 1 + line.text.len() - line_text.len();
            body.push(line_text, line.number, column);
            body.push("\n", line.number, column + line_text.chars().count());
        }
        Err(Diagnostic::error(
            word.span(),
            format!("this heredoc is not closed: no line consists of {}", quoted(&delimiter)),
        )
        .hint("write the delimiter on a line of its own, with nothing before or behind it"))
    }
}

/// The words of `arguments` that announce heredocs: `<<EOF`, `<<-EOF`, `3<<EOF`, and with blanks behind the arrows.
fn heredoc_words(arguments: &SourceText, escape: char) -> Vec<SourceText> {
    let text = arguments.as_str();
    let mut found = Vec::new();
    let mut words = split_words(text, escape).into_iter();
    while let Some(mut range) = words.next() {
        let word = text.get(range.clone()).unwrap_or_default();
        let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else {
            continue;
        };
        // `<<<` is another thing, in shells.
        if rest.contains('<') {
            continue;
        }
        if matches!(rest, "" | "-") {
            match words.next() {
                Some(next) => range.end = next.end,
                None => continue,
            }
        }
        found.push(arguments.slice(range));
    }
    found
}
