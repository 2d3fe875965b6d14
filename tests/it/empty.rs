//! Missing things are reported and do not count as success: patterns, feeds, databases, restores,
//! certificates.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::env::Place;
use crate::env::feed::{self, FeedFile};
use crate::env::plainfold::{self, Outcome, Stream};
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::Proxy;

/// A server with these databases, of one document each.
fn server_with(databases: &[&str]) -> PouchServer {
    let server = PouchServer::start();
    for database in databases {
        server.create_db(database);
        server.put_doc(database, "one", &json!({}));
    }
    server
}

fn mirror(source: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let arguments = ["mirror", source, mirror.to_str().unwrap()];
    plainfold::run(arguments.iter().chain(more))
}

fn run_on(command: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let arguments = [command, mirror.to_str().unwrap()];
    plainfold::run(arguments.iter().chain(more))
}

/// The last line of a run.
fn last(outcome: &Outcome) -> &str {
    outcome.stdout.lines().last().unwrap()
}

/// A feed with these rows, each a collection and an id.
fn feed_of(place: &Place, rows: &[(&str, &str)]) -> String {
    let path = place.join("feed.ndjson");
    let row = |(collection, id): &(&str, &str)| {
        let doc = json!({"_id": id, "_rev": "1-a"});
        let row =
            json!({"id": id, "changes": [{"rev": "1-a"}], "doc": doc, "collection": collection});
        format!("{row}\n")
    };
    fs::write(&path, rows.iter().map(row).collect::<String>()).unwrap();
    feed::source(&path)
}

#[test]
fn each_pattern_that_matches_nothing_is_named_and_the_others_are_mirrored() {
    let place = Place::new();
    let server = server_with(&["books", "loans"]);
    let globs = mirror(&server.url(), &place.mirror(), &["--collections", "b*,x*"]).assert_code(1);
    assert!(globs.stderr.contains("no collection matches `x*`"), "{globs}");
    assert!(last(&globs).starts_with("1 name or glob matches nothing:"), "{globs}");
    let names = ["--collections", "b*,lones,x*"];
    let mistyped = mirror(&server.url(), &place.mirror(), &names).assert_code(2);
    assert!(mistyped.stderr.contains("no collection is named `lones`"), "{mistyped}");
    assert!(place.mirror().join("books/one").exists() && !place.mirror().join("loans").exists());
    let meant = ["--collections", "b*,x*", "--allow-empty"];
    let meant = mirror(&server.url(), &place.mirror(), &meant).assert_code(0);
    assert!(last(&meant).starts_with("caught up:"), "{meant}");
}

#[test]
fn names_are_mirrored_without_a_listing_of_all_databases() {
    let place = Place::new();
    let server = server_with(&["books", "loans", "other"]);
    let proxy = Proxy::start(server.address());
    let url = server.url_through(proxy.address());
    mirror(&url, &place.mirror(), &["--collections", "books,loans"]).assert_code(0);
    let asked = proxy.take_requests();
    assert!(!asked.iter().any(|request| request.contains("_all_dbs")), "{asked:?}");
    assert!(place.mirror().join("loans/one").exists() && !place.mirror().join("other").exists());
    let names = ["--collections", "books,lones"];
    let mistyped = mirror(&url, &place.mirror(), &names).assert_code(2);
    assert!(mistyped.stderr.contains("there is no database http://"), "{mistyped}");
    assert!(mistyped.stderr.contains("/lones"), "{mistyped}");
    assert!(!place.mirror().join("lones").exists(), "nothing is left of it");
}

#[test]
fn collections_beside_a_database_in_the_url_are_refused() {
    let place = Place::new();
    let url = "http://127.0.0.1:9/books";
    let refused = mirror(url, &place.mirror(), &["--collections", "loans"]).assert_code(2);
    assert!(refused.stderr.contains("names the database `books`"), "{refused}");
    assert!(!place.mirror().exists());
}

#[test]
fn an_empty_source_is_no_success() {
    let place = Place::new();
    let nothing = FeedFile::create(place.join("shelf.ndjson"));
    let blank = place.join("blank.ndjson");
    fs::write(&blank, "\n\n").unwrap();
    let server = PouchServer::start();
    let sources = [nothing.source(), feed::source(&blank), "feed:-".to_owned(), server.url()];
    for (number, source) in sources.iter().enumerate() {
        let at = place.join(&format!("mirror-{number}"));
        let empty = mirror(source, &at, &[]).assert_code(1);
        assert!(empty.stderr.contains("is empty: it has no collections"), "{empty}");
        assert!(last(&empty).starts_with("nothing was mirrored, because the source is"), "{empty}");
        mirror(source, &at, &["--allow-empty"]).assert_code(0);
    }
}

