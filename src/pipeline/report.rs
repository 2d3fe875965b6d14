//! The progress report of a pipeline: one value that others can watch.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::evidence::{Ear, Evidence};
use crate::checkpoint::Checkpoint;
use crate::clock::Moment;
use crate::document::{CollectionName, Position};
use crate::source::Progress;

/// The target of log events that name what failed or is missing, and that a summary may name instead.
pub const FAILED: &str = "plainfold::failed";

/// The target of log events that name what ended the run, whose summary follows at once. [`FAILED`]
/// covers it.
pub const ENDED: &str = "plainfold::failed::ended";

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It waits for its turn to catch up.
    Queued,
    /// It applies the changes since the checkpoint.
    CatchingUp,
    /// It compares the whole source with the whole mirror.
    Scanning,
    /// It has reached the end of the source and follows it.
    Live,
    /// The source does not answer, or the disk cannot be written to; the pipeline tries again.
    Waiting,
    /// It has caught up and ended.
    CaughtUp,
    /// It was told to stop before it had caught up.
    Stopped,
    /// Its run was ended by an order, and another one is to resume it.
    Paused,
    /// It ended with an error.
    Failed,
    /// The source no longer has the collection. The mirror keeps its copy.
    Vanished,
}

/// What a pipeline waits for that is [`Phase::Waiting`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Awaited {
    /// The source, which does not answer.
    #[default]
    Source,
    /// The database, which the source does not have.
    Database,
    /// The disk, which cannot be written to.
    Disk,
    /// Room on the disk.
    Room,
}

/// What a pipeline does, as an event for its owner. The report is only for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunState {
    /// It works through the feed.
    #[default]
    Works,
    /// The source does not answer, or the disk cannot be written to.
    Waits,
    /// It has been at the end of the source.
    AtEnd,
}

/// What a pipeline has done in this run, and its present state.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PipelineReport {
    /// The collection.
    pub collection: CollectionName,
    /// The present phase.
    pub phase: Phase,
    /// The position of the checkpoint, as the source writes it.
    pub position: Option<Value>,
    /// Documents written in this run.
    pub documents: u64,
    /// Documents removed in this run.
    pub deletions: u64,
    /// Documents that were already in the mirror.
    pub unchanged: u64,
    /// Attachments written in this run.
    pub attachments: u64,
    /// Bytes written in this run, bodies and attachments.
    pub bytes: u64,
    /// Documents that could not be mirrored, remembered from any run.
    pub failures: u64,
    /// Documents that are being fetched beside the feed, or that the last run left so.
    #[serde(default)]
    pub in_flight: u64,
    /// Deletions that the brake holds back, from any run.
    #[serde(default)]
    pub held_back: u64,
    /// The position in the feed, if the source can express progress.
    #[serde(with = "progress")]
    #[schema(value_type = Option<progress::Shown>)]
    pub progress: Option<Progress>,
    /// The time when the mirror was last known to hold everything that the source held.
    pub current_at: Option<Timestamp>,
    /// Why it waits, or why it ended.
    pub trouble: Option<String>,
    /// The time of the next try, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Why the security object could not be mirrored at the last attempt.
    #[serde(default)]
    pub security_trouble: Option<String>,
    /// The number of documents that the source counts, if the mirror differs even after a full scan.
    #[serde(default)]
    pub count_trouble: Option<String>,
    /// When every byte of the collection had been verified last.
    #[serde(default)]
    pub verified_at: Option<Timestamp>,
    /// Documents that a verification found damaged, and that are still.
    #[serde(default)]
    pub damaged: u64,
    /// What is wrong with the first of them.
    #[serde(default)]
    pub damage: Option<String>,
    /// Whether a change by somebody else is noticed at once.
    #[serde(default)]
    pub watched: bool,
    /// Whether it has caught up since it started.
    pub caught_up: bool,
    /// How many documents the mirror holds of the collection, where that is known.
    #[serde(skip)]
    pub held: Option<u64>,
    /// How many documents the source counted when it was asked last.
    #[serde(skip)]
    pub counted: Option<u64>,
    /// What it waits for, or waited for last.
    #[serde(skip)]
    pub awaited: Awaited,
    /// The time since which a batch has been in flight.
    #[serde(skip)]
    pub busy_since: Option<Instant>,
    /// How old the copy is.
    #[serde(skip)]
    pub evidence: Evidence,
}

