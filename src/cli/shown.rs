//! What progress bars show of a collection, whichever command works on it.

use crate::pipeline::{self, Phase};
use crate::{restore, verify};

/// What a line shows of a collection.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: String,
    /// Which of several kinds of work, each with a speed of its own.
    pub work: Option<verify::Work>,
    pub state: Activity,
    /// What is being done, where that is not plain from the rest.
    pub word: &'static str,
    /// Documents that the destination holds by now.
    pub documents: u64,
    /// Documents that it is to hold, if that is known.
    pub total: Option<u64>,
    /// How much is done of how much, in whatever unit, if that is known.
    pub measured: Option<(u64, u64)>,
    /// Documents that this run has worked on.
    pub worked: u64,
    /// Bytes that were read or written, where they are worth a word.
    pub bytes: u64,
    /// The lag of a collection that is followed, in seconds.
    pub lag: Option<f64>,
    /// Documents that failed.
    pub failures: u64,
}

/// What a collection is doing, as far as its line differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Queued,
    Busy,
    Live,
    Waiting,
    Done,
    Failed,
}

/// How fast a collection is, by what this run has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Documents a second.
    pub per_second: Option<u64>,
    /// The time that is left at this speed.
    pub seconds_left: Option<u64>,
    /// Documents of the last minute.
    pub last_minute: u64,
}

impl Shown {
    /// What a pipeline reports.
    pub fn of_pipeline(report: &pipeline::PipelineReport) -> Self {
        let lacks = report.failures + report.in_flight + report.held_back > 0;
        let (state, word) = match report.phase {
            Phase::Queued => (Activity::Queued, "queued"),
            Phase::CatchingUp => (Activity::Busy, ""),
            Phase::Scanning => (Activity::Busy, "full scan"),
            Phase::Live => (Activity::Live, "live"),
            Phase::Waiting => (Activity::Waiting, "waiting"),
            Phase::CaughtUp if lacks => (Activity::Done, "ended"),
            Phase::CaughtUp => (Activity::Done, "caught up"),
            Phase::Stopped => (Activity::Queued, "stopped"),
            Phase::Paused => (Activity::Queued, "paused"),
            Phase::Failed => (Activity::Failed, "failed"),
            Phase::Vanished => (Activity::Failed, "vanished"),
        };
        let worked = report.documents + report.deletions + report.unchanged;
        let held = report.held.zip(report.counted);
        let read = report.progress.map(|progress| (progress.done, progress.total));
        // A scan compares documents that the mirror holds already.
        let measured = if report.phase == Phase::Scanning { read } else { held.or(read) };
        Self {
            name: report.collection.to_string(),
            work: None,
            state,
            word,
            documents: report.held.unwrap_or(worked),
            total: report.held.and(report.counted),
            measured,
            worked,
            bytes: 0,
            lag: report.lag_seconds(),
            failures: report.failures,
        }
    }

    /// How far a collection is restored.
    pub fn of_restore(progress: &restore::RestoreProgress) -> Self {
        let report = &progress.report;
        let restore::Counts { create, replace, skip, deleted_there, bytes, .. } = report.counts;
        let documents = create + replace + skip + deleted_there;
        let done = documents + report.problems;
        Self {
            name: report.collection.clone(),
            work: None,
            state: if progress.ended { Activity::Done } else { Activity::Busy },
            word: if progress.ended { "restored" } else { "" },
            documents,
            total: progress.total,
            measured: progress.total.map(|total| (done, total)),
            worked: done,
            bytes,
            lag: None,
            failures: report.problems,
        }
    }

    /// How far a collection is read, or listed by the source.
    pub fn of_verification(step: &verify::Step) -> Self {
        let (busy, done) = match step.work {
            verify::Work::Read => ("reading", "read"),
            verify::Work::List => ("comparing", "compared"),
        };
        let is_read = step.total.is_some_and(|total| step.documents >= total);
        let (state, word) = match step.work {
            _ if step.ended => (Activity::Done, done),
            verify::Work::Read if is_read => (Activity::Done, done),
            verify::Work::Read if step.documents == 0 => (Activity::Queued, "queued"),
            _ => (Activity::Busy, busy),
        };
        Self {
            name: step.collection.clone(),
            work: Some(step.work),
            state,
            word,
            documents: step.documents,
            total: step.total,
            measured: step.total.map(|total| (step.documents, total)),
            worked: step.documents,
            bytes: step.bytes,
            lag: None,
            failures: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_copy_begins_with_what_the_mirror_holds() {
        let mut report = pipeline::PipelineReport::new("books".into());
        (report.phase, report.held, report.counted) = (Phase::CatchingUp, Some(500), Some(1_000));
        let shown = Shown::of_pipeline(&report);
        assert_eq!((shown.measured, shown.documents), (Some((500, 1_000)), 500));
    }
}
