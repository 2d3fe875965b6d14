//! A mirror that Plainfold 0.1.0 made (`fixtures/mirror-0.1.0`) is opened, and followed further.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::env::plainfold::{self, Outcome};
use crate::env::tree::{Tree, Written, assert_nothing_written};
use crate::env::{Place, root};

/// The number of the last event that 0.1.0 emitted.
const LAST: u64 = 16;

/// The exit code of a run with a document that failed, or a deletion that is held back.
const INCOMPLETE: i32 = 1;

/// The server that the mirror followed, with this many newer documents.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(more: u64) -> Self {
        let mut server = Command::new("python3");
        server.arg("-B").arg(fixture("make.py")).args(["serve", &more.to_string()]);
        let mut process = server.stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn fixture(name: &str) -> PathBuf {
    root().join("fixtures/mirror-0.1.0").join(name)
}

/// The mirror, unpacked beside its feed.
struct Upgraded {
    place: Place,
    server: Server,
}

impl Upgraded {
    fn new() -> Self {
        let place = Place::new();
        fs::copy(fixture("feed.ndjson"), place.join("feed.ndjson")).unwrap();
        let unpacked = Command::new("tar")
            .arg("-xzf")
            .arg(fixture("mirror.tar.gz"))
            .arg("-C")
            .arg(place.path())
            .status()
            .unwrap();
        assert!(unpacked.success());
        let server = Server::start(0);
        let this = Self { place, server };
        this.name("FEED", &this.feed().display().to_string());
        this.name("SERVER", &this.server.address);
        this
    }

    fn feed(&self) -> PathBuf {
        self.place.join("feed.ndjson")
    }

    fn mirror(&self) -> PathBuf {
        self.place.mirror()
    }

    /// Replaces the place of a source in the mirror's records.
    fn name(&self, before: &str, now: &str) {
        let mut records = vec![self.mirror().join(".plainfold/options.json")];
        let collections = fs::read_dir(self.mirror().join(".plainfold/collections")).unwrap();
        records.extend(collections.map(|entry| entry.unwrap().path()));
        for record in records {
            let text = fs::read_to_string(&record).unwrap();
            fs::write(&record, text.replace(before, now)).unwrap();
        }
    }

    /// The server has another document, and another address.
    fn grow_server(&mut self, more: u64) {
        let before = std::mem::replace(&mut self.server, Server::start(more));
        self.name(&before.address, &self.server.address);
    }

    fn append(&self, rows: &str) {
        let mut feed = fs::OpenOptions::new().append(true).open(self.feed()).unwrap();
        feed.write_all(rows.as_bytes()).unwrap();
    }

    /// Follows the feed, all its collections.
    fn follow_feed(&self) -> Outcome {
        let mirror = self.mirror().display().to_string();
        let feed = format!("feed:{}", self.feed().display());
        plainfold::run(["mirror", &feed, &mirror, "--collections", ""])
    }

    fn follow_server(&self) -> Outcome {
        plainfold::mirror(&format!("{}/shelf", self.server.address), &self.mirror())
    }

    fn status_of(&self, collection: &str) -> Value {
        let status = plainfold::status(&self.mirror());
        let mut collections = status["collections"].as_array().unwrap().iter();
        collections.find(|one| one["collection"] == collection).unwrap().clone()
    }
}

/// The names of the documents with events after this one.
fn events(mirror: &Path, since: u64) -> Vec<String> {
    let name = |event: &Value| event["documentId"].as_str().unwrap().to_owned();
    let mut names: Vec<_> = plainfold::journal(mirror, since).iter().map(name).collect();
    names.sort_unstable();
    names
}

/// The bodies and attachments that were written.
fn files(written: &[Written]) -> Vec<String> {
    let paths = written.iter().map(|written| written.path());
    let files = paths.filter(|path| path.extension().is_some());
    files.map(|path| path.display().to_string()).collect()
}

fn assert_resumed(outcome: &Outcome) {
    assert!(!outcome.stderr.contains("full scan:"), "{outcome}");
}

#[test]
fn what_0_1_0_mirrored_is_not_written_again() {
    let upgraded = Upgraded::new();
    let mirror = upgraded.mirror();
    assert_eq!(plainfold::journal(&mirror, 0).len() as u64, LAST);

    let outcome = assert_nothing_written(&mirror, || upgraded.follow_server().assert_code(0));
    assert_resumed(&outcome);
    assert_eq!(events(&mirror, LAST), [""; 0]);

    // The last run of 0.1.0 followed `books` alone: the others have a row to read.
    let before = Tree::of(&mirror);
    assert_resumed(&upgraded.follow_feed().assert_code(INCOMPLETE));
    let written = before.until(&Tree::of(&mirror));
    assert_eq!(files(&written), ["members/member%3A6/document.json"]);
    assert_eq!(events(&mirror, LAST), ["member:6"]);

    // What failed, and what is held back, is known as before.
    let failed = &upgraded.status_of("loans")["failed"];
    assert_eq!(failed[0]["documentId"], "loan:1", "{failed}");
    assert_eq!(failed[0]["since"].as_str().unwrap()[..4], *"2026", "{failed}");
    assert_eq!(upgraded.status_of("members")["held_back"], 4);

    let outcome =
        assert_nothing_written(&mirror, || upgraded.follow_feed().assert_code(INCOMPLETE));
    assert_resumed(&outcome);
    assert_eq!(events(&mirror, LAST), ["member:6"]);
}

#[test]
fn a_mirror_of_0_1_0_follows_what_comes_next() {
    let mut upgraded = Upgraded::new();
    let mirror = upgraded.mirror();
    upgraded.follow_feed().assert_code(INCOMPLETE);

    let before = Tree::of(&mirror);
    upgraded.grow_server(1);
    assert_resumed(&upgraded.follow_server().assert_code(0));
    upgraded.append(concat!(
        r#"{"seq":20,"collection":"books","id":"book:5","changes":[{"rev":"1-a"}],"#,
        r#""doc":{"_id":"book:5","_rev":"1-a"}}"#,
        "\n",
        r#"{"seq":21,"collection":"loans","id":"loan:1","changes":[{"rev":"2-b"}],"#,
        r#""doc":{"_id":"loan:1","_rev":"2-b"}}"#,
        "\n",
    ));
    assert_resumed(&upgraded.follow_feed().assert_code(INCOMPLETE));
    let written = before.until(&Tree::of(&mirror));
    let expected = ["books/book%3A5", "loans/loan%3A1", "shelf/shelf%3A4"];
    assert_eq!(files(&written), expected.map(|folder| format!("{folder}/document.json")));
    assert_eq!(events(&mirror, LAST), ["book:5", "loan:1", "member:6", "shelf:4"]);

    // Its failure has mended, and the deletions that it held back are applied.
    assert_eq!(upgraded.status_of("loans")["failures"], 0);
    let directory = mirror.display().to_string();
    plainfold::run(["release", &directory, "members"]).assert_code(0);
    assert_resumed(&upgraded.follow_feed().assert_code(0));
    assert_eq!(upgraded.status_of("members")["held_back"], 0);
    for number in 0..5 {
        assert!(mirror.join(format!("members/member%3A{number}/deleted.json")).exists());
    }
}
