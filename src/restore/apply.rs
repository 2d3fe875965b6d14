//! Carries out the plan: collection by collection, several batches at the same time.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::blocking::blocking;
use super::control::{Control, count};
use super::gate::Gate;
use super::plan::{Branches, Decision, Held, Ours, decide};
use super::read::{Batch, batches};
use super::selection::{ids_among, is_replicator, named};
use super::target::{Cause, Form, Item, Refused, Standing, Target, TargetError, Writing};
use super::{Counts, OnExisting, Options, Outcome, Report, RestoreError, RestoreFailure};
use crate::archive::{Archive, Entry, StoredCollection};
use crate::document::{CollectionName, DocumentId, Revision};

/// The most branches that are ended in one request, unless a single document has more.
const MAX_ENDS: usize = 2_000;

/// A restore of an archive to a target.
pub struct Restore<T> {
    target: Arc<T>,
    options: Options,
    control: Control,
}

/// One collection being restored.
struct CollectionRestore {
    collection: Arc<dyn StoredCollection>,
    /// The source of its documents: the collection, or its deleted documents.
    parts: Vec<Arc<dyn StoredCollection>>,
    name: CollectionName,
    standing: Standing,
    gate: Gate,
}

/// A collection that is being read.
struct Reading {
    batches: mpsc::Receiver<Batch>,
    /// The number of batches.
    task: JoinHandle<Result<u64, RestoreError>>,
    /// The number of documents that were skipped because they would start replications.
    replications: Arc<AtomicU64>,
}

/// The outcome of a batch.
#[derive(Default)]
struct BatchOutcome {
    counts: Counts,
    failures: Vec<RestoreFailure>,
}

