//! An abort before, in and after each durable step: every document is at its old or its new version,
//! none is lost, and an event is emitted for every change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::crashing::{self, STEPS};
use crate::env::feed::FeedFile;
use crate::env::leaves::Leaves;
use crate::env::pouchdb::PouchServer;
use crate::env::random::Random;
use crate::env::{Place, oracle, plainfold, tree};

/// The number of aborts at each point.
const ROUNDS: usize = 3;

/// The number of documents in the feed.
const DOCUMENTS: u64 = 80;

/// A feed, and its final state: the last revision of each document, and whether that is a deletion.
struct Feed {
    file: FeedFile,
    rows: usize,
    last: BTreeMap<String, (String, bool)>,
}

impl Feed {
    /// Appends rows of all kinds (new documents, other bodies, other attachments, deletions) for
    /// some of [`DOCUMENTS`] ids. One is always included and gets another attachment. Returns the
    /// ids.
    fn append(&mut self, count: usize, chance: &mut Random) -> BTreeSet<String> {
        let bytes = chance.bytes(500);
        let revision = self.file.put("always", json!({}), &[("scan.bin", &bytes)]);
        self.rows += 1;
        self.last.insert("always".to_owned(), (revision, false));
        let mut touched = BTreeSet::from(["always".to_owned()]);
        for _ in 0..count {
            let id = format!("book:{}", chance.below(DOCUMENTS));
            let body = json!({"n": chance.next(), "text": "x".repeat(chance.below(400) as usize)});
            let deleted = chance.below(4) == 0;
            let revision = match chance.below(5) {
                _ if deleted => self.file.delete(&id),
                0 | 1 => self.file.put(&id, body, &[]),
                2 => self.file.put(&id, body, &[("same.txt", b"always the same")]),
                _ => {
                    let length = chance.below(2_000) as usize + 1;
                    let bytes = chance.bytes(length);
                    let same: (&str, &[u8]) = ("same.txt", b"always the same");
                    self.file.put(&id, body, &[same, ("scan 1.bin", &bytes)])
                }
            };
            self.rows += 1;
            self.last.insert(id.clone(), (revision, deleted));
            touched.insert(id);
        }
        touched
    }
}

/// The content of an intact mirror.
struct Before {
    rows: usize,
    event: u64,
    alive: BTreeSet<String>,
}

impl Before {
    fn of(feed: &Feed, mirror: &Path) -> Self {
        let event = plainfold::journal(mirror, 0).iter().map(number).max().unwrap_or(0);
        let alive = feed.last.iter().filter(|(_, (_, deleted))| !deleted);
        Self { rows: feed.rows, event, alive: alive.map(|(id, _)| id.clone()).collect() }
    }

    /// Asserts that an event was emitted for the present state of each of these documents, unless it
    /// neither existed before nor exists now; and that no number is repeated.
    fn assert_told(&self, feed: &Feed, ids: &BTreeSet<String>, mirror: &Path) {
        let events = plainfold::journal(mirror, self.event);
        let numbers: Vec<u64> = events.iter().map(number).collect();
        assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
        for id in ids {
            let (revision, deleted) = &feed.last[id];
            let mut of_it = events.iter().filter(|event| event["documentId"] == **id);
            // A document that was deleted twice may have one event.
            let told = match deleted {
                true => of_it.next_back().map_or(!self.alive.contains(id), is_deletion),
                false => of_it.any(|event| event["revision"] == **revision),
            };
            assert!(told, "no event for {id} {revision}, deleted: {deleted}");
        }
    }
}

fn is_deletion(event: &Value) -> bool {
    event["deleted"] == true
}

fn number(event: &Value) -> u64 {
    event["event"].as_u64().unwrap()
}

