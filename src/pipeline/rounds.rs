//! Rounds: each takes a batch of the feed, and the results that have arrived from
//! [beside](super::beside) it, and prepares them for the disk.
//!
//! A round waits a moment for what its documents need from the source, and then continues without
//! it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Item};
use super::beside::{Brought, Fetches, Question};
use super::prepare::{Pending, Planned, Prepared, stage};
use super::repair::Told;
use super::{Doubt, Pipeline, PipelineError, Signal, Work};
use crate::checkpoint::Failure;
use crate::document::{DocumentId, Position};
use crate::mirror::{Material, Sync};
use crate::source::{Mode, SourceError};
use crate::tree::MirrorError;

/// The time that a batch of a catch-up waits for what its documents need.
const GRACE: Duration = Duration::from_secs(1);

/// The same for a follower, whose next change should not wait.
const GRACE_FOLLOWING: Duration = Duration::from_millis(100);

/// The time that a follower at the end of the source waits for fetches before it reports that it has
/// caught up.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The interval at which a round checks whether there is anything to wait for.
const LOOK: Duration = Duration::from_millis(50);

/// Makes one round after the other.
pub struct Rounds {
    pipeline: Pipeline,
    beside: Fetches,
    doubt: Option<Doubt>,
    /// The documents of rounds that may not be in the tree yet, by the numbers of the rounds, oldest
    /// first.
    in_flight: VecDeque<(u64, HashSet<DocumentId>)>,
    number: u64,
    settled: watch::Receiver<u64>,
    stop: CancellationToken,
    /// Whether the end of the feed has been reached, so that a round waits only a moment.
    following: bool,
    /// Whether changes were skipped, so that they have to be read again.
    passed_over: bool,
    /// Whether the feed has been read to its end.
    read_to_end: bool,
    /// Whether all events that an interrupted run may not have emitted have been emitted.
    told: bool,
    /// Lookups from the start of the run have numbers up to this one.
    first: u64,
}

/// A round in progress.
struct Round {
    planned: Planned,
    complete: Vec<Pending>,
    failed: Vec<Failure>,
    /// Documents that are in the tree as at the source, or gone.
    settled: Vec<DocumentId>,
    moved_on: HashMap<DocumentId, Told>,
    /// The documents of this round.
    ids: HashSet<DocumentId>,
    /// Documents whose other states must wait, because planning would not see the present one.
    done: HashSet<DocumentId>,
    /// Documents that the source does not know. Such a document stays held back if its deletion is.
    gone: HashSet<DocumentId>,
    sync: Sync,
}

