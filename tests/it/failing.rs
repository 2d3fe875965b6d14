//! A disk that fails occasionally, in each operation of a mirror: a catch-up ends and reports it, a
//! live mirror waits and then continues; nothing is torn, lost or skipped.

use std::fs;

use serde_json::json;

use crate::env::crashing::{self, OPERATIONS};
use crate::env::feed::FeedFile;
use crate::env::plainfold::Stream;
use crate::env::random::Random;
use crate::env::{Place, oracle, plainfold};

/// Those that no change of a document needs: many files are synced together, and the lanes are
/// taken at the start and given back at the end.
const OTHERS: [&str; 2] = ["io-sync-file-system", "io-rename-folder"];

/// How many lanes a process has.
const LANES: u64 = 4;

/// How a disk fails.
const ERRORS: [&str; 4] = ["EIO", "EDQUOT", "ENOSPC", "EROFS"];

/// A feed of a shelf, whose rows make the mirror do all kinds of things.
struct Shelf {
    place: Place,
    feed: FeedFile,
    turn: u64,
}

impl Shelf {
    fn new() -> Self {
        let place = Place::new();
        let feed = FeedFile::create(place.join("shelf.ndjson"));
        let mut shelf = Self { place, feed, turn: 0 };
        shelf.turn(80);
        shelf
    }

    /// One that has a mirror.
    fn mirrored() -> Self {
        let shelf = Self::new();
        plainfold::mirror(&shelf.feed.source(), &shelf.place.mirror()).assert_code(0);
        shelf
    }

    /// Asserts that the mirror is intact and equal to the feed, and holds nothing else.
    fn assert_mirrored(&self) {
        let mirror = self.place.mirror();
        oracle::assert_equals_feed(self.feed.path(), &mirror);
        oracle::assert_clean(&mirror);
        plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
    }

    /// A turn: new documents, new bodies, attachments that change beside some that stay, a deletion, a
    /// document that comes back; `more` other new ones; and at last `end:<turn>`, whose id is given.
    fn turn(&mut self, more: u64) -> String {
        self.turn += 1;
        let turn = self.turn;
        let changed = format!("turn {turn}");
        let [same, changing] =
            [("same.txt", &b"always the same"[..]), ("new.txt", changed.as_bytes())];
        self.feed.put("with:attachments", json!({ "turn": turn }), &[same, changing]);
        self.feed.put("body:alone", json!({ "turn": turn }), &[]);
        match turn % 2 {
            0 => self.feed.delete("there:and:not"),
            _ => self.feed.put("there:and:not", json!({ "turn": turn }), &[same]),
        };
        for number in 0..more {
            self.feed.put(
                &format!("book:{turn}:{number}"),
                json!({"filler": "-".repeat(300)}),
                &[],
            );
        }
        let end = format!("end:{turn}");
        self.feed.put(&end, json!({}), &[]);
        end
    }
}

#[test]
fn a_catch_up_on_a_disk_that_fails_ends_and_the_next_one_mends_it() {
    let mut chance = Random::from_environment();
    let mut shelf = Shelf::mirrored();
    let (source, mirror) = (shelf.feed.source(), shelf.place.mirror());
    let arguments = ["mirror", &source, mirror.to_str().unwrap()];
    let rows = |shelf: &Shelf| fs::read_to_string(shelf.feed.path()).unwrap().lines().count();
    let mut mirrored = rows(&shelf);
    for (number, operation) in OPERATIONS.into_iter().enumerate() {
        let error = ERRORS[(number + chance.below(4) as usize) % ERRORS.len()];
        // The first operation always happens; later ones may not.
        for passings in [chance.below(30), 1 + chance.below(4), 0] {
            // Few enough to be synced one by one, or enough to be synced together.
            shelf.turn(if operation == "io-sync-file-system" { 150 } else { 3 });
            let ended = crashing::run_failing((operation, error), passings, arguments);
            let failed = ended.stderr.contains(&format!("`{operation}` fails with {error}"));
            assert!(failed || passings > 0, "{operation} was not done: {ended}");
            eprintln!("{operation} after {passings}: {error}, {}", ended.status);
            if failed && ended.status.code() != Some(0) {
                let ended = ended.assert_code(5);
                assert!(ended.stderr.contains("os error"), "{ended}");
            } else {
                // An unreadable file may be fetched from the source, or tried again.
                let reads = ["io-open", "io-open-file", "io-read"].contains(&operation);
                // A mirror opens on a full disk too.
                let is_full = ["ENOSPC", "EDQUOT"].contains(&error);
                let opens = is_full && ["io-make-file", "io-write"].contains(&operation);
                let opens = opens && passings == 0;
                // The next run takes lanes that were not given back.
                let gives_back = operation == "io-rename-folder" && passings >= LANES;
                // A mirror does without this file.
                let does_without =
                    ended.stderr.contains("no room for the checkpoint beside the tree");
                let harmless = reads || opens || gives_back || does_without;
                assert!(!failed || harmless, "{ended}");
                ended.assert_code(0);
                oracle::assert_equals_feed(shelf.feed.path(), &mirror);
            }
            oracle::assert_old_or_new(shelf.feed.path(), mirrored, &[&mirror]);
            plainfold::mirror(&source, &mirror).assert_code(0);
            oracle::assert_equals_feed(shelf.feed.path(), &mirror);
            mirrored = rows(&shelf);
        }
    }
    shelf.assert_mirrored();
}

