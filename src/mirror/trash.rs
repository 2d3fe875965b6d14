//! Deleted documents that are kept for a time, in `.plainfold/trash/<date>/<collection>/`.
//!
//! While a folder is moved there, its name in staging has a mark, so that after a crash the next
//! start moves it to the trash instead of removing it.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};
use rustix::io::Errno;

use super::Mirror;
use super::publish::Published;
use crate::document::Head;
use crate::tree::beneath::Folder;
use crate::tree::layout::{DOCUMENT, TRASH};
use crate::tree::temporary::{Purpose, Temporary};
use crate::tree::{MirrorError, unless_disk};

/// The collection of an entry that belongs in the trash.
fn discarded_from(path: &str) -> Option<&str> {
    let named = Temporary::of(path).filter(|one| one.purpose == Purpose::Discarded);
    named.map(|one| one.collection)
}

impl Mirror {
    /// Moves entries that an interrupted run left in staging to the trash, if they belong there.
    pub(super) fn rescue(&self, names: &[String]) -> Result<(), MirrorError> {
        for name in names {
            let Some(collection) = discarded_from(name) else { continue };
            let Some(folder) = unless_disk(self.staging.open_folder(name))? else { continue };
            // Without a body it is a tombstone that was not published.
            let Some(text) = unless_disk(folder.read_file(DOCUMENT))? else { continue };
            let head = Head::read(&text).unwrap_or_default();
            let document = match &head.id {
                Some(id) => self.encode(id).as_str().to_owned(),
                None => "without an id".to_owned(),
            };
            let place = place(self, collection)?;
            put(&self.staging, name, &place, &document)?;
            place.sync()?;
        }
        Ok(())
    }

    /// Moves the entries that published deletions took out of the tree to the trash.
    pub(super) fn discard<'a>(
        &self,
        published: impl IntoIterator<Item = &'a Published>,
    ) -> Result<(), MirrorError> {
        let mut open: Option<(String, Folder)> = None;
        for change in published {
            let Some(temporary) = change.replaced.as_deref() else { continue };
            let Some(collection) = discarded_from(temporary) else { continue };
            let folder = match &open {
                Some((name, folder)) if name == collection => folder,
                _ => {
                    let folder = place(self, collection)?;
                    &open.insert((collection.to_owned(), folder)).1
                }
            };
            put(&self.staging, temporary, folder, &change.document)?;
        }
        match open {
            Some((_, folder)) => folder.sync(),
            None => Ok(()),
        }
    }

    /// Removes expired folders from the trash, at most once an hour. Only measured time counts,
    /// never the name of a folder.
    pub fn sweep_trash(&self) -> Result<(), MirrorError> {
        const HOUR: i64 = 60 * 60 * 1_000;
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        if self.options.trash == 0 {
            return Ok(());
        }
        let now = self.clock.stamp();
        let mut swept = self.trash_swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|swept| now - swept < HOUR) {
            return Ok(());
        }
        if let Some(trash) = self.ours.open(TRASH)? {
            let mut days = trash.names()?;
            days.retain(|name| name.parse::<Date>().is_ok());
            let most = DAY.saturating_mul(self.options.trash);
            for (name, _) in days.iter().zip(self.clock.ages(&days)).filter(|(_, age)| *age > most)
            {
                match self.epoch.remove(&trash, name) {
                    Err(error) if !error.is_disk() => tracing::warn!(
                        "{error}; other expired documents in the trash are still removed"
                    ),
                    removed => removed?,
                }
            }
        }
        *swept = Some(now);
        Ok(())
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// The folder of a collection in today's trash.
fn place(mirror: &Mirror, collection: &str) -> Result<Folder, MirrorError> {
    let Mirror { ours, clock, epoch, .. } = mirror;
    let mut folder = None;
    let today = today().to_string();
    clock.mark(&today);
    for name in [TRASH, &today, collection] {
        let above = folder.as_ref().unwrap_or(ours);
        let (below, created) = epoch.open_or_rebuild(above, name)?;
        if created {
            above.sync()?;
        }
        folder = Some(below);
    }
    folder.ok_or_else(|| ours.error("open", TRASH, Errno::NOENT))
}

/// Moves a folder of staging to `place`, with the next number for its document.
fn put(
    staging: &Folder,
    temporary: &str,
    place: &Folder,
    document: &str,
) -> Result<(), MirrorError> {
    let mut number: u64 = 1;
    loop {
        let name = format!("{document}-{number}");
        let moved = match staging.rename_new(temporary, place, &name) {
            // Nobody else writes there, so checking first is enough.
            Err(Errno::INVAL | Errno::NOSYS) => match place.kind(&name)? {
                Some(_) => Err(Errno::EXIST),
                None => staging.rename(temporary, place, &name),
            },
            moved => moved,
        };
        match moved {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => number += 1,
            Err(error) => return Err(place.error("rename to", &name, error)),
        }
    }
}
