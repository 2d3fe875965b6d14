//! Decides which fetch runs when: a few at a time, the newest first, and stalled ones give up their
//! places.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetches::{Fetches, Kind, Running};
use super::job::{End, Job};
use super::pace::{Pulse, STALL, silence};
use crate::document::DocumentId;
use crate::source::Mode;

/// The number of concurrent fetches, without stalled ones.
const ACTIVE: usize = 4;

/// The same for documents that failed before.
const ACTIVE_AGAIN: usize = 2;

/// The number of open fetches, including stalled ones.
const OPEN: usize = 32;

/// The same for documents that failed before.
const OPEN_AGAIN: usize = 8;

/// Roughly the most bytes, and the most documents, that are held here if no data arrives.
const MOST_HELD: usize = 64 << 20;
const MOST_ENTRIES: usize = 20_000;

/// The interval at which stalled fetches are looked for while others wait.
const LOOK: Duration = Duration::from_millis(50);

/// The same while none waits.
const SELDOM: Duration = Duration::from_secs(1);

impl Fetches {
    /// Starts the fetches that there is a place for.
    pub(super) fn start(&mut self) {
        if self.stopped {
            return;
        }
        let now = Instant::now();
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now
        {
            let job = first.remove();
            self.enqueue(job);
        }
        while let Some((job, kind)) = self.next_job() {
            self.spawn(job, kind);
        }
    }

    /// The next job that there is a place for.
    fn next_job(&mut self) -> Option<(Job, Kind)> {
        loop {
            let (job, kind) = if !self.small.is_empty() && self.has_place(Kind::Small) {
                (self.small.pop()?, Kind::Small)
            } else if !self.large.is_empty() && self.has_place(Kind::Large) {
                (self.large.pop()?, Kind::Large)
            } else if !self.again.is_empty() && self.has_place(Kind::Again) {
                (self.again.pop_front()?, Kind::Again)
            } else if self.is_idle() && self.running.len() < OPEN {
                (self.parked.pop_front()?, Kind::Large)
            } else {
                return None;
            };
            // A newer state may have replaced this one.
            if let Some(job) = self.still_wanted(job) {
                return Some((job, kind));
            }
        }
    }

    fn still_wanted(&mut self, job: Job) -> Option<Job> {
        match job {
            Job::Group(mut group) => {
                group.retain(|(one, number)| self.counts(&one.item.change.id, *number));
                (!group.is_empty()).then_some(Job::Group(group))
            }
            Job::Fetch(pending, number) => {
                let id = &pending.item.change.id;
                match self.counts(id, number) {
                    true if self.has_newer(id) => {
                        self.take_next(id);
                        None
                    }
                    counts => counts.then_some(Job::Fetch(pending, number)),
                }
            }
            Job::Probe(id) => Some(Job::Probe(id)),
            Job::Look(id, number, position) => match self.counts(&id, number) {
                true if self.has_newer(&id) => {
                    self.take_next(&id);
                    None
                }
                counts => counts.then_some(Job::Look(id, number, position)),
            },
        }
    }

    /// Whether only cancelled or stalled jobs wait or run.
    fn is_idle(&self) -> bool {
        let waits = self.fresh().next().is_some() || !self.again.is_empty();
        !waits && self.running.values().all(|one| one.pulse.stalled_for() >= STALL)
    }

    /// Whether one more may start. If too many are open, the one that has been stalled longest is
    /// cancelled, if it has had its time.
    fn has_place(&mut self, kind: Kind) -> bool {
        let (active, open) = match kind {
            Kind::Small | Kind::Large => (ACTIVE, OPEN),
            Kind::Again => (ACTIVE_AGAIN, OPEN_AGAIN),
        };
        let of_kind = || self.running.values().filter(|one| one.kind == kind);
        let stalled = of_kind().filter(|one| one.pulse.stalled_for() >= STALL).count();
        // If many stall, the wait for the next is shorter.
        let stall = if stalled >= ACTIVE * 2 { STALL / 5 } else { STALL };
        if of_kind().filter(|one| one.pulse.stalled_for() < stall).count() >= active {
            return false;
        }
        if of_kind().count() < open {
            return true;
        }
        let patience = self.speed.of_place();
        let stalled = |one: &&mut Running| {
            let silent = one.pulse.silent_for();
            one.kind == kind && !one.pulse.has_beaten() && silent > patience && one.why.is_none()
        };
        let longest = self.running.values_mut().filter(stalled);
        if let Some(longest) = longest.max_by_key(|one| one.pulse.silent_for()) {
            longest.why = Some(End::Displaced);
            longest.cancel.cancel();
        }
        false
    }

