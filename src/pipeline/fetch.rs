//! Getting the bytes of attachments: small ones many at a time, large ones streamed into staging.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::batch::{Item, SMALL_ATTACHMENT};
use super::failures;
use super::prepare::{Pending, blame};
use super::{Pipeline, PipelineError};
use crate::checkpoint::Failure;
use crate::document::{Attachment, Change, Content, DocumentId};
use crate::mirror::{Blob, MirrorError, Sync};
use crate::source::retry::{RetryPolicy, attempts};
use crate::source::{PIECES, Reading, SourceError, Wanted, pass_on};

/// So many requests for attachments run at once.
const CONCURRENCY: usize = 4;
/// A request for small attachments asks for at most so many, and so many bytes.
const GROUP: (usize, u64) = (100, 1024 * 1024);
/// What came of fetching.
#[derive(Default)]
pub struct Fetched {
    pub complete: Vec<Pending>,
    pub failed: Vec<Failure>,
    /// Documents of which something is gone because there is a newer revision: as they are now.
    pub moved_on: Vec<Item>,
}

/// An attachment that is fetched: whose it is, as a place in the list of pending writes and, where
/// it is not the winner's, in the branches of one; and which.
struct Task {
    owner: usize,
    branch: Option<usize>,
    wanted: Wanted,
}

/// One request, or a few for a large attachment.
enum Job {
    Small(Vec<Task>),
    Large(Task),
}

/// After so many tries in a row, of different attachments, that failed for a transient reason, the
/// source is not asked for more of a batch: it is the source that fails, and each try takes seconds.
const TROUBLE: usize = 8;

/// Transient failures in a row, and the last of them.
#[derive(Default)]
struct Trouble(Mutex<(usize, Option<SourceError>)>);

impl Trouble {
    fn note<T>(&self, answer: Result<T, FetchError>) -> Result<T, FetchError> {
        if let Ok(mut trouble) = self.0.lock() {
            match &answer {
                Ok(_) => *trouble = (0, None),
                Err(FetchError::Source(error @ SourceError::Transient { .. })) => {
                    *trouble = (trouble.0 + 1, Some(error.clone()));
                }
                Err(_) => {}
            }
        }
        answer
    }

    /// Why no more attachments are requested, if that is so. The source's errors for other
    /// attachments do not concern this one and are not repeated.
    fn reason(&self) -> Option<SourceError> {
        let trouble = self.0.lock().ok()?;
        let last = trouble.1.as_ref().filter(|_| trouble.0 >= TROUBLE)?;
        Some(not_asked_for(trouble.0, "attachments", last))
    }
}

type Outcome = (Task, Result<Blob, FetchError>);

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    #[error("the document has changed since")]
    MovedOn(Box<Change>),
}

