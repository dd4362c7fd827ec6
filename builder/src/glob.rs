//! Patterns of paths, for the sources of COPY, ADD and APP.
//!
//! The rules are those of Go's `path.Match`, which Docker names as its own, plus `**`:
//! `*` is any text without `/`, `?` any character but `/`, `[a-z]` and `[^a-z]` a set, `\` makes the next character
//! plain; a part of the path that is `**` stands for any number of folders, at the end for everything below.

use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

/// A pattern that is right in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    pattern: String,
    parts: Vec<Part>,
}

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`.
    AnyDepth,
    Literal(String),
    Pattern(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`.
    One,
    /// `*`.
    Many,
    Set(CharacterSet),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PatternProblem(pub(crate) &'static str);

impl fmt::Display for PatternProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for PatternProblem {}

impl Glob {
    /// Reads a pattern with `/` between folders and none at its ends.
    ///
    /// # Errors
    /// If a set is not closed or empty, or the pattern ends with an escape.
    pub(crate) fn parse(pattern: &str) -> Result<Self, PatternProblem> {
        let parts = pattern.split('/').map(Part::parse).collect::<Result<Vec<Part>, _>>()?;
        Ok(Self {
            pattern: pattern.to_owned(),
            parts,
        })
    }

    /// The pattern as it was written.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.pattern
    }

    /// The one path that it matches, if it has no wildcards.
    #[must_use]
    pub(crate) fn literal(&self) -> Option<String> {
        let names: Option<Vec<&str>> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Literal(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        Some(names?.join("/"))
    }

    /// The folder below which everything lies that it can match: its parts before the first one with a wildcard.
    /// Empty for the root.
    #[must_use]
    pub(crate) fn base(&self) -> String {
        let folders = self.parts.len().saturating_sub(1);
        let names: Vec<&str> = self
            .parts
            .iter()
            .take(folders)
            .map_while(|part| match part {
                Part::Literal(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        names.join("/")
    }

    /// Whether it matches `path`, which has `/` between folders and none at its ends.
    ///
    /// What lies in a folder that matches belongs to that folder; it does not match by itself.
    #[must_use]
    pub(crate) fn matches(&self, path: &str) -> bool {
        let states = self.states_after(path);
        states.last().copied().unwrap_or(false)
    }

    /// Whether something below the folder `path` can match, so that a walk has to enter it.
    #[must_use]
    pub(crate) fn may_match_below(&self, path: &str) -> bool {
        if path.is_empty() || path == "." {
            return true;
        }
        let states = self.states_after(path);
        states.iter().take(self.parts.len()).any(|&alive| alive)
    }

    /// Which parts can come next after `path`; the last entry stands for a complete match.
    fn states_after(&self, path: &str) -> Vec<bool> {
        let mut states = vec![false; self.parts.len() + 1];
        if let Some(first) = states.first_mut() {
            *first = true;
        }
        self.skip_any_depth(&mut states);
        for name in path.split('/') {
            let mut next = vec![false; states.len()];
            let mut reach = |index: usize| {
                if let Some(state) = next.get_mut(index) {
                    *state = true;
                }
            };
            for (index, part) in self.parts.iter().enumerate() {
                if states.get(index) != Some(&true) {
                    continue;
                }
                match part {
                    Part::AnyDepth => {
                        reach(index);
                        if index + 1 == self.parts.len() {
                            reach(index + 1);
                        }
                    }
                    Part::Literal(literal) if literal == name => reach(index + 1),
                    Part::Pattern(tokens) if matches_name(tokens, name) => reach(index + 1),
                    _ => {}
                }
            }
            states = next;
            self.skip_any_depth(&mut states);
        }
        states
    }

    /// `**` can stand for no folder at all, unless it is the last part.
    fn skip_any_depth(&self, states: &mut [bool]) {
        for (index, part) in self.parts.iter().enumerate() {
            let alive = states.get(index) == Some(&true);
            let is_last = index + 1 == self.parts.len();
            if alive
                && *part == Part::AnyDepth
                && !is_last
                && let Some(next) = states.get_mut(index + 1)
            {
                *next = true;
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, PatternProblem> {
        if text == "**" {
            return Ok(Self::AnyDepth);
        }
        let mut tokens = Vec::new();
        let mut literal = Some(String::new());
        let mut characters = text.char_indices().peekable();
        while let Some((_, character)) = characters.next() {
            let token = match character {
                '*' => Token::Many,
                '?' => Token::One,
                '[' => Token::Set(CharacterSet::parse(&mut characters)?),
                '\\' => Token::Literal(escaped(&mut characters)?),
                plain => Token::Literal(plain),
            };
            match (&token, &mut literal) {
                (Token::Literal(character), Some(text)) => text.push(*character),
                _ => literal = None,
            }
            tokens.push(token);
        }
        Ok(match literal {
            Some(text) => Self::Literal(text),
            None => Self::Pattern(tokens),
        })
    }
}

/// Whether `tokens` match all of `name`. On a mismatch, the last `*` takes one character more.
fn matches_name(tokens: &[Token], name: &str) -> bool {
    let mut rest = name.chars();
    let mut tokens = tokens.iter();
    let mut last_star: Option<(std::slice::Iter<'_, Token>, std::str::Chars<'_>)> = None;
    loop {
        let mut after = rest.clone();
        let matched = match (tokens.clone().next(), after.next()) {
            (Some(Token::Many), _) => {
                tokens.next();
                last_star = Some((tokens.clone(), rest.clone()));
                continue;
            }
            (None, None) => return true,
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Literal(wanted)), Some(character)) => *wanted == character,
            (Some(Token::Set(set)), Some(character)) => set.contains(character),
            _ => false,
        };
        if matched {
            tokens.next();
            rest = after;
            continue;
        }
        let Some((star_tokens, star_rest)) = &mut last_star else {
            return false;
        };
        if star_rest.next().is_none() {
            return false;
        }
        tokens = star_tokens.clone();
        rest = star_rest.clone();
    }
}

/// `[a-z]` or `[^a-z]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CharacterSet {
    negated: bool,
    /// First and last characters, inclusive.
    ranges: Vec<(char, char)>,
}

impl CharacterSet {
    /// Reads what follows a `[`, up to the `]`.
    pub(crate) fn parse(characters: &mut Peekable<CharIndices<'_>>) -> Result<Self, PatternProblem> {
        let negated = characters.next_if(|&(_, next)| next == '^').is_some();
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && characters.next_if(|&(_, next)| next == ']').is_some() {
                return Ok(Self { negated, ranges });
            }
            let first = Self::character(characters)?;
            let last = match characters.next_if(|&(_, next)| next == '-') {
                Some(_) => Self::character(characters)?,
                None => first,
            };
            if last < first {
                return Err(PatternProblem("a range in `[…]` goes backwards"));
            }
            ranges.push((first, last));
        }
    }

    pub(crate) fn contains(&self, character: char) -> bool {
        let found = self
            .ranges
            .iter()
            .any(|&(first, last)| (first..=last).contains(&character));
        found != self.negated
    }

    fn character(characters: &mut Peekable<CharIndices<'_>>) -> Result<char, PatternProblem> {
        match characters.next() {
            None => Err(PatternProblem("`[` is not closed")),
            Some((_, ']')) => Err(PatternProblem("`[…]` has no character before its `]`")),
            Some((_, '-')) => Err(PatternProblem("`-` in `[…]` has no character on both sides")),
            Some((_, '\\')) => escaped(characters),
            Some((_, plain)) => Ok(plain),
        }
    }
}

/// The character that a `\` makes plain.
fn escaped(characters: &mut Peekable<CharIndices<'_>>) -> Result<char, PatternProblem> {
    match characters.next() {
        Some((_, character)) => Ok(character),
        None => Err(PatternProblem("nothing follows the `\\` at its end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of Go's `path.Match`; `None` is a pattern that Go refuses.
    const GO: &[(&str, &str, Option<bool>)] = &[
        ("abc", "abc", Some(true)),
        ("*", "abc", Some(true)),
        ("*c", "abc", Some(true)),
        ("a*", "a", Some(true)),
        ("a*", "abc", Some(true)),
        ("a*", "ab/c", Some(false)),
        ("a*/b", "abc/b", Some(true)),
        ("a*/b", "a/c/b", Some(false)),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
        ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
        ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
        ("ab[c]", "abc", Some(true)),
        ("ab[b-d]", "abc", Some(true)),
        ("ab[e-g]", "abc", Some(false)),
        ("ab[^c]", "abc", Some(false)),
        ("ab[^b-d]", "abc", Some(false)),
        ("ab[^e-g]", "abc", Some(true)),
        ("a\\*b", "a*b", Some(true)),
        ("a\\*b", "ab", Some(false)),
        ("a?b", "a☺b", Some(true)),
        ("a[^a]b", "a☺b", Some(true)),
        ("a???b", "a☺b", Some(false)),
        ("a[^a][^a][^a]b", "a☺b", Some(false)),
        ("[a-ζ]*", "α", Some(true)),
        ("*[a-ζ]", "A", Some(false)),
        ("a?b", "a/b", Some(false)),
        ("a*b", "a/b", Some(false)),
        ("[\\]a]", "]", Some(true)),
        ("[\\-]", "-", Some(true)),
        ("[x\\-]", "x", Some(true)),
        ("[x\\-]", "-", Some(true)),
        ("[x\\-]", "z", Some(false)),
        ("[\\-x]", "x", Some(true)),
        ("[\\-x]", "-", Some(true)),
        ("[\\-x]", "a", Some(false)),
        ("[]a]", "]", None),
        ("[-]", "-", None),
        ("[x-]", "x", None),
        ("[-x]", "x", None),
        ("\\", "a", None),
        ("[a-b-c]", "a", None),
        ("[", "a", None),
        ("[^", "a", None),
        ("[^bc", "a", None),
        ("a[", "a", None),
        ("a[", "ab", None),
        ("a[", "x", None),
        ("a/b[", "x", None),
        ("*x", "xxx", Some(true)),
        ("arr[[]0].txt", "arr[0].txt", Some(true)),
    ];

    #[test]
    fn matches_as_go_does() {
        for &(pattern, path, expected) in GO {
            let found = Glob::parse(pattern).map(|glob| glob.matches(path)).ok();
            assert_eq!(found, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn two_stars_are_any_number_of_folders() {
        let table = [
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**", "a/b", true),
            ("a/**", "a/b/c", true),
            ("**/c", "c", true),
            ("**/c", "a/b/c", true),
            ("**/c", "a/b/cc", false),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/x/y/c", true),
            ("a/**/c", "b/c", false),
            ("**/b/**/*.yaml", "a/b/c/d/e.yaml", true),
            ("**/b/**/*.yaml", "b/e.yaml", true),
            ("**/b/**/*.yaml", "e.yaml", false),
            ("**/**/c", "c", true),
            // Not a part of its own: two stars are one.
            ("a**c", "abc", true),
            ("a**c", "a/c", false),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(
                Glob::parse(pattern).unwrap().matches(path),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn tells_a_walk_where_to_go() {
        // Pattern, base, literal, folder, whether to enter it.
        let table = [
            ("a/b", "a", Some("a/b"), "a", true),
            ("a/b", "a", Some("a/b"), "b", false),
            ("a/b", "a", Some("a/b"), "a/b", false),
            ("a\\*/b", "a*", Some("a*/b"), "a*", true),
            (".", "", Some("."), ".", true),
            ("a/*/c", "a", None, "a/x", true),
            ("a/*/c", "a", None, "a/x/y", false),
            ("*.yaml", "", None, "x", false),
            ("*.yaml", "", None, "", true),
            ("a/**", "a", None, "a/b/c", true),
            ("**/c", "", None, "a/b", true),
            ("a/**/c/d", "a", None, "b", false),
        ];
        for (pattern, base, literal, folder, enter) in table {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(glob.base(), base, "{pattern}");
            assert_eq!(glob.literal().as_deref(), literal, "{pattern}");
            assert_eq!(glob.may_match_below(folder), enter, "{pattern} {folder}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = format!("{}b", "*a".repeat(1000));
        let glob = Glob::parse(&pattern).unwrap();
        assert!(!glob.matches(&"a".repeat(4000)));
        let glob = Glob::parse(&format!("{}x", "**/a/".repeat(500))).unwrap();
        assert!(!glob.matches(&format!("{}y", "a/".repeat(2000))));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(pattern in "\\PC*", path in "\\PC*") {
            if let Ok(glob) = Glob::parse(&pattern) {
                let _ = (glob.matches(&path), glob.may_match_below(&path), glob.base());
                assert!(glob.literal().is_none_or(|literal| glob.matches(&literal)));
            }
        }

        /// A walk that enters only what it is told to sees everything that matches.
        #[test]
        fn walks_miss_nothing(
            pattern in "[ab*?]{1,2}(/[ab*?]{1,2}){0,3}",
            path in "[ab]{1,2}(/[ab]{1,2}){0,4}",
        ) {
            let glob = Glob::parse(&pattern).unwrap();
            if glob.matches(&path) {
                let below_base = glob.base().is_empty() || path.starts_with(&format!("{}/", glob.base()));
                assert!(below_base, "{pattern} {path}");
                for (end, _) in path.match_indices('/') {
                    assert!(glob.may_match_below(&path[..end]), "{pattern} {path}");
                }
            }
        }
    }
}
