//! The orders that people give while a mirror works: pause, resume, catch up, and scan again.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::order::{Action, Effect, Given, Order, Ordered};
use super::policy::Remedy;
use super::session::Watcher;
use super::shared::Member;
use super::supervisor::Supervisor;
use crate::checkpoint::{Checkpoints, StateError};
use crate::document::CollectionName;
use crate::pipeline::{Phase, PipelineError, Reporter, RunState};
use crate::source::{Mode, Streams};

/// Why a full scan is made that was ordered.
const REASON: &str = "it was requested with `plainfold rescan`";

/// Why an order was not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The session has ended.
    #[error("the mirror is about to end")]
    Ending,
}

impl Ordered {
    /// Orders a full scan of a collection, or of all, of a mirror at rest: the next run makes it. `None` if
    /// the mirror has no such collection.
    pub fn rescan_at_rest(
        state: &Checkpoints,
        collection: Option<&CollectionName>,
    ) -> Result<Option<Vec<Self>>, StateError> {
        let names = match collection {
            Some(name) if state.checkpoint(name)?.is_none() => return Ok(None),
            Some(name) => vec![name.clone()],
            None => state.collections()?,
        };
        let mut ordered = Vec::new();
        for collection in names {
            state.rescan(&collection, REASON)?;
            ordered.push(Self { collection, effect: Effect::Later });
        }
        Ok(Some(ordered))
    }
}

impl Watcher {
    /// Gives an order for a collection, or for all. `None` if there is no such collection.
    pub async fn order(
        &self,
        action: Action,
        collection: Option<CollectionName>,
    ) -> Result<Option<Vec<Ordered>>, OrderError> {
        /// A process that has just started does not know the names of its collections.
        const PATIENCE: Duration = Duration::from_secs(5);
        let is_known = |name| self.shared.members().contains_key(name);
        if !collection.as_ref().is_some_and(is_known) {
            let _unlisted = tokio::time::timeout(PATIENCE, self.listed()).await;
        }
        let (answer, answered) = oneshot::channel();
        let given = Given { action, collection, answer };
        self.shared.orders.send(Order::Given(given)).map_err(|_| OrderError::Ending)?;
        answered.await.map_err(|_| OrderError::Ending)
    }
}

impl Supervisor {
    /// Obeys an order, and answers it.
    pub(super) fn take_order(&mut self, Given { action, collection, answer }: Given) {
        let names: Vec<CollectionName> = match collection {
            Some(name) => vec![name],
            None => {
                match action {
                    Action::Pause => {
                        self.ordered.all_paused = self.store.streams() != Streams::Once
                    }
                    Action::Resume => self.ordered.all_paused = false,
                    Action::CatchUp | Action::Rescan => {}
                }
                self.shared.members().keys().cloned().collect()
            }
        };
        let mut ordered = Some(Vec::new());
        for collection in names {
            let effect = self.carry_out(action, &collection);
            match (effect, &mut ordered) {
                (Some(effect), Some(ordered)) => ordered.push(Ordered { collection, effect }),
                _ => ordered = None,
            }
        }
        self.shared.note_progress();
        // Nobody may wait for it any more.
        let _gone = answer.send(ordered);
    }

    /// Carries out an order; `None` if there is no such collection.
    fn carry_out(&mut self, action: Action, name: &CollectionName) -> Option<Effect> {
        let member = self.shared.members().get(name).cloned()?;
        let tells = self.troubled.get(name).is_some_and(|trouble| trouble.again.is_some());
        let (is_paused, runs) = (self.ordered.pause(name), self.stops.contains_key(name));
        let has_ended = !is_paused && !runs && !tells && self.scheduler.rests(name);
        Some(match action {
            _ if self.store.streams() == Streams::Once => Effect::Unrepeatable,
            _ if member.has_vanished => Effect::Ended,
            Action::Resume if !is_paused => Effect::Already,
            Action::Pause if is_paused => Effect::Already,
            Action::CatchUp if is_paused => Effect::Paused,
            Action::Pause | Action::CatchUp if has_ended && self.options.mode == Mode::CatchUp => {
                Effect::Ended
            }
            Action::Pause => {
                self.pause(name);
                Effect::Done
            }
            Action::Resume => {
                self.ordered.paused.remove(name);
                match runs {
                    true => _ = self.ordered.again.insert(name.clone()),
                    false => self.run_again(name),
                }
                Effect::Done
            }
            Action::CatchUp => self.hurry(name, &member),
            Action::Rescan if runs => {
                self.ordered.rescans.insert(name.clone());
                self.end_run(name);
                if is_paused { Effect::Later } else { Effect::Done }
            }
            Action::Rescan => match self.shared.checkpoints.rescan(name, REASON) {
                Ok(()) if is_paused => Effect::Later,
                Ok(()) => {
                    self.run_again(name);
                    Effect::Done
                }
                // A run says what is wrong with the state.
                Err(error) => {
                    self.wait_or_fail(name.clone(), error.into());
                    Effect::Ended
                }
            },
        })
    }

