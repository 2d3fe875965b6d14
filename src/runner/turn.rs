//! One run of a collection: it catches up in its turn, because each collection holds batches in memory
//! while it catches up, and says when it has nothing to do.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::mending::Todo;
use super::order::Order;
use super::shared::Shared;
use crate::document::CollectionName;
use crate::pipeline::{Pipeline, PipelineError, RunState};

/// How a run ended.
pub(super) struct Ended {
    pub name: CollectionName,
    /// What it did when it ended.
    pub run_state: RunState,
    pub result: Result<(), PipelineError>,
}

/// A pipeline that waits for its turn to catch up.
pub(super) struct Run {
    pub pipeline: Pipeline,
    /// What it does first.
    pub todo: Todo,
    /// The turns that it needs, in this order.
    pub turns: Vec<Arc<Semaphore>>,
    pub shared: Arc<Shared>,
    pub orders: mpsc::UnboundedSender<Order>,
    pub stop: CancellationToken,
}

impl Run {
    /// Runs the pipeline. A follower gives its turn back once it has reached the end of the source,
    /// or the source does not answer.
    pub async fn in_turn(self, name: CollectionName) -> Ended {
        let mut run_state = self.pipeline.run_state();
        let last = run_state.clone();
        let ended = |result| Ended { name: name.clone(), run_state: *last.borrow(), result };
        let mut taken = Vec::new();
        for turns in self.turns {
            tokio::select! {
                () = self.stop.cancelled() => return ended(Ok(())),
                // The semaphore is never closed.
                turn = turns.acquire_owned() => taken.extend(turn.ok()),
            }
        }
        let progress = async {
            let mut taken = taken;
            loop {
                let now = *run_state.borrow_and_update();
                let order = match now {
                    RunState::Works => Order::Busy(name.clone()),
                    RunState::Waits => Order::Waits(name.clone()),
                    RunState::AtEnd => Order::AtEnd(name.clone()),
                };
                if now != RunState::Works {
                    taken.clear();
                }
                self.shared.note_state(&name, now);
                // Without a supervisor, nobody wants the place.
                let _ended = self.orders.send(order);
                if run_state.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        let (pipeline, stop, todo) = (self.pipeline.clone(), self.stop.clone(), self.todo);
        let collection = name.clone();
        let work = async move {
            todo.carry_out(&pipeline, &collection, &stop).await;
            pipeline.run(&stop).await
        };
        let result = tokio::select! {
            result = guarded(work) => result,
            () = progress => Ok(()),
        };
        if *last.borrow() == RunState::AtEnd {
            self.shared.note_state(&name, RunState::AtEnd);
        }
        ended(result)
    }
}

/// A run in a task of its own, so that one that panics is one that has failed.
async fn guarded(
    run: impl Future<Output = Result<(), PipelineError>> + Send + 'static,
) -> Result<(), PipelineError> {
    AbortOnDropHandle::new(tokio::spawn(run)).await.unwrap_or_else(|error| Err(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_that_panics_has_failed() {
        let ended = guarded(async { panic!("a test's own") }).await;
        assert!(matches!(ended, Err(PipelineError::Task(error)) if error.is_panic()));
        guarded(async { Ok(()) }).await.unwrap();
    }
}
