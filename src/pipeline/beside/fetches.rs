//! The documents that are fetched beside the feed of a collection: which are here, and which are asked for.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::brought::Brought;
use super::entry::{Question, StateEntry};
use super::job::{Done, End, Job};
use super::pace::{Breaker, Pulse, STALL, Speed};
use crate::document::DocumentId;
use crate::mirror::Authority;
use crate::pipeline::fetch::{BRANCHES, GROUP};
use crate::pipeline::pending::Pending;
use crate::pipeline::{Pipeline, PipelineError, failures};
use crate::source::SourceError;

/// Roughly the most bytes of documents that wait here before the feed has to wait for them.
const MOST_BYTES: usize = 8 << 20;

/// The most documents that wait here before the feed has to wait for them.
const MOST_DOCUMENTS: usize = 2_000;

/// Fetches of the same kind compete for the same places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Small fetches do not wait for large ones.
    Small,
    Large,
    /// Documents that failed before wait only for each other.
    Again,
}

/// A fetch in progress.
#[derive(Debug)]
pub(super) struct Running {
    pub documents: Vec<(DocumentId, u64)>,
    pub kind: Kind,
    pub is_group: bool,
    pub bytes: u64,
    pub pulse: Pulse,
    pub cancel: CancellationToken,
    /// Why it was cancelled.
    pub why: Option<End>,
}

/// The documents of one collection that are fetched beside its feed.
pub struct Fetches {
    pub(super) pipeline: Pipeline,
    pub(super) begun: Instant,
    pub(super) entries: HashMap<DocumentId, StateEntry>,
    pub(super) tasks: JoinSet<Done>,
    pub(super) running: HashMap<u64, Running>,
    /// The newest last.
    pub(super) small: Vec<Job>,
    /// The newest last.
    pub(super) large: Vec<Job>,
    pub(super) again: VecDeque<Job>,
    /// Cancelled in favour of others; they start again when no other is waiting.
    pub(super) parked: VecDeque<Job>,
    pub(super) delayed: BTreeMap<(Instant, u64), Job>,
    pub(super) ready: VecDeque<Brought>,
    /// The time when failed documents may be requested again.
    pub(super) due: HashMap<DocumentId, Instant>,
    pub(super) broken: Option<PipelineError>,
    pub(super) numbers: u64,
    pub(super) epoch: u64,
    pub(super) weight: usize,
    pub(super) speed: Speed,
    pub(super) breaker: Breaker,
    /// Why the source has not answered since its last answer.
    pub(super) trouble: Option<SourceError>,
    /// The time when the source last sent something, or was asked for something else.
    pub(super) moved: Instant,
    /// How often a document had changed when a part of it was gone.
    pub(super) chased: HashMap<DocumentId, usize>,
    /// The time that it took to read the feed to its end, when only these fetches are still waited
    /// for.
    pub(super) finished_after: Option<Duration>,
    /// Whether the end of the feed has been reached.
    pub(super) following: bool,
    pub(super) stopped: bool,
}

impl Fetches {
    /// A pool without any fetches.
    pub fn new(pipeline: Pipeline) -> Self {
        let breaker = Breaker::new(pipeline.options.retry);
        let now = Instant::now();
        Self {
            pipeline,
            begun: now,
            entries: HashMap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            small: Vec::new(),
            large: Vec::new(),
            again: VecDeque::new(),
            parked: VecDeque::new(),
            delayed: BTreeMap::new(),
            ready: VecDeque::new(),
            due: HashMap::new(),
            broken: None,
            numbers: 0,
            epoch: 0,
            weight: 0,
            speed: Speed::default(),
            breaker,
            trouble: None,
            moved: now,
            chased: HashMap::new(),
            finished_after: None,
            following: false,
            stopped: false,
        }
    }