impl PipelineReport {
    /// A pipeline that has not started.
    pub fn new(collection: CollectionName) -> Self {
        Self {
            collection,
            phase: Phase::Queued,
            position: None,
            documents: 0,
            deletions: 0,
            unchanged: 0,
            attachments: 0,
            bytes: 0,
            failures: 0,
            in_flight: 0,
            held_back: 0,
            progress: None,
            current_at: None,
            trouble: None,
            retry_at: None,
            security_trouble: None,
            count_trouble: None,
            verified_at: None,
            damaged: 0,
            damage: None,
            watched: false,
            caught_up: false,
            held: None,
            counted: None,
            awaited: Awaited::default(),
            busy_since: None,
            evidence: Evidence::default(),
        }
    }

    /// It waits for `awaited`, and tries again after a pause.
    pub fn wait(&mut self, awaited: Awaited, trouble: String, pause: Duration) {
        self.phase = Phase::Waiting;
        self.awaited = awaited;
        self.trouble = Some(trouble);
        self.retry_at = Timestamp::now().checked_add(pause).ok();
    }

    /// What an earlier process has left: the time when the mirror was last known to be current, and the
    /// checkpoint.
    pub fn remember(&mut self, checkpoint: &Checkpoint, current_at: Option<Timestamp>) {
        self.current_at = current_at;
        self.evidence.committed_at = checkpoint.at;
        self.evidence.changed_at = checkpoint.changed;
    }

    /// The mirror holds everything that the source held at a moment.
    pub fn be_current(&mut self, at: Moment) {
        if self.evidence.current < Some(at) {
            self.evidence.be_current(at);
            self.current_at = Some(at.on_the_wall());
        }
    }

    /// The number of seconds for which the mirror may have been behind: since it was last known to
    /// be current. `None` before that. If an earlier process knew it, the wall clock says how long ago.
    pub fn lag_seconds(&self) -> Option<f64> {
        let of_this_process = || Some(self.evidence.current?.age(Moment::now()).as_secs_f64());
        of_this_process().or_else(|| Some(seconds_since(self.current_at?)))
    }
}

/// The seconds since a time of an earlier process, by the wall clock, which may have been set back.
pub fn seconds_since(at: Timestamp) -> f64 {
    Timestamp::now().duration_since(at).as_secs_f64().max(0.0)
}

/// The writer of a pipeline's report.
#[derive(Clone, Debug)]
pub struct Reporter {
    sender: watch::Sender<PipelineReport>,
    ear: Ear,
}

impl Reporter {
    /// A reporter for a pipeline that has not started.
    pub fn new(collection: CollectionName) -> Self {
        Self { sender: watch::Sender::new(PipelineReport::new(collection)), ear: Ear::default() }
    }

    /// A reporter for a pipeline that starts again in the same run: what the run has done stays counted, and
    /// how old the copy is stays known.
    pub fn continuing(before: &PipelineReport) -> Self {
        let fresh = PipelineReport {
            verified_at: before.verified_at,
            damaged: before.damaged,
            damage: before.damage.clone(),
            watched: before.watched,
            ..PipelineReport::new(before.collection.clone())
        };
        let evidence = Evidence { stated: None, ..before.evidence.clone() };
        let PipelineReport {
            documents, deletions, unchanged, attachments, bytes, current_at, ..
        } = *before;
        let report = PipelineReport {
            documents,
            deletions,
            unchanged,
            attachments,
            bytes,
            current_at,
            evidence,
            ..fresh
        };
        Self { sender: watch::Sender::new(report), ear: Ear::default() }
    }

    /// Watches the report.
    pub fn subscribe(&self) -> watch::Receiver<PipelineReport> {
        self.sender.subscribe()
    }

    /// The present report.
    pub fn report(&self) -> PipelineReport {
        let report = self.sender.borrow().clone();
        let evidence = self.ear.completes(report.evidence);
        PipelineReport { evidence, ..report }
    }

    /// What hears the source.
    pub fn ear(&self) -> &Ear {
        &self.ear
    }

