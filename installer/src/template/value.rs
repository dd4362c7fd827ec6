//! Values in a template.

use std::collections::BTreeMap;
use std::fmt;

/// A value. The environment is a map of texts; templates make the others.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Not there: a key that a map does not have, or `nil`.
    Nothing,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// Whether `if` takes it for true: everything but nothing, zero and what is empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Bool(value) => *value,
            Self::Integer(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(value) => !value.is_empty(),
            Self::Map(value) => !value.is_empty(),
        }
    }

    /// The bytes that it takes in memory, about.
    pub(super) fn size(&self) -> usize {
        let inside = match self {
            Self::Text(text) => text.len(),
            Self::Map(map) => map.iter().map(|(key, value)| key.len() + value.size()).sum(),
            Self::Nothing | Self::Bool(_) | Self::Integer(_) | Self::Float(_) => 0,
        };
        size_of::<Self>() + inside
    }

    /// What sort of value it is, for messages.
    pub(super) fn sort(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Map(_) => "a map",
        }
    }
}

/// As Go prints it by `%v`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("<nil>"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => f.write_str(&float(*value)),
            Self::Text(value) => f.write_str(value),
            Self::Map(map) => {
                f.write_str("map[")?;
                for (number, (key, value)) in map.iter().enumerate() {
                    let space = if number == 0 { "" } else { " " };
                    write!(f, "{space}{key}:{value}")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Go's `%v` of a float: `%g` that turns to an exponent only from 1e21 on and below 1e-4.
fn float(value: f64) -> String {
    if value == 0.0 || (1e-4..1e21).contains(&value.abs()) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    // At least two digits of exponent, with a sign.
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}
