//! What a type finds wrong in a document.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};
use serde_saphyr::Location;

use super::mistakes::suggestion;
use super::tree::Node;

/// Something wrong in a document, and which part has to be left out to read the rest.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) hint: String,
    /// Where it is, once that is known.
    pub(super) place: Option<Location>,
    /// The part to leave out; none if that is the document.
    pub(super) victim: Option<*const Node>,
    /// The field that is missing.
    pub(super) missing: Option<&'static str>,
    /// Whether the field is missing because it was left out: that is no news.
    pub(super) follows: bool,
}

impl Fault {
    fn new(message: String, hint: impl Into<String>) -> Self {
        Self {
            message,
            hint: hint.into(),
            place: None,
            victim: None,
            missing: None,
            follows: false,
        }
    }

    /// The same at a place, unless a nearer one is known.
    pub(super) fn at(mut self, place: Location, victim: &Node) -> Self {
        self.place.get_or_insert(place);
        self.victim.get_or_insert(victim);
        self
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), "")
    }

    // What stands there may be secret: only its sort is told.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "`true` or `false`",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) | Unexpected::Char(_) => "a text",
            Unexpected::Unit | Unexpected::Option => "nothing",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a group of fields",
            _ => "something else",
        };
        let expected = expected.to_string();
        let (expected, hint) = match expected.as_str() {
            "a string" => ("a text", "write one value"),
            "a sequence" => ("a list", "write a list, for instance `[a, b]`"),
            "a boolean" => ("`true` or `false`", "write `true` or `false`"),
            "a map" => ("a group of fields", "write `field: value`"),
            other if other.starts_with("struct ") => ("a group of fields", "write `field: value`"),
            other => (other, ""),
        };
        Self::new(format!("{found} stands where {expected} belongs"), hint)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        // A forgotten colon makes a field of a value, which may be secret.
        let name = field.split_whitespace().next().unwrap_or_default();
        let more = if name == field { "" } else { " …" };
        Self::new(format!("there is no field `{name}{more}`"), suggestion(name, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("`{variant}` is not known here"), suggestion(variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            missing: Some(field),
            ..Self::new(format!("the field `{field}` is missing"), "add it")
        }
    }
}
