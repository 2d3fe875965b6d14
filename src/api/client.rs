//! The door to a mirror for other processes: each request is answered by the process that works on
//! the mirror or, if none does, from the mirror at rest.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::de::DeserializeOwned;

pub use self::cursor::Acknowledged;
pub use super::process::Unanswered;
use super::process::{Answering, Process};
use crate::checkpoint::{Bounds, Checkpoints, Copied, StateError};
use crate::document::{CollectionName, Pattern, plain};
use crate::job::JobReport;
use crate::mirror::{self, Mirror};
use crate::runner::{
    Action, HeldDocument, Notice, Ordered, Release, Status, Subscription, open_state,
};
use crate::tree::{Holder, MirrorError, SharedLock};

mod cursor;

/// The door to a mirror.
#[derive(Debug)]
pub struct Door {
    directory: PathBuf,
    ours: mirror::Ours,
}

/// Why a mirror did not answer.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The mirror on disk.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Its state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The process that works on it.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The mirror has no such collection.
    #[error("{0}")]
    NoCollection(String),
    /// No process works on the mirror, so that it obeys no order.
    #[error(
        "no process works on {}, so `{}` has no effect: {}",
        _0.display(),
        _1.name(),
        at_rest(*_1)
    )]
    AtRest(PathBuf, Action),
    /// No process works on the mirror, so that nothing can be acknowledged.
    #[error(
        "no process works on {}, so no event can be acknowledged: start it, or give --since instead of a \
         cursor",
        _0.display()
    )]
    NoCursor(PathBuf),
}

/// Who answers.
enum Answerer {
    /// The process that works on the mirror.
    Running(Answering),
    /// A process works on the mirror and does not say where it answers.
    Busy(Process),
    /// No process works on the mirror.
    AtRest(SharedLock),
}

impl Door {
    /// The door to the mirror in `directory`.
    pub fn find(directory: &Path) -> Result<Self, MirrorError> {
        Ok(Self { directory: directory.to_owned(), ours: mirror::Ours::find(directory)? })
    }

    /// The status, and whether the mirror can be used. If its process or its state is not
    /// available, everything else is reported.
    pub async fn status(&self) -> Result<(Status, bool), DoorError> {
        let asked = self.twice(async || {
            Ok(match self.look()? {
                Answerer::AtRest(lock) => self.status_at_rest(lock)?,
                Answerer::Busy(process) => {
                    let trouble = process.stopped();
                    let is_usable = trouble.is_none();
                    (Status::silent(&self.directory, process.holder(), trouble), is_usable)
                }
                Answerer::Running(process) => (ask_status(&process).await?, true),
            })
        });
        let (status, is_usable) = match asked.await {
            Err(DoorError::Unanswered(Unanswered { holder, trouble, .. })) => {
                (Status::silent(&self.directory, &holder, Some(trouble)), false)
            }
            asked => asked?,
        };
        Ok((Status { unremovable: self.ours.unremovable(), ..status }, is_usable))
    }

    fn status_at_rest(&self, lock: SharedLock) -> Result<(Status, bool), DoorError> {
        let closed = |trouble| Status::closed(&self.directory, trouble);
        let copied = match Copied::open(&self.ours.state_path()) {
            Ok(copied) => copied,
            Err(error) => return Ok((closed(plain::with_causes(&error)), false)),
        };
        drop(lock);
        if let Some(damaged) = &copied.damaged {
            let trouble = format!(
                "the state cannot be read ({}): the next `plainfold mirror` sets it aside and makes a \
                 full scan",
                damaged.reason
            );
            return Ok((closed(trouble), true));
        }
        let options = self.ours.options()?;
        Ok((Status::at_rest(&self.directory, &copied.state, options)?, true))
    }

    /// Releases the deletions of a collection that are held back. `None` if the mirror has no such
    /// collection. At rest, the next run applies them, and `command` takes the lock.
    pub async fn release(
        &self,
        collection: &CollectionName,
        command: &str,
    ) -> Result<Option<Release>, DoorError> {
        self.twice(async || match self.answering().await? {
            Ok(process) => ask_about(&process, "/release", Some(collection)).await,
            Err(lock) => {
                // The mirror takes the same lock for itself.
                drop(lock);
                self.release_at_rest(collection, command, false)
            }
        })
        .await
    }

