//! A YAML value whose every part knows its line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned, budget};

/// A value and the line it begins at.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    /// Which of several files it is from, by whoever joins values of several.
    pub(super) source: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    /// A boolean, or bytes: nothing that names an image.
    Other,
    True,
    /// As helm writes it: `1.10` is 1.1.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// What lies at a path.
#[derive(Debug, Default)]
pub(super) struct Places<'n> {
    /// Each with its whole path.
    pub(super) found: Vec<(String, &'n Node)>,
    /// What lies on the way and is neither null nor what the path goes through.
    pub(super) odd: Vec<(String, &'n Node)>,
}

impl Node {
    /// Reads all documents of a file.
    pub(super) fn read(text: &str) -> Result<Vec<Self>, serde_saphyr::Error> {
        // The definitions of a large operator in one file are more than the library takes by itself.
        let mut options = Options::default();
        options.budget = budget! { max_events: 8_000_000, max_nodes: 4_000_000, max_documents: 10_000 };
        serde_saphyr::from_multiple_with_options(text, options)
    }

    /// Says of itself and all below which file they are from, and moves them down by some lines.
    pub(super) fn place(&mut self, source: usize, lines: usize) {
        self.source = source;
        self.line += lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.place(source, lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, entry)| entry.place(source, lines)),
            _ => {}
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries()
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A text, or a number as text: versions look like numbers.
    pub(super) fn word(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Number(text) => Some(text),
            _ => None,
        }
    }

    /// The text below `key`.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::text)
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// All nodes at a path of keys, in which `*` is every item of a list.
    pub(super) fn at<'n>(&'n self, path: &str, before: &str, places: &mut Places<'n>) {
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        let mut step = |node: &'n Self, place: String| match rest {
            Some(rest) => node.at(rest, &place, places),
            None => places.found.push((place, node)),
        };
        match (&self.value, first) {
            (Value::Null, _) => {}
            (Value::List(items), "*") => {
                for (number, item) in items.iter().enumerate() {
                    step(item, format!("{before}[{number}]"));
                }
            }
            (Value::Map(_), key) if key != "*" => {
                if let Some(node) = self.get(key) {
                    step(node, below(before, key));
                }
            }
            _ => places.odd.push((before.to_owned(), self)),
        }
    }
}

/// The path of a key below another.
pub(super) fn below(before: &str, key: &str) -> String {
    if before.is_empty() {
        key.to_owned()
    } else {
        format!("{before}.{key}")
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            line: usize::try_from(spanned.defined.line()).unwrap_or(0),
            source: 0,
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<Value, E> {
        Ok(if is_true { Value::True } else { Value::Other })
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}
