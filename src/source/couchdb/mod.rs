//! A server speaking the CouchDB protocol as a store, and each of its databases as a source.
//!
//! `store` is the server, and `collection` one database. `feed` reads a database's changes; `lookup`,
//! `attachments` and `branches` answer requests beside it; `listing` and `news` say which databases there
//! are, and which have changed.

mod attachments;
mod bound;
mod branches;
mod collection;
mod error;
mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod listing;
mod lookup;
mod news;
mod options;
mod origin;
mod reader;
mod row;
mod store;

pub use self::options::{CouchOptions, Databases, Timings};
pub use self::store::CouchStore;

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
