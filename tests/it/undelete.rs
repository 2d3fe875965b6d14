//! One command restores documents that were deleted at the source by mistake, whether their deletion
//! was held back or applied, or both.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::plainfold::{self, Outcome, Stream};
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::Proxy;
use crate::env::{Place, oracle};
use crate::restore::{report, requests, restore};

/// A source, and its mirror with a trash.
struct Scene {
    place: Place,
    server: PouchServer,
    more: Vec<&'static str>,
}

impl Scene {
    fn new(documents: usize, more: &[&'static str]) -> Self {
        let (place, server) = (Place::new(), PouchServer::start());
        server.create_db("shelf");
        for number in 0..documents {
            let note: [(&str, &str, &[u8]); 1] = [("note.txt", "text/plain", b"a page\n")];
            let body = json!({"n": number});
            match number % 20 {
                0 => server.put_with_attachments("shelf", &id(number), &body, &note),
                _ => server.put_doc("shelf", &id(number), &body),
            };
        }
        let scene = Self { place, server, more: more.to_vec() };
        scene.run().assert_code(0);
        scene
    }

    fn url(&self) -> String {
        format!("{}/shelf", self.server.url())
    }

    fn mirror(&self) -> PathBuf {
        self.place.mirror()
    }

    /// A catch-up.
    fn run(&self) -> Outcome {
        let (url, mirror) = (self.url(), self.mirror());
        let arguments = ["mirror", &url, mirror.to_str().unwrap()];
        plainfold::run(arguments.iter().copied().chain(self.more.iter().copied()))
    }

    fn undelete(&self, more: &[&str]) -> Value {
        let arguments = [&["--undelete", "--format", "json"], more].concat();
        report(&restore(&self.mirror(), &self.server.url(), &arguments).assert_code(0))
    }

    fn held_back(&self) -> u64 {
        held_back(&self.mirror())
    }

    fn verify(&self) {
        let (mirror, url) = (self.mirror(), self.url());
        plainfold::run(["verify", mirror.to_str().unwrap(), "--against", &url]).assert_code(0);
    }

    fn documents(&self) -> u64 {
        let info = self.server.request("GET", "/shelf", b"").assert_ok().json();
        info["doc_count"].as_u64().unwrap()
    }

    fn delete(&self, numbers: std::ops::Range<usize>) {
        numbers.for_each(|number| drop(self.server.delete_doc("shelf", &id(number))));
    }
}

fn id(number: usize) -> String {
    format!("book/{number:03}")
}

fn held_back(mirror: &Path) -> u64 {
    plainfold::status(mirror)["collections"][0]["held_back"].as_u64().unwrap()
}

#[test]
fn one_command_brings_back_what_was_held_back_and_what_lies_in_the_trash() {
    let scene = Scene::new(140, &["--trash", "30"]);
    scene.delete(0..130);
    scene.run().assert_code(1);
    let held = scene.held_back();
    assert!((1..130).contains(&held), "{held} are held back, and the others lie in the trash");
    // A document that was written again at the source is no longer deleted.
    scene.server.put_doc("shelf", &id(1), &json!({"n": "theirs"}));
    scene.server.put_doc("shelf", &id(129), &json!({"n": "theirs"}));
    let dry = scene.undelete(&["--dry-run"]);
    assert_eq!(dry["collections"][0]["replace"], 128, "{dry}");
    assert_eq!(scene.documents(), 12);
    let done = scene.undelete(&[]);
    let counts = &done["collections"][0];
    assert_eq!((&counts["replace"], &counts["skip"]), (&json!(128), &json!(2)), "{done}");
    assert_eq!(scene.documents(), 140);
    for number in [0, 1, 2, 60, 128, 129, 139] {
        let path = format!("/shelf/book%2F{number:03}");
        let body = scene.server.request("GET", &path, b"").assert_ok().json();
        let theirs = matches!(number, 1 | 129);
        assert_eq!(body["n"], if theirs { json!("theirs") } else { json!(number) });
        if number % 20 == 0 {
            let path = format!("{path}/note.txt");
            assert_eq!(scene.server.request("GET", &path, b"").assert_ok().body, b"a page\n");
        }
    }
    // The next run finds nothing held back, and everything equal.
    scene.run().assert_code(0);
    assert_eq!(scene.held_back(), 0);
    oracle::assert_equals_server(&scene.url(), &scene.mirror(), "shelf");
    scene.verify();
    // A second time there is nothing to bring back, and nothing is written.
    let proxy = Proxy::start(scene.server.address());
    let url = scene.server.url_through(proxy.address());
    let _again = restore(&scene.mirror(), &url, &["--undelete"]);
    assert_eq!(requests(&proxy, "_bulk_docs"), 0);
}

#[test]
fn a_mirror_at_work_is_asked_and_follows() {
    let scene = Scene::new(140, &["--trash", "30"]);
    let (url, mirror) = (scene.url(), scene.mirror());
    let live = ["mirror", &url, mirror.to_str().unwrap(), "--live", "--trash", "30"];
    let mut live = plainfold::live_command(plainfold::command_of(
        Path::new(env!("CARGO_BIN_EXE_plainfold")),
        live,
    ));
    let mut tail = plainfold::tail(&mirror, 0);
    scene.delete(0..130);
    live.wait_for_line(Stream::Stderr, |line| line.contains("deletions are held back"));
    scene.server.put_doc("shelf", "marker", &json!({}));
    tail.wait_for_event(|event| event["documentId"] == "marker");
    assert!(scene.held_back() > 0);
    let done = scene.undelete(&[]);
    assert_eq!(done["collections"][0]["replace"], 130, "{done}");
    scene.server.put_doc("shelf", "second marker", &json!({}));
    tail.wait_for_event(|event| event["documentId"] == "second marker");
    assert_eq!(scene.held_back(), 0);
    live.terminate();
    live.wait().assert_code(0);
    oracle::assert_equals_server(&scene.url(), &scene.mirror(), "shelf");
}

#[test]
fn a_database_created_again_gets_back_what_its_listing_lacked() {
    let scene = Scene::new(80, &[]);
    scene.server.delete_db("shelf");
    scene.server.create_db("shelf");
    scene.server.put_doc("shelf", "new", &json!({}));
    scene.run().assert_code(1);
    assert_eq!(scene.held_back(), 80);
    let done = scene.undelete(&[]);
    assert_eq!(done["collections"][0]["create"], 80, "{done}");
    scene.run().assert_code(0);
    assert_eq!(scene.held_back(), 0);
    oracle::assert_equals_server(&scene.url(), &scene.mirror(), "shelf");
}

#[test]
fn tombstones_that_are_kept_are_no_obstacle() {
    let scene = Scene::new(70, &["--trash", "30", "--deleted", "keep", "--revisions"]);
    scene.delete(0..65);
    scene.run().assert_code(1);
    let done = scene.undelete(&[]);
    assert_eq!(done["collections"][0]["replace"], 65, "{done}");
    scene.run().assert_code(0);
    assert_eq!(scene.held_back(), 0);
    scene.verify();
}

#[test]
fn only_what_was_deleted_since_then_comes_back_in_its_newest_version() {
    let scene = Scene::new(10, &["--trash", "30"]);
    scene.delete(0..1);
    scene.run().assert_code(0);
    scene.server.put_doc("shelf", &id(0), &json!({"n": "second"}));
    scene.run().assert_code(0);
    scene.delete(0..4);
    scene.run().assert_code(0);
    let trash = scene.mirror().join(".plainfold/trash");
    let today = fs::read_dir(&trash).unwrap().next().unwrap().unwrap().file_name();
    // Two of them were deleted long ago.
    fs::create_dir_all(trash.join("2001-02-03/shelf")).unwrap();
    for number in [2, 3] {
        let name = format!("book%2F{number:03}-1");
        let from = trash.join(&today).join("shelf").join(&name);
        fs::rename(from, trash.join("2001-02-03/shelf").join(&name)).unwrap();
    }
    let none =
        restore(&scene.mirror(), &scene.server.url(), &["--undelete", "--since", "9999-01-01"]);
    assert!(!none.stdout.contains("1 replaced"), "{none}");
    let recent = scene.undelete(&["--since", "2001-02-04T00:00:00Z"]);
    assert_eq!(recent["collections"][0]["replace"], 2, "{recent}");
    let all = scene.undelete(&["--since", "2001-02-03"]);
    assert_eq!(all["collections"][0]["replace"], 2, "{all}");
    assert_eq!(all["collections"][0]["skip"], 2, "{all}");
    let path = "/shelf/book%2F000";
    assert_eq!(scene.server.request("GET", path, b"").assert_ok().json()["n"], "second");
    assert_eq!(scene.documents(), 10);
}

#[test]
fn skipping_says_how_many_documents_stay_deleted_and_how_they_come_back() {
    let scene = Scene::new(5, &[]);
    scene.delete(0..3);
    let skip = ["--on-existing", "skip"];
    let said = restore(&scene.mirror(), &scene.server.url(), &skip).assert_code(0);
    assert!(said.stdout.contains("2 skipped"), "{said}");
    assert!(said.stdout.contains("3 documents are deleted at the target"), "{said}");
    assert!(said.stdout.contains("--undelete"), "{said}");
    assert_eq!(scene.documents(), 2);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scene = Scene::new(1, &[]);
    let (mirror, url) = (scene.mirror(), scene.server.url());
    for wrong in [
        &["--undelete", "--since", "yesterday"][..],
        &["--since", "2001-02-03"],
        &["--undelete", "--on-existing", "skip"],
    ] {
        restore(&mirror, &url, wrong).assert_code(2);
    }
    let feed = restore(&mirror, "feed:-", &["--undelete"]).assert_code(2);
    assert!(feed.stderr.contains("tombstones"), "{feed}");
}
