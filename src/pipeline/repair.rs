//! Fetches single documents again, apart from the feed, through the same durable steps.
//!
//! The checkpoint stays where it is: the source's present answers are written, and the feed brings
//! the same again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::beside::Question;
use super::prepared::{Answer, Prepared};
use super::rounds::Rounds;
use super::{Pipeline, PipelineError, failures};
use crate::document::{Change, DocumentId, Position, Revision};
use crate::mirror::Authority;
use crate::source::outage::Said;
use crate::source::retry::{self, Fed, resilient};
use crate::source::{FeedEvent, Mode, Since};

/// The largest number of documents after which a signal is handled and the fetched documents are
/// made durable.
const DOCUMENTS: usize = 100;

/// The documents to fetch again.
#[derive(Clone, Debug, Default)]
pub struct WrongDocument {
    /// Intact documents that differ from the source's.
    pub differing: HashSet<DocumentId>,
    /// Documents with a damaged, missing or extra part: they are replaced completely.
    pub damaged: HashSet<DocumentId>,
}

/// How to ask the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// One document after the other.
    Singly,
    /// The source cannot look up documents: its whole feed is read, twice, and the last row of each
    /// document counts.
    ByFeed,
}

/// The outcome for a document that was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the tree as at the source.
    Present {
        /// The revision in its body.
        revision: Option<Revision>,
        /// Whether it was written; otherwise it was right already.
        written: bool,
    },
    /// The source has deleted it, and its tombstone is in the tree.
    Buried {
        /// The tombstone's revision.
        revision: Revision,
        /// Whether it was written; otherwise it was right already.
        written: bool,
    },
    /// The source has deleted it.
    Deleted {
        /// Whether it was removed; otherwise it was not in the tree.
        removed: bool,
    },
    /// The source does not know it. The tree keeps its version.
    Unknown,
    /// It could not be fetched. The tree keeps its version.
    Failed(String),
}

/// The outcome of the repair of one collection.
#[derive(Debug, Default)]
pub struct Repaired {
    /// The outcome for each document that was processed.
    pub fates: Vec<(DocumentId, Fate)>,
    /// The error that ended it early.
    pub error: Option<PipelineError>,
}

impl WrongDocument {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.differing.is_empty() && self.damaged.is_empty()
    }

    fn authority(&self, id: &DocumentId) -> Option<Authority> {
        match (self.damaged.contains(id), self.differing.contains(id)) {
            (true, _) => Some(Authority::Repair),
            (false, true) => Some(Authority::Confirmed),
            (false, false) => None,
        }
    }

    fn ids(&self) -> Vec<DocumentId> {
        let ids: HashSet<_> = self.differing.union(&self.damaged).cloned().collect();
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort();
        ids
    }
}

impl Pipeline {
    /// Fetches what is wrong again, until `stop` is cancelled: the documents in flight are finished
    /// in any case.
    pub async fn repair(
        &self,
        wrong: WrongDocument,
        asking: Asking,
        stop: &CancellationToken,
    ) -> Repaired {
        let doubt = match self.doubt() {
            Ok(doubt) => doubt,
            Err(error) => return Repaired { fates: Vec::new(), error: Some(error) },
        };
        // No round has to wait for the previous one: each is settled before the next begins.
        let (_settled, settled) = watch::channel(u64::MAX);
        let mut repair = Repair {
            pipeline: self,
            rounds: Rounds::new(self.clone(), doubt, settled, stop.clone()),
            wrong,
            batch: Batch::default(),
            told: HashMap::new(),
            places: HashMap::new(),
            fates: Vec::new(),
        };
        let result = match asking {
            Asking::Singly => repair.ask_singly(stop).await,
            Asking::ByFeed => repair.read_feed(stop).await,
        };
        Repaired { fates: repair.fates, error: result.err() }
    }
}

struct Repair<'a> {
    pipeline: &'a Pipeline,
    rounds: Rounds,
    wrong: WrongDocument,
    batch: Batch,
    /// The source's answers for the documents in the batch.
    told: HashMap<DocumentId, Answer>,
    /// The position in the feed, if the source can only be asked there.
    places: HashMap<DocumentId, Position>,
    fates: Vec<(DocumentId, Fate)>,
}

