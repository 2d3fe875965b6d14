//! What the supervisor of a session, its runs and its observers share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::absent::Absent;
use super::order::Order;
use super::outcome::{Outcome, SessionError};
use super::subscription::Pages;
use crate::checkpoint::{Checkpoints, Failure};
use crate::document::CollectionName;
use crate::event::Broadcast;
use crate::mirror::Mirror;
use crate::pipeline::{Brake, Phase, Pipeline, Report, Reporter};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) mirror: Arc<Mirror>,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) events: Broadcast,
    pub(super) pages: Arc<Pages>,
    pub(super) source: String,
    pub(super) started_at: Timestamp,
    pub(super) collections: Mutex<BTreeMap<CollectionName, Member>>,
    /// Collections that the source does not have; only recorded if the mirror does not follow.
    pub(super) absent: Mutex<Vec<Absent>>,
    /// Whether the source has listed all its collections.
    pub(super) listed: AtomicBool,
    pub(super) progress: watch::Sender<Progress>,
    /// Receives what the supervisor is to do.
    pub(super) orders: mpsc::UnboundedSender<Order>,
    /// Cancelled when no more events will be emitted.
    pub(super) ended: CancellationToken,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) reporter: Reporter,
    /// Its pipeline, while it runs.
    pub(super) pipeline: Option<Pipeline>,
    /// The brake of its runs.
    pub(super) brake: Option<Arc<Brake>>,
    /// Whether it waits, and nothing that this process does helps it.
    pub(super) is_hopeless: bool,
}

impl Member {
    /// A collection that has not run.
    pub(super) fn new(reporter: Reporter) -> Self {
        Self { reporter, pipeline: None, brake: None, is_hopeless: false }
    }

    /// Whether the collection is caught up with its source, or its source has vanished.
    pub(super) fn has_caught_up(&self) -> bool {
        let report = self.reporter.report();
        report.caught_up || report.phase == Phase::Vanished
    }

    /// Whether a service does not have to wait for the collection before it is ready.
    pub(super) fn is_done(&self) -> bool {
        self.is_hopeless || self.has_caught_up()
    }
}

/// The phase of the whole session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) listed: bool,
    /// Whether everything has caught up that can.
    pub(super) ready: bool,
    pub(super) caught_up: bool,
    pub(super) ended: bool,
}

impl Shared {
    pub(super) fn members(&self) -> MutexGuard<'_, BTreeMap<CollectionName, Member>> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn absent(&self) -> MutexGuard<'_, Vec<Absent>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    pub(super) fn reports(&self) -> Vec<Report> {
        self.members().values().map(|member| member.reporter.report()).collect()
    }

    pub(super) fn pipelines(&self) -> Vec<Pipeline> {
        self.members().values().filter_map(|member| member.pipeline.clone()).collect()
    }

    pub(super) fn failures(&self) -> Vec<(CollectionName, Failure)> {
        let members = self.members();
        let with_name = members.iter().flat_map(|(name, member)| {
            self.failures_of(name, member).into_iter().map(|failure| (name.clone(), failure))
        });
        with_name.collect()
    }

    /// The documents of a collection that could not be mirrored: as its run knows them, or as the state
    /// remembers them.
    pub(super) fn failures_of(&self, name: &CollectionName, member: &Member) -> Vec<Failure> {
        if let Some(pipeline) = &member.pipeline {
            return pipeline.failures();
        }
        let mut failures = self.checkpoints.failures(name).unwrap_or_default();
        failures.retain(|failure| !failure.is_in_flight());
        failures
    }

    /// Notices when the last collection has caught up.
    pub(super) fn note_progress(&self) {
        let listed = self.is_listed();
        let ready = listed && self.members().values().all(Member::is_done);
        let caught_up = ready && self.members().values().all(Member::has_caught_up);
        self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.listed |= listed;
            progress.ready |= ready;
            progress.caught_up |= caught_up;
            *progress != before
        });
    }

    pub(super) fn outcome(&self, errors: Vec<SessionError>) -> Outcome {
        let took = Timestamp::now().duration_since(self.started_at);
        Outcome {
            reports: self.reports(),
            failures: self.failures(),
            absent: self.absent().clone(),
            errors,
            caught_up: self.progress.borrow().caught_up,
            took: took.try_into().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ready_without_a_collection_that_waits_hopelessly() {
        let mut member = Member::new(Reporter::new("a".into()));
        assert!(!member.is_done());
        member.is_hopeless = true;
        assert!(member.is_done() && !member.has_caught_up());
    }
}
