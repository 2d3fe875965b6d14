//! The members of a JSON object, read one by one: in their order, and as often as they stand. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What is read of an object. Only what [`Self::member`] asks for is built.
pub trait Object<'de>: Default {
    /// How a key is read: [`Key`] accepts every key that JSON has.
    type Key: Deserialize<'de>;

    /// Reads a member, whose value must be taken from `map`.
    fn member<A: MapAccess<'de>>(&mut self, key: Self::Key, map: &mut A) -> Result<(), A::Error>;

    /// Whether the rest need not be read.
    fn is_done(&self) -> bool {
        false
    }
}

/// Reads an object; for the `Deserialize` of a type.
pub fn object<'de, T: Object<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let mut object = T::default();
    from.deserialize_map(Reading(&mut object))?;
    Ok(object)
}

/// Reads an object, and nothing else, from a text.
pub fn read<'de, T: Object<'de>>(text: &'de [u8]) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let object = object(&mut json)?;
    json.end()?;
    Ok(object)
}

/// Reads as much of an object as there is before an error.
pub fn begin<'de, T: Object<'de>>(mut object: T, text: &'de [u8]) -> T {
    // To stop early is an error to serde; what was read by then is in `object`.
    let _ = serde_json::Deserializer::from_slice(text).deserialize_map(Reading(&mut object));
    object
}

struct Reading<'o, T>(&'o mut T);

impl<'de, T: Object<'de>> Visitor<'de> for Reading<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while !self.0.is_done()
            && let Some(key) = map.next_key()?
        {
            self.0.member(key, &mut map)?;
        }
        Ok(())
    }
}

/// The members of an object, in their order.
#[derive(Debug)]
pub struct Members<K, V>(pub Vec<(K, V)>);

impl<K, V> Default for Members<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Object<'de> for Members<K, V> {
    type Key = K;

    fn member<A: MapAccess<'de>>(&mut self, key: K, map: &mut A) -> Result<(), A::Error> {
        self.0.push((key, map.next_value()?));
        Ok(())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Members<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer)
    }
}

/// A string that is borrowed if it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A member's key, borrowed if it has no escapes.
///
/// JSON allows keys that are not valid Unicode: half a surrogate pair, `"\ud800"`. The invalid part
/// is replaced, so that such a key neither matches one of ours nor causes an error.
#[derive(Debug)]
pub struct Key<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Key(String::from_utf8_lossy(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Key(String::from_utf8_lossy(bytes).into_owned().into()))
            }
        }

        // serde_json refuses half a pair in a string, but not in bytes.
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;
    use serde_json::error::Category;

    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct UpToB(Vec<String>);

    impl<'de> Object<'de> for UpToB {
        type Key = Key<'de>;

        fn member<A: MapAccess<'de>>(
            &mut self,
            key: Key<'de>,
            map: &mut A,
        ) -> Result<(), A::Error> {
            self.0.push(key.0.into_owned());
            map.next_value::<IgnoredAny>().map(drop)
        }

        fn is_done(&self) -> bool {
            self.0.last().is_some_and(|key| key == "b")
        }
    }

    #[test]
    fn what_was_read_before_an_error_or_an_early_end_is_kept() {
        let keys = |text: &'static str| begin(UpToB::default(), text.as_bytes()).0;
        assert_eq!(keys(r#"{"a":1,"\u0062":[],"c":nonsense"#), ["a", "b"]);
        assert_eq!(keys(r#"{"a":1,"x":nonsense"#), ["a", "x"]);
        assert!(keys("[]").is_empty());
    }

    #[test]
    fn an_object_is_read_with_any_key_and_any_depth_and_nothing_after_it() {
        let deep = format!(r#"{{"\ud800":{}{},"b":1}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(read::<UpToB>(br#"{"a":1} x"#).unwrap_err().classify(), Category::Syntax);
        assert!(read::<UpToB>(br#"{"a":1"#).unwrap_err().is_eof());
        let Members(found) = read::<Members<Key<'_>, IgnoredAny>>(deep.as_bytes()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].0.0, "b");
    }

    #[test]
    fn members_come_in_their_order_and_as_often_as_they_stand() {
        let Members(found) =
            serde_json::from_str::<Members<Text<'_>, u8>>(r#"{"b":1,"\u0061":2,"b":3}"#).unwrap();
        let found: Vec<_> = found.iter().map(|(Text(key), value)| (&**key, *value)).collect();
        assert_eq!(found, [("b", 1), ("a", 2), ("b", 3)]);
        assert!(serde_json::from_str::<Members<Text<'_>, u8>>("[]").is_err());
    }
}
