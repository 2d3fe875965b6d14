//! Long errands: each has an id, a phase, progress, an outcome, and can be cancelled. A few of the last
//! ones are remembered.
//!
//! It does none of the work, and knows nothing of mirrors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::document::CollectionName;

mod outcome;

pub use outcome::{JobEffect, JobOutcome, JobProblem, JobRepair};

/// The number of jobs that are remembered.
const REMEMBERED: usize = 20;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Every stored byte is read.
    Verify,
    /// The same, and what is wrong is fetched again.
    Repair,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It is under way.
    Running,
    /// It was brought to its end. Its outcome says what was found.
    Done,
    /// It could not be brought to its end.
    Failed,
    /// It was cancelled, or the session of the mirror has ended.
    Cancelled,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// What is done.
    pub done: u64,
    /// What there is to do, where that is known.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: String,
}

/// A job, as others see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobReport {
    /// Its id.
    #[serde(rename = "job")]
    pub id: u64,
    /// What it does.
    pub kind: JobKind,
    /// The only collection that it is about; `null` if it is about all.
    pub collection: Option<CollectionName>,
    /// How it stands.
    pub state: JobState,
    /// What it is doing, in a word.
    pub phase: String,
    /// How far its present phase is.
    pub progress: JobProgress,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What it has found and done.
    pub outcome: Option<JobOutcome>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A job.
#[derive(Debug)]
pub struct JobHandle {
    report: watch::Sender<JobReport>,
    stop: CancellationToken,
}

/// The jobs of one mirror. One runs at a time.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    last: u64,
    jobs: VecDeque<Arc<JobHandle>>,
}

impl Jobs {
    /// Begins a job; fails with the one that runs. `stop` ends it, and so does its own cancellation.
    pub fn begin(
        &self,
        kind: JobKind,
        collection: Option<CollectionName>,
        stop: &CancellationToken,
    ) -> Result<Arc<JobHandle>, Box<JobReport>> {
        let mut known = self.known();
        let running = known.jobs.iter().map(|job| job.report()).find(JobReport::runs);
        if let Some(running) = running {
            return Err(Box::new(running));
        }
        known.last += 1;
        let report = JobReport {
            id: known.last,
            kind,
            collection,
            state: JobState::Running,
            phase: "starting".to_owned(),
            progress: JobProgress { done: 0, total: None, unit: "documents".to_owned() },
            started_at: Timestamp::now(),
            ended_at: None,
            outcome: None,
            error: None,
        };
        let job =
            Arc::new(JobHandle { report: watch::Sender::new(report), stop: stop.child_token() });
        known.jobs.push_back(Arc::clone(&job));
        if known.jobs.len() > REMEMBERED {
            known.jobs.pop_front();
        }
        Ok(job)
    }

    /// The jobs that are remembered, the newest first.
    pub fn list(&self) -> Vec<JobReport> {
        self.known().jobs.iter().rev().map(|job| job.report()).collect()
    }

    /// The job with this id, if it is remembered.
    pub fn get(&self, id: u64) -> Option<Arc<JobHandle>> {
        self.known().jobs.iter().find(|job| job.report.borrow().id == id).cloned()
    }

    /// Waits until none is under way.
    pub async fn ended(&self) {
        let watch = |job: &Arc<JobHandle>| job.report.subscribe();
        let all: Vec<_> = self.known().jobs.iter().map(watch).collect();
        for mut report in all {
            // A job that is gone has ended.
            let _gone = report.wait_for(|report| !report.runs()).await;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobReport {
    /// Whether it is under way.
    pub fn runs(&self) -> bool {
        self.state == JobState::Running
    }
}

impl JobHandle {
    /// The job as it is now.
    pub fn report(&self) -> JobReport {
        self.report.borrow().clone()
    }

    /// Tells it to end. It ends soon, between two documents.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// A token that is cancelled when it is to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Begins a phase.
    pub fn enter(&self, phase: &str, total: Option<u64>) {
        self.report.send_modify(|report| {
            phase.clone_into(&mut report.phase);
            (report.progress.done, report.progress.total) = (0, total);
        });
    }

    /// Notes how far the phase is.
    pub fn advance(&self, done: u64, total: Option<u64>) {
        self.report.send_modify(|report| {
            (report.progress.done, report.progress.total) = (done, total);
        });
    }

    /// Ends it. An error of a job that was told to end only says that it did.
    pub fn end(&self, result: Result<JobOutcome, String>) {
        let is_cancelled = self.stop.is_cancelled();
        self.report.send_modify(|report| {
            report.ended_at = Some(Timestamp::now());
            (report.state, report.outcome, report.error) = match result {
                Ok(outcome) if is_cancelled => (JobState::Cancelled, Some(outcome), None),
                Ok(outcome) => (JobState::Done, Some(outcome), None),
                Err(_) if is_cancelled => (JobState::Cancelled, None, None),
                Err(error) => (JobState::Failed, None, Some(error)),
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_job_runs_at_a_time_and_the_last_ones_are_remembered() {
        let (jobs, stop) = (Jobs::default(), CancellationToken::new());
        let first = jobs.begin(JobKind::Verify, None, &stop).unwrap();
        assert_eq!(jobs.begin(JobKind::Repair, None, &stop).unwrap_err().id, 1);
        first.end(Ok(JobOutcome::default()));
        assert_eq!(first.report().state, JobState::Done);
        for id in 2..=30 {
            let job = jobs.begin(JobKind::Repair, None, &stop).unwrap();
            assert_eq!(job.report().id, id);
            job.end(Err("a reason".to_owned()));
            assert_eq!(job.report().state, JobState::Failed);
        }
        assert!(jobs.get(1).is_none() && jobs.get(30).is_some());
        assert_eq!(jobs.list().len(), REMEMBERED);
        assert_eq!(jobs.list()[0].id, 30);
    }

    #[test]
    fn a_job_that_is_cancelled_or_whose_session_ends_is_cancelled() {
        let (jobs, stop) = (Jobs::default(), CancellationToken::new());
        let job = jobs.begin(JobKind::Verify, Some("books".into()), &stop).unwrap();
        job.enter("verifying", Some(10));
        job.advance(3, Some(10));
        job.cancel();
        job.end(Err("it was ended".to_owned()));
        let report = job.report();
        assert_eq!((report.state, report.error), (JobState::Cancelled, None));
        assert_eq!((report.phase.as_str(), report.progress.done), ("verifying", 3));
        let job = jobs.begin(JobKind::Verify, None, &stop).unwrap();
        stop.cancel();
        assert!(job.stop().is_cancelled());
    }
}
