//! What people give as a feed: other formats are refused by their beginning, gzip and zstd are read,
//! and bad rows are counted.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::env::feed::{FeedFile, source};
use crate::env::plainfold::Outcome;
use crate::env::tree::{Tree, assert_nothing_written};
use crate::env::{Place, library, plainfold, root};

const PLAINFOLD: &str = env!("CARGO_BIN_EXE_plainfold");

/// Each file of `fixtures/refused`, and what its message must name.
const REFUSED: &[(&str, &[&str])] = &[
    ("all-docs.json", &["_all_docs", "include_docs=true", "attachments=true"]),
    ("array.json", &["documents", "jq"]),
    ("bulk-docs-new.json", &["docs", "_bulk_docs"]),
    ("bulk-docs.json", &["docs", "jq"]),
    ("bulk-get.json", &["_bulk_get", "include_docs=true"]),
    ("couchbackup-old.txt", &["couchbackup", "couchrestore"]),
    ("couchbackup.txt", &["couchbackup", "couchrestore"]),
    ("error.json", &["error", "credentials"]),
    ("eventsource.txt", &["eventsource", "sed"]),
    ("feed.xml", &["XML", "docs/feeds.md"]),
    ("find.json", &["docs", "jq"]),
    ("geo.json", &["GeoJSON", "docs/feeds.md"]),
    ("indented-rows.json", &["indented", "jq"]),
    ("indented.json", &["indented", "_changes", "jq"]),
    ("kites.csv", &["text", "docs/feeds.md"]),
    ("login.html", &["web page", "URL"]),
    ("mongoexport.json", &["MongoDB", "docs/feeds.md"]),
    ("no-docs-normal.json", &["documents", "include_docs=true"]),
    ("no-docs.ndjson", &["documents", "include_docs=true"]),
    ("one-line.json", &["_changes", "jq"]),
    ("plain-docs-new.ndjson", &["documents", "_bulk_docs"]),
    ("plain-docs.ndjson", &["documents", "jq"]),
    ("pouch-dump.txt", &["pouchdb-dump", "pouchdb-load"]),
    ("rows-array.json", &["array", "jq"]),
    ("rxdb-collection.json", &["exportJSON", "exposePlainfoldFeed"]),
    ("rxdb-docs.ndjson", &["JSON", "docs/feeds.md"]),
    ("rxdb-export.json", &["exportJSON", "exposePlainfoldFeed"]),
    ("settings.json", &["JSON", "docs/feeds.md"]),
    ("view.json", &["view", "include_docs=true"]),
];

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(text, 3).unwrap()
}

fn utf16(text: &str, little: bool) -> Vec<u8> {
    let bytes = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
    text.encode_utf16().flat_map(bytes).collect()
}

/// Bytes that are no text, and what their message must name.
fn binary() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    const ROW: &str =
        "{\"id\":\"a\",\"changes\":[{\"rev\":\"1-a\"}],\"doc\":{\"_id\":\"a\",\"_rev\":\"1-a\"}}\n";
    let mut tar = vec![0; 1024];
    tar[..9].copy_from_slice(b"rows.json");
    tar[257..262].copy_from_slice(b"ustar");
    vec![
        ("le.ndjson", utf16(ROW, true), &["UTF-16", "iconv", "UTF-16LE"]),
        ("be.ndjson", utf16(ROW, false), &["UTF-16", "iconv", "UTF-16BE"]),
        ("le-bom.ndjson", utf16(&format!("\u{feff}{ROW}"), true), &["UTF-16", "iconv"]),
        ("be-bom.ndjson", utf16(&format!("\u{feff}{ROW}"), false), &["UTF-16", "iconv"]),
        ("feed.sqlite", b"SQLite format 3\0\x10\0\x01".to_vec(), &["SQLite"]),
        ("feed.zip", b"PK\x03\x04\x14\0\0\0".to_vec(), &["zip", "unzip"]),
        ("feed.xz", b"\xfd7zXZ\0\0\x04".to_vec(), &["xz -dc"]),
        ("feed.bz2", b"BZh91AY&SY".to_vec(), &["bzip2 -dc"]),
        ("feed.lz4", b"\x04\x22\x4d\x18\x64\x40".to_vec(), &["lz4"]),
        ("feed.tar", tar, &["tar"]),
        ("dump.rdb", b"REDIS0011\xfa\x09redis-ver".to_vec(), &["Redis"]),
        ("picture", [&b"\x89PNG\r\n\x1a\n"[..], &[0; 99]].concat(), &["binary"]),
        ("twice.gz", gzip(&gzip(ROW.as_bytes())), &["gzip"]),
    ]
}

