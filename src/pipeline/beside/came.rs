//! What follows the end of a fetch: the document is complete, is tried again, or has failed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::brought::Brought;
use super::entry::Question;
use super::fetches::Fetches;
use super::job::{Done, End, Job, JobResult};
use crate::checkpoint::Failure;
use crate::document::{Change, DocumentId};
use crate::mirror::{Authority, Material};
use crate::pipeline::PipelineError;
use crate::pipeline::batch::Item;
use crate::pipeline::failures::{self, blame};
use crate::pipeline::fetch::FetchError;
use crate::pipeline::pending::Pending;
use crate::source::{Mode, Reading, SourceError};

/// The longest pause before a failed document is requested again.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The longest time that a follower waits for a document if the source asked for patience. After
/// that the document has failed.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// The number of times that a document may change while it is read. After that, a catch-up leaves it
/// to the next run, and a follower waits a moment.
const PURSUIT: usize = 5;

/// That moment.
const BREATH: Duration = Duration::from_millis(250);

impl Fetches {
    /// Whether this job is the current one of the document.
    pub(super) fn counts(&self, id: &DocumentId, number: u64) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.generation == number)
    }

    pub(super) fn has_newer(&self, id: &DocumentId) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.has_newer())
    }

    /// Takes the result of a job.
    pub(super) fn take(&mut self, done: Done) {
        let Some(running) = self.running.remove(&done.number) else { return };
        match done.came {
            JobResult::Group(members) => {
                let mut any = false;
                for (pending, number, result) in members {
                    any |= self.take_member(pending, number, result);
                }
                if any {
                    self.speed.note(done.took);
                }
            }
            JobResult::Fetch(pending, number, result) => {
                let id = pending.item.change.id.clone();
                if !self.counts(&id, number) {
                    return;
                }
                match (result, running.why) {
                    (Some(Ok(())), _) => self.complete(*pending),
                    (Some(Err(error)), _) => {
                        self.attempt_failed(Job::Fetch(pending, number), error)
                    }
                    (None, Some(End::Silent(silent))) => self.give_up(&id, number, silent),
                    (None, Some(End::Displaced)) if self.has_newer(&id) => self.take_next(&id),
                    (None, Some(End::Displaced)) => {
                        self.parked.push_back(Job::Fetch(pending, number));
                    }
                    (None, None) => {}
                }
            }
            JobResult::Probe(
                _,
                Some(Ok(_) | Err(SourceError::Missing { .. } | SourceError::Permanent { .. })),
            ) => {
                self.breaker.lives();
            }
            JobResult::Probe(_, Some(Err(error @ SourceError::Refused { .. }))) => {
                self.broken.get_or_insert(error.into());
            }
            JobResult::Probe(id, Some(Err(_))) if self.breaker.is_open() && !self.stopped => {
                let pause = self.breaker.pause().unwrap_or(LONGEST_ASKED);
                let number = self.number();
                self.delayed.insert((Instant::now() + pause, number), Job::Probe(id));
            }
            JobResult::Probe(..) => {}
            JobResult::Look(id, number, position, reading) => {
                if !self.counts(&id, number) {
                    return;
                }
                match (reading, running.why) {
                    (Some(Ok(reading)), _) => {
                        self.succeeded();
                        self.speed.note(done.took);
                        self.answered(id, reading);
                    }
                    (Some(Err(error)), _) => {
                        let error = FetchError::Source { what: String::new(), error };
                        self.attempt_failed(Job::Look(id, number, position), error);
                    }
                    (None, Some(End::Silent(silent))) => self.give_up(&id, number, silent),
                    (None, Some(End::Displaced)) if self.has_newer(&id) => self.take_next(&id),
                    (None, Some(End::Displaced)) => {
                        self.parked.push_back(Job::Look(id, number, position));
                    }
                    (None, None) => {}
                }
            }
        }
    }

    /// Takes one document of a group; an incomplete one is fetched separately.
    fn take_member(
        &mut self,
        pending: Pending,
        number: u64,
        result: Result<(), FetchError>,
    ) -> bool {
        let id = &pending.item.change.id;
        if !self.counts(id, number) {
            return false;
        }
        if let Err(FetchError::Ours(error)) = result {
            self.broken.get_or_insert(error);
            return false;
        }
        if pending.is_complete(self.pipeline.collection.mirrors_attachments()) {
            self.complete(pending);
            return true;
        }
        self.enqueue(Job::Fetch(Box::new(pending), number));
        false
    }

    fn succeeded(&mut self) {
        self.breaker.succeed();
        self.trouble = None;
        self.moved = Instant::now();
    }

    /// The document is complete.
    pub(super) fn complete(&mut self, pending: Pending) {
        self.succeeded();
        self.chased.remove(&pending.item.change.id);
        self.ready.push_back(Brought::Complete(pending));
    }

    /// The source has answered with the newest state of a document.
    fn answered(&mut self, id: DocumentId, reading: Reading) {
        let question = self.entries.get_mut(&id).and_then(|entry| entry.question.take());
        let brought = match (reading, question) {
            (Reading::Found(newest), question) => {
                let (authority, fed, position) = match question {
                    Some(Question::Older { change, .. }) => {
                        (Authority::Confirmed, true, change.position)
                    }
                    Some(Question::Repair(authority)) => {
                        (authority, false, newest.position.clone())
                    }
                    Some(Question::Chased(item)) => {
                        (item.authority.confirmed(), item.fed, item.change.position)
                    }
                    // The feed brought what was in flight, and no brake has counted it yet.
                    Some(Question::Again(failure)) => {
                        (Authority::Confirmed, failure.is_in_flight(), None)
                    }
                    None => (Authority::Confirmed, false, None),
                };
                let change = Change { position, ..newest };
                Brought::Found(Item { change, authority, fed }, Material::default())
            }
            (Reading::Unknown, Some(Question::Older { change, held })) => {
                tracing::debug!(
                    collection = %self.pipeline.collection.name(),
                    document = %change.id,
                    "the feed repeated revision {}, and the mirror holds {held}",
                    change.revision,
                );
                Brought::Unchanged(id)
            }
            (Reading::Unknown, Some(Question::Chased(item))) => {
                let reason = "it changed repeatedly while it was read, and then it was gone";
                let failure = failures::of_change(&item.change, reason.to_owned());
                Brought::Failed(id, failure)
            }
            (Reading::Unknown, _) => Brought::Gone(id),
        };
        self.ready.push_back(brought);
    }

    /// An attempt has failed: the document is tried again, or has failed.
    fn attempt_failed(&mut self, job: Job, error: FetchError) {
        let Some((id, number)) = job.numbered().next().map(|(id, number)| (id.clone(), number))
        else {
            return;
        };
        let (what, error) = match error {
            FetchError::Ours(PipelineError::Mirror(error)) => {
                return match blame(&self.pipeline.collection, error) {
                    Ok(reason) => self.fail(&id, reason, None),
                    Err(error) => {
                        self.broken.get_or_insert(error.into());
                    }
                };
            }
            FetchError::Ours(error) => {
                self.broken.get_or_insert(error);
                return;
            }
            FetchError::MovedOn(newest) => return self.moved_on(&id, *newest),
            FetchError::Source { what, error } => (what, error),
        };
        let asked = match &error {
            SourceError::Transient { retry_after, .. } => *retry_after,
            _ => None,
        };
        let reason = if what.is_empty() { error.to_string() } else { format!("{what}: {error}") };
        if self.stopped {
            return;
        }
        self.trouble = match &error {
            // It has answered, though not with what was requested.
            SourceError::Permanent { .. } | SourceError::Expired { .. } => None,
            error => Some(error.clone()),
        };
        if self.has_newer(&id) {
            return self.chase(&id, job);
        }
        let policy = self.pipeline.options.retry;
        let pause = match &error {
            SourceError::Refused { .. } => {
                // Does it refuse this document, or everything?
                if self.breaker.is_doubtful() {
                    self.probe(id.clone());
                }
                None
            }
            SourceError::Permanent { .. }
            | SourceError::NotAFeed { .. }
            | SourceError::Expired { .. } => None,
            SourceError::Missing { .. } => self.next_pause(&id),
            SourceError::Transient { .. } => {
                if self.breaker.fail(&id) {
                    self.probe(id.clone());
                }
                self.breaker.pause().or_else(|| self.next_pause(&id))
            }
        };
        let patience = policy.give_up_after.unwrap_or(LONGEST_ASKED).min(LONGEST_ASKED);
        match pause {
            Some(pause) if asked.is_none_or(|asked| asked <= patience) => {
                let at = Instant::now() + pause.max(asked.unwrap_or_default());
                self.delayed.insert((at, number), job);
            }
            _ => self.fail(&id, reason, asked),
        }
    }

    /// Requests the document's newest state, to see whether the source answers at all.
    fn probe(&mut self, id: DocumentId) {
        self.small.push(Job::Probe(id));
    }

    /// The pause before the next attempt, if there is one.
    fn next_pause(&mut self, id: &DocumentId) -> Option<Duration> {
        let policy = self.pipeline.options.retry;
        let entry = self.entries.get_mut(id)?;
        entry.attempts += 1;
        (entry.attempts < policy.attempts).then(|| policy.pause(entry.attempts - 1))
    }

    /// A newer state of a document is known, and the fetched one is gone or did not arrive. The
    /// newest is fetched at once; if this happens repeatedly, after a moment.
    fn chase(&mut self, id: &DocumentId, job: Job) {
        let chased = self.chased.entry(id.clone()).or_default();
        *chased += 1;
        if *chased <= PURSUIT {
            return self.take_next(id);
        }
        let number = self.number();
        self.delayed.insert((Instant::now() + BREATH, number), job);
    }

    /// A document has changed while it was read, and the old state is gone.
    fn moved_on(&mut self, id: &DocumentId, newest: Change) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(before) = entry.item.clone() else { return };
        let chased = self.chased.entry(id.clone()).or_default();
        *chased += 1;
        let authority = before.authority.confirmed();
        let change = Change { position: before.change.position.clone(), ..newest };
        let item = Item { change, authority, fed: before.fed };
        if *chased <= PURSUIT {
            let found = Brought::Found(item, Material::default());
            return self.ready.push_back(found);
        }
        if self.pipeline.options.mode == Mode::CatchUp {
            let reason = "it changed repeatedly while its attachments were read";
            return self.fail(id, reason.to_owned(), None);
        }
        entry.question = Some(Question::Chased(item));
        let job = Job::Look(id.clone(), entry.generation, None);
        let number = self.number();
        self.delayed.insert((Instant::now() + BREATH, number), job);
    }

    /// A document is given up after the source has sent nothing for this long.
    pub(super) fn give_up(&mut self, id: &DocumentId, number: u64, silent: Duration) {
        if self.counts(id, number) {
            let seconds = silent.as_secs_f32();
            let reason = format!(
                "the source has sent nothing for {seconds:.0} s; the next attempt requests it again"
            );
            self.fail(id, reason, None);
        }
    }

    /// A document has failed. Before the next attempt there is a pause, longer each time.
    fn fail(&mut self, id: &DocumentId, reason: String, asked: Option<Duration>) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let question = entry.question.take();
        let failure = match (&entry.item, question) {
            (_, Some(Question::Again(failure))) => Failure {
                reason,
                at: Timestamp::now(),
                attempts: failure.attempts.max(1),
                ..failure
            },
            // If the feed brought it, it is older than the version in the tree.
            (_, Some(Question::Older { change, .. })) => {
                failures::of_change(&Change { position: None, ..change }, reason)
            }
            (Some(item), _) => failures::of_change(&item.change, reason),
            (None, _) => failures::of_id(id.clone(), reason),
        };
        let earlier = self.pipeline.failures.attempts(id);
        let pause = self.pipeline.options.revisit * 2_u32.saturating_pow(earlier.min(10));
        let pause = pause.max(asked.unwrap_or_default());
        let longest = LONGEST_PAUSE.max(self.pipeline.options.revisit);
        self.due.insert(id.clone(), Instant::now() + pause.min(longest));
        self.chased.remove(id);
        self.ready.push_back(Brought::Failed(id.clone(), failure));
    }
}
