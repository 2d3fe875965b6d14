//! Epochs: each process that writes to a mirror has a number, and folders in staging that only it
//! knows. So a process that has lost its lock cannot change the mirror any more.
//!
//! Everything that changes the mirror is a rename out of or into one of these folders, the lanes. A
//! successor takes the lanes away, and leaves a plain file in the place of each. It must not know
//! what the lanes contain.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::beneath::{Folder, sync_file, write_all};
use super::error::MirrorError;
use super::holder::Holder;
use super::layout::{EPOCH, SPARE, STAGING};
use crate::place::Desk;

/// The number of lanes: two for a batch, two for the previous one.
pub const LANES: usize = 4;

/// What the file of an epoch says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Marker {
    /// The process.
    #[serde(flatten)]
    holder: Holder,
    /// Whether an earlier process may be alive.
    displaces: bool,
}

/// The epoch of this process. Dropping it gives the lanes back, unless another process has taken
/// them.
#[derive(Debug)]
pub struct Epoch {
    number: u64,
    staging: Folder,
    markers: Folder,
    /// Whether an earlier process may be alive, and may have files of the mirror open.
    displaces: bool,
    /// Whether the files that it may have open were replaced.
    settled: Arc<AtomicBool>,
    /// The plain files that were left in the places of an earlier process's lanes.
    fences: Vec<String>,
    next_name: AtomicU64,
}

impl Epoch {
    /// Begins the next epoch of the mirror whose folder is `ours`, and takes the lanes of all
    /// earlier ones with all that they contain. `forced` says that the lock was taken from a process
    /// that held it; `check` fails if the lock was taken from this process.
    pub fn begin(
        ours: &Folder,
        holder: &Holder,
        forced: bool,
        check: impl Fn() -> Result<(), MirrorError>,
    ) -> Result<Self, MirrorError> {
        let (staging, _) = ours.open_or_rebuild(STAGING)?;
        let (markers, _) = ours.open_or_rebuild(EPOCH)?;
        let names = staging.names()?;
        let before = newest(&markers)?;
        // A process that lost its lock on a network file system may be alive, unless it has given
        // its lanes back.
        let open = |name: &String| lane_of(name).is_some_and(|(epoch, _)| epoch.is_some());
        let left_open = names.iter().any(open);
        let displaced = before.is_some_and(|number| read(&markers, number).displaces);
        let displaces = forced || left_open && (displaced || staging.is_on_network());
        let marker = Marker { holder: holder.clone(), displaces };
        // A power loss may keep a lane, and lose the number that it belongs to.
        let lanes = names.iter().filter_map(|name| lane_of(name)?.0).max();
        let number = claim(ours, &markers, before, lanes, &marker, check)?;
        let mut epoch = Self {
            number,
            staging,
            markers,
            displaces,
            settled: Arc::default(),
            fences: Vec::new(),
            next_name: AtomicU64::new(0),
        };
        epoch.check_newest()?;
        let mut made = Vec::new();
        let taken = epoch.take_lanes(&mut made);
        // An error is that of the other process, if there is one.
        if let Err(displaced) = epoch.check_newest() {
            epoch.take_away(&made);
            return Err(displaced);
        }
        for name in taken? {
            epoch.staging.remove(&name)?;
        }
        for name in epoch.markers.names()? {
            if number_of(&name).is_some_and(|older| older < number) {
                epoch.markers.remove(&name)?;
            }
        }
        Ok(epoch)
    }

    /// The path of a lane in staging.
    pub fn lane(&self, lane: usize) -> String {
        format!("{}-{}", self.number, lane % LANES)
    }

    /// A temporary name in a lane, as a path in staging. No earlier epoch has left it there.
    fn temporary(&self, name: &str) -> String {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        format!("{}/{}-{number}.{name}", self.lane(0), self.number)
    }

    /// Whether an earlier process may be alive, and may have files of the mirror open.
    pub fn displaces(&self) -> bool {
        self.displaces
    }

