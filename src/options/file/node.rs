//! A value of a file, whatever its format.

use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_core::ser::{Serialize, SerializeMap as _, Serializer};
use zeroize::Zeroizing;

use crate::options::OptionsError;

/// What `serde_json` calls the only key of a number, where somebody in the program has switched on its `arbitrary_precision`.
const JSON_NUMBER: &str = "$serde_json::private::Number";

/// A value as it stands in the file, of whatever type.
///
/// Not `Debug`: it may hold a password.
#[derive(Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Flag(bool),
    Integer(i128),
    Float(f64),
    Text(Zeroizing<String>),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
}

impl Node {
    pub(super) fn from_text(text: impl Into<String>) -> Self {
        Self::Text(Zeroizing::new(text.into()))
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// For an error about a setting that holds no secret.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) if text.chars().count() > 60 => "a long text".to_owned(),
            Self::Text(text) => format!("{:?}", text.as_str()),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// Refuses a key of `entries` that is not among `names`, or is there twice.
pub(super) fn check_keys(entries: &[(String, Node)], names: &[&str]) -> Result<(), OptionsError> {
    for (index, (key, _)) in entries.iter().enumerate() {
        if !names.contains(&key.as_str()) {
            return Err(unknown(key, names));
        }
        if entries[..index].iter().any(|(other, _)| other == key) {
            return Err(twice(key));
        }
    }
    Ok(())
}

pub(super) fn unknown(key: &str, names: &[&str]) -> OptionsError {
    OptionsError::new(shown_key(key), "unknown", format!("the keys are {}", names.join(", ")))
}

pub(super) fn twice(key: &str) -> OptionsError {
    OptionsError::new(shown_key(key), "given twice", "must be given once")
}

/// A key as an error may show it: in the wrong place of a JSON or YAML file, a URL with its password is a key.
pub(super) fn shown_key(key: &str) -> String {
    if key.contains('@') { "(not shown)".to_owned() } else { key.escape_debug().to_string() }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Integer(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Node, E> {
        Ok(Node::Integer(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Node, E> {
        // Beyond every setting either way.
        Ok(Node::Integer(i128::try_from(number).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::from_text(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::from_text(text))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut table = Vec::new();
        while let Some(Key(key)) = entries.next_key()? {
            table.push((key, entries.next_value()?));
        }
        Ok(match table.as_slice() {
            [(key, Node::Text(digits))] if key == JSON_NUMBER => digits
                .parse()
                .map(Node::Integer)
                .or_else(|_| digits.parse().map(Node::Float))
                .unwrap_or_else(|_| Node::Text(digits.clone())),
            _ => Node::Table(table),
        })
    }
}

/// A key. One that is no text is known by what it looks like, so that it is refused as unknown and not with an error of the reader's.
pub(super) struct Key(pub(super) String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(deserializer)?;
        Ok(Self(node.text().map_or_else(|| node.shown(), str::to_owned)))
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            // Not every format has numbers of 128 bits.
            Self::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => serializer.serialize_i64(number),
                (_, Ok(number)) => serializer.serialize_u64(number),
                _ => serializer.serialize_i128(*number),
            },
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list),
            Self::Table(table) => {
                let mut map = serializer.serialize_map(Some(table.len()))?;
                for (key, value) in table {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_core::de::value::{Error, MapDeserializer, U128Deserializer};

    use super::*;

    #[test]
    fn a_number_of_arbitrary_precision_is_a_number() {
        for (digits, expected) in
            [("8", Node::Integer(8)), ("-1", Node::Integer(-1)), ("0.25", Node::Float(0.25)), ("1e3", Node::Float(1e3))]
        {
            let number = MapDeserializer::<_, Error>::new([(JSON_NUMBER, digits)].into_iter());
            assert!(Node::deserialize(number).unwrap() == expected, "{digits}");
        }
    }

    #[test]
    fn a_number_of_any_size_is_read() {
        for (number, expected) in [(u128::from(u64::MAX), i128::from(u64::MAX)), (u128::MAX, i128::MAX)] {
            let number = U128Deserializer::<Error>::new(number);
            assert!(Node::deserialize(number).unwrap() == Node::Integer(expected));
        }
    }
}
