//! Every failure is printed once in a run, wherever it is printed, and the last line is true.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::Place;
use crate::env::feed::FeedFile;
use crate::env::hostile::Hostile;
use crate::env::plainfold::{self, Outcome};
use crate::env::pouchdb::PouchServer;

/// How often both streams together hold these words.
fn count(outcome: &Outcome, words: &str) -> usize {
    outcome.stdout.matches(words).count() + outcome.stderr.matches(words).count()
}

#[track_caller]
fn assert_once(outcome: &Outcome, words: &str) {
    assert_eq!(count(outcome, words), 1, "{words}: {outcome}");
}

/// The last line on standard output, which must not speak of success.
#[track_caller]
fn assert_last(outcome: &Outcome, words: &str) {
    let last = outcome.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with(words) && !last.contains("caught up"), "{words}: {outcome}");
}

fn mirror(source: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let arguments = ["mirror", source, mirror.to_str().unwrap()];
    plainfold::run(arguments.iter().chain(more))
}

/// A feed with good documents, and rows that are not JSON.
fn feed_with(place: &Place, good: usize, bad: usize) -> FeedFile {
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..good {
        feed.put(&format!("good:{number}"), json!({"n": number}), &[]);
    }
    for number in 0..bad {
        feed.raw(format!("{{\"id\":\"bad:{number:02}!\",\"doc\":{{broken}}}}\n").as_bytes());
    }
    feed
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_source_that_cannot_be_reached_is_named_once() {
    let place = Place::new();
    for path in ["/", "/shelf"] {
        let url = nowhere() + path;
        let outcome = mirror(&url, &place.mirror(), &["--give-up-after", "1"]).assert_code(3);
        assert_once(&outcome, "refused");
        assert_last(&outcome, "failed");
        // The reason is printed although warnings are not.
        let only = ["--give-up-after", "1", "--log-level", "error"];
        assert_once(&mirror(&url, &place.mirror(), &only).assert_code(3), "refused");
        let json = ["--give-up-after", "1", "--log-format", "json"];
        let outcome = mirror(&url, &place.mirror(), &json).assert_code(3);
        let summary: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(summary["stopped"].as_array().unwrap().len(), 1, "{outcome}");
        assert!(!outcome.stderr.contains("ERROR"), "{outcome}");
    }
}

#[test]
fn refused_credentials_are_named_once() {
    let place = Place::new();
    let server = PouchServer::start_with_admin("admin", "right");
    let host = server.address();
    for path in ["", "/shelf"] {
        let url = format!("http://admin:wrong@{host}{path}");
        let outcome = mirror(&url, &place.mirror(), &[]).assert_code(4);
        assert_once(&outcome, " 401 ");
        assert_last(&outcome, "failed");
    }
}

#[test]
fn documents_that_fail_are_named_once_and_counted_in_the_last_line() {
    for bad in [1, 30] {
        let place = Place::new();
        let feed = feed_with(&place, 3, bad);
        for run in 0..2 {
            let outcome = mirror(&feed.source(), &place.mirror(), &[]).assert_code(1);
            let named: Vec<_> = (0..bad)
                .filter(|number| match count(&outcome, &format!("bad:{number:02}!")) {
                    0 => false,
                    1 => true,
                    _ => panic!("{number}: {outcome}"),
                })
                .collect();
            // The first ones in their order; a later run reads them again as they come.
            assert_eq!(named.len(), bad.min(20), "run {run}: {outcome}");
            if run == 0 {
                assert_eq!(named, (0..bad.min(20)).collect::<Vec<_>>(), "{outcome}");
            }
            assert_eq!(count(&outcome, "plainfold status"), usize::from(bad > 20), "{outcome}");
            let noun = if bad == 1 { "1 document failed" } else { "30 documents failed" };
            assert_last(&outcome, noun);
            assert_once(&outcome, noun);
        }
        // JSON names them as they occur, and in the summary.
        let json = ["--log-format", "json"];
        let outcome = mirror(&feed.source(), &place.mirror(), &json).assert_code(1);
        let summary: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(summary["not_mirrored"].as_array().unwrap().len(), bad.min(20), "{outcome}");
        let logged = |line: &&str| line.contains("bad:") && line.contains("\"ERROR\"");
        assert_eq!(outcome.stderr.lines().filter(logged).count(), bad.min(20), "{outcome}");
    }
}

#[test]
fn status_names_the_first_failures_in_their_order_and_json_all() {
    let place = Place::new();
    let feed = feed_with(&place, 1, 130);
    mirror(&feed.source(), &place.mirror(), &[]).assert_code(1);
    let status = plainfold::status(&place.mirror());
    let failed = status["collections"][0]["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 130);
    let text = plainfold::run(["status".as_ref(), place.mirror().as_os_str()]).assert_code(0);
    let named: Vec<_> = text.stdout.lines().filter(|line| line.contains("bad:")).collect();
    for (number, line) in named.iter().enumerate() {
        assert!(line.contains(&format!("bad:{number:02}!")), "{number}: {text}");
    }
    assert_eq!(named.len(), 100);
    assert!(text.stdout.contains("30 more") && text.stdout.contains("--format json"), "{text}");
}

#[test]
fn deletions_that_are_held_back_are_named_with_the_remedy_at_every_level() {
    let place = Place::new();
    let mut feed = feed_with(&place, 200, 0);
    let at = place.join("it's a mirror");
    mirror(&feed.source(), &at, &[]).assert_code(0);
    (0..190).for_each(|number| drop(feed.delete(&format!("good:{number}"))));
    let command = format!("release '{}' shelf", at.to_str().unwrap().replace('\'', "'\\''"));
    let ways = [&["--log-level", "error"][..], &["--quiet"], &["--log-level", "off"], &[]];
    for more in ways {
        let outcome = mirror(&feed.source(), &at, more).assert_code(1);
        assert_once(&outcome, &command);
    }
}

#[test]
fn what_ended_a_run_is_printed_if_its_summary_cannot_be() {
    let place = Place::new();
    let url = nowhere() + "/shelf";
    for (form, out) in [("text", "/dev/full"), ("json", "/dev/full"), ("json", "/dev/null")] {
        let script = format!("exec \"$0\" \"$@\" >{out}");
        let program = env!("CARGO_BIN_EXE_plainfold");
        let mut arguments = vec!["-c", &script, program, "mirror", &url];
        let at = place.mirror();
        arguments.extend([at.to_str().unwrap(), "--give-up-after", "1", "--log-level", "error"]);
        arguments.extend(["--log-format", form]);
        let shell = plainfold::command_of(Path::new("/bin/sh"), arguments);
        let outcome = plainfold::run_command(shell).assert_code(3);
        assert!(outcome.stderr.contains("refused"), "{form} {out}: {outcome}");
    }
}

#[test]
fn a_feed_that_was_cut_is_no_success() {
    let place = Place::new();
    let mut feed = feed_with(&place, 3, 0);
    feed.raw(b"{\"id\":\"cut");
    let outcome = mirror(&feed.source(), &place.mirror(), &[]).assert_code(1);
    assert_once(&outcome, "in the middle of a row");
    assert_last(&outcome, "1 document failed");
}

#[test]
fn documents_of_a_server_that_fail_are_all_named_once() {
    let (place, server) = (Place::new(), Hostile::start());
    for number in 0..30 {
        server.put(&format!("book {number:02}!"), &[("page.bin", &[7; 300_000])]);
    }
    server.lie(
        "/page.bin",
        std::sync::Arc::new(|talk| talk.answer("500 No", "", b"{\"error\":\"broken\"}")),
    );
    let more = ["--give-up-after", "1"];
    let outcome = mirror(&server.shelf(), &place.mirror(), &more).assert_code(1);
    for number in 0..30 {
        assert_once(&outcome, &format!("`book {number:02}!` was not mirrored"));
    }
    assert_last(&outcome, "30 documents failed");
}

#[test]
fn a_database_that_has_vanished_is_named_once() {
    let place = Place::new();
    let server = PouchServer::start();
    for name in ["books", "loans"] {
        server.create_db(name);
        server.put_doc(name, "one", &json!({}));
    }
    mirror(&server.url(), &place.mirror(), &[]).assert_code(0);
    server.delete_db("loans");
    let outcome = mirror(&server.url(), &place.mirror(), &[]).assert_code(1);
    assert_once(&outcome, "`loans` has vanished");
    assert_last(&outcome, "1 database has vanished");
}

#[test]
fn a_mirror_in_use_is_named_once() {
    let place = Place::new();
    let feed = feed_with(&place, 3, 0);
    let live = plainfold::live(&feed.source(), &place.mirror());
    let outcome = mirror(&feed.source(), &place.mirror(), &[]).assert_code(5);
    assert_once(&outcome, "is in use by");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    live.terminate();
    let live = live.wait().assert_code(0);
    let last = live.stdout.lines().last().unwrap();
    assert!(last.starts_with("caught up, then stopped by a signal"), "{live}");
    // Off a terminal it says what it follows, and that it has caught up, with counts.
    let followed = live.stderr.lines().any(|line| {
        line.contains("following") && line.contains("1 collection") && line.contains("shelf.ndjson")
    });
    assert!(followed, "{live}");
    let caught_up = |line: &str| line.contains("caught up") && line.contains("3 documents written");
    assert_eq!(live.stderr.lines().filter(|line| caught_up(line)).count(), 1, "{live}");
}

#[test]
fn the_log_off_a_terminal_has_whole_seconds_and_levels() {
    let place = Place::new();
    let feed = feed_with(&place, 1, 1);
    let outcome = mirror(&feed.source(), &place.mirror(), &[]).assert_code(1);
    for line in outcome.stderr.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok() && time.len() == 20, "{line}");
        let level = rest.split_whitespace().next().unwrap();
        assert!(["INFO", "WARN", "ERROR"].contains(&level), "{line}");
    }
}