impl Pipeline {
    /// Fetches what the writes in `pending` lack. A document of which an attachment cannot be had
    /// fails alone; when the source itself breaks, so does the batch, unless the document is a
    /// known suspect.
    pub(super) async fn fetch(
        &self,
        mut pending: Vec<Pending>,
        suspects: &HashSet<DocumentId>,
        sync: Sync,
    ) -> Result<Fetched, PipelineError> {
        let jobs = jobs(&mut pending, self.collection.mirrors_attachments());
        let trouble = Trouble::default();
        let mut outcomes = stream::iter(jobs)
            .map(|job| self.fetch_job(job, sync, &trouble))
            .buffer_unordered(CONCURRENCY)
            .boxed();
        let mut failures_of: HashMap<usize, Failure> = HashMap::new();
        let mut moved_on: HashMap<usize, Change> = HashMap::new();
        let mut interrupted = None;
        while let Some(outcomes) = outcomes.next().await {
            for (Task { owner, branch, wanted }, outcome) in outcomes {
                match outcome {
                    Ok(blob) => pending[owner].take(branch, wanted.attachment.name, blob),
                    Err(FetchError::Mirror(error)) => {
                        let reason = blame(&self.collection, error)?;
                        let failure = failures::of_change(&pending[owner].item.change, reason);
                        failures_of.entry(owner).or_insert(failure);
                    }
                    Err(FetchError::Task(error)) => return Err(error.into()),
                    Err(FetchError::MovedOn(change)) => _ = moved_on.insert(owner, *change),
                    Err(FetchError::Source(error)) => {
                        let suspect = suspects.contains(&wanted.id);
                        let name = wanted.attachment.name.escape_debug();
                        let what = format!("attachment `{name}`");
                        match judge(&pending[owner].item.change, &what, error, suspect) {
                            Ok(failure) => _ = failures_of.entry(owner).or_insert(failure),
                            Err(error) => interrupted = Some(both(interrupted, error)?),
                        }
                    }
                }
            }
        }
        drop(outcomes);
        if let Some(error) = interrupted {
            return Err(error);
        }
        let mut fetched = Fetched::default();
        for (owner, Pending { item, write, material }) in pending.into_iter().enumerate() {
            match (moved_on.remove(&owner), failures_of.remove(&owner)) {
                (None, None) => {
                    fetched.complete.push(Pending { item, write, material });
                    continue;
                }
                (Some(newer), _) => {
                    let change = Change { position: item.change.position, ..newer };
                    let authority = item.authority.confirmed();
                    fetched.moved_on.push(Item { change, authority, fed: item.fed });
                }
                (None, Some(failure)) => fetched.failed.push(failure),
            }
            let branches = material.branches.into_iter();
            let blobs = branches.flat_map(|branch| branch.blobs.into_values());
            for blob in material.blobs.into_values().chain(blobs) {
                self.collection.discard(blob)?;
            }
        }
        Ok(fetched)
    }

    async fn fetch_job(&self, job: Job, sync: Sync, trouble: &Trouble) -> Vec<Outcome> {
        match job {
            Job::Small(tasks) => self.fetch_small(tasks, sync, trouble).await,
            Job::Large(task) => {
                let outcome = self.stream(&task, sync, trouble).await;
                vec![(task, outcome)]
            }
        }
    }

    /// Streams an attachment, patiently.
    async fn stream(&self, task: &Task, sync: Sync, trouble: &Trouble) -> Result<Blob, FetchError> {
        if let Some(error) = trouble.reason() {
            return Err(error.into());
        }
        let fetch = || self.unless_moved_on(task, self.fetch_large(&task.wanted, sync));
        trouble.note(loop_until(&self.options.retry, fetch).await)
    }

    /// Fetches a group in one request, and tries again, one by one, what that did not bring.
    async fn fetch_small(&self, tasks: Vec<Task>, sync: Sync, trouble: &Trouble) -> Vec<Outcome> {
        let wanted: Vec<Wanted> = tasks.iter().map(|task| task.wanted.clone()).collect();
        let policy = &self.options.retry;
        if let Some(error) = trouble.reason() {
            let spared = |task| (task, Err(error.clone().into()));
            return tasks.into_iter().map(spared).collect();
        }
        let answers = match attempts(policy, || self.source.attachments(&wanted)).await {
            Ok(answers) => one_each(answers, tasks.len()),
            Err(error) => vec![Err(of_group(error, tasks.len())); tasks.len()],
        };
        let mut outcomes = Vec::with_capacity(tasks.len());
        for (task, answer) in tasks.into_iter().zip(answers) {
            let bytes = match answer {
                Err(SourceError::Missing { .. } | SourceError::Transient { .. }) => {
                    match trouble.reason() {
                        Some(error) => Err(error.into()),
                        None => {
                            let fetch =
                                || self.unless_moved_on(&task, self.fetch_one(&task.wanted));
                            trouble.note(loop_until(policy, fetch).await)
                        }
                    }
                }
                answer => answer.map_err(FetchError::from),
            };
            let outcome = match bytes {
                // What is not to be had at once may be had as a stream.
                Err(FetchError::Source(SourceError::Permanent { .. })) => {
                    self.stream(&task, sync, trouble).await
                }
                bytes => bytes.map(Blob::Bytes),
            };
            outcomes.push((task, outcome));
        }
        outcomes
    }

