//! The durable end of a batch: sync, publish, sync, commit, broadcast.
//!
//! A crash between any two of these leaves every document at its old or its new version, and the
//! checkpoint at or before what the tree holds.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::evidence::Reached;
use super::prepare::{Meta, Prepared, blame};
use super::report::{Phase, RunState, shown};
use super::{Pipeline, PipelineError, Signal, Work, copied, failures};
use crate::checkpoint::{Checkpoint, Commit, Failure, JournalRecord, NewEvents, Numbered};
use crate::clock::Moment;
use crate::document::{DocumentId, Position, Revision};
use crate::event::{Emitted, WriteEvent};
use crate::mirror::{Published, Staged, Sync};
use crate::tree::MirrorError;
use crate::trial;

impl Pipeline {
    /// Settles batch after batch, in order, counts them in `settled`, and passes on each new position
    /// that is `committed`.
    pub(super) async fn settle_all(
        self,
        moved: HashMap<DocumentId, Revision>,
        mut prepared: mpsc::Receiver<Work<Prepared>>,
        settled: watch::Sender<u64>,
        committed: watch::Sender<Option<Position>>,
    ) -> Result<(), PipelineError> {
        let mut checkpoint =
            self.checkpoints.checkpoint(self.collection.name())?.unwrap_or_default();
        let in_doubt = checkpoint.open_since.is_some();
        if in_doubt {
            checkpoint.tally = None;
        } else if self.collection.is_new() && checkpoint.position.is_none() {
            checkpoint.tally.get_or_insert_default();
        }
        let pipeline = Arc::new(self);
        // To count the folders would take too long for something that is only shown.
        let held = checkpoint.tally.map(|tally| u64::try_from(tally.documents).unwrap_or_default());
        pipeline.reporter.update(|report| report.held = held);
        let doubted_since = checkpoint.open_since;
        let mut settler = Settler {
            pipeline,
            checkpoint,
            moved,
            in_doubt,
            doubted_since,
            stays: None,
            scanned: false,
            more: 0,
        };
        while let Some(work) = prepared.recv().await {
            let reporter = settler.pipeline.reporter.clone();
            let counts = match &work {
                Work::Batch(_) => true,
                Work::Signal(signal) => signal.removes(),
            };
            reporter.update(|report| report.busy_since = Some(Instant::now()));
            settler = spawn_blocking(move || settler.settle(work)).await??;
            reporter.update(|report| report.busy_since = None);
            let position = &settler.checkpoint.position;
            // A document that has failed can only be requested again as long as its row is there.
            let may_discard = settler.pipeline.options.capabilities.single_reads
                || settler.pipeline.failures.count() == 0;
            if may_discard && position.is_some() && *committed.borrow() != *position {
                committed.send_replace(position.clone());
            }
            if counts {
                settled.send_modify(|count| *count += 1);
            }
        }
        spawn_blocking(move || settler.close()).await?
    }

    /// Settles a batch that did not come from the feed: the checkpoint stays where it is, and events
    /// that an interrupted run may not have emitted are left to the next run. Because the feed does
    /// not bring these documents again, `intents` are recorded as failures until all is committed.
    /// Returns the documents that the file system refused to publish, each with the reason.
    pub(super) async fn settle_apart(
        &self,
        batch: Prepared,
        intents: Vec<Failure>,
    ) -> Result<HashMap<DocumentId, String>, PipelineError> {
        let mut settler = self.settler_apart()?;
        let settle = move || {
            if !intents.is_empty() {
                let noted = intents.into_iter().map(|one| settler.pipeline.failures.note(one));
                let failed = noted.collect();
                let since = settler.checkpoint.open_since.unwrap_or(batch.begun);
                let checkpoint =
                    Checkpoint { open_since: Some(since), ..settler.checkpoint.clone() };
                settler.commit(Commit { failed, ..Commit::new(checkpoint) }, Vec::new())?;
            }
            let refused = settler.batch(batch)?;
            settler.close()?;
            Ok(refused)
        };
        spawn_blocking(settle).await?
    }
}