/// Runs `plainfold mirror feed:- DIR` on a file, with more options.
fn piped(file: &Path, place: &Place, options: &[&str]) -> Outcome {
    const REDIRECT: &str = "exec \"$0\" mirror feed:- \"$@\" < \"$FEED\"";
    let mirror = place.mirror();
    let arguments = ["-c", REDIRECT, PLAINFOLD, mirror.to_str().unwrap()];
    let mut command = plainfold::command_of(
        Path::new("sh"),
        arguments.into_iter().chain(options.iter().copied()),
    );
    command.current_dir(place.path()).env("FEED", file);
    plainfold::run_command(command)
}

#[track_caller]
fn assert_refused(outcome: Outcome, given: &str, facts: &[&str]) {
    let outcome = outcome.assert_code(2);
    assert_eq!((outcome.stderr.lines().count(), outcome.stdout.as_str()), (1, ""), "{outcome}");
    for fact in facts.iter().copied().chain([given]) {
        assert!(outcome.stderr.contains(fact), "no {fact:?} in {outcome}");
    }
}

/// Gives a text as a file, through a pipe, and compressed: nothing is written.
fn refuse(name: &str, text: &[u8], facts: &[&str]) {
    let place = Place::new();
    let forms = [
        (name.to_owned(), text.to_vec()),
        (format!("{name}.gz"), gzip(text)),
        (format!("{name}.x"), zstd(text)),
    ];
    for (name, data) in forms {
        let path = place.join(&name);
        fs::write(&path, data).unwrap();
        let named = path.to_str().unwrap();
        assert_refused(plainfold::mirror(&source(&path), &place.mirror()), named, facts);
        assert_refused(piped(&path, &place, &[]), "standard input", facts);
    }
    assert!(!place.mirror().exists());
}

