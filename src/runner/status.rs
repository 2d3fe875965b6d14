//! The status of a mirror, as one value for people and programs.

use std::ops::Bound;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::integrity::Soundness;
use super::lag::Lag;
use super::shared::{Member, Shared};
use crate::checkpoint::{Checkpoint, Checkpoints, CursorStatus, Failure, JournalRange, StateError};
use crate::document::{CollectionName, DocumentId, Revision};
use crate::mirror::Remembered;
use crate::pipeline::{Phase, PipelineReport};
use crate::tree::Holder;

/// The answer to `plainfold status`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version of Plainfold that answers.
    pub version: String,
    /// The mirror's directory.
    pub mirror: String,
    /// Whether a process is mirroring into it right now.
    pub running: bool,
    /// Its process id.
    pub pid: Option<u32>,
    /// The time since which it runs.
    pub started_at: Option<Timestamp>,
    /// The source that it follows, without credentials.
    pub source: Option<String>,
    /// Whether every collection has caught up since it started.
    pub caught_up: bool,
    /// Why nothing more is known, if so.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The number of replaced or deleted files and folders that could not be removed, and are in
    /// `.plainfold/unremovable`.
    #[serde(default)]
    pub unremovable: u64,
    /// The options that the mirror remembers.
    #[serde(default)]
    pub options: Option<Remembered>,
    /// The numbers of the oldest and the newest write event in the journal.
    pub events: Option<JournalRange>,
    /// The cursors of its subscribers, by name.
    #[serde(default)]
    pub cursors: Vec<CursorStatus>,
    /// The collections, by name.
    pub collections: Vec<CollectionStatus>,
}

/// The status of one collection.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CollectionStatus {
    /// Its pipeline's report, or the state's record of it.
    #[serde(flatten)]
    pub report: PipelineReport,
    /// How old the copy is.
    #[serde(flatten)]
    pub lag: Lag,
    /// The time of its checkpoint's commit.
    pub checkpoint_at: Option<Timestamp>,
    /// Whether its attachments are mirrored, and which revisions are kept in addition to the
    /// winners, as of its checkpoint.
    #[serde(default)]
    pub keeps: Option<Keeps>,
    /// All documents that could not be mirrored, as they came.
    pub failed: Vec<FailureStatus>,
}

/// The parts of a collection that are mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keeps {
    /// The attachments.
    pub attachments: bool,
    /// The losing revisions and the histories.
    pub revisions: bool,
    /// The tombstones.
    pub deleted: bool,
}

/// A document that could not be mirrored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FailureStatus {
    /// The document, if its id is known.
    #[serde(rename = "documentId")]
    pub document: Option<DocumentId>,
    /// The revision.
    pub revision: Option<Revision>,
    /// The place in the feed.
    pub place: String,
    /// The problem, and the remedy.
    pub reason: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time of the first failure.
    pub since: Timestamp,
    /// The time of the last failure.
    pub at: Timestamp,
}

impl CollectionStatus {
    fn new(
        mut report: PipelineReport,
        mut failures: Vec<Failure>,
        checkpoint: Option<&Checkpoint>,
    ) -> Self {
        let checkpoint_at = checkpoint.and_then(|checkpoint| checkpoint.at);
        let keeps = checkpoint.map(|Checkpoint { attachments, kept, .. }| Keeps {
            attachments: *attachments,
            revisions: kept.revisions,
            deleted: kept.deleted,
        });
        let lag = Lag::of(&report);
        report.retry_at = report.retry_at.filter(|_| report.phase == Phase::Waiting);
        failures.retain(|failure| !failure.is_in_flight());
        failures.sort_by(|left, right| left.turn().cmp(&right.turn()));
        let failed = failures.into_iter().map(FailureStatus::from).collect();
        Self { report, lag, checkpoint_at, keeps, failed }
    }
}

impl From<Failure> for FailureStatus {
    fn from(failure: Failure) -> Self {
        let Failure { document, revision, place, reason, attempts, since, at, .. } = failure;
        Self { document, revision, place, reason, attempts, since, at }
    }
}

impl Shared {
    pub(super) fn collection(&self, name: &CollectionName) -> Option<CollectionStatus> {
        let member = self.members().get(name).cloned()?;
        Some(self.status_of(name, &member))
    }