    /// The same, but a process that works on the mirror is not asked: `command` takes the mirror
    /// over.
    pub fn release_by_force(
        &self,
        collection: &CollectionName,
        command: &str,
    ) -> Result<Option<Release>, DoorError> {
        self.release_at_rest(collection, command, true)
    }

    fn release_at_rest(
        &self,
        collection: &CollectionName,
        command: &str,
        take_over: bool,
    ) -> Result<Option<Release>, DoorError> {
        let (_mirror, state) = self.open(command, take_over)?;
        Ok(Release::at_rest(&state, collection)?)
    }

    /// Gives an order for a collection, or for all. `None` if the mirror has no such collection. At rest,
    /// only a full scan can be ordered, for the next run.
    pub async fn order(
        &self,
        action: Action,
        collection: Option<&CollectionName>,
    ) -> Result<Option<Vec<Ordered>>, DoorError> {
        let path = format!("/{}", action.name());
        self.twice(async || match self.answering().await? {
            Ok(process) => ask_about(&process, &path, collection).await,
            Err(lock) if action == Action::Rescan => {
                drop(lock);
                let (_mirror, state) = self.open(action.name(), false)?;
                Ok(Ordered::rescan_at_rest(&state, collection)?)
            }
            Err(_) => Err(DoorError::AtRest(self.directory.clone(), action)),
        })
        .await
    }

    /// Asks the process that works on the mirror to repair a collection, or all. `None` if no process does that
    /// answers; the inner `None` if the mirror has no such collection.
    pub async fn begin_repair(
        &self,
        collection: Option<&CollectionName>,
    ) -> Result<Option<Option<JobReport>>, DoorError> {
        match self.look()? {
            Answerer::Running(process) => {
                ask_about(&process, "/repair", collection).await.map(Some)
            }
            Answerer::Busy(_) | Answerer::AtRest(_) => Ok(None),
        }
    }

    /// A job of the process that works on the mirror; `None` if the process has ended, or does not know the job.
    pub async fn job(&self, id: u64) -> Result<Option<JobReport>, DoorError> {
        match self.look()? {
            Answerer::Running(process) => Ok(process.get(&format!("/jobs/{id}")).await?),
            Answerer::Busy(_) | Answerer::AtRest(_) => Ok(None),
        }
    }

    /// The documents whose deletion is held back. At rest, `command` takes the lock.
    pub async fn held(&self, command: &str) -> Result<Vec<HeldDocument>, DoorError> {
        const PATH: &str = "/held";
        self.twice(async || match self.answering().await? {
            Ok(process) => Ok(process.get(PATH).await?.ok_or_else(|| process.lacks(PATH))?),
            Err(lock) => {
                drop(lock);
                let (_mirror, state) = self.open(command, false)?;
                Ok(HeldDocument::all(&state)?)
            }
        })
        .await
    }

    /// The write events after number `since`, those of one `collection` only if it is named.
    ///
    /// Without `since`, a process begins with its next event, and a mirror at rest with the
    /// beginning of its journal.
    pub async fn events(
        &self,
        since: Option<u64>,
        collection: Option<CollectionName>,
    ) -> Result<Events, DoorError> {
        let lock = match self.answering().await? {
            Err(lock) => lock,
            Ok(process) => {
                if let Some(wanted) = &collection {
                    refuse_unknown(&process, wanted).await?;
                }
                let since = since.map(|since| since.to_string());
                let since = since.as_deref().map(|since| ("since", since));
                let wanted = collection.as_ref().map(|wanted| ("collection", wanted.as_str()));
                let parameters: Vec<_> = since.into_iter().chain(wanted).collect();
                let pieces = process.stream("/events", &parameters).await?;
                return Ok(Events(Origin::Process { pieces, read: BytesMut::new() }));
            }
        };
        let copied = Copied::open(&self.ours.state_path())?;
        drop(lock);
        if let Some(damaged) = &copied.damaged {
            tracing::warn!(
                "the state cannot be read ({}): its events are lost, and numbers continue with a gap",
                damaged.reason
            );
        }
        if let Some(wanted) = &collection {
            let mut names = copied.state.collections()?;
            names.extend(self.ours.collections()?);
            names.sort();
            names.dedup();
            if !names.contains(wanted) {
                return Err(unknown(wanted, &names));
            }
        }
        let events = Subscription::of_journal(&copied.state, since.unwrap_or(0));
        Ok(Events(Origin::Journal { events, collection, _copied: copied }))
    }

