//! kill -9 at random moments: at the end the mirror equals its source, nothing is left over, and a
//! concurrent reader never saw half a document.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::oracle::Reader;
use crate::env::pouchdb::{self, PouchServer};
use crate::env::random::Random;
use crate::env::{Place, oracle, plainfold};

/// The number of kills in each of the two tests: fifty together.
const KILLS: usize = 25;

/// Documents in the generated feed.
const DOCUMENTS: u64 = 4_000;

/// Rows that are appended whenever a run has reached the feed's end before it was killed.
const MORE_ROWS: u64 = 1_500;

/// Appends rows that create, update, delete and recreate documents, a third of them with attachments
/// whose bytes change together with the body.
fn append_rows(feed: &mut FeedFile, count: u64, chance: &mut Random) {
    for _ in 0..count {
        let id = format!("book:{}", chance.below(DOCUMENTS));
        let body = json!({"n": chance.next(), "filler": "x".repeat(chance.below(900) as usize)});
        match chance.below(9) {
            0 => drop(feed.delete(&id)),
            1..=3 => {
                let length = chance.below(3_000) as usize + 1;
                let [first, second] = [chance.bytes(length), chance.bytes(length / 2)];
                let both: [(&str, &[u8]); 2] = [("scan 1.bin", &first), ("notes/2.bin", &second)];
                feed.put(&id, body, &both[..1 + chance.below(2) as usize]);
            }
            _ => {
                feed.put(&id, body, &[]);
            }
        }
    }
}

#[test]
fn killed_at_random_during_a_catch_up_it_loses_and_tears_nothing() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut chance = Random::from_environment();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    append_rows(&mut feed, DOCUMENTS * 2, &mut chance);
    let reader = Reader::start(&mirror);
    // A run that ends before its kill does not count, and the next is killed earlier. If a run was
    // killed before it had written anything, perhaps on a busy disk, the next lives longer.
    let mut longest = 400_u64;
    let mut kills = 0;
    let mut counts = BTreeSet::new();
    while kills < KILLS {
        let mut run = plainfold::spawn(["mirror", &feed.source(), mirror.to_str().unwrap()]);
        std::thread::sleep(Duration::from_millis(chance.below(longest)));
        run.kill();
        let outcome = run.wait();
        if outcome.was_killed() {
            kills += 1;
            let documents = std::fs::read_dir(mirror.join("shelf")).map_or(0, Iterator::count);
            longest += if counts.insert(documents) { longest / 16 } else { longest / 2 };
        } else {
            outcome.assert_code(0);
            oracle::assert_equals_feed(feed.path(), &mirror);
            longest = longest * 2 / 3 + 20;
            append_rows(&mut feed, MORE_ROWS, &mut chance);
        }
    }
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    eprintln!("documents after each kill: {counts:?}");
    assert!(counts.len() > 2, "no kill came while documents were written");
    eprintln!("the reader {}", reader.finish());
    oracle::assert_equals_feed(feed.path(), &mirror);
    oracle::assert_clean(&mirror);
}

/// Stops the traffic when it is dropped, also by a test that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes to a server until it is told to stop. Returns the number of writes.
fn traffic(server: &PouchServer, mut chance: Random, stop: &AtomicBool) -> u64 {
    let mut revisions: HashMap<String, String> = HashMap::new();
    let mut writes = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = format!("book:{}", chance.below(150));
        let mut body =
            json!({"n": chance.next(), "filler": "x".repeat(chance.below(400) as usize)});
        let rev = revisions.remove(&id);
        let deletes = chance.below(6) == 0 && rev.is_some();
        if deletes {
            body = json!({"_deleted": true});
        } else if chance.below(2) == 0 {
            let data = chance.bytes(2_000);
            let kind = "application/octet-stream";
            pouchdb::attach(&mut body, &[("scan 1.bin", kind, &data)]);
        }
        let rev = server.put_over(rev.as_deref(), "shelf", &id, &body);
        if !deletes {
            revisions.insert(id, rev);
        }
        writes += 1;
    }
    writes
}

#[test]
fn killed_at_random_during_live_traffic_it_loses_and_tears_nothing() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut chance = Random::from_environment();
    let server = PouchServer::start();
    server.create_db("shelf");
    let url = format!("{}/shelf", server.url());
    let reader = Reader::start(&mirror);
    let stop = AtomicBool::new(false);
    let (server_ref, stop_ref) = (&server, &stop);
    std::thread::scope(|scope| {
        let random = Random::seeded(chance.next());
        let writer = scope.spawn(move || traffic(server_ref, random, stop_ref));
        let stop_writing = Stop(stop_ref);
        for _ in 0..KILLS {
            let mut live = plainfold::spawn(["mirror", &url, mirror.to_str().unwrap(), "--live"]);
            std::thread::sleep(Duration::from_millis(chance.below(1_200)));
            live.kill();
            let outcome = live.wait();
            assert!(outcome.was_killed(), "it ended by itself: {outcome}");
        }
        drop(stop_writing);
        eprintln!("{} writes", writer.join().unwrap());
    });
    plainfold::mirror(&url, &mirror).assert_code(0);
    eprintln!("the reader {}", reader.finish());
    oracle::assert_equals_server(&url, &mirror, "shelf");
    oracle::assert_clean(&mirror);
}