#[test]
fn what_is_not_a_feed_is_refused_by_its_beginning() {
    let mut found: Vec<_> = fs::read_dir(root().join("fixtures/refused"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort_unstable();
    let named: Vec<_> = REFUSED.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, named);
    for (name, facts) in REFUSED {
        let text = fs::read(root().join("fixtures/refused").join(name)).unwrap();
        refuse(name, &text, facts);
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_by_their_beginning() {
    for (name, bytes, facts) in binary() {
        refuse(name, &bytes, facts);
    }
}

#[test]
fn a_refused_feed_changes_no_mirror_and_compares_with_none() {
    let place = Place::new();
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    let before = Tree::of(place.path());
    for (name, facts) in &REFUSED[..4] {
        let path = root().join("fixtures/refused").join(name);
        let (feed, mirror) = (source(&path), place.mirror());
        let mirror = mirror.to_str().unwrap();
        for arguments in [
            vec!["mirror", &feed, mirror],
            vec!["mirror", &feed, mirror, "--live"],
            vec!["mirror", &feed, mirror, "--source-moved"],
            vec!["verify", mirror, "--against", &feed],
            vec!["verify", mirror, "--against", &feed, "--repair"],
            vec!["diff", mirror, &feed],
        ] {
            assert_refused(plainfold::run(arguments), name, facts);
        }
        assert_refused(piped(&path, &place, &["--live"]), "standard input", facts);
    }
    assert!(before.until(&Tree::of(place.path())).is_empty());
    let directory = source(place.path());
    assert_refused(plainfold::mirror(&directory, &place.join("new")), "directory", &[]);
    assert!(!place.join("new").exists());
}

/// Runs what a message says between back quotes, and mirrors the feed that it names then.
fn follow_advice(name: &str, text: &[u8]) -> PathBuf {
    let place = Place::new();
    fs::write(place.join(name), text).unwrap();
    let outcome = plainfold::mirror(&source(&place.join(name)), &place.mirror()).assert_code(2);
    let mut parts = outcome.stderr.split('`');
    let (command, rest) = (parts.nth(1).unwrap(), parts.next().unwrap());
    let feed =
        rest.trim().rsplit_once("mirror ").unwrap().1.trim_matches('\'').replace("'\\''", "'");
    let ran = Command::new("sh").args(["-c", command]).current_dir(place.path()).output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{command}: {ran:?}");
    let path = place.join(feed.strip_prefix("feed:").unwrap());
    plainfold::mirror(&source(&path), &place.mirror()).assert_code(0);
    let stem = path.file_stem().unwrap().to_owned();
    let kite = place.mirror().join(stem).join("kite-1/document.json");
    assert!(kite.exists(), "{command} made no document");
    kite
}

#[test]
fn the_commands_that_a_refusal_names_make_a_feed() {
    for (name, facts) in REFUSED {
        if facts.contains(&"jq") || facts.contains(&"sed") {
            let text = fs::read(root().join("fixtures/refused").join(name)).unwrap();
            follow_advice(name, &text);
            follow_advice(&format!("it's {name}.gz"), &gzip(&text));
        }
    }
    let row = "{\"id\":\"kite-1\",\"changes\":[{\"rev\":\"1-a\"}],\"doc\":{\"_id\":\"kite-1\",\"_rev\":\"1-a\"}}\n";
    for little in [true, false] {
        follow_advice("without.ndjson", &utf16(row, little));
        follow_advice("with.ndjson", &utf16(&format!("\u{feff}{row}"), little));
    }
    for tool in ["xz", "bzip2"] {
        let place = Place::new();
        fs::write(place.join("rows"), row).unwrap();
        let packed = Command::new(tool).arg("-c").arg(place.join("rows")).output().unwrap();
        follow_advice("rows.ndjson", &packed.stdout);
    }
    follow_advice("twice.ndjson.gz", &gzip(&gzip(row.as_bytes())));
}

/// The library, compressed in ways that decoders must know.
fn packed_library() -> Vec<(&'static str, Vec<u8>)> {
    let text = fs::read(library()).unwrap();
    let (first, second) = text.split_at(text.len() / 3);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0], &b"ab"[..]].concat();
    vec![
        ("library.ndjson.gz", gzip(&text)),
        ("library.gz", [gzip(first), gzip(b""), gzip(second), vec![0; 512]].concat()),
        ("library.ndjson.zst", zstd(&text)),
        ("library.ndjson", [skipped.clone(), zstd(first), skipped, zstd(second)].concat()),
    ]
}

/// A place with the files that the library names, and where a feed of this name is in it.
fn place_of(name: &str) -> (Place, PathBuf) {
    let place = Place::new();
    fs::create_dir(place.join("files")).unwrap();
    for file in fs::read_dir(root().join("fixtures/files")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), place.join("files").join(file.file_name())).unwrap();
    }
    let path = place.join(name);
    (place, path)
}

/// The library once as gzip, once as zstd, with a file name and the name of the format.
fn of_each_kind() -> [(&'static str, &'static str, Vec<u8>); 2] {
    let text = fs::read(library()).unwrap();
    [("library.gz", "gzip", gzip(&text)), ("library.zst", "zstd", zstd(&text))]
}

