//! The requests for the parts that planned writes need from the source: revisions with their
//! histories, small attachments in groups, large ones streamed into staging.
//!
//! Each function makes one attempt.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::batch::SMALL_ATTACHMENT;
use super::beside::Pulse;
use super::prepare::Pending;
use super::{Pipeline, PipelineError};
use crate::document::{Attachment, Change, Content, DocumentId, Revision};
use crate::mirror::{Blob, BranchFiles, Sync};
use crate::source::{PIECES, Reading, SourceError, Wanted, pass_on};
use crate::tree::MirrorError;

/// The number of large attachments of one document that are streamed at the same time.
const STREAMS: usize = 2;

/// The most small attachments, and the most bytes, in one request.
pub const GROUP: (usize, u64) = (100, 1024 * 1024);

/// The most revisions, and roughly the most bytes, in one request: the size of a branch is unknown,
/// so its winner's size is used.
pub const BRANCHES: (usize, usize) = (100, 2 << 20);

/// An attachment that a document lacks: the losing revision that it belongs to, as an index into the
/// list of branches, and the attachment.
struct Task {
    branch: Option<usize>,
    wanted: Wanted,
}

/// Why an attempt did not fetch everything that a document needs.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The source did not return this part.
    #[error("{what}: {error}")]
    Source {
        /// An attachment or a revision, for people.
        what: String,
        /// Why.
        error: SourceError,
    },
    /// The source has a newer revision, and no longer returns the wanted one.
    #[error("the document has changed since it was planned")]
    MovedOn(Box<Change>),
    /// An internal error.
    #[error(transparent)]
    Ours(#[from] PipelineError),
}

impl From<MirrorError> for FetchError {
    fn from(error: MirrorError) -> Self {
        Self::Ours(error.into())
    }
}

impl From<tokio::task::JoinError> for FetchError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Ours(error.into())
    }
}

impl Pipeline {
    /// Fetches the parts that a document lacks. Parts that have arrived stay with it, even if others
    /// have not.
    pub(super) async fn fetch(
        &self,
        pending: &mut Pending,
        sync: Sync,
        pulse: &Pulse,
    ) -> Result<(), FetchError> {
        let mut answers = self.fetch_small(std::slice::from_mut(pending), None, pulse).await;
        let mut worst = match answers.pop() {
            // An attachment that was refused in a group may be readable as a stream.
            None
            | Some(Ok(()) | Err(FetchError::Source { error: SourceError::Permanent { .. }, .. })) => {
                None
            }
            Some(Err(error)) => Some(error),
        };
        if let Some(revision) = pending.branches().first() {
            // Which other parts are needed is not known yet.
            let error = worst.unwrap_or_else(|| lacks(revision));
            return Err(self.or_moved_on(pending, error, pulse).await);
        }
        // Parts that were just requested and did not arrive are left to the next attempt.
        let left = |task: &Task| worst.is_none() || !is_small(&task.wanted);
        let tasks = pending.attachments(self.collection.mirrors_attachments());
        let tasks: Vec<Task> = tasks.into_iter().filter(left).collect();
        let streams = tasks.into_iter().map(|task| async move {
            let blob = self.fetch_large(&task.wanted, sync, pulse).await;
            (task, blob)
        });
        let mut streams = stream::iter(streams).buffer_unordered(STREAMS).boxed();
        while let Some((task, blob)) = streams.next().await {
            match blob {
                Ok(blob) => pending.take(task.branch, task.wanted.attachment.name, blob),
                Err(error @ FetchError::Ours(_)) => return Err(error),
                Err(error) => _ = worst.get_or_insert(error),
            }
        }
        drop(streams);
        match worst {
            Some(error) => Err(self.or_moved_on(pending, error, pulse).await),
            None => Ok(()),
        }
    }

