//! Assigns event numbers that never repeat, even if the state is lost.
//!
//! A small file beside the state contains the number up to which events may have been assigned, and
//! a copy of it has another name. They are written once per [`BLOCK`] numbers, so they cost nothing.
//! After a loss, counting continues after the whole block.

use std::path::Path;

use jiff::Timestamp;

use super::error::StateError;
use super::store::{CleanEnd, set_aside};
use crate::place::{Desk, Place};

/// The number of numbers that are reserved at a time.
const BLOCK: u64 = 1 << 20;

/// The copy of the mark, under a name that does not look like a part of the state.
const COPY: &str = "event-numbers";

/// The longest mark: two numbers and a digest are shorter.
pub(super) const LONGEST: u64 = 256;

/// The assigned and the reserved numbers.
#[derive(Debug)]
pub struct HighWater {
    place: Place,
    /// The mark and its copy.
    names: [String; 2],
    next: u64,
    reserved: u64,
    /// No number up to this one is assigned: a process that was displaced may have used it.
    floor: u64,
    /// The last number of an earlier run that ended normally.
    ended: u64,
    /// The content of the state at the end of that run.
    digest: Option<String>,
}

/// Whether there were events before this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The mirror is new.
    Nothing,
    /// The mirror exists, so a state without any mark has lost its marks.
    Something,
    /// Unknown, because the caller did not check. Nothing is committed.
    Unknown,
}

impl HighWater {
    /// Reads the marks of the state at `state`. `last` is the highest number in the journal; `lost`
    /// says that the journal does not contain all assigned numbers.
    pub fn open(
        state: &Path,
        desk: &Desk,
        last: u64,
        lost: bool,
        before: Before,
    ) -> Result<Self, StateError> {
        let failed = |source| StateError::io("read", state, source);
        let (place, name) = Place::with_desk(state, desk).map_err(failed)?;
        let names = marks(&name);
        let (mark, copy) = (read(&place, &names[0])?, read(&place, &names[1])?);
        let known = mark.reserved.max(copy.reserved);
        let (reserved, ended, digest) = (known.unwrap_or(0), copy.ended.unwrap_or(0), copy.digest);
        // Of the mark itself, the second line is the floor.
        let floor = mark.ended.unwrap_or(0);
        let mut numbers = Self { place, names, next: 1, reserved, floor, ended, digest };
        // sled drops the log after a damaged part, so an older journal may return.
        let lost = lost || last < ended;
        // An empty journal with a mark: it was lost, or all events expired.
        let lost = lost || last == 0;
        numbers.next = if lost { numbers.reserved.max(last) + 1 } else { last + 1 };
        if desk.displaces() {
            // The displaced process can reserve no more numbers.
            numbers.floor = numbers.reserved.max(last);
            numbers.reserve(numbers.reserved)?;
        }
        numbers.next = numbers.next.max(numbers.floor + 1);
        if lost && known.is_none() && before == Before::Something {
            numbers.next = beyond(last);
            tracing::warn!(
                "the state and both marks of its event numbers are missing: new events are \
                 numbered from {}, which is above every number used before",
                numbers.next,
            );
        }
        if before == Before::Nothing && known.is_none() {
            // From now on a missing mark is a lost mark.
            numbers.reserve(numbers.reserved)?;
        }
        Ok(numbers)
    }

    /// The first of `count` new numbers.
    pub fn draw(&mut self, count: u64) -> Result<u64, StateError> {
        let first = self.next;
        let end = first + count;
        if end > self.reserved {
            self.reserve(end + BLOCK)?;
        }
        self.next = end;
        Ok(first)
    }

    /// The last assigned number.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    fn reserve(&mut self, up_to: u64) -> Result<(), StateError> {
        for name in &self.names {
            self.write(name, up_to)?;
        }
        self.reserved = up_to;
        Ok(())
    }

    /// Records the last number in the journal at the end of a run, so that a journal that has lost
    /// it is detected.
    pub fn end(&mut self, last: u64, digest: String) -> Result<(), StateError> {
        if self.digest.as_ref() == Some(&digest) || self.reserved == 0 {
            return Ok(());
        }
        self.ended = self.ended.max(last);
        self.digest = Some(digest);
        self.write(COPY, self.reserved)
    }

    /// The content of the state at `state` at the end of the last run that ended normally.
    pub fn noted(state: &Path) -> Result<Option<CleanEnd>, StateError> {
        let failed = |source| StateError::io("read", state, source);
        let (place, _) = Place::of(state).map_err(failed)?;
        let mark = read(&place, COPY)?;
        Ok(mark.ended.zip(mark.digest).map(|(last, digest)| CleanEnd { last, digest }))
    }

    fn write(&self, name: &str, up_to: u64) -> Result<(), StateError> {
        let mut text = format!("{up_to}\n");
        match (name, &self.digest) {
            (COPY, Some(digest)) => text.push_str(&format!("{}\n{digest}\n", self.ended)),
            (COPY, None) => {}
            _ if self.floor > 0 => text.push_str(&format!("{}\n", self.floor)),
            _ => {}
        }
        let written = write(&self.place, name, &text);
        written.map_err(|source| StateError::io("write", &self.place.at(name), source))
    }
}

/// The names of the mark and of its copy for the state with this name.
pub(super) fn marks(state: &str) -> [String; 2] {
    [format!("{state}.high-water"), COPY.to_owned()]
}

