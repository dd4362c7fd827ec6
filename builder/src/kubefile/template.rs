//! A word with its quotes taken off and its variables found, ready to be expanded.
//!
//! Known forms: `$X`, `${X}`, `${X-word}`, `${X:-word}`, `${X+word}`, `${X:+word}`, `${X?message}`, `${X:?message}`,
//! where with `:` an empty value counts as none. A `$` before anything that begins no variable is a dollar sign.
//! Nothing is expanded in single quotes or after the escape character.

use std::iter::Peekable;
use std::str::CharIndices;

use super::diagnostic::{Diagnostic, Span, quoted};
use super::source_text::SourceText;

/// `${A:-${B:-…}}` may be nested this deep.
const DEEPEST: usize = 16;

/// What quotes and escapes mean in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A word of an instruction: quotes are taken off; the escape character makes any character plain.
    Word,
    /// A string of a JSON array: its quotes are gone, others are plain; only `$` and the escape can be escaped.
    Json,
    /// The lines of a heredoc: quotes are plain; a backslash escapes `$` and itself and is plain otherwise.
    Heredoc,
}

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// As it stands in the file.
    pub(super) source: SourceText,
    /// What it is made of.
    pub(super) parts: Vec<Part>,
    /// How a `$` is made plain in it, for hints.
    pub(super) plain_dollar: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    /// From the `$` to the last character of the name or the closing brace.
    pub(super) span: Span,
    pub(super) modifier: Option<Modifier>,
}

/// The part of `${X:-word}` behind the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modifier {
    pub(super) operator: Operator,
    /// With `:`: an empty value counts as none.
    pub(super) empty_is_unset: bool,
    pub(super) word: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// `-`: the word, if there is no value.
    Default,
    /// `+`: the word, if there is a value.
    Alternative,
    /// `?`: an error with the word as its message, if there is no value.
    Required,
}

impl Template {
    /// Reads `source`.
    ///
    /// # Errors
    /// If a quote or brace is not closed, or a `${…}` has an unknown form.
    pub(super) fn parse(source: SourceText, style: Style, escape: char) -> Result<Self, Diagnostic> {
        let plain_dollar = match style {
            Style::Heredoc => {
                "`\\$` for a dollar sign, or quote the delimiter (`<<'EOF'`) to take all lines as they are".to_owned()
            }
            Style::Word | Style::Json => format!("`{escape}$` for a dollar sign"),
        };
        let mut reader = Reader {
            source: &source,
            plain_dollar: &plain_dollar,
            characters: source.as_str().char_indices().peekable(),
            style,
            escape,
        };
        let parts = reader.parts(None)?;
        Ok(Self {
            source,
            parts,
            plain_dollar,
        })
    }

    /// A text that is taken as it is.
    pub(super) fn plain(source: SourceText) -> Self {
        let parts = vec![Part::Text(source.as_str().to_owned())];
        Self {
            source,
            parts,
            plain_dollar: String::new(),
        }
    }

    /// Its text, if it has no variables.
    pub(super) fn literal(&self) -> Option<String> {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Variable(_) => None,
            })
            .collect()
    }
}

struct Reader<'a> {
    source: &'a SourceText,
    characters: Peekable<CharIndices<'a>>,
    style: Style,
    escape: char,
    plain_dollar: &'a str,
}

/// What begins at a `{`, to point at it when its end is missing.
#[derive(Clone, Copy)]
struct Open {
    offset: usize,
    depth: usize,
}

