//! The state: its content, its limits, and the damage that it survives.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

use super::*;

thread_local! {
    /// The number of flushes on this thread, which is the state's own.
    pub static FLUSHES: Cell<u64> = const { Cell::new(0) };
}

/// Opens a state that another user in this process may hold locked for a moment: sled releases its
/// file in other threads. (Separate processes do not have this problem.)
fn opened(path: &Path) -> Opened {
    for _ in 0..1_000 {
        match Checkpoints::open(path, Bounds::DEFAULT) {
            Ok(opened) => return opened,
            Err(error) if error.to_string().contains("acquire lock") => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the lock of {} is never released", path.display())
}

pub fn open(path: &Path) -> Checkpoints {
    opened(path).state
}

pub(super) fn position(token: &str) -> Position {
    Position::new(token, "".into(), None)
}

fn checkpoint(token: &str) -> Commit {
    Commit::new(Checkpoint { position: Some(position(token)), ..Checkpoint::default() })
}

/// Events that consist of their numbers, and do nothing when they are emitted.
fn events(count: usize) -> NewEvents {
    events_to(count, |_| ())
}

/// The same, whose numbers go to `emit`.
fn events_to(count: usize, emit: impl Fn(u64) + Send + 'static) -> NewEvents {
    NewEvents::new(count, move |first| {
        let numbers = first..first + count as u64;
        let record =
            |number| JournalRecord { number, text: format!("{{\"event\":{number}}}").into() };
        let records = numbers.clone().map(record).collect();
        Numbered { records, emit: Box::new(move || numbers.for_each(emit)) }
    })
}

pub fn commit_events(state: &Checkpoints, count: usize) {
    state.commit_with(&"books".into(), &checkpoint("1"), events(count)).unwrap();
}

fn failure(id: &str) -> Failure {
    Failure {
        document: Some(id.into()),
        revision: None,
        place: format!("document {id}"),
        reason: "it is cursed".into(),
        position: None,
        attempts: 1,
        since: Timestamp::UNIX_EPOCH,
        at: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_checkpoint_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let name = "books".into();
    {
        let state = open(&path);
        assert_eq!(state.checkpoint(&name).unwrap(), None);
        state.commit(&name, &checkpoint("\"5-x\"")).unwrap();
    }
    let state = open(&path);
    let kept = state.checkpoint(&name).unwrap().unwrap();
    assert_eq!(kept.position.unwrap().token(), "\"5-x\"");
    assert_eq!(state.collections().unwrap(), vec![name]);
}

#[test]
fn the_journal_gives_back_what_follows_a_number_wherever_its_chunk_starts() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir.path().join("state"));
    commit_events(&state, 5_000);
    commit_events(&state, 3);
    assert_eq!(state.journal_range().unwrap(), Some(JournalRange { first: 1, last: 5_003 }));
    for since in [0, 1, 777, 4_999, 5_000, 5_002] {
        let mut numbers = Vec::new();
        while numbers.len() < 5_003 - since as usize {
            let after = numbers.last().copied().unwrap_or(since);
            let page = state.journal_after(after, 100).unwrap();
            assert!(page.iter().all(|r| r.text == format!("{{\"event\":{}}}", r.number)));
            numbers.extend(page.into_iter().map(|record| record.number));
        }
        assert!(numbers.iter().copied().eq(since + 1..=5_003), "since {since}");
    }
    assert!(state.journal_after(5_003, 100).unwrap().is_empty());
}

#[test]
fn the_journal_is_bounded_by_count() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { events: 100, ..Bounds::DEFAULT };
    let state = Checkpoints::open(&dir.path().join("state"), bounds).unwrap().state;
    for _ in 0..50 {
        commit_events(&state, 10);
    }
    let range = state.journal_range().unwrap().unwrap();
    assert_eq!(range, JournalRange { first: 401, last: 500 });
}

#[test]
fn a_commit_inflates_no_chunk_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { events: 1_000, ..Bounds::DEFAULT };
    let state = Checkpoints::open(&dir.path().join("state"), bounds).unwrap().state;
    // The state's own thread writes; this one reads.
    let inflated = |state: &Checkpoints| {
        let of_writes = state.write(|_| Ok(journal::INFLATED.get())).unwrap();
        of_writes + journal::INFLATED.get()
    };
    let before = inflated(&state);
    for _ in 0..20 {
        commit_events(&state, 500);
        state.commit(&"maps".into(), &checkpoint("1")).unwrap();
    }
    assert_eq!(inflated(&state), before);
    let last = state.journal_range().unwrap();
    assert_eq!(last, Some(JournalRange { first: 9_001, last: 10_000 }));
    assert!(inflated(&state) > before, "the chunks are packed, and inflating one is counted");
}

