//! Which of the sleeping collections have changed: the source announces it, or their marks are
//! compared again and again. It must not know which collections sleep, nor what follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::Shared;
use super::order::Order;
use crate::document::CollectionName;
use crate::source::{ChangeMark, SourceError, Store, Update};

/// The pause between two sweeps where the source announces nothing.
const SWEEP: Duration = Duration::from_secs(30);

/// A source that refuses to announce changes is asked again after this number of sweeps.
const REFUSED: u32 = 120;

/// How many marks are requested at once: CouchDB's own limit.
const AT_ONCE: usize = 100;

/// A task that looks for changes. It ends when it is dropped.
pub(super) struct News {
    task: JoinHandle<()>,
}

impl News {
    /// Starts to look.
    pub fn start(store: Arc<dyn Store>, shared: Arc<Shared>) -> Self {
        let look = Look { store, shared, marks: HashMap::new() };
        Self { task: tokio::spawn(look.run()) }
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Look {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    /// The marks at the last sweep.
    marks: HashMap<CollectionName, ChangeMark>,
}

impl Look {
    async fn run(mut self) {
        let mut silent = 0;
        loop {
            if silent == 0 {
                match self.follow().await {
                    Ok(()) | Err(SourceError::Transient { .. }) => {}
                    Err(error) => {
                        tracing::info!(
                            "the server does not announce changes of databases; their update sequences \
                             are compared every {} s instead: {error}",
                            SWEEP.as_secs(),
                        );
                        silent = REFUSED;
                    }
                }
            }
            silent = silent.saturating_sub(1);
            self.sweep().await;
            tokio::time::sleep(SWEEP).await;
        }
    }

    /// Follows what the source announces, until it breaks off.
    async fn follow(&mut self) -> Result<(), SourceError> {
        let Some(mut updates) = self.store.updates() else { return Ok(()) };
        let mut complete = false;
        while let Some(update) = updates.next().await {
            match update? {
                // What changed before is not announced.
                Update::Begun => complete = self.sweep().await,
                Update::Changed(name) => self.say(Order::Visit(name)),
                Update::Silence if complete => self.say(Order::InStep(Timestamp::now())),
                Update::Silence => complete = self.sweep().await,
            }
        }
        Ok(())
    }

    /// Compares the marks of all collections with those of the last sweep. Returns whether all could be
    /// read.
    async fn sweep(&mut self) -> bool {
        let begun = Timestamp::now();
        let names: Vec<CollectionName> = self.shared.members().keys().cloned().collect();
        for some in names.chunks(AT_ONCE) {
            let marks = match self.store.marks(some).await {
                Ok(marks) => marks,
                Err(error) => {
                    tracing::debug!("the update sequences could not be read: {error}");
                    return false;
                }
            };
            for (name, mark) in some.iter().zip(marks) {
                if mark == ChangeMark::Unknown || self.marks.get(name) != Some(&mark) {
                    self.marks.insert(name.clone(), mark);
                    self.say(Order::Visit(name.clone()));
                }
            }
        }
        self.say(Order::InStep(begun));
        true
    }

    fn say(&self, order: Order) {
        // Without a supervisor, nobody wants to know.
        let _ended = self.shared.orders.send(order);
    }
}