#[test]
fn a_name_that_exists_is_never_taken_for_a_glob() {
    let place = Place::new();
    let names = ["user[1]", "user1", "{4f3e}", "4f3e", "user[2"];
    let rows: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
    let source = feed_of(&place, &rows);
    for (number, name) in ["user[1]", "{4f3e}", "user[2"].iter().enumerate() {
        let at = place.join(&format!("mirror-{number}"));
        mirror(&source, &at, &["--collections", name]).assert_code(0);
        let followed = plainfold::status(&at)["collections"].as_array().unwrap().clone();
        assert_eq!(followed.len(), 1);
        assert_eq!(followed[0]["collection"], *name);
    }
    mirror(&source, &place.mirror(), &[]).assert_code(0);
    let verified = run_on("verify", &place.mirror(), &["--collections", "user[1]"]).assert_code(0);
    assert!(
        verified.stdout.contains("1 document ") && !verified.stdout.contains("user1"),
        "{verified}"
    );
    let back = place.join("back.ndjson");
    let target = format!("feed:{}", back.display());
    let some = [&*target, "--collections", "{4f3e}", "--ids", "{4f3e}"];
    run_on("restore", &place.mirror(), &some).assert_code(0);
    let text = fs::read_to_string(&back).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    fs::remove_file(&back).unwrap();
    let all = [&*target, "--ids", "user[1]"];
    run_on("restore", &place.mirror(), &all).assert_code(0);
    let text = fs::read_to_string(&back).unwrap();
    assert!(text.contains("\"user[1]\"") && !text.contains("\"user1\""), "{text}");
}

#[test]
fn a_database_that_has_vanished_is_named_and_its_copy_is_kept() {
    let place = Place::new();
    let server = server_with(&["books", "loans"]);
    let (url, at) = (server.url(), place.mirror());
    mirror(&url, &at, &[]).assert_code(0);
    server.delete_db("loans");
    let selections = [&[][..], &["--collections", "books,loans"], &["--collections", "loans,b*"]];
    for more in selections {
        let vanished = mirror(&url, &at, more).assert_code(1);
        let named = vanished.stderr.contains("the database of collection `loans` has vanished");
        assert!(named, "{vanished}");
        assert!(last(&vanished).starts_with("1 database has vanished:"), "{vanished}");
    }
    assert!(at.join("loans/one/document.json").exists());
    let loans = plainfold::status(&at)["collections"][1].clone();
    assert_eq!(loans["phase"], "vanished");
    assert!(
        loans["trouble"].as_str().unwrap().contains("its copy in the mirror is kept"),
        "{loans}"
    );
    mirror(&url, &at, &["--allow-empty"]).assert_code(0);
    mirror(&url, &at, &["--collections", "books"]).assert_code(0);
    server.create_db("loans");
    server.put_doc("loans", "one", &json!({}));
    let back = mirror(&url, &at, &["--collections", ""]).assert_code(0);
    assert!(last(&back).starts_with("caught up:"), "{back}");
    assert_eq!(plainfold::status(&at)["collections"][1]["phase"], "stopped");
}