    /// Fetches; where something is not there, asks whether the document has changed since: stores
    /// forget old revisions.
    async fn unless_moved_on<T>(
        &self,
        task: &Task,
        fetch: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let missing = match (fetch.await, task.branch) {
            (Err(missing @ FetchError::Source(SourceError::Missing { .. })), None) => missing,
            (fetched, _) => return fetched,
        };
        match self.source.document(&task.wanted.id, None).await {
            Ok(Reading::Found(change)) if change.revision != task.wanted.revision => {
                Err(FetchError::MovedOn(Box::new(change)))
            }
            // Whatever else it says, what is wanted is asked for again, and that tells.
            _ => Err(missing),
        }
    }

    async fn fetch_one(&self, wanted: &Wanted) -> Result<Bytes, FetchError> {
        let answers = self.source.attachments(std::slice::from_ref(wanted)).await?;
        Ok(one_each(answers, 1).swap_remove(0)?)
    }

    /// Streams an attachment into a file of staging.
    async fn fetch_large(&self, wanted: &Wanted, sync: Sync) -> Result<Blob, FetchError> {
        let Wanted { id, revision, attachment } = wanted;
        let pieces = self.source.attachment(id, revision, attachment).await?;
        let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
        let collection = self.collection.clone();
        let writing = spawn_blocking(move || {
            let mut writer = collection.blob_writer()?;
            while let Some(piece) = receiver.blocking_recv() {
                if let Err(error) = writer.write(&piece) {
                    // Should this fail too, the next start removes it.
                    let _ = writer.abandon();
                    return Err(error);
                }
            }
            Ok::<_, MirrorError>(writer)
        });
        let passed = pass_on(pieces, sender).await;
        let writer = writing.await??;
        match passed {
            Ok(()) => Ok(spawn_blocking(move || writer.finish(sync)).await??),
            Err(error) => {
                writer.abandon()?;
                Err(error.into())
            }
        }
    }
}

impl Pending {
    /// Puts the bytes of an attachment into their place.
    fn take(&mut self, branch: Option<usize>, name: Arc<str>, blob: Blob) {
        let blobs = match branch {
            None => Some(&mut self.material.blobs),
            Some(at) => self.material.branches.get_mut(at).map(|branch| &mut branch.blobs),
        };
        if let Some(blobs) = blobs {
            blobs.insert(name, blob);
        }
    }

    /// The attachments of the branches that are written, each with the place of its branch.
    fn of_branches(&self) -> impl Iterator<Item = (usize, Wanted)> {
        // Of the winner the history alone is written: its attachments are in the plan.
        let others = self.material.branches.iter().map(|files| &files.branch).enumerate();
        let others = others.filter(|(_, branch)| branch.revision != self.item.change.revision);
        others.flat_map(|(at, branch)| {
            let wanted = |attachment: &Attachment| Wanted {
                id: self.item.change.id.clone(),
                revision: branch.revision.clone(),
                attachment: attachment.clone(),
            };
            branch.document.attachments.iter().map(move |attachment| (at, wanted(attachment)))
        })
    }
}

/// Sorts what the writes lack into requests. What is at hand already is put into its place.
fn jobs(pending: &mut [Pending], with_branches: bool) -> Vec<Job> {
    let mut jobs = Vec::new();
    let (mut group, mut group_bytes) = (Vec::new(), 0);
    for (owner, one) in pending.iter_mut().enumerate() {
        let of_winner = |attachment: &Attachment| Task {
            owner,
            branch: None,
            wanted: Wanted {
                id: one.item.change.id.clone(),
                revision: one.item.change.revision.clone(),
                attachment: attachment.clone(),
            },
        };
        let mut tasks: Vec<Task> = one.write.fetch.iter().map(of_winner).collect();
        if with_branches {
            let task = |(at, wanted)| Task { owner, branch: Some(at), wanted };
            tasks.extend(one.of_branches().map(task));
        }
        for task in tasks {
            let attachment = &task.wanted.attachment;
            if let Content::Inline(bytes) = &attachment.content {
                let (name, blob) = (Arc::clone(&attachment.name), Blob::Bytes(bytes.clone()));
                one.take(task.branch, name, blob);
                continue;
            }
            match attachment.length.filter(|length| *length <= SMALL_ATTACHMENT) {
                None => jobs.push(Job::Large(task)),
                Some(length) => {
                    if group.len() >= GROUP.0 || group_bytes + length > GROUP.1 {
                        jobs.push(Job::Small(std::mem::take(&mut group)));
                        group_bytes = 0;
                    }
                    group.push(task);
                    group_bytes += length;
                }
            }
        }
    }
    if !group.is_empty() {
        jobs.push(Job::Small(group));
    }
    jobs
}