impl<T: Target + 'static> Restore<T> {
    /// A restore to this target. It has not started.
    pub fn new(target: T, options: Options) -> Self {
        Self { target: Arc::new(target), options, control: Control::default() }
    }

    /// The same, with a control.
    pub fn controlled(self, control: Control) -> Self {
        Self { control, ..self }
    }

    /// Restores the archive. It writes nothing before it has checked all targets.
    pub async fn run(mut self, archive: Arc<dyn Archive>) -> Result<Outcome, RestoreError> {
        let (collections, problems) = blocking(move || archive.collections()).await??;
        let mut outcome = Outcome { dry_run: self.options.dry_run, ..Outcome::default() };
        for problem in problems {
            outcome.fail(RestoreFailure { path: problem.path, reason: problem.reason });
        }
        let stop = self.control.stop.clone();
        let looked = tokio::select! {
            () = stop.cancelled() => None,
            courses = self.look(collections) => Some(courses?),
        };
        outcome.interrupted = looked.is_none();
        if let (Some(ids), Some(courses)) = (self.options.ids.take(), &looked) {
            self.options.ids =
                Some(ids_among(ids, courses.iter().map(|one| &one.collection)).await?);
        }
        let mut hollow = Vec::new();
        for course in looked.unwrap_or_default() {
            if !outcome.interrupted {
                outcome.interrupted = self.restore(course, &mut outcome, &mut hollow).await?;
            }
        }
        // If there is nothing to restore at all, no database is created either.
        if !outcome.interrupted && (self.options.allow_empty || !outcome.is_empty()) {
            for (at, gate) in hollow {
                let mut report = outcome.collections[at].clone();
                self.open_gate(&gate, &mut report, &mut outcome).await?;
                outcome.collections[at] = report;
            }
        }
        if !self.options.dry_run && !outcome.interrupted {
            self.target.finish().await?;
        }
        Ok(outcome)
    }

    /// Checks whether the target allows the restore.
    async fn look(
        &self,
        collections: Vec<Arc<dyn StoredCollection>>,
    ) -> Result<Vec<CollectionRestore>, RestoreError> {
        let mut courses = Vec::new();
        for (collection, name) in named(&self.options, collections)? {
            let standing = self.target.standing(&name).await?;
            if standing == Standing::Present && self.mode() == OnExisting::Refuse {
                self.look_for_others(&collection, &name).await?;
            }
            let accept = self.options.accept_unchecked;
            let gate = Gate::look(&*self.target, &collection, &name, standing, self.mode(), accept)
                .await?;
            let parts = self.parts(&collection).await?;
            courses.push(CollectionRestore { collection, parts, name, standing, gate });
        }
        Ok(courses)
    }

    fn mode(&self) -> OnExisting {
        match self.options.undelete {
            Some(_) => OnExisting::Undelete,
            None => self.options.on_existing,
        }
    }

    /// The source of a collection's documents.
    async fn parts(
        &self,
        collection: &Arc<dyn StoredCollection>,
    ) -> Result<Vec<Arc<dyn StoredCollection>>, RestoreError> {
        let collection = Arc::clone(collection);
        let undelete = self.options.undelete.clone();
        blocking(move || match undelete {
            None => Ok(vec![collection]),
            Some(undelete) => {
                let held = undelete.held.get(collection.name()).cloned().unwrap_or_default();
                Ok(collection.deleted(&held, undelete.since)?)
            }
        })
        .await?
    }

    /// Refuses a target that holds documents that differ from the mirror. Documents that an
    /// interrupted restore wrote there are no obstacle.
    async fn look_for_others(
        &self,
        collection: &Arc<dyn StoredCollection>,
        name: &CollectionName,
    ) -> Result<(), RestoreError> {
        let mut after: Option<DocumentId> = None;
        let mut ends = HashSet::new();
        loop {
            let page = self.target.list(name, after.as_ref()).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            if !ends.insert(last.clone()) {
                let place = self.target.place(name);
                let what = format!("{place} repeats its list of documents: `{last}` came twice");
                return Err(TargetError::permanent(Cause::Unusable, what).into());
            }
            after = Some(last.clone());
            let tree = Arc::clone(collection);
            let other = blocking(move || first_other(&*tree, page)).await??;
            if let Some((id, revision)) = other {
                let what = format!("`{id}` in revision {revision}");
                return Err(RestoreError::NotEmpty { target: self.target.place(name), what });
            }
        }
    }

    /// Restores a collection; says whether it was stopped early. A collection without anything to
    /// write is noted as `hollow`, by its index in the outcome.
    async fn restore(
        &self,
        course: CollectionRestore,
        outcome: &mut Outcome,
        hollow: &mut Vec<(usize, Gate)>,
    ) -> Result<bool, RestoreError> {
        if self.control.stop.is_cancelled() {
            return Ok(true);
        }
        let CollectionRestore { collection, parts, name, standing, gate } = course;
        let mut report = Report {
            collection: collection.name().to_string(),
            renamed: name.to_string(),
            security_kept: gate.keeps_theirs,
            ..Report::default()
        };
        report.take(gate.failure.clone(), outcome);
        let all = self.options.ids.is_none() && self.options.undelete.is_none();
        let total = match self.control.is_watched() && all {
            true => {
                let counted = Arc::clone(&collection);
                Some(blocking(move || count(&*counted)).await??)
            }
            false => None,
        };
        self.control.begin(&report, total);
        let mut reading = self.read(parts, &name);
        let mut has_documents = true;
        let interrupted = match self.open(&mut reading, &gate, &mut report, outcome).await? {
            ControlFlow::Break(interrupted) => interrupted,
            ControlFlow::Continue(first) => {
                has_documents = first.iter().any(|batch| !batch.items.is_empty());
                self.write(reading, first, (&name, standing), &mut report, outcome).await?
            }
        };
        self.control.tell(&report, true);
        tracing::debug!(
            "{}: {} created, {} replaced, {} skipped, {} problems",
            self.target.place(&name),
            report.counts.create,
            report.counts.replace,
            report.counts.skip,
            report.problems
        );
        if all && !has_documents && report.is_empty() {
            hollow.push((outcome.collections.len(), gate));
        }
        outcome.collections.push(report);
        Ok(interrupted)
    }

    /// Starts reading a collection.
    fn read(&self, parts: Vec<Arc<dyn StoredCollection>>, name: &CollectionName) -> Reading {
        let (sender, batches_read) = mpsc::channel::<Batch>(1);
        let (ids, stubs) = (self.options.ids.clone(), self.target.stubs());
        let accept = self.options.accept_unchecked;
        let starts_replications = self.target.takes_branches()
            && !self.options.with_replications
            && is_replicator(name.as_str());
        let replications: Arc<AtomicU64> = Arc::default();
        let passed = Arc::clone(&replications);
        let task = tokio::task::spawn_blocking(move || {
            let wants = |id: &DocumentId| {
                if !ids.as_ref().is_none_or(|ids| ids.matches(id.as_str())) {
                    return false;
                }
                let replicates = starts_replications && !id.as_str().starts_with("_design/");
                passed.fetch_add(u64::from(replicates), Ordering::Relaxed);
                !replicates
            };
            let mut read = 0_u64;
            for part in parts {
                batches(&part, stubs, &wants, accept, &mut |batch| {
                    read += 1;
                    sender.blocking_send(batch).is_ok()
                })?;
            }
            Ok::<_, RestoreError>(read)
        });
        Reading { batches: batches_read, task, replications }
    }

    /// Prepares the target as soon as there is something to write. Returns the first batch; or, if
    /// nothing is to be written, whether it was stopped.
    async fn open(
        &self,
        reading: &mut Reading,
        gate: &Gate,
        report: &mut Report,
        outcome: &mut Outcome,
    ) -> Result<ControlFlow<bool, Vec<Batch>>, RestoreError> {
        let mut first = Vec::new();
        loop {
            let batch = tokio::select! {
                biased;
                () = self.control.stop.cancelled() => return Ok(ControlFlow::Break(true)),
                batch = reading.batches.recv() => batch,
            };
            let Some(batch) = batch else { return Ok(ControlFlow::Continue(first)) };
            let has_documents = !batch.items.is_empty();
            first.push(batch);
            if has_documents {
                break;
            }
        }
        match self.open_gate(gate, report, outcome).await? {
            true => Ok(ControlFlow::Continue(first)),
            false => Ok(ControlFlow::Break(false)),
        }
    }

    /// Creates the collection at the target and sets its security object; says whether documents may
    /// be written.
    async fn open_gate(
        &self,
        gate: &Gate,
        report: &mut Report,
        outcome: &mut Outcome,
    ) -> Result<bool, RestoreError> {
        if !self.options.dry_run {
            let opened = gate.open(&*self.target).await?;
            opened.failures.into_iter().for_each(|one| report.take(Some(one), outcome));
            if !opened.open {
                report.refused = true;
                return Ok(false);
            }
        }
        report.security = gate.secures() && self.target.takes_branches();
        Ok(true)
    }

    /// Writes the batches; says whether it was stopped early.
    async fn write(
        &self,
        reading: Reading,
        first: Vec<Batch>,
        (name, standing): (&CollectionName, Standing),
        report: &mut Report,
        outcome: &mut Outcome,
    ) -> Result<bool, RestoreError> {
        let stop = &self.control.stop;
        let Reading { batches, task, replications } = reading;
        let mut settled = 0;
        {
            let taken = stream::unfold(batches, |mut batches| async {
                let batch = tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    batch = batches.recv() => batch,
                };
                batch.map(|batch| (batch, batches))
            });
            let settle = |batch| self.settle(name, standing, batch);
            let taken = stream::iter(first).chain(taken);
            let mut done = std::pin::pin!(taken.map(settle).buffered(self.target.parallel()));
            while let Some(done) = done.next().await {
                let done = done?;
                settled += 1;
                report.counts += done.counts;
                done.failures.into_iter().for_each(|failure| report.take(Some(failure), outcome));
                self.control.tell(report, false);
            }
        }
        // A reader that skips everything notices the end late, and is not waited for.
        let interrupted = match stop.is_cancelled() && !task.is_finished() {
            true => true,
            false => {
                let read = task.await.map_err(|error| RestoreError::Task(error.to_string()))??;
                settled < read
            }
        };
        report.counts.replications = replications.load(Ordering::Relaxed);
        Ok(interrupted)
    }

    /// Compares a batch with the target and writes the differences.
    async fn settle(
        &self,
        name: &CollectionName,
        standing: Standing,
        batch: Batch,
    ) -> Result<BatchOutcome, TargetError> {
        let mut done = BatchOutcome { failures: batch.failures, ..BatchOutcome::default() };
        let mut items = batch.items;
        if !self.target.takes_branches() || self.mode() == OnExisting::Undelete {
            let all = items.len();
            items.retain(|item| item.branch_of.is_none());
            done.counts.left_out = (all - items.len()) as u64;
        }
        if items.is_empty() {
            return Ok(done);
        }
        let held = match standing {
            Standing::Absent | Standing::Empty => vec![Held::Nothing; items.len()],
            Standing::Present => {
                let leaves = self.mode() == OnExisting::Overwrite;
                self.target.held(name, &items, leaves).await?
            }
        };
        let mut writings = Vec::new();
        for (item, held) in items.into_iter().zip(held) {
            let ours = Ours {
                id: &item.id,
                revision: item.revision(),
                deleted: item.deleted,
                branch_of: item.branch_of.as_ref(),
                branches: Branches { held: &item.branches, all: item.has_all_branches },
            };
            let decision = decide(ours, &held, self.mode());
            done.take(item, decision, &mut writings);
        }
        let refused = match self.options.dry_run || writings.is_empty() {
            true => Vec::new(),
            false => self.write_all(name, &writings).await?,
        };
        for writing in &writings {
            *done.count_of(writing) += 1;
            done.counts.bytes += writing.bytes();
        }
        for Refused { index, reason } in refused {
            let Some(writing) = writings.get(index) else { continue };
            *done.count_of(writing) -= 1;
            done.counts.bytes -= writing.bytes();
            let path = writing.item.path.clone();
            done.failures.push(RestoreFailure { path, reason });
        }
        Ok(done)
    }
}

