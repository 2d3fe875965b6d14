//! Asks a source what a mirror of it would ask, and writes nothing.

use std::time::Duration;

use futures_util::StreamExt as _;

use super::error::StartError;
use super::{MirrorConfig, Selection};
use crate::document::CollectionName;
use crate::runner::Absent;
use crate::source::{Mode, Since, SourceError, Store, StoreEvent, Streams};

/// The number of collections from which a probe reads, at most.
const MOST_READ: usize = 20;

/// What a source has answered.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Its name, without credentials.
    pub source: String,
    /// The collections that the mirror would hold; of a recorded feed, only the first one.
    pub collections: Vec<CollectionName>,
    /// What the mirror would miss at the source.
    pub absent: Vec<Absent>,
    /// Whether there may be more collections than those named here.
    pub is_partial: bool,
}

impl MirrorConfig {
    /// Lists the collections of the source, and begins to read some of them. An answer may take
    /// `patience`.
    pub async fn probe(mut self, patience: Duration) -> Result<Probe, StartError> {
        self.source.wait_at_most(Some(patience));
        self.source.resolve().await;
        let input = self.source.refuse(Mode::CatchUp).await?;
        let is_selected = self.source.selects().is_some();
        if is_selected {
            let globs = self.collections.take().unwrap_or_default();
            let selection = Selection::new(&globs).and_then(|all| all.without(&self.excluded));
            self.source.select(selection.map_err(StartError::Glob)?);
        }
        let store = self.source.open(input)?;
        let mut probe = Probe { source: store.identity(), ..Probe::default() };
        let is_feed = matches!(store.streams(), Streams::Shared | Streams::Once);
        let mut events = store.collections(Mode::CatchUp, None);
        while let Some(event) = events.next().await {
            match event? {
                StoreEvent::Collection(name) => {
                    probe.collections.push(name);
                    // All of the feed would be read to find the others.
                    if is_feed {
                        probe.is_partial = true;
                        break;
                    }
                }
                StoreEvent::Unmatched(pattern) => probe.absent.push(Absent::Pattern(pattern)),
                StoreEvent::Listed(_) => break,
            }
        }
        drop(events);
        let read = probe.collections.iter().take(if is_feed { 0 } else { MOST_READ });
        let mut gone = Vec::new();
        for name in read {
            match begin(&*store, name).await {
                Err(SourceError::Missing { .. }) if is_selected => gone.push(name.clone()),
                began => began?,
            }
        }
        probe.collections.retain(|name| !gone.contains(name));
        probe.absent.extend(gone.into_iter().map(|collection| {
            let origin = store.origin(&collection);
            Absent::Database { collection, origin }
        }));
        if probe.collections.is_empty() && probe.absent.is_empty() {
            probe.absent.push(Absent::Everything { source: probe.source.clone() });
        }
        Ok(probe)
    }
}

/// Reads the beginning of a collection's feed.
async fn begin(store: &dyn Store, name: &CollectionName) -> Result<(), SourceError> {
    let mut changes = store.open(name).changes(Since::Start, Mode::CatchUp);
    changes.next().await.transpose().map(drop)
}