    /// The desk in the folder `ours`, for files of other layers.
    pub fn desk(self: &Arc<Self>) -> Desk {
        let path = format!("{STAGING}/{}/", self.lane(0));
        let owner = Arc::clone(self);
        Desk::new(path, self.displaces, Arc::clone(&self.settled), owner)
    }

    /// Fails if another process has taken over.
    pub fn check(&self) -> Result<(), MirrorError> {
        if self.has_lanes()? { Ok(()) } else { self.check_newest() }
    }

    fn has_lanes(&self) -> Result<bool, MirrorError> {
        Ok(self.staging.kind(&self.lane(0))?.is_some_and(FileType::is_dir))
    }

    fn check_newest(&self) -> Result<(), MirrorError> {
        match newest(&self.markers)? {
            Some(newest) if newest > self.number => Err(self.taken_over(newest)),
            _ => Ok(()),
        }
    }

    fn taken_over(&self, newest: u64) -> MirrorError {
        let ours = self.staging.path().parent().unwrap_or(Path::new("."));
        let path = ours.parent().unwrap_or(ours).to_owned();
        MirrorError::TakenOver { path, holder: read(&self.markers, newest).holder }
    }

    /// The same result; an error is that of the other process, if one has taken over.
    fn explained<T>(&self, result: Result<T, MirrorError>) -> Result<T, MirrorError> {
        result.map_err(|error| self.check().err().unwrap_or(error))
    }

    /// Fails if the lanes are gone, for whatever reason.
    pub fn check_lanes(&self) -> Result<(), MirrorError> {
        if self.has_lanes()? {
            return Ok(());
        }
        self.check_newest()?;
        Err(self.staging.error("open", &self.lane(0), Errno::NOENT))
    }