#[test]
fn the_journal_is_bounded_by_age_and_keeps_its_last_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let bounds = Bounds { age: Duration::ZERO, ..Bounds::DEFAULT };
    let state = Checkpoints::open(&path, bounds).unwrap().state;
    commit_events(&state, 10);
    // Everything older than this very millisecond may be removed.
    let before = state.clock.stamp();
    while state.clock.stamp() <= before {}
    commit_events(&state, 1);
    drop(state);
    let state = open(&path);
    assert_eq!(state.journal_range().unwrap(), Some(JournalRange { first: 11, last: 11 }));
    assert_eq!(state.last_number(), 11);
}

#[test]
fn a_wall_clock_that_jumps_makes_no_event_older() {
    use crate::clock::ClockReading;
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("state"), dir.path().join("clock.json"));
    const DAY: i64 = 24 * 60 * 60 * 1_000;
    fn reading_at(boottime: i64, day: i64) -> ClockReading {
        ClockReading { boot: "a".to_owned(), boottime, wall: day * DAY }
    }
    let open_at = |read: fn() -> ClockReading| {
        let clock = Arc::new(Clock::with(Some(file.clone()), read));
        for _ in 0..1_000 {
            let (before, desk) = (Before::Something, Desk::default());
            match Checkpoints::open_with(&path, Bounds::DEFAULT, clock.clone(), before, desk) {
                Ok(opened) => return opened.state,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        panic!("the lock is never released")
    };
    let count = |state: &Checkpoints| {
        commit_events(state, 1);
        state.store().unwrap().trees().unwrap().journal.tree().len()
    };
    // As an older version leaves it: dated by the wall clock, and without a clock of its own.
    assert_eq!(count(&open_at(|| reading_at(0, 100))), 1);
    fs::remove_file(&file).unwrap();
    assert_eq!(count(&open_at(|| reading_at(0, 140))), 2, "the first run with a clock is ahead");
    assert_eq!(count(&open_at(|| reading_at(DAY, 200))), 3);
    assert_eq!(count(&open_at(|| reading_at(2 * DAY, -56))), 4);
    let left = count(&open_at(|| reading_at(9 * DAY - 1, 0)));
    assert_eq!(left, 2, "all but the last are older than seven days by now");
}

#[test]
fn failures_are_remembered_until_they_are_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let (books, other) = ("books".into(), "books2".into());
    {
        let state = open(&path);
        let commit = Commit { failed: vec![failure("a"), failure("b")], ..checkpoint("1") };
        state.commit(&books, &commit).unwrap();
    }
    let state = open(&path);
    assert_eq!(state.failures(&books).unwrap().len(), 2);
    assert!(state.failures(&other).unwrap().is_empty());
    let commit = Commit { mended: vec!["a".into()], ..checkpoint("1") };
    state.commit(&books, &commit).unwrap();
    assert_eq!(state.failures(&books).unwrap(), vec![failure("b")]);
    let commit = Commit { forget_failures: true, failed: vec![failure("c")], ..checkpoint("1") };
    state.commit(&books, &commit).unwrap();
    assert_eq!(state.failures(&books).unwrap(), vec![failure("c")]);
}

#[test]
fn a_damaged_state_is_set_aside_and_its_numbers_are_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    commit_events(&open(&path), 10);
    fs::write(path.join("conf"), "this is not a configuration").unwrap();
    fs::write(path.join("db"), vec![0xA5; 300_000]).unwrap();
    let opened = opened(&path);
    let aside = opened.damaged.expect("the damage was noticed").path;
    assert!(aside.join("db").exists());
    assert_eq!(opened.state.checkpoint(&"books".into()).unwrap(), None);
    assert!(opened.state.last_number() >= 10);
}

