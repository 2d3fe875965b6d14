//! Orders to fetch documents again while the mirror runs: between two batches, through the collection's own
//! pipeline, so that no two writers meet.

use tokio::sync::oneshot;

use super::mending::{Mend, Mended, Mending, Todo};
use super::order::Order;
use super::session::Watcher;
use super::supervisor::Supervisor;
use crate::document::CollectionName;
use crate::source::Streams;

impl Watcher {
    /// Fetches documents of a collection again, between two batches of its run, and waits for that. The
    /// documents that are in flight when the session ends are finished.
    pub async fn mend(&self, name: &CollectionName, mending: Mending) -> Mended {
        const GONE: &str = "the run of the collection has ended before it: start it again later";
        let (answer, answered) = oneshot::channel();
        let order = Order::Mend(name.clone(), Mend { mending, answer });
        if self.shared.orders.send(order).is_err() {
            return Mended::failed("the mirror is about to end");
        }
        answered.await.unwrap_or_else(|_| Mended::failed(GONE))
    }
}

impl Supervisor {
    /// Ends the run of a collection between two batches, if it has one, and starts another one that first
    /// fetches documents again.
    pub(super) fn take_mend(&mut self, name: CollectionName, mend: Mend) {
        let member = self.shared.members().get(&name).cloned();
        let trouble = match member {
            None => Some("the source does not name such a collection, so nothing can be fetched"),
            Some(member) if member.has_vanished => {
                Some("the source no longer has the collection; its copy is kept as it is")
            }
            Some(_) if self.ordered.pause(&name) => {
                Some("the collection is paused: run `plainfold resume` first")
            }
            Some(_) if self.store.streams() == Streams::Once => {
                Some("the source is a stream that cannot be read twice")
            }
            Some(_) => None,
        };
        if let Some(trouble) = trouble {
            // Nobody may wait for it any more.
            let _gone = mend.answer.send(Mended::failed(trouble));
            return;
        }
        self.ordered.mends.entry(name.clone()).or_default().push(mend);
        match self.stops.get(&name) {
            Some(stop) => stop.cancel(),
            None => self.run_again(&name),
        }
    }

    /// What a run that starts does before it follows its feed.
    pub(super) fn todo(&mut self, name: &CollectionName) -> Todo {
        Todo {
            mends: self.ordered.mends.remove(name).unwrap_or_default(),
            capabilities: self.store.capabilities(),
            reopen: self.options.reopen.clone(),
        }
    }
}