impl Rounds {
    /// Rounds of a pipeline that ends with `stop`. `settled` counts the settled rounds.
    pub fn new(
        pipeline: Pipeline,
        doubt: Option<Doubt>,
        settled: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> Self {
        let beside = Fetches::new(pipeline.clone());
        Self {
            pipeline,
            beside,
            doubt,
            in_flight: VecDeque::new(),
            number: 0,
            settled,
            stop,
            following: false,
            passed_over: false,
            read_to_end: false,
            told: false,
            first: 0,
        }
    }

    /// Makes rounds of all batches, and passes them on.
    pub async fn make_all(
        mut self,
        batches: mpsc::Receiver<Work<Batch>>,
        prepared: mpsc::Sender<Work<Prepared>>,
    ) -> Result<(), PipelineError> {
        let made = self.make(batches, &prepared).await;
        // No fetch outlives the pipeline, and a cancelled fetch leaves no file.
        self.beside.stop().await;
        made.map(drop)
    }

    /// `None` if the settler has ended, which reports the reason itself.
    async fn make(
        &mut self,
        mut batches: mpsc::Receiver<Work<Batch>>,
        to: &mpsc::Sender<Work<Prepared>>,
    ) -> Result<Option<()>, PipelineError> {
        enum Next {
            Stop,
            Work(Work<Batch>),
            Ended,
            Brought(Box<Brought>),
            Revisit,
            Look,
        }
        let follows = self.pipeline.options.mode == Mode::Follow;
        let mut revisits = interval(self.pipeline.options.revisit);
        revisits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        revisits.reset();
        let (mut stopped, mut caught_up) = (false, None);
        let stop = self.stop.clone();
        // Results that arrived before the stop may have to wait for earlier rounds.
        let mut last_rounds = 3;
        let removals_only = self.pipeline.removals_only;
        if !removals_only {
            self.beside.revisit();
            self.first = self.beside.mark();
        }
        loop {
            let is_empty = self.beside.is_empty();
            let next = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopped => Next::Stop,
                work = batches.recv() => work.map_or(Next::Ended, Next::Work),
                brought = self.beside.brought(), if !is_empty && !stopped => Next::Brought(Box::new(brought?)),
                _ = revisits.tick(), if follows && !stopped => Next::Revisit,
                () = sleep(LOOK), if caught_up.is_some() || (self.read_to_end && !self.told) => Next::Look,
            };
            let sent = match next {
                Next::Stop => {
                    stopped = true;
                    self.beside.stop().await;
                    self.round(Batch::default(), None, to).await?
                }
                Next::Work(Work::Batch(batch)) => {
                    let at_end = batch.at_end.filter(|_| follows);
                    let sent = self.round(batch, None, to).await?;
                    if let Some(end) = at_end {
                        let since = caught_up.map_or_else(Instant::now, |(_, since, _)| since);
                        caught_up = Some((self.beside.mark(), since, end));
                    }
                    sent
                }
                Next::Work(Work::Signal(Signal::Security(_) | Signal::Properties(_)))
                    if removals_only =>
                {
                    Some(())
                }
                // Everything after this needs a run that does more than removals.
                Next::Work(Work::Signal(signal))
                    if removals_only && !matches!(signal, Signal::Release) =>
                {
                    return Ok(Some(()));
                }
                Next::Work(Work::Signal(Signal::CaughtUp(end))) if follows => {
                    caught_up.get_or_insert_with(|| (self.beside.mark(), Instant::now(), end));
                    Some(())
                }
                Next::Work(Work::Signal(signal)) => self.signal(signal, to).await?,
                Next::Brought(brought) => self.round(Batch::default(), Some(*brought), to).await?,
                Next::Revisit => {
                    self.beside.revisit();
                    Some(())
                }
                Next::Look => self.settle_doubt(to).await,
                Next::Ended if stopped && self.beside.has_ready() && last_rounds > 0 => {
                    last_rounds -= 1;
                    self.round(Batch::default(), None, to).await?
                }
                Next::Ended if stopped || follows => return Ok(Some(())),
                Next::Ended => return self.finish(to).await,
            };
            if sent.is_none() {
                return Ok(None);
            }
            // Fetches in flight at the end of the source belong to it, unless they have stalled.
            if let Some((mark, since, end)) = caught_up
                && (!self.beside.is_busy_before(mark) || since.elapsed() >= LONGEST_WAIT)
            {
                caught_up = None;
                self.following = true;
                self.beside.follow();
                if self.signal(Signal::CaughtUp(end), to).await?.is_none() {
                    return Ok(None);
                }
            }
        }
    }

    /// Passes a signal on, in order.
    async fn signal(
        &mut self,
        signal: Signal,
        to: &mpsc::Sender<Work<Prepared>>,
    ) -> Result<Option<()>, PipelineError> {
        let at_end = matches!(signal, Signal::CaughtUp(_) | Signal::Holds(_));
        if at_end && self.pipeline.options.mode == Mode::CatchUp {
            if self.finish(to).await?.is_none() {
                return Ok(None);
            }
            if !self.beside.is_empty() {
                // The pipeline was told to stop before all results had arrived.
                return Ok(Some(()));
            }
        }
        match &signal {
            Signal::CaughtUp(_) => self.read_to_end = true,
            Signal::BeginScan(_) => self.beside.start_over(),
            Signal::EndScan { seen: Some(seen), .. } if !seen.blind => {
                self.beside.look_up_unlisted(|id| seen.contains(id));
            }
            _ => {}
        }
        let (removes, released) = (signal.removes(), matches!(signal, Signal::Release));
        if to.send(Work::Signal(signal)).await.is_err() {
            return Ok(None);
        }
        if removes {
            // Later planning must not use what this removes.
            self.number += 1;
            self.beside.replan();
            let number = self.number;
            if self.settled.wait_for(|count| *count >= number).await.is_err() {
                return Ok(None);
            }
        }
        if released {
            self.beside.revisit();
        }
        Ok(self.settle_doubt(to).await)
    }

