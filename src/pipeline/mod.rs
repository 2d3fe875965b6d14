//! One collection: source -> mirror -> checkpoint -> events.
//!
//! Three tasks overlap: `gather` reads the feed into batches; `rounds` plans them and stages files;
//! `settle` makes them durable, publishes, commits and emits events. Two batches may be in flight,
//! and they commit in order. The parts that documents need from the source are fetched `beside` the
//! feed, and so is what no feed reports (`asker`). The modules in reading order:
//!
//! 1. `options`, `error`, `report`; `brake`, `failures`; `handle`: the pipeline that all tasks share.
//! 2. `batch`, `pending`, `prepared`, `events`, `work`: what passes from task to task.
//! 3. `opening`, `copied`, `doubt`: from where a run continues, and what an interrupted one left.
//! 4. `gather`, `asker`; `prepare`, `fetch`, `beside`, `rounds`; `settle`, `acknowledge`, `log`: the tasks.
//! 5. `room`: a disk that is full; `repair`: single documents apart from the feed; this file: one run.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::source::Mode;

mod acknowledge;
mod asker;
mod batch;
mod beside;
mod brake;
mod copied;
mod doubt;
mod error;
mod events;
mod evidence;
mod failures;
mod fetch;
mod gather;
mod handle;
mod log;
mod measure;
mod opening;
mod options;
mod pending;
mod prepare;
mod prepared;
mod repair;
mod report;
mod room;
mod rounds;
mod settle;
mod work;

pub use crate::document::DeletionLimit;
pub use brake::Brake;
pub use error::PipelineError;
pub use evidence::{Evidence, Stated};
pub use handle::Pipeline;
pub use options::PipelineOptions;
pub use repair::{Asking, Fate, Repaired, WrongDocument};
pub use report::{Awaited, ENDED, FAILED, Phase, PipelineReport, Reporter, RunState};
pub use report::{seconds_since, shown};
pub(crate) use room::{Pauses, without_numbers};

use asker::FeedState;
use rounds::Rounds;

impl Pipeline {
    /// Works until it has caught up (or forever, when following), until `stop`, or until an error
    /// that waiting does not solve. Complete batches are made durable in any case.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), PipelineError> {
        let mut again = false;
        let mut disk = Pauses::new(self.options.retry);
        if self.mirror.saves_room() {
            self.make_room(stop).await?;
        }
        loop {
            match self.work(stop, std::mem::replace(&mut again, true)).await {
                // The checkpoint records the full scan and its reason.
                Err(PipelineError::Disagrees(_)) => {}
                Err(error) if error.is_disk() && self.options.mode == Mode::Follow => {
                    self.wait_for_disk(error, &mut disk, stop).await?;
                    if stop.is_cancelled() {
                        return Ok(());
                    }
                }
                Err(error) if error.is_full() => {
                    self.make_room(stop).await?;
                    return Err(error);
                }
                ended => return ended.map_err(|error| self.blamed(error)),
            }
        }
    }

    /// Opens the feed once and reads it to its end; `again` if the same run has opened it before.
    async fn work(&self, stop: &CancellationToken, again: bool) -> Result<(), PipelineError> {
        if again {
            self.failures.reload(self.checkpoints.failures(self.collection.name())?);
        }
        let since = self.since(again)?;
        let doubt = self.doubt()?;
        let (gathered, batches) = mpsc::channel(1);
        let (prepared, settling) = mpsc::channel(1);
        let (settled, settled_count) = watch::channel(0_u64);
        let mut tasks: JoinSet<Result<(), PipelineError>> = JoinSet::new();
        let halt = stop.child_token();
        let (reading, spoken) = watch::channel(FeedState::Silent);
        if !self.removals_only {
            tasks.spawn(measure::measure(self.clone(), spoken.clone(), halt.clone()));
            tasks.spawn(asker::ask(self.clone(), spoken, halt.clone(), gathered.clone()));
        }
        tasks.spawn(gather::gather(self.clone(), since, halt.clone(), gathered, reading));
        let moved = doubt.as_ref().map(|doubt| doubt.moved.clone()).unwrap_or_default();
        let rounds = Rounds::new(self.clone(), doubt, settled_count, halt.clone());
        tasks.spawn(rounds.make_all(batches, prepared));
        let (committed, durable) = watch::channel(None);
        if self.options.capabilities.acknowledges {
            let (source, name) = (Arc::clone(&self.source), self.collection.name().clone());
            tasks.spawn(acknowledge::acknowledge(source, name, durable, halt.clone()));
        }
        tasks.spawn(self.clone().settle_all(moved, settling, settled, committed));
        let mut outcome = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(error.into()));
            if let Err(error) = ended
                && outcome.is_ok()
            {
                outcome = Err(error);
                // The other tasks finish the batches in flight; their channels close behind them.
                halt.cancel();
            }
            if self.removals_only {
                // The end of the feed does not depend on further answers.
                halt.cancel();
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
