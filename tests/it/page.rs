//! The web page of the agent in a real headless Chromium. The scripts in `tests/it/page` steer the browser; the
//! tests here keep the agent and its feeds.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::env::agent::command_in;
use crate::env::browser::Script;
use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Running, Stream};
use crate::env::pouchdb::{attach, free_port};
use crate::env::{Place, library, root};

/// An agent that answers on a port, and what it mirrors.
struct Served {
    place: Place,
    port: u16,
    mirrors: String,
    agent: Option<Running>,
}

impl Served {
    fn new() -> Self {
        let (place, mirrors) = (Place::new(), String::new());
        Self { place, port: free_port(), mirrors, agent: None }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    fn mirror(&mut self, name: &str, source: &str, more: &str) {
        let directory = self.directory(name).display().to_string();
        self.mirrors += &format!(
            "[[mirror]]\nname = '{name}'\nsource = '{source}'\ndirectory = '{directory}'\n{more}\n"
        );
    }

    fn feed(&mut self, name: &str) -> FeedFile {
        let feed = FeedFile::create(self.place.join(&format!("{name}.ndjson")));
        self.mirror(name, &feed.source(), "");
        feed
    }

    /// A mirror whose directory holds something else.
    fn foreign(&mut self) {
        fs::create_dir(self.directory("foreign")).unwrap();
        fs::write(self.directory("foreign").join("thesis.tex"), "precious").unwrap();
        self.mirror("foreign", &library_feed(), "");
    }

    /// A mirror that has caught up and waits for its schedule.
    fn nightly(&mut self, name: &str) {
        self.mirror(name, &library_feed(), "schedule = { cron = '0 0 1 1 *' }");
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        command_in(&self.place, words)
    }

    /// Writes the config, once all mirrors are known.
    fn write_config(&self) {
        let listen = format!("[api]\nlisten = ['./agent.sock', '127.0.0.1:{}']\n", self.port);
        fs::write(self.place.join("plainfold.toml"), listen + &self.mirrors).unwrap();
    }

    /// A new token of a role.
    fn token(&self, role: &str) -> String {
        let command = self.command(&["token", "add", role, "--role", role]);
        plainfold::run_command(command).assert_code(0).stdout.trim().to_owned()
    }

    /// `plainfold run` that has started all mirrors.
    fn start(&mut self) {
        if !self.place.join("plainfold.toml").exists() {
            self.write_config();
        }
        self.agent = Some(plainfold::live_command(self.command(&["run"])));
    }

    fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill();
        assert!(agent.wait().was_killed());
    }

    fn stop(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.terminate();
        agent.wait().assert_code(0);
    }

    /// The status of the only collection of a mirror.
    fn collection(&self, mirror: &str) -> Value {
        let command = self.command(&["status", mirror, "--format", "json"]);
        let outcome = plainfold::run_command(command).assert_code(0);
        let mut status: Value = serde_json::from_str(&outcome.stdout).unwrap();
        status["collections"][0].take()
    }

    /// Waits until a mirror has this event.
    fn await_event(&self, mirror: &str, wanted: impl Fn(&Value) -> bool) {
        let command = self.command(&["tail", mirror, "--since", "0"]);
        plainfold::spawn_command(command).wait_for_event(wanted);
    }
}

fn library_feed() -> String {
    format!("feed:{}", library().display())
}

/// A feed of 100 documents, and one whose attachment is not in the feed, so that it fails.
fn shelf(served: &mut Served) -> FeedFile {
    let mut feed = served.feed("shelf");
    for number in 0..100 {
        feed.put(&format!("book:{number}"), json!({"n": number}), &[]);
    }
    let stub = json!({"content_type": "text/plain", "stub": true, "length": 5, "revpos": 1});
    feed.put_with("broken", json!({}), Map::from_iter([("note.txt".to_owned(), stub)]));
    feed.put("marker", json!({}), &[]);
    feed
}

/// Deletes 80 documents of the shelf, of which 30 are held back.
fn delete_many(served: &mut Served, feed: &mut FeedFile) {
    // A catch-up that read the deletions together with the documents would have nothing to delete.
    served.await_event("shelf", |event| event["documentId"] == "marker");
    for number in 0..80 {
        feed.delete(&format!("book:{number}"));
    }
    feed.put("after the deletions", json!({}), &[]);
    let said = |line: &str| line.contains("deletions are held back");
    served.agent.as_mut().unwrap().wait_for_line(Stream::Stderr, said);
    served.await_event("shelf", |event| event["documentId"] == "after the deletions");
    assert_eq!(served.collection("shelf")["held_back"], 30);
}