    /// Writes a small JSON file of ours durably: a temporary file in a lane, synced, renamed, folder
    /// synced.
    pub fn write<T: Serialize>(
        &self,
        folder: &Folder,
        name: &str,
        value: &T,
    ) -> Result<(), MirrorError> {
        let failed = |error| MirrorError::io("write", folder.path().join(name), error);
        let mut text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))?;
        text.push('\n');
        self.replace(folder, name, |mut file| {
            write_all(&mut file, [text.as_bytes(), b""]).map_err(failed)?;
            sync_file(&file).map_err(failed)
        })?;
        folder.sync()
    }

    /// Creates a file with `write`, and gives it the name `name` in `folder` in one step, in the
    /// place of any other.
    pub fn replace<T>(
        &self,
        folder: &Folder,
        name: &str,
        write: impl FnOnce(std::fs::File) -> Result<T, MirrorError>,
    ) -> Result<T, MirrorError> {
        let temporary = self.temporary(name);
        let written = || {
            let written = write(self.staging.create_file(&temporary)?)?;
            self.staging
                .rename(&temporary, folder, name)
                .map_err(|error| folder.error("rename to", name, error))?;
            Ok(written)
        };
        let written = written();
        if written.is_err() {
            // If this fails too, the next start removes it.
            let _ = self.staging.remove(&temporary);
        }
        self.explained(written)
    }

    /// Opens the folder `name`, and creates it if needed; says whether it was created.
    pub fn open_or_create(
        &self,
        above: &Folder,
        name: &str,
    ) -> Result<(Folder, bool), MirrorError> {
        if let Some(folder) = above.open(name)? {
            return Ok((folder, false));
        }
        let temporary = self.temporary(name);
        self.explained(self.staging.create(&temporary))?;
        match self.staging.rename_new(&temporary, above, name) {
            Ok(()) => {}
            // A plain rename of a folder replaces at most an empty folder.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let renamed = self.staging.rename(&temporary, above, name);
                self.explained(renamed.map_err(|error| above.error("create", name, error)))?;
            }
            Err(error) => {
                let _ = self.staging.remove(&temporary);
                if error != Errno::EXIST {
                    return self.explained(Err(above.error("create", name, error)));
                }
            }
        }
        match above.open(name)? {
            Some(folder) => Ok((folder, true)),
            None => Err(above.error("open", name, Errno::NOENT)),
        }
    }

    /// The same for a folder whose content can be rebuilt: a file in its place is set aside and
    /// logged.
    pub fn open_or_rebuild(
        &self,
        above: &Folder,
        name: &str,
    ) -> Result<(Folder, bool), MirrorError> {
        if above.kind(name)?.is_some_and(FileType::is_file) {
            self.check_lanes()?;
            above.set_aside(name, "was not a folder")?;
        }
        self.open_or_create(above, name)
    }

    /// Moves `name` out of `folder` into a lane; `None` if that name does not exist. Returns its path
    /// in staging.
    pub fn take_out(&self, folder: &Folder, name: &str) -> Result<Option<String>, MirrorError> {
        let temporary = self.temporary(name);
        match folder.rename(name, &self.staging, &temporary) {
            Ok(()) => Ok(Some(temporary)),
            Err(Errno::NOENT) => {
                self.check_lanes()?;
                Ok(None)
            }
            Err(error) => self.explained(Err(folder.error("move away", name, error))),
        }
    }

    /// Removes `name` from `folder`, with all that it contains.
    pub fn remove(&self, folder: &Folder, name: &str) -> Result<(), MirrorError> {
        match self.take_out(folder, name) {
            Ok(Some(temporary)) => self.staging.remove(&temporary),
            Ok(None) => Ok(()),
            // Overlay file systems do not move folders of their lower layers.
            Err(error) if error.errno() == Some(Errno::XDEV) => {
                self.check_lanes()?;
                folder.remove(name)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the lanes of earlier epochs, and those that were given back. A lane that cannot be
    /// taken as a whole is emptied. Those that had to be created are added to `made`.
    /// Returns the plain files that earlier successors left.
    fn take_lanes(&mut self, made: &mut Vec<String>) -> Result<Vec<String>, MirrorError> {
        // Listed now that the number is claimed: an earlier process that takes lanes later than this
        // sees that it was displaced.
        let names = self.staging.names()?;
        let mut from: Vec<_> =
            names.iter().filter_map(|name| Some((lane_of(name)?, name))).collect();
        let mut left = Vec::new();
        // The newest first.
        from.sort_unstable_by(|one, other| other.cmp(one));
        for ((epoch, lane), name) in from {
            match self.staging.kind(name)? {
                Some(kind) if kind.is_dir() => {}
                Some(kind) if kind.is_file() && epoch.is_some() => {
                    left.push(name.clone());
                    continue;
                }
                _ => continue,
            }
            if epoch.is_some_and(|epoch| epoch >= self.number) {
                continue;
            }
            let own = self.lane(lane);
            if !self.staging.rename_folder(name, &own)? {
                if !self.staging.kind(name)?.is_some_and(FileType::is_dir) {
                    // A successor has taken it.
                    continue;
                }
                self.make_lane(own.clone(), made)?;
                self.empty(name, &own)?;
                if !self.staging.remove_empty(name)? {
                    continue;
                }
            }
            if epoch.is_some() {
                match self.staging.create_file(name) {
                    Ok(_) => self.fences.push(name.clone()),
                    // Then nothing is in its place, which keeps others out too.
                    Err(error) => tracing::debug!("{error}"),
                }
            }
        }
        self.check_newest()?;
        for lane in 0..LANES {
            self.make_lane(self.lane(lane), made)?;
        }
        Ok(left)
    }

    /// Creates a lane that does not exist, and adds its name to `made`.
    fn make_lane(&self, own: String, made: &mut Vec<String>) -> Result<(), MirrorError> {
        if self.staging.open_or_create(&own)?.1 {
            made.push(own);
        }
        Ok(())
    }

    /// Removes what a process has created in staging that was displaced before it had its lanes: the
    /// other process may not know of it.
    fn take_away(&self, made: &[String]) {
        for lane in made {
            // One that is not empty is given back.
            let _kept = self.staging.remove_empty(lane);
        }
        self.remove_fences();
    }

    /// Moves the entries of a lane to another. What cannot be moved stays.
    fn empty(&self, from: &str, to: &str) -> Result<(), MirrorError> {
        let Some(lane) = self.staging.open_folder(from)? else { return Ok(()) };
        for name in lane.names()? {
            let _kept = lane.rename_new(&name, &self.staging, &format!("{to}/{name}"));
        }
        Ok(())
    }
}

impl Epoch {
    fn give_back(&self) {
        for lane in 0..LANES {
            let own = self.lane(lane);
            if !self.staging.rename_folder(&own, &lane.to_string()).unwrap_or_default() {
                let _kept = self.staging.remove_empty(&own);
            }
        }
    }

    /// Without their lanes, earlier processes find nothing there either.
    fn remove_fences(&self) {
        for name in &self.fences {
            let _gone = self.staging.unlink(name.as_ref(), AtFlags::empty());
        }
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        if !newest(&self.markers).is_ok_and(|newest| newest == Some(self.number)) {
            // If the other process has ended before this one took the lanes, they are given back.
            return self.give_back();
        }
        if self.displaces && !self.settled.load(Ordering::Acquire) {
            // The next epoch has to replace what the earlier process may have open.
            return;
        }
        self.give_back();
        self.remove_fences();
    }
}

/// The epoch and the number of a lane with this name; no epoch if it was given back.
pub fn lane_of(name: &str) -> Option<(Option<u64>, usize)> {
    let (epoch, lane) = match name.split_once('-') {
        Some((epoch, lane)) => (Some(number_of(epoch)?), lane),
        None => (None, name),
    };
    let lane = (0..LANES).find(|one| one.to_string() == lane)?;
    Some((epoch, lane))
}

fn number_of(name: &str) -> Option<u64> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())?
}