    /// Fetches the revisions and the small attachments that the documents of a group lack, with a
    /// result for each document. A request that takes longer than `patience` fails.
    pub(super) async fn fetch_small(
        &self,
        group: &mut [Pending],
        patience: Option<Duration>,
        pulse: &Pulse,
    ) -> Vec<Result<(), FetchError>> {
        let mut outcomes: Vec<Result<(), FetchError>> = group.iter().map(|_| Ok(())).collect();
        let branches: Vec<(usize, (DocumentId, Revision))> = of_all(group, |one| {
            let id = &one.item.change.id;
            one.branches().into_iter().map(|revision| (id.clone(), revision)).collect()
        });
        let sizes =
            |owner: usize| group.get(owner).map_or(0, |one| one.item.change.weight() as u64);
        let limits = (BRANCHES.0, BRANCHES.1 as u64);
        for part in parts(branches, limits, |(owner, _)| sizes(*owner)) {
            let (owners, wanted): (Vec<_>, Vec<_>) = part.into_iter().unzip();
            let answers = within(patience, self.source.many_branches(&wanted)).await;
            let answers = spread(answers, wanted.len());
            for ((owner, answer), (_, revision)) in owners.into_iter().zip(answers).zip(wanted) {
                match answer {
                    Ok(branch) => {
                        pulse.beat();
                        self.reporter.ear().hear();
                        let files = BranchFiles { branch, blobs: Default::default() };
                        group[owner].material.branches.push(files);
                    }
                    Err(error) => {
                        let what = format!("revision {revision}");
                        note(&mut outcomes[owner], FetchError::Source { what, error });
                    }
                }
            }
        }
        let with_branches = self.collection.mirrors_attachments();
        let small = |one: &Pending| {
            let tasks = one.attachments(with_branches).into_iter();
            tasks.filter(|task| is_small(&task.wanted)).collect()
        };
        let tasks: Vec<(usize, Task)> = of_all(group, small);
        let length = |(_, task): &(usize, Task)| task.wanted.attachment.length.unwrap_or_default();
        for part in parts(tasks, GROUP, length) {
            let wanted: Vec<Wanted> = part.iter().map(|(_, task)| task.wanted.clone()).collect();
            let answers = within(patience, self.source.many_attachments(&wanted)).await;
            for ((owner, task), answer) in part.into_iter().zip(spread(answers, wanted.len())) {
                let name = task.wanted.attachment.name;
                match answer {
                    Ok(bytes) => {
                        pulse.beat();
                        self.reporter.ear().hear();
                        group[owner].take(task.branch, name, Blob::Bytes(bytes));
                    }
                    Err(error) => {
                        let what = format!("attachment `{name}`");
                        note(&mut outcomes[owner], FetchError::Source { what, error });
                    }
                }
            }
        }
        outcomes
    }

    /// The error; or, if a part no longer exists, the newest state of a document that has changed
    /// since: stores forget old revisions.
    async fn or_moved_on(&self, pending: &Pending, error: FetchError, pulse: &Pulse) -> FetchError {
        let is_missing =
            matches!(&error, FetchError::Source { error: SourceError::Missing { .. }, .. });
        // If a newer state is known, none has to be requested.
        if !is_missing || pulse.is_superseded() {
            return error;
        }
        let change = &pending.item.change;
        match self.source.document(&change.id, None).await {
            Ok(Reading::Found(newest))
                if newest.revision != change.revision
                    || (newest.others.is_some() && newest.others != change.others) =>
            {
                FetchError::MovedOn(Box::new(newest))
            }
            // After any other answer, the wanted revision is requested again, and that answer
            // decides.
            _ => error,
        }
    }

    /// Streams an attachment into a file of staging.
    async fn fetch_large(
        &self,
        wanted: &Wanted,
        sync: Sync,
        pulse: &Pulse,
    ) -> Result<Blob, FetchError> {
        let Wanted { id, revision, attachment } = wanted;
        let of_source = |error| {
            let what = format!("attachment `{}`", attachment.name);
            FetchError::Source { what, error }
        };
        let pieces = self.source.attachment(id, revision, attachment).await.map_err(of_source)?;
        let (beating, ear) = (pulse.clone(), self.reporter.ear().clone());
        let beat = move |piece: &Result<Bytes, SourceError>| {
            beating.beat_for(piece.as_ref().map_or(0, |piece| piece.len() as u64));
            if piece.is_ok() {
                ear.hear();
            }
        };
        let pieces = pieces.inspect(beat).boxed();
        let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
        let collection = self.collection.clone();
        let writing = spawn_blocking(move || {
            let mut writer = collection.blob_writer()?;
            while let Some(piece) = receiver.blocking_recv() {
                writer.write(&piece)?;
            }
            Ok::<_, MirrorError>(writer)
        });
        let passed = pass_on(pieces, sender).await;
        let writer = writing.await??;
        // If it is unfinished, its file is removed with the writer.
        passed.map_err(of_source)?;
        Ok(spawn_blocking(move || writer.finish(sync)).await??)
    }
}

impl Pending {
    /// Adds the bytes of an attachment.
    fn take(&mut self, branch: Option<usize>, name: Arc<str>, blob: Blob) {
        let blobs = match branch {
            None => Some(&mut self.material.blobs),
            Some(at) => self.material.branches.get_mut(at).map(|branch| &mut branch.blobs),
        };
        if let Some(blobs) = blobs {
            blobs.insert(name, blob);
        }
    }