#[test]
fn a_mirror_at_work_and_a_failure_are_shown_and_a_brake_is_released_by_keyboard_alone() {
    let mut served = Served::new();
    let mut feed = shelf(&mut served);
    served.foreign();
    served.nightly("later");
    served.start();
    let Some(mut script) = Script::start("work.mjs", &served.url(), &[]) else { return };
    script.step("write a document", || feed.put("fresh", json!({"n": 1}), &[]));
    script.step("delete many documents", || delete_many(&mut served, &mut feed));
    script.step("nothing is released", || {
        assert_eq!(served.collection("shelf")["held_back"], 30);
    });
    script.step("delete more while the dialog is open", || {
        for number in 80..90 {
            feed.delete(&format!("book:{number}"));
        }
        feed.put("after more deletions", json!({}), &[]);
        served.await_event("shelf", |event| event["documentId"] == "after more deletions");
        assert_eq!(served.collection("shelf")["held_back"], 40);
    });
    script.step("still nothing is released", || {
        assert_eq!(served.collection("shelf")["held_back"], 40);
        assert!(served.directory("shelf/shelf/book%3A85").exists());
    });
    script.end();
    assert_eq!(served.collection("shelf")["held_back"], 0);
    for gone in ["shelf/shelf/book%3A70", "shelf/shelf/book%3A85"] {
        assert!(!served.directory(gone).exists());
    }
    served.stop();
}

/// An id with characters that cannot be seen, or that turn the direction of a text.
const UNSEEN: &str = "unseen-\u{ad}\u{61c}\u{115f}\u{1160}\u{180e}\u{200b}\u{202e}\u{2060}\u{2064}\u{206a}\u{206f}\
                      \u{3164}\u{feff}\u{ffa0}\u{fff9}\u{fffb}\u{e0000}\u{e0041}\u{e007f}-é\u{1f4d6}";

#[test]
fn a_hostile_document_can_do_nothing() {
    const HOSTILE: &str = "<img src=x onerror=\"document.documentElement.dataset.ran='image';alert(1)\">\
                           <script>alert(2)</script>\"'\u{202e}gpj.exe";
    let mut served = Served::new();
    let mut feed = served.feed("hostile");
    let items: Vec<_> = (0..300).map(|n| json!({"n": n})).collect();
    let mut body =
        json!({"title": "</script><script>alert(3)</script>", "big": items, "exact": "EXACT"});
    let file = |name: &str| fs::read(root().join("fixtures/files").join(name)).unwrap();
    attach(
        &mut body,
        &[
            ("page.html", "text/html", b"<script>alert(4)</script>"),
            (
                "picture.svg",
                "image/svg+xml",
                b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(5)'/>",
            ),
            ("plan.png", "image/png", &file("floor-plan.png")),
            ("rules.pdf", "application/pdf", &file("reading-room rules.pdf")),
            ("lies.png", "image/png", b"<script>alert(6)</script>"),
        ],
    );
    let row = json!({
        "seq": 1, "id": HOSTILE, "changes": [{"rev": "1-a"}],
        "doc": merged(json!({"_id": HOSTILE, "_rev": "1-a"}), body),
    });
    // A number that a browser's own numbers cannot hold.
    let row = row.to_string().replace("\"EXACT\"", "12345678901234567890.10");
    feed.raw(format!("{row}\n").as_bytes());
    feed.put("large", json!({"text": "y".repeat(5_000_000)}), &[]);
    feed.put("damaged", json!({"n": 1}), &[]);
    feed.put("a/b", json!({"with": "a slash"}), &[]);
    feed.put(UNSEEN, json!({UNSEEN: UNSEEN}), &[]);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep = json!({"seq": 9, "id": "deep", "changes": [{"rev": "1-d"}], "doc": {"_id": "deep", "_rev": "1-d", "d": "D"}})
        .to_string()
        .replace("\"D\"", &deep);
    feed.raw(format!("{deep}\n").as_bytes());
    for name in [".", "..", "last"] {
        feed.put(name, json!({}), &[]);
    }
    served.start();
    served.await_event("hostile", |event| event["documentId"] == "last");
    let more = [("PAGE_HOSTILE", HOSTILE), ("PAGE_UNSEEN", UNSEEN)];
    let Some(mut script) = Script::start("hostile.mjs", &served.url(), &more) else { return };
    script.step("damage a body", || {
        let body = served.directory("hostile/hostile/damaged/document.json");
        assert!(body.is_file());
        fs::write(body, b"{\"n\": <script>alert(7)</script> \xff").unwrap();
    });
    script.end();
    served.stop();
}

