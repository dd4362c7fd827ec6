//! Splits the arguments of an instruction into words, and words at their first `=`.
//!
//! Quotes and escapes stay in the words: [`Template`](super::template::Template) takes them off. Unlike in a
//! Dockerfile, quotes hold a word together in every instruction, so `COPY "two words" x` has one source.

use std::ops::Range;

use super::diagnostic::{Diagnostic, quoted};
use super::source_text::SourceText;

/// The byte ranges of the words of `text`. An unclosed quote reaches to the end.
pub(super) fn split_words(text: &str, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (offset, character) in unquoted(text, escape) {
        match (character, start) {
            (Some(character), Some(first)) if character.is_whitespace() => {
                words.push(first..offset);
                start = None;
            }
            (Some(character), None) if character.is_whitespace() => {}
            (_, None) => start = Some(offset),
            _ => {}
        }
    }
    if let Some(first) = start {
        words.push(first..text.len());
    }
    words
}

/// Splits a word at its first `=` that is neither quoted nor escaped.
pub(super) fn split_at_equals(word: &SourceText, escape: char) -> Option<(SourceText, SourceText)> {
    let text = word.as_str();
    let (equals, _) = unquoted(text, escape).find(|&(_, character)| character == Some('='))?;
    Some((word.slice(0..equals), word.slice(equals + 1..text.len())))
}

/// The text of a word without its quotes and escapes; a `$` is plain. `None` if a quote is not closed.
pub(super) fn unquote(word: &str, escape: char) -> Option<String> {
    let mut text = String::new();
    let mut quote = None;
    let mut characters = word.chars();
    while let Some(character) = characters.next() {
        match quote {
            Some(open) if character == open => quote = None,
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some('\'') => text.push(character),
            _ if character == escape => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    quote.is_none().then_some(text)
}

/// The characters of `text` with their offsets; `None` stands for one that is quoted, escaped, a quote or an escape.
fn unquoted(text: &str, escape: char) -> impl Iterator<Item = (usize, Option<char>)> + '_ {
    let mut quote = None;
    let mut escaped = false;
    text.char_indices().map(move |(offset, character)| {
        let plain = if escaped {
            escaped = false;
            None
        } else if character == escape && quote != Some('\'') {
            escaped = true;
            None
        } else if let Some(open) = quote {
            if character == open {
                quote = None;
            }
            None
        } else if matches!(character, '\'' | '"') {
            quote = Some(character);
            None
        } else {
            Some(character)
        };
        (offset, plain)
    })
}

/// A `--name[=value]` word between an instruction and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flag {
    /// The whole word.
    pub(super) word: SourceText,
    /// Without the dashes.
    pub(super) name: String,
    /// Quotes kept.
    pub(super) value: Option<SourceText>,
}

/// Takes the flags off the front of `arguments`. A word `--` ends them and is dropped.
pub(super) fn split_flags(arguments: &SourceText, escape: char) -> (Vec<Flag>, SourceText) {
    let text = arguments.as_str();
    let mut flags = Vec::new();
    for range in split_words(text, escape) {
        let word = arguments.slice(range.clone());
        if word.as_str() == "--" {
            return (flags, arguments.slice(range.end..text.len()).trim());
        }
        if !word.as_str().starts_with("--") {
            return (flags, arguments.slice(range.start..text.len()));
        }
        let (name, value) = match split_at_equals(&word, escape) {
            Some((name, value)) => (name, Some(value)),
            None => (word.clone(), None),
        };
        flags.push(Flag {
            name: name.as_str().trim_start_matches('-').to_owned(),
            value,
            word,
        });
    }
    (flags, arguments.slice(text.len()..text.len()))
}

/// Refuses a lone `#`: whoever writes it means a comment, which only a line of its own can be.
pub(super) fn refuse_comment(words: &[SourceText]) -> Result<(), Diagnostic> {
    match words.iter().find(|word| word.as_str() == "#") {
        Some(word) => Err(
            Diagnostic::error(word.span(), "a comment can't follow an instruction on its line").hint(format!(
                "put the comment on a line of its own, or quote a file that is really named {}",
                quoted("#")
            )),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_words() {
        let table: [(&str, &[&str]); 13] = [
            ("", &[]),
            ("  ", &[]),
            ("a b", &["a", "b"]),
            ("  a\t b  ", &["a", "b"]),
            (r#""a b" c"#, &[r#""a b""#, "c"]),
            (r#"x"a b"'c d'y z"#, &[r#"x"a b"'c d'y"#, "z"]),
            (r"a\ b c", &[r"a\ b", "c"]),
            (r#""a\" b" c"#, &[r#""a\" b""#, "c"]),
            (r"'a\' b", &[r"'a\'", "b"]),
            (r#"a "b c"#, &["a", r#""b c"#]),
            (r#""" ''"#, &[r#""""#, "''"]),
            (r"a \", &["a", r"\"]),
            ("a\u{a0}b\u{3000}c", &["a", "b", "c"]),
        ];
        for (text, expected) in table {
            let words: Vec<&str> = split_words(text, '\\').into_iter().map(|range| &text[range]).collect();
            assert_eq!(words, expected, "{text}");
        }
        assert_eq!(split_words("a` b \\ c", '`').len(), 3);
    }

    #[test]
    fn takes_quotes_off() {
        let table = [
            ("EOF", Some("EOF")),
            ("'EOF'", Some("EOF")),
            (r#"E"O"F"#, Some("EOF")),
            (r"eo\'f", Some("eo'f")),
            (r"'e'o\'f", Some("eo'f")),
            ("'one two'", Some("one two")),
            (r"'a\b'", Some(r"a\b")),
            ("$EOF", Some("$EOF")),
            ("'EOF", None),
            ("EOF\"", None),
        ];
        for (word, expected) in table {
            assert_eq!(unquote(word, '\\').as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn splits_at_the_first_bare_equals() {
        let table = [
            ("a=b=c", Some(("a", "b=c"))),
            (r#""a=b"=c"#, Some((r#""a=b""#, "c"))),
            (r"a\=b=c", Some((r"a\=b", "c"))),
            ("=x", Some(("", "x"))),
            (r#""a=b""#, None),
            ("a", None),
        ];
        for (text, expected) in table {
            let split = split_at_equals(&SourceText::new(text, 1, 1), '\\');
            let split = split.as_ref().map(|(key, value)| (key.as_str(), value.as_str()));
            assert_eq!(split, expected, "{text}");
        }
    }

    #[test]
    fn takes_flags_off() {
        type Row = (
            &'static str,
            &'static [(&'static str, Option<&'static str>)],
            &'static str,
        );
        let table: [Row; 7] = [
            (
                "--chown=1:2 --link a b",
                &[("chown", Some("1:2")), ("link", None)],
                "a b",
            ),
            (r#"--x="a b" c"#, &[("x", Some(r#""a b""#))], "c"),
            ("a --x", &[], "a --x"),
            ("-- --x y", &[], "--x y"),
            ("--x= y", &[("x", Some(""))], "y"),
            ("--x", &[("x", None)], ""),
            ("", &[], ""),
        ];
        for (text, expected, expected_rest) in table {
            let (flags, rest) = split_flags(&SourceText::new(text, 1, 1), '\\');
            let flags: Vec<_> = flags
                .iter()
                .map(|flag| (flag.name.as_str(), flag.value.as_ref().map(SourceText::as_str)))
                .collect();
            assert_eq!((flags.as_slice(), rest.as_str()), (expected, expected_rest), "{text}");
        }
    }
}
