//! The supervisor: starts a pipeline for each collection as it appears, gives turns to catch up, and
//! records how each ends.

use std::collections::{HashMap, HashSet};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::absent::Absent;
use super::drift;
use super::news::News;
use super::noting::{self, Noting};
use super::options::SessionOptions;
use super::order::{Order, Orders};
use super::outcome::{Outcome, SessionError};
use super::policy;
use super::scheduler::{LINGER, Move, Scheduler, VISIT};
use super::shared::{Member, Shared};
use super::trouble::Trouble;
use super::turn::{Ended, Run};
use crate::document::CollectionName;
use crate::pipeline::{ENDED, Phase, Pipeline, PipelineError, PipelineOptions, Reporter, RunState};
use crate::source::outage::Said;
use crate::source::retry::{self, Listed, Purpose};
use crate::source::{Mode, SourceError, Store, StoreEvent, Streams};
use crate::tree::MirrorError;

/// How many orders are taken at once.
const MOST_ORDERS: usize = 1000;

/// Errands are given this time to end when the session ends.
const ERRANDS_END_WITHIN: Duration = Duration::from_secs(2);

/// Supervises the pipelines of one session.
pub(super) struct Supervisor {
    pub(super) store: Arc<dyn Store>,
    pub(super) options: SessionOptions,
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
    /// Which collections run.
    pub(super) scheduler: Scheduler,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Ends single runs.
    pub(super) stops: HashMap<CollectionName, CancellationToken>,
    turns: Arc<Semaphore>,
    pipelines: JoinSet<Ended>,
    pub(super) errors: Vec<SessionError>,
    /// Collections that the mirror followed at this source before this run.
    pub(super) known: HashSet<CollectionName>,
    /// The collections whose runs have failed.
    pub(super) troubled: HashMap<CollectionName, Trouble>,
    /// What was ordered.
    pub(super) ordered: Orders,
    /// Since when the list of collections has been waited for, and why, if it is.
    pub(super) waiting: Option<(Instant, Said)>,
}

impl Supervisor {
    /// A supervisor that has not started.
    pub fn new(
        store: Arc<dyn Store>,
        mut options: SessionOptions,
        shared: Arc<Shared>,
        orders: mpsc::UnboundedReceiver<Order>,
        stop: CancellationToken,
    ) -> Self {
        let together = matches!(store.streams(), Streams::Shared | Streams::Once);
        let room = if together { None } else { options.max_runs };
        let turns = if together { Semaphore::MAX_PERMITS } else { options.catch_ups };
        // They come in one stream, which none of them may hold up.
        options.turns = options.turns.filter(|_| !together);
        Self {
            store,
            options,
            shared,
            stop,
            scheduler: Scheduler::new(room.unwrap_or(usize::MAX)),
            orders,
            stops: HashMap::new(),
            turns: Arc::new(Semaphore::new(turns)),
            pipelines: JoinSet::new(),
            errors: Vec::new(),
            known: HashSet::new(),
            troubled: HashMap::new(),
            ordered: Orders::default(),
            waiting: None,
        }
    }

    /// Supervises until everything has ended.
    pub async fn run(mut self) -> Outcome {
        let begun = Instant::now();
        let noting = Noting::start(&self.shared);
        if let Some(options) = self.options.drift.take() {
            drift::begin(&self.shared, options, self.options.mode);
        }
        self.supervise().await;
        self.shared.errands.cancel();
        while let Some(ended) = self.pipelines.join_next().await {
            self.note_end(ended);
        }
        self.note_parked();
        self.remember_collections(true);
        // They end between two documents; a disk that hangs is not waited for.
        let _late = tokio::time::timeout(ERRANDS_END_WITHIN, self.shared.jobs.ended()).await;
        // A run that was displaced may have noticed nothing, or have reported another error.
        drop(noting);
        match self.shared.mirror.check_epoch() {
            Ok(()) => noting::note(&self.shared).await,
            Err(error) => self.note_displaced(error),
        }
        let pipelines = self.shared.pipelines();
        pipelines.iter().for_each(Pipeline::log_unmentioned);
        let shared = Arc::clone(&self.shared);
        shared.progress.send_modify(|progress| progress.ended = true);
        shared.ended.cancel();
        Outcome { took: begun.elapsed(), ..shared.outcome(self.errors) }
    }