impl<T: Target + 'static> Restore<T> {
    /// Writes in as many requests as the branches to end require.
    async fn write_all(
        &self,
        name: &CollectionName,
        writings: &[Writing],
    ) -> Result<Vec<Refused>, TargetError> {
        let mut refused = Vec::new();
        let mut from = 0;
        while from < writings.len() {
            let mut ends = 0;
            let fits = |writing: &Writing| {
                ends += writing.ends.len();
                ends <= MAX_ENDS
            };
            let count = writings[from..].iter().map(fits).take_while(|fits| *fits).count().max(1);
            let part = self.target.write(name, &writings[from..from + count]).await?;
            refused.extend(part.into_iter().map(|one| Refused { index: from + one.index, ..one }));
            from += count;
        }
        Ok(refused)
    }
}

impl Report {
    /// Records a failure.
    fn take(&mut self, failure: Option<RestoreFailure>, outcome: &mut Outcome) {
        if let Some(failure) = failure {
            self.problems += 1;
            outcome.fail(failure);
        }
    }
}

impl BatchOutcome {
    /// The counter for a document that is written.
    fn count_of(&mut self, writing: &Writing) -> &mut u64 {
        let counts = &mut self.counts;
        match &writing.item {
            Item { branch_of: Some(_), .. } => &mut counts.conflicts,
            Item { deleted: true, .. } => &mut counts.tombstones,
            _ if writing.replaces() => &mut counts.replace,
            _ => &mut counts.create,
        }
    }