#[test]
fn a_live_mirror_on_a_disk_that_fails_waits_and_goes_on_by_itself() {
    let mut chance = Random::from_environment();
    let mut shelf = Shelf::mirrored();
    let (source, mirror) = (shelf.feed.source(), shelf.place.mirror());
    for operation in OPERATIONS.into_iter().filter(|one| !OTHERS.contains(one)) {
        let error = ERRORS[chance.below(ERRORS.len() as u64) as usize];
        let when = shelf.place.join(operation);
        let times = 1 + chance.below(2);
        let mut live = crashing::live_failing((operation, error), times, &when, &source, &mirror);
        let mut tail = plainfold::tail(&mirror, 0);
        fs::write(&when, "").unwrap();
        // Few enough to be synced one by one, however they are met.
        let end = shelf.turn(0);
        let fails = format!("`{operation}` fails with {error}");
        live.wait_for_line(Stream::Stderr, |line| line.contains(&fails));
        live.wait_for_line(Stream::Stderr, |line| line.contains("the mirror waits"));
        live.wait_for_line(Stream::Stderr, |line| line.contains("can be written again"));
        tail.wait_for_event(|event| event["documentId"] == *end);
        live.terminate();
        live.wait().assert_code(0);
        oracle::assert_equals_feed(shelf.feed.path(), &mirror);
    }
    shelf.assert_mirrored();
}

#[test]
fn a_collection_that_appears_while_the_disk_fails_is_begun_when_it_works() {
    let mut shelf = Shelf::new();
    let (source, mirror) = (shelf.feed.source(), shelf.place.mirror());
    let when = shelf.place.join("when");
    let failure = ("io-make-folder", "ENOSPC");
    let mut live = crashing::live_failing(failure, 2, &when, &source, &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    fs::write(&when, "").unwrap();
    let row = json!({"id": "first", "collection": "annex", "changes": [{"rev": "1-a"}], "doc": {"_id": "first", "_rev": "1-a"}});
    shelf.feed.raw(format!("{row}\n").as_bytes());
    // The second failure is for the same reason, which is not repeated.
    live.wait_for_line(Stream::Stderr, |line| {
        line.contains("annex") && line.contains("the mirror waits")
    });
    tail.wait_for_event(|event| event["documentId"] == "first");
    live.terminate();
    live.wait().assert_code(0);
    oracle::assert_equals_feed(shelf.feed.path(), &mirror);
}

#[test]
fn a_file_system_that_can_neither_swap_nor_link_is_written_step_by_step() {
    let mut shelf = Shelf::new();
    let (source, mirror) = (shelf.feed.source(), shelf.place.mirror());
    let cannot = [
        ("io-exchange", "EINVAL"),
        ("io-rename-new", "EINVAL"),
        ("io-rename-folder", "EINVAL"),
        ("io-link", "EPERM"),
    ];
    let base = ["mirror", &source, mirror.to_str().unwrap()];
    let mut said = String::new();
    for (turn, more) in
        [&[][..], &["--trash", "30"], &["--trash", "0"], &["--trash", "30", "--discard"]]
            .into_iter()
            .enumerate()
    {
        shelf.turn([1, 20][turn % 2]);
        let ended = crashing::run_without(&cannot, base.iter().chain(more));
        said.push_str(&ended.assert_code(0).stderr);
        oracle::assert_equals_feed(shelf.feed.path(), &mirror);
    }
    for (operation, error) in cannot {
        assert!(said.contains(&format!("`{operation}` fails with {error}")), "{operation}: {said}");
    }
    shelf.assert_mirrored();
}