#[test]
fn an_abort_at_any_step_tears_nothing_loses_nothing_and_hides_nothing() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut chance = Random::from_environment();
    let file = FeedFile::create(place.join("shelf.ndjson"));
    let mut feed = Feed { file, rows: 0, last: BTreeMap::new() };
    feed.append(40, &mut chance);
    let source = feed.file.source();
    plainfold::mirror(&source, &mirror).assert_code(0);
    let arguments = ["mirror", &source, mirror.to_str().unwrap()];
    let mut again = 0;
    for round in 0..ROUNDS {
        for point in STEPS {
            // The first passing is always reached; of a later one there may be none.
            for passings in [chance.below(6), 0] {
                let before = Before::of(&feed, &mirror);
                // Few enough to be synced one by one, or enough to be synced together.
                let rows = [5, 40, 150][round % 3] + chance.below(3) as usize;
                let touched = feed.append(rows, &mut chance);
                let outcome = crashing::run_to(point, passings, arguments);
                let aborted = crashing::aborted_at(point, outcome);
                assert!(aborted || passings > 0, "{point} was not passed");
                oracle::assert_old_or_new(feed.file.path(), before.rows, &[&mirror]);
                // A `status` or `tail` meanwhile changes no later event.
                plainfold::status(&mirror);
                if aborted && chance.below(2) == 0 {
                    // The run that repairs this may be aborted too.
                    let other = STEPS[chance.below(STEPS.len() as u64) as usize];
                    let outcome = crashing::run_to(other, chance.below(4), arguments);
                    eprintln!("{point} after {passings}, then {other}: {}", outcome.status);
                    again += usize::from(crashing::aborted_at(other, outcome));
                    oracle::assert_old_or_new(feed.file.path(), before.rows, &[&mirror]);
                }
                plainfold::mirror(&source, &mirror).assert_code(0);
                oracle::assert_equals_feed(feed.file.path(), &mirror);
                before.assert_told(&feed, &touched, &mirror);
                if aborted {
                    break;
                }
            }
        }
    }
    assert!(again > 0, "no abort came while an earlier one was mended");
    oracle::assert_clean(&mirror);
}

