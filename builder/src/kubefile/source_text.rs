//! Text that knows where each of its characters stands in the file, also after continued lines were joined.

use std::ops::Range;

use super::diagnostic::Span;

/// A piece of a file's text, of one or more lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SourceText {
    text: String,
    /// In the order of their offsets; the first one is at offset 0.
    pieces: Vec<Piece>,
}

/// From `offset` on, the text stands in the file at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    offset: usize,
    line: usize,
    column: usize,
}

impl SourceText {
    /// `text`, which stands at this place of the file.
    pub(super) fn new(text: &str, line: usize, column: usize) -> Self {
        let mut this = Self::default();
        this.push(text, line, column);
        this
    }

    /// Appends `text`, which stands at this place of the file.
    pub(super) fn push(&mut self, text: &str, line: usize, column: usize) {
        self.pieces.push(Piece {
            offset: self.text.len(),
            line,
            column,
        });
        self.text.push_str(text);
    }

    /// Appends another piece of the file.
    pub(super) fn append(&mut self, other: &Self) {
        let offset = self.text.len();
        self.pieces.extend(other.pieces.iter().map(|piece| Piece {
            offset: piece.offset + offset,
            ..*piece
        }));
        self.text.push_str(&other.text);
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The part at these byte offsets; empty if they are not within the text.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        let text = self.text.get(range.clone()).unwrap_or_default();
        let (line, column) = self.place(range.start);
        let mut part = Self::new(text, line, column);
        let next = self.pieces.partition_point(|piece| piece.offset <= range.start);
        let inner = self.pieces.iter().skip(next);
        part.pieces
            .extend(inner.take_while(|piece| piece.offset < range.end).map(|piece| Piece {
                offset: piece.offset - range.start,
                ..*piece
            }));
        part
    }

    /// The text without blanks around it.
    pub(super) fn trim(&self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        let end = self.text.trim_end().len();
        self.slice(start..end.max(start))
    }

    /// The place of the whole text; of its first line if it has several.
    pub(super) fn span(&self) -> Span {
        self.span_of(0..self.text.len())
    }

    /// The place of the part at these byte offsets.
    pub(super) fn span_of(&self, range: Range<usize>) -> Span {
        let (line, column) = self.place(range.start);
        // What stands on other lines is not marked.
        let next = self.pieces.partition_point(|piece| piece.offset <= range.start);
        let end = self
            .pieces
            .iter()
            .skip(next)
            .find(|piece| piece.line != line)
            .map_or(range.end, |piece| piece.offset.min(range.end));
        let part = self.text.get(range.start..end).unwrap_or_default();
        let length = match part.char_indices().next_back() {
            Some((last, _)) => {
                let (_, last_column) = self.place(range.start + last);
                (last_column + 1).saturating_sub(column)
            }
            None => 1,
        };
        Span {
            line,
            column,
            length: length.max(1),
        }
    }

    /// Line and column of a byte offset.
    fn place(&self, offset: usize) -> (usize, usize) {
        let index = self.pieces.partition_point(|piece| piece.offset <= offset);
        let Some(piece) = index.checked_sub(1).and_then(|last| self.pieces.get(last)) else {
            return (1, 1);
        };
        let before = self.text.get(piece.offset..offset.min(self.text.len()));
        (piece.line, piece.column + before.unwrap_or_default().chars().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_joining_and_slicing() {
        // COPY a \
        //    bé dest
        let mut text = SourceText::new("COPY a ", 1, 1);
        text.push("   bé dest", 2, 1);
        assert_eq!(text.as_str(), "COPY a    bé dest");
        let place = |range: Range<usize>| {
            let span = text.span_of(range);
            (span.line, span.column, span.length)
        };
        assert_eq!(place(5..6), (1, 6, 1));
        assert_eq!(place(10..13), (2, 4, 2));
        assert_eq!(place(14..18), (2, 7, 4));
        assert_eq!(place(5..18), (1, 6, 2), "only its first line is marked");
        assert_eq!(place(99..120), (2, 11, 1), "past the end: no panic");

        let part = text.slice(10..18);
        assert_eq!(part.as_str(), "bé dest");
        assert_eq!((part.span().line, part.span().column), (2, 4));
        let word = part.slice(4..8);
        assert_eq!((word.as_str(), word.span().column), ("dest", 7));

        let trimmed = text.slice(6..14).trim();
        assert_eq!((trimmed.as_str(), trimmed.span().column), ("bé", 4));
    }
}