#[test]
fn a_compressed_feed_is_mirrored_as_the_plain_one() {
    let plain = Place::new();
    plainfold::mirror(&source(&library()), &plain.mirror()).assert_code(0);
    let plain = plain.mirror();
    for (name, data) in packed_library() {
        let (place, path) = place_of(name);
        fs::write(&path, &data).unwrap();
        let (feed, mirror) = (source(&path), place.mirror());
        plainfold::mirror(&feed, &mirror).assert_code(0);
        let (feed, mirror) = (feed.as_str(), mirror.to_str().unwrap());
        for other in [&plain, Path::new(mirror)] {
            let other = other.to_str().unwrap();
            plainfold::run(["verify", other, "--against", feed, "--bytes"]).assert_code(0);
            plainfold::run(["diff", other, feed]).assert_code(0);
        }
        assert_nothing_written(Path::new(mirror), || {
            plainfold::mirror(feed, Path::new(mirror)).assert_code(0);
        });
        let body = Path::new(mirror).join("books");
        let body = fs::read_dir(body).unwrap().next().unwrap().unwrap().path();
        fs::write(body.join("document.json"), "{}").unwrap();
        plainfold::run(["verify", mirror, "--against", feed, "--repair"]).assert_code(0);
        plainfold::run(["verify", mirror, "--against", feed, "--bytes"]).assert_code(0);
        let live = plainfold::run(["mirror", feed, mirror, "--live"]);
        assert_refused(live, path.to_str().unwrap(), &["--live"]);
        fs::remove_dir_all(mirror).unwrap();
        piped(&path, &place, &[]).assert_code(0);
        plainfold::run(["diff", mirror, feed]).assert_code(0);
    }
}

#[test]
fn rows_that_are_long_have_their_attachments_in_a_compressed_feed() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("kites.ndjson"));
    let large: Vec<u8> =
        (0..6_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    feed.put(
        "kite-1",
        serde_json::json!({"colour": "red"}),
        &[("photo", &large), ("note", b"small")],
    );
    feed.put("kite-2", serde_json::json!({"colour": "blue"}), &[]);
    let packed = place.join("kites.ndjson.gz");
    fs::write(&packed, gzip(&fs::read(feed.path()).unwrap())).unwrap();
    plainfold::mirror(&source(&packed), &place.mirror()).assert_code(0);
    let photo = fs::read(place.mirror().join("kites/kite-1/attachments/photo")).unwrap();
    assert!(photo == large);
}

#[test]
fn a_compressed_feed_that_is_cut_has_not_been_caught_up_with() {
    for (name, kind, whole) in of_each_kind() {
        let (place, path) = place_of(name);
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let (feed, mirror) = (source(&path), place.mirror());
        let outcome = plainfold::mirror(&feed, &mirror).assert_code(3);
        for fact in [kind, "bytes", name, "--bytes"] {
            assert!(outcome.stderr.contains(fact), "{outcome}");
        }
        assert!(!outcome.stderr.contains("caught up:"), "{outcome}");
        let piped = piped(&path, &Place::new(), &[]).assert_code(3);
        for fact in [kind, "standard input", "--bytes"] {
            assert!(piped.stderr.contains(fact), "{piped}");
        }
        let against = ["verify", mirror.to_str().unwrap(), "--against", &feed];
        plainfold::run(against).assert_code(3);
        assert!(fs::read_dir(mirror.join("books")).unwrap().count() > 10);
        // Nothing vouches for these rows: the complete file is compared from its beginning.
        assert!(plainfold::status(&mirror)["collections"][0]["position"].is_null());
        fs::write(&path, &whole).unwrap();
        plainfold::mirror(&feed, &mirror).assert_code(0);
        plainfold::run(["diff", mirror.to_str().unwrap(), &feed]).assert_code(0);
    }
    for nothing in [&b"\x1f\x8b"[..], b"\x1f\x8b\x08\0\0"] {
        let place = Place::new();
        fs::write(place.join("nothing.gz"), nothing).unwrap();
        let outcome = plainfold::mirror(&source(&place.join("nothing.gz")), &place.mirror());
        let outcome = outcome.assert_code(3);
        assert!(outcome.stderr.contains("gzip") && outcome.stderr.contains("nothing"), "{outcome}");
    }
}