    /// Opens the mirror and its state to write to them.
    fn open(&self, command: &str, take_over: bool) -> Result<(Mirror, Checkpoints), DoorError> {
        let holder = Holder::this_process(command);
        let mirror = Mirror::open_existing(&self.directory, &holder, take_over)?;
        let state = open_state::<DoorError>(&mirror, Bounds::DEFAULT)?;
        Ok((mirror, state))
    }

    /// Asks, and asks once more if somebody else is to be asked by then: a process may end, or begin, at
    /// the moment at which it is looked for.
    async fn twice<T>(&self, ask: impl AsyncFn() -> Result<T, DoorError>) -> Result<T, DoorError> {
        let asked = ask().await;
        match &asked {
            Err(error) if self.has_changed(error) => ask().await,
            _ => asked,
        }
    }

    /// Whether the mirror is in other hands than those that this error names.
    fn has_changed(&self, error: &DoorError) -> bool {
        let now = match self.look() {
            Ok(Answerer::Running(process)) => Some(process.holder().clone()),
            Ok(Answerer::Busy(process)) => Some(process.holder().clone()),
            Ok(Answerer::AtRest(_)) => None,
            Err(_) => return false,
        };
        let is_other = |holder: &Holder| {
            now.as_ref().is_none_or(|now| (now.pid, &now.since) != (holder.pid, &holder.since))
        };
        match error {
            DoorError::Unanswered(Unanswered { holder, .. }) => is_other(holder),
            // It was at rest a moment before.
            DoorError::Mirror(MirrorError::Locked { holder, .. }) => {
                is_other(holder) || will_answer(holder)
            }
            _ => false,
        }
    }

    /// The process that answers, or the lock of a mirror at rest. A process that has just begun to
    /// mirror says where it answers a moment after it has taken the lock.
    async fn answering(&self) -> Result<Result<Answering, SharedLock>, DoorError> {
        const MOMENT: Duration = Duration::from_millis(50);
        const MOMENTS: usize = 100;
        let mut moments = 0;
        loop {
            let process = match self.look()? {
                Answerer::Running(process) => return Ok(Ok(process)),
                Answerer::AtRest(lock) => return Ok(Err(lock)),
                Answerer::Busy(process) => process,
            };
            if process.stopped().is_some() {
                return Err(process.unanswered("").into());
            }
            moments += 1;
            if moments > MOMENTS || !will_answer(process.holder()) {
                let (path, holder) = (self.directory.clone(), process.holder().clone());
                return Err(MirrorError::Locked { path, holder }.into());
            }
            tokio::time::sleep(MOMENT).await;
        }
    }

    fn look(&self) -> Result<Answerer, MirrorError> {
        Ok(match self.ours.share()? {
            Ok(lock) => Answerer::AtRest(lock),
            Err(holder) => match Process::new(&self.directory, holder).answering() {
                Ok(process) => Answerer::Running(process),
                Err(process) => Answerer::Busy(process),
            },
        })
    }
}

/// What to do if no process works on the mirror.
fn at_rest(action: Action) -> &'static str {
    match action {
        Action::Pause => {
            "the next run catches up, also after a pause. To prevent it, do not start `plainfold mirror`, and \
             remove the mirror from the config of `plainfold run`"
        }
        Action::Resume => {
            "a pause ends with its process, so the next run catches up. Start it with `plainfold mirror` or \
             `plainfold run`"
        }
        Action::CatchUp | Action::Rescan => {
            "the next run catches up at once. Start it with `plainfold mirror` or `plainfold run`"
        }
    }
}

