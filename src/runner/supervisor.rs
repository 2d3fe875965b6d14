//! The supervisor: starts a pipeline for each collection as it appears, gives turns to catch up, and
//! records how each ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::turn::Run;
use super::{Absent, Member, Outcome, SessionError, SessionOptions, Shared};
use crate::document::CollectionName;
use crate::pipeline::{
    Awaited, ENDED, FAILED, Pauses, Phase, Pipeline, PipelineError, PipelineOptions, Reporter,
    without_numbers,
};
use crate::source::outage::Said;
use crate::source::retry::{self, Listed};
use crate::source::{Mode, Pattern, SourceError, Store, StoreEvent};
use crate::tree::MirrorError;

type Ended = (CollectionName, Result<(), PipelineError>);

/// Supervises the pipelines of one session.
pub(super) struct Supervisor {
    store: Arc<dyn Store>,
    pub(super) options: SessionOptions,
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
    turns: Arc<Semaphore>,
    pipelines: JoinSet<Ended>,
    errors: Vec<SessionError>,
    /// Collections that the mirror followed at this source before this run.
    known: HashSet<CollectionName>,
    /// Collections that appeared while the disk failed, and the time of their next attempt.
    postponed: Option<(Vec<CollectionName>, Instant)>,
    /// Their pause: it grows until all of them were started.
    pauses: Pauses,
    /// Why collections wait for a disk.
    held_up: HashMap<CollectionName, Said>,
    /// Since when the list of collections has been waited for, and why, if it is.
    pub(super) waiting: Option<(Instant, Said)>,
}

impl Supervisor {
    /// A supervisor that has not started.
    pub fn new(
        store: Arc<dyn Store>,
        options: SessionOptions,
        shared: Arc<Shared>,
        stop: CancellationToken,
    ) -> Self {
        let turns = if store.is_mixed() { Semaphore::MAX_PERMITS } else { options.catch_ups };
        Self {
            store,
            options,
            shared,
            stop,
            turns: Arc::new(Semaphore::new(turns)),
            pipelines: JoinSet::new(),
            errors: Vec::new(),
            known: HashSet::new(),
            postponed: None,
            pauses: Pauses::new(options.retry),
            held_up: HashMap::new(),
            waiting: None,
        }
    }