impl Pipeline {
    /// Writes the security object apart from the feed.
    pub(super) async fn settle_security_apart(&self, security: Bytes) -> Result<(), PipelineError> {
        let mut settler = self.settler_apart()?;
        let settle = move || {
            settler.write_security(&security)?;
            settler.close()
        };
        spawn_blocking(settle).await?
    }

    /// A settler for changes that do not come from the feed.
    fn settler_apart(&self) -> Result<Settler, PipelineError> {
        let mut checkpoint =
            self.checkpoints.checkpoint(self.collection.name())?.unwrap_or_default();
        if checkpoint.position.is_none() && checkpoint.scanning.is_none() {
            checkpoint.scanning = Some("it was repaired while it had no checkpoint".to_owned());
        }
        if self.is_another_folder(&checkpoint) {
            // A repair must not make this folder look like the one that the last run wrote.
            checkpoint.scanning.get_or_insert_with(|| copied::REASON.to_owned());
        }
        // A repaired document may have been counted although it was missing.
        checkpoint.tally = None;
        let (pipeline, stays) = (Arc::new(self.clone()), Some(checkpoint.clone()));
        let (moved, in_doubt, doubted_since, scanned) = (HashMap::new(), false, None, false);
        let more = 0;
        Ok(Settler { pipeline, checkpoint, moved, in_doubt, doubted_since, stays, scanned, more })
    }
}

/// Does the work on the disk, one item at a time.
pub struct Settler {
    pub(super) pipeline: Arc<Pipeline>,
    /// The checkpoint in the state.
    pub(super) checkpoint: Checkpoint,
    /// Documents that an interrupted run was replacing or removing, until they are settled.
    pub(super) moved: HashMap<DocumentId, Revision>,
    /// Whether an interrupted run may have written the security object without emitting an event.
    in_doubt: bool,
    /// The time since which an interrupted run may have published without emitting events. It is
    /// kept until the feed has been read to its end: a run that ends earlier leaves the rest to the
    /// next one.
    pub(super) doubted_since: Option<Timestamp>,
    /// The checkpoint that stays, if the batch does not come from the feed.
    stays: Option<Checkpoint>,
    /// Whether a full scan has ended since the source reported its counts.
    pub(super) scanned: bool,
    /// How many documents more, or fewer, the tree holds than at the last commit.
    more: i64,
}

impl Settler {
    fn settle(mut self, work: Work<Prepared>) -> Result<Self, PipelineError> {
        let signal = match work {
            Work::Batch(batch) => return self.batch(batch).map(|_refused| self),
            Work::Signal(signal) => signal,
        };
        match signal {
            Signal::BeginScan(reason) => self.begin_scan(reason)?,
            Signal::EndScan { position, seen } => self.end_scan(position, seen)?,
            Signal::Holds(holds) => self.compare_counts(holds)?,
            Signal::CaughtUp(end) => {
                self.pipeline.brake.caught_up();
                self.pipeline.mirror.sweep_trash()?;
                self.pipeline.log_unmentioned();
                self.caught_up(end);
            }
            Signal::Told => {
                self.moved.clear();
                self.doubted_since = None;
                self.pipeline.collection.forget_interrupted()?;
                self.pipeline.collection.note_emitted()?;
            }
            Signal::Security(security) => self.security(&security)?,
            Signal::Properties(properties) => {
                self.pipeline.collection.note_properties(properties)?;
            }
            Signal::Release => self.release()?,
        }
        Ok(self)
    }

