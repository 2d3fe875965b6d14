//! The contract of sources, kept by a scripted fake, a recorded feed in a file and in a pipe, and a fake of
//! CouchDB. `tests/it/sources.rs` runs the same suite against pouchdb-server.

use crate::{document, source};

mod couchdb;
mod feed;
mod scripted;
#[macro_use]
mod suite;

pub(crate) use suite::assert_has_what_it_says;

suite! {
    told: super::scripted::Told;
    feed_in_a_file: super::feed::InFile;
    feed_in_a_pipe: super::feed::InPipe;
    a_server: super::couchdb::Couch;
}
