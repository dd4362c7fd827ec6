//! Arguments written as a JSON array of strings: `["a", "b"]`.
//!
//! Own reader instead of a JSON library, because each string keeps its place in the file. What does not look like
//! an array of strings is left to the caller: `[a-c]*.yaml` is a pattern, `[ -f x ] && y` a command.

use super::diagnostic::{Diagnostic, Span};
use super::source_text::SourceText;

/// The strings of the array that `text` is; `None` if it is none.
///
/// # Errors
/// If it was meant as one (`["`, `['`, or an array with something else than strings) and is not right.
pub(super) fn parse(text: &SourceText) -> Result<Option<Vec<SourceText>>, Diagnostic> {
    let Some(inner) = text.as_str().strip_prefix('[') else {
        return Ok(None);
    };
    let mut reader = Reader { text, offset: 0 };
    match reader.array() {
        Ok(strings) => Ok(Some(strings)),
        Err(problem) => {
            let looks_like_strings = inner.trim_start().starts_with(['"', '\'', ']']);
            let is_json = || serde_json::from_str::<Vec<serde_json::Value>>(text.as_str()).is_ok();
            if looks_like_strings || is_json() {
                Err(problem)
            } else {
                Ok(None)
            }
        }
    }
}

struct Reader<'a> {
    text: &'a SourceText,
    offset: usize,
}