#[test]
fn no_row_of_a_damaged_file_is_mirrored() {
    for (name, kind, whole) in of_each_kind() {
        let (place, path) = place_of(name);
        let mut damaged = whole.clone();
        let last = damaged.len() - 6;
        damaged[last] ^= 0x55;
        for spoilt in [[&whole[..], b"garbage"].concat(), damaged] {
            if kind == "zstd" && spoilt.len() == whole.len() {
                // zstd's checksums are not in every file.
                continue;
            }
            fs::write(&path, spoilt).unwrap();
            let outcome = plainfold::mirror(&source(&path), &place.mirror()).assert_code(3);
            for fact in [kind, "damaged", "nothing was read", name] {
                assert!(outcome.stderr.contains(fact), "{outcome}");
            }
            assert!(!place.mirror().join("books").exists());
            piped(&path, &Place::new(), &[]).assert_code(3);
        }
        fs::write(&path, &whole).unwrap();
        plainfold::mirror(&source(&path), &place.mirror()).assert_code(0);
    }
}

#[test]
fn a_live_pipe_is_judged_by_what_has_come_before_a_pause() {
    let place = Place::new();
    let mirror = place.mirror();
    let arguments = ["mirror", "feed:-", mirror.to_str().unwrap(), "--live"];
    let command = plainfold::command_of(Path::new(PLAINFOLD), arguments);
    let (running, mut input) = plainfold::spawn_with_input(command);
    let row: &[u8] = b"{\"seq\":1,\"id\":\"x\",\"changes\":[{\"rev\":\"1-a\"}]}\n";
    input.write_all(row).unwrap();
    input.flush().unwrap();
    let outcome = running.wait().assert_code(2);
    assert!(outcome.stderr.contains("include_docs=true"), "{outcome}");
    assert!(!outcome.stderr.contains("caught up"), "{outcome}");
    drop(input);
}

#[test]
fn a_compressed_feed_without_room_for_its_text_names_the_temporary_folder() {
    let place = Place::new();
    let path = place.join("library.gz");
    fs::write(&path, gzip(&fs::read(library()).unwrap())).unwrap();
    let (feed, mirror) = (source(&path), place.mirror());
    let arguments = ["mirror", &feed, mirror.to_str().unwrap()];
    let mut command = plainfold::command_of(Path::new(PLAINFOLD), arguments);
    command.env("TMPDIR", place.join("nowhere"));
    let outcome = plainfold::run_command(command).assert_code(3);
    assert!(outcome.stderr.contains("TMPDIR") && outcome.stderr.contains("nowhere"), "{outcome}");
}

/// A feed with a bad row before each good one.
fn spoilt(path: PathBuf, rows: u32) -> FeedFile {
    let mut feed = FeedFile::create(path);
    feed.put("first", serde_json::json!({}), &[]);
    for number in 0..rows {
        feed.raw(b"{\"id\":\"torn\n");
        feed.put(&format!("kite-{number}"), serde_json::json!({"number": number}), &[]);
    }
    feed
}

