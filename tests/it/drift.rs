//! What somebody else changes in a mirror while it runs: jobs that verify and repair it, changes that are
//! noticed at once, and the slow verification of everything.

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::env::agent::command_in;
use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome, Running, Stream};
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Proxy};
use crate::env::{DEADLINE, Place, oracle};

/// `plainfold run` with one mirror, called `shelf`.
struct Kept {
    place: Place,
    agent: Option<Running>,
}

impl Kept {
    /// Starts it. `more` is more of the mirror's section, or what follows it.
    fn start(place: Place, source: &str, more: &str) -> Self {
        let directory = place.join("mirror");
        let config = format!(
            "[api]\nlisten = ['./agent.sock']\n[[mirror]]\nname = 'shelf'\nsource = '{source}'\n\
             directory = '{}'\n{more}\n",
            directory.display()
        );
        fs::write(place.join("plainfold.toml"), config).unwrap();
        let mut kept = Self { place, agent: None };
        kept.run();
        kept
    }

    fn run(&mut self) {
        let mut agent = plainfold::live_command(self.command(&["run"]));
        agent.wait_for_line(Stream::Stderr, |line| line.contains("caught up with"));
        self.agent = Some(agent);
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        command_in(&self.place, words)
    }

    fn agent(&mut self) -> &mut Running {
        self.agent.as_mut().unwrap()
    }

    fn said(&mut self, text: &str) -> String {
        self.agent().wait_for_line(Stream::Stderr, |line| line.contains(text))
    }

    fn stop(&mut self) -> Outcome {
        let agent = self.agent.take().unwrap();
        agent.terminate();
        agent.wait().assert_code(0)
    }

    fn mirror(&self) -> PathBuf {
        self.place.join("mirror")
    }

    /// The head and the body of the answer.
    fn request(&self, request: &str) -> (String, String) {
        let mut socket = UnixStream::connect(self.place.join("agent.sock")).unwrap();
        write!(socket, "{request} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// The status code and the JSON of the answer.
    fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let (head, body) = self.request(&format!("{method} /v1/mirrors/shelf{path}"));
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{head}\n{body}")))
    }

    /// The job that a request begins, when it has ended.
    fn job(&self, path: &str) -> Value {
        let (code, job) = self.ask("POST", path);
        assert_eq!(code, 202, "{job}");
        self.ended(&job["job"])
    }

    fn ended(&self, id: &Value) -> Value {
        let job = until(|| {
            let (code, job) = self.ask("GET", &format!("/jobs/{id}"));
            assert_eq!(code, 200, "{job}");
            (job["state"] != "running").then_some(job)
        });
        assert!(job["ended_at"].is_string(), "{job}");
        job
    }

    /// The status of the collection.
    fn shelf(&self) -> Value {
        let (code, status) = self.ask("GET", "/status");
        assert_eq!(code, 200, "{status}");
        status["collections"][0].clone()
    }

    fn wait_for_damage(&self, damaged: u64) -> Value {
        until(|| Some(self.shelf()).filter(|shelf| shelf["damaged"] == damaged))
    }
}

/// Asks until there is an answer.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "it did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server with documents, of which every third has attachments.
fn server() -> PouchServer {
    let server = PouchServer::start();
    server.create_db("shelf");
    for number in 0..30 {
        let page = format!("page {number}\n").repeat(40);
        // More than what is asked for in bulk.
        let large = vec![number; 100_000];
        let attachments: [(&str, &str, &[u8]); 2] =
            [("page.txt", "text/plain", page.as_bytes()), ("large.bin", "x/y", &large)];
        let attachments = if number % 3 == 0 { &attachments[..] } else { &[] };
        server.put_with_attachments("shelf", &id(number), &json!({"n": 17}), attachments);
    }
    server
}

fn id(number: u8) -> String {
    format!("book:{number:02}")
}

fn at(mirror: &Path, number: u8, below: &str) -> PathBuf {
    mirror.join("shelf").join(format!("book%3A{number:02}")).join(below)
}

/// In place, as bit rot would do it: the checksum beside the file stays.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn source(server: &PouchServer) -> String {
    format!("{}/shelf", server.url())
}

