//! Jobs that run for documents beside the feed, and their results.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::Pulse;
use crate::document::{DocumentId, Position};
use crate::pipeline::Pipeline;
use crate::pipeline::fetch::FetchError;
use crate::pipeline::pending::Pending;
use crate::source::{Reading, SourceError};

/// The documents of one job. Each has the number of its job.
#[derive(Debug)]
pub enum Job {
    /// Documents that lack little, fetched together.
    Group(Vec<(Pending, u64)>),
    /// A document, with all that it lacks.
    Fetch(Box<Pending>, u64),
    /// A document's newest state, for sources that can only look it up at its position in the feed.
    Look(DocumentId, u64, Option<Position>),
    /// The same, to see whether the source answers at all.
    Probe(DocumentId),
}

/// Why a job was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Others wait for its place.
    Displaced,
    /// It has brought nothing for this long.
    Silent(Duration),
}

/// A job that has ended.
#[derive(Debug)]
pub struct Done {
    pub number: u64,
    pub took: Duration,
    pub came: JobResult,
}

/// The result of a job; `None` for one document if the job was cancelled.
#[derive(Debug)]
pub enum JobResult {
    Group(Vec<(Pending, u64, Result<(), FetchError>)>),
    Fetch(Box<Pending>, u64, Option<Result<(), FetchError>>),
    Look(DocumentId, u64, Option<Position>, Option<Result<Reading, SourceError>>),
    Probe(DocumentId, Option<Result<Reading, SourceError>>),
}

impl Job {
    /// The documents.
    pub fn ids(&self) -> impl Iterator<Item = &DocumentId> {
        self.numbered().map(|(id, _)| id)
    }

    /// The documents with the numbers of their jobs.
    pub fn numbered(&self) -> impl Iterator<Item = (&DocumentId, u64)> {
        let (group, one) = match self {
            Self::Group(group) => (group.as_slice(), None),
            Self::Fetch(pending, number) => (&[][..], Some((&pending.item.change.id, *number))),
            Self::Look(id, number, _) => (&[][..], Some((id, *number))),
            Self::Probe(_) => (&[][..], None),
        };
        group.iter().map(|(one, number)| (&one.item.change.id, *number)).chain(one)
    }

    /// Whether it fetches only small things.
    pub fn is_small(&self) -> bool {
        !matches!(self, Self::Fetch(pending, _) if !pending.is_small(true))
    }

    /// The bytes that it fetches, as far as they are known.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Fetch(pending, _) => pending.wanted(true).1,
            Self::Group(_) | Self::Look(..) | Self::Probe(_) => 0,
        }
    }

    /// Runs the job. A group may take this long.
    pub async fn run(
        self,
        pipeline: Pipeline,
        number: u64,
        pulse: Pulse,
        cancel: CancellationToken,
        patience: Duration,
    ) -> Done {
        let begun = Instant::now();
        let came = match self {
            Self::Group(group) => {
                let (mut group, numbers): (Vec<Pending>, Vec<u64>) = group.into_iter().unzip();
                let fetched = pipeline.fetch_small(&mut group, Some(patience), &pulse);
                let results = unless(&cancel, fetched).await;
                // After a cancellation, the missing parts count as not answered.
                let results = results.unwrap_or_else(|| group.iter().map(|_| Ok(())).collect());
                let members = group.into_iter().zip(numbers).zip(results);
                JobResult::Group(
                    members.map(|((one, number), result)| (one, number, result)).collect(),
                )
            }
            Self::Fetch(mut pending, one) => {
                let sync = pending.sync;
                let result = unless(&cancel, pipeline.fetch(&mut pending, sync, &pulse)).await;
                JobResult::Fetch(pending, one, result)
            }
            Self::Look(id, one, position) => {
                let looking = pipeline.source.document(&id, position.as_ref());
                let reading = unless(&cancel, looking).await;
                JobResult::Look(id, one, position, reading)
            }
            Self::Probe(id) => {
                let reading = unless(&cancel, pipeline.source.document(&id, None)).await;
                JobResult::Probe(id, reading)
            }
        };
        Done { number, took: begun.elapsed(), came }
    }
}

/// The result, unless the job is cancelled.
async fn unless<T>(cancel: &CancellationToken, coming: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        came = coming => Some(came),
    }
}
