//! Types out of a tree. A part that is wrong is told and left out, and the rest read again: so all that is wrong in a
//! document is found, not only the first of it.

use std::collections::HashSet;
use std::slice::Iter;

use serde::de::value::MapDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde_json::Number;
use serde_saphyr::Location;

use super::fault::Fault;
use super::mistakes::Mistakes;
use super::tree::{Content, Entry, Node, entries, written};

/// More of them in one document are no slips.
const MOST_FAULTS: usize = 100;

/// What the type makes of `root`, a part of `text`, and whether that is all of it.
pub(super) fn read<T: DeserializeOwned>(root: &Node, text: &str, mistakes: &mut Mistakes<'_>) -> Option<(T, bool)> {
    let mut left_out = HashSet::new();
    for _ in 0..MOST_FAULTS {
        let reader = Reader {
            node: root,
            text,
            left_out: &left_out,
        };
        let fault = match T::deserialize(reader) {
            Ok(read) => return Some((read, left_out.is_empty())),
            Err(fault) => fault,
        };
        if !fault.follows {
            mistakes.at(fault.place.unwrap_or(root.referenced), fault.message, fault.hint);
        }
        if !left_out.insert(fault.victim?) {
            return None;
        }
    }
    let message = format!("more than {MOST_FAULTS} fields of this document are wrong");
    mistakes.at(root.referenced, message, "correct these first");
    None
}

#[derive(Clone, Copy)]
pub(super) struct Reader<'n> {
    node: &'n Node,
    text: &'n str,
    left_out: &'n HashSet<*const Node>,
}

impl<'n> Reader<'n> {
    fn of(self, node: &'n Node) -> Self {
        Self { node, ..self }
    }

    fn is_left_out(self, node: &Node) -> bool {
        self.left_out.contains(&std::ptr::from_ref(node))
    }

    fn unexpected(self) -> Unexpected<'n> {
        match &self.node.value {
            Content::Null => Unexpected::Unit,
            Content::Bool(value) => Unexpected::Bool(*value),
            Content::Number(_) => Unexpected::Float(0.0),
            Content::Text(value) => Unexpected::Str(value),
            Content::List(_) => Unexpected::Seq,
            Content::Map(_) => Unexpected::Map,
        }
    }
}

impl<'n> Deserializer<'n> for Reader<'n> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Content::Null => visitor.visit_unit(),
            Content::Bool(value) => visitor.visit_bool(*value),
            Content::Number(value) => {
                let value = value.as_ref();
                match (value.and_then(Number::as_u64), value.and_then(Number::as_i64)) {
                    (Some(value), _) => visitor.visit_u64(value),
                    (_, Some(value)) => visitor.visit_i64(value),
                    _ => visitor.visit_f64(value.and_then(Number::as_f64).unwrap_or(f64::INFINITY)),
                }
            }
            Content::Text(value) => visitor.visit_borrowed_str(value),
            Content::List(items) => visitor.visit_seq(Items {
                reader: self,
                items: items.iter(),
            }),
            Content::Map(entries) => visitor.visit_map(Fields {
                reader: self,
                entries: entries.iter(),
                value: None,
            }),
        }
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match written(self.node, self.text) {
            Some(text) => visitor.visit_str(&text),
            None => Err(Fault::invalid_type(self.unexpected(), &"a string")),
        }
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Content::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    // As in sealer's files, nothing stands for an empty list and for no fields.
    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Content::Null => visitor.visit_seq(Items {
                reader: self,
                items: [].iter(),
            }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Content::Null => visitor.visit_map(Fields {
                reader: self,
                entries: [].iter(),
                value: None,
            }),
            // A derived type would take its fields from a list, too.
            Content::List(_) => Err(Fault::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor).map_err(|mut fault| {
            if let Some(missing) = fault.missing.take() {
                let known = |(key, value): &Entry| key.value == missing && self.is_left_out(value);
                fault.follows = entries(self.node).iter().any(known);
            }
            fault
        })
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match written(self.node, self.text) {
            Some(text) => visitor.visit_enum(text.into_deserializer()),
            None => Err(Fault::invalid_type(self.unexpected(), &"a string")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        match name {
            "__yaml_spanned" => visitor.visit_newtype_struct(Placed(self)),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <W: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier
    }
}

struct Items<'n> {
    reader: Reader<'n>,
    items: Iter<'n, Node>,
}

impl<'n> SeqAccess<'n> for Items<'n> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let reader = self.reader;
        let Some(item) = self.items.find(|item| !reader.is_left_out(item)) else {
            return Ok(None);
        };
        let read = seed.deserialize(reader.of(item));
        read.map(Some).map_err(|fault| fault.at(item.referenced, item))
    }
}

struct Fields<'n> {
    reader: Reader<'n>,
    entries: Iter<'n, Entry>,
    value: Option<&'n Node>,
}

impl<'n> MapAccess<'n> for Fields<'n> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let reader = self.reader;
        let Some((key, value)) = self.entries.find(|(_, value)| !reader.is_left_out(value)) else {
            return Ok(None);
        };
        self.value = Some(value);
        let read = seed.deserialize(key.value.as_str().into_deserializer());
        read.map(Some).map_err(|fault: Fault| fault.at(key.referenced, value))
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let value = self
            .value
            .take()
            .ok_or_else(|| Fault::custom("a value without a field"))?;
        let read = seed.deserialize(self.reader.of(value));
        read.map_err(|fault| fault.at(value.referenced, value))
    }
}

/// A part with its place, in the form that `Spanned` reads.
struct Placed<'n>(Reader<'n>);

impl<'n> Deserializer<'n> for Placed<'n> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let fields = ["__serde_saphyr_private_spanned", "value", "referenced", "defined"];
        visitor.visit_map(PlacedFields {
            reader: self.0,
            fields: fields.into_iter(),
            field: "",
        })
    }

    serde::forward_to_deserialize_any! {
        <W: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct PlacedFields<'n> {
    reader: Reader<'n>,
    fields: std::array::IntoIter<&'static str, 4>,
    field: &'static str,
}

impl<'n> MapAccess<'n> for PlacedFields<'n> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(field) = self.fields.next() else {
            return Ok(None);
        };
        self.field = field;
        seed.deserialize(field.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let place = |place: Location| {
            let numbers = [("line", place.line()), ("column", place.column())];
            MapDeserializer::new(numbers.into_iter())
        };
        match self.field {
            "value" => seed.deserialize(self.reader),
            "referenced" => seed.deserialize(place(self.reader.node.referenced)),
            "defined" => seed.deserialize(place(self.reader.node.defined)),
            _ => seed.deserialize(true.into_deserializer()),
        }
    }
}