/// The answers to a request for so many things, each of which gets one: what a source says nothing of
/// must not be passed over.
pub fn one_each<T>(
    mut answers: Vec<Result<T, SourceError>>,
    wanted: usize,
) -> Vec<Result<T, SourceError>> {
    let lost = || Err(SourceError::transient("the source answered nothing"));
    answers.resize_with(wanted, lost);
    answers
}

/// The error for an item that was not requested, because the source failed for `others` items in a
/// row.
pub fn not_asked_for(others: usize, of_what: &str, last: &SourceError) -> SourceError {
    let what = format!(
        "not requested, because the source failed for {others} other {of_what} in a row; the next \
         attempt requests it"
    );
    let retry_after = match last {
        SourceError::Transient { retry_after, .. } => *retry_after,
        _ => None,
    };
    SourceError::Transient { what, retry_after }
}

/// The error of a request for several items, as the error of each: any of them may have caused it.
pub fn of_group(error: SourceError, things: usize) -> SourceError {
    let others = match things {
        0 | 1 => return error,
        2 => "1 other".to_owned(),
        more => format!("{} others", more - 1),
    };
    let of = |what| format!("the request for it and for {others} failed: {what}");
    match error {
        SourceError::Transient { what, retry_after } => {
            SourceError::Transient { what: of(what), retry_after }
        }
        SourceError::Missing { what } => SourceError::Missing { what: of(what) },
        SourceError::Permanent { what } => SourceError::Permanent { what: of(what) },
        // These concern the collection.
        error @ (SourceError::Expired { .. } | SourceError::Refused { .. }) => error,
    }
}

/// What a source's error means for the document that `what` belongs to.
pub fn judge(
    change: &Change,
    what: &str,
    error: SourceError,
    suspect: bool,
) -> Result<Failure, PipelineError> {
    match error {
        SourceError::Refused { .. } => Err(error.into()),
        SourceError::Transient { .. } if !suspect => {
            Err(PipelineError::Interrupted { documents: HashSet::from([change.id.clone()]), error })
        }
        error => Ok(failures::of_change(change, format!("{what}: {error}"))),
    }
}

/// Two interruptions as one, which names the documents of both. Any other error comes back.
pub fn both(
    known: Option<PipelineError>,
    new: PipelineError,
) -> Result<PipelineError, PipelineError> {
    match (known, new) {
        (
            Some(PipelineError::Interrupted { mut documents, error }),
            PipelineError::Interrupted { documents: more, .. },
        ) => {
            documents.extend(more);
            Ok(PipelineError::Interrupted { documents, error })
        }
        (_, new @ PipelineError::Interrupted { .. }) => Ok(new),
        (_, other) => Err(other),
    }
}

/// [`attempts`] for an operation that may also fail on our side, which is final.
async fn loop_until<T, F>(
    policy: &RetryPolicy,
    mut request: impl FnMut() -> F,
) -> Result<T, FetchError>
where
    F: Future<Output = Result<T, FetchError>>,
{
    attempts(policy, || {
        let request = request();
        async {
            match request.await {
                Err(FetchError::Source(error)) => Err(error),
                other => Ok(other),
            }
        }
    })
    .await?
}