impl Reader<'_> {
    fn array(&mut self) -> Result<Vec<SourceText>, Diagnostic> {
        self.next();
        let mut strings = Vec::new();
        self.skip_blanks();
        if self.peek() == Some(']') {
            self.next();
        } else {
            loop {
                self.skip_blanks();
                strings.push(self.string()?);
                self.skip_blanks();
                match self.next() {
                    Some(',') => {}
                    Some(']') => break,
                    _ => {
                        return Err(self.problem(self.offset_before(), "a JSON array has `,` or `]` after each string"));
                    }
                }
            }
        }
        self.skip_blanks();
        match self.peek() {
            None => Ok(strings),
            Some(_) => Err(self.problem(self.offset, "something follows the JSON array")),
        }
    }

    fn string(&mut self) -> Result<SourceText, Diagnostic> {
        let start = self.offset;
        match self.next() {
            Some('"') => {}
            Some('\'') => {
                return Err(self
                    .problem(start, "strings of a JSON array are in double quotes")
                    .hint("write `[\"a\", \"b\"]`"));
            }
            _ => {
                return Err(self
                    .problem(
                        start,
                        "when using JSON array syntax, arrays must be comprised of strings only",
                    )
                    .hint("write `[\"a\", \"b\"]`"));
            }
        }
        let mut string = self.text.slice(self.offset..self.offset);
        loop {
            let before = self.offset;
            match self.next() {
                Some('"') => return Ok(string),
                Some('\\') => {
                    let character = self.escaped(before)?;
                    let Span { line, column, .. } = self.text.span_of(before..self.offset);
                    string.push(character.encode_utf8(&mut [0; 4]), line, column);
                }
                Some(character) if character >= ' ' => {
                    // The run up to the next special character, in one piece.
                    while self
                        .peek()
                        .is_some_and(|next| next >= ' ' && !matches!(next, '"' | '\\'))
                    {
                        self.next();
                    }
                    string.append(&self.text.slice(before..self.offset));
                }
                Some(_) => {
                    return Err(self.problem(before, "a JSON string can't hold a control character"));
                }
                None => {
                    return Err(self
                        .problem(start, "this JSON string is not closed")
                        .hint("end it with `\"`"));
                }
            }
        }
    }

    /// The character that an escape stands for, whose backslash is at `start`.
    fn escaped(&mut self, start: usize) -> Result<char, Diagnostic> {
        let character = match self.next() {
            Some(same @ ('"' | '\\' | '/')) => Some(same),
            Some('b') => Some('\u{8}'),
            Some('f') => Some('\u{c}'),
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('u') => self.unicode(),
            _ => None,
        };
        character.ok_or_else(|| {
            self.problem(start, "this is no escape of a JSON string")
                .hint("write `\\\\` for a backslash")
        })
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        // A character beyond U+FFFF is written as two escapes.
        if self.next()? != '\\' || self.next()? != 'u' {
            return None;
        }
        let second = self.hex()?.checked_sub(0xdc00).filter(|&low| low < 0x400)?;
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)
    }

    fn hex(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |value, _| Some(value << 4 | self.next()?.to_digit(16)?))
    }

    fn peek(&self) -> Option<char> {
        self.text.as_str().get(self.offset..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.offset += character.len_utf8();
        Some(character)
    }

    fn offset_before(&self) -> usize {
        let before = self.text.as_str().get(..self.offset).unwrap_or_default();
        self.offset - before.chars().next_back().map_or(0, char::len_utf8)
    }

    fn skip_blanks(&mut self) {
        while self
            .peek()
            .is_some_and(|character| matches!(character, ' ' | '\t' | '\r'))
        {
            self.next();
        }
    }

    fn problem(&self, offset: usize, message: &str) -> Diagnostic {
        let length = self.text.as_str().get(offset..).and_then(|rest| rest.chars().next());
        let span = self.text.span_of(offset..offset + length.map_or(0, char::len_utf8));
        Diagnostic::error(span, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &str) -> Result<Option<Vec<String>>, Diagnostic> {
        let parsed = parse(&SourceText::new(text, 1, 1))?;
        Ok(parsed.map(|strings| strings.iter().map(|string| string.as_str().to_owned()).collect()))
    }

    #[test]
    fn reads_arrays_of_strings() {
        let table: [(&str, &[&str]); 8] = [
            ("[]", &[]),
            ("[ ]", &[]),
            (r#"["a"]"#, &["a"]),
            (r#"[ "a" , "b c" ]"#, &["a", "b c"]),
            (r#"["\"\\\/\n\t\u0041\u00e9"]"#, &["\"\\/\n\tAé"]),
            (r#"["\ud83d\ude00"]"#, &["😀"]),
            (r#"["名前", ""]"#, &["名前", ""]),
            (r#"["a]", "[b"]  "#, &["a]", "[b"]),
        ];
        for (text, expected) in table {
            assert_eq!(strings(text).unwrap().unwrap(), expected, "{text}");
            // The same as a JSON library says.
            assert_eq!(serde_json::from_str::<Vec<String>>(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn leaves_other_text_alone() {
        for text in ["a b", "[a-c]*.yaml x", "[ -f /x ] && echo", "[", "[calico]"] {
            assert_eq!(strings(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn refuses_broken_arrays_with_the_place() {
        let table = [
            (r#"["a", 1]"#, 7, "comprised of strings only"),
            ("[1, 2]", 2, "comprised of strings only"),
            ("[null]", 2, "comprised of strings only"),
            ("['a']", 2, "double quotes"),
            (r#"["a" "b"]"#, 6, "`,` or `]`"),
            (r#"["a","#, 6, "strings only"),
            (r#"["a""#, 4, "`,` or `]`"),
            (r#"["a",]"#, 6, "strings only"),
            (r#"["a"#, 2, "not closed"),
            (r#"["a"] b"#, 7, "follows"),
            (r#"["\x"]"#, 3, "escape"),
            (r#"["\ud83d"]"#, 3, "escape"),
            (r#"["\u12"]"#, 3, "escape"),
            ("[\"a\tb\"]", 4, "control character"),
        ];
        for (text, column, message) in table {
            let problem = strings(text).unwrap_err();
            assert_eq!(problem.span().unwrap().column, column, "{text}: {}", problem.message());
            assert!(problem.message().contains(message), "{text}: {}", problem.message());
            assert!(serde_json::from_str::<Vec<String>>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn strings_keep_their_place_behind_escapes() {
        let parsed = parse(&SourceText::new(r#"["\u0041bc", "$X"]"#, 4, 10))
            .unwrap()
            .unwrap();
        let (first, second) = (&parsed[0], &parsed[1]);
        let span = first.span_of(1..3);
        assert_eq!((span.line, span.column, span.length), (4, 18, 2));
        assert_eq!((second.span().line, second.span().column), (4, 24));
    }
}