fn held(id: &str) -> HeldBack {
    HeldBack {
        document: id.into(),
        revision: "2-x".into(),
        position: Some(position("7")),
        unlisted: false,
        since: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn deletions_that_are_held_back_are_counted_and_kept_until_they_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let (books, maps) = ("books".into(), "maps".into());
    {
        let state = open(&path);
        let commit = |name: &CollectionName, held: &[HeldBack], unheld: &[&str]| {
            let unheld = unheld.iter().map(|id| (*id).into()).collect();
            let commit = Commit { held: held.to_vec(), unheld, ..checkpoint("1") };
            state.commit(name, &commit).unwrap()
        };
        assert_eq!(commit(&books, &[held("a"), held("b"), held("c")], &[]), 3);
        assert_eq!(commit(&maps, &[held("a")], &[]), 1);
        assert_eq!(commit(&books, &[held("c"), held("d")], &["a", "b", "nobody"]), -1);
        state.release(&books).unwrap();
    }
    let state = open(&path);
    assert_eq!(state.count_held_back(&books).unwrap(), 2);
    assert_eq!(state.held_back(&books, 10).unwrap(), [held("c"), held("d")]);
    assert_eq!(state.held_back(&books, 1).unwrap(), [held("c")]);
    assert!(state.is_released(&books).unwrap() && !state.is_released(&maps).unwrap());
    state.end_release(&books).unwrap();
    assert!(!state.is_released(&books).unwrap());
}

#[test]
fn a_collection_that_starts_over_has_no_position_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir.path().join("state"));
    let name = "books".into();
    state.commit(&name, &checkpoint("5")).unwrap();
    state.start_over(&name, "it has moved").unwrap();
    let kept = state.checkpoint(&name).unwrap().unwrap();
    assert_eq!((kept.position, kept.scanning.as_deref()), (None, Some("it has moved")));
}

#[test]
fn what_was_listed_of_a_store_is_remembered_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    {
        let state = open(&path);
        state.note_listed("feed:a", &position("1")).unwrap();
        state.note_listed("feed:a", &position("2")).unwrap();
    }
    let state = open(&path);
    assert_eq!(state.listed("feed:a").unwrap(), Some(position("2")));
    assert_eq!(state.listed("feed:b").unwrap(), None);
}

#[test]
fn a_disk_is_waited_for_and_a_fault_of_the_store_is_not() {
    let store = |source| StateError::Store { path: "state".into(), source };
    let failed = || std::io::Error::other("the disk failed");
    assert!(store(sled::Error::Io(failed())).is_disk());
    assert!(!store(sled::Error::ReportableBug("odd".into())).is_disk());
    assert!(StateError::io("sync", Path::new("state"), failed()).is_disk());
}

fn flushes(state: &Checkpoints) -> u64 {
    state.write(|_| Ok(FLUSHES.get())).unwrap()
}

/// Commits for these collections at the same time. Returns the numbers of the emitted events, and the
/// results in the order of `names`.
fn commit_at_once(
    state: &Checkpoints,
    names: &[CollectionName],
    commit: &Commit,
    count: usize,
) -> (Vec<u64>, Vec<Result<i64, StateError>>) {
    let emitted = Arc::new(Mutex::new(Vec::new()));
    let results = std::thread::scope(|scope| {
        let nobody_commits = state.numbers();
        let commit_one = |name| {
            let emitted = Arc::clone(&emitted);
            let events = events_to(count, move |number| emitted.lock().unwrap().push(number));
            scope.spawn(move || state.commit_with(name, commit, events))
        };
        let mut threads = Vec::new();
        for (before, name) in names.iter().enumerate() {
            threads.push(commit_one(name));
            while state.queue.waiting() <= before {
                std::thread::yield_now();
            }
        }
        drop(nobody_commits);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let emitted = emitted.lock().unwrap().clone();
    (emitted, results)
}

fn names(count: usize) -> Vec<CollectionName> {
    (0..count).map(|number| format!("c{number}").as_str().into()).collect()
}

#[test]
fn commits_that_wait_are_flushed_together_and_their_events_have_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let names = names(20);
    {
        let state = open(&path);
        let before = flushes(&state);
        let (emitted, results) = commit_at_once(&state, &names, &checkpoint("1"), 3);
        assert_eq!(flushes(&state) - before, 1, "20 commits waited");
        assert!(results.into_iter().all(|result| result.unwrap() == 0));
        assert!(emitted.into_iter().eq(1..=60));
        assert_eq!(state.last_number(), 60);
        // Nobody else commits: one flush each.
        for name in &names {
            state.commit(name, &checkpoint("2")).unwrap();
        }
        assert_eq!(flushes(&state) - before, 21);
    }
    let state = open(&path);
    for name in &names {
        assert_eq!(state.checkpoint(name).unwrap().unwrap().position, Some(position("2")));
    }
    assert_eq!(state.journal_range().unwrap(), Some(JournalRange { first: 1, last: 60 }));
}

#[test]
fn two_commits_of_one_collection_are_made_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir.path().join("state"));
    let before = flushes(&state);
    let names: Vec<CollectionName> = ["books", "maps", "books"].map(Into::into).to_vec();
    let commit = Commit { forget_failures: true, failed: vec![failure("a")], ..checkpoint("1") };
    let (emitted, _) = commit_at_once(&state, &names, &commit, 1);
    assert_eq!((emitted.len(), flushes(&state) - before), (3, 2));
    assert_eq!(state.failures(&"books".into()).unwrap(), [failure("a")]);
}

