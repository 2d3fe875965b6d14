//! The contract of targets, kept by databases in memory, a feed in a file and in a pipe, and a fake of
//! CouchDB. `tests/it/targets.rs` runs the same suite against pouchdb-server.

use crate::{document, restore};

mod feed;
mod memory;
mod server;
mod store;
#[macro_use]
mod suite;

suite! {
    in_memory: super::memory::Memory;
    feed_in_a_file: super::feed::InFile;
    feed_in_a_pipe: super::feed::InPipe;
    a_server: super::server::Couch;
}
