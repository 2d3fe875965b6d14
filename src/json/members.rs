//! A JSON object as a list: its members in order, including repeated keys. Pure.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The members of an object, in their order.
#[derive(Debug)]
pub struct Members<K, V>(pub Vec<(K, V)>);

/// A string that is borrowed if it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<K, V> Default for Members<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Members<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for All<K, V> {
            type Value = Members<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(All(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_their_order_and_as_often_as_they_stand() {
        let Members(found) =
            serde_json::from_str::<Members<Text<'_>, u8>>(r#"{"b":1,"\u0061":2,"b":3}"#).unwrap();
        let found: Vec<_> = found.iter().map(|(Text(key), value)| (&**key, *value)).collect();
        assert_eq!(found, [("b", 1), ("a", 2), ("b", 3)]);
        assert!(serde_json::from_str::<Members<Text<'_>, u8>>("[]").is_err());
    }
}
