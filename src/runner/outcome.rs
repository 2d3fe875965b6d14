//! How a session has ended.

use std::time::Duration;

use super::absent::Absent;
use crate::checkpoint::Failure;
use crate::document::CollectionName;
use crate::pipeline::{Phase, PipelineError, PipelineReport};
use crate::source::SourceError;
use crate::tree::MirrorError;

/// Why a collection, or the whole session, ended early.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The collections could not be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The mirror cannot be used.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// A collection's pipeline ended.
    #[error("{collection}: {error}")]
    Collection {
        /// The collection.
        collection: CollectionName,
        /// The error.
        error: PipelineError,
    },
}

/// The outcome of a session.
#[derive(Debug)]
pub struct Outcome {
    /// The reports, one per collection.
    pub reports: Vec<PipelineReport>,
    /// The documents that could not be mirrored, remembered from any run.
    pub failures: Vec<(CollectionName, Failure)>,
    /// Collections that were requested or followed before, and are missing; only in a mirror that
    /// does not follow.
    pub absent: Vec<Absent>,
    /// The errors that ended collections, or everything, early.
    pub errors: Vec<SessionError>,
    /// Whether everything had caught up at least once.
    pub caught_up: bool,
    /// The duration.
    pub took: Duration,
}

impl Outcome {
    /// Whether the mirror holds everything that the source holds and everything that was requested.
    pub fn is_complete(&self) -> bool {
        let Self { failures, absent, errors, .. } = self;
        let lacks_nothing =
            failures.is_empty() && self.in_flight() == 0 && absent.is_empty() && errors.is_empty();
        let secured = self.unsecured().next().is_none();
        let counted = self.miscounted() == 0;
        lacks_nothing && secured && counted && self.held_back() == 0 && self.behind() == 0
    }

    /// The collections whose security object could not be mirrored, each with the reason.
    pub fn unsecured(&self) -> impl Iterator<Item = (&CollectionName, &str)> {
        let trouble = |report: &PipelineReport| report.security_trouble.is_some();
        let unsecured = self.reports.iter().filter(move |report| trouble(report));
        unsecured.filter_map(|one| Some((&one.collection, one.security_trouble.as_deref()?)))
    }

    /// The number of collections in which the source counts more or fewer documents than the mirror
    /// holds.
    pub fn miscounted(&self) -> usize {
        self.reports.iter().filter(|report| report.count_trouble.is_some()).count()
    }

    /// The number of collections that had caught up and are now behind their source.
    pub fn behind(&self) -> usize {
        let at_end = [Phase::Live, Phase::CaughtUp, Phase::Vanished];
        self.reports.iter().filter(|report| !at_end.contains(&report.phase)).count()
    }

    /// The number of documents that have not been fetched yet, because the run was told to end.
    pub fn in_flight(&self) -> u64 {
        self.reports.iter().map(|report| report.in_flight).sum()
    }

    /// The number of deletions that the brake holds back, from any run.
    pub fn held_back(&self) -> u64 {
        self.reports.iter().map(|report| report.held_back).sum()
    }
}