    /// Returns the documents that the file system refused to publish, each with the reason.
    fn batch(&mut self, batch: Prepared) -> Result<HashMap<DocumentId, String>, PipelineError> {
        if !batch.staged.is_empty() {
            self.open(batch.begun)?;
        }
        let Placed { metas, published, refused } = self.publish(batch.staged, batch.sync)?;
        let named = |one: &Failure| Some((one.document.clone()?, one.reason.clone()));
        let reasons: HashMap<DocumentId, String> = refused.iter().filter_map(named).collect();
        let mut settled = batch.settled;
        settled.retain(|id| !reasons.contains_key(id));
        let absent = batch.absent.iter().map(DocumentId::as_str);
        self.pipeline.collection.record_absent(absent)?;
        let position = match self.checkpoint.scanning {
            Some(_) => None,
            None => batch.position.filter(|new| self.checkpoint.position.as_ref() != Some(new)),
        };
        let deletions = metas.iter().filter(|meta| meta.deleted).count() as u64;
        let documents = metas.len() as u64 - deletions;
        let (failures, held) = (&self.pipeline.failures, batch.held);
        // The brake may hold back a document that the source does not know.
        let unheld = match self.pipeline.brake.held() {
            0 => Vec::new(),
            _ => settled.iter().filter(|id| !batch.gone.contains(*id)).cloned().collect(),
        };
        // A held-back document has not failed.
        let settled = settled.into_iter().chain(held.iter().map(|one| one.document.clone()));
        let mended: Vec<_> = settled.filter(|id| failures.forget(id)).collect();
        // As in the state: failures recorded in the same commit count.
        let failed = self.note_failures(batch.failed.into_iter().chain(refused).collect());
        let news =
            !failed.is_empty() || !mended.is_empty() || !held.is_empty() || !unheld.is_empty();
        let mut told: Vec<Told> = metas.into_iter().zip(&published).map(Told::of).collect();
        told.extend(batch.untold.into_iter().map(|(meta, files)| Told { meta, files }));
        if position.is_some() || !told.is_empty() || news {
            let open_since = self.checkpoint.open_since;
            let checkpoint = match &self.stays {
                Some(stays) => {
                    let since = stays.open_since.unwrap_or(batch.begun);
                    let (open_since, tally) = (open_since.map(|_| since), self.checkpoint.tally);
                    Checkpoint { open_since, tally, ..stays.clone() }
                }
                None => Checkpoint {
                    position: position.or_else(|| self.checkpoint.position.clone()),
                    scanning: self.checkpoint.scanning.clone(),
                    ..self.checkpoint_now(open_since.and(self.doubted_since.or(Some(batch.begun))))
                },
            };
            let forget_failures = false;
            self.commit(
                Commit { checkpoint, failed, mended, forget_failures, held, unheld },
                told,
            )?;
        }
        self.pipeline.brake.settled(deletions);
        let bytes = published.iter().map(|change| change.bytes).sum::<u64>();
        if documents + deletions > 0 {
            let collection = self.pipeline.collection.name();
            tracing::debug!(%collection, documents, deletions, bytes, "committed a batch");
        }
        self.pipeline.reporter.update(|report| {
            report.documents += documents;
            report.deletions += deletions;
            report.unchanged += batch.unchanged;
            report.attachments += published.iter().map(|change| change.attachments).sum::<u64>();
            report.bytes += bytes;
        });
        self.pipeline.mirror.dispose(&published)?;
        Ok(reasons)
    }

    /// Records durably, once per run, that more may be published than is committed.
    pub(super) fn open(&mut self, since: Timestamp) -> Result<(), PipelineError> {
        if self.checkpoint.open_since.is_some() {
            return Ok(());
        }
        let checkpoint =
            Checkpoint { open_since: Some(since), inventory: None, ..self.checkpoint.clone() };
        self.commit(Commit::new(checkpoint), Vec::new())
    }

    /// Records that everything published is committed, except what an interrupted run left to the
    /// next one.
    fn close(mut self) -> Result<(), PipelineError> {
        let open_since = match &self.stays {
            Some(stays) => stays.open_since,
            None => self.doubted_since,
        };
        let inventory = match open_since {
            None => {
                self.pipeline.collection.note_committed()?;
                self.pipeline.collection.close_inventory()?
            }
            Some(_) => None,
        };
        // A state of an older version does not say which folder it was written for: this one.
        let here = self.checkpoint.position.as_ref().map(|_| self.pipeline.collection.identity());
        let folder = self.checkpoint.folder.or(here);
        let now = Checkpoint { open_since, inventory, folder, ..self.checkpoint.clone() };
        if self.checkpoint != now {
            self.commit(Commit::new(now.clone()), Vec::new())?;
        }
        self.pipeline.write_portable(&now)
    }