impl Reader<'_> {
    /// Everything up to the end, or to the `}` that closes `open`, which is consumed.
    fn parts(&mut self, open: Option<Open>) -> Result<Vec<Part>, Diagnostic> {
        let mut parts = Parts::default();
        while let Some((offset, character)) = self.characters.next() {
            match character {
                '}' if open.is_some() => return Ok(parts.finish()),
                '$' => self.dollar(offset, open, &mut parts)?,
                '\'' if self.style == Style::Word => self.single_quoted(offset, &mut parts)?,
                '"' if self.style == Style::Word => self.double_quoted(offset, open, &mut parts)?,
                _ if character == self.escape => self.escaped(&mut parts),
                _ => parts.push(character),
            }
        }
        match open {
            None => Ok(parts.finish()),
            Some(open) => Err(self
                .problem(open.offset, "`${` is not closed")
                .hint("end it with `}`; if its word has blanks, put double quotes around the whole")),
        }
    }

    fn single_quoted(&mut self, start: usize, parts: &mut Parts) -> Result<(), Diagnostic> {
        parts.begin_text();
        for (_, character) in self.characters.by_ref() {
            if character == '\'' {
                return Ok(());
            }
            parts.push(character);
        }
        Err(self
            .problem(start, "this single quote is not closed")
            .hint(format!("close it, or write `{}'` for an apostrophe", self.escape)))
    }

    fn double_quoted(&mut self, start: usize, open: Option<Open>, parts: &mut Parts) -> Result<(), Diagnostic> {
        parts.begin_text();
        while let Some((offset, character)) = self.characters.next() {
            match character {
                '"' => return Ok(()),
                '$' => self.dollar(offset, open, parts)?,
                _ if character == self.escape => {
                    let escape = self.escape;
                    let escapable = |&(_, next): &(usize, char)| matches!(next, '"' | '$') || next == escape;
                    match self.characters.next_if(escapable) {
                        Some((_, next)) => parts.push(next),
                        None => parts.push(character),
                    }
                }
                _ => parts.push(character),
            }
        }
        Err(self
            .problem(start, "this double quote is not closed")
            .hint(format!("close it, or write `{}\"` for a quotation mark", self.escape)))
    }

    /// What follows an escape character outside of quotes.
    fn escaped(&mut self, parts: &mut Parts) {
        let escape = self.escape;
        match self.style {
            // At the very end it stands for nothing, as in a Dockerfile.
            Style::Word => {
                if let Some((_, next)) = self.characters.next() {
                    parts.push(next);
                }
            }
            Style::Json | Style::Heredoc => {
                let next = self.characters.next_if(|&(_, next)| next == '$' || next == escape);
                parts.push(next.map_or(escape, |(_, next)| next));
            }
        }
    }

    /// What follows a `$`.
    fn dollar(&mut self, start: usize, open: Option<Open>, parts: &mut Parts) -> Result<(), Diagnostic> {
        match self.characters.peek().copied() {
            Some((_, '{')) => {
                self.characters.next();
                let depth = open.map_or(1, |open| open.depth + 1);
                if depth > DEEPEST {
                    return Err(self
                        .problem(start, format!("`${{…}}` is nested more than {DEEPEST} deep"))
                        .hint("take it apart with `ARG`"));
                }
                let variable = self.braced(Open { offset: start, depth })?;
                parts.list.push(Part::Variable(variable));
            }
            Some((_, first)) if is_name_start(first) => {
                let name = self.name();
                let span = self.source.span_of(start..start + 1 + name.len());
                parts.list.push(Part::Variable(Variable {
                    name,
                    span,
                    modifier: None,
                }));
            }
            Some((_, first)) if is_parameter(first) => return Err(self.parameter(start, first)),
            _ => parts.push('$'),
        }
        Ok(())
    }

    /// What follows a `${`.
    fn braced(&mut self, open: Open) -> Result<Variable, Diagnostic> {
        let name = self.name();
        if name.is_empty() {
            return Err(match self.characters.peek() {
                Some(&(_, first)) if is_parameter(first) => self.parameter(open.offset, first),
                _ => self
                    .problem(open.offset, "`${` is not followed by a variable's name")
                    .hint(format!("write `${{NAME}}`, or {}", self.plain_dollar)),
            });
        }
        let mut empty_is_unset = false;
        let mut next = self.characters.next();
        if let Some((_, ':')) = next {
            empty_is_unset = true;
            next = self.characters.next();
        }
        let operator = match next {
            Some((_, '}')) if !empty_is_unset => None,
            Some((_, '-')) => Some(Operator::Default),
            Some((_, '+')) => Some(Operator::Alternative),
            Some((_, '?')) => Some(Operator::Required),
            None => {
                return Err(self.problem(open.offset, "`${` is not closed").hint("end it with `}`"));
            }
            Some((offset, character)) => {
                let message = format!("{} can't follow a variable's name", quoted(&character.to_string()));
                return Err(self
                    .problem(offset, message)
                    .hint("known are `${X}`, `${X:-default}`, `${X:+alternative}` and `${X:?message}`, also without the colon"));
            }
        };
        let modifier = match operator {
            None => None,
            Some(operator) => Some(Modifier {
                operator,
                empty_is_unset,
                word: self.parts(Some(open))?,
            }),
        };
        let end = self
            .characters
            .peek()
            .map_or(self.source.as_str().len(), |&(offset, _)| offset);
        Ok(Variable {
            name,
            span: self.source.span_of(open.offset..end),
            modifier,
        })
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some((_, character)) = self
            .characters
            .next_if(|&(_, next)| is_name_start(next) || (!name.is_empty() && next.is_ascii_digit()))
        {
            name.push(character);
        }
        name
    }

    /// A shell would put an argument or its state here; a Dockerfile silently puts nothing.
    fn parameter(&self, offset: usize, character: char) -> Diagnostic {
        self.problem(offset, format!("`${character}` has no value in a Kubefile"))
            .hint(format!("write {}", self.plain_dollar))
    }

    fn problem(&self, offset: usize, message: impl Into<String>) -> Diagnostic {
        let rest = self.source.as_str().get(offset..).unwrap_or_default();
        let length = rest.chars().next().map_or(0, char::len_utf8);
        Diagnostic::error(self.source.span_of(offset..offset + length), message)
    }
}

/// Parts under construction; neighbouring characters share one.
#[derive(Default)]
struct Parts {
    list: Vec<Part>,
}

impl Parts {
    fn push(&mut self, character: char) {
        match self.list.last_mut() {
            Some(Part::Text(text)) => text.push(character),
            _ => self.list.push(Part::Text(character.into())),
        }
    }

    /// Quotes make a text even if there is nothing between them.
    fn begin_text(&mut self) {
        if self.list.is_empty() {
            self.list.push(Part::Text(String::new()));
        }
    }

    fn finish(self) -> Vec<Part> {
        self.list
    }
}

/// Whether a variable of this name can exist.
pub(super) fn is_variable_name(name: &str) -> bool {
    name.starts_with(is_name_start)
        && name
            .chars()
            .all(|character| is_name_start(character) || character.is_ascii_digit())
}

fn is_name_start(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

/// The shell's positional and special parameters.
fn is_parameter(character: char) -> bool {
    character.is_ascii_digit() || matches!(character, '@' | '*' | '#' | '?' | '-' | '$' | '!')
}