    /// Without the list of failures.
    pub(super) fn collections_after(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Vec<CollectionStatus> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page: Vec<_> = {
            let members = self.members();
            let range = members.range((from, Bound::Unbounded)).take(limit);
            range.map(|(name, member)| (name.clone(), member.clone())).collect()
        };
        page.iter().map(|(name, member)| self.status_with(name, member, Vec::new())).collect()
    }

    fn status_of(&self, name: &CollectionName, member: &Member) -> CollectionStatus {
        self.status_with(name, member, self.failures_of(name, member))
    }

    fn status_with(
        &self,
        name: &CollectionName,
        member: &Member,
        failures: Vec<Failure>,
    ) -> CollectionStatus {
        let checkpoint = self.checkpoints.checkpoint(name).ok().flatten();
        CollectionStatus::new(member.reporter.report(), failures, checkpoint.as_ref())
    }

    pub(super) fn status(&self) -> Status {
        let members = self.members().clone();
        let collections = members.iter().map(|(name, member)| self.status_of(name, member));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mirror: self.mirror.path().display().to_string(),
            running: true,
            pid: Some(std::process::id()),
            started_at: Some(self.started_at),
            source: Some(self.source.clone()),
            caught_up: self.progress.borrow().caught_up,
            trouble: None,
            unremovable: self.mirror.unremovable(),
            options: Some(self.mirror.options().clone()),
            events: self.checkpoints.journal_range().ok().flatten(),
            cursors: self.checkpoints.cursors(),
            collections: collections.collect(),
        }
    }
}

impl Status {
    /// The status of a mirror at rest, from its state.
    pub fn at_rest(
        mirror: &std::path::Path,
        checkpoints: &Checkpoints,
        options: Remembered,
    ) -> Result<Self, StateError> {
        let mut collections = Vec::new();
        for name in checkpoints.collections()? {
            collections.push(remembered(checkpoints, name)?);
        }
        Ok(Self {
            options: Some(options),
            events: checkpoints.journal_range()?,
            cursors: checkpoints.cursors(),
            collections,
            ..Self::unknown(mirror)
        })
    }

    /// The status of a mirror at rest whose state cannot be read.
    pub fn closed(mirror: &std::path::Path, trouble: String) -> Self {
        Self { trouble: Some(trouble), ..Self::unknown(mirror) }
    }

    /// The status of a mirror whose process does not answer, from its lock alone. `trouble` is the
    /// reason, if known.
    pub fn silent(mirror: &std::path::Path, holder: &Holder, trouble: Option<String>) -> Self {
        Self {
            running: true,
            pid: Some(holder.pid),
            started_at: holder.since.parse().ok(),
            trouble,
            ..Self::unknown(mirror)
        }
    }

    fn unknown(mirror: &std::path::Path) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mirror: mirror.display().to_string(),
            running: false,
            pid: None,
            started_at: None,
            source: None,
            caught_up: false,
            trouble: None,
            unremovable: 0,
            options: None,
            events: None,
            cursors: Vec::new(),
            collections: Vec::new(),
        }
    }
}

fn remembered(
    checkpoints: &Checkpoints,
    name: CollectionName,
) -> Result<CollectionStatus, StateError> {
    let checkpoint = checkpoints.checkpoint(&name)?.unwrap_or_default();
    let failures = checkpoints.failures(&name)?;
    let mut report = PipelineReport::new(name);
    report.phase = match (&checkpoint.scanning, checkpoint.vanished) {
        (_, Some(_)) => Phase::Vanished,
        (Some(_), None) => Phase::Scanning,
        (None, None) => Phase::Stopped,
    };
    report.position = checkpoint.position.as_ref().map(crate::pipeline::shown);
    report.remember(&checkpoint, checkpoints.current(&report.collection)?);
    let sound = Soundness::recalled(checkpoints.verification(&report.collection)?);
    (report.verified_at, report.damaged, report.damage) =
        (sound.at, sound.count(), sound.in_words());
    report.in_flight = failures.iter().filter(|one| one.is_in_flight()).count() as u64;
    report.failures = failures.len() as u64 - report.in_flight;
    report.held_back = checkpoints.count_held_back(&report.collection)?;
    let vanished = |since| {
        format!(
            "the source no longer has it (first noticed at {since}); its copy in the \
             mirror is kept"
        )
    };
    report.trouble = checkpoint.vanished.map(vanished).or_else(|| checkpoint.scanning.clone());
    Ok(CollectionStatus::new(report, failures, Some(&checkpoint)))
}
