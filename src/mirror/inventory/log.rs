//! The open inventory of a collection, and the records that are written to it.

use std::collections::HashSet;
use std::fs::File;
use std::sync::{Mutex, OnceLock};

/// The inventory of one collection, opened when it is first needed.
#[derive(Debug, Default)]
pub(in crate::mirror) struct Writer {
    pub(super) log: Mutex<Option<Log>>,
    /// Whether it lists every document of the tree, once that is known.
    pub(super) complete: OnceLock<bool>,
}

#[derive(Debug)]
pub(super) struct Log {
    pub file: File,
    pub size: u64,
    /// Roughly how many of its bytes are obsolete.
    pub stale: u64,
    /// The folders of records that no mark has settled.
    pub pending: HashSet<String>,
    /// The folders that an interrupted run may have published without emitting their events.
    pub silent: HashSet<String>,
    /// The token of its last line, if that closes a run.
    pub closed: Option<String>,
    /// Whether the file is new.
    pub created: bool,
    /// Whether it lists every document of the tree.
    pub complete: bool,
}

/// A record that is about to be written.
#[derive(Clone, Copy, Debug)]
pub(in crate::mirror) struct NewRecord<'a> {
    /// The name of the folder.
    pub name: &'a str,
    /// The line.
    pub line: &'a str,
    /// Whether it makes an earlier record of the folder obsolete.
    pub replaces: bool,
}

impl Log {
    /// Whether more than this many of its bytes, and half of it, are obsolete.
    pub fn is_stale(&self, limit: u64) -> bool {
        self.stale > limit && self.stale > self.size / 2
    }
}