/// Every document's folder: its files with their bytes.
fn folders(mirror: &Path) -> BTreeMap<String, BTreeMap<PathBuf, Vec<u8>>> {
    let mut found: BTreeMap<String, BTreeMap<PathBuf, Vec<u8>>> = BTreeMap::new();
    let shelf = mirror.join("shelf");
    for entry in walkdir::WalkDir::new(&shelf).min_depth(2).into_iter().map(Result::unwrap) {
        let path = entry.path().strip_prefix(&shelf).unwrap();
        let (document, file) = (path.iter().next().unwrap(), path.iter().skip(1).collect());
        let files = found.entry(document.to_str().unwrap().to_owned()).or_default();
        if entry.file_type().is_file() {
            files.insert(file, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// Files in a readable form.
fn text(files: &BTreeMap<PathBuf, Vec<u8>>) -> BTreeMap<&Path, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
    files.iter().map(|(path, bytes)| (path.as_path(), text(bytes))).collect()
}

#[test]
fn an_abort_among_conflicts_and_tombstones_leaves_each_document_as_a_whole_old_or_new() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut chance = Random::from_environment();
    let server = PouchServer::start();
    let mut shelf = Leaves::create(&server, "shelf");
    shelf.grow(60, &mut chance);
    let url = format!("{}/shelf", server.url());
    let keeping = |directory: &Path| {
        let directory = directory.to_str().unwrap().to_owned();
        ["mirror", &url, &directory, "--revisions", "--deleted", "keep"].map(str::to_owned)
    };
    plainfold::run(keeping(&mirror)).assert_code(0);
    for point in STEPS {
        for passings in [chance.below(5), 0] {
            let before = folders(&mirror);
            let since = plainfold::journal(&mirror, 0).iter().map(number).max().unwrap();
            shelf.grow(4 + chance.below(20) as usize, &mut chance);
            // The result of an uninterrupted run.
            let whole = place.join("whole");
            plainfold::run(keeping(&whole)).assert_code(0);
            let after = folders(&whole);
            std::fs::remove_dir_all(&whole).unwrap();
            assert!(before != after, "nothing has changed");
            let outcome = crashing::run_to(point, passings, keeping(&mirror));
            let aborted = crashing::aborted_at(point, outcome);
            assert!(aborted || passings > 0, "{point} was not passed");
            let now = folders(&mirror);
            for document in after.keys() {
                let [old, new, now] = [&before, &after, &now].map(|tree| tree.get(document));
                assert!(now == old || now == new, "{document} is torn at `{point}`: {now:?}");
            }
            assert!(now.keys().all(|document| after.contains_key(document)), "{point}");
            plainfold::run(keeping(&mirror)).assert_code(0);
            let mended = folders(&mirror);
            for document in after.keys().chain(mended.keys()) {
                let [old, now, new] = [&before, &mended, &after].map(|tree| tree.get(document));
                let [old, shown, wanted] = [old, now, new].map(|files| files.map(text));
                assert!(now == new, "{document} was {old:#?}, is {shown:#?}, not {wanted:#?}");
            }
            let events = plainfold::journal(&mirror, since);
            for document in after.keys().filter(|name| before.get(*name) != after.get(*name)) {
                let told = events.iter().any(|event| event["documentId"] == **document);
                assert!(told, "no event for {document}, aborted at `{point}`");
            }
            if aborted {
                break;
            }
        }
    }
    assert_eq!(tree::staged(&mirror), 0);
}

#[test]
fn an_abort_among_commits_that_are_made_together_loses_nothing_and_hides_nothing() {
    const COLLECTIONS: u64 = 9;
    let place = Place::new();
    let mirror = place.mirror();
    let path = place.join("shelves.ndjson");
    let source = format!("feed:{}", path.display());
    let mut text = String::new();
    let mut seq = 0;
    let mut append = |generation: u64| {
        for number in 0..COLLECTIONS * 5 {
            seq += 1;
            let (collection, id) = (number % COLLECTIONS, number / COLLECTIONS);
            let row = json!({
                "collection": format!("shelf-{collection}"),
                "seq": seq,
                "id": format!("book-{id}"),
                "changes": [{"rev": format!("{generation}-a")}],
                "doc": {"_id": format!("book-{id}"), "_rev": format!("{generation}-a")},
            });
            text += &format!("{row}\n");
        }
        std::fs::write(&path, &text).unwrap();
    };
    append(1);
    plainfold::mirror(&source, &mirror).assert_code(0);
    let arguments = ["mirror", &source, mirror.to_str().unwrap()];
    let together = |line: &&str| line.contains("commits are made together");
    let (mut generation, mut grouped) = (1, 0);
    for point in ["commit", "flush", "committed", "told"] {
        for passings in [1, 2, 4, 6] {
            generation += 1;
            append(generation);
            let since = plainfold::journal(&mirror, 0).iter().map(number).max().unwrap();
            let outcome = crashing::run_slowly_to(point, passings, arguments);
            grouped += outcome.stderr.lines().filter(together).count();
            // The more commits are made together, the fewer are made.
            let aborted = crashing::aborted_at(point, outcome);
            assert!(aborted || passings > 2, "{point} was not passed");
            plainfold::mirror(&source, &mirror).assert_code(0);
            let events = plainfold::journal(&mirror, since);
            let numbers: Vec<u64> = events.iter().map(number).collect();
            assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
            let revision = format!("{generation}-a");
            let mut told = BTreeSet::new();
            for event in events.iter().filter(|event| event["revision"] == *revision) {
                let [collection, id] = ["collectionName", "documentId"].map(|key| &event[key]);
                told.insert((collection.to_string(), id.to_string()));
            }
            assert_eq!(told.len() as u64, COLLECTIONS * 5, "after `{point}`, {passings}");
            oracle::assert_clean(&mirror);
        }
    }
    assert!(grouped > 0, "no commits were made together");
}
