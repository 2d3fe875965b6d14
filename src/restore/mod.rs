//! Restores a mirror: reads the tree, compares it with a target, writes what the target lacks.
//!
//! [`plan`] decides what to do with a document, [`apply`](Restore) does it, batch by batch, so that
//! memory use stays constant. A target is any implementation of [`Target`]: a server
//! ([`CouchTarget`]) or a feed in a file ([`FeedTarget`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use std::path::PathBuf;

use jiff::civil::Date;
use serde::Serialize;

use crate::document::{CollectionName, DocumentId, Pattern, Selection};
use crate::tree::MirrorError;

mod apply;
mod blocking;
pub mod body;
#[cfg(test)]
mod conformance;
mod control;
mod couchdb;
mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
pub mod plan;
mod read;
mod selection;
mod target;
mod vouch;

pub use apply::Restore;
pub use control::{Control, RestoreProgress};
pub use couchdb::CouchTarget;
pub use feed::FeedTarget;
pub use target::{Cause, Files, Form, Item, Refused, Standing, Target, TargetError, Writing};

/// The number of failures that are kept with their reasons; the others are only counted.
const MAX_NAMED: usize = 1_000;

/// The options of a restore.
#[derive(Clone, Debug)]
pub struct Options {
    /// The selected collections.
    pub collections: Selection,
    /// The selected documents, by id; `None` is all.
    pub ids: Option<Pattern>,
    /// Treat it as success if a pattern matches nothing.
    pub allow_empty: bool,
    /// Other names for collections at the target, by their names in the mirror.
    pub renamed: BTreeMap<CollectionName, CollectionName>,
    /// The name at the target, if exactly one collection is restored.
    pub only_as: Option<CollectionName>,
    /// The treatment of documents that the target holds in another revision.
    pub on_existing: OnExisting,
    /// Restores only documents that were deleted at the source, if the mirror still has them.
    pub undelete: Option<Undelete>,
    /// Writes replication documents into a `_replicator` too, which starts these replications.
    pub with_replications: bool,
    /// Only reports what would be done.
    pub dry_run: bool,
    /// Restores files without a checksum as they are.
    pub accept_unchecked: bool,
}

/// The deleted documents to restore.
#[derive(Clone, Debug, Default)]
pub struct Undelete {
    /// Documents whose deletion is held back, by collection: they are still in the tree.
    pub held: BTreeMap<CollectionName, BTreeSet<DocumentId>>,
    /// The first day of the trash whose documents are restored; `None` is all.
    pub since: Option<Date>,
}

/// The treatment of documents that a target already holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExisting {
    /// Write nothing if the target holds anything that differs from the mirror.
    #[default]
    Refuse,
    /// Keep documents at the target.
    Skip,
    /// The mirror's version wins.
    Overwrite,
    /// Write only documents that are deleted at the target.
    Undelete,
}

/// The result of a collection, or of its dry run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its name in the mirror.
    pub collection: String,
    /// Its name at the target.
    #[serde(rename = "as")]
    pub renamed: String,
    /// The documents by outcome.
    #[serde(flatten)]
    pub counts: Counts,
    /// Whether the collection's security object is written.
    pub security: bool,
    /// Whether the target's security object differs from the mirror's and was kept.
    pub security_kept: bool,
    /// Failed documents, and files that belong to no document.
    pub problems: u64,
    /// Whether the target did not take the collection, so that no document was written.
    #[serde(skip)]
    pub refused: bool,
}

/// Documents by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Documents that the target does not have.
    pub create: u64,
    /// Documents that replaced another revision at the target.
    pub replace: u64,
    /// Documents that the target has and keeps.
    pub skip: u64,
    /// Documents that are deleted at the target, and stay deleted.
    pub deleted_there: u64,
    /// Tombstones of deleted documents.
    pub tombstones: u64,
    /// Branches that lost a conflict.
    pub conflicts: u64,
    /// Branches that the target has no place for.
    pub left_out: u64,
    /// Documents that would have started a replication, and were skipped.
    pub replications: u64,
    /// Bytes of all written bodies and attachments.
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

/// A failed document or file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestoreFailure {
    /// The document's folder or the file, relative to the mirror.
    pub path: String,
    /// The server's reason, or what is wrong with the file.
    pub reason: String,
}

/// The outcome of a restore.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// By collection.
    pub collections: Vec<Report>,
    /// The first failures; `failed` counts all.
    pub failures: Vec<RestoreFailure>,
    /// The number of failures.
    pub failed: u64,
    /// Whether nothing was written because of a dry run.
    pub dry_run: bool,
    /// Whether it was stopped early.
    pub interrupted: bool,
}

impl Report {
    fn is_empty(&self) -> bool {
        // Bytes are not outcomes of documents.
        Counts { bytes: 0, ..self.counts } == Counts::default()
    }
}

impl Outcome {
    /// Whether nothing was to be restored: no document was selected, and nothing failed.
    pub fn is_empty(&self) -> bool {
        self.failed == 0 && !self.interrupted && self.collections.iter().all(Report::is_empty)
    }

    fn fail(&mut self, failure: RestoreFailure) {
        self.failed += 1;
        if self.failures.len() < MAX_NAMED {
            self.failures.push(failure);
        }
    }
}

/// An error that ends a restore early.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The mirror cannot be read.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The target failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The target holds other documents.
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
    /// An internal error.
    #[error("a task of the restore ended unexpectedly: {0}; please report this")]
    Task(String),
}