    /// Marks the events of an interrupted run as emitted, once the feed and all documents that it
    /// left to be fetched were read.
    async fn settle_doubt(&mut self, to: &mpsc::Sender<Work<Prepared>>) -> Option<()> {
        let waits = self.beside.revisits_before(self.first) || self.beside.has_ready();
        if self.told || !self.read_to_end || waits {
            return Some(());
        }
        (self.told, self.doubt) = (true, None);
        to.send(Work::Signal(Signal::Told)).await.ok()
    }

    /// Waits for all fetches, and passes their results on as they arrive.
    async fn finish(
        &mut self,
        to: &mpsc::Sender<Work<Prepared>>,
    ) -> Result<Option<()>, PipelineError> {
        self.beside.finish();
        let stop = self.stop.clone();
        while !self.beside.is_empty() && !stop.is_cancelled() {
            let brought = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                brought = self.beside.brought() => brought?,
            };
            if self.round(Batch::default(), Some(brought), to).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Makes a round of a batch and of the results that have arrived, and passes it on.
    async fn round(
        &mut self,
        batch: Batch,
        brought: Option<Brought>,
        to: &mpsc::Sender<Work<Prepared>>,
    ) -> Result<Option<()>, PipelineError> {
        let Some(prepared) = self.prepare(batch, brought, false).await? else { return Ok(None) };
        if prepared.is_empty() {
            self.in_flight.pop_back();
            self.number -= 1;
            return Ok(Some(()));
        }
        Ok(to.send(Work::Batch(prepared)).await.ok())
    }

    /// Makes a round of documents that do not come from the feed, and waits for everything that they
    /// need.
    pub async fn whole(&mut self, batch: Batch) -> Result<Prepared, PipelineError> {
        self.beside.finish();
        let prepared = self.prepare(batch, None, true).await?;
        // There are no earlier rounds that could have to be settled.
        self.in_flight.clear();
        Ok(prepared.unwrap_or_else(|| Round::new(0).prepared(None, Timestamp::now())))
    }

    /// The documents that are looked up for a [whole](Self::whole) round.
    pub fn look(&mut self, id: DocumentId, question: Question) {
        self.beside.look(id, question);
    }

    /// Whether a document is still being fetched.
    pub fn fetches(&self, id: &DocumentId) -> bool {
        self.beside.contains(id)
    }

    /// Why the source does not answer, if it has not answered recently.
    pub fn trouble(&self) -> Option<&SourceError> {
        self.beside.trouble()
    }

    /// Makes a round. A `whole` one waits for all fetches, any other one waits a moment. `None` if
    /// the settler has ended.
    async fn prepare(
        &mut self,
        mut batch: Batch,
        brought: Option<Brought>,
        whole: bool,
    ) -> Result<Option<Prepared>, PipelineError> {
        let begun = Timestamp::now();
        let mut brought = Vec::from_iter(brought);
        brought.extend(self.beside.sweep()?);
        let mut round = Round::new(batch.items.len() + brought.len());
        round.failed = batch.take_failures();
        let unreadable: HashSet<DocumentId> =
            round.failed.iter().filter_map(|one| one.document.clone()).collect();
        let mut later = Vec::new();
        let ids = brought.iter().map(|one| one.id().clone()).collect();
        if !self.await_settled(&ids).await {
            return Ok(None);
        }
        self.accept(&mut round, brought, &mut later).await?;
        later.drain(..).rev().for_each(|one| self.beside.put_back(one));
        let items = self.not_beside(std::mem::take(&mut batch.items), &round.done);
        let ids: HashSet<DocumentId> = items.iter().map(|item| item.change.id.clone()).collect();
        if !self.await_settled(&ids).await {
            return Ok(None);
        }
        round.ids.extend(ids);
        self.plan(&mut round, items, HashMap::new()).await?;
        let of_batch =
            |one: &&Failure| one.document.as_ref().is_some_and(|id| unreadable.contains(id));
        round.failed.iter().filter(of_batch).for_each(|one| self.beside.note_unreadable(one));
        let grace = if self.following { GRACE_FOLLOWING } else { GRACE };
        let deadline = Instant::now() + grace;
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let now = Instant::now();
            let soon = now < deadline && self.beside.expects(&round.ids);
            if !(soon || self.beside.is_full() || (whole && !self.beside.is_empty())) {
                break;
            }
            let look = if now < deadline { deadline.min(now + LOOK) } else { now + LOOK };
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                first = self.beside.brought() => Some(first?),
                () = sleep_until(look) => None,
            };
            let mut brought = Vec::from_iter(first);
            brought.extend(self.beside.sweep()?);
            self.accept(&mut round, brought, &mut later).await?;
        }
        if stop.is_cancelled() {
            self.beside.stop().await;
            let brought = self.beside.sweep()?;
            self.accept(&mut round, brought, &mut later).await?;
        }
        let waiting: HashSet<DocumentId> = later.iter().map(|one| one.id().clone()).collect();
        later.into_iter().rev().for_each(|one| self.beside.put_back(one));
        round.planned.held.iter().for_each(|one| self.beside.note_again(&one.document));
        self.stage(&mut round).await?;
        if !whole {
            round.failed.extend(self.beside.notes());
        }
        self.number += 1;
        self.in_flight.push_back((self.number, std::mem::take(&mut round.ids)));
        self.passed_over |= round.planned.passed_over;
        let position = batch.position.filter(|_| !self.passed_over);
        let mut prepared = round.prepared(position, begun);
        let is_settled = |id: &DocumentId| {
            !self.beside.contains(id) && !unreadable.contains(id) && !waiting.contains(id)
        };
        prepared.settled.retain(is_settled);
        Ok(Some(prepared))
    }

    /// The items that are not fetched beside the feed. The others wait there, or replace the present
    /// fetch.
    fn not_beside(&mut self, items: Vec<Item>, done: &HashSet<DocumentId>) -> Vec<Item> {
        let mut left = Vec::with_capacity(items.len());
        for item in items {
            if self.beside.contains(&item.change.id) {
                self.beside.supersede(item);
            } else if done.contains(&item.change.id) {
                self.beside.keep(item);
            } else {
                left.push(item);
            }
        }
        left
    }

    /// Waits until the tree holds the documents of earlier rounds that this round needs: planning
    /// depends on the tree.
    async fn await_settled(&mut self, ids: &HashSet<DocumentId>) -> bool {
        let latest = self.in_flight.iter().rev().find(|(_, held)| !held.is_disjoint(ids));
        if let Some((latest, _)) = latest
            && self.settled.wait_for(|count| count >= latest).await.is_err()
        {
            return false;
        }
        self.forget_settled();
        true
    }

    fn forget_settled(&mut self) {
        let done = *self.settled.borrow_and_update();
        self.in_flight.retain(|(number, _)| *number > done);
    }

    /// Takes results into the round; those that cannot be taken yet go to `later`.
    async fn accept(
        &mut self,
        round: &mut Round,
        brought: Vec<Brought>,
        later: &mut Vec<Brought>,
    ) -> Result<(), PipelineError> {
        let (mut items, mut materials) = (Vec::new(), HashMap::new());
        for one in brought {
            let id = one.id().clone();
            if round.done.contains(&id) || materials.contains_key(&id) || self.is_in_flight(&id) {
                later.push(one);
                continue;
            }
            round.ids.insert(id.clone());
            match one {
                Brought::Found(item, material) => {
                    round.moved_on.insert(id.clone(), Told::of(&item.change));
                    materials.insert(id, material);
                    items.push(item);
                    continue;
                }
                Brought::Complete(pending) => round.complete.push(pending),
                Brought::Gone(id) => {
                    round.gone.insert(id.clone());
                    round.settled.push(id);
                }
                Brought::Unchanged(id) => round.planned.unchanged.push(id),
                Brought::Failed(_, failure) => round.failed.push(failure),
            }
            round.done.insert(id);
        }
        self.plan(round, items, materials).await
    }

    fn is_in_flight(&mut self, id: &DocumentId) -> bool {
        self.forget_settled();
        self.in_flight.iter().any(|(_, ids)| ids.contains(id))
    }

    /// Plans items, and starts fetching what they need.
    async fn plan(
        &mut self,
        round: &mut Round,
        items: Vec<Item>,
        mut materials: HashMap<DocumentId, Material>,
    ) -> Result<(), PipelineError> {
        if items.is_empty() {
            return Ok(());
        }
        let ids: Vec<DocumentId> = items.iter().map(|item| item.change.id.clone()).collect();
        let written = items.iter().filter(|item| !item.change.is_deletion());
        let room: u64 = written.map(|item| item.change.weight() as u64).sum();
        if room > 0 && !self.pipeline.removals_only {
            self.pipeline.mirror.check_room(room)?;
        }
        let mut planned = self.pipeline.plan(items, round.sync, self.doubt.as_ref()).await?;
        let older = planned.older.iter().map(|(change, _)| &change.id);
        let asked = older.chain(planned.pending.iter().map(|one| &one.item.change.id));
        let asked: HashSet<DocumentId> = asked.cloned().collect();
        for (change, held) in std::mem::take(&mut planned.older) {
            self.beside.look(change.id.clone(), Question::Older { change, held });
        }
        let mut pending = std::mem::take(&mut planned.pending);
        let wanted = pending.iter().flat_map(|one| &one.write.fetch);
        let wanted = wanted.filter_map(|attachment| attachment.length).fold(0, u64::saturating_add);
        if wanted > 0 {
            self.pipeline.mirror.check_room(room.saturating_add(wanted))?;
        }
        for one in &mut pending {
            if let Some(material) = materials.remove(&one.item.change.id) {
                one.material = one.reusable(material);
            }
        }
        self.beside.submit(pending);
        round.planned.extend(planned);
        round.done.extend(ids.into_iter().filter(|id| !asked.contains(id)));
        Ok(())
    }

    /// Stages complete documents.
    async fn stage(&mut self, round: &mut Round) -> Result<(), PipelineError> {
        let complete = std::mem::take(&mut round.complete);
        if complete.is_empty() {
            return Ok(());
        }
        if complete.iter().any(|one| one.sync == Sync::Together) {
            // Fetched files were not made durable one by one.
            round.sync = Sync::Together;
        }
        let (collection, lane) = (self.pipeline.collection.clone(), self.pipeline.mirror.lane());
        let sync = round.sync;
        let stage = move || -> Result<Planned, MirrorError> {
            let mut staged = Planned::default();
            for item in complete {
                staged.take(stage(&collection, item, sync, lane)?);
            }
            Ok(staged)
        };
        round.planned.extend(spawn_blocking(stage).await??);
        Ok(())
    }
}