    fn take(&mut self, item: Item, decision: Decision, writings: &mut Vec<Writing>) {
        let (form, ends) = match decision {
            Decision::Create => (Form::AsItIs, Vec::new()),
            Decision::Replace(ends) => (Form::AsItIs, ends),
            Decision::Successor(on_top, ends) => (Form::Successor(on_top), ends),
            Decision::End(ends) => (Form::Nothing, ends),
            Decision::Equal | Decision::Keep => {
                self.counts.skip += u64::from(item.branch_of.is_none());
                return;
            }
            Decision::KeepDeleted => {
                self.counts.deleted_there += 1;
                return;
            }
            Decision::Refuse(reason) => {
                self.failures.push(RestoreFailure { path: item.path, reason });
                return;
            }
        };
        writings.push(Writing { item, form, ends });
    }
}

/// The first of these that differs from the tree.
fn first_other(
    collection: &dyn StoredCollection,
    page: Vec<(DocumentId, Revision)>,
) -> Result<Option<(DocumentId, Revision)>, crate::tree::MirrorError> {
    for (id, revision) in page {
        let held = match collection.entry(&collection.name_of(&id))? {
            Some(Entry::Document(document)) if !document.deleted => document,
            _ => return Ok(Some((id, revision))),
        };
        let ours = held.revision.unwrap_or_else(|| super::body::made_revision(&held.body.text));
        if ours != revision && !super::body::is_on_top(&id, &ours, &revision) {
            return Ok(Some((id, revision)));
        }
    }
    Ok(None)
}
