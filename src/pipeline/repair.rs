//! Single documents fetched again, apart from the feed, through the same durable steps.
//!
//! The checkpoint stays where it is: what comes is the source's present word, and the feed brings
//! the same again. It must not know how it was found out that a document is wrong.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::beside::Question;
use super::prepare::Prepared;
use super::rounds::Rounds;
use super::{Pipeline, PipelineError, failures};
use crate::document::{Change, DocumentId, DocumentState, Head, Position, Revision};
use crate::mirror::Authority;
use crate::source::retry::{self, Fed, attempts, resilient};
use crate::source::{FeedEvent, Mode, Since};

/// A signal is heeded, and what came is made durable, after so many documents at the latest.
const DOCUMENTS: usize = 100;

/// What is to be fetched again.
#[derive(Clone, Debug, Default)]
pub struct Wrong {
    /// Documents that differ from the source's, and are whole.
    pub differing: HashSet<DocumentId>,
    /// Documents of which something is damaged, missing or extra: they are replaced as a whole.
    pub damaged: HashSet<DocumentId>,
}

/// How the source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// For one document after the other.
    Singly,
    /// It cannot be: its whole feed is read, twice, and the last word on each document counts.
    ByFeed,
}

/// What became of a document that was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the tree as the source has it.
    Present {
        /// The revision that its body tells.
        revision: Option<Revision>,
        /// Whether it was written; else it had come right by itself.
        written: bool,
    },
    /// The source says that it is deleted, and its tombstone is in the tree.
    Buried {
        /// The tombstone's revision.
        revision: Revision,
        /// Whether it was written; else it had come right by itself.
        written: bool,
    },
    /// The source says that it is deleted.
    Deleted {
        /// Whether it was removed; else there was no document.
        removed: bool,
    },
    /// The source does not know it. What the tree has stays.
    Unknown,
    /// It could not be had. What the tree has stays.
    Failed(String),
}

/// How a repair of one collection ended.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What became of each document that was come to.
    pub fates: Vec<(DocumentId, Fate)>,
    /// What ended it before its end.
    pub error: Option<PipelineError>,
}

impl Wrong {
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
    /// Fetches what is wrong again, until `stop`: the documents in hand are finished in any case.
    pub async fn repair(&self, wrong: Wrong, asking: Asking, stop: &CancellationToken) -> Repaired {
        let doubt = match self.doubt() {
            Ok(doubt) => doubt,
            Err(error) => return Repaired { fates: Vec::new(), error: Some(error) },
        };
        // No round has to wait for the one before it: each is settled before the next begins.
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

impl Pipeline {
    /// Fetches the security object again, and writes it whatever the tree holds. `false` where the
    /// source has none.
    pub async fn repair_security(&self) -> Result<bool, PipelineError> {
        let policy = &self.options.retry;
        let Some(security) = attempts(policy, || self.source.security()).await? else {
            return Ok(false);
        };
        self.settle_security_apart(security).await.map(|()| true)
    }
}

struct Repair<'a> {
    pipeline: &'a Pipeline,
    rounds: Rounds,
    wrong: Wrong,
    batch: Batch,
    /// What the source said of the documents in the batch.
    told: HashMap<DocumentId, Told>,
    /// Where it said so, if it can only be asked there.
    places: HashMap<DocumentId, Position>,
    fates: Vec<(DocumentId, Fate)>,
}

/// What the source said of a document.
#[derive(Debug)]
pub enum Told {
    /// It has it. The revision is the one that the body tells.
    Present(Option<Revision>),
    Deleted(Revision),
}

impl Told {
    pub fn of(change: &Change) -> Self {
        match &change.state {
            DocumentState::Deleted(_) => Self::Deleted(change.revision.clone()),
            DocumentState::Present(document) => {
                let head = Head::read(&document.body).unwrap_or_default();
                Self::Present(head.revision.as_deref().map(Revision::from))
            }
        }
    }
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
                // To ask for the others would only take longer.
                return Err(error.clone().into());
            }
        }
        Ok(())
    }

    /// Reads the feed to learn where the last word on each document stands, and again to take it
    /// from there: so no more is held than a batch.
    async fn read_feed(&mut self, stop: &CancellationToken) -> Result<(), PipelineError> {
        let mut last: HashMap<DocumentId, Result<Option<Position>, String>> = HashMap::new();
        let source = &self.pipeline.source;
        let policy = self.pipeline.options.retry;
        let suspects: HashSet<DocumentId> = self.wrong.ids().into_iter().collect();
        let open = || resilient(Arc::clone(source), Since::Start, Mode::CatchUp, policy);
        let mut feed = std::pin::pin!(open());
        let mut waiting = false;
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
                Fed::Event(_) => waiting = false,
                Fed::Waiting { error, pause } => {
                    tracing::debug!("{error}");
                    if !std::mem::replace(&mut waiting, true) {
                        let until = retry::until(pause, policy.give_up_after);
                        tracing::warn!("the source does not answer; {until}");
                    }
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

    /// Adds what the source said of a document to the batch.
    async fn take(&mut self, change: Change) -> Result<(), PipelineError> {
        let Some(authority) = self.wrong.authority(&change.id) else { return Ok(()) };
        self.told.insert(change.id.clone(), Told::of(&change));
        if let Some(place) = &change.position {
            self.places.insert(change.id.clone(), place.clone());
        }
        self.batch.push(Change { position: None, ..change }, authority);
        if self.batch.is_full() || self.told.len() >= DOCUMENTS {
            return self.settle().await;
        }
        Ok(())
    }

    /// Takes the batch, and what is looked up, through the durable steps. Only then it is known what
    /// became of it.
    async fn settle(&mut self) -> Result<(), PipelineError> {
        let (batch, mut told) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.told));
        let mut prepared = self.rounds.whole(batch).await?;
        told.extend(std::mem::take(&mut prepared.moved_on));
        // What was broken off is left to the next repair.
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

/// What becomes of the documents of a batch once it is settled. Those that failed are the caller's
/// to know, and no failures of the mirror's: what it held before, it holds still.
fn fates(
    prepared: &mut Prepared,
    told: &mut HashMap<DocumentId, Told>,
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
            Told::Present(revision) => Fate::Present { revision, written },
            Told::Deleted(revision) if buries => Fate::Buried { revision, written },
            Told::Deleted(_) => Fate::Deleted { removed: written },
        };
        fates.push((id, fate));
    }
    fates
}

/// The next of something, unless it is to stop.
async fn until<T>(stop: &CancellationToken, next: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        next = next => next,
    }
}