impl Round {
    fn new(changes: usize) -> Self {
        Self {
            planned: Planned::default(),
            complete: Vec::new(),
            failed: Vec::new(),
            settled: Vec::new(),
            moved_on: HashMap::new(),
            ids: HashSet::new(),
            done: HashSet::new(),
            gone: HashSet::new(),
            sync: Sync::for_batch(changes),
        }
    }

    fn prepared(self, position: Option<Position>, begun: Timestamp) -> Prepared {
        let Self { planned, mut failed, mut settled, moved_on, gone, sync, .. } = self;
        failed.extend(planned.failed);
        let unchanged = planned.unchanged.len() as u64;
        settled.extend(planned.unchanged);
        settled.extend(planned.staged.iter().map(|(meta, _)| meta.id.clone()));
        Prepared {
            absent: planned.absent,
            staged: planned.staged,
            untold: planned.untold,
            failed,
            held: planned.held,
            settled,
            gone,
            unchanged,
            moved_on,
            position,
            sync,
            begun,
        }
    }
}

impl Prepared {
    /// Whether there is nothing to do.
    fn is_empty(&self) -> bool {
        self.position.is_none()
            && self.staged.is_empty()
            && self.untold.is_empty()
            && self.failed.is_empty()
            && self.held.is_empty()
            && self.settled.is_empty()
            && self.absent.is_empty()
    }
}

impl Pending {
    /// The part of this material that the write needs.
    fn reusable(&self, material: Material) -> Material {
        let Material { mut blobs, branches } = material;
        let needs = |name: &str| self.write.fetch.iter().any(|one| &*one.name == name);
        blobs.retain(|name, _| needs(name));
        let branches = branches.into_iter();
        let needed = branches.filter(|files| self.write.branches.contains(&files.branch.revision));
        Material { blobs, branches: needed.collect() }
    }
}