#[test]
fn large_commits_are_made_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir.path().join("state"));
    let before = flushes(&state);
    let (emitted, _) = commit_at_once(&state, &names(3), &checkpoint("1"), 1_500);
    assert!(emitted.into_iter().eq(1..=4_500));
    assert_eq!(flushes(&state) - before, 3);
}

#[test]
fn commits_that_fail_together_all_fail_and_no_event_of_them_is_emitted() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir.path().join("state"));
    let store = state.store.write().unwrap().take();
    let (emitted, results) = commit_at_once(&state, &names(5), &checkpoint("1"), 2);
    assert!(results.iter().all(|result| matches!(result, Err(StateError::Closed { .. }))));
    assert!(emitted.is_empty());
    *state.store.write().unwrap() = store;
    let (emitted, results) = commit_at_once(&state, &names(5), &checkpoint("1"), 2);
    assert!(results.into_iter().all(|result| result.is_ok()));
    assert_eq!(emitted.len(), 10);
}

#[test]
fn a_panic_in_a_commit_fails_that_one_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir.path().join("state"));
    let faulty = || NewEvents::new(1, |_| panic!("a fault"));
    let (books, loans) = ("books".into(), "loans".into());
    let panicked = state.commit_with(&books, &checkpoint("1"), faulty());
    assert!(matches!(panicked, Err(StateError::Abandoned)));
    let (faulty_one, other) = std::thread::scope(|scope| {
        let nobody_commits = state.numbers();
        let faulty_one = scope.spawn(|| state.commit_with(&books, &checkpoint("2"), faulty()));
        let other = scope.spawn(|| state.commit_with(&loans, &checkpoint("2"), events(1)));
        while state.queue.waiting() < 2 {
            std::thread::yield_now();
        }
        drop(nobody_commits);
        (faulty_one.join().unwrap(), other.join().unwrap())
    });
    assert!(matches!(&faulty_one, Err(error @ StateError::Abandoned) if !error.is_disk()));
    assert_eq!(other.unwrap(), 0);
    assert!(state.checkpoint(&books).unwrap().is_none());
    assert_eq!(state.checkpoint(&loans).unwrap().unwrap().position, Some(position("2")));
    state.commit(&books, &checkpoint("1")).unwrap();
}

#[test]
fn a_power_loss_among_commits_that_are_made_together_keeps_all_of_them_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let names = names(8);
    let state = open(&path);
    commit_at_once(&state, &names, &checkpoint("before"), 5);
    let db = || fs::read(path.join("db")).unwrap();
    let before = db();
    let at_first = flushes(&state);
    commit_at_once(&state, &names, &checkpoint("after"), 5);
    assert_eq!(flushes(&state) - at_first, 1);
    let after = db();
    let old = |at: usize| before.get(at).copied().unwrap_or(0);
    let changed: Vec<usize> = (0..after.len()).filter(|at| after[*at] != old(*at)).collect();
    let (mut none, mut all) = (0, 0);
    // The first bytes of what was written have reached the disk, and the rest has not.
    let reached = changed.iter().step_by(changed.len() / 40 + 1).copied().chain([after.len()]);
    for (number, cut) in reached.enumerate() {
        let copy = dir.path().join(format!("copy-{number}")).join("state");
        fs::create_dir_all(&copy).unwrap();
        fs::copy(path.join("conf"), copy.join("conf")).unwrap();
        let torn: Vec<u8> =
            (0..after.len()).map(|at| [old(at), after[at]][usize::from(at < cut)]).collect();
        fs::write(copy.join("db"), torn).unwrap();
        let Opened { state, damaged } = opened(&copy);
        assert_eq!(damaged, None, "cut at {cut}");
        let token = |name| state.checkpoint(name).unwrap().unwrap().position.unwrap();
        let last = state.journal_range().unwrap().unwrap().last;
        let now: Vec<Position> = names.iter().map(token).collect();
        match last {
            40 => none += usize::from(now.iter().all(|one| *one == position("before"))),
            80 => all += usize::from(now.iter().all(|one| *one == position("after"))),
            last => panic!("the journal ends at {last} after a cut at {cut}"),
        }
        assert_eq!(none + all, number + 1, "cut at {cut}: {now:?}, the last event is {last}");
    }
    assert!(none > 0 && all > 0, "{none} and {all}");
}