    /// Whether no document is here.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ready.is_empty()
    }

    /// Whether the document is here.
    pub fn contains(&self, id: &DocumentId) -> bool {
        self.entries.contains_key(id)
    }

    /// Why the source does not answer, if it has not answered recently.
    pub fn trouble(&self) -> Option<&SourceError> {
        self.trouble.as_ref()
    }

    /// Whether one of these documents may arrive in a moment: it is neither stalled nor waiting for
    /// another attempt.
    pub fn expects(&self, ids: &HashSet<DocumentId>) -> bool {
        if !self.ready.is_empty() {
            return true;
        }
        let runs = self.running.values().filter(|one| one.pulse.stalled_for() < STALL);
        let mut soon = runs.flat_map(|one| &one.documents).map(|(id, _)| id);
        let waits = || self.fresh().flat_map(|job| job.ids());
        soon.any(|id| ids.contains(id)) || (self.is_moving() && waits().any(|id| ids.contains(id)))
    }

    /// A mark that separates present fetches from later ones.
    pub fn mark(&self) -> u64 {
        self.numbers
    }

    /// Whether a new document from before a mark is being fetched, or will be at once.
    pub fn is_busy_before(&self, mark: u64) -> bool {
        let before = |(_, number): &(DocumentId, u64)| *number <= mark;
        let runs = |one: &Running| {
            let fresh = one.kind != Kind::Again && one.pulse.stalled_for() < STALL;
            fresh && one.documents.iter().any(before)
        };
        let waits = |job: &Job| job.numbered().any(|(_, number)| number <= mark);
        let waits = self.is_moving() && self.fresh().any(waits);
        !self.ready.is_empty() || self.running.values().any(runs) || waits
    }

    /// Whether a document from before a mark is still looked up because an earlier run left it.
    pub fn revisits_before(&self, mark: u64) -> bool {
        let again = |entry: &StateEntry| matches!(entry.question, Some(Question::Again(_)));
        self.entries.values().any(|entry| again(entry) && entry.generation <= mark)
    }

    /// Whether a result is waiting to be taken.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the feed should wait: many documents are here, and they are becoming fewer.
    pub fn is_full(&self) -> bool {
        let much = self.weight > MOST_BYTES || self.small.len() + self.large.len() > MOST_DOCUMENTS;
        much && (self.is_moving() || !self.ready.is_empty())
    }

    /// The waiting documents that did not fail before.
    pub(super) fn fresh(&self) -> impl Iterator<Item = &Job> {
        self.small.iter().chain(&self.large)
    }

    /// Whether anything has arrived in the last moment.
    fn is_moving(&self) -> bool {
        self.moved.elapsed() < STALL * 2
            || self.running.values().any(|one| one.pulse.stalled_for() < STALL)
    }

    /// The end of the feed has been reached: later changes have only just happened.
    pub fn follow(&mut self) {
        self.following = true;
    }

    /// Documents that were planned before may have been removed from the tree.
    pub fn replan(&mut self) {
        self.epoch += 1;
    }

    /// A full listing has ended: documents that it does not name are looked up, whatever was known
    /// about them.
    pub fn look_up_unlisted(&mut self, is_listed: impl Fn(&DocumentId) -> bool) {
        let unlisted: Vec<DocumentId> =
            self.entries.keys().filter(|id| !is_listed(id)).cloned().collect();
        for id in unlisted {
            self.ready.retain(|one| *one.id() != id);
            self.remove(&id);
            let failure = failures::in_flight(id.clone(), None, None);
            self.look(id, Question::Again(failure));
        }
    }

    /// A full listing begins: it brings every document again, so pending lookups are dropped.
    pub fn start_over(&mut self) {
        for entry in self.entries.values_mut() {
            entry.noted = false;
        }
        let only_asked = |entry: &StateEntry| {
            matches!(entry.question, Some(Question::Again(_))) && entry.later.is_empty()
        };
        // A lookup holds no bytes.
        self.entries.retain(|_, entry| !only_asked(entry));
        self.ready.retain(|brought| match brought {
            Brought::Failed(id, _) | Brought::Gone(id) => self.entries.contains_key(id),
            _ => true,
        });
    }

    /// Adds writes that need something from the source.
    pub fn submit(&mut self, pending: Vec<Pending>) {
        let again = |one: &Pending| one.item.authority == Authority::Confirmed && !one.item.fed;
        let (again, fresh): (Vec<_>, Vec<_>) = pending.into_iter().partition(again);
        self.submit_as(again, true);
        self.submit_as(fresh, false);
    }

    fn submit_as(&mut self, pending: Vec<Pending>, again: bool) {
        let with_branches = self.pipeline.collection.mirrors_attachments();
        let mut group: Vec<(Pending, u64)> = Vec::new();
        let (mut sums, mut jobs) = ((0, 0, 0, 0), Vec::new());
        for mut one in pending {
            one.take_inline(with_branches);
            let generation = self.enter(one.item.clone(), again);
            if one.is_complete(with_branches) {
                self.complete(one);
                continue;
            }
            if !one.is_small(with_branches) {
                jobs.push(Job::Fetch(Box::new(one), generation));
                continue;
            }
            let ((count, bytes), branches) = (one.wanted(with_branches), one.branches().len());
            let body = one.item.change.weight() * branches;
            let next = (sums.0 + count, sums.1 + bytes, sums.2 + branches, sums.3 + body);
            let fits = next.0 <= GROUP.0 && next.1 <= GROUP.1;
            let fits = fits && next.2 <= BRANCHES.0 && next.3 <= BRANCHES.1;
            sums = if fits || group.is_empty() {
                next
            } else {
                jobs.push(Job::Group(std::mem::take(&mut group)));
                (count, bytes, branches, body)
            };
            group.push((one, generation));
        }
        if !group.is_empty() {
            jobs.push(Job::Group(group));
        }
        // The first of these comes first, but before all earlier ones.
        for job in jobs.into_iter().rev() {
            self.enqueue(job);
        }
    }

    /// Looks a document up.
    pub fn look(&mut self, id: DocumentId, question: Question) {
        let (again, position) = match &question {
            Question::Again(failure) => (true, failure.position.clone()),
            _ => (false, None),
        };
        let (later, unreadable) = self.remove(&id).map(StateEntry::rest).unwrap_or_default();
        let generation = self.number();
        let (epoch, noted) = (self.epoch, again);
        let entry = StateEntry {
            generation,
            item: None,
            question: Some(question),
            later,
            unreadable,
            noted,
            asked: false,
            attempts: 0,
            again,
            epoch,
            weight: 0,
        };
        self.entries.insert(id.clone(), entry);
        self.enqueue(Job::Look(id, generation, position));
    }

    /// Looks up the documents that failed, if it is time to try them again.
    pub fn revisit(&mut self) {
        let now = Instant::now();
        let failures = self.pipeline.failures.all();
        let known: HashSet<_> = failures.iter().filter_map(|one| one.document.as_ref()).collect();
        self.due.retain(|id, _| known.contains(id));
        for failure in failures {
            let Some(id) = failure.document.clone() else { continue };
            let is_due = self.due.get(&id).is_none_or(|due| *due <= now);
            if is_due && !self.contains(&id) {
                self.look(id, Question::Again(failure));
            }
        }
    }

    /// The next result. Waits forever if no document is here. Cancel safe.
    pub async fn brought(&mut self) -> Result<Brought, PipelineError> {
        loop {
            self.start();
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            if let Some(brought) = self.at_hand() {
                return Ok(brought);
            }
            let wake = self.wake();
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => self.take(done?),
                () = sleep_until(wake) => self.look_after(),
            }
        }
    }

    /// All available results, without waiting.
    pub fn sweep(&mut self) -> Result<Vec<Brought>, PipelineError> {
        self.turn()?;
        match self.broken.take() {
            Some(error) => Err(error),
            None => Ok(std::iter::from_fn(|| self.at_hand()).collect()),
        }
    }

    /// Takes the results of ended jobs, and starts the next ones.
    pub fn turn(&mut self) -> Result<(), PipelineError> {
        while let Some(done) = self.tasks.try_join_next() {
            self.take(done?);
        }
        self.look_after();
        self.start();
        Ok(())
    }

    /// The feed has ended: waits for fetches that still receive data; the others have failed.
    pub fn finish(&mut self) {
        if self.finished_after.is_none() {
            self.finished_after = Some(self.begun.elapsed());
            self.moved = Instant::now();
        }
    }

    /// Cancels all fetches. Complete documents can still be taken.
    pub async fn stop(&mut self) {
        self.stopped = true;
        self.running.values().for_each(|one| one.cancel.cancel());
        while let Some(done) = self.tasks.join_next().await {
            if let Ok(done) = done {
                self.take(done);
            }
        }
        self.small.clear();
        self.large.clear();
        self.again.clear();
        self.parked.clear();
        self.delayed.clear();
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn enqueue(&mut self, job: Job) {
        let again = job.ids().any(|id| self.entries.get(id).is_some_and(|entry| entry.again));
        match (again, job.is_small()) {
            (true, _) => self.again.push_back(job),
            (false, true) => self.small.push(job),
            (false, false) => self.large.push(job),
        }
    }
}