/// The number of the newest epoch.
fn newest(markers: &Folder) -> Result<Option<u64>, MirrorError> {
    Ok(markers.names()?.iter().filter_map(|name| number_of(name)).max())
}

fn read(markers: &Folder, number: u64) -> Marker {
    let text = markers.read_file(&number.to_string()).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Claims the number that follows the newest, and those of all `lanes`. `check` fails if this process has
/// lost the lock.
///
/// The lock is checked after the number is known: a process that takes the lock later claims the same
/// number or a higher one. So the process with the lock is always the one with the newest epoch.
fn claim(
    ours: &Folder,
    markers: &Folder,
    mut before: Option<u64>,
    lanes: Option<u64>,
    marker: &Marker,
    check: impl Fn() -> Result<(), MirrorError>,
) -> Result<u64, MirrorError> {
    let text = serde_json::to_vec(marker).unwrap_or_default();
    loop {
        let last = before.max(lanes).unwrap_or_default();
        let number = last.checked_add(1).ok_or_else(|| {
            let what = "no number follows it: it is not Plainfold's, remove it";
            let path = match before == Some(last) {
                true => markers.path().join(last.to_string()),
                false => markers.path().with_file_name(STAGING).join(format!("{last}-0")),
            };
            MirrorError::io("use", path, std::io::Error::other(what))
        })?;
        let name = number.to_string();
        check()?;
        let made = match (markers.create_file(&name), before) {
            // A mirror opens on a full disk too, and renaming needs no space. The text is then an
            // older one.
            (Err(error), Some(before)) if error.is_full() && !marker.displaces => {
                let renamed = markers.rename_new(&before.to_string(), markers, &name);
                return renamed.map(|()| number).map_err(|_| error);
            }
            (Err(error), _) if error.is_full() => {
                // What is reserved for deletions makes room.
                ours.remove(SPARE)?;
                markers.create_file(&name)
            }
            (made, _) => made,
        };
        match made {
            Ok(mut file) => {
                let written = write_all(&mut file, [&text, b""])
                    .map_err(|error| MirrorError::io("write", markers.path().join(&name), error));
                return match written {
                    Err(error) if marker.displaces || !error.is_full() => Err(error),
                    // The number counts without its text.
                    _ => Ok(number),
                };
            }
            Err(error) if error.errno() == Some(Errno::EXIST) => before = newest(markers)?,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tree::beneath::tests::folder;

    fn begin(ours: &Folder, forced: bool) -> Epoch {
        Epoch::begin(ours, &Holder::this_process("mirror"), forced, || Ok(())).unwrap()
    }

    fn staging(dir: &tempfile::TempDir) -> Vec<String> {
        let mut names = Folder::open_path(&dir.path().join(STAGING)).unwrap().names().unwrap();
        names.sort_unstable();
        names
    }

    #[test]
    fn each_opening_is_an_epoch_and_the_lanes_are_given_back() {
        let (dir, ours) = folder();
        for number in 1..4 {
            let epoch = begin(&ours, false);
            assert_eq!(epoch.number, number);
            assert!(!epoch.displaces());
            assert_eq!(staging(&dir), [0, 1, 2, 3].map(|lane| format!("{number}-{lane}")));
            epoch.check().unwrap();
            drop(epoch);
            assert_eq!(staging(&dir), ["0", "1", "2", "3"]);
            let markers = Folder::open_path(&dir.path().join(EPOCH)).unwrap();
            assert_eq!(markers.names().unwrap(), [number.to_string()], "older ones are removed");
        }
    }

    #[test]
    fn what_a_killed_process_left_in_a_lane_is_in_no_way() {
        let (dir, ours) = folder();
        std::mem::forget(begin(&ours, false));
        fs::write(dir.path().join("staging/1-0/1-0.format.json"), "torn").unwrap();
        let epoch = begin(&ours, false);
        assert!(dir.path().join("staging/2-0/1-0.format.json").exists());
        epoch.write(&ours, "format.json", &1).unwrap();
    }

    #[test]
    fn a_process_that_was_displaced_changes_nothing_any_more() {
        let (dir, ours) = folder();
        let first = begin(&ours, false);
        fs::write(dir.path().join("staging/1-2/7~books"), "left").unwrap();
        fs::write(dir.path().join("there"), "old").unwrap();
        let second = begin(&ours, true);
        assert!(second.displaces());
        assert_eq!(fs::read(dir.path().join("staging/2-2/7~books")).unwrap(), b"left");
        assert!(dir.path().join("staging/1-2").is_file());
        assert!(matches!(first.check(), Err(MirrorError::TakenOver { .. })));
        first.write(&ours, "there", &"new").unwrap_err();
        first.open_or_create(&ours, "trash").unwrap_err();
        first.remove(&ours, "there").unwrap_err();
        first.take_out(&ours, "missing").unwrap_err();
        drop(first);
        assert_eq!(fs::read(dir.path().join("there")).unwrap(), b"old");
        let lanes = ["1-0", "1-1", "1-2", "1-3", "2-0", "2-1", "2-2", "2-3"];
        assert_eq!(staging(&dir), lanes, "the lanes of the second are still its own");
        second.check().unwrap();
        drop(second);
        // Nothing has replaced what the first process may have open.
        let third = begin(&ours, false);
        assert!(third.displaces());
        third.settled.store(true, Ordering::Release);
        drop(third);
        assert_eq!(staging(&dir), ["0", "1", "2", "3"]);
        assert!(!begin(&ours, false).displaces());
    }

    #[test]
    fn a_process_that_lost_the_lock_claims_no_number_after_the_one_that_has_it() {
        let (_dir, ours) = folder();
        let (holder, second) = (Holder::this_process("mirror"), std::cell::RefCell::new(None));
        let lost = || MirrorError::NoMirror { path: "lost".into() };
        // The lock is taken over between the check and the claim.
        let check = || {
            let is_lost = second.borrow().is_some();
            if is_lost {
                return Err(lost());
            }
            second.replace(Some(begin(&ours, true)));
            Ok(())
        };
        Epoch::begin(&ours, &holder, false, check).unwrap_err();
        let second = second.take().unwrap();
        assert_eq!(second.number, 1);
        second.check_lanes().unwrap();
    }

    #[test]
    fn a_process_that_took_its_lanes_while_its_successor_claimed_a_number_loses_them() {
        let (_dir, ours) = folder();
        let first = std::cell::RefCell::new(None);
        let check = || {
            let begun = first.take().unwrap_or_else(|| begin(&ours, false));
            first.replace(Some(begun));
            Ok(())
        };
        let second = Epoch::begin(&ours, &Holder::this_process("mirror"), true, check).unwrap();
        assert_eq!(second.number, 2);
        let first = first.take().unwrap();
        assert!(matches!(first.check(), Err(MirrorError::TakenOver { .. })));
        first.write(&ours, "there", &"new").unwrap_err();
        drop(first);
        second.check_lanes().unwrap();
    }

    #[test]
    fn a_process_that_was_displaced_before_it_had_its_lanes_leaves_none() {
        let (dir, ours) = folder();
        std::mem::forget(begin(&ours, false));
        let mut first = begin(&ours, false);
        // As before it took them.
        first.give_back();
        let second = begin(&ours, true);
        let before = staging(&dir);
        let mut made = Vec::new();
        assert!(matches!(first.take_lanes(&mut made), Err(MirrorError::TakenOver { .. })));
        assert!(made.is_empty());
        // The other process claims its number just after that was looked at.
        first.make_lane(first.lane(0), &mut made).unwrap();
        first.take_away(&made);
        drop(first);
        assert_eq!(staging(&dir), before);
        second.check_lanes().unwrap();
    }

    #[test]
    fn lanes_of_several_epochs_are_emptied_into_the_newest() {
        let (dir, ours) = folder();
        for lane in ["staging/1", "staging/4-1", "staging/6-1"] {
            fs::create_dir_all(dir.path().join(lane)).unwrap();
            fs::write(dir.path().join(lane).join(lane.replace('/', "~")), "").unwrap();
        }
        fs::create_dir(dir.path().join(EPOCH)).unwrap();
        fs::write(dir.path().join(EPOCH).join("6"), "").unwrap();
        let epoch = begin(&ours, false);
        assert_eq!(epoch.number, 7);
        assert_eq!(fs::read_dir(dir.path().join("staging/7-1")).unwrap().count(), 3);
        assert!(
            dir.path().join("staging/6-1").is_file() && dir.path().join("staging/4-1").is_file()
        );
    }

    #[test]
    fn a_lane_whose_number_was_lost_is_in_no_way() {
        let (dir, ours) = folder();
        fs::create_dir_all(dir.path().join("staging/1-0/1-0.format.json")).unwrap();
        let epoch = begin(&ours, false);
        assert_eq!(epoch.number, 2);
        epoch.write(&ours, "format.json", &"new").unwrap();
        drop(epoch);
        fs::create_dir(dir.path().join(format!("staging/{}-0", u64::MAX))).unwrap();
        let error = Epoch::begin(&ours, &Holder::this_process("mirror"), false, || Ok(()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(&format!("{STAGING}/{}-0", u64::MAX)), "{error}");
    }

    #[test]
    fn a_number_that_none_can_follow_is_named() {
        let (dir, ours) = folder();
        drop(begin(&ours, false));
        let last = dir.path().join(EPOCH).join(u64::MAX.to_string());
        fs::write(&last, "").unwrap();
        let error = Epoch::begin(&ours, &Holder::this_process("mirror"), false, || Ok(()));
        assert!(error.unwrap_err().to_string().contains(last.to_str().unwrap()));
    }

    #[test]
    fn names_of_lanes_are_told_from_others() {
        assert_eq!(lane_of("3"), Some((None, 3)));
        assert_eq!(lane_of("17-2"), Some((Some(17), 2)));
        for other in ["4", "03", "1-4", "-1", "x-1", "1-removed", "7~books", "1-+2", ""] {
            assert_eq!(lane_of(other), None, "{other}");
        }
    }
}