#[test]
fn a_live_mirror_says_that_a_database_has_vanished_and_follows_it_when_it_is_there_again() {
    let place = Place::new();
    let server = server_with(&["books", "loans"]);
    mirror(&server.url(), &place.mirror(), &[]).assert_code(0);
    server.delete_db("loans");
    let mut live = plainfold::live(&server.url(), &place.mirror());
    live.wait_for_line(Stream::Stderr, |line| {
        line.contains("`loans` has vanished") && line.contains("waits for it")
    });
    assert_eq!(plainfold::status(&place.mirror())["collections"][1]["phase"], "vanished");
    live.terminate();
    let ended = live.wait().assert_code(0);
    assert!(last(&ended).starts_with("1 database has vanished"), "{ended}");
    let live = plainfold::live(&server.url(), &place.mirror());
    let mut tail = plainfold::tail(&place.mirror(), 0);
    server.create_db("loans");
    server.put_doc("loans", "two", &json!({}));
    tail.wait_for_event(|event| event["documentId"] == "two");
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn a_restore_of_nothing_is_no_success() {
    let place = Place::new();
    let source = feed_of(&place, &[("books", "one"), ("loans", "two")]);
    mirror(&source, &place.mirror(), &[]).assert_code(0);
    let target = format!("feed:{}", place.join("back.ndjson").display());
    let restore = |more: &[&str]| {
        let more: Vec<_> = std::iter::once(&*target).chain(more.iter().copied()).collect();
        run_on("restore", &place.mirror(), &more)
    };
    let mistyped = restore(&["--collections", "books,lones"]).assert_code(2);
    assert!(
        mistyped.stderr.contains("no collection is named `lones`; the mirror holds: books, loans"),
        "{mistyped}"
    );
    restore(&["--collections", "x*"]).assert_code(2);
    let none = restore(&["--ids", "three", "--dry-run"]).assert_code(1);
    assert!(
        none.stderr.contains("no document of the selected collections matches `three`"),
        "{none}"
    );
    restore(&["--ids", "three"]).assert_code(1);
    restore(&["--ids", "three", "--allow-empty", "--on-existing", "overwrite"]).assert_code(0);
    restore(&["--ids", "two", "--on-existing", "overwrite"]).assert_code(0);
}

#[test]
fn an_empty_database_is_restored_beside_others_and_alone_only_when_that_is_meant() {
    let place = Place::new();
    let server = server_with(&["books"]);
    server.create_db("void");
    mirror(&server.url(), &place.mirror(), &[]).assert_code(0);
    let restore = |names: &str, to: &PouchServer, more: &[&str]| {
        let url = to.url();
        let more = [&[&*url, "--collections", names], more].concat();
        run_on("restore", &place.mirror(), &more)
    };
    let exists = |server: &PouchServer| server.request("GET", "/void", b"").status == 200;
    let other = PouchServer::start();
    let alone = restore("void", &other, &[]).assert_code(1);
    assert!(alone.stderr.contains("nothing to restore"), "{alone}");
    restore("books,void", &other, &["--dry-run"]).assert_code(0);
    restore("books,void", &other, &["--ids", "one"]).assert_code(0);
    assert!(!exists(&other));
    restore("books,void", &other, &[]).assert_code(0);
    assert!(exists(&other));
    other.delete_db("void");
    restore("void", &other, &["--allow-empty"]).assert_code(0);
    assert!(exists(&other));
}

#[test]
fn a_certificate_over_nothing_is_none() {
    let place = Place::new();
    let at = place.mirror();
    let source = feed_of(&place, &[]);
    mirror(&source, &at, &["--allow-empty"]).assert_code(0);
    let nothing = run_on("verify", &at, &[]).assert_code(1);
    assert!(nothing.stderr.contains("nothing was verified"), "{nothing}");
    let certificate = run_on("verify", &at, &["--against", &source]).assert_code(1);
    assert!(!certificate.stdout.contains("EQUAL"), "{certificate}");
    run_on("diff", &at, &[&source]).assert_code(1);
    run_on("verify", &at, &["--allow-empty"]).assert_code(0);
    let source = feed_of(&place, &[("books", "one")]);
    mirror(&source, &at, &[]).assert_code(0);
    let mistyped = run_on("verify", &at, &["--collections", "boks"]).assert_code(2);
    assert!(
        mistyped.stderr.contains("no collection is named `boks`; the mirror holds: books"),
        "{mistyped}"
    );
    run_on("verify", &at, &["--collections", "x*", "--allow-empty"]).assert_code(0);
}

#[test]
fn tail_refuses_a_collection_that_the_mirror_does_not_hold() {
    let place = Place::new();
    let server = server_with(&["books"]);
    let tail = |name| run_on("tail", &place.mirror(), &["--since", "0", "--collection", name]);
    let live = plainfold::live(&server.url(), &place.mirror());
    let refused = tail("boks").assert_code(2);
    assert!(
        refused.stderr.contains("no collection is named `boks`; the mirror holds: books"),
        "{refused}"
    );
    live.terminate();
    live.wait().assert_code(0);
    let refused = tail("boks").assert_code(2);
    assert!(refused.stderr.contains("the mirror holds: books"), "{refused}");
    assert!(tail("books").assert_code(0).stdout.contains("\"one\""));
}

#[test]
fn the_last_line_begins_with_what_is_wrong() {
    let place = Place::new();
    let mut shelf = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..80 {
        shelf.put(&format!("book:{number}"), json!({"n": number}), &[]);
    }
    mirror(&shelf.source(), &place.mirror(), &[]).assert_code(0);
    for number in 0..70 {
        shelf.delete(&format!("book:{number}"));
    }
    shelf.raw(b"{\"id\":\"torn\",\"changes\":[{\"rev\":\"1-a\"}],\"doc\":{\"_id\":\"torn\",\"_rev\":\"1-a\",\"_attachments\":{\"f\":{\"file\":\"nowhere\"}}}}\n");
    let wrong = mirror(&shelf.source(), &place.mirror(), &[]).assert_code(1);
    let expected = "1 document failed, 20 deletions are held back: ";
    assert!(last(&wrong).starts_with(expected), "{wrong}");
    let json = mirror(&shelf.source(), &place.mirror(), &["--log-format", "json"]).assert_code(1);
    let said: serde_json::Value = serde_json::from_str(last(&json)).unwrap();
    assert_eq!(format!("{}: ", said["message"].as_str().unwrap()), expected);
}
