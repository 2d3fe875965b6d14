//! Puts a mirror back: reads the tree, compares it with a target, writes what the target lacks.
//!
//! [`plan`] decides what is done with a document, [`apply`](Restore) does it, batch by batch, so
//! that memory stays flat. A target is anything that keeps the trait [`Target`]: a server
//! ([`CouchTarget`]) or a feed in a file ([`FeedTarget`]). It must not know sources, nor
//! checkpoints: everything it puts back stands in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use std::path::PathBuf;

use jiff::civil::Date;
use serde::Serialize;

use crate::document::{CollectionName, DocumentId, Pattern, Selection};
use crate::mirror::MirrorError;

mod apply;
mod body;
mod control;
mod couchdb;
mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
pub mod plan;
mod read;
mod target;
mod vouch;

pub use apply::Restore;
pub use control::{Control, Progress};
pub use couchdb::CouchTarget;
pub use feed::FeedTarget;
pub use target::{Item, Standing, Target, TargetError, Writing};

/// The most failures that are kept with their reasons; the others are counted.
const MAX_NAMED: usize = 1_000;

/// What is put back, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which collections.
    pub collections: Selection,
    /// Which documents, by id; `None` is all.
    pub ids: Option<Pattern>,
    /// Take it for success when a pattern matches nothing.
    pub allow_empty: bool,
    /// Other names for collections at the target, by their names in the mirror.
    pub renamed: BTreeMap<CollectionName, CollectionName>,
    /// The one name at the target, where exactly one collection is to be put back.
    pub only_as: Option<CollectionName>,
    /// What becomes of documents that the target holds in another revision.
    pub on_existing: OnExisting,
    /// Restores only documents that were deleted at the source, from what the mirror still has of
    /// them.
    pub undelete: Option<Undelete>,
    /// Writes replication documents into a `_replicator` too, which starts these replications.
    pub with_replications: bool,
    /// Only says what would be done.
    pub dry_run: bool,
    /// Files without a checksum are restored as they are.
    pub accept_unchecked: bool,
}

/// Which deleted documents are brought back.
#[derive(Clone, Debug, Default)]
pub struct Undelete {
    /// Those whose deletion is held back, by collection: they are still in the tree.
    pub held: BTreeMap<CollectionName, BTreeSet<DocumentId>>,
    /// From the trash those that came there on this day or later; `None` is all.
    pub since: Option<Date>,
}

/// What becomes of what a target holds already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExisting {
    /// Nothing is written if the target holds anything that the mirror does not hold just so.
    #[default]
    Refuse,
    /// Ids that are there stay as they are.
    Skip,
    /// Ours wins.
    Overwrite,
    /// Only documents that are deleted there are written.
    Undelete,
}

/// How a collection was put back, or would be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its name in the mirror.
    pub collection: String,
    /// Its name at the target.
    #[serde(rename = "as")]
    pub renamed: String,
    /// What was done with its documents, or would be.
    #[serde(flatten)]
    pub counts: Counts,
    /// Whether the collection's security object goes with it.
    pub security: bool,
    /// Whether the target's security object differs from the mirror's and was left as it is.
    pub security_kept: bool,
    /// Documents that failed, and files that belong to none.
    pub problems: u64,
}

/// What was done with documents, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Documents that the target does not have.
    pub create: u64,
    /// Documents of which the target has another revision that ours takes the place of.
    pub replace: u64,
    /// Documents that the target has, and that stay.
    pub skip: u64,
    /// Documents that are deleted at the target, and stay so.
    pub deleted_there: u64,
    /// Tombstones of deleted documents.
    pub tombstones: u64,
    /// Branches that lost a conflict.
    pub conflicts: u64,
    /// Branches for which the target has no place.
    pub left_out: u64,
    /// Documents that would have started a replication, and were left out.
    pub replications: u64,
    /// Bytes of bodies and attachments in all that is written.
    pub bytes: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self { create, replace, skip, deleted_there, tombstones, .. } = other;
        let Self { conflicts, left_out, replications, bytes, .. } = other;
        self.create += create;
        self.replace += replace;
        self.skip += skip;
        self.deleted_there += deleted_there;
        self.replications += replications;
        self.tombstones += tombstones;
        self.conflicts += conflicts;
        self.left_out += left_out;
        self.bytes += bytes;
    }
}

/// Something that could not be put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The document's folder or the file, relative to the mirror.
    pub path: String,
    /// Why not: the server's reason, or what is wrong with the file.
    pub reason: String,
}

/// How a restore ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Per collection.
    pub collections: Vec<Report>,
    /// The first failures; `failed` counts all.
    pub failures: Vec<Failure>,
    /// How many failures there were.
    pub failed: u64,
    /// Whether nothing was written on purpose.
    pub dry_run: bool,
    /// Whether it was told to stop before it had come to its end.
    pub interrupted: bool,
}

impl Report {
    fn is_empty(&self) -> bool {
        // Bytes come with documents.
        Counts { bytes: 0, ..self.counts } == Counts::default()
    }
}

impl Outcome {
    /// Whether nothing was to be restored: no document was selected, and nothing failed.
    pub fn is_empty(&self) -> bool {
        self.failed == 0 && !self.interrupted && self.collections.iter().all(Report::is_empty)
    }

    fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        if self.failures.len() < MAX_NAMED {
            self.failures.push(failure);
        }
    }
}

/// What ends a restore before its end.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The mirror cannot be read.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The target failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The target holds something else.
    #[error(
        "{target} already holds {what}, which differs from the mirror: nothing was written. Give \
         --on-existing skip to keep such documents, or --on-existing overwrite to replace them"
    )]
    NotEmpty {
        /// The collection at the target.
        target: String,
        /// One example.
        what: String,
    },
    /// The target's security object differs from the mirror's.
    #[error(
        "{target} has a security object that differs from the mirror's: nothing was written. Give \
         --on-existing skip to keep the target's, or --on-existing overwrite to write the mirror's"
    )]
    OtherSecurity {
        /// The collection at the target.
        target: String,
    },
    /// The file of a feed exists.
    #[error("{} exists and is not empty: give --on-existing overwrite to replace it", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// No collection, or too many of them, were selected.
    #[error("{0}")]
    Selection(String),
    /// A task of ours ended by itself.
    #[error("a task of the restore ended unexpectedly: {0}; please report this")]
    Task(String),
}