fn merged(mut into: Value, from: Value) -> Value {
    into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    into
}

#[test]
fn the_event_stream_resumes_by_itself_after_the_agent_was_killed_and_started_again() {
    let mut served = Served::new();
    let mut feed = served.feed("shelf");
    feed.put("first", json!({}), &[]);
    served.start();
    served.await_event("shelf", |event| event["documentId"] == "first");
    let Some(mut script) = Script::start("restart.mjs", &served.url(), &[]) else { return };
    script.step("kill the agent before an event came", || served.kill());
    script.step("write unseen and start it again", || {
        feed.put("unseen", json!({}), &[]);
        served.start();
    });
    script.step("write before", || feed.put("before", json!({}), &[]));
    script.step("kill the agent", || served.kill());
    script.step("write meanwhile and start it again", || {
        feed.put("meanwhile", json!({}), &[]);
        served.start();
    });
    script.step("write after", || feed.put("after", json!({}), &[]));
    script.step("write while the list is held", || feed.put("later", json!({}), &[]));
    script.step("kill the agent", || served.kill());
    script.step("replace the mirror by one of the same name", || {
        fs::remove_dir_all(served.directory("shelf")).unwrap();
        fs::remove_file(feed.path()).unwrap();
        feed = FeedFile::create(feed.path().to_owned());
        feed.put("of another mirror", json!({}), &[]);
        served.start();
    });
    script.step("write into the new mirror", || feed.put("newest", json!({}), &[]));
    script.end();
    served.stop();
}

#[test]
fn many_collections_are_shown_in_pages_that_a_keyboard_turns() {
    let mut served = Served::new();
    let mut feed = served.feed("many");
    for number in 1000..1120 {
        let row = json!({
            "collection": format!("year/{number}"), "id": "only", "changes": [{"rev": "1-a"}],
            "doc": {"_id": "only", "_rev": "1-a"},
        });
        feed.raw(format!("{row}\n").as_bytes());
    }
    served.start();
    let Some(script) = Script::start("many.mjs", &served.url(), &[]) else { return };
    script.end();
    served.stop();
}

#[test]
fn a_token_is_asked_for_and_kept_for_the_tab_alone_and_a_missing_role_is_named() {
    let mut served = Served::new();
    let mut feed = served.feed("shelf");
    feed.put("with file", json!({}), &[("note.txt", b"a note")]);
    served.write_config();
    let [read, admin] = ["read", "admin"].map(|role| served.token(role));
    served.start();
    let more = [("PAGE_READ_TOKEN", read.as_str()), ("PAGE_ADMIN_TOKEN", admin.as_str())];
    let Some(mut script) = Script::start("token.mjs", &served.url(), &more) else { return };
    script.step("write a document", || feed.put("fresh", json!({}), &[]));
    let said = script.end();
    assert!(!format!("{said}").contains(&read));
    served.stop();
}

/// Changes at a changing pace, for a drawing that shows something.
fn write_for_a_minute(feed: &mut FeedFile) {
    for round in 0..60_u64 {
        for number in 0..(round * 7919 % 13) * (round % 4) {
            feed.put(&format!("loan:{number}"), json!({"round": round}), &[]);
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

#[test]
fn every_view_is_accessible_in_light_and_dark_on_a_desktop_and_a_phone() {
    let mut served = Served::new();
    served.mirror("library", &library_feed(), "");
    let mut feed = shelf(&mut served);
    served.foreign();
    served.nightly("nightly");
    served.start();
    delete_many(&mut served, &mut feed);
    // Screenshots are written only when they are asked for, so that a test does not change the checkout.
    let shots = std::env::var_os("PLAINFOLD_SCREENSHOTS").map(|_| root().join("docs/page"));
    let shots = shots.map(|folder| folder.display().to_string());
    let mut more: Vec<_> = shots.iter().map(|folder| ("PAGE_SHOTS", folder.as_str())).collect();
    let place = served.place.path().display().to_string();
    let fixtures = root().join("fixtures").display().to_string();
    more.extend([("PAGE_PLACE", place.as_str()), ("PAGE_FIXTURES", fixtures.as_str())]);
    let Some(mut script) = Script::start("views.mjs", &served.url(), &more) else { return };
    for number in 0..4 {
        script.step("write a document", || feed.put(&format!("new:{number}"), json!({}), &[]));
    }
    if shots.is_some() {
        script.step("write for a minute", || write_for_a_minute(&mut feed));
    }
    script.end();
    served.stop();
}
