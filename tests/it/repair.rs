//! `plainfold verify --repair`: each kind of damage is repaired from the source, nothing else is
//! touched, and damage that cannot be repaired stays and is reported.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Proxy};
use crate::env::tree::{Tree, assert_nothing_written};
use crate::env::{Place, oracle, tree};

/// A server with a shelf of documents behind a proxy, and its mirror.
struct Shelf {
    place: Place,
    server: PouchServer,
    proxy: Proxy,
}

/// More than what is asked for in bulk.
const LARGE: usize = 200_000;

impl Shelf {
    fn new() -> Self {
        Self::in_front_of(PouchServer::start())
    }

    fn in_front_of(server: PouchServer) -> Self {
        server.create_db("shelf");
        for number in 0..30 {
            let page = format!("page {number}\n").repeat(40);
            let large = vec![number; LARGE];
            let attachments: [(&str, &str, &[u8]); 2] =
                [("page.txt", "text/plain", page.as_bytes()), ("large.bin", "x/y", &large)];
            let attachments = if number % 3 == 0 { &attachments[..] } else { &[] };
            server.put_with_attachments("shelf", &id(number), &json!({"n": 17}), attachments);
        }
        let proxy = Proxy::start(server.address());
        let shelf = Self { place: Place::new(), server, proxy };
        plainfold::mirror(&shelf.url(), &shelf.mirror()).assert_code(0);
        shelf.proxy.take_requests();
        shelf.proxy.take_bodies();
        shelf
    }

    fn url(&self) -> String {
        format!("{}/shelf", self.server.url_through(self.proxy.address()))
    }

    fn mirror(&self) -> PathBuf {
        self.place.mirror()
    }

    /// A path in the folder of a document.
    fn at(&self, number: u8, below: &str) -> PathBuf {
        self.mirror().join("shelf").join(format!("book%3A{number:02}")).join(below)
    }

    /// The documents that were asked for since the last time, attachments included.
    fn asked_for(&self) -> BTreeSet<String> {
        let mut text: Vec<u8> = self.proxy.take_bodies().concat();
        let lines = self.proxy.take_requests().join("\n");
        assert!(!lines.contains("_changes"), "the whole database was asked for: {lines}");
        text.extend(lines.replace("%3A", ":").bytes());
        let text = String::from_utf8_lossy(&text);
        (0..30).map(id).filter(|id| text.contains(id.as_str())).collect()
    }

    fn assert_equal(&self) {
        let url = format!("{}/shelf", self.server.url());
        oracle::assert_equals_server(&url, &self.mirror(), "shelf");
        oracle::assert_clean(&self.mirror());
    }
}

fn id(number: u8) -> String {
    format!("book:{number:02}")
}

