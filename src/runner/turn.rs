//! One run of a collection: it catches up in its turn, because each collection holds batches in memory
//! while it catches up, and says when it has nothing to do.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::order::Order;
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
    /// `None` if it needs no turn.
    pub turns: Option<Arc<Semaphore>>,
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
        let turn = match self.turns {
            None => None,
            Some(turns) => tokio::select! {
                () = self.stop.cancelled() => return ended(Ok(())),
                // The semaphore is never closed.
                turn = turns.acquire_owned() => turn.ok(),
            },
        };
        let progress = async {
            let mut turn = Some(turn);
            loop {
                let now = *run_state.borrow_and_update();
                let order = match now {
                    RunState::Works => Order::Busy(name.clone()),
                    RunState::Waits => Order::Waits(name.clone()),
                    RunState::AtEnd => Order::AtEnd(name.clone()),
                };
                if now != RunState::Works {
                    drop(turn.take());
                    self.shared.note_progress();
                }
                // Without a supervisor, nobody wants the place.
                let _ended = self.orders.send(order);
                if run_state.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        let result = tokio::select! {
            result = self.pipeline.run(&self.stop) => result,
            () = progress => Ok(()),
        };
        self.shared.note_progress();
        ended(result)
    }
}