/// A number above all that can have been assigned: the microseconds since 1970. Numbers begin at 1,
/// or at such a count, and nobody writes a million documents a second. It is exact in JavaScript.
fn beyond(last: u64) -> u64 {
    u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0).max(last + BLOCK)
}

/// The content of a mark.
struct Mark {
    /// The number up to which events may have been assigned.
    reserved: Option<u64>,
    /// The last number of a run that ended normally, in the copy; in the mark itself, the floor.
    ended: Option<u64>,
    /// The content of the state then; only in the copy.
    digest: Option<String>,
}

/// Reads a mark. A link is not followed; anything that is not a file with a number counts as lost.
fn read(place: &Place, name: &str) -> Result<Mark, StateError> {
    let failed = |source| StateError::io("read", &place.at(name), source);
    let text = place.read(name, LONGEST).map_err(failed)?;
    let text = text.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim);
    let mut number = || lines.next().and_then(|line| line.parse().ok());
    let (reserved, ended) = (number(), number());
    Ok(Mark { reserved, ended, digest: lines.next().map(str::to_owned) })
}

/// Writes a mark in one durable step.
fn write(place: &Place, name: &str, text: &str) -> std::io::Result<()> {
    if place.look(name)?.is_some_and(|found| found.is_folder()) {
        let aside = set_aside(place, name)?;
        tracing::warn!(
            "{} holds event numbers and must be a file, but it was a folder; it was set aside as {}",
            place.at(name).display(),
            aside.display()
        );
    }
    place.replace(name, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(dir: &tempfile::TempDir, last: u64, lost: bool, before: Before) -> HighWater {
        let desk = Desk::default();
        HighWater::open(&dir.path().join("state"), &desk, last, lost, before).unwrap()
    }

    #[test]
    fn numbers_go_on_where_the_journal_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut numbers = open(&dir, 0, false, Before::Nothing);
        assert_eq!(numbers.draw(3).unwrap(), 1);
        assert_eq!(numbers.draw(1).unwrap(), 4);
        for name in ["state.high-water", COPY] {
            let mark = fs::read_to_string(dir.path().join(name)).unwrap();
            assert_eq!(mark, "1048580\n", "it is seldom written");
        }
        assert_eq!(open(&dir, 4, false, Before::Something).draw(1).unwrap(), 5);
    }

    #[test]
    fn after_a_loss_no_number_comes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let given = open(&dir, 0, false, Before::Nothing).draw(10).unwrap() + 9;
        for lost in [true, false] {
            for before in [Before::Something, Before::Unknown] {
                assert!(open(&dir, 0, lost, before).draw(1).unwrap() > given);
            }
        }
    }

    #[test]
    fn a_journal_that_has_lost_its_end_repeats_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut numbers = open(&dir, 0, false, Before::Nothing);
        let given = numbers.draw(10).unwrap() + 9;
        numbers.end(given, "digest".to_owned()).unwrap();
        for end in [true, false] {
            let mut whole = open(&dir, given, false, Before::Something);
            assert_eq!(whole.draw(1).unwrap(), given + 1);
            for last in [1, given - 1] {
                let mut older = open(&dir, last, false, Before::Something);
                assert!(older.draw(1).unwrap() > BLOCK);
            }
            if end {
                // A further block keeps the recorded end of a run.
                open(&dir, given, false, Before::Something).draw(3 * BLOCK).unwrap();
            }
        }
    }

    #[test]
    fn either_mark_alone_is_enough() {
        for name in ["state.high-water", COPY] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            let given = open(&dir, 0, false, Before::Nothing).draw(10).unwrap() + 9;
            for damage in ["gone", "text", "folder"] {
                let _gone = fs::remove_file(&path);
                match damage {
                    "gone" => {}
                    "text" => fs::write(&path, "no number").unwrap(),
                    _ => fs::create_dir(&path).unwrap(),
                }
                let mut numbers = open(&dir, 0, false, Before::Something);
                let first = numbers.draw(1).unwrap();
                assert!(first > given && first < 10 * BLOCK, "{name} {damage}: {first}");
            }
            numbers_are_written_in_place_of(&path, &dir);
        }
    }

    fn numbers_are_written_in_place_of(folder: &Path, dir: &tempfile::TempDir) {
        assert!(folder.is_file(), "the folder was set aside");
        let aside = fs::read_dir(dir.path()).unwrap().filter_map(Result::ok);
        let damaged = |name: std::ffi::OsString| name.to_string_lossy().contains(".damaged-");
        assert_eq!(aside.filter(|entry| damaged(entry.file_name())).count(), 1);
    }

    #[test]
    fn without_any_mark_counting_begins_above_all_that_can_have_been_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let lost = || {
            let numbers = open(&dir, 0, false, Before::Something);
            for name in ["state.high-water", COPY] {
                let _gone = fs::remove_file(dir.path().join(name));
            }
            numbers
        };
        let mut first = lost();
        let given = first.draw(1).unwrap();
        assert!((1 << 50..1 << 53).contains(&given), "{given} is exact in JavaScript");
        for name in ["state.high-water", COPY] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let again = lost().draw(1).unwrap();
        assert!(again > given);
    }

    #[test]
    fn a_new_mirror_begins_at_one_and_has_its_marks_from_the_first_moment() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(&dir, 0, false, Before::Nothing));
        assert_eq!(open(&dir, 0, false, Before::Something).draw(1).unwrap(), 1);
        let other = tempfile::tempdir().unwrap();
        drop(open(&other, 0, false, Before::Unknown));
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0, "a look writes nothing");
    }
}
