//! Comparisons of mirrors: under other names, with the collections that they hold, by revision or
//! byte by byte, and with readable output.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::pouchdb::PouchServer;
use crate::env::{Place, library};

fn run(command: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let mirror = mirror.display().to_string();
    plainfold::run([command, &mirror].iter().chain(more))
}

fn json_of(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

/// Changes a file as an editor does: the new one has no checksum.
fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read(path).unwrap();
    let at = memchr::memmem::find(&text, from.as_bytes()).unwrap();
    let changed = [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat();
    fs::remove_file(path).unwrap();
    fs::write(path, changed).unwrap();
}

/// The same with a new checksum.
fn forge(path: &Path, from: &str, to: &str) {
    edit(path, from, to);
    note(path);
}

/// Notes the checksum of a file's present bytes.
fn note(path: &Path) {
    let checksum = blake3::hash(&fs::read(path).unwrap());
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path, "user.plainfold.b3", checksum.as_bytes(), flags).unwrap();
}

/// Copies a file without its checksum.
fn strip(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A server with `shelf`, mirrored.
fn mirrored(place: &Place) -> PouchServer {
    let server = PouchServer::start();
    server.create_db("shelf");
    for id in ["a", "b", "c"] {
        server.put_doc("shelf", id, &json!({"n": 17}));
    }
    server.put_attachment("shelf", "b", "small.txt", "text/plain", b"some text");
    server.put_attachment("shelf", "c", "large.bin", "application/x", &[b'x'; 100_000]);
    plainfold::mirror(&format!("{}/shelf", server.url()), &place.mirror()).assert_code(0);
    server
}

#[test]
fn a_drill_is_proven_under_another_name() {
    let place = Place::new();
    let server = mirrored(&place);
    let (mirror, url) = (place.mirror(), server.url());
    run("restore", &mirror, &[&url, "--as", "shelf=drill"]).assert_code(0);
    server.delete_db("shelf");
    let drill = format!("{url}/drill");
    for arguments in [
        vec!["--against", &url, "--as", "shelf=drill"],
        vec!["--against", &url, "--as", "drill"],
        vec!["--against", &drill, "--as", "shelf=drill"],
        vec!["--against", &url, "--as", "drill", "--bytes"],
    ] {
        let proven = run("verify", &mirror, &arguments).assert_code(0);
        assert!(proven.stdout.contains("\nEQUAL\n"), "{proven}");
        assert!(proven.stdout.contains("  shelf as drill\n"), "{proven}");
        let difference = run("diff", &mirror, &arguments[1..]).assert_code(0);
        assert!(
            difference.stdout.ends_with("\n0 differences in 1 collection\n")
                || difference.stdout.ends_with("\n0 differences in 1 collection"),
            "{difference}"
        );
    }
    let json = run("verify", &mirror, &["--against", &url, "--as", "drill", "--format", "json"]);
    let certificate = json_of(&json.assert_code(0))["certificate"].clone();
    let collection = &certificate["collections"][0];
    assert_eq!((&collection["collection"], &collection["as"]), (&json!("shelf"), &json!("drill")));

    server.put_doc("drill", "d", &json!({}));
    let differs = run("diff", &mirror, &[&url, "--as", "drill"]).assert_code(1).stdout;
    assert!(differs.starts_with("only-there   shelf  d  1-"), "{differs}");
    // The collection itself is not at the source any more.
    let gone = run("diff", &mirror, &[&url]).assert_code(1).stdout;
    assert!(gone.contains("shelf: 3 only-here"), "{gone}");
}

#[test]
fn a_database_of_another_name_is_refused_with_the_option_that_names_it() {
    let place = Place::new();
    let server = mirrored(&place);
    let (mirror, url) = (place.mirror(), server.url());
    let copy = format!("{url}/shelf-copy");
    run("restore", &mirror, &[&copy]).assert_code(0);
    for (command, arguments) in [("verify", vec!["--against", &copy]), ("diff", vec![&*copy])] {
        let refused = run(command, &mirror, &arguments).assert_code(2);
        let said = &refused.stderr;
        assert!(said.contains("--as shelf=shelf-copy"), "{refused}");
        assert!(!refused.stdout.contains("behind"), "{refused}");
        run(command, &mirror, &[&arguments[..], &["--as", "shelf=shelf-copy"]].concat())
            .assert_code(0);
        run(command, &mirror, &[&arguments[..], &["--all"]].concat()).assert_code(1);
    }
}

#[test]
fn a_comparison_says_that_it_left_collections_out() {
    let place = Place::new();
    let server = mirrored(&place);
    server.create_db("films");
    let (url, shelf) = (server.url(), format!("{}/shelf", server.url()));
    let second = place.join("second");
    plainfold::mirror(&url, &second).assert_code(0);
    let some = run("verify", &second, &["--against", &shelf]).assert_code(0).stdout;
    assert!(some.contains("\nEQUAL in 1 of 2 collections\n"), "{some}");
    assert!(some.trim_end().ends_with("in 1 of 2 collections; 1 not compared"), "{some}");
    let all = run("verify", &second, &["--against", &url]).assert_code(0).stdout;
    assert!(all.contains("\nEQUAL\n") && all.contains("0 differences in 2 collections"), "{all}");
    let mirrors = run("diff", &place.mirror(), &[second.to_str().unwrap()]).assert_code(0).stdout;
    assert!(mirrors.contains("the other mirror holds 1 other"), "{mirrors}");
}

#[test]
fn names_that_cannot_be_meant_are_refused_before_anything_is_read() {
    let place = Place::new();
    let server = mirrored(&place);
    let (mirror, url) = (place.mirror(), server.url());
    let refused = |command: &str, arguments: &[&str], word: &str| {
        let outcome = run(command, &mirror, arguments).assert_code(2);
        assert!(outcome.stderr.contains(word), "{outcome}");
    };
    refused("verify", &["--against", &url, "--as", "typo=drill"], "`typo`");
    refused("verify", &["--against", &url, "--as", "=drill"], "does not rename");
    refused("verify", &["--against", &url, "--as", "drill", "--repair"], "leave --as out");
    refused("verify", &["--as", "drill"], "--against");
    refused("verify", &["--bytes"], "--against");
    refused("diff", &[&url, "--as", "typo=drill"], "`typo`");
}

#[test]
fn only_the_collections_that_the_mirror_holds_are_compared_unless_all_are_asked_for() {
    let place = Place::new();
    let server = mirrored(&place);
    let (mirror, url) = (place.mirror(), server.url());
    for number in 0..3 {
        let name = format!("other-{number}");
        server.create_db(&name);
        server.put_doc(&name, "x", &json!({}));
    }
    let said = run("verify", &mirror, &["--against", &url]).assert_code(0).stdout;
    let line = "the source holds 3 other collections, which were not compared: --all compares them";
    assert!(said.contains(line) && said.contains("\nEQUAL\n"), "{said}");
    let json = json_of(&run("diff", &mirror, &[&url, "--format", "json"]).assert_code(0));
    assert_eq!(json["left_out"], json!(["other-0", "other-1", "other-2"]));
    let all = run("diff", &mirror, &[&url, "--all"]).assert_code(1).stdout;
    assert!(all.contains("other-1: 1 only-there"), "{all}");
    assert!(all.contains("3 differences in 3 of 4 collections: 3 only-there"), "{all}");

    // Between mirrors too.
    let second = place.join("second");
    plainfold::mirror(&url, &second).assert_code(0);
    let second = second.to_str().unwrap();
    let said = run("diff", &mirror, &[second]).assert_code(0).stdout;
    assert!(said.contains("3 other collections"), "{said}");
    run("diff", &mirror, &[second, "--all"]).assert_code(1);
    let lacks = plainfold::run(["diff", second, mirror.to_str().unwrap()]).assert_code(1).stdout;
    assert!(lacks.contains("other-2: 1 only-here"), "{lacks}");
}

#[test]
fn two_mirrors_are_compared_under_other_names() {
    let place = Place::new();
    let server = mirrored(&place);
    let mirror = place.mirror();
    run("restore", &mirror, &[&server.url(), "--as", "drill"]).assert_code(0);
    let second = place.join("second");
    plainfold::mirror(&format!("{}/drill", server.url()), &second).assert_code(0);
    let second = second.to_str().unwrap();
    run("diff", &mirror, &[second]).assert_code(1);
    let same = run("diff", &mirror, &[second, "--as", "shelf=drill"]).assert_code(0).stdout;
    assert!(same.contains("every byte"), "{same}");
}

#[test]
fn text_lists_some_differences_and_problems_and_counts_the_rest() {
    const COUNT: usize = 130;
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..COUNT {
        feed.put(&format!("book:{number:03}"), json!({"n": number}), &[]);
    }
    let mirror = place.mirror();
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    for number in 0..COUNT {
        feed.put(&format!("book:{number:03}"), json!({"n": -1}), &[]);
        fs::write(mirror.join(format!("shelf/book%3A{number:03}/extra.txt")), "x").unwrap();
    }
    let lines = |text: &str, word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    let differing = run("diff", &mirror, &[&feed.source()]).assert_code(1);
    let text = &differing.stdout;
    assert_eq!(lines(text, "revision "), 100, "{text}");
    assert!(text.contains("… and 30 differences: --limit 0"), "{text}");
    assert!(text.contains("130 differences in 1 of 1 collection: 130 revision"), "{text}");
    assert_eq!(differing.stderr.matches("extra.txt").count(), 100, "{differing}");
    assert!(differing.stderr.contains("… and 30 problems"), "{differing}");

    let verified = run("verify", &mirror, &["--against", &feed.source(), "--limit", "7"]);
    let text = verified.assert_code(1).stdout;
    assert_eq!((lines(&text, "extra "), lines(&text, "revision ")), (7, 7), "{text}");
    assert!(
        text.contains("… and 123 problems") && text.contains("… and 123 differences"),
        "{text}"
    );
    assert!(text.contains("problems by kind: 130 extra"), "{text}");
    assert!(text.contains("    differ   130 revision"), "{text}");

    let all = run("diff", &mirror, &[&feed.source(), "--limit", "0"]).assert_code(1).stdout;
    assert_eq!(lines(&all, "revision "), COUNT);
    let json = json_of(&run("diff", &mirror, &[&feed.source(), "--format=json"]).assert_code(1));
    assert_eq!(json["differences"].as_array().unwrap().len(), COUNT);
    assert_eq!(json["collections"][0]["differ"], json!({"revision": COUNT}));
}

#[test]
fn forged_bytes_are_found_and_repaired_by_reading_every_byte() {
    for style in ["as-sent", "pretty"] {
        let place = Place::new();
        let server = mirrored(&place);
        let (mirror, url) = (place.mirror(), format!("{}/shelf", server.url()));
        fs::remove_dir_all(&mirror).unwrap();
        run("mirror", Path::new(&url), &[mirror.to_str().unwrap(), "--json", style]).assert_code(0);
        let proven = run("verify", &mirror, &["--against", &url, "--bytes"]).assert_code(0).stdout;
        assert!(
            proven.contains("depth     every byte") && proven.contains("\nEQUAL\n"),
            "{proven}"
        );

        forge(&mirror.join("shelf/a/document.json"), "17", "18");
        forge(&mirror.join("shelf/b/attachments/small.txt"), "some", "same");
        forge(&mirror.join("shelf/c/attachments/large.bin"), "xxx", "xyx");
        // The checksums fit, and the revisions are the source's: by revision they are equal.
        let by_revision = run("verify", &mirror, &["--against", &url]);
        assert!(by_revision.stdout.contains("by revision, 0 files unchecked"), "{by_revision}");
        assert!(by_revision.stdout.contains("\nEQUAL\n"), "{by_revision}");
        let by_bytes = ["--against", &url, "--bytes", "--format", "json"];
        let found = json_of(&run("verify", &mirror, &by_bytes).assert_code(1));
        let certificate = &found["certificate"];
        assert_eq!(
            (&certificate["depth"], &certificate["equal"]),
            (&json!("every byte"), &json!(false))
        );
        assert_eq!(certificate["collections"][0]["differ"], json!({"bytes": 3}), "{found:#}");
        let differing = run("diff", &mirror, &[&url, "--bytes"]).assert_code(1).stdout;
        assert!(differing.contains("bytes        shelf  a  1-"), "{differing}");

        let said = run("verify", &mirror, &["--against", &url, "--bytes"]).assert_code(1).stdout;
        assert!(said.contains("--repair") && !said.contains("may just be behind"), "{said}");

        let repaired = run("verify", &mirror, &["--against", &url, "--bytes", "--repair"]);
        let repaired = repaired.assert_code(0).stdout;
        assert_eq!(repaired.matches("repaired ").count(), 3, "{repaired}");
        run("verify", &mirror, &["--against", &url, "--bytes"]).assert_code(0);
        assert!(fs::read(mirror.join("shelf/b/attachments/small.txt")).unwrap() == b"some text");
    }
}

#[test]
fn files_without_checksums_are_compared_by_bytes_in_any_case() {
    let place = Place::new();
    let server = mirrored(&place);
    let (mirror, url) = (place.mirror(), format!("{}/shelf", server.url()));
    // Without the inventory nothing vouches for a file that has lost its checksum.
    fs::remove_dir_all(mirror.join(".plainfold/inventory")).unwrap();
    strip(&mirror.join("shelf/c/document.json"));
    strip(&mirror.join("shelf/c/attachments/large.bin"));
    let same = run("verify", &mirror, &["--against", &url]).stdout;
    assert!(same.contains("depth     by revision, 2 files unchecked"), "{same}");
    assert!(same.contains("\nEQUAL\n"), "{same}");

    edit(&mirror.join("shelf/a/document.json"), "17", "18");
    let found = run("verify", &mirror, &["--against", &url, "--format", "json"]).assert_code(1);
    let certificate = json_of(&found)["certificate"].clone();
    assert_eq!(
        (&certificate["depth"], &certificate["unchecked"]),
        (&json!("by revision"), &json!(3))
    );
    let differences = certificate["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1, "{certificate:#}");
    assert_eq!((&differences[0]["kind"], &differences[0]["id"]), (&json!("bytes"), &json!("a")));
}

#[test]
fn a_recorded_feed_is_compared_by_bytes_too() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let large = vec![b'y'; 300_000];
    feed.put("a", json!({"n": 17}), &[("note.txt", b"some text"), ("large", &large)]);
    feed.put("b", json!({"n": 17}), &[]);
    feed.put("gone", json!({"n": 17}), &[]);
    feed.delete("gone");
    let mirror = place.mirror();
    run("mirror", Path::new(&feed.source()), &[mirror.to_str().unwrap(), "--deleted", "keep"])
        .assert_code(0);
    run("verify", &mirror, &["--against", &feed.source(), "--bytes"]).assert_code(0);
    forge(&mirror.join("shelf/a/attachments/large"), "yy", "yz");
    forge(&mirror.join("shelf/gone/deleted.json"), "true", "true ");
    let found = run("diff", &mirror, &[&feed.source(), "--bytes"]).assert_code(1).stdout;
    assert!(found.contains("2 differences in 1 of 1 collection: 2 bytes"), "{found}");
    run("verify", &mirror, &["--against", &feed.source(), "--bytes", "--repair"]).assert_code(0);
    run("diff", &mirror, &[&feed.source(), "--bytes"]).assert_code(0);
}

#[test]
fn bytes_that_the_source_cannot_give_are_no_proof() {
    let place = Place::new();
    fs::create_dir(place.join("files")).unwrap();
    fs::write(place.join("files/one"), vec![b'z'; 100_000]).unwrap();
    let row = r#"{"seq":1,"id":"a","changes":[{"rev":"1-x"}],"doc":{"_id":"a","_rev":"1-x","_attachments":{"one":{"content_type":"application/x","file":"files/one"}}}}"#;
    let feed = place.join("shelf.ndjson");
    fs::write(&feed, format!("{row}\n")).unwrap();
    let source = format!("feed:{}", feed.display());
    plainfold::mirror(&source, &place.mirror()).assert_code(0);
    run("diff", &place.mirror(), &[&source, "--bytes"]).assert_code(0);
    fs::remove_file(place.join("files/one")).unwrap();
    let said = run("diff", &place.mirror(), &[&source, "--bytes"]).assert_code(1).stdout;
    assert!(said.contains("unreadable") && said.contains("files/one"), "{said}");
}

#[test]
fn memory_stays_flat_while_every_byte_is_compared() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let large = vec![b'y'; 40 << 20];
    feed.put("a", json!({}), &[("large", &large)]);
    let mirror = place.mirror();
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    let mirror = mirror.display().to_string();
    let arguments = ["verify", &mirror, "--against", &feed.source(), "--bytes"];
    let (outcome, kib) = plainfold::run_measured(place.path(), &arguments);
    outcome.assert_code(0);
    assert!(kib < 100_000, "{kib} KiB for an attachment of 40 MiB");
}

#[test]
fn a_name_that_a_feed_does_not_hold_is_refused() {
    let place = Place::new();
    let source = format!("feed:{}", library().display());
    plainfold::mirror(&source, &place.mirror()).assert_code(0);
    let at = place.mirror().display().to_string();
    let drill = ["verify", &at, "--against", &source, "--as", "books=nope"];
    let refused = plainfold::run(drill).assert_code(2);
    assert!(refused.stderr.contains("does not name `nope`"), "{refused}");
    plainfold::run(["diff", &at, &source, "--as", "books=nope"]).assert_code(2);
}
