//! One way to look into raw JSON: members in their order, byte ranges, the text of a string. Pure.

pub(crate) mod cursor;
pub mod members;
pub(crate) mod pretty;

pub use members::{Key, Members, Object, Text, begin, object, read};