const QUIET: &str = "verify = false";

#[test]
fn a_running_mirror_is_verified_and_repaired_by_requests_while_its_feed_writes() {
    let server = server();
    let kept = Kept::start(Place::new(), &source(&server), QUIET);
    let mirror = kept.mirror();
    let job = kept.job("/verify");
    assert_eq!((&job["state"], &job["kind"]), (&json!("done"), &json!("verify")), "{job}");
    let found = &job["outcome"];
    assert_eq!((&found["documents"], &found["problem_count"]), (&json!(30), &json!(0)), "{job}");
    let shelf = kept.shelf();
    assert!(shelf["verified_at"].is_string() && shelf["damaged"] == 0, "{shelf}");

    flip(&at(&mirror, 3, "attachments/large.bin"));
    fs::remove_file(at(&mirror, 6, "attachments/page.txt")).unwrap();
    fs::remove_dir_all(at(&mirror, 7, "")).unwrap();
    fs::write(at(&mirror, 8, ".document.json.swp"), "x").unwrap();
    let job = kept.job("/verify?collection=shelf");
    assert_eq!(job["outcome"]["problem_count"], 4, "{job}");
    let shelf = kept.shelf();
    assert_eq!(shelf["damaged"], 4, "{shelf}");
    assert!(shelf["damage"].as_str().unwrap().contains("and 3 more"), "{shelf}");

    // The feed writes all the time.
    let (stop, writes) = (std::sync::atomic::AtomicBool::new(false), 20);
    let job = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 0..writes {
                server.put_doc("shelf", &format!("new:{number}"), &json!({"n": number}));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let job = kept.job("/repair");
        writing.join().unwrap();
        job
    });
    assert_eq!(job["state"], "done", "{job}");
    let done = &job["outcome"];
    assert_eq!((&done["repaired"], &done["not_repaired"]), (&json!(4), &json!(0)), "{job}");
    assert_eq!((&done["problem_count"], &done["problems"]), (&json!(0), &json!([])), "{job}");
    until(|| mirror.join(format!("shelf/new%3A{}", writes - 1)).exists().then_some(()));
    kept.wait_for_damage(0);
    let job = kept.job("/verify");
    assert_eq!(job["outcome"]["problem_count"], 0, "{job}");
    let mut kept = kept;
    kept.stop();
    oracle::assert_equals_server(&source(&server), &mirror, "shelf");
    oracle::assert_clean(&mirror);
}

