//! Does what the plan says: collection by collection, several batches at once.
//!
//! It must not know which target it writes to.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use super::control::{Control, count};
use super::plan::{Decision, Held, Ours, decide};
use super::read::{Batch, batches, security};
use super::target::{Item, Standing, Target, TargetError, Writing};
use super::{Counts, Failure, OnExisting, Options, Outcome, Report, RestoreError};
use crate::client::couchdb::{Error, Kind};
use crate::document::{CollectionName, DocumentId, Revision};
use crate::mirror::read::{Entry, Tree, TreeCollection};

/// How many branches of one document are ended, one after the other, so that ours may win.
const MAX_BRANCHES: usize = 32;

/// A mirror on its way to a target.
pub struct Restore<T> {
    target: Arc<T>,
    options: Options,
    control: Control,
}

/// One collection on its way.
struct Course {
    collection: Arc<TreeCollection>,
    name: CollectionName,
    standing: Standing,
}

/// What became of a batch.
#[derive(Default)]
struct Done {
    counts: Counts,
    failures: Vec<Failure>,
}

impl<T: Target + 'static> Restore<T> {
    /// A restore to this target. Does nothing yet.
    pub fn new(target: T, options: Options) -> Self {
        Self { target: Arc::new(target), options, control: Control::default() }
    }

    /// The same, under somebody's control.
    pub fn controlled(self, control: Control) -> Self {
        Self { control, ..self }
    }

    /// Puts the mirror back. Nothing is written before it is known that nothing is in the way.
    pub async fn run(self, tree: Tree) -> Result<Outcome, RestoreError> {
        let (collections, problems) = blocking(move || tree.collections()).await??;
        let mut outcome = Outcome { dry_run: self.options.dry_run, ..Outcome::default() };
        for problem in problems {
            outcome.fail(Failure { path: problem.path, reason: problem.reason });
        }
        let stop = self.control.stop.clone();
        let looked = tokio::select! {
            () = stop.cancelled() => None,
            courses = self.look(collections) => Some(courses?),
        };
        outcome.interrupted = looked.is_none();
        for course in looked.unwrap_or_default() {
            if !outcome.interrupted {
                outcome.interrupted = self.put_back(course, &mut outcome).await?;
            }
        }
        if !self.options.dry_run && !outcome.interrupted {
            self.target.finish().await?;
        }
        Ok(outcome)
    }

    /// Looks whether anything is in the way.
    async fn look(&self, collections: Vec<TreeCollection>) -> Result<Vec<Course>, RestoreError> {
        let mut courses = Vec::new();
        for (collection, name) in self.named(collections)? {
            let standing = self.target.standing(&name).await?;
            if standing == Standing::Present && self.options.on_existing == OnExisting::Refuse {
                self.look_for_others(&collection, &name).await?;
            }
            courses.push(Course { collection, name, standing });
        }
        Ok(courses)
    }

    /// The selected collections with their names at the target.
    fn named(
        &self,
        collections: Vec<TreeCollection>,
    ) -> Result<Vec<(Arc<TreeCollection>, CollectionName)>, RestoreError> {
        let wrong = |what: String| Err(RestoreError::Selection(what));
        let wanted: Vec<_> = collections
            .into_iter()
            .filter(|collection| self.options.collections.wants(&collection.name))
            .map(Arc::new)
            .collect();
        if wanted.is_empty() {
            return wrong("no collection of the mirror is selected: see --collections".to_owned());
        }
        for old in self.options.renamed.keys() {
            if !wanted.iter().any(|collection| collection.name == *old) {
                return wrong(format!("no selected collection is named `{old}`: see --as"));
            }
        }
        if let Some(only) = &self.options.only_as {
            let [one] = &wanted[..] else {
                let names: Vec<_> = wanted.iter().map(|one| one.name.as_str()).collect();
                return wrong(format!(
                    "one name, `{only}`, is given for the target, and these collections are \
                     selected: {}; select one with --collections, or give no such name",
                    names.join(", ")
                ));
            };
            return Ok(vec![(Arc::clone(one), only.clone())]);
        }
        let mut taken = BTreeSet::new();
        let mut named = Vec::new();
        for collection in wanted {
            let name = self.options.renamed.get(&collection.name).unwrap_or(&collection.name);
            let name = name.clone();
            if !taken.insert(name.clone()) {
                return wrong(format!("two collections would be named `{name}`: see --as"));
            }
            named.push((collection, name));
        }
        Ok(named)
    }

    /// Refuses a target that holds what the mirror does not hold just so. What an interrupted
    /// restore left there is no obstacle.
    async fn look_for_others(
        &self,
        collection: &Arc<TreeCollection>,
        name: &CollectionName,
    ) -> Result<(), RestoreError> {
        let mut after: Option<DocumentId> = None;
        let mut ends = HashSet::new();
        loop {
            let page = self.target.list(name, after.as_ref()).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            if !ends.insert(last.clone()) {
                let place = self.target.place(name);
                let what = format!("{place} lists its documents over and over: `{last}` again");
                return Err(TargetError::Server(Error::new(Kind::Permanent, what)).into());
            }
            after = Some(last.clone());
            let tree = Arc::clone(collection);
            let other = blocking(move || first_other(&tree, page)).await??;
            if let Some((id, revision)) = other {
                let what = format!("`{id}` in revision {revision}");
                return Err(RestoreError::NotEmpty { target: self.target.place(name), what });
            }
        }
    }

    /// Puts a collection back; says whether it was told to stop before its end.
    async fn put_back(&self, course: Course, outcome: &mut Outcome) -> Result<bool, RestoreError> {
        if self.control.stop.is_cancelled() {
            return Ok(true);
        }
        let Course { collection, name, standing } = course;
        let mut report = Report {
            collection: collection.name.to_string(),
            renamed: name.to_string(),
            ..Report::default()
        };
        if standing == Standing::Absent
            && !self.options.dry_run
            && let Err(error) = self.target.create(&name).await
        {
            let TargetError::Server(server) = &error else { return Err(error.into()) };
            if server.kind() != Kind::Permanent {
                return Err(error.into());
            }
            // A name that this server does not take is no obstacle for the other collections.
            let path = collection.path().to_owned();
            outcome.fail(Failure { path, reason: error.to_string() });
            report.problems += 1;
            outcome.collections.push(report);
            return Ok(false);
        }
        let total = match self.control.is_watched() && self.options.ids.is_none() {
            true => {
                let counted = Arc::clone(&collection);
                Some(blocking(move || count(&counted)).await??)
            }
            false => None,
        };
        self.control.begin(&report, total);
        let (sender, receiver) = mpsc::channel::<Batch>(1);
        let (ids, stubs) = (self.options.ids.clone(), self.target.stubs());
        let accept = self.options.accept_unchecked;
        let tree = Arc::clone(&collection);
        let reading = tokio::task::spawn_blocking(move || {
            let wants = |id: &DocumentId| ids.as_ref().is_none_or(|ids| ids.is_match(id.as_str()));
            let mut read = 0_u64;
            batches(&tree, stubs, &wants, accept, &mut |batch| {
                read += 1;
                sender.blocking_send(batch).is_ok()
            })?;
            Ok::<_, RestoreError>(read)
        });
        let stop = &self.control.stop;
        let mut settled = 0;
        {
            let taken = stream::unfold(receiver, |mut receiver| async {
                let batch = tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    batch = receiver.recv() => batch,
                };
                batch.map(|batch| (batch, receiver))
            });
            let settle = |batch| self.settle(&name, standing, batch);
            let mut done = std::pin::pin!(taken.map(settle).buffered(self.target.parallel()));
            while let Some(done) = done.next().await {
                let done = done?;
                settled += 1;
                report.counts += done.counts;
                report.problems += done.failures.len() as u64;
                done.failures.into_iter().for_each(|failure| outcome.fail(failure));
                self.control.tell(&report, false);
            }
        }
        // A reader that passes over what is not wanted hears of the end late, and is not waited for.
        let interrupted = match stop.is_cancelled() && !reading.is_finished() {
            true => true,
            false => {
                let read =
                    reading.await.map_err(|error| RestoreError::Task(error.to_string()))??;
                settled < read
            }
        };
        if !interrupted {
            self.put_back_security(&collection, &name, standing, &mut report, outcome).await?;
        }
        self.control.tell(&report, true);
        tracing::debug!(
            "{}: {} created, {} replaced, {} skipped, {} problems",
            self.target.place(&name),
            report.counts.create,
            report.counts.replace,
            report.counts.skip,
            report.problems
        );
        outcome.collections.push(report);
        Ok(interrupted)
    }

    /// Says there who may do what, unless only some documents are put back, or what is there stays.
    async fn put_back_security(
        &self,
        collection: &Arc<TreeCollection>,
        name: &CollectionName,
        standing: Standing,
        report: &mut Report,
        outcome: &mut Outcome,
    ) -> Result<(), RestoreError> {
        let stays = standing != Standing::Absent && self.options.on_existing == OnExisting::Skip;
        if self.options.ids.is_some() || stays {
            return Ok(());
        }
        let tree = Arc::clone(collection);
        let accept = self.options.accept_unchecked;
        let failure = match blocking(move || security(&tree, accept)).await?? {
            None => return Ok(()),
            Some(Err(failure)) => failure,
            Some(Ok(_)) if self.options.dry_run => {
                report.security = self.target.takes_branches();
                return Ok(());
            }
            Some(Ok(security)) => match self.target.secure(name, security).await {
                Ok(taken) => {
                    report.security = taken;
                    return Ok(());
                }
                Err(error) => {
                    Failure { path: collection.security_path(), reason: error.to_string() }
                }
            },
        };
        report.problems += 1;
        outcome.fail(failure);
        Ok(())
    }

    /// Compares a batch with the target and writes what is to be written.
    async fn settle(
        &self,
        name: &CollectionName,
        standing: Standing,
        batch: Batch,
    ) -> Result<Done, TargetError> {
        let mut done = Done { failures: batch.failures, ..Done::default() };
        let mut items = batch.items;
        if !self.target.takes_branches() {
            let all = items.len();
            items.retain(|item| item.branch_of.is_none());
            done.counts.left_out = (all - items.len()) as u64;
        }
        if items.is_empty() {
            return Ok(done);
        }
        let held = match standing {
            Standing::Absent | Standing::Empty => vec![Held::Nothing; items.len()],
            Standing::Present => self.target.held(name, &items).await?,
        };
        let mut writings = Vec::new();
        for (item, held) in items.into_iter().zip(held) {
            let ours = Ours {
                id: &item.id,
                revision: item.revision(),
                deleted: item.deleted,
                branch_of: item.branch_of.as_ref(),
            };
            let decision = decide(ours, &held, self.options.on_existing);
            done.take(item, decision, &mut writings);
        }
        let refused = match self.options.dry_run || writings.is_empty() {
            true => Vec::new(),
            false => {
                let refused = self.target.write(name, &writings).await?;
                self.end_further_branches(name, &writings).await?;
                refused
            }
        };
        for writing in &writings {
            *done.count_of(writing) += 1;
            done.counts.bytes += writing.item.bytes;
        }
        for (index, reason) in refused {
            let Some(writing) = writings.get(index) else { continue };
            *done.count_of(writing) -= 1;
            done.counts.bytes -= writing.item.bytes;
            let path = writing.item.path.clone();
            done.failures.push(Failure { path, reason });
        }
        Ok(done)
    }
}

