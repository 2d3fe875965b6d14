//! The supervisor: starts a pipeline for each collection as it appears, gives turns to catch up, and
//! notes how each ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{AgentError, AgentOptions, Member, Outcome, Shared};
use crate::document::CollectionName;
use crate::mirror::MirrorError;
use crate::pipeline::{Pauses, Phase, Pipeline, PipelineError, PipelineOptions, Report, Reporter};
use crate::source::retry;
use crate::source::{Mode, Store, StoreEvent};

type Ended = (CollectionName, Result<(), PipelineError>);

/// Supervises the pipelines of one agent.
pub(super) struct Supervisor {
    store: Arc<dyn Store>,
    options: AgentOptions,
    shared: Arc<Shared>,
    stop: CancellationToken,
    turns: Arc<Semaphore>,
    pipelines: JoinSet<Ended>,
    errors: Vec<AgentError>,
    /// Collections that appeared while the disk failed, and when they are tried again.
    postponed: Option<(Vec<CollectionName>, Instant)>,
    /// How long they wait: ever longer, until all were begun.
    pauses: Pauses,
}

impl Supervisor {
    /// A supervisor that has not begun.
    pub fn new(
        store: Arc<dyn Store>,
        options: AgentOptions,
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
            postponed: None,
            pauses: Pauses::new(options.retry),
        }
    }

    /// Supervises until everything has ended.
    pub async fn run(mut self) -> Outcome {
        let begun = Instant::now();
        self.supervise().await;
        while let Some(ended) = self.pipelines.join_next().await {
            self.note_end(ended);
        }
        let shared = Arc::clone(&self.shared);
        shared.progress.send_modify(|progress| progress.ended = true);
        shared.ended.cancel();
        Outcome { took: begun.elapsed(), ..shared.outcome(self.errors) }
    }

    async fn supervise(&mut self) {
        let (mode, policy) = (self.options.mode, self.options.retry);
        let (checkpoints, identity) = (Arc::clone(&self.shared.checkpoints), self.store.identity());
        // Where this is not known, everything is looked at again.
        let before = checkpoints.listed(&identity).unwrap_or_default();
        let listing = retry::listing(Arc::clone(&self.store), mode, before.clone(), policy);
        tokio::pin!(listing);
        let mut listing_ended = false;
        loop {
            if listing_ended && self.pipelines.is_empty() && self.postponed.is_none() {
                return;
            }
            let again = self.postponed.as_ref().map(|(_, again)| *again);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                event = listing.next(), if !listing_ended => match event {
                    Some(Ok(StoreEvent::Collection(name))) => self.begin(name),
                    Some(Ok(StoreEvent::Listed(now))) => {
                        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
                            let _ignored = checkpoints.note_listed(&identity, &now);
                        }
                        self.shared.listed.store(true, Ordering::Release);
                        self.shared.note_progress();
                        self.say_what_is_not_listed();
                    }
                    Some(Err(error)) => {
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
        if self.shared.members().contains_key(&name) {
            return;
        }
        let reporter = Reporter::new(name.clone());
        let member = Member { reporter: reporter.clone(), failures: None };
        self.shared.members().insert(name.clone(), member);
        match self.pipeline(&name, reporter.clone()) {
            Ok(pipeline) => {
                if let Some(member) = self.shared.members().get_mut(&name) {
                    member.failures = Some(pipeline.clone());
                }
                let run = Run {
                    pipeline,
                    turns: Arc::clone(&self.turns),
                    shared: Arc::clone(&self.shared),
                    stop: self.stop.clone(),
                };
                self.pipelines.spawn(async move { (name, run.in_turn().await) });
            }
            Err(error) if error.is_disk() && self.options.mode == Mode::Follow => {
                self.postpone(name, &reporter, &error);
            }
            Err(error) => self.fail(name, error),
        }
    }

    /// Tries the collections again that a disk has held up.
    fn begin_postponed(&mut self) {
        for name in self.postponed.take().map(|(names, _)| names).unwrap_or_default() {
            self.shared.members().remove(&name);
            self.begin(name);
        }
        if self.postponed.is_none() {
            self.pauses = Pauses::new(self.options.retry);
        }
    }

    /// Tries a collection again when its disk may work.
    fn postpone(&mut self, name: CollectionName, reporter: &Reporter, error: &PipelineError) {
        let next = || (Vec::new(), Instant::now() + self.pauses.next());
        let (names, again) = self.postponed.get_or_insert_with(next);
        let seconds = again.saturating_duration_since(Instant::now()).as_secs_f32();
        tracing::warn!(collection = %name, "{error}; the mirror waits, and tries again in {seconds:.1} s");
        reporter.update(|report| {
            report.phase = Phase::Waiting;
            report.trouble = Some(error.to_string());
        });
        names.push(name);
    }

    fn pipeline(
        &self,
        name: &CollectionName,
        reporter: Reporter,
    ) -> Result<Pipeline, PipelineError> {
        let shared = &self.shared;
        let collection = shared.mirror.collection(name)?;
        let origin = self.store.origin(name);
        if let Some(recorded) = collection.followed()?
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
        collection.follow(&origin)?;
        let options = PipelineOptions {
            mode: self.options.mode,
            retry: self.options.retry,
            revisit: self.options.revisit,
            deletions: self.options.deletions,
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
            Ok((name, Err(error))) => self.fail(name, error),
            Err(error) => self.errors.push(AgentError::Collection {
                collection: "(unknown)".into(),
                error: error.into(),
            }),
        }
    }

    fn fail(&mut self, collection: CollectionName, error: PipelineError) {
        tracing::error!(%collection, "{error}");
        if let PipelineError::Source(_) = &error
            && let Err(error) = self.shared.mirror.forget_empty(&collection)
        {
            tracing::warn!(%collection, "{error}");
        }
        if let Some(member) = self.shared.members().get(&collection) {
            member.reporter.update(|report| {
                report.phase = Phase::Failed;
                report.trouble = Some(error.to_string());
            });
        }
        let fatal = match &error {
            // The disk serves all collections, and one set of credentials opens them.
            PipelineError::Mirror(
                MirrorError::OtherSource { .. } | MirrorError::Discards { .. },
            ) => false,
            PipelineError::Mirror(_) | PipelineError::State(_) | PipelineError::Task(_) => true,
            PipelineError::Source(_) | PipelineError::Interrupted { .. } => false,
        };
        self.errors.push(AgentError::Collection { collection, error });
        // A service is restarted by its supervisor; it must not go on with a part of its work.
        if fatal || self.options.mode == Mode::Follow {
            self.stop.cancel();
        }
    }

    /// A collection that has vanished from the source stays in the mirror: nobody said that its
    /// last copy is not needed any more.
    fn say_what_is_not_listed(&self) {
        if !self.store.lists_everything() {
            return;
        }
        for name in self.shared.checkpoints.collections().unwrap_or_default() {
            if !self.shared.members().contains_key(&name) {
                tracing::info!(
                    collection = %name,
                    "a collection of the mirror was not followed in this run; it is kept as it is",
                );
            }
        }
    }
}

/// A pipeline that waits for its turn to catch up.
struct Run {
    pipeline: Pipeline,
    turns: Arc<Semaphore>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Run {
    /// Runs the pipeline. A follower gives its turn back once it is at the source's end, or its
    /// source does not answer.
    async fn in_turn(self) -> Result<(), PipelineError> {
        let turn = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            // The semaphore is never closed.
            turn = self.turns.acquire_owned() => turn.ok(),
        };
        let mut reports = self.pipeline.watch();
        let progress = async {
            let resting = |report: &Report| report.caught_up || report.phase == Phase::Waiting;
            let _ended = reports.wait_for(resting).await.map(drop);
            drop(turn);
            let _ended = reports.wait_for(|report| report.caught_up).await.map(drop);
            self.shared.note_progress();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = self.pipeline.run(&self.stop) => {
                self.shared.note_progress();
                ended
            }
            () = progress => Ok(()),
        }
    }
}