    /// Ends the run of a collection, if it has one, between two batches.
    fn end_run(&self, name: &CollectionName) {
        if let Some(stop) = self.stops.get(name) {
            stop.cancel();
        }
    }

    fn pause(&mut self, name: &CollectionName) {
        self.ordered.paused.insert(name.clone());
        self.ordered.again.remove(name);
        tracing::info!(collection = %name, "paused; `plainfold resume` resumes it");
        match self.stops.contains_key(name) {
            true => self.end_run(name),
            false => self.note_pause(name),
        }
    }

    /// A collection is paused, and has no run.
    pub(super) fn note_pause(&mut self, name: &CollectionName) {
        self.troubled.remove(name);
        self.scheduler.rest(name);
        // Those that come in the same stream do not wait for it.
        self.store.let_go(name);
        if let Some(member) = self.shared.members().get_mut(name) {
            (member.pipeline, member.is_paused) = (None, true);
            member.reporter.update(|report| (report.phase, report.trouble) = (Phase::Paused, None));
        }
        self.shared.note_progress();
    }

    /// A collection without a run wants one, whatever it waited for.
    pub(super) fn run_again(&mut self, name: &CollectionName) {
        self.troubled.remove(name);
        self.scheduler.rest(name);
        if let Some(member) = self.shared.members().get_mut(name) {
            let reporter = Reporter::continuing(&member.reporter.report());
            *member = Member { brake: member.brake.take(), ..Member::new(reporter) };
        }
        self.scheduler.want(name);
    }

    /// The source is to be asked now.
    fn hurry(&mut self, name: &CollectionName, member: &Member) -> Effect {
        let run_state = member.pipeline.as_ref().map(|pipeline| *pipeline.run_state().borrow());
        match (self.stops.contains_key(name), run_state) {
            (true, Some(RunState::Waits)) => {
                self.ordered.again.insert(name.clone());
                self.end_run(name);
                Effect::Done
            }
            (true, _) => Effect::Already,
            (false, _) => {
                match self.troubled.get_mut(name) {
                    Some(trouble) => {
                        trouble.again = Some(Instant::now());
                        self.try_again();
                    }
                    None => self.scheduler.news(name),
                }
                Effect::Done
            }
        }
    }

    /// A collection has appeared. Whether it is paused.
    pub(super) fn pauses_new(&mut self, name: &CollectionName) -> bool {
        if self.ordered.all_paused {
            self.pause(name);
        }
        self.ordered.all_paused
    }

    /// A run has failed, perhaps while it was being ended by an order.
    pub(super) fn fail_unless_ordered(&mut self, name: CollectionName, error: PipelineError) {
        let is_ordered = Remedy::of(&error) != Remedy::End && self.options.mode == Mode::Follow;
        match is_ordered.then(|| self.follow_order(&name)) {
            Some(Ok(true)) => tracing::warn!(collection = %name, "{error}"),
            Some(Err(other)) => self.wait_or_fail(name, other),
            Some(Ok(false)) | None => self.wait_or_fail(name, error),
        }
    }

    /// A collection has ended: no order waits for it.
    pub(super) fn end_orders(&mut self, name: &CollectionName) {
        self.ordered.paused.remove(name);
        self.ordered.again.remove(name);
        self.ordered.mends.remove(name);
        if self.ordered.rescans.remove(name)
            && let Err(error) = self.shared.checkpoints.rescan(name, REASON)
        {
            tracing::warn!(collection = %name, "the full scan that was ordered is not noted: {error}");
        }
    }

    /// A run has ended that may have been told to by an order. Returns whether the order decides what
    /// follows.
    pub(super) fn follow_order(&mut self, name: &CollectionName) -> Result<bool, PipelineError> {
        let again = self.ordered.again.remove(name);
        let rescan = self.ordered.rescans.remove(name);
        if rescan {
            self.shared.checkpoints.rescan(name, REASON)?;
        }
        if self.ordered.pause(name) {
            self.ordered.mends.remove(name);
            self.note_pause(name);
            return Ok(true);
        }
        let runs_again = again || rescan || self.ordered.mends.contains_key(name);
        if runs_again {
            self.run_again(name);
        }
        Ok(runs_again)
    }
}