/// Posts a request about a collection, or all. `None` if the mirror has no such collection.
async fn ask_about<T: DeserializeOwned>(
    process: &Answering,
    path: &str,
    collection: Option<&CollectionName>,
) -> Result<Option<T>, DoorError> {
    let parameters: Vec<_> =
        collection.map(|name| ("collection", name.as_str())).into_iter().collect();
    let answer = process.post(path, &parameters).await?;
    let Some(wanted) = collection.filter(|_| answer.is_none()) else {
        return answer.map(Some).ok_or_else(|| process.lacks(path).into());
    };
    // A process of another version may not know the path.
    let status = ask_status(process).await?;
    match status.collections.iter().any(|one| one.report.collection == *wanted) {
        true => Err(process.lacks(path).into()),
        false => Ok(None),
    }
}

async fn ask_status(process: &Answering) -> Result<Status, Unanswered> {
    const PATH: &str = "/status";
    process.get(PATH).await?.ok_or_else(|| process.lacks(PATH))
}

/// Refuses a collection that the process that mirrors does not know. A process that has just
/// started does not know all names of its collections before it has caught up.
async fn refuse_unknown(process: &Answering, wanted: &CollectionName) -> Result<(), DoorError> {
    const MOMENT: Duration = Duration::from_millis(100);
    const MOMENTS: usize = 50;
    let mut names = Vec::new();
    for _ in 0..MOMENTS {
        // A process of another version may answer otherwise; events are still worth reading.
        let Ok(status) = ask_status(process).await else { return Ok(()) };
        names = status.collections.into_iter().map(|one| one.report.collection).collect();
        if names.contains(wanted) {
            return Ok(());
        }
        if status.caught_up {
            break;
        }
        tokio::time::sleep(MOMENT).await;
    }
    Err(unknown(wanted, &names))
}

fn unknown(wanted: &CollectionName, names: &[CollectionName]) -> DoorError {
    // A collection is asked for by its name: no glob is meant.
    DoorError::NoCollection(match Pattern::new(wanted.as_str()) {
        Ok(pattern) => pattern.as_name().no_match(names),
        Err(error) => error.to_string(),
    })
}

/// Write events and notices of what was missed, as lines of JSON.
pub struct Events(Origin);

enum Origin {
    Process {
        pieces: BoxStream<'static, io::Result<Bytes>>,
        /// What was read and not returned.
        read: BytesMut,
    },
    Journal {
        events: Subscription,
        collection: Option<CollectionName>,
        // The events are read from this copy.
        _copied: Copied,
    },
}

impl Events {
    /// Whether a process sends them, until it ends.
    pub fn are_live(&self) -> bool {
        matches!(self.0, Origin::Process { .. })
    }

    /// The next line, with its end; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DoorError> {
        match &mut self.0 {
            Origin::Process { pieces, read } => Ok(next_line(pieces, read).await),
            Origin::Journal { events, collection, .. } => {
                while let Some(notice) = events.next().await? {
                    let is_wanted = match (&notice, &*collection) {
                        (Notice::Event(event), Some(wanted)) => event.collection == *wanted,
                        _ => true,
                    };
                    if is_wanted {
                        return Ok(Some(notice.line()));
                    }
                }
                Ok(None)
            }
        }
    }
}

async fn next_line(
    pieces: &mut BoxStream<'static, io::Result<Bytes>>,
    read: &mut BytesMut,
) -> Option<Bytes> {
    let mut looked_at = 0;
    loop {
        if let Some(end) = read[looked_at..].iter().position(|byte| *byte == b'\n') {
            return Some(read.split_to(looked_at + end + 1).freeze());
        }
        looked_at = read.len();
        // The process ended, perhaps by force; what it had committed was emitted.
        read.extend_from_slice(&pieces.next().await?.ok()?);
    }
}

/// Whether a process will say where it answers, or may be one that will.
fn will_answer(holder: &Holder) -> bool {
    holder.command == "mirror" || holder.pid == 0
}

#[cfg(test)]
mod tests;