    /// Another process has taken over: nothing else matters.
    fn note_displaced(&mut self, error: MirrorError) {
        if !matches!(&self.errors[..], [SessionError::Mirror(MirrorError::TakenOver { .. })]) {
            tracing::error!(target: ENDED, "{error}");
            self.errors = vec![error.into()];
        }
        self.stop.cancel();
    }

    async fn supervise(&mut self) {
        /// The interval at which a run that has nothing to do notices that it was displaced.
        const LOOK: Duration = Duration::from_secs(2);
        let (mode, policy) = (self.options.mode, self.options.retry);
        let (checkpoints, identity) = (Arc::clone(&self.shared.checkpoints), self.store.identity());
        // If this is unknown, everything is checked again.
        let before = checkpoints.listed(&identity).unwrap_or_default();
        let (store, reading) = (Arc::clone(&self.store), Purpose::Reading);
        let listing = retry::listing(store, reading, mode, before.clone(), policy);
        tokio::pin!(listing);
        let (mut listing_ended, mut orders) = (false, Vec::new());
        let mut news: Option<News> = None;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.make_moves();
            if news.is_none() && mode == Mode::Follow && self.scheduler.is_crowded() {
                news = Some(News::start(Arc::clone(&self.store), Arc::clone(&self.shared)));
            }
            let waits = self.ordered.pause_any() || self.shared.has_errand();
            let is_over = listing_ended && self.pipelines.is_empty() && !waits;
            if is_over && self.next_try().is_none() {
                return;
            }
            let again = self.next_try().into_iter().chain(self.scheduler.next_visit()).min();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = look.tick() => if let Err(error) = self.shared.mirror.check_epoch() {
                    return self.note_displaced(error);
                },
                listed = listing.next(), if !listing_ended => match listed {
                    Some(Ok(Listed::Waiting { error, pause })) => self.wait(&error, pause),
                    Some(Ok(Listed::Event(StoreEvent::Collection(name)))) => {
                        self.note_answer();
                        self.begin(name);
                    }
                    Some(Ok(Listed::Event(StoreEvent::Unmatched(pattern)))) => {
                        self.note_unmatched(pattern);
                    }
                    Some(Ok(Listed::Event(StoreEvent::Listed(now)))) => {
                        self.note_answer();
                        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
                            let _ignored = checkpoints.note_listed(&identity, &now);
                        }
                        self.note_what_is_not_listed();
                        if !self.shared.listed.swap(true, Ordering::AcqRel) {
                            let collections = self.shared.members().len();
                            tracing::debug!(collections, "the source is listed");
                        }
                        self.remember_collections(false);
                        self.shared.note_progress();
                        self.end_if_hopeless();
                    }
                    Some(Err(error)) => {
                        self.log_end_of_listing(&error);
                        self.errors.push(error.into());
                        return self.stop.cancel();
                    }
                    None => listing_ended = true,
                },
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.try_again();
                }
                // Moves are made once for all of them.
                1.. = self.orders.recv_many(&mut orders, MOST_ORDERS) => {
                    for order in orders.drain(..) {
                        self.obey(order);
                    }
                }
                Some(ended) = self.pipelines.join_next(), if !self.pipelines.is_empty() => {
                    self.note_end(ended);
                }
            }
        }
    }

    /// Starts the pipeline of a collection, once.
    fn begin(&mut self, name: CollectionName) {
        // If it had vanished, the source has the collection again.
        let has_vanished = |member: &Member| member.has_vanished;
        let is_new = self.shared.members().get(&name).is_none_or(has_vanished);
        if is_new {
            let reporter = Reporter::new(name.clone());
            let state = &self.shared.checkpoints;
            let checkpoint = state.checkpoint(&name).ok().flatten().unwrap_or_default();
            reporter.remember(&checkpoint, state.current(&name).unwrap_or_default());
            self.shared.recall_integrity(&name, &reporter);
            let member = Member::new(reporter);
            self.shared.members().insert(name.clone(), member);
            if !self.pauses_new(&name) {
                self.scheduler.want(&name);
            }
        }
    }

    /// Starts the runs that have a place, and ends those whose place others want.
    fn make_moves(&mut self) {
        loop {
            let moves = self.scheduler.moves(Instant::now());
            if moves.is_empty() {
                return;
            }
            for one in moves {
                match one {
                    Move::Start(name) => self.start(name),
                    Move::Stop(name) => {
                        if let Some(stop) = self.stops.get(&name) {
                            stop.cancel();
                        }
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::AtEnd(name) => {
                self.troubled.remove(&name);
                self.note_idle(&name);
                self.begin_mends(&name);
            }
            Order::Waits(name) => self.note_idle(&name),
            Order::Busy(name) => self.scheduler.busy(&name),
            Order::Visit(name) => {
                self.wake(&name);
                self.scheduler.news(&name);
            }
            Order::Release(name) => {
                let member = self.shared.members().get(&name).cloned();
                match member.and_then(|member| member.pipeline) {
                    Some(pipeline) if self.stops.contains_key(&name) => pipeline.release(),
                    _ => {
                        self.wake(&name);
                        self.scheduler.news(&name);
                    }
                }
            }
            Order::Mend(name, mend) => self.take_mend(name, mend),
            Order::ErrandEnded => {}
            Order::Given(given) => self.take_order(given),
            Order::InStep { since, heard } => {
                for (name, member) in &*self.shared.members() {
                    if self.scheduler.sleeps(name) {
                        let since = since.filter(|_| member.has_caught_up);
                        member.reporter.note_in_step(since, heard);
                    }
                }
            }
        }
    }

    /// A run has nothing to do. Another may have its place after a while, which is longer if documents
    /// are still to come.
    fn note_idle(&mut self, name: &CollectionName) {
        // A catch-up ends by itself, or gives up.
        if self.options.mode == Mode::CatchUp {
            return;
        }
        let report = self.shared.members().get(name).map(|member| member.reporter.report());
        let keeps = match report {
            Some(report) if report.in_flight > 0 => self.options.revisit,
            _ => LINGER,
        };
        self.scheduler.idle(name, Instant::now() + keeps.max(LINGER));
    }

    fn start(&mut self, name: CollectionName) {
        let member = self.shared.members().get(&name).cloned();
        let Some(Member { reporter, brake, .. }) = member else {
            return self.scheduler.remove(&name);
        };
        let has_caught_up = reporter.says(|report| report.caught_up);
        match self.pipeline(&name, reporter) {
            Ok(pipeline) => {
                let pipeline = match brake {
                    Some(brake) => pipeline.with_brake(brake),
                    None => pipeline,
                };
                if let Some(member) = self.shared.members().get_mut(&name) {
                    member.brake = Some(pipeline.brake());
                    member.pipeline = Some(pipeline.clone());
                }
                // It has little to do if it has caught up in this process.
                let turns = match has_caught_up {
                    true => Vec::new(),
                    false => iter::once(&self.turns).chain(&self.options.turns).cloned().collect(),
                };
                let shared = Arc::clone(&self.shared);
                let (orders, stop) = (shared.orders.clone(), self.stop.child_token());
                self.stops.insert(name.clone(), stop.clone());
                let todo = self.todo(&name);
                let run = Run { pipeline, todo, turns, shared, orders, stop };
                self.pipelines.spawn(run.in_turn(name));
            }
            Err(error) => self.wait_or_fail(name, error),
        }
    }

    fn pipeline(
        &mut self,
        name: &CollectionName,
        reporter: Reporter,
    ) -> Result<Pipeline, PipelineError> {
        let shared = &self.shared;
        let collection = shared.mirror.collection(name)?;
        let origin = self.store.origin(name);
        let recorded = collection.followed()?;
        if recorded.as_ref() == Some(&origin) {
            self.known.insert(name.clone());
        }
        if let Some(recorded) = recorded
            && recorded != origin
        {
            if self.store.capabilities().refuses_other_origin && !self.options.source_moved {
                return Err(MirrorError::OtherSource {
                    collection: name.to_string(),
                    recorded,
                    given: origin,
                }
                .into());
            }
            let reason = format!("it followed {recorded} before");
            shared.checkpoints.start_over(name, &reason)?;
        }
        shared.checkpoints.note_vanished(name, false)?;
        collection.follow(&origin)?;
        let options = PipelineOptions {
            mode: self.options.mode,
            retry: self.options.retry,
            revisit: self.options.revisit,
            deletions: self.options.deletions,
            max_failures: self.options.max_failures,
            capabilities: self.store.capabilities(),
        };
        let source = self.store.open(name);
        let (mirror, state, events) = (&shared.mirror, &shared.checkpoints, &shared.events);
        Ok(Pipeline::new(source, mirror, collection, state, events, reporter, options)?)
    }

    fn note_end(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Ended { name, run_state, result: Ok(()) }) => {
                let was_told = self.stops.remove(&name).is_some_and(|stop| stop.is_cancelled());
                match self.follow_order(&name) {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => return self.wait_or_fail(name, error),
                }
                let follows = self.options.mode == Mode::Follow && !self.stop.is_cancelled();
                // It was told to end while it had something to do: it is not done.
                if was_told && run_state == RunState::Works {
                    self.scheduler.news(&name);
                }
                match run_state {
                    // It waited for its source, and others wanted its place.
                    RunState::Waits if follows => self.wait_without_run(name),
                    _ => self.note_rest(&name, follows),
                }
            }
            Ok(Ended { name, result: Err(error), .. }) => {
                self.stops.remove(&name);
                self.fail_unless_ordered(name, error);
            }
            Err(error) => self.errors.push(SessionError::Collection {
                collection: "(unknown)".into(),
                error: error.into(),
            }),
        }
    }

    /// A run has ended, and nothing is wrong. A catch-up is done. While following, the collection sleeps,
    /// and holds nothing open.
    fn note_rest(&mut self, name: &CollectionName, follows: bool) {
        match self.options.mode {
            Mode::CatchUp => self.scheduler.rest(name),
            Mode::Follow => self.scheduler.sleep(name, Instant::now() + self.pause_of(name)),
        }
        if let Some(member) = self.shared.members().get_mut(name) {
            if follows {
                member.pipeline = None;
            }
            member.reporter.update(|report| {
                if !report.caught_up {
                    report.phase = Phase::Stopped;
                }
            });
        }
    }

    /// How long a collection sleeps at most: less if it has documents that are to be tried again.
    fn pause_of(&self, name: &CollectionName) -> Duration {
        let report = self.shared.members().get(name).map(|member| member.reporter.report());
        match report {
            Some(report) if report.failures > 0 || report.in_flight > 0 => self.options.revisit,
            _ => VISIT,
        }
    }

    pub(super) fn fail(&mut self, collection: CollectionName, error: PipelineError) {
        if let Err(error) = self.shared.mirror.check_epoch() {
            return self.note_displaced(error);
        }
        self.end_orders(&collection);
        if let PipelineError::Source(SourceError::Missing { .. }) = &error
            && self.options.mode == Mode::CatchUp
            && self.store.capabilities().exhaustive_scan
            && self.store.streams() != Streams::One
        {
            return self.note_missing(collection);
        }
        self.scheduler.rest(&collection);
        self.store.let_go(&collection);
        self.log_end(&collection, &error);
        if let PipelineError::Source(_) = &error {
            self.forget_unless_followed(&collection);
        }
        if let Some(member) = self.shared.members().get(&collection) {
            member.reporter.update(|report| {
                report.phase = Phase::Failed;
                report.trouble = Some(error.to_string());
            });
        }
        let is_shared = policy::is_shared(&error);
        self.errors.push(SessionError::Collection { collection, error });
        // A service is restarted by its supervisor; it must not continue with a part of its work.
        if is_shared || self.options.mode == Mode::Follow {
            self.stop.cancel();
        }
    }

    /// Remembers which collections are followed: at once if a missing name is waited for, or
    /// allowed; otherwise once all of them have been found.
    fn remember_collections(&self, ended: bool) {
        let is_meant = self.options.mode == Mode::Follow || self.options.allow_empty;
        let all_found = || {
            let mistyped =
                |one: &Absent| matches!(one, Absent::Pattern(_) | Absent::Database { .. });
            ended && self.errors.is_empty() && !self.shared.absent().iter().any(mistyped)
        };
        if self.shared.listed.load(Ordering::Acquire)
            && (is_meant || all_found())
            && let Err(error) = self.shared.mirror.remember_collections()
        {
            tracing::warn!("--collections is not remembered: {error}");
        }
    }
}