#[test]
fn one_job_runs_at_a_time_and_can_be_cancelled() {
    let server = server();
    let mut kept = Kept::start(Place::new(), &source(&server), QUIET);
    // 30 documents of at least 4 KiB would take two minutes.
    let (head, _) = kept.request("POST /v1/mirrors/shelf/verify?rate=1000");
    assert!(head.contains("202 Accepted") && head.contains("location: jobs/1"), "{head}");
    let (code, problem) = kept.ask("POST", "/repair");
    assert_eq!((code, &problem["type"]), (409, &json!("urn:plainfold:problem:busy")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("job 1 is under way"), "{problem}");
    let (code, job) = kept.ask("POST", "/jobs/1/cancel");
    assert_eq!(code, 200, "{job}");
    assert_eq!(kept.ended(&json!(1))["state"], "cancelled");
    assert_eq!(kept.shelf()["verified_at"], Value::Null, "it was not read to its end");
    let job = kept.job("/verify");
    assert_eq!((&job["job"], &job["state"]), (&json!(2), &json!("done")), "{job}");
    let (_, list) = kept.ask("GET", "/jobs");
    let ids: Vec<_> = list["jobs"].as_array().unwrap().iter().map(|job| &job["job"]).collect();
    assert_eq!(ids, [2, 1]);
    assert_eq!(kept.ask("GET", "/jobs/9").0, 404);
    assert_eq!(kept.ask("POST", "/verify?collection=none").0, 404);
    assert_eq!(kept.ask("POST", "/verify?rate=0").0, 400);
    // A session that ends ends its job.
    let (code, _) = kept.ask("POST", "/verify?rate=1000");
    assert_eq!(code, 202);
    let outcome = kept.stop();
    assert!(outcome.stderr.contains("job 3 was cancelled before its end"), "{outcome}");
}

#[test]
fn a_recorded_feed_repairs_what_it_holds_and_what_it_does_not_hold_is_said() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..9 {
        feed.put(&id(number), json!({"n": number}), &[("page.txt", b"a page")]);
    }
    let mut kept = Kept::start(place, &feed.source(), QUIET);
    let mirror = kept.mirror();
    flip(&at(&mirror, 3, "attachments/page.txt"));
    flip(&at(&mirror, 4, "document.json"));
    fs::create_dir(at(&mirror, 77, "")).unwrap();
    fs::write(at(&mirror, 77, "document.json"), "{\"_id\":\"book:77\",\"_rev\":\"1-a\"}\n")
        .unwrap();
    let job = kept.job("/repair");
    let done = &job["outcome"];
    assert_eq!((&done["repaired"], &done["not_repaired"]), (&json!(2), &json!(1)), "{job}");
    let repairs = done["repairs"].as_array().unwrap();
    let refused = repairs.iter().find(|one| one["result"] == "not-repaired").unwrap();
    assert_eq!(refused["id"], "book:77", "{job}");
    assert!(refused["reason"].as_str().unwrap().contains("does not know"), "{job}");
    assert_eq!(kept.shelf()["damaged"], 1);
    // It follows its feed as before.
    feed.put("after", json!({"n": 1}), &[]);
    until(|| mirror.join("shelf/after/document.json").exists().then_some(()));
    kept.stop();
    fs::remove_dir_all(at(&mirror, 77, "")).unwrap();
    oracle::assert_equals_feed(feed.path(), &mirror);
    oracle::assert_clean(&mirror);
}