    /// What is known of how old the copy is.
    pub fn evidence(&self) -> Evidence {
        self.ear.completes(self.says(|report| report.evidence.clone()))
    }

    /// A part of the present report, without a copy of the rest. What the source was heard to say is in
    /// [`evidence`](Self::evidence).
    pub fn says<T>(&self, what: impl FnOnce(&PipelineReport) -> T) -> T {
        what(&self.sender.borrow())
    }

    /// What an earlier process has left.
    pub fn remember(&self, checkpoint: &Checkpoint, current_at: Option<Timestamp>) {
        self.update(|report| report.remember(checkpoint, current_at));
    }

    /// The source was heard while the collection slept. It has said that nothing has changed since the moment
    /// `since`, if there is one.
    pub fn note_in_step(&self, since: Option<Moment>, heard: Moment) {
        self.update(|report| {
            report.evidence.hear(heard);
            if let Some(since) = since.filter(|_| report.phase == Phase::Live) {
                report.be_current(since);
                if let Some(stated) = &mut report.evidence.stated
                    && stated.behind.is_nothing()
                {
                    stated.at = stated.at.max(since);
                }
            }
        });
    }

    /// Changes the report.
    pub fn update(&self, change: impl FnOnce(&mut PipelineReport)) {
        self.sender.send_modify(change);
    }
}

/// A position as its source writes it, for reports. A token that is not JSON is shown as a string.
pub fn shown(position: &Position) -> Value {
    let token = position.token();
    serde_json::from_str(token).unwrap_or_else(|_| Value::from(token))
}

/// Progress as `{"done":N,"total":N}`.
mod progress {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::source::Progress;

    /// How far a feed has been read, in the source's own unit.
    #[derive(Serialize, Deserialize, utoipa::ToSchema)]
    #[schema(as = Progress)]
    pub struct Shown {
        done: u64,
        total: u64,
    }

    pub fn serialize<S: Serializer>(value: &Option<Progress>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|p| Shown { done: p.done, total: p.total }).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Progress>, D::Error> {
        let shown = Option::<Shown>::deserialize(from)?;
        Ok(shown.map(|shown| Progress { done: shown.done, total: shown.total }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_that_starts_again_is_as_far_behind_as_before() {
        let mut before = PipelineReport::new("a".into());
        before.be_current(Moment::at(7));
        let after = Reporter::continuing(&before).report();
        assert_eq!((after.current_at, after.caught_up), (before.current_at, false));
        assert_eq!(after.evidence.current, Some(Moment::at(7)));
    }

    #[test]
    fn what_a_run_has_done_stays_counted_when_a_pipeline_starts_again() {
        let waiting = PipelineReport {
            phase: Phase::Waiting,
            documents: 7,
            bytes: 70,
            trouble: Some("the disk is full".into()),
            caught_up: true,
            ..PipelineReport::new("books".into())
        };
        let report = Reporter::continuing(&waiting).report();
        assert_eq!((report.documents, report.bytes), (7, 70));
        assert_eq!((report.phase, report.caught_up), (Phase::Queued, false));
        assert_eq!(report.trouble, None);
    }

    #[test]
    fn a_lag_is_counted_from_when_the_mirror_was_current() {
        let hour = Duration::from_secs(3600);
        let mut report = PipelineReport::new("books".into());
        assert_eq!(report.lag_seconds(), None);
        report.current_at = Timestamp::now().checked_sub(hour).ok();
        assert!(report.lag_seconds().unwrap() >= 3600.0, "an earlier process knew it");
        report.current_at = Timestamp::now().checked_add(hour).ok();
        assert_eq!(report.lag_seconds(), Some(0.0), "a clock that was set back");
        let now = Moment::now();
        report.be_current(Moment::at(now.millis() - 500));
        assert!(report.lag_seconds().unwrap() >= 0.5);
        let current_at = report.current_at;
        report.be_current(Moment::at(now.millis() - 700));
        assert_eq!(report.current_at, current_at, "it is known already");
        // Whatever becomes of the wall clock.
        report.current_at = Timestamp::now().checked_add(hour).ok();
        assert!(report.lag_seconds().unwrap() >= 0.5);
    }
}
