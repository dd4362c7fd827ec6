//! The schema says what the types say. A type is asked for its fields by reading it from a probe, which gives it whatever
//! it wants and notes what that was.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess as _, Visitor,
};
use serde_json::Value;

use super::super::k3s::K3sSpec;
use super::super::{ApplicationSpec, ClusterSpec, ConfigSpec, Named, PluginSpec};
use super::schema;

/// What a type wants.
#[derive(Debug, Default, PartialEq)]
enum Shape {
    #[default]
    Anything,
    Text,
    Bool,
    Choice(Vec<&'static str>),
    List(Box<Shape>),
    Map(Box<Shape>),
    Fields(BTreeMap<&'static str, Shape>),
}

fn shape_of<T: DeserializeOwned>() -> Shape {
    let shape = RefCell::default();
    T::deserialize(Probe(&shape)).unwrap();
    shape.into_inner()
}

struct Probe<'s>(&'s RefCell<Shape>);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.replace(Shape::Bool);
        visitor.visit_bool(true)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.replace(Shape::Text);
        visitor.visit_str("x")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(Spanning(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let item = RefCell::default();
        let read = visitor.visit_seq(Once(Some(&item)))?;
        self.0.replace(Shape::List(item.into_inner().into()));
        Ok(read)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = RefCell::default();
        let read = visitor.visit_map(Once(Some(&value)))?;
        self.0.replace(Shape::Map(value.into_inner().into()));
        Ok(read)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let fields: Vec<_> = names.iter().map(|name| (*name, RefCell::default())).collect();
        let read = visitor.visit_map(Each(fields.iter(), None))?;
        let fields = fields.into_iter().map(|(name, shape)| (name, shape.into_inner()));
        self.0.replace(Shape::Fields(fields.collect()));
        Ok(read)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.replace(Shape::Choice(names.to_vec()));
        visitor.visit_enum(Variant(names[0]))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// What is inside of `Spanned`, which wants to know nothing of a probe's places.
struct Spanning<'s>(Probe<'s>);

impl<'de> Deserializer<'de> for Spanning<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Placed(self.0, 0))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Placed<'s>(Probe<'s>, usize);

impl<'de> MapAccess<'de> for Placed<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let fields = ["__serde_saphyr_private_spanned", "value", "referenced", "defined"];
        let Some(field) = fields.get(self.1) else {
            return Ok(None);
        };
        self.1 += 1;
        let key: StrDeserializer<'_, Error> = field.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let numbers = [("line", 1_u64), ("column", 1)].into_iter();
        match self.1 {
            1 => seed.deserialize(true.into_deserializer()),
            2 => seed.deserialize(Probe(self.0.0)),
            _ => seed.deserialize(serde::de::value::MapDeserializer::new(numbers)),
        }
    }
}

/// One item of a list, or one entry of a map.
struct Once<'s>(Option<&'s RefCell<Shape>>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|shape| seed.deserialize(Probe(shape))).transpose()
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let key: StrDeserializer<'_, Error> = "x".into_deserializer();
        self.0.map(|_| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Probe(self.0.take().unwrap()))
    }
}

/// All fields of a type.
struct Each<'s>(
    std::slice::Iter<'s, (&'static str, RefCell<Shape>)>,
    Option<&'s RefCell<Shape>>,
);

impl<'de> MapAccess<'de> for Each<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, shape)) = self.0.next() else {
            return Ok(None);
        };
        self.1 = Some(shape);
        let key: StrDeserializer<'_, Error> = name.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Probe(self.1.take().unwrap()))
    }
}

struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = <StrDeserializer<'static, Error> as EnumAccess<'static>>::Variant;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Error> {
        let name: StrDeserializer<'_, Error> = self.0.into_deserializer();
        let (value, rest) = name.variant_seed(seed)?;
        rest.unit_variant()?;
        let name: StrDeserializer<'static, Error> = self.0.into_deserializer();
        let (_, rest) = name.variant_seed(std::marker::PhantomData::<String>)?;
        Ok((value, rest))
    }
}

