//! Rounds: each takes a batch of the feed, and the results that have arrived from
//! [beside](super::beside) it, and prepares them for the disk.
//!
//! A round waits a moment for what its documents need from the source, and then continues without
//! it.

mod making;
mod round;
mod sequence;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::beside::{Fetches, Question};
use super::doubt::Doubt;
use super::prepared::Prepared;
use super::{Pipeline, PipelineError};
use crate::document::DocumentId;
use crate::source::SourceError;

use round::Round;

/// The interval at which a round checks whether there is anything to wait for.
const LOOK: Duration = Duration::from_millis(50);

/// Makes one round after the other.
pub struct Rounds {
    pipeline: Pipeline,
    beside: Fetches,
    doubt: Option<Doubt>,
    /// The documents of rounds that may not be in the tree yet, by the numbers of the rounds, oldest
    /// first.
    in_flight: VecDeque<(u64, HashSet<DocumentId>)>,
    number: u64,
    settled: watch::Receiver<u64>,
    stop: CancellationToken,
    /// Whether the end of the feed has been reached, so that a round waits only a moment.
    following: bool,
    /// Whether changes were skipped, so that they have to be read again.
    passed_over: bool,
    /// Whether the feed has been read to its end.
    read_to_end: bool,
    /// Whether all events that an interrupted run may not have emitted have been emitted.
    told: bool,
    /// Lookups from the start of the run have numbers up to this one.
    first: u64,
}

impl Rounds {
    /// Rounds of a pipeline that ends with `stop`. `settled` counts the settled rounds.
    pub fn new(
        pipeline: Pipeline,
        doubt: Option<Doubt>,
        settled: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> Self {
        let beside = Fetches::new(pipeline.clone());
        Self {
            pipeline,
            beside,
            doubt,
            in_flight: VecDeque::new(),
            number: 0,
            settled,
            stop,
            following: false,
            passed_over: false,
            read_to_end: false,
            told: false,
            first: 0,
        }
    }

    /// Makes a round of documents that do not come from the feed, and waits for everything that they
    /// need.
    pub async fn whole(&mut self, batch: Batch) -> Result<Prepared, PipelineError> {
        self.beside.finish();
        let prepared = self.prepare(batch, None, true).await?;
        // There are no earlier rounds that could have to be settled.
        self.in_flight.clear();
        Ok(prepared.unwrap_or_else(|| Round::new(0).prepared(None, Timestamp::now())))
    }

    /// The documents that are looked up for a [whole](Self::whole) round.
    pub fn look(&mut self, id: DocumentId, question: Question) {
        self.beside.look(id, question);
    }

    /// Whether a document is still being fetched.
    pub fn fetches(&self, id: &DocumentId) -> bool {
        self.beside.contains(id)
    }

    /// Why the source does not answer, if it has not answered recently.
    pub fn trouble(&self) -> Option<&SourceError> {
        self.beside.trouble()
    }
}