    /// Supervises until everything has ended.
    pub async fn run(mut self) -> Outcome {
        let begun = Instant::now();
        self.supervise().await;
        while let Some(ended) = self.pipelines.join_next().await {
            self.note_end(ended);
        }
        self.remember_collections(true);
        // A run that was displaced may have noticed nothing, or errors that are none of the mirror.
        if let Err(error) = self.shared.mirror.check_epoch() {
            self.note_displaced(error);
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
        let listing = retry::listing(Arc::clone(&self.store), mode, before.clone(), policy);
        tokio::pin!(listing);
        let mut listing_ended = false;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if listing_ended && self.pipelines.is_empty() && self.postponed.is_none() {
                return;
            }
            let again = self.postponed.as_ref().map(|(_, again)| *again);
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
                    }
                    Some(Err(error)) => {
                        self.log_end_of_listing(&error);
                        self.errors.push(error.into());
                        return self.stop.cancel();
                    }
                    None => listing_ended = true,
                },
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.begin_postponed();
                }
                Some(ended) = self.pipelines.join_next(), if !self.pipelines.is_empty() => {
                    self.note_end(ended);
                }
            }
        }
    }

    /// Starts the pipeline of a collection, once.
    fn begin(&mut self, name: CollectionName) {
        let before = self.shared.members().get(&name).map(|member| member.reporter.report().phase);
        // If it had vanished, the source has the collection again.
        if before.is_none_or(|phase| phase == Phase::Vanished) {
            let reporter = Reporter::new(name.clone());
            self.begin_with(name, reporter);
        }
    }

    fn begin_with(&mut self, name: CollectionName, reporter: Reporter) {
        let member = Member { reporter: reporter.clone(), failures: None };
        self.shared.members().insert(name.clone(), member);
        match self.pipeline(&name, reporter.clone()) {
            Ok(pipeline) => {
                if let Some(member) = self.shared.members().get_mut(&name) {
                    member.failures = Some(pipeline.clone());
                }
                let (turns, shared) = (Arc::clone(&self.turns), Arc::clone(&self.shared));
                let run = Run { pipeline, turns, shared, stop: self.stop.clone() };
                self.pipelines.spawn(async move { (name, run.in_turn().await) });
            }
            Err(error) if error.is_disk() && self.options.mode == Mode::Follow => {
                self.postpone(name, &reporter, &error);
            }
            Err(error) => self.fail_or_postpone(name, error),
        }
    }

    /// A collection whose folder cannot be used is waited for while following; the others continue.
    fn fail_or_postpone(&mut self, name: CollectionName, error: PipelineError) {
        let waits = error.is_of_collection() && self.options.mode == Mode::Follow;
        let reporter = match waits {
            true => self.shared.members().get(&name).map(|member| member.reporter.clone()),
            false => None,
        };
        match reporter {
            Some(reporter) => self.postpone(name, &reporter, &error),
            None => self.fail(name, error),
        }
    }

    /// Tries the collections again that the disk has delayed.
    fn begin_postponed(&mut self) {
        for name in self.postponed.take().map(|(names, _)| names).unwrap_or_default() {
            let before = self.shared.members().get(&name).map(|member| member.reporter.report());
            let reporter = match before {
                Some(before) => Reporter::continuing(&before),
                None => Reporter::new(name.clone()),
            };
            self.begin_with(name, reporter);
        }
    }

    /// Schedules another attempt for a collection, when its disk may work.
    fn postpone(&mut self, name: CollectionName, reporter: &Reporter, error: &PipelineError) {
        let next = || (Vec::new(), Instant::now() + self.pauses.next_after_rest());
        let (names, again) = self.postponed.get_or_insert_with(next);
        let seconds = again.saturating_duration_since(Instant::now()).as_secs_f32();
        let why = error.to_string();
        match self.held_up.entry(name.clone()).or_default().is_due(&without_numbers(&why)) {
            true => tracing::warn!(
                collection = %name,
                "{why}; the mirror waits, and tries again in {seconds:.1} s",
            ),
            false => {
                tracing::debug!(collection = %name, "{why}; the mirror tries again in {seconds:.1} s");
            }
        }
        reporter.update(|report| {
            report.phase = Phase::Waiting;
            report.awaited = Awaited::Disk;
            report.trouble = Some(why);
        });
        names.push(name);
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
            // A scan of the wrong source would remove everything that it does not hold.
            if self.store.lists_everything() && !self.options.source_moved {
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
        };
        let source = self.store.open(name);
        let (mirror, state, events) = (&shared.mirror, &shared.checkpoints, &shared.events);
        Ok(Pipeline::new(source, mirror, collection, state, events, reporter, options)?)
    }

    fn note_end(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok((name, Ok(()))) => {
                if let Some(member) = self.shared.members().get(&name) {
                    member.reporter.update(|report| {
                        if !report.caught_up {
                            report.phase = Phase::Stopped;
                        }
                    });
                }
            }
            Ok((name, Err(error))) => self.fail_or_postpone(name, error),
            Err(error) => self.errors.push(SessionError::Collection {
                collection: "(unknown)".into(),
                error: error.into(),
            }),
        }
    }

    fn fail(&mut self, collection: CollectionName, error: PipelineError) {
        if let Err(error) = self.shared.mirror.check_epoch() {
            return self.note_displaced(error);
        }
        if let PipelineError::Source(SourceError::Missing { .. }) = &error
            && self.options.mode == Mode::CatchUp
            && self.store.lists_everything()
            && !self.store.is_single()
        {
            return self.note_missing(collection);
        }
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
        let fatal = match &error {
            // All collections use the same disk, and the same credentials.
            PipelineError::Mirror(
                MirrorError::OtherSource { .. } | MirrorError::Discards { .. },
            ) => false,
            PipelineError::Mirror(error) if error.is_of_collection() => false,
            PipelineError::Mirror(_) | PipelineError::State(_) | PipelineError::Task(_) => true,
            PipelineError::Source(_)
            | PipelineError::Disagrees(_)
            | PipelineError::TooManyFailures { .. } => false,
        };
        self.errors.push(SessionError::Collection { collection, error });
        // A service is restarted by its supervisor; it must not continue with a part of its work.
        if fatal || self.options.mode == Mode::Follow {
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

    /// Logs what the source does not have, and records it for the end of a catch-up. A mirror that
    /// follows waits for it.
    fn note_absent(&self, absent: Absent) {
        if self.options.allow_empty {
            tracing::info!("{absent}");
            return;
        }
        match self.options.mode {
            Mode::Follow => tracing::warn!("{absent}; the mirror waits for it"),
            Mode::CatchUp => {
                tracing::error!(target: FAILED, "{absent}");
                self.shared.absent().push(absent);
            }
        }
    }

    /// No collection of the source matches a pattern. A name that the mirror has followed there has
    /// vanished, which is recorded once all collections are listed.
    fn note_unmatched(&self, pattern: Pattern) {
        let name = CollectionName::from(pattern.text());
        let followed = self.shared.mirror.followed().unwrap_or_default();
        let origin = self.store.origin(&name);
        let vanished = |(one, source): &(CollectionName, String)| *one == name && *source == origin;
        if !(self.store.lists_everything() && followed.iter().any(vanished)) {
            self.note_absent(Absent::Pattern(pattern));
        }
    }

    /// Removes what opening a collection created, if no run has ever read its source. Evidence that
    /// the folder of another collection is gone stays.
    fn forget_unless_followed(&self, collection: &CollectionName) {
        let followed = match self.shared.checkpoints.checkpoint(collection) {
            Ok(checkpoint) => checkpoint.is_some_and(|one| one.was_followed()),
            Err(_) => true,
        };
        if !followed && let Err(error) = self.shared.mirror.forget_empty(collection) {
            tracing::warn!(%collection, "{error}");
        }
    }

    /// A database that was requested by its name does not exist.
    fn note_missing(&self, collection: CollectionName) {
        self.shared.members().remove(&collection);
        let origin = self.store.origin(&collection);
        self.forget_unless_followed(&collection);
        match self.known.contains(&collection) {
            true => self.note_vanished(collection, origin),
            false => self.note_absent(Absent::Database { collection, origin }),
        }
        self.shared.note_progress();
    }

    /// A collection that has vanished from the source stays in the mirror: it may be the last copy.
    fn note_what_is_not_listed(&self) {
        let shared = &self.shared;
        if self.store.lists_everything() {
            for (name, source) in shared.mirror.followed().unwrap_or_default() {
                if shared.members().contains_key(&name) {
                    continue;
                }
                if self.store.wants(&name) && self.store.origin(&name) == source {
                    self.note_vanished(name, source);
                } else {
                    tracing::info!(
                        collection = %name,
                        "a collection of the mirror was not followed in this run; it is kept as it is",
                    );
                }
            }
        }
        if shared.members().is_empty() && shared.absent().is_empty() {
            self.note_absent(Absent::Everything { source: self.store.identity() });
        }
    }

    /// The mirror followed this collection, and the source no longer has it.
    fn note_vanished(&self, name: CollectionName, origin: String) {
        let reporter = Reporter::new(name.clone());
        let absent = Absent::Vanished { collection: name.clone(), origin };
        reporter.update(|report| {
            report.phase = Phase::Vanished;
            report.trouble = Some(absent.to_string());
        });
        if let Err(error) = self.shared.checkpoints.note_vanished(&name, true) {
            tracing::warn!(collection = %name, "{error}");
        }
        self.shared.members().insert(name, Member { reporter, failures: None });
        self.note_absent(absent);
    }
}
