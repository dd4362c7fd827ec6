//! From text to pieces: what stands between actions, and the words of each action.

use super::Problem;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action { line: usize, words: Vec<Word> },
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) kind: Kind,
    pub(super) line: usize,
    /// Whether white space stands before it: `.A.B` is one operand, `.A .B` are two.
    pub(super) spaced: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A keyword or a function.
    Name(String),
    /// `.` alone.
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`, without the dollar.
    Variable(String),
    Text(String),
    Integer(i64),
    Float(f64),
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Pipe,
    Comma,
    Open,
    Close,
}

/// Cuts a template into pieces. Markers that trim white space have done so.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Problem> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_start = false;
    let mut line = 1;
    loop {
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let newlines = before.matches('\n').count();
        let mut before = if trim_start { before.trim_start() } else { before };
        let Some(mut action) = action else {
            push_text(&mut pieces, before);
            return Ok(pieces);
        };
        line += newlines;
        if let Some(inside) = action.strip_prefix('-')
            && inside.starts_with(char::is_whitespace)
        {
            before = before.trim_end();
            action = inside;
        }
        push_text(&mut pieces, before);
        if action.trim_start().starts_with("/*") {
            let end = action.find("*/").and_then(|at| action.get(at + 2..));
            let end = end.ok_or_else(|| Problem::new(line, "the comment has no end"))?;
            (trim_start, rest) = end
                .strip_prefix("}}")
                .map(|rest| (false, rest))
                .or_else(|| end.trim_start().strip_prefix("-}}").map(|rest| (true, rest)))
                .ok_or_else(|| Problem::new(line, "after a comment there must be `}}`"))?;
            let comment = action.get(..action.len() - rest.len()).unwrap_or_default();
            line += comment.matches('\n').count();
            continue;
        }
        let mut scanner = Scanner {
            rest: action,
            line,
            words: Vec::new(),
        };
        trim_start = scanner.scan(line)?;
        rest = scanner.rest;
        let words = scanner.words;
        let end = scanner.line;
        pieces.push(Piece::Action { line, words });
        line = end;
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

struct Scanner<'t> {
    rest: &'t str,
    line: usize,
    words: Vec<Word>,
}

impl Scanner<'_> {
    /// Reads the words up to the end of the action; says whether it trims what follows.
    fn scan(&mut self, start: usize) -> Result<bool, Problem> {
        loop {
            let trimmed = self.rest.trim_start();
            let space = self.rest.get(..self.rest.len() - trimmed.len()).unwrap_or_default();
            let spaced = !space.is_empty();
            self.line += space.matches('\n').count();
            self.rest = trimmed;
            if let Some(rest) = self.rest.strip_prefix("}}") {
                self.rest = rest;
                return Ok(false);
            }
            if spaced && let Some(rest) = self.rest.strip_prefix("-}}") {
                self.rest = rest;
                return Ok(true);
            }
            let line = self.line;
            let Some(first) = self.rest.chars().next() else {
                return Err(Problem::new(start, "the action has no end: `}}` is missing"));
            };
            let kind = self.word(first)?;
            self.words.push(Word { kind, line, spaced });
        }
    }

    fn word(&mut self, first: char) -> Result<Kind, Problem> {
        let simple = [
            (":=", Kind::Declare),
            ("=", Kind::Assign),
            ("|", Kind::Pipe),
            (",", Kind::Comma),
            ("(", Kind::Open),
            (")", Kind::Close),
        ];
        for (text, kind) in simple {
            if let Some(rest) = self.rest.strip_prefix(text) {
                self.rest = rest;
                return Ok(kind);
            }
        }
        let second = self.rest.chars().nth(1);
        match first {
            '"' => self.quoted(),
            '`' => self.raw(),
            '\'' => self.character(),
            '.' if second.is_some_and(|next| next.is_ascii_digit()) => self.number(),
            '.' => {
                self.skip(1);
                let name = self.name();
                Ok(if name.is_empty() { Kind::Dot } else { Kind::Field(name) })
            }
            '$' => {
                self.skip(1);
                Ok(Kind::Variable(self.name()))
            }
            '+' | '-' => self.number(),
            first if first.is_ascii_digit() => self.number(),
            first if is_name(first) => Ok(Kind::Name(self.name())),
            other => Err(self.problem(format!("`{}` has no meaning here", other.escape_debug()))),
        }
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|next| !is_name(next)).unwrap_or(self.rest.len());
        self.take(end).to_owned()
    }

    fn quoted(&mut self) -> Result<Kind, Problem> {
        let (text, length) =
            unquote(self.rest, '"').ok_or_else(|| self.problem("the text has no end or a wrong escape"))?;
        self.skip(length);
        Ok(Kind::Text(text))
    }

    fn character(&mut self) -> Result<Kind, Problem> {
        let wrong = || Problem::new(self.line, "between single quotes there must be one character");
        let (text, length) = unquote(self.rest, '\'').ok_or_else(wrong)?;
        let mut characters = text.chars();
        let (Some(character), None) = (characters.next(), characters.next()) else {
            return Err(wrong());
        };
        self.skip(length);
        Ok(Kind::Integer(i64::from(u32::from(character))))
    }

    fn raw(&mut self) -> Result<Kind, Problem> {
        let inside = self.rest.get(1..).unwrap_or_default();
        let end = inside
            .find('`')
            .ok_or_else(|| self.problem("the text has no end: a backquote is missing"))?;
        let text = inside.get(..end).unwrap_or_default().to_owned();
        self.line += text.matches('\n').count();
        self.skip(end + 2);
        Ok(Kind::Text(text))
    }

    fn number(&mut self) -> Result<Kind, Problem> {
        let part = |at: usize, next: char| {
            next.is_ascii_alphanumeric()
                || next == '.'
                || next == '_'
                || (at == 0 && matches!(next, '+' | '-'))
                // The sign of an exponent.
                || (matches!(next, '+' | '-') && self.rest.get(..at).is_some_and(|done| done.ends_with(['e', 'E'])))
        };
        let end = self.rest.char_indices().find(|&(at, next)| !part(at, next));
        let text = self.take(end.map_or(self.rest.len(), |(at, _)| at)).to_owned();
        let digits = text.replace('_', "");
        let (sign, bare) = match digits.strip_prefix('-') {
            Some(bare) => (-1, bare),
            None => (1, digits.strip_prefix('+').unwrap_or(&digits)),
        };
        let prefixes = [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8)];
        let based = prefixes
            .iter()
            .find_map(|&(prefix, base)| i64::from_str_radix(bare.strip_prefix(prefix)?, base).ok());
        let octal = || (bare.len() > 1 && bare.starts_with('0')).then(|| i64::from_str_radix(bare, 8).ok());
        let integer = based.or_else(|| octal().unwrap_or_else(|| bare.parse().ok()));
        match (integer, bare.parse::<f64>()) {
            (Some(value), _) => Ok(Kind::Integer(sign * value)),
            (None, Ok(_)) if bare.contains(['.', 'e', 'E']) => digits
                .parse()
                .map(Kind::Float)
                .map_err(|_| self.problem(format!("`{text}` is not a number"))),
            _ => Err(self.problem(format!("`{text}` is not a number that fits"))),
        }
    }

    fn take(&mut self, length: usize) -> &str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn skip(&mut self, length: usize) {
        self.take(length);
    }

    fn problem(&self, what: impl Into<String>) -> Problem {
        Problem::new(self.line, what)
    }
}

fn is_name(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// Reads a Go string or character literal at the start of `text`: its value and its length in bytes.
fn unquote(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix(quote)?.char_indices();
    while let Some((at, next)) = rest.next() {
        match next {
            next if next == quote => return Some((value, at + 1 + quote.len_utf8())),
            '\n' => return None,
            '\\' => {
                let (_, escape) = rest.next()?;
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                let simple = match escape {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'v' => '\x0b',
                    '\\' => '\\',
                    other if other == quote => quote,
                    _ if digits > 0 => {
                        let code: String = rest.by_ref().take(digits).map(|(_, digit)| digit).collect();
                        let code = u32::from_str_radix(&code, 16).ok()?;
                        // A byte above ASCII would be half a character.
                        if escape == 'x' && code > 0x7f {
                            return None;
                        }
                        char::from_u32(code)?
                    }
                    _ => return None,
                };
                value.push(simple);
            }
            next => value.push(next),
        }
    }
    None
}