fn run(mirror: &Path, more: &[&str]) -> Outcome {
    let mirror = mirror.display().to_string();
    plainfold::run(["verify", &mirror, "--repair"].iter().chain(more))
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

/// The ids and outcomes of what was repaired.
fn repaired(report: &Value) -> Vec<(&str, &str)> {
    let entries = report["repaired"].as_array().unwrap().iter();
    let mut entries: Vec<_> = entries
        .map(|entry| (entry["id"].as_str().unwrap(), entry["outcome"].as_str().unwrap()))
        .collect();
    entries.sort_unstable();
    entries
}

/// The documents that were written between two looks.
fn touched(before: &Tree, after: &Tree) -> BTreeSet<String> {
    let written = before.until(after);
    let documents = written.iter().filter_map(|one| one.path().iter().nth(1));
    documents.map(|name| name.to_str().unwrap().replace("%3A", ":")).collect()
}

/// In place, as bit rot would do it: the checksum beside the file stays.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn events(mirror: &Path, since: u64) -> Vec<Value> {
    let since = since.to_string();
    let outcome = plainfold::run(["tail", &mirror.display().to_string(), "--since", &since]);
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_kind_of_damage_is_put_right_from_the_recorded_source_and_nothing_else_is_touched() {
    let shelf = Shelf::new();
    flip(&shelf.at(0, "attachments/large.bin"));
    flip(&shelf.at(3, "attachments/page.txt"));
    fs::write(shelf.at(6, "attachments/page.txt"), "page").unwrap();
    fs::remove_file(shelf.at(9, "attachments/page.txt")).unwrap();
    symlink(shelf.at(12, "document.json"), shelf.at(9, "attachments/page.txt")).unwrap();
    flip(&shelf.at(1, "document.json"));
    let body = fs::read(shelf.at(12, "document.json")).unwrap();
    fs::write(shelf.at(12, "document.json"), &body[..body.len() / 2]).unwrap();
    fs::remove_file(shelf.at(15, "document.json")).unwrap();
    fs::write(shelf.at(4, "extra.txt"), "x").unwrap();
    fs::remove_dir_all(shelf.at(5, "")).unwrap();
    fs::write(shelf.mirror().join("shelf/book%3A05"), "a file where a document belongs").unwrap();
    let wrong: BTreeSet<_> = [0, 3, 6, 9, 1, 12, 15, 4, 5].into_iter().map(id).collect();
    let last = events(&shelf.mirror(), 0).last().unwrap()["event"].as_u64().unwrap();
    let position = plainfold::status(&shelf.mirror())["collections"][0]["position"].clone();

    let before = Tree::of(&shelf.mirror());
    let outcome = run(&shelf.mirror(), &["--format", "json"]).assert_code(0);
    let report = report(&outcome);
    let expected: Vec<_> = wrong.iter().map(|id| (id.as_str(), "repaired")).collect();
    assert_eq!(repaired(&report), expected);
    assert_eq!(report["problems"], json!([]));
    assert_eq!(touched(&before, &Tree::of(&shelf.mirror())), wrong);
    assert_eq!(shelf.asked_for(), wrong);
    shelf.assert_equal();

    // An event was emitted for each write, and the checkpoint has not moved.
    let told = events(&shelf.mirror(), last);
    let ids: BTreeSet<_> =
        told.iter().map(|event| event["documentId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, wrong);
    let status = plainfold::status(&shelf.mirror());
    assert_eq!(status["collections"][0]["position"], position);
    assert_nothing_written(&shelf.mirror(), || {
        plainfold::mirror(&shelf.url(), &shelf.mirror()).assert_code(0);
    });

    // The report is that of a whole look.
    let plain = ["verify", &shelf.mirror().display().to_string(), "--format", "json"];
    let whole = self::report(&plainfold::run(plain).assert_code(0));
    assert_eq!(report["collections"], whole["collections"]);
}

#[test]
fn what_differs_from_the_source_is_fetched_or_removed_and_nothing_else_is_touched() {
    let shelf = Shelf::new();
    let mirror = shelf.mirror();
    fs::remove_dir_all(shelf.at(2, "")).unwrap();
    fs::rename(shelf.at(7, ""), mirror.join("shelf/moved")).unwrap();
    shelf.server.put_doc("shelf", &id(8), &json!({"n": 18}));
    shelf.server.delete_doc("shelf", &id(10));
    flip(&shelf.at(9, "attachments/page.txt"));
    fs::write(mirror.join("shelf/loose.txt"), "x").unwrap();
    fs::write(mirror.join("loose.txt"), "x").unwrap();

    let before = Tree::of(&mirror);
    let options = ["--against", &shelf.url(), "--format", "json"];
    let outcome = run(&mirror, &options).assert_code(1);
    let report = report(&outcome);
    let expected = [
        ("book:02", "repaired"),
        ("book:07", "repaired"),
        ("book:08", "repaired"),
        ("book:09", "repaired"),
        ("book:10", "removed"),
        ("loose.txt", "not-repaired"),
        ("moved", "not-repaired"),
    ];
    assert_eq!(repaired(&report), expected);
    assert_eq!(report["certificate"]["equal"], true, "{outcome}");
    let left = report["problems"].as_array().unwrap().iter();
    let left: Vec<_> = left.map(|problem| problem["path"].as_str().unwrap()).collect();
    assert_eq!(left, ["loose.txt", "shelf/loose.txt", "shelf/moved/document.json"]);
    let wrong: BTreeSet<_> = [2, 7, 8, 9, 10].into_iter().map(id).collect();
    assert_eq!(touched(&before, &Tree::of(&mirror)), wrong);

    fs::remove_dir_all(mirror.join("shelf/moved")).unwrap();
    fs::remove_file(mirror.join("shelf/loose.txt")).unwrap();
    fs::remove_file(mirror.join("loose.txt")).unwrap();
    shelf.assert_equal();
    let told = events(&mirror, 0);
    let deleted = told.iter().rfind(|event| event["documentId"] == "book:10").unwrap();
    assert_eq!(deleted["deleted"], true);
    plainfold::mirror(&shelf.url(), &mirror).assert_code(0);
    shelf.assert_equal();
}

#[test]
fn what_the_source_does_not_have_or_does_not_give_stays_as_it_is() {
    let shelf = Shelf::new();
    let mirror = shelf.mirror();
    // Unknown, not fetchable, deleted: two of them have other files left, one its body.
    fs::rename(shelf.at(3, ""), mirror.join("shelf/unknown")).unwrap();
    flip(&shelf.at(6, "attachments/page.txt"));
    let answer = b"HTTP/1.1 404 Gone\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let fired = shelf.proxy.inject("large.bin", Fault::Answer(answer.to_vec()), 100);
    fs::remove_file(shelf.at(9, "document.json")).unwrap();
    flip(&shelf.at(12, "document.json"));
    for number in [9, 12] {
        shelf.server.delete_doc("shelf", &id(number));
    }
    let before = Tree::of(&mirror);
    let outcome = run(&mirror, &["--format", "json"]).assert_code(1);
    assert!(fired.times() > 0);
    let report = report(&outcome);
    let expected = [
        ("book:03", "not-repaired"),
        ("book:06", "not-repaired"),
        ("book:09", "not-repaired"),
        ("book:12", "removed"),
        ("unknown", "not-repaired"),
    ];
    assert_eq!(repaired(&report), expected);
    assert_eq!(touched(&before, &Tree::of(&mirror)), [id(12)].into());
    let left = report["problems"].as_array().unwrap().iter();
    let left: Vec<_> = left.map(|problem| problem["path"].as_str().unwrap()).collect();
    let path = "shelf/book%3A06/attachments/page.txt";
    let moved = ["shelf/book%3A03", "shelf/unknown/document.json"];
    let expected = [moved[0], path, "shelf/book%3A09/document.json", moved[1]];
    assert_eq!(left, expected);
    let status = plainfold::status(&mirror);
    assert_eq!(status["collections"][0]["failures"], 0, "{status}");
    assert_eq!(tree::staged(&mirror), 0);
}

#[test]
fn a_server_that_is_down_ends_it_with_everything_as_it_was() {
    let shelf = Shelf::new();
    flip(&shelf.at(3, "attachments/page.txt"));
    shelf.proxy.set_down(true);
    let outcome =
        assert_nothing_written(&shelf.mirror(), || run(&shelf.mirror(), &[]).assert_code(3));
    assert!(shelf.proxy.refused() > 0);
    assert!(outcome.stdout.contains("stopped: shelf: "), "{outcome}");
    assert!(outcome.stdout.contains("altered      shelf/book%3A03"), "{outcome}");
    shelf.proxy.set_down(false);
    let said = run(&shelf.mirror(), &[]).assert_code(0).stdout;
    assert!(said.starts_with("repaired     shelf  book:03  1-"), "{said}");
    shelf.assert_equal();
}

#[test]
fn a_mirror_at_work_is_repaired_by_its_process_and_by_no_other() {
    let shelf = Shelf::new();
    flip(&shelf.at(3, "attachments/page.txt"));
    let live = plainfold::live(&shelf.url(), &shelf.mirror());
    let outcome = assert_nothing_written(&shelf.mirror(), || {
        run(&shelf.mirror(), &["--against", &shelf.url()]).assert_code(5)
    });
    assert!(outcome.stderr.contains("is in use by `plainfold mirror`"), "{outcome}");
    let outcome = run(&shelf.mirror(), &[]).assert_code(0);
    assert!(
        outcome.stdout.starts_with("repaired     shelf  book:03\nno problems left: "),
        "{outcome}"
    );
    live.terminate();
    live.wait().assert_code(0);
    shelf.assert_equal();
}

#[test]
fn another_source_than_the_one_that_is_followed_is_refused() {
    let shelf = Shelf::new();
    flip(&shelf.at(3, "attachments/page.txt"));
    let other = format!("{}/shelf", shelf.server.url());
    let outcome = assert_nothing_written(&shelf.mirror(), || {
        run(&shelf.mirror(), &["--against", &other]).assert_code(2)
    });
    assert!(outcome.stdout.contains("follows http://"), "{outcome}");
}

#[test]
fn a_source_that_cannot_be_read_again_is_asked_for() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("a", json!({"n": 17}), &[]);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    flip(&mirror.join("shelf/a/document.json"));
    for source in ["feed:-", ""] {
        let record = json!({"name": "shelf", "source": source, "attachments": true});
        fs::write(mirror.join(".plainfold/collections/shelf.json"), record.to_string()).unwrap();
        let outcome = assert_nothing_written(&mirror, || run(&mirror, &[]).assert_code(2));
        assert!(outcome.stdout.contains("--against"), "{outcome}");
    }
    run(&mirror, &["--against", &feed.source()]).assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
}

#[test]
fn a_source_with_credentials_is_named_with_its_user() {
    let shelf = Shelf::in_front_of(PouchServer::start_with_admin("ana", "secret-word"));
    shelf.server.close_db("shelf");
    flip(&shelf.at(3, "attachments/page.txt"));
    let file = shelf.place.join("password");
    fs::write(&file, "secret-word\n").unwrap();
    let file = file.display().to_string();
    let refused = run(&shelf.mirror(), &[]).assert_code(4);
    assert!(refused.stdout.contains("--against http://user@host"), "{refused}");
    let useless = run(&shelf.mirror(), &["--password-file", &file]).assert_code(2);
    assert!(useless.stdout.contains("--against http://user@host"), "{useless}");
    let named = format!("http://ana@{}/shelf", shelf.proxy.address());
    let options = ["--against", &named, "--password-file", &file];
    let said = run(&shelf.mirror(), &options).assert_code(0);
    for outcome in [refused, useless, said] {
        assert!(!format!("{outcome}").contains("secret-word"), "{outcome}");
    }
}

#[test]
fn a_feed_is_read_for_its_last_word_on_each_document() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let long = "x".repeat(250);
    let large = vec![7; LARGE];
    for round in 0..2 {
        for id in ["a", "b", "c", "gone", &long] {
            feed.put(id, json!({"round": round}), &[("note.txt", b"note"), ("large", &large)]);
        }
    }
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    feed.delete("gone");
    flip(&mirror.join("shelf/a/attachments/large"));
    flip(&mirror.join("shelf/b/document.json"));
    flip(&mirror.join("shelf/gone/attachments/note.txt"));
    let shortened = fs::read_dir(mirror.join("shelf")).unwrap().map(|entry| entry.unwrap().path());
    let shortened = shortened.into_iter().find(|path| path.display().to_string().contains("xx"));
    fs::write(shortened.unwrap().join("document.json"), "{").unwrap();
    fs::write(mirror.join("shelf/unknown"), "x").unwrap();

    // A shortened name does not tell its id, as long as the body does not.
    let before = Tree::of(&mirror);
    let outcome = run(&mirror, &["--format", "json"]).assert_code(1);
    let expected =
        [("a", "repaired"), ("b", "repaired"), ("gone", "removed"), ("unknown", "not-repaired")];
    assert_eq!(repaired(&report(&outcome)), expected);
    assert_eq!(touched(&before, &Tree::of(&mirror)).len(), 3);
    let outcome = run(&mirror, &["--against", &feed.source(), "--format", "json"]).assert_code(1);
    let expected = [("unknown", "not-repaired"), (long.as_str(), "repaired")];
    assert_eq!(repaired(&report(&outcome)), expected);
    assert_eq!(report(&outcome)["certificate"]["equal"], true, "{outcome}");
    fs::remove_file(mirror.join("shelf/unknown")).unwrap();
    oracle::assert_equals_feed(feed.path(), &mirror);
}

#[test]
fn a_mirror_without_attachments_is_repaired_without() {
    let shelf = Shelf::new();
    let mirror = shelf.place.join("bodies");
    let directory = mirror.display().to_string();
    let make = ["mirror", &shelf.url(), &directory, "--attachments", "false"];
    plainfold::run(make).assert_code(0);
    flip(&mirror.join("shelf/book%3A03/document.json"));
    run(&mirror, &[]).assert_code(0);
    assert!(!mirror.join("shelf/book%3A03/attachments").exists());
    // What the checkpoint says of attachments has stayed too: they all come when they are wanted.
    plainfold::run(["mirror", &shelf.url(), &directory, "--attachments", "true"]).assert_code(0);
    oracle::assert_equals_server(&format!("{}/shelf", shelf.server.url()), &mirror, "shelf");
}

#[test]
fn a_lost_state_is_still_answered_by_a_full_comparison() {
    let shelf = Shelf::new();
    flip(&shelf.at(3, "document.json"));
    fs::remove_dir_all(shelf.mirror().join(".plainfold/state")).unwrap();
    run(&shelf.mirror(), &[]).assert_code(0);
    shelf.server.delete_doc("shelf", &id(4));
    let outcome = plainfold::mirror(&shelf.url(), &shelf.mirror()).assert_code(0);
    assert!(outcome.stderr.contains("full scan: "), "{outcome}");
    shelf.assert_equal();
}

#[test]
fn a_signal_ends_it_after_the_documents_in_hand_and_another_run_goes_on() {
    let shelf = Shelf::new();
    for number in [0, 3, 6] {
        flip(&shelf.at(number, "attachments/page.txt"));
    }
    let stalled = shelf.proxy.inject("/_all_docs", Fault::StallAfter(0), 1);
    let arguments = ["verify", &shelf.mirror().display().to_string(), "--repair"];
    let running = plainfold::spawn(arguments);
    stalled.wait();
    running.terminate();
    let outcome = running.wait().assert_code(130);
    assert!(outcome.stdout.contains("interrupted: the next run resumes it"), "{outcome}");
    run(&shelf.mirror(), &[]).assert_code(0);
    shelf.assert_equal();
}
