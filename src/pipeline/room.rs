//! Waits for a disk that is full, read-only or failing, while following. Nothing is lost, because
//! the feed is opened again at the checkpoint.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::report::{PipelineReport, RunState};
use super::{Pipeline, PipelineError};
use crate::source::Since;
use crate::source::retry::RetryPolicy;
use crate::tree::MirrorError;

/// The pauses before the disk is tried again.
#[derive(Debug)]
pub struct Pauses {
    policy: RetryPolicy,
    next: Duration,
    /// The progress when the disk failed last.
    done: u64,
    /// The end of the last pause.
    ended: Instant,
}

impl Pauses {
    /// Starts with short pauses.
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, next: policy.first, done: 0, ended: Instant::now() }
    }

    /// Returns to short pauses if there was progress since the last failure.
    fn note_progress(&mut self, report: &PipelineReport) {
        let done = report.documents + report.deletions;
        if done > self.done {
            self.next = self.policy.first;
        }
        self.done = done;
    }

    /// The next pause: each is twice as long as the previous one, up to the policy's longest.
    pub fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.policy.longest);
        self.ended = Instant::now() + pause;
        pause
    }

    /// The next pause: a short one again, if none was needed for longer than the longest takes.
    pub fn next_after_rest(&mut self) -> Duration {
        if self.ended.elapsed() > self.policy.longest {
            self.next = self.policy.first;
        }
        self.next()
    }
}

/// A reason without its numbers, such as the bytes that are free: the log does not repeat a reason in
/// which only these have changed.
pub fn without_numbers(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn is_same(left: &str, right: &str) -> bool {
    without_numbers(left) == without_numbers(right)
}

impl Pipeline {
    /// The error, or that the collection's folder cannot be used, if that is the cause.
    pub(super) fn blamed(&self, error: PipelineError) -> PipelineError {
        match error {
            PipelineError::Mirror(error) => self.collection.blame_end(error).into(),
            error => error,
        }
    }

    /// Reads the feed from the checkpoint to its end, and applies only its deletions: they need
    /// almost no space, and free some. Says whether any were applied. The other changes of the feed
    /// are read again later.
    pub(super) async fn make_room(&self, stop: &CancellationToken) -> Result<bool, PipelineError> {
        let before = self.reporter.says(|report| report.deletions);
        let pipeline = self.clone();
        let ready = spawn_blocking(move || pipeline.is_ready_for_removals()).await?;
        if matches!(ready, Ok(true)) {
            let pipeline = Self { removals_only: true, ..self.clone() };
            let ended = Box::pin(pipeline.work(stop, true)).await;
            if let Err(error) = ended {
                tracing::debug!(collection = %self.collection.name(), "deletions broke off: {error}");
            }
        }
        let mirror = Arc::clone(&self.mirror);
        spawn_blocking(move || mirror.take_spare()).await?;
        Ok(self.reporter.says(|report| report.deletions) > before)
    }

    fn is_ready_for_removals(&self) -> Result<bool, PipelineError> {
        self.mirror.give_spare();
        self.collection.clear_up()?;
        self.checkpoints.recover()?;
        // A full scan has to see everything.
        Ok(!matches!(self.since(true)?, Since::Scan(_)))
    }

    /// Waits until the disk can be written to, or until `stop` is cancelled.
    pub(super) async fn wait_for_disk(
        &self,
        error: PipelineError,
        pauses: &mut Pauses,
        stop: &CancellationToken,
    ) -> Result<(), PipelineError> {
        let collection = self.collection.name();
        pauses.note_progress(&self.reporter.report());
        let files = matches!(error, PipelineError::Mirror(MirrorError::OpenFiles { .. }));
        let (mut error, mut logged, begun) = (error, String::new(), Instant::now());
        loop {
            let pause = pauses.next();
            let (seconds, why) = (pause.as_secs_f32(), error.to_string());
            match is_same(&why, &logged) {
                true => {
                    tracing::debug!(%collection, "{why}; the mirror tries again in {seconds:.1} s")
                }
                false => tracing::warn!(
                    %collection,
                    "{why}; the mirror waits, and tries again in {seconds:.1} s",
                ),
            }
            logged = why;
            self.reporter.update(|report| {
                report.wait(error.awaited(), error.to_string(), pause);
                report.busy_since = None;
            });
            self.run_state.send_replace(RunState::Waits);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            if error.is_full() && self.make_room(stop).await? {
                tracing::info!(%collection, "deletions were applied; there is no room for other changes");
                pauses.note_progress(&self.reporter.report());
            }
            let pipeline = self.clone();
            match spawn_blocking(move || pipeline.recover()).await? {
                Ok(()) => break,
                Err(again) if again.is_disk() => error = again,
                Err(other) => return Err(other),
            }
        }
        let seconds = begun.elapsed().as_secs_f32();
        match files {
            true => tracing::info!(%collection, "files can be opened again after {seconds:.1} s"),
            false => {
                tracing::info!(%collection, "the disk can be written again after {seconds:.1} s")
            }
        }
        self.reporter.update(|report| report.trouble = None);
        Ok(())
    }

    /// Cleans up after a failure, and tests whether the disk can be written to.
    fn recover(&self) -> Result<(), PipelineError> {
        self.collection.clear_up()?;
        self.mirror.probe()?;
        if let Some(damaged) = self.checkpoints.recover()? {
            tracing::warn!("{damaged}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_has_other_bytes_free_is_the_same_reason() {
        let reserve = |free| {
            let path = "/mirror".into();
            MirrorError::Reserve { path, free, reserve: 1000 }.to_string()
        };
        assert!(is_same(&reserve(7), &reserve(900)));
        let other = MirrorError::Reserve { path: "/other".into(), free: 7, reserve: 1000 };
        assert!(!is_same(&reserve(7), &other.to_string()));
    }

    #[test]
    fn pauses_grow_until_something_was_done() {
        let seconds = Duration::from_secs;
        let policy = RetryPolicy {
            first: seconds(1),
            longest: seconds(5),
            give_up_after: None,
            attempts: 1,
        };
        let mut pauses = Pauses::new(policy);
        let mut report = PipelineReport::new("books".into());
        let mut next = |documents| {
            report.documents = documents;
            pauses.note_progress(&report);
            pauses.next().as_secs()
        };
        assert_eq!([0, 0, 0, 0].map(&mut next), [1, 2, 4, 5]);
        assert_eq!([7, 7, 7].map(&mut next), [1, 2, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_are_short_again_after_a_rest_that_is_longer_than_the_longest() {
        let mut pauses = Pauses::new(RetryPolicy::FOLLOW);
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            longest = pauses.next_after_rest();
            tokio::time::advance(longest + RetryPolicy::FOLLOW.longest).await;
        }
        assert_eq!(longest, RetryPolicy::FOLLOW.longest);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(pauses.next_after_rest(), RetryPolicy::FOLLOW.first);
    }
}
