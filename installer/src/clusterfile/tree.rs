//! A YAML document as a tree whose parts know their places, so that what is wrong can be left out and the rest be read.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::Spanned;
use serde_saphyr::options::NonFiniteFloatPolicy;

/// A part of a document.
pub(super) type Node = Spanned<Content>;
/// A field with its name.
pub(super) type Entry = (Spanned<String>, Node);

/// What a part holds.
pub(super) enum Content {
    Null,
    Bool(bool),
    /// None if it has no end.
    Number(Option<Number>),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// Aliases make much of little: what people write repeats less than this.
const MOST_REPEATED: usize = 20_000;

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Node, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        budget: serde_saphyr::budget! { max_recorded_anchor_events: MOST_REPEATED },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_REPEATED },
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// The fields of a part; none if it has no fields.
pub(super) fn entries(node: &Node) -> &[Entry] {
    match &node.value {
        Content::Map(entries) => entries,
        _ => &[],
    }
}

/// The field of this name.
pub(super) fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let entry = entries(node).iter().find(|(key, _)| key.value == name);
    entry.map(|(_, value)| value)
}

/// A scalar as it was written in `text`, since `0022` and `1.10` are more than numbers where a text belongs.
pub(super) fn written<'n>(node: &'n Node, text: &'n str) -> Option<Cow<'n, str>> {
    let value = match &node.value {
        Content::Text(value) => return Some(value.as_str().into()),
        Content::Bool(value) => value.to_string(),
        Content::Number(value) => value.as_ref().map_or_else(String::new, Number::to_string),
        Content::Null | Content::List(_) | Content::Map(_) => return None,
    };
    let plain = lines_of(node, text).filter(|plain| !plain.starts_with(['"', '\'', '|', '>', '!']));
    Some(plain.map_or(value.into(), Cow::Borrowed))
}

/// The part of `text` where a scalar stands.
pub(super) fn lines_of<'t>(node: &Node, text: &'t str) -> Option<&'t str> {
    let span = node.defined.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    text.get(start..start.checked_add(length)?).map(str::trim)
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(Some(value.into())))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(Some(value.into())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Number(Number::from_f64(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Content, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Content::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_as_they_were_written() {
        let text = "ä: [0022, 1.10, 0x1F, True, \"5\", !!int \"7\", .inf, 1e999, 123456789012345678901234567890, ~]";
        let root = parse(text).unwrap();
        let Content::List(items) = &field(&root, "ä").unwrap().value else {
            panic!("no list")
        };
        let texts: Vec<_> = items.iter().map(|item| written(item, text)).collect();
        let expected = [
            "0022",
            "1.10",
            "0x1F",
            "True",
            "5",
            "7",
            ".inf",
            "1e999",
            "123456789012345678901234567890",
        ];
        let expected: Vec<_> = expected
            .map(|text| Some(Cow::Borrowed(text)))
            .into_iter()
            .chain([None])
            .collect();
        assert_eq!(texts, expected);
        assert_eq!((items[1].referenced.line(), items[1].referenced.column()), (1, 11));
    }

    #[test]
    fn aliases_and_merges_are_written_out() {
        let text = "a: &a {x: 1, y: 0022}\nb: *a\nc: {<<: *a, x: 3}\n";
        let root = parse(text).unwrap();
        let value = |name: &str, key: &str| written(field(field(&root, name).unwrap(), key).unwrap(), text).unwrap();
        assert_eq!(value("b", "y"), "0022");
        assert_eq!((value("c", "x"), value("c", "y")), ("3".into(), "0022".into()));
        assert_eq!(field(&root, "b").unwrap().referenced.line(), 2);
        assert!(parse("a: &a [*a]").is_err());
    }
}