    fn spawn(&mut self, job: Job, kind: Kind) {
        let number = self.number();
        let mut first = false;
        for id in job.ids() {
            if let Some(entry) = self.entries.get_mut(id) {
                first |= !std::mem::replace(&mut entry.asked, true);
            }
        }
        let documents = job.numbered().map(|(id, number)| (id.clone(), number)).collect();
        let (pulse, cancel) = (Pulse::new(), CancellationToken::new());
        let running = Running {
            documents,
            kind,
            is_group: matches!(job, Job::Group(_)),
            bytes: job.bytes(),
            pulse: pulse.clone(),
            cancel: cancel.clone(),
            why: None,
        };
        if first && kind != Kind::Again {
            self.moved = Instant::now();
        }
        self.running.insert(number, running);
        let patience = self.speed.of_group(self.following);
        self.tasks.spawn(job.run(self.pipeline.clone(), number, pulse, cancel, patience));
    }

    /// The time of the next check, if no data arrives.
    pub(super) fn wake(&self) -> Instant {
        let now = Instant::now();
        let waiting =
            self.fresh().next().is_some() || !(self.again.is_empty() && self.parked.is_empty());
        let look = match (self.running.is_empty(), waiting || self.finished_after.is_some()) {
            (_, true) => LOOK,
            (false, false) => SELDOM,
            (true, false) => Duration::from_secs(3600),
        };
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        delayed.unwrap_or(now + look).min(now + look)
    }

    /// Replaces stalled fetches by fetches of newer states.
    fn replace_stalled(&mut self) {
        let stalled = |one: &&Running| !one.is_group && one.pulse.stalled_for() >= STALL;
        let stalled = self.running.values().filter(stalled).flat_map(|one| &one.documents);
        let counts = |(id, number): &&(DocumentId, u64)| self.counts(id, *number);
        let replaced = stalled.filter(counts).filter(|(id, _)| self.has_newer(id));
        let replaced: Vec<DocumentId> = replaced.map(|(id, _)| id.clone()).collect();
        for id in replaced {
            let of_it = |one: &&Running| one.documents.iter().any(|(one, _)| *one == id);
            self.running.values().filter(of_it).for_each(|one| one.cancel.cancel());
            self.take_next(&id);
        }
    }

    /// Gives up fetches that have received nothing for too long.
    pub(super) fn look_after(&mut self) {
        self.replace_stalled();
        // A document that is noted durably need not be held in memory.
        let (mut weight, mut entries) = (self.weight, self.entries.len());
        while weight > MOST_HELD || entries > MOST_ENTRIES {
            let Some(job) = self.parked.pop_front() else { break };
            let silent = self.moved.elapsed();
            for (id, number) in job.numbered() {
                if self.counts(id, number) {
                    let held = self.entries.get(id).map_or(0, |entry| entry.weight);
                    (weight, entries) = (weight.saturating_sub(held), entries.saturating_sub(1));
                    self.give_up(id, number, silent);
                }
            }
        }
        let policy = self.pipeline.options.retry;
        let since_start = match (self.pipeline.options.mode, self.finished_after) {
            (Mode::Follow, _) => None,
            (Mode::CatchUp, Some(took)) => Some(took),
            (Mode::CatchUp, None) => return,
        };
        for running in self.running.values_mut().filter(|one| one.why.is_none()) {
            let silent = running.pulse.silent_for();
            if silence(&policy, since_start, running.bytes).is_some_and(|most| silent > most) {
                running.why = Some(End::Silent(silent));
                running.cancel.cancel();
            }
        }
        // Cancelled fetches would take as long again.
        let silent = self.moved.elapsed();
        let limit = silence(&policy, since_start, 0);
        if since_start.is_some() && limit.is_some_and(|most| silent > most) {
            for job in std::mem::take(&mut self.parked) {
                job.numbered().for_each(|(id, number)| self.give_up(id, number, silent));
            }
        }
    }
}