    /// Steps 2 to 4 of the durable order.
    pub(super) fn publish(
        &mut self,
        staged: Vec<(Meta, Staged)>,
        sync: Sync,
    ) -> Result<Placed, MirrorError> {
        let (mirror, collection) = (&self.pipeline.mirror, &self.pipeline.collection);
        let (metas, staged): (Vec<Meta>, Vec<Staged>) = staged.into_iter().unzip();
        if !staged.is_empty() {
            collection.check_place()?;
        }
        collection.record_staged(&staged, sync)?;
        trial::pass("sync");
        mirror.sync_staged(&staged, sync)?;
        trial::pass("synced");
        let mut placed = Placed::default();
        let mut unpublished = Vec::new();
        for (meta, staged) in metas.into_iter().zip(staged) {
            trial::pass("publish");
            match collection.publish(staged, sync) {
                Ok(published) => {
                    placed.metas.push(meta);
                    placed.published.push(published);
                }
                Err(error) => {
                    unpublished.push(meta.id.clone());
                    let reason = blame(collection, error)?;
                    placed.refused.push(failures::of_publishing(meta, reason));
                }
            }
        }
        collection.record_unpublished(unpublished.iter().map(DocumentId::as_str))?;
        let published = &placed.published;
        trial::pass("published");
        mirror.sync_published(collection, published, sync)?;
        trial::pass("published-synced");
        for one in published {
            self.more += one.tally.map_or(0, |tally| tally.documents);
            let tally = self.checkpoint.tally.zip(one.tally);
            self.checkpoint.tally = tally.map(|(mut tally, more)| {
                tally += more;
                tally
            });
        }
        Ok(placed)
    }

    /// Steps 5 and 6: published changes are committed, and then their events are emitted.
    pub(super) fn commit(
        &mut self,
        mut commit: Commit,
        told: Vec<Told>,
    ) -> Result<(), PipelineError> {
        let pipeline = &self.pipeline;
        let name = pipeline.collection.name();
        let at = Timestamp::now();
        let changed = (!told.is_empty()).then_some(at);
        commit.checkpoint.changed = changed.or(commit.checkpoint.changed);
        let (collection, channel) = (name.clone(), pipeline.events.clone());
        let events = NewEvents::new(told.len(), move |first| {
            let event = |(Told { meta, files }, event): (Told, u64)| {
                Arc::new(Emitted::new(WriteEvent {
                    event,
                    collection: collection.clone(),
                    document: meta.id,
                    files,
                    deleted: meta.deleted,
                    revision: meta.revision,
                    position: meta.position.as_ref().and_then(raw),
                    at,
                }))
            };
            let events: Vec<Arc<Emitted>> = told.into_iter().zip(first..).map(event).collect();
            let record = |one: &Arc<Emitted>| JournalRecord { number: one.event, text: one.text() };
            let records = events.iter().map(record).collect();
            let emit = move || {
                trial::pass("committed");
                events.into_iter().for_each(|event| channel.send(event));
            };
            Numbered { records, emit: Box::new(emit) }
        });
        trial::pass("commit");
        let more = pipeline.checkpoints.commit_with(name, &commit, events)?;
        pipeline.collection.note_committed()?;
        trial::pass("told");
        self.checkpoint = commit.checkpoint;
        let failures = pipeline.failures.failed();
        let in_flight = pipeline.failures.count() - failures;
        let (held, braked) = pipeline.brake.note_held(more);
        let position = self.checkpoint.position.clone();
        let more = std::mem::take(&mut self.more);
        let counted = pipeline.source.counted();
        pipeline.reporter.update(|report| {
            report.held = report.held.map(|held| held.saturating_add_signed(more));
            report.counted = counted;
            report.failures = failures;
            report.in_flight = in_flight;
            report.held_back = held;
            report.position = position.as_ref().map(shown);
            report.evidence.position = position;
            report.evidence.committed = Some(Moment::now());
            report.evidence.changed_at = changed.or(report.evidence.changed_at);
        });
        if braked && pipeline.reporter.report().caught_up {
            pipeline.log_more_held_back();
        }
        Ok(())
    }

