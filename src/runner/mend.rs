//! Orders to fetch documents again while the mirror runs: between two batches, through the collection's own
//! pipeline, so that no two writers meet.

use super::mending::{Mend, Mended, Todo};
use super::shared::Member;
use super::supervisor::Supervisor;
use crate::document::CollectionName;
use crate::pipeline::Phase;
use crate::source::Streams;

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
        let scans =
            |member: &Member| member.reporter.says(|report| report.phase == Phase::Scanning);
        let scans = self.shared.members().get(&name).is_some_and(scans);
        match self.stops.get(&name) {
            // A full scan that is interrupted begins again: its end is waited for.
            Some(_) if scans => {}
            Some(stop) => stop.cancel(),
            None => self.run_again(&name),
        }
    }

    /// A run is at its end: what waited for the end of its scan is fetched now.
    pub(super) fn begin_mends(&mut self, name: &CollectionName) {
        if self.ordered.mends.contains_key(name)
            && let Some(stop) = self.stops.get(name)
        {
            stop.cancel();
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
