//! The state: its content, its limits, and the damage that it survives.

use super::*;

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

fn position(token: &str) -> Position {
    Position::new(token, "".into(), None)
}

fn checkpoint(token: &str) -> Commit {
    Commit::new(Checkpoint { position: Some(position(token)), ..Checkpoint::default() })
}

fn commit_events(state: &Checkpoints, count: usize) {
    let mut turn = state.turn();
    let first = turn.draw(count).unwrap();
    let record = |number| Record { number, text: format!("{{\"event\":{number}}}") };
    let records: Vec<_> = (first..first + count as u64).map(record).collect();
    turn.commit(&"books".into(), &checkpoint("1"), &records).unwrap();
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
        state.turn().commit(&name, &checkpoint("\"5-x\""), &[]).unwrap();
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
    assert_eq!(state.turn().draw(1).unwrap(), 12);
}

#[test]
fn a_wall_clock_that_jumps_makes_no_event_older() {
    use crate::clock::Reading;
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("state"), dir.path().join("clock.json"));
    const DAY: i64 = 24 * 60 * 60 * 1_000;
    fn reading_at(boottime: i64, day: i64) -> Reading {
        Reading { boot: "a".to_owned(), boottime, wall: day * DAY }
    }
    let open_at = |read: fn() -> Reading| {
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
    std::fs::remove_file(&file).unwrap();
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
        state.turn().commit(&books, &commit, &[]).unwrap();
    }
    let state = open(&path);
    assert_eq!(state.failures(&books).unwrap().len(), 2);
    assert!(state.failures(&other).unwrap().is_empty());
    let commit = Commit { mended: vec!["a".into()], ..checkpoint("1") };
    state.turn().commit(&books, &commit, &[]).unwrap();
    assert_eq!(state.failures(&books).unwrap(), vec![failure("b")]);
    let commit = Commit { forget_failures: true, failed: vec![failure("c")], ..checkpoint("1") };
    state.turn().commit(&books, &commit, &[]).unwrap();
    assert_eq!(state.failures(&books).unwrap(), vec![failure("c")]);
}

#[test]
fn a_damaged_state_is_set_aside_and_its_numbers_are_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    commit_events(&open(&path), 10);
    std::fs::write(path.join("conf"), "this is not a configuration").unwrap();
    std::fs::write(path.join("db"), vec![0xA5; 300_000]).unwrap();
    let opened = opened(&path);
    let aside = opened.damaged.expect("the damage was noticed").path;
    assert!(aside.join("db").exists());
    assert_eq!(opened.state.checkpoint(&"books".into()).unwrap(), None);
    assert!(opened.state.turn().draw(1).unwrap() > 10);
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
            state.turn().commit(name, &commit, &[]).unwrap()
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
    state.turn().commit(&name, &checkpoint("5"), &[]).unwrap();
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
    assert!(StateError::Io { action: "sync", path: "state".into(), source: failed() }.is_disk());
}