/// Compares a type with its part of the schema.
fn compare(shape: &Shape, part: &Value, all: &Value, place: &str) {
    if let Some(reference) = part["$ref"].as_str() {
        let part = all.pointer(reference.trim_start_matches('#'));
        return compare(shape, part.unwrap_or_else(|| panic!("{reference}")), all, place);
    }
    if part["description"] == "Ignored." {
        return;
    }
    let takes = |word: &str| match &part["type"] {
        Value::Array(words) => words.iter().any(|known| known == word),
        known => known == word,
    };
    match shape {
        Shape::Anything => assert!(part.get("properties").is_none(), "{place}"),
        Shape::Text => assert!(takes("string") || part["enum"].is_array(), "{place}: {part}"),
        Shape::Bool => assert!(takes("boolean"), "{place}: {part}"),
        Shape::Choice(names) => assert_eq!(part["enum"], serde_json::json!(names), "{place}"),
        Shape::List(item) => {
            assert!(takes("array"), "{place}: {part}");
            compare(item, &part["items"], all, place);
        }
        Shape::Map(value) => {
            assert!(takes("object"), "{place}: {part}");
            // The settings of k3s are known by name.
            if part["patternProperties"].is_null() && !part["additionalProperties"].is_null() {
                compare(value, &part["additionalProperties"], all, place);
            }
        }
        Shape::Fields(fields) => {
            assert!(takes("object"), "{place}: {part}");
            assert_eq!(part["additionalProperties"], false, "{place}");
            let empty = serde_json::Map::new();
            let properties = part["properties"].as_object().unwrap_or(&empty);
            let names: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            assert_eq!(names, fields.keys().copied().collect(), "{place}");
            for (name, shape) in fields {
                compare(shape, &properties[*name], all, &format!("{place}.{name}"));
            }
        }
    }
}

#[test]
fn says_what_the_types_say() {
    let schema = schema();
    for (kind, shape) in [
        ("Cluster", shape_of::<Named<ClusterSpec>>()),
        ("Config", shape_of::<Named<ConfigSpec>>()),
        ("Plugin", shape_of::<Named<PluginSpec>>()),
        ("Application", shape_of::<Named<ApplicationSpec>>()),
        ("K3sConfig", shape_of::<Named<K3sSpec>>()),
    ] {
        compare(&shape, &schema["definitions"][kind], &schema, kind);
    }
    let Shape::Fields(fields) = shape_of::<ClusterSpec>() else {
        panic!("it has fields")
    };
    assert!(
        matches!(&fields["hosts"], Shape::List(host) if matches!(&**host, Shape::Fields(fields) if fields["ips"] == Shape::List(Shape::Text.into())))
    );
    for (role, setting) in [("server", "cluster-init"), ("agent", "kubelet-arg")] {
        let settings = &schema["definitions"]["K3sSpec"]["properties"][role]["properties"];
        assert!(settings[setting].is_object() && settings["token"].is_null(), "{role}");
    }
}

#[test]
fn is_the_published_one() {
    let published = include_str!("../../../../docs/clusterfile.schema.json");
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert!(
        published == current,
        "write it again: sealrs lint --schema >docs/clusterfile.schema.json"
    );
}

/// Each field of the schema is in the documentation's tables.
#[test]
fn every_field_is_documented() {
    let page = include_str!("../../../../docs/clusterfile.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let code = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let words: BTreeSet<&str> = code
        .flat_map(|code| code.split(|letter: char| !letter.is_alphanumeric() && letter != '_'))
        .collect();
    let schema = schema();
    for (kind, definition) in schema["definitions"].as_object().unwrap() {
        let mut waiting = vec![definition];
        while let Some(part) = waiting.pop() {
            // The settings of k3s are k3s's to document.
            let fields = part["properties"]
                .as_object()
                .filter(|_| part["patternProperties"].is_null());
            for (name, field) in fields.into_iter().flatten() {
                let elsewhere = kind == "K3sSpec" || kind == "ExternalRegistry";
                assert!(words.contains(name.as_str()) || elsewhere, "{kind}: {name}");
                waiting.push(field);
            }
            waiting.extend(part.get("items"));
        }
    }
}
