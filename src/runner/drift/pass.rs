//! Verifies a mirror all the time, so slowly that nobody notices: a stretch of a collection after the other.
//! The state remembers how far it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::how::DriftOptions;
use super::{repair, restraint};
use crate::archive::{self, StoredCollection};
use crate::document::CollectionName;
use crate::mirror;
use crate::runner::damage::look_twice;
use crate::runner::integrity::{Looked, Soundness};
use crate::runner::shared::{Member, Shared};
use crate::source::Mode;
use crate::verify::{self, Pace, Restraint, VerifyError};

/// A stretch has at most this number of documents, and about this number of bytes. A stretch that is
/// interrupted is read again.
const STRETCH: (usize, u64) = (500, 16 << 20);

/// A verification whose rate follows from its period reads at least this number of bytes a second.
const LEAST: u64 = 16 << 10;

/// A first copy, and a catch-up, are waited for, but not longer than this.
const PATIENCE: Duration = Duration::from_secs(3600);

/// How often is looked whether a collection is due, at most and at least.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// After an error it is tried again after this time.
const AFTER_ERROR: Duration = Duration::from_secs(60);

/// Verifies the mirror until its errands end. A mirror that only catches up is left alone by then.
pub(super) async fn keep(shared: Arc<Shared>, options: DriftOptions, mode: Mode) {
    if mode == Mode::CatchUp {
        return;
    }
    let stop = shared.errands.clone();
    let work = async {
        let mut progress = shared.progress.subscribe();
        let ready = progress.wait_for(|progress| progress.ready || progress.ended);
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            tracing::debug!("the mirror has not caught up, and is verified meanwhile");
        }
        let pace = Arc::new(Pace::new(options.rate.unwrap_or(LEAST)));
        let restraint = Restraint { pace: Some(pace), ..restraint(&shared) };
        let mut sizes = BTreeMap::new();
        let look = (options.every / 20).clamp(LOOK.0, LOOK.1);
        loop {
            let one = Step {
                shared: Arc::clone(&shared),
                options: options.clone(),
                restraint: restraint.clone(),
                sizes: std::mem::take(&mut sizes),
            };
            let stepped = tokio::task::spawn_blocking(move || one.make()).await;
            let (result, known) = match stepped {
                Ok(stepped) => stepped,
                Err(error) if error.is_cancelled() => return,
                Err(error) => {
                    tracing::error!(
                        "the verification in the background begins again: internal error: {error}"
                    );
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            sizes = known;
            match result {
                Ok(Stepped::Nothing) => tokio::time::sleep(look).await,
                Ok(Stepped::Read { name, wants_repair, owed }) => {
                    if wants_repair && options.repair {
                        repair(&shared, &name).await;
                    }
                    tokio::time::sleep(owed).await;
                }
                Err(VerifyError::Cancelled) => return,
                Err(error) => {
                    tracing::warn!("the verification in the background is interrupted: {error}");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// What a step has done.
enum Stepped {
    /// No collection is due.
    Nothing,
    /// A stretch of a collection was read.
    Read {
        name: CollectionName,
        /// Whether anything is damaged that was not known, or all of it was read.
        wants_repair: bool,
        /// How long it is still to be waited for what was read.
        owed: Duration,
    },
}

/// What reading each collection costs.
type Sizes = BTreeMap<CollectionName, u64>;

/// One step.
struct Step {
    shared: Arc<Shared>,
    options: DriftOptions,
    restraint: Restraint,
    sizes: Sizes,
}

impl Step {
    /// Reads a stretch of the collection that is due first. Blocks.
    fn make(mut self) -> (Result<Stepped, VerifyError>, Sizes) {
        let result = self.step();
        (result, self.sizes)
    }

    fn step(&mut self) -> Result<Stepped, VerifyError> {
        let known: Vec<(CollectionName, Soundness)> = {
            let names: Vec<_> = self.shared.members().keys().cloned().collect();
            names.into_iter().map(|name| (name.clone(), self.shared.soundness(&name))).collect()
        };
        let now = Timestamp::now();
        let due = known.iter().filter(|(_, one)| is_due(one, self.options.every, now));
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(_, one)| (!one.is_urgent, one.begun.is_none(), one.at));
        if due.is_empty() {
            return Ok(Stepped::Nothing);
        }
        let archive = archive::open(self.shared.mirror.path())?;
        let (collections, _) = archive.collections()?;
        let lost = match archive.missing(&collections)?.is_empty() {
            true => Vec::new(),
            false => mirror::Ours::find(self.shared.mirror.path())?.collections()?,
        };
        self.measure(&collections)?;
        let mut trouble = None;
        for (name, sound) in due {
            let collection = collections.iter().find(|one| one.name() == name);
            let Some(collection) = collection else {
                // Its folder is about to be created, or is gone: the others are read meanwhile.
                let had_one = self.shared.members().get(name).is_some_and(Member::is_current);
                if had_one && lost.contains(name) {
                    self.shared.note_lost(name);
                }
                continue;
            };
            match self.read(&**collection, name, sound) {
                Err(VerifyError::Cancelled) => return Err(VerifyError::Cancelled),
                Err(error) => {
                    tracing::debug!(collection = %name, "it cannot be verified: {error}");
                    trouble = Some(error);
                }
                read => return read,
            }
        }
        trouble.map_or(Ok(Stepped::Nothing), Err)
    }

    fn read(
        &mut self,
        collection: &dyn StoredCollection,
        name: &CollectionName,
        sound: &Soundness,
    ) -> Result<Stepped, VerifyError> {
        let (begun, after) = (sound.begun.unwrap_or_else(Timestamp::now), sound.after.as_deref());
        if after.is_none() {
            let size = verify::size_of(collection, &self.restraint)?;
            self.sizes.insert(name.clone(), size);
        }
        let mut read = verify::stretch(collection, after, STRETCH, &self.restraint)?;
        let looked = Looked::Between(after, read.upto.as_deref());
        let known = self.shared.soundness(name);
        look_twice(&known, collection, looked, &mut read.spot, &self.restraint.stop)?;
        let is_damaged = self.shared.note_spot(name, looked, &read.spot);
        let is_complete = read.upto.is_none();
        self.shared.change_soundness(name, true, |known| {
            // Somebody may have begun it again meanwhile.
            if known.after.as_deref() != after || known.renewed != sound.renewed {
                return;
            }
            known.after = read.upto;
            match is_complete {
                true => {
                    (known.at, known.from) = (Some(Timestamp::now()), Some(begun));
                    (known.begun, known.is_urgent) = (None, false);
                }
                false => known.begun = Some(begun),
            }
        });
        if is_complete {
            let damaged = self.shared.soundness(name).count();
            tracing::debug!(collection = %name, damaged, "every byte of the collection was verified");
        }
        // What was found is noted before it is paid for, which may take hours.
        let pace = self.restraint.pace.as_ref();
        let owed = pace.zip(read.owed).map_or(Duration::ZERO, |(pace, bytes)| pace.spend(bytes));
        Ok(Stepped::Read { name: name.clone(), wants_repair: is_damaged || is_complete, owed })
    }

    /// Sets the rate by what there is to read, unless it is given.
    fn measure(&mut self, collections: &[Arc<dyn StoredCollection>]) -> Result<(), VerifyError> {
        if self.options.rate.is_some() {
            return Ok(());
        }
        for collection in collections {
            if !self.sizes.contains_key(collection.name()) {
                match verify::size_of(&**collection, &self.restraint) {
                    Ok(size) => drop(self.sizes.insert(collection.name().clone(), size)),
                    Err(VerifyError::Cancelled) => return Err(VerifyError::Cancelled),
                    // It is said when it is read.
                    Err(_) => {}
                }
            }
        }
        if let Some(pace) = &self.restraint.pace {
            pace.set(rate(self.sizes.values().sum(), self.options.every));
        }
        Ok(())
    }
}

/// The rate at which this number of bytes is read once in a period.
fn rate(bytes: u64, every: Duration) -> u64 {
    (bytes / every.as_secs().max(1)).max(LEAST)
}

/// Whether a collection is to be read, or to be read further.
fn is_due(sound: &Soundness, every: Duration, now: Timestamp) -> bool {
    let Some(from) = sound.from.or(sound.at).filter(|_| sound.begun.is_none()) else { return true };
    let age = now.duration_since(from);
    // If the clock was set back, nothing is known of its age.
    age.is_negative() || age.unsigned_abs() >= every
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_collection_is_due_once_in_a_period_counted_from_the_beginning_of_the_last_time() {
        let hour = Duration::from_secs(3600);
        let new = Soundness::default();
        assert!(is_due(&new, hour, at(0)));
        let read = Soundness { from: Some(at(0)), at: Some(at(600)), ..Soundness::default() };
        assert!(!is_due(&read, hour, at(3599)));
        assert!(is_due(&read, hour, at(3600)));
        assert!(is_due(&read, hour, at(-1)), "the clock was set back");
        let half = Soundness { begun: Some(at(700)), ..read.clone() };
        assert!(is_due(&half, hour, at(701)), "it is under way");
        let by_request = Soundness { from: None, ..read };
        assert!(!is_due(&by_request, hour, at(4199)) && is_due(&by_request, hour, at(4200)));
    }

    #[test]
    fn the_rate_reads_everything_once_in_the_period() {
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(rate(week.as_secs() << 20, week), 1 << 20);
        assert_eq!(rate(1 << 20, week), LEAST);
        assert_eq!(rate(1 << 20, Duration::ZERO), 1 << 20);
    }
}