impl<T: Target + 'static> Restore<T> {
    /// Where the winner has been ended, another branch may win now instead of ours.
    async fn end_further_branches(
        &self,
        name: &CollectionName,
        writings: &[Writing],
    ) -> Result<(), TargetError> {
        let replaced = writings.iter().filter(|writing| writing.ends.is_some());
        let mut items: Vec<Item> = replaced.map(|writing| writing.item.clone()).collect();
        for _ in 0..MAX_BRANCHES {
            if items.is_empty() {
                break;
            }
            let held = self.target.held(name, &items).await?;
            let mut losing = Vec::new();
            for (item, held) in items.into_iter().zip(held) {
                if let Held::Winner { revision, deleted: false, knows_ours: true } = held
                    && revision != *item.revision()
                {
                    losing.push(Writing { item, on_top: None, ends: Some(revision) });
                }
            }
            // What is refused here was told when it was written first.
            let _told = self.target.write(name, &losing).await?;
            items = losing.into_iter().map(|writing| writing.item).collect();
        }
        Ok(())
    }
}

impl Done {
    /// Where a document that is written is counted.
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
        let (on_top, ends) = match decision {
            Decision::Create => (None, None),
            Decision::Replace(leaf) => (None, Some(leaf)),
            Decision::OnTop(on_top) => (Some(on_top), None),
            Decision::Equal | Decision::Keep => {
                self.counts.skip += u64::from(item.branch_of.is_none());
                return;
            }
            Decision::Refuse(reason) => {
                self.failures.push(Failure { path: item.path, reason });
                return;
            }
        };
        writings.push(Writing { item, on_top, ends });
    }
}

/// The first of these that the tree does not hold just so.
fn first_other(
    collection: &TreeCollection,
    page: Vec<(DocumentId, Revision)>,
) -> Result<Option<(DocumentId, Revision)>, crate::mirror::MirrorError> {
    for (id, revision) in page {
        let held = match collection.entry(&collection.name_of(&id))? {
            Some(Entry::Document(document)) if !document.deleted => document,
            _ => return Ok(Some((id, revision))),
        };
        let ours = held.revision.unwrap_or_else(|| super::body::made_revision(&held.body));
        if ours != revision && !super::body::is_on_top(&id, &ours, &revision) {
            return Ok(Some((id, revision)));
        }
    }
    Ok(None)
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, RestoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RestoreError::Task(error.to_string()))
}
