//! What the supervisor of a session, its runs and its observers share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::absent::Absent;
use super::integrity::Integrity;
use super::order::Order;
use super::outcome::{Outcome, SessionError};
use super::subscription::Pages;
use crate::checkpoint::{Checkpoints, Failure};
use crate::clock::Moment;
use crate::document::CollectionName;
use crate::event::Broadcast;
use crate::job::{JobReport, Jobs};
use crate::mirror::Mirror;
use crate::pipeline::{Brake, Pipeline, PipelineReport, Reporter, RunState};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) mirror: Arc<Mirror>,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) events: Broadcast,
    pub(super) pages: Arc<Pages>,
    /// Held while a cursor is changed.
    pub(super) cursor_turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) source: String,
    pub(super) started_at: Timestamp,
    /// The same, whatever becomes of the wall clock.
    pub(super) began: Moment,
    /// The number of the last event before the session.
    pub(super) began_after: u64,
    pub(super) collections: Mutex<BTreeMap<CollectionName, Member>>,
    /// Collections that the source does not have; only recorded if the mirror does not follow.
    pub(super) absent: Mutex<Vec<Absent>>,
    /// Whether the source has listed all its collections.
    pub(super) listed: AtomicBool,
    pub(super) progress: watch::Sender<SessionProgress>,
    /// Receives what the supervisor is to do.
    pub(super) orders: mpsc::UnboundedSender<Order>,
    /// The long errands that were ordered.
    pub(super) jobs: Jobs,
    /// Ends all errands.
    pub(super) errands: CancellationToken,
    /// What is known of the bytes of each collection.
    pub(super) integrity: Integrity,
    /// Where errands are carried out.
    pub(super) home: Option<Handle>,
    /// Cancelled when no more events will be emitted.
    pub(super) ended: CancellationToken,
}

/// A service that is otherwise ready does not wait for a collection that was tried this number of times.
const TRIES: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) reporter: Reporter,
    /// Its pipeline, while it runs.
    pub(super) pipeline: Option<Pipeline>,
    /// The brake of its runs.
    pub(super) brake: Option<Arc<Brake>>,
    /// Whether it waits, and nothing that this process does helps it.
    pub(super) is_hopeless: bool,
    /// Whether it has been at the end of its source.
    pub(super) has_caught_up: bool,
    /// Whether the source no longer has it.
    pub(super) has_vanished: bool,
    /// Whether it was ordered to pause.
    pub(super) is_paused: bool,
    /// How often its source did not answer, or its run failed, since it was at the end of its source.
    pub(super) in_vain: u32,
}

impl Member {
    /// A collection that has not run.
    pub(super) fn new(reporter: Reporter) -> Self {
        Self {
            reporter,
            pipeline: None,
            brake: None,
            is_hopeless: false,
            has_caught_up: false,
            has_vanished: false,
            is_paused: false,
            in_vain: 0,
        }
    }

    /// Whether the collection is caught up with its source, or its source has vanished.
    pub(super) fn is_current(&self) -> bool {
        self.has_caught_up || self.has_vanished
    }

    /// Whether a service does not have to wait for the collection before it is ready, if others have caught
    /// up: this one has been tried often enough.
    fn is_done(&self, others: bool) -> bool {
        let is_left = self.is_hopeless || self.is_paused || (others && self.in_vain >= TRIES);
        is_left || self.is_current()
    }
}

/// The phase of the whole session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionProgress {
    pub(super) listed: bool,
    /// Whether everything has caught up that can.
    pub(super) ready: bool,
    pub(super) caught_up: bool,
    pub(super) ended: bool,
}

impl Shared {
    /// What a session that has not started shares, and where its orders are received.
    pub(super) fn new(
        mirror: Arc<Mirror>,
        checkpoints: Arc<Checkpoints>,
        source: String,
    ) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, received) = mpsc::unbounded_channel();
        let shared = Self {
            began_after: checkpoints.last_number(),
            mirror,
            checkpoints,
            events: Broadcast::new(),
            pages: Arc::default(),
            cursor_turn: Arc::default(),
            source,
            started_at: Timestamp::now(),
            began: Moment::now(),
            collections: Mutex::default(),
            absent: Mutex::default(),
            listed: AtomicBool::new(false),
            progress: watch::Sender::default(),
            orders,
            jobs: Jobs::default(),
            errands: CancellationToken::new(),
            integrity: Integrity::default(),
            home: Handle::try_current().ok(),
            ended: CancellationToken::new(),
        };
        (shared, received)
    }

    pub(super) fn members(&self) -> MutexGuard<'_, BTreeMap<CollectionName, Member>> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn absent(&self) -> MutexGuard<'_, Vec<Absent>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an errand is under way that somebody has ordered.
    pub(super) fn has_errand(&self) -> bool {
        self.jobs.list().iter().any(JobReport::runs)
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    pub(super) fn reports(&self) -> Vec<PipelineReport> {
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

    /// Notes what a run does.
    pub(super) fn note_state(&self, name: &CollectionName, state: RunState) {
        if let Some(member) = self.members().get_mut(name) {
            match state {
                RunState::AtEnd => (member.has_caught_up, member.in_vain) = (true, 0),
                RunState::Waits => member.in_vain += 1,
                RunState::Works => return,
            }
        }
        self.note_progress();
    }

    /// Notices when the last collection has caught up.
    pub(super) fn note_progress(&self) {
        if self.progress.borrow().caught_up {
            return;
        }
        let listed = self.is_listed();
        let (ready, caught_up) = {
            let members = self.members();
            let others = members.values().any(|one| one.has_caught_up);
            let ready = listed && members.values().all(|one| one.is_done(others));
            (ready, ready && members.values().all(Member::is_current))
        };
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
    fn a_service_is_ready_without_a_collection_that_waits_hopelessly_or_is_paused() {
        let mut member = Member::new(Reporter::new("a".into()));
        assert!(!member.is_done(true));
        member.is_hopeless = true;
        assert!(member.is_done(false) && !member.is_current());
        (member.is_hopeless, member.is_paused) = (false, true);
        assert!(member.is_done(false) && !member.is_current());
    }

    #[test]
    fn a_service_is_ready_without_a_collection_that_was_tried_in_vain_where_others_have_caught_up()
    {
        let mut member = Member::new(Reporter::new("a".into()));
        member.in_vain = TRIES - 1;
        assert!(!member.is_done(true));
        member.in_vain = TRIES;
        assert!(member.is_done(true) && !member.is_done(false), "the whole server may be away");
    }
}