#[test]
fn what_a_restore_cannot_bring_back_is_named_once_and_all_is_summed_up() {
    let place = Place::new();
    let rows = place.join("two.ndjson");
    let row = |collection: &str, id: &str| {
        let doc = json!({"_id": id, "_rev": "1-a"});
        json!({"id": id, "changes": [{"rev": "1-a"}], "doc": doc, "collection": collection})
    };
    let rows_of = [row("books", "one"), row("books", "two"), row("loans", "three")];
    fs::write(&rows, rows_of.map(|row| format!("{row}\n")).concat()).unwrap();
    let at = place.mirror();
    mirror(&format!("feed:{}", rows.display()), &at, &[]).assert_code(0);
    let restore = |to: &str, more: &[&str]| {
        let target = format!("feed:{}", place.join(to).display());
        let arguments = ["restore", at.to_str().unwrap(), &target];
        plainfold::run(arguments.iter().chain(more))
    };
    let whole = restore("whole.ndjson", &[]).assert_code(0);
    assert!(whole.stdout.lines().last().unwrap().contains("3 documents created"), "{whole}");
    fs::write(at.join("books/two/document.json"), "{\"_id\":\"tw").unwrap();
    let failed = restore("part.ndjson", &[]).assert_code(1);
    assert_once(&failed, "books/two/document.json");
    assert_last(&failed, "1 document failed");
    assert!(failed.stdout.lines().last().unwrap().contains("2 documents created"), "{failed}");
    let to_stdout = plainfold::run(["restore", at.to_str().unwrap(), "feed:-"]).assert_code(1);
    assert!(to_stdout.stderr.lines().last().unwrap().starts_with("1 document failed"));
    // So does a verification of the same.
    let verified = plainfold::run(["verify", at.to_str().unwrap()]).assert_code(1);
    assert_once(&verified, "books/two/document.json");
    assert_last(&verified, "1 problem: ");
    let quiet = plainfold::run(["verify", at.to_str().unwrap(), "-q", "--collections", "loans"]);
    assert_eq!(quiet.assert_code(0).stdout, "");
}
