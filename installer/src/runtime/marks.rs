//! Secrets in the settings of a runtime. A mark stands for each in settings and plans; the secret itself takes its place when the
//! file is written.

use serde_json::Value;

use crate::action::{Content, Piece};

/// No settings of people have this in them.
const MARK: &str = "\u{1}secret:";

/// The mark of a secret.
pub(super) fn mark(secret: &str) -> String {
    format!("{MARK}{secret}")
}

/// The mark of what stands at a place (RFC 6901) of one of the user's documents. None if it can't be written between quotation
/// marks.
pub(super) fn mark_given(number: usize, place: &str, value: &Value) -> Option<Value> {
    let plain = |letter: char| !letter.is_control() && !"\"\\".contains(letter);
    let is_plain = value.as_str().is_some_and(|text| text.chars().all(plain));
    is_plain.then(|| mark(&format!("options/runtime-documents/{number}{place}")).into())
}

/// A text of YAML with the secrets in the place of their marks.
pub(super) fn content(text: &str) -> Content {
    let mark = Value::from(MARK).to_string();
    let mut parts = text.split(mark.trim_matches('"'));
    let mut pieces = vec![Piece::Text(parts.next().unwrap_or_default().to_owned())];
    for part in parts {
        let (secret, rest) = part.split_once('"').unwrap_or((part, ""));
        pieces.push(Piece::Secret(secret.to_owned()));
        pieces.push(Piece::Text(format!("\"{rest}")));
    }
    match pieces.as_slice() {
        [Piece::Text(text)] => Content::Text(text.clone()),
        _ => Content::Pieces(pieces),
    }
}