    /// Adds the attachments that came with the document.
    pub fn take_inline(&mut self, with_branches: bool) {
        for task in self.attachments(with_branches) {
            if let Content::Inline(bytes) = task.wanted.attachment.content {
                self.take(task.branch, task.wanted.attachment.name, Blob::Bytes(bytes));
            }
        }
    }

    /// Whether nothing more is needed from the source.
    pub fn is_complete(&self, with_branches: bool) -> bool {
        self.branches().is_empty() && self.attachments(with_branches).is_empty()
    }

    /// Whether all known missing parts are small, so that they may be requested in a group.
    pub fn is_small(&self, with_branches: bool) -> bool {
        self.attachments(with_branches).iter().all(|task| is_small(&task.wanted))
    }

    /// The number and the bytes of the missing attachments, as far as they are known.
    pub fn wanted(&self, with_branches: bool) -> (usize, u64) {
        let tasks = self.attachments(with_branches);
        let lengths = tasks.iter().filter_map(|task| task.wanted.attachment.length);
        (tasks.len(), lengths.fold(0, u64::saturating_add))
    }

    /// The missing revisions.
    pub fn branches(&self) -> Vec<Revision> {
        let known = self.material.branches.iter().map(|files| &files.branch.revision);
        let known: HashSet<&Revision> = known.collect();
        self.write.branches.iter().filter(|wanted| !known.contains(wanted)).cloned().collect()
    }

    /// The missing attachments.
    fn attachments(&self, with_branches: bool) -> Vec<Task> {
        let (id, revision) = (&self.item.change.id, &self.item.change.revision);
        let task = |branch, revision: &Revision, attachment: &Attachment| Task {
            branch,
            wanted: Wanted {
                id: id.clone(),
                revision: revision.clone(),
                attachment: attachment.clone(),
            },
        };
        let lacks = |attachment: &&Attachment| !self.material.blobs.contains_key(&attachment.name);
        let of_winner = self.write.fetch.iter().filter(lacks);
        let mut tasks: Vec<Task> = of_winner.map(|one| task(None, revision, one)).collect();
        if !with_branches {
            return tasks;
        }
        // Only the history of the winner is written: its attachments are in the plan.
        let others = self.material.branches.iter().enumerate();
        for (at, files) in others.filter(|(_, files)| files.branch.revision != *revision) {
            let attachments = files.branch.document.attachments.iter();
            let lacks = attachments.filter(|one| !files.blobs.contains_key(&one.name));
            tasks.extend(lacks.map(|one| task(Some(at), &files.branch.revision, one)));
        }
        tasks
    }
}

fn is_small(wanted: &Wanted) -> bool {
    wanted.attachment.length.is_some_and(|length| length <= SMALL_ATTACHMENT)
}

fn lacks(revision: &Revision) -> FetchError {
    let error = SourceError::transient("the source answered nothing");
    FetchError::Source { what: format!("revision {revision}"), error }
}

/// Records the first error of a document. An internal error takes precedence.
fn note(outcome: &mut Result<(), FetchError>, error: FetchError) {
    if outcome.is_ok() {
        *outcome = Err(error);
    }
}

/// The missing parts of each document of a group, with the document's index in the group.
fn of_all<T>(group: &[Pending], wants: impl Fn(&Pending) -> Vec<T>) -> Vec<(usize, T)> {
    let each = group.iter().enumerate();
    each.flat_map(|(owner, one)| wants(one).into_iter().map(move |want| (owner, want))).collect()
}

/// Splits into parts with at most this number of items, and this total size; at least one item each.
fn parts<T>(things: Vec<T>, most: (usize, u64), size: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = Vec::new();
    let mut sum = 0_u64;
    for thing in things {
        let more = size(&thing);
        match parts.last_mut() {
            Some(part) if part.len() < most.0 && sum.saturating_add(more) <= most.1 => {
                part.push(thing);
                sum += more;
            }
            _ => {
                parts.push(vec![thing]);
                sum = more;
            }
        }
    }
    parts
}

/// A request with a time limit.
async fn within<T>(
    patience: Option<Duration>,
    request: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let Some(patience) = patience else { return request.await };
    let late = |_| Err(SourceError::transient(format!("no answer within {patience:?}")));
    tokio::time::timeout(patience, request).await.unwrap_or_else(late)
}

/// The answers to a request for several items, one for each. An item without an answer must not be
/// skipped, and an error of the request may be caused by any of them.
fn spread<T>(
    answers: Result<Vec<Result<T, SourceError>>, SourceError>,
    wanted: usize,
) -> Vec<Result<T, SourceError>> {
    match answers {
        Ok(mut answers) => {
            answers
                .resize_with(wanted, || Err(SourceError::transient("the source answered nothing")));
            answers
        }
        Err(error) => (0..wanted).map(|_| Err(error.clone())).collect(),
    }
}