    fn begin_scan(&mut self, reason: String) -> Result<(), PipelineError> {
        let collection = self.pipeline.collection.name();
        tracing::warn!(%collection, "full scan: {reason}");
        self.pipeline.failures.forget_all();
        self.pipeline.remove_portable()?;
        let checkpoint = Checkpoint {
            scanning: Some(reason),
            ..self.checkpoint_now(self.checkpoint.open_since)
        };
        let commit = Commit { forget_failures: true, ..Commit::new(checkpoint) };
        self.commit(commit, Vec::new())?;
        self.pipeline.reporter.update(|report| report.phase = Phase::Scanning);
        Ok(())
    }

    /// Stores the security object, and emits an event if it has changed.
    fn security(&mut self, security: &[u8]) -> Result<(), PipelineError> {
        let collection = self.pipeline.collection.clone();
        let in_doubt = std::mem::take(&mut self.in_doubt);
        match (collection.holds_security(security)?, in_doubt) {
            (true, false) => Ok(()),
            (true, true) => self.tell_of_security(),
            (false, _) => match self.write_security(security) {
                Err(PipelineError::Mirror(error)) => {
                    let reason = blame(&collection, error)?;
                    self.note_failures(vec![failures::of_security(reason)]);
                    let failures = self.pipeline.failures.failed();
                    self.pipeline.reporter.update(|report| report.failures = failures);
                    Ok(())
                }
                written => {
                    self.pipeline.failures.forget_security();
                    written
                }
            },
        }
    }

    fn write_security(&mut self, security: &[u8]) -> Result<(), PipelineError> {
        self.open(Timestamp::now())?;
        self.pipeline.collection.write_security(security)?;
        self.tell_of_security()
    }

    fn tell_of_security(&mut self) -> Result<(), PipelineError> {
        let (id, revision) = (DocumentId::from("_security"), Revision::from(""));
        let meta = Meta { id, revision, position: None, deleted: false };
        let told = Told { meta, files: vec![self.pipeline.collection.security_path()] };
        self.commit(Commit::new(self.checkpoint.clone()), vec![told])
    }

    fn caught_up(&self, end: Reached) {
        tracing::debug!(collection = %self.pipeline.collection.name(), "caught up");
        let live = self.pipeline.options.mode == crate::source::Mode::Follow;
        let nothing = self.pipeline.source.nothing_behind();
        self.pipeline.reporter.update(|report| {
            report.phase = if live { Phase::Live } else { Phase::CaughtUp };
            report.caught_up = true;
            report.be_current(end.at);
            report.evidence.stated = end.stated(nothing).or(report.evidence.stated);
            report.trouble = None;
        });
        self.pipeline.run_state.send_replace(RunState::AtEnd);
    }

    /// A checkpoint with the present time, without a position.
    pub(super) fn checkpoint_now(&self, open_since: Option<Timestamp>) -> Checkpoint {
        Checkpoint {
            attachments: self.pipeline.collection.mirrors_attachments(),
            kept: self.pipeline.collection.kept(),
            at: Some(Timestamp::now()),
            open_since,
            inventory: self.checkpoint.inventory.clone(),
            tally: self.checkpoint.tally,
            folder: Some(self.pipeline.collection.identity()),
            changed: self.checkpoint.changed,
            ..Checkpoint::default()
        }
    }
}

/// The outcome of staged changes.
#[derive(Debug, Default)]
pub struct Placed {
    /// The changes that were published.
    pub metas: Vec<Meta>,
    /// The results of publishing, in the same order.
    pub published: Vec<Published>,
    /// The documents that the file system refused to publish.
    pub refused: Vec<Failure>,
}

/// The event of a change, with its files.
pub struct Told {
    pub meta: Meta,
    pub files: Vec<String>,
}

impl Told {
    pub fn of((meta, published): (Meta, &Published)) -> Self {
        Self { meta, files: published.files.clone() }
    }
}

/// A position as raw JSON, as its source writes it.
fn raw(position: &Position) -> Option<Box<RawValue>> {
    let token = position.token();
    RawValue::from_string(token.to_owned()).or_else(|_| to_raw_value(token)).ok()
}
