//! One way to look into raw JSON: members in their order, byte ranges, the text of a string. Pure.

pub mod members;
pub(crate) mod pretty;
pub(crate) mod scan;

pub use members::{Members, Text};