impl Repair<'_> {
    async fn ask_singly(&mut self, stop: &CancellationToken) -> Result<(), PipelineError> {
        let ids = self.wrong.ids();
        for some in ids.chunks(DOCUMENTS) {
            if stop.is_cancelled() {
                break;
            }
            for id in some {
                if let Some(authority) = self.wrong.authority(id) {
                    self.rounds.look(id.clone(), Question::Repair(authority));
                }
            }
            let known = self.fates.len();
            self.settle().await?;
            let failed = |(_, fate): &(DocumentId, Fate)| matches!(fate, Fate::Failed(_));
            if self.fates[known..].iter().all(failed)
                && let Some(error) = self.rounds.trouble()
            {
                // Requesting the others would only take longer.
                return Err(error.clone().into());
            }
        }
        Ok(())
    }

    /// Reads the feed to find the last row of each document, and again to read those rows, so that
    /// only one batch is held in memory.
    async fn read_feed(&mut self, stop: &CancellationToken) -> Result<(), PipelineError> {
        let mut last: HashMap<DocumentId, Result<Option<Position>, String>> = HashMap::new();
        let source = &self.pipeline.source;
        let policy = self.pipeline.options.retry;
        let suspects: HashSet<DocumentId> = self.wrong.ids().into_iter().collect();
        let open = || resilient(Arc::clone(source), Since::Start, Mode::CatchUp, policy);
        let mut feed = std::pin::pin!(open());
        let mut said = Said::default();
        while let Some(fed) = until(stop, feed.next()).await {
            match fed? {
                Fed::Event(FeedEvent::Change(change)) if suspects.contains(&change.id) => {
                    last.insert(change.id, Ok(change.position));
                }
                Fed::Event(FeedEvent::Unreadable(row)) => {
                    if let Some(id) = row.id.filter(|id| suspects.contains(id)) {
                        last.insert(id, Err(format!("{}: {}", row.place, row.reason)));
                    }
                }
                Fed::Event(_) => said = Said::default(),
                Fed::Waiting { error, pause } => {
                    retry::log_wait(&error, pause, policy, &mut said);
                }
            }
        }
        if stop.is_cancelled() {
            return Ok(());
        }
        let mut awaited = HashMap::new();
        for id in self.wrong.ids() {
            match last.remove(&id) {
                None => self.fates.push((id, Fate::Unknown)),
                Some(Err(reason)) => self.fates.push((id, Fate::Failed(reason))),
                Some(Ok(position)) => drop(awaited.insert(id, position)),
            }
        }
        let mut feed = std::pin::pin!(open());
        while !awaited.is_empty() {
            let Some(fed) = until(stop, feed.next()).await else { break };
            if let Fed::Event(FeedEvent::Change(change)) = fed?
                && awaited.get(&change.id) == Some(&change.position)
            {
                awaited.remove(&change.id);
                self.take(change).await?;
            }
        }
        if !stop.is_cancelled() {
            let gone = |id| (id, Fate::Failed("its row is not in the feed any more".to_owned()));
            self.fates.extend(awaited.into_keys().map(gone));
        }
        self.settle().await
    }

    /// Adds the source's answer for a document to the batch.
    async fn take(&mut self, change: Change) -> Result<(), PipelineError> {
        let Some(authority) = self.wrong.authority(&change.id) else { return Ok(()) };
        self.told.insert(change.id.clone(), Answer::of(&change));
        if let Some(place) = &change.position {
            self.places.insert(change.id.clone(), place.clone());
        }
        self.batch.push(Change { position: None, ..change }, authority);
        if self.batch.is_full() || self.told.len() >= DOCUMENTS {
            return self.settle().await;
        }
        Ok(())
    }

    /// Takes the batch, and the lookups, through the durable steps. Their outcome is only known
    /// afterwards.
    async fn settle(&mut self) -> Result<(), PipelineError> {
        let (batch, mut told) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.told));
        let mut prepared = self.rounds.whole(batch).await?;
        told.extend(std::mem::take(&mut prepared.moved_on));
        // Cancelled lookups are left to the next repair.
        told.retain(|id, _| !self.rounds.fetches(id));
        let buries = self.pipeline.collection.kept().deleted;
        let mut fates = fates(&mut prepared, &mut told, buries);
        let places = std::mem::take(&mut self.places);
        let staged = prepared.staged.iter().map(|(meta, _)| meta);
        let intents = staged.map(|meta| failures::of_repair(meta, places.get(&meta.id).cloned()));
        let intents = intents.collect();
        let mut refused = self.pipeline.settle_apart(prepared, intents).await?;
        for (id, fate) in &mut fates {
            if let Some(reason) = refused.remove(id) {
                *fate = Fate::Failed(reason);
            }
        }
        self.fates.append(&mut fates);
        Ok(())
    }
}

/// The outcome for the documents of a settled batch. A document that a repair cannot fetch is not
/// recorded as a failure: the mirror still has its old copy.
fn fates(
    prepared: &mut Prepared,
    told: &mut HashMap<DocumentId, Answer>,
    buries: bool,
) -> Vec<(DocumentId, Fate)> {
    let mut fates = Vec::new();
    for failure in std::mem::take(&mut prepared.failed) {
        if let Some(id) = failure.document {
            told.remove(&id);
            fates.push((id, Fate::Failed(failure.reason)));
        }
    }
    for id in prepared.settled.iter().filter(|id| !told.contains_key(*id)) {
        fates.push((id.clone(), Fate::Unknown));
    }
    let written: HashSet<_> = prepared.staged.iter().map(|(meta, _)| &meta.id).collect();
    for (id, told) in told.drain() {
        let written = written.contains(&id);
        let fate = match told {
            Answer::Present(revision) => Fate::Present { revision, written },
            Answer::Deleted(revision) if buries => Fate::Buried { revision, written },
            Answer::Deleted(_) => Fate::Deleted { removed: written },
        };
        fates.push((id, fate));
    }
    fates
}

/// The next item, unless `stop` is cancelled.
async fn until<T>(stop: &CancellationToken, next: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        next = next => next,
    }
}