/// The documents that an alert command has received.
fn alerts(place: &Place) -> Vec<Value> {
    let text = fs::read_to_string(place.join("alerts")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A section that writes each alert into a file.
fn hook(place: &Place) -> String {
    let script = place.join("hook.sh");
    fs::write(&script, format!("cat >> '{0}'; echo >> '{0}'", place.join("alerts").display()))
        .unwrap();
    format!("[alerts]\ncommand = ['/bin/sh', '{}']", script.display())
}

#[test]
fn a_flipped_byte_is_noticed_at_once_and_reported_and_stays_unless_it_is_to_be_repaired() {
    let (server, place) = (server(), Place::new());
    let more = format!("verify = {{ every = '1000d', rate = '100MB' }}\n{}", hook(&place));
    let mut kept = Kept::start(place, &source(&server), &more);
    let mirror = kept.mirror();
    // The slow verification reads a small mirror at once; after that, only the watch can notice anything.
    until(|| {
        let shelf = kept.shelf();
        (shelf["watched"] == true && shelf["verified_at"].is_string()).then_some(())
    });
    let path = at(&mirror, 3, "attachments/large.bin");
    let before = fs::read(&path).unwrap();
    flip(&path);
    let line = kept.said("the mirror is damaged");
    assert!(line.contains("large.bin is altered") && line.contains("mirror=shelf"), "{line}");
    let shelf = kept.wait_for_damage(1);
    assert!(shelf["damage"].as_str().unwrap().contains("large.bin"), "{shelf}");
    let (_, metrics) = kept.request("GET /metrics");
    let metric = "plainfold_collection_damaged_documents{mirror=\"shelf\",collection=\"shelf\"} 1";
    assert!(metrics.contains(metric), "{metrics}");
    let alert = until(|| alerts(&kept.place).into_iter().find(|one| one["alert"] == "damaged"));
    assert_eq!((&alert["state"], &alert["collection"]), (&json!("raised"), &json!("shelf")));
    let text = plainfold::run_command(kept.command(&["status", "shelf"])).stdout;
    assert!(text.contains("damaged     1 document: shelf/book%3A03"), "{text}");
    assert_ne!(fs::read(&path).unwrap(), before, "nobody has asked for a repair");
    // That somebody changes it back is noticed too.
    flip(&path);
    kept.wait_for_damage(0);
    // A file that belongs to no document, one that is gone, and a document that is gone.
    fs::write(at(&mirror, 4, ".document.json.swp"), "x").unwrap();
    kept.wait_for_damage(1);
    fs::remove_file(at(&mirror, 6, "attachments/page.txt")).unwrap();
    kept.wait_for_damage(2);
    fs::remove_dir_all(at(&mirror, 7, "")).unwrap();
    kept.wait_for_damage(3);
    // What the mirror itself writes is right.
    server.put_doc("shelf", &id(8), &json!({"n": 18}));
    server.put_doc("shelf", "new", &json!({"n": 1}));
    server.delete_doc("shelf", &id(10));
    until(|| (!at(&mirror, 10, "").exists()).then_some(()));
    fs::write(mirror.join("shelf/new/stray"), "x").unwrap();
    let shelf = kept.wait_for_damage(4);
    assert!(shelf["damage"].as_str().unwrap().contains("and 3 more"), "{shelf}");
    let outcome = kept.stop();
    assert_eq!(outcome.stderr.matches("the mirror is damaged").count(), 5, "{outcome}");
    // It is known without a process, and after a start.
    let status = plainfold::status(&mirror);
    assert_eq!(status["collections"][0]["damaged"], 4, "{status}");
    kept.run();
    assert_eq!(kept.wait_for_damage(4)["damaged"], 4);
    let job = kept.job("/repair");
    assert_eq!(job["outcome"]["problem_count"], 0, "{job}");
    kept.wait_for_damage(0);
    kept.stop();
    oracle::assert_equals_server(&source(&server), &mirror, "shelf");
}

#[test]
fn a_flipped_byte_is_noticed_at_once_and_repaired_if_the_config_says_so() {
    let server = server();
    let more = "verify = { every = '1000d', rate = '100MB', repair = true }";
    let mut kept = Kept::start(Place::new(), &source(&server), more);
    let mirror = kept.mirror();
    until(|| {
        let shelf = kept.shelf();
        (shelf["watched"] == true && shelf["verified_at"].is_string()).then_some(())
    });
    let path = at(&mirror, 3, "attachments/large.bin");
    let before = fs::read(&path).unwrap();
    flip(&path);
    kept.said("the mirror is damaged");
    kept.said("documents that were damaged are intact again");
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_dir_all(at(&mirror, 7, "")).unwrap();
    fs::remove_file(at(&mirror, 8, "document.json")).unwrap();
    until(|| at(&mirror, 7, "document.json").exists().then_some(()));
    until(|| at(&mirror, 8, "document.json").exists().then_some(()));
    kept.wait_for_damage(0);
    // Its new folder is watched too.
    flip(&path);
    kept.said("the mirror is damaged");
    until(|| (fs::read(&path).ok()? == before).then_some(()));
    kept.stop();
    oracle::assert_equals_server(&source(&server), &mirror, "shelf");
    oracle::assert_clean(&mirror);
}

#[test]
fn without_a_watch_the_slow_verification_notices_it_and_resumes_after_a_restart() {
    let server = server();
    let more = "verify = { every = '1s', rate = '100MB', repair = true, watch = false }";
    let mut kept = Kept::start(Place::new(), &source(&server), more);
    let mirror = kept.mirror();
    until(|| kept.shelf()["verified_at"].is_string().then_some(()));
    assert_eq!(kept.shelf()["watched"], false);
    let path = at(&mirror, 6, "attachments/page.txt");
    let before = fs::read(&path).unwrap();
    flip(&path);
    kept.said("the mirror is damaged");
    kept.said("documents that were damaged are intact again");
    assert_eq!(fs::read(&path).unwrap(), before);
    let verified = kept.shelf()["verified_at"].clone();
    kept.stop();
    let at_rest = &plainfold::status(&mirror)["collections"][0]["verified_at"];
    assert!(at_rest.as_str() >= verified.as_str(), "{at_rest} {verified}");
    fs::remove_dir_all(at(&mirror, 9, "")).unwrap();
    kept.run();
    kept.said("the mirror is damaged");
    until(|| at(&mirror, 9, "document.json").exists().then_some(()));
    kept.wait_for_damage(0);
    kept.stop();
    oracle::assert_equals_server(&source(&server), &mirror, "shelf");
}

#[test]
fn a_session_that_ends_in_the_middle_of_a_repair_loses_nothing_and_the_next_one_completes_it() {
    let server = server();
    let proxy = Proxy::start(server.address());
    let through = format!("{}/shelf", server.url_through(proxy.address()));
    let mut kept = Kept::start(Place::new(), &through, QUIET);
    let mirror = kept.mirror();
    let damaged = [3, 6, 9].map(|number| at(&mirror, number, "attachments/large.bin"));
    damaged.iter().for_each(|path| flip(path));
    let fired = proxy.inject("large.bin", Fault::StallAfter(10), 1);
    assert_eq!(kept.ask("POST", "/repair").0, 202);
    fired.wait();
    let outcome = kept.stop();
    assert!(outcome.stderr.contains("job 1 was cancelled before its end"), "{outcome}");
    assert!(damaged.iter().all(|path| path.exists()));
    let damaged = plainfold::status(&mirror)["collections"][0]["damaged"].as_u64().unwrap();
    assert!(damaged > 0, "what was not repaired is still known to be damaged");
    kept.run();
    // The command asks the process that works on the mirror.
    let outcome = plainfold::run_command(kept.command(&["verify", "shelf", "--repair"]));
    let outcome = outcome.assert_code(0);
    assert!(outcome.stdout.contains("repaired     shelf  book:"), "{outcome}");
    assert!(outcome.stdout.contains("no problems left: 30 documents"), "{outcome}");
    kept.wait_for_damage(0);
    kept.stop();
    oracle::assert_equals_server(&source(&server), &mirror, "shelf");
    oracle::assert_clean(&mirror);
}

#[test]
fn a_collection_whose_folder_is_replaced_is_watched_again_and_one_without_a_folder_is_damaged() {
    let server = server();
    let more = "verify = { every = '1000d', rate = '100MB' }";
    let mut kept = Kept::start(Place::new(), &source(&server), more);
    let folder = at(&kept.mirror(), 3, "").parent().unwrap().to_owned();
    let is_watched = |kept: &Kept| {
        let shelf = kept.shelf();
        (shelf["watched"] == true && shelf["verified_at"].is_string()).then_some(())
    };
    until(|| is_watched(&kept));
    let (aside, copy) = (kept.place.join("aside"), kept.place.join("copy"));
    let copied = std::process::Command::new("cp").arg("-a").args([&folder, &copy]).status();
    assert!(copied.unwrap().success());
    fs::rename(&folder, &aside).unwrap();
    fs::rename(&copy, &folder).unwrap();
    kept.said("the folder of the collection was moved away or removed");
    until(|| is_watched(&kept));
    flip(&at(&kept.mirror(), 3, "attachments/large.bin"));
    let line = kept.said("the mirror is damaged");
    assert!(line.contains("large.bin is altered"), "{line}");

    fs::remove_dir_all(&folder).unwrap();
    let line = kept.said("the mirror is damaged");
    assert!(line.contains("removed the folder of the collection"), "{line}");
    let shelf = kept.shelf();
    assert!(shelf["damaged"].as_u64() > Some(0) && shelf["watched"] == false, "{shelf:#}");
    // It is well again when it is back.
    fs::rename(&aside, &folder).unwrap();
    kept.said("documents that were damaged are intact again");
    kept.stop();
}
