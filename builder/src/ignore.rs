//! `.containerignore` and `.dockerignore`: which files of the build context are left out.
//!
//! The rules are moby's (`patternmatcher` and `ignorefile`): the last pattern that matches a path or one of its
//! folders decides, `!` takes files back in, `**` stands for any number of folders. Patterns with which moby fails
//! only when they meet a file are refused, and so are `\d` and `[[:alpha:]]`, where the regular expression that moby
//! makes of a pattern shows through. For the same reason `|`, `{` and wildcards in `[…]` are plain characters here.

use crate::glob::{CharacterSet, PatternProblem};
use crate::kubefile::{Diagnostic, Diagnostics, Span, quoted};

/// The largest ignore file, in bytes.
const LARGEST_FILE: usize = 1 << 20;

/// The patterns of an ignore file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IgnoreRules {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Begins with `!`: takes back in.
    includes: bool,
    /// Without the `!`.
    pattern: String,
    matcher: Matcher,
}

/// moby's ways of matching. They are not all the same for one pattern: `**a` is a suffix that may begin anywhere in
/// a name, while `**a*` begins at a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Tokens(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`.
    One,
    /// `*`.
    Many,
    /// `**` or `**/` before something: nothing, or any text that ends with a slash.
    Folders,
    /// `**` at the end: any text.
    Rest,
    Set(CharacterSet),
}

impl IgnoreRules {
    /// Reads an ignore file. `file` is its name in messages.
    ///
    /// # Errors
    /// All lines that are not patterns.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Self, Diagnostics> {
        let mut rules = Vec::new();
        let mut errors = Vec::new();
        if text.len() > LARGEST_FILE {
            let message = format!(
                "the file has {} bytes, more than the {LARGEST_FILE} that it may have",
                text.len()
            );
            errors.push(Diagnostic::error_in_file(message));
            return Err(Diagnostics::new(file, "", errors));
        }
        let lines = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n');
        for (index, line) in lines.enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let Some(pattern) = normalized(line) else {
                continue;
            };
            match Rule::parse(&pattern) {
                Ok(rule) => rules.push(rule),
                Err(problem) => {
                    let indent = line.len() - line.trim_start().len();
                    let span = Span {
                        line: index + 1,
                        column: 1 + line.chars().take_while(|c| c.is_whitespace()).count(),
                        length: line.get(indent..).unwrap_or_default().trim_end().chars().count(),
                    };
                    let message = format!("{} is not a pattern: {problem}", quoted(line.trim()));
                    errors.push(
                        Diagnostic::error(span, message)
                            .hint("write `/` between folders, and `\\` only before `* ? [ ] \\ - ! #`"),
                    );
                }
            }
        }
        if errors.is_empty() {
            Ok(Self { rules })
        } else {
            Err(Diagnostics::new(file, text, errors))
        }
    }

    /// Whether the file or folder `path` is left out. The path is relative to the build context and has `/` between
    /// folders.
    #[must_use]
    pub(crate) fn excludes(&self, path: &str) -> bool {
        // As in Docker: the context itself can't be left out.
        if matches!(path, "" | ".") {
            return false;
        }
        let mut excluded = false;
        for rule in &self.rules {
            // A rule that would change nothing is not asked.
            if rule.includes == excluded && rule.matches_path_or_folder(path) {
                excluded = !rule.includes;
            }
        }
        excluded
    }

    /// Whether something below the excluded folder `path` can be taken back in, so that a walk has to enter it.
    #[must_use]
    pub(crate) fn may_contain_reincluded(&self, path: &str) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.includes && rule.may_match_below(path))
    }
}

impl Rule {
    fn parse(pattern: &str) -> Result<Self, PatternProblem> {
        let pattern = cleaned(pattern);
        let (includes, pattern) = match pattern.strip_prefix('!') {
            Some("") => return Err(PatternProblem("nothing follows the `!`")),
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        Ok(Self {
            includes,
            pattern: pattern.to_owned(),
            matcher: Matcher::parse(pattern)?,
        })
    }

    fn matches_path_or_folder(&self, path: &str) -> bool {
        self.matcher.matches(path)
            || path
                .match_indices('/')
                .filter_map(|(end, _)| path.get(..end))
                .any(|folder| self.matcher.matches(folder))
    }

    /// Compares folder by folder, as far as both go and the pattern is plain there.
    fn may_match_below(&self, path: &str) -> bool {
        let mut names = path.split('/');
        for part in self.pattern.split('/') {
            // These can match a slash, so that parts and folders do not correspond any more.
            if part.contains("**") || part.contains(['[', '\\']) {
                return true;
            }
            match names.next() {
                None => return true,
                Some(name) => match Matcher::parse(part) {
                    Ok(matcher) if !matcher.matches(name) => return false,
                    _ => {}
                },
            }
        }
        // The pattern matches the folder itself or one that it lies in.
        true
    }
}

impl Matcher {
    /// moby's `Pattern.compile`, with tokens instead of a regular expression.
    fn parse(pattern: &str) -> Result<Self, PatternProblem> {
        enum Kind {
            Exact,
            Prefix,
            Suffix,
            Tokens,
        }
        let mut kind = Kind::Exact;
        let mut tokens = Vec::new();
        let mut characters = pattern.char_indices().peekable();
        while let Some((offset, character)) = characters.next() {
            match character {
                '*' if characters.next_if(|&(_, next)| next == '*').is_some() => {
                    characters.next_if(|&(_, next)| next == '/');
                    if characters.peek().is_some() {
                        tokens.push(Token::Folders);
                        kind = Kind::Tokens;
                    } else if matches!(kind, Kind::Exact) {
                        kind = Kind::Prefix;
                    } else {
                        tokens.push(Token::Rest);
                        kind = Kind::Tokens;
                    }
                    if offset == 0 {
                        kind = Kind::Suffix;
                    }
                }
                '*' | '?' | '[' | ']' | '\\' => {
                    kind = Kind::Tokens;
                    tokens.push(match character {
                        '*' => Token::Many,
                        '?' => Token::One,
                        '[' => Token::Set(set(pattern, offset, &mut characters)?),
                        '\\' => Token::Literal(escaped(characters.next())?),
                        plain => Token::Literal(plain),
                    });
                }
                plain => tokens.push(Token::Literal(plain)),
            }
        }
        Ok(match kind {
            Kind::Exact => Self::Exact(pattern.to_owned()),
            Kind::Prefix => Self::Prefix(pattern.strip_suffix("**").unwrap_or(pattern).to_owned()),
            Kind::Suffix => Self::Suffix(pattern.strip_prefix("**").unwrap_or(pattern).to_owned()),
            Kind::Tokens => Self::Tokens(tokens),
        })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(pattern) => path == pattern,
            Self::Prefix(prefix) => path.starts_with(prefix),
            // `**/x` matches `x`, too.
            Self::Suffix(suffix) => path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path),
            Self::Tokens(tokens) => matches_tokens(tokens, path),
        }
    }
}