#[test]
fn a_catch_up_ends_after_the_rows_that_max_failures_allows() {
    let place = Place::new();
    let feed = spoilt(place.join("kites.ndjson"), 30);
    let mirror = place.mirror();
    let kites = || fs::read_dir(mirror.join("kites")).unwrap().count() - 1;
    let run = |limit: &str| {
        let arguments =
            ["mirror", &feed.source(), mirror.to_str().unwrap(), "--max-failures", limit];
        plainfold::run(arguments).assert_code(1)
    };
    let outcome = run("10");
    assert_eq!(kites(), 10);
    for fact in ["10 rows", "--max-failures", "kites.ndjson"] {
        assert!(outcome.stderr.contains(fact), "{outcome}");
    }
    assert!(!outcome.stderr.contains("everything else is caught up"), "{outcome}");
    assert_eq!(plainfold::status(&mirror)["collections"][0]["failures"], 10);
    // The next run continues there.
    run("15");
    assert_eq!(kites(), 25);
    let outcome = run("5");
    assert_eq!(kites(), 30);
    assert!(!outcome.stderr.contains("--max-failures"), "{outcome}");
    assert_eq!(plainfold::status(&mirror)["collections"][0]["failures"], 30);

    let fresh = Place::new();
    let place_of = fresh.mirror();
    let all = ["mirror", &feed.source(), place_of.to_str().unwrap(), "--max-failures", "0"];
    let outcome = plainfold::run(all).assert_code(1);
    assert_eq!(fs::read_dir(place_of.join("kites")).unwrap().count(), 31);
    let named: Vec<_> = outcome
        .stderr
        .lines()
        .filter(|line| line.contains("ERROR") && line.contains("row at byte"))
        .collect();
    let offset = |line: &&str| -> u64 {
        let rest = line.split("at byte ").nth(1).unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(named.len(), 20, "{outcome}");
    assert!(named.iter().map(offset).is_sorted(), "{outcome}");
    let command = format!("plainfold status {}", place_of.display());
    assert!(outcome.stderr.contains(&command), "{outcome}");
    // These rows are not read again, and a later run names them nevertheless.
    let again = plainfold::run(all).assert_code(1);
    assert_eq!(again.stderr.matches("row at byte").count(), 20, "{again}");
    assert!(again.stderr.contains("10 more") && again.stderr.contains(&command), "{again}");
    assert!(again.stdout.contains("30 documents failed"), "{again}");
}

#[test]
fn one_spoilt_collection_of_a_pipe_does_not_end_the_others() -> io::Result<()> {
    let place = Place::new();
    let mut text = String::new();
    for number in 0..40 {
        text += &format!("{{\"collection\":\"bad\",\"id\":\"b{number}\",\"changes\":[]}}\n");
        text += &format!(
            "{{\"collection\":\"good\",\"id\":\"g{number}\",\"changes\":[{{\"rev\":\"1-a\"}}],\
             \"doc\":{{\"_id\":\"g{number}\",\"_rev\":\"1-a\"}}}}\n"
        );
    }
    fs::write(place.join("both"), text)?;
    let mirror = place.mirror();
    let outcome = piped(&place.join("both"), &place, &["--max-failures", "3"]).assert_code(1);
    assert_eq!(fs::read_dir(mirror.join("good"))?.count(), 40, "{outcome}");
    Ok(())
}

#[test]
fn a_file_of_many_collections_is_read_once() {
    let place = Place::new();
    let feed = place.join("many.ndjson");
    let row = |number: u64| {
        let (collection, text) = (number % 50, "x".repeat(2_000));
        format!(
            "{{\"seq\":{number},\"collection\":\"c{collection}\",\"id\":\"d{number}\",\
             \"changes\":[{{\"rev\":\"1-a\"}}],\
             \"doc\":{{\"_id\":\"d{number}\",\"_rev\":\"1-a\",\"text\":\"{text}\"}}}}\n"
        )
    };
    fs::write(&feed, (0..5_000).map(row).collect::<String>()).unwrap();
    let length = fs::metadata(&feed).unwrap().len();
    let live = plainfold::live(&source(&feed), &place.mirror());
    let read = live.bytes_read();
    live.terminate();
    live.wait().assert_code(0);
    // Once, its beginning to judge it, and what the state and the tree need.
    assert!(read < 2 * length, "{read} bytes were read of {length}: {} times", read / length);
}