/// Follows all ways to match at once, so that the time does not grow with their number.
///
/// State `2 × index` stands before a token; the odd one behind it stands within the text of [`Token::Folders`].
fn matches_tokens(tokens: &[Token], path: &str) -> bool {
    let end = tokens.len() * 2;
    let mut states = vec![false; end + 1];
    enter(&mut states, 0);
    skip_empty(tokens, &mut states);
    for character in path.chars() {
        let mut next = vec![false; end + 1];
        for (index, token) in tokens.iter().enumerate() {
            let (before, within, behind) = (index * 2, index * 2 + 1, index * 2 + 2);
            if states.get(before) == Some(&true) {
                match token {
                    Token::Literal(wanted) if *wanted == character => enter(&mut next, behind),
                    Token::One if character != '/' => enter(&mut next, behind),
                    Token::Set(set) if set.contains(character) => enter(&mut next, behind),
                    Token::Many if character != '/' => enter(&mut next, before),
                    // The `.` of moby's regular expression.
                    Token::Rest if character != '\n' => enter(&mut next, before),
                    _ => {}
                }
            }
            if states.get(within) == Some(&true) {
                if character != '\n' {
                    enter(&mut next, within);
                }
                if character == '/' {
                    enter(&mut next, behind);
                }
            }
        }
        states = next;
        skip_empty(tokens, &mut states);
    }
    states.last() == Some(&true)
}

/// Tokens that can match nothing are passed over.
fn skip_empty(tokens: &[Token], states: &mut [bool]) {
    for (index, token) in tokens.iter().enumerate() {
        if states.get(index * 2) != Some(&true) {
            continue;
        }
        if matches!(token, Token::Many | Token::Rest | Token::Folders) {
            enter(states, index * 2 + 2);
        }
        if *token == Token::Folders {
            enter(states, index * 2 + 1);
        }
    }
}

fn enter(states: &mut [bool], state: usize) {
    if let Some(state) = states.get_mut(state) {
        *state = true;
    }
}

/// The set whose `[` is at `offset`.
fn set(
    pattern: &str,
    offset: usize,
    characters: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
) -> Result<CharacterSet, PatternProblem> {
    let set = CharacterSet::parse(characters)?;
    let end = characters.peek().map_or(pattern.len(), |&(end, _)| end);
    let text = pattern.get(offset + 1..end).unwrap_or_default();
    if text.contains("[:") {
        return Err(PatternProblem("named sets like `[:alpha:]` are not available"));
    }
    let mut inner = text.chars();
    while let Some(character) = inner.next() {
        if character == '\\' {
            escaped(inner.next().map(|next| (0, next)))?;
        }
    }
    Ok(set)
}

/// The character behind a `\`. Only punctuation can be made plain: moby's regular expressions give letters and digits
/// a meaning, and someone who writes `folder\file` means a slash.
fn escaped(next: Option<(usize, char)>) -> Result<char, PatternProblem> {
    match next {
        Some((_, character)) if character.is_ascii() && !character.is_ascii_alphanumeric() => Ok(character),
        Some(_) => Err(PatternProblem("`\\` stands before a letter or digit")),
        None => Err(PatternProblem("nothing follows the `\\` at its end")),
    }
}

/// A line as a pattern; `None` if it has none. As moby's `ignorefile.ReadAll`.
fn normalized(line: &str) -> Option<String> {
    // Only a `#` in the first column begins a comment.
    if line.starts_with('#') {
        return None;
    }
    let pattern = line.trim();
    if pattern.is_empty() {
        return None;
    }
    let (mark, pattern) = match pattern.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", pattern),
    };
    if pattern.is_empty() {
        return Some(mark.to_owned());
    }
    let pattern = cleaned(pattern);
    let relative = pattern.strip_prefix('/').filter(|rest| !rest.is_empty());
    Some(format!("{mark}{}", relative.unwrap_or(&pattern)))
}

/// Go's `filepath.Clean`.
fn cleaned(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            _ => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests;
