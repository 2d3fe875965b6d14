//! `plainfold verify` and `plainfold diff`: intact mirrors are found intact, each kind of damage is
//! found and nothing else, and equality with the source is reported.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::env::feed::{FeedFile, source};
use crate::env::plainfold::{self, Outcome};
use crate::env::pouchdb::PouchServer;
use crate::env::{Place, library};

fn run(command: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let mirror = mirror.display().to_string();
    plainfold::run([command, &mirror].iter().chain(more))
}

/// `verify --format json`, and its exit code.
fn verify(mirror: &Path, more: &[&str]) -> (Value, i32) {
    let outcome = run("verify", mirror, &[more, &["--format", "json"]].concat());
    let code = outcome.status.code().unwrap_or(-1);
    let value = serde_json::from_str(&outcome.stdout);
    (value.unwrap_or_else(|error| panic!("{error}: {outcome}")), code)
}

/// The kinds and paths of the problems.
fn problems(mirror: &Path) -> Vec<(String, String)> {
    let (report, code) = verify(mirror, &[]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let problems = report["problems"].as_array().unwrap().iter();
    let problems: Vec<_> =
        problems.map(|problem| (text(&problem["kind"]), text(&problem["path"]))).collect();
    assert_eq!(code, i32::from(!problems.is_empty()), "{problems:?}");
    problems
}

fn mirrored_library(place: &Place) -> std::path::PathBuf {
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    place.mirror()
}

fn flip(path: &Path, from: &str, to: &str) {
    let text = fs::read(path).unwrap();
    let at = memchr::memmem::find(&text, from.as_bytes()).unwrap();
    let mut changed = text.clone();
    changed[at..at + from.len()].copy_from_slice(to.as_bytes());
    // In place, as rot would do it: the attribute beside the file stays.
    fs::write(path, changed).unwrap();
}

#[test]
fn the_mirrored_library_is_whole_and_equals_its_feed() {
    let place = Place::new();
    let mirror = mirrored_library(&place);
    assert_eq!(problems(&mirror), []);
    let (report, code) = verify(&mirror, &["--against", &source(&library())]);
    assert_eq!((code, &report["certificate"]["equal"]), (0, &json!(true)), "{report}");
    let collections = report["certificate"]["collections"].as_array().unwrap();
    assert_eq!(collections.len(), 3);
    for collection in collections {
        assert_eq!(collection["here"], collection["there"]);
    }
    run("diff", &mirror, &[&source(&library())]).assert_code(0);
}

#[test]
fn the_digest_is_what_others_compute_too() {
    // As docs/format.md defines it.
    const SCRIPT: &str = r#"
import json, os, sys
lines = []
for folder in os.scandir(b"books"):
    document = json.load(open(folder.path + b"/document.json", encoding="utf-8"))
    fields = [document["_id"], document.get("_rev", "")]
    for plain, escaped in ("\\", r"\\"), ("\t", r"\t"), ("\n", r"\n"), ("\r", r"\r"):
        fields = [field.replace(plain, escaped) for field in fields]
    lines.append(("\t".join(fields) + "\n").encode())
sys.stdout.buffer.write(b"".join(sorted(lines)))
"#;
    let place = Place::new();
    let mirror = mirrored_library(&place);
    let lines = Command::new("python3").args(["-c", SCRIPT]).current_dir(&mirror).output().unwrap();
    assert!(lines.status.success(), "{}", String::from_utf8_lossy(&lines.stderr));
    let (report, _) = verify(&mirror, &["--collections", "books"]);
    let digest = report["collections"][0]["digest"].as_str().unwrap();
    assert_eq!(digest, blake3::hash(&lines.stdout).to_string());
}

#[test]
fn each_kind_of_damage_is_found_and_nothing_else() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for id in ["attachment", "body", "cut", "cut-body", "gone", "gone-body", "link", "moved", "ok"]
    {
        feed.put(id, json!({"n": 17}), &[("note.txt", b"some text, no more"), ("b", b"b")]);
    }
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert_eq!(problems(&mirror), []);

    let at = |path: &str| mirror.join("shelf").join(path);
    flip(&at("attachment/attachments/note.txt"), "some", "same");
    flip(&at("body/document.json"), "17", "18");
    fs::write(at("cut/attachments/note.txt"), "some").unwrap();
    let body = fs::read(at("cut-body/document.json")).unwrap();
    fs::write(at("cut-body/document.json"), &body[..body.len() / 2]).unwrap();
    fs::remove_file(at("gone/attachments/b")).unwrap();
    fs::remove_file(at("gone-body/document.json")).unwrap();
    fs::remove_file(at("link/attachments/b")).unwrap();
    symlink(at("ok/attachments/b"), at("link/attachments/b")).unwrap();
    fs::rename(at("moved"), at("moved-away")).unwrap();
    fs::write(at("ok/extra.txt"), "x").unwrap();
    fs::write(at("ok/attachments/extra.txt"), "x").unwrap();
    fs::write(at("loose.txt"), "x").unwrap();
    fs::create_dir(at("a%2fb")).unwrap();
    symlink(at("ok"), at("linked")).unwrap();
    fs::create_dir(mirror.join("stray")).unwrap();
    fs::write(mirror.join("loose.txt"), "x").unwrap();
    fs::create_dir(mirror.join(".git")).unwrap();
    fs::write(mirror.join(".plainfold/staging/1/7~shelf"), "x").unwrap();

    let mut expected = [
        ("altered", "shelf/attachment/attachments/note.txt"),
        ("altered", "shelf/body/document.json"),
        ("half-written", "shelf/cut/attachments/note.txt"),
        ("half-written", "shelf/cut-body/document.json"),
        ("missing", "shelf/gone/attachments/b"),
        ("missing", "shelf/gone-body/document.json"),
        ("missing", "shelf/link/attachments/b"),
        ("altered", "shelf/moved-away/document.json"),
        ("extra", "shelf/ok/extra.txt"),
        ("extra", "shelf/ok/attachments/extra.txt"),
        ("extra", "shelf/loose.txt"),
        ("extra", "shelf/a%2fb"),
        ("extra", "shelf/linked"),
        ("extra", "stray"),
        ("extra", "loose.txt"),
        ("missing", "shelf/moved"),
    ];
    expected.sort_by_key(|(_, path)| *path);
    let found = problems(&mirror);
    let found: Vec<_> = found.iter().map(|(kind, path)| (kind.as_str(), path.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_collection_that_is_gone_is_missed_and_attachments_left_out_are_not() {
    let place = Place::new();
    let mirror = place.mirror();
    let directory = mirror.display().to_string();
    plainfold::run(["mirror", &source(&library()), &directory, "--attachments", "false"])
        .assert_code(0);
    assert_eq!(problems(&mirror), []);
    fs::remove_dir_all(mirror.join("loans")).unwrap();
    assert_eq!(problems(&mirror), [("missing".to_owned(), "loans".to_owned())]);
}

#[test]
fn the_manifest_passes_sha256sum_and_fails_after_damage() {
    let place = Place::new();
    let mirror = mirrored_library(&place);
    let manifest = place.join("SHA256SUMS").display().to_string();
    run("verify", &mirror, &["--manifest", &manifest]).assert_code(0);
    let lines = fs::read_to_string(&manifest).unwrap().lines().count();
    let files = walkdir::WalkDir::new(&mirror)
        .into_iter()
        .filter_entry(|entry| entry.file_name() != ".plainfold");
    let files = files.filter(|entry| entry.as_ref().unwrap().file_type().is_file()).count();
    assert_eq!(lines, files);
    let check = || {
        let mut sums = Command::new("sha256sum");
        sums.args(["--check", "--strict", "--quiet", &manifest]).current_dir(&mirror);
        sums.output().unwrap()
    };
    let output = check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    flip(&mirror.join("members/about%3Alibrary/document.json"), "about", "abbut");
    let said = String::from_utf8_lossy(&check().stdout).into_owned();
    assert!(said.contains("members/about%3Alibrary/document.json: FAILED"), "{said}");
}

#[test]
fn against_a_server_what_differs_is_named() {
    let place = Place::new();
    let mirror = place.mirror();
    let server = PouchServer::start();
    server.create_db("shelf");
    for id in ["a/b", "changed", "gone"] {
        server.put_doc("shelf", id, &json!({"n": 1}));
    }
    server.put_attachment("shelf", "a/b", "note.txt", "text/plain", b"text");
    let url = format!("{}/shelf", server.url());
    plainfold::mirror(&url, &mirror).assert_code(0);
    let (report, code) = verify(&mirror, &["--against", &url]);
    assert_eq!((code, &report["certificate"]["equal"]), (0, &json!(true)), "{report}");
    assert!(report["certificate"]["collections"][0]["position"].is_u64(), "{report}");

    let newer = server.put_doc("shelf", "changed", &json!({"n": 2}));
    server.delete_doc("shelf", "gone");
    server.put_doc("shelf", "new", &json!({}));
    let said = run("verify", &mirror, &["--against", &url]).assert_code(1).stdout;
    assert!(said.contains("may just be behind"), "{said}");
    let differences = run("diff", &mirror, &[&url]).assert_code(1).stdout;
    let lines: Vec<_> = differences.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 3, "{differences}");
    assert!(lines[0].starts_with("revision") && lines[0].contains("shelf  changed  here 1-"));
    assert!(lines[0].ends_with(&newer), "{differences}");
    assert!(lines[1].starts_with("only-here") && lines[1].contains("shelf  gone  1-"));
    assert!(lines[2].starts_with("only-there") && lines[2].contains("shelf  new  1-"));

    plainfold::mirror(&url, &mirror).assert_code(0);
    run("diff", &mirror, &[&url]).assert_code(0);
    drop(server);
}

#[test]
fn refused_credentials_and_standard_input_have_their_exit_codes() {
    let place = Place::new();
    let mirror = mirrored_library(&place);
    let server = PouchServer::start_with_admin("ana", "secret-word");
    server.create_db("shelf");
    server.close_db("shelf");
    let url = format!("http://ana:wrong-word@{}/shelf", server.address());
    let outcome = run("verify", &mirror, &["--against", &url]).assert_code(4);
    assert!(!format!("{outcome}").contains("wrong-word"), "{outcome}");
    let outcome = run("diff", &mirror, &[&url]).assert_code(4);
    assert!(!format!("{outcome}").contains("wrong-word"), "{outcome}");
    let file = place.join("password");
    fs::write(&file, "secret-word\n").unwrap();
    let file = file.display().to_string();
    let named = format!("http://ana@{}/shelf", server.address());
    run("diff", &mirror, &[&named, "--password-file", &file]).assert_code(0);
    run("diff", &mirror, &["feed:-"]).assert_code(2);
    run("diff", &mirror, &["feed:no-such-file.ndjson"]).assert_code(3);
    run("verify", &place.join("nowhere"), &[]).assert_code(5);
}

#[test]
fn two_mirrors_differ_by_revision_or_by_bytes() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for id in ["a", "b", "c"] {
        feed.put(id, json!({"n": 17}), &[("note.txt", b"text")]);
    }
    let (left, right) = (place.join("left"), place.join("right"));
    plainfold::mirror(&feed.source(), &left).assert_code(0);
    plainfold::mirror(&feed.source(), &right).assert_code(0);
    let other = right.display().to_string();
    run("diff", &left, &[&other]).assert_code(0);
    feed.put("b", json!({"n": 18}), &[]);
    plainfold::mirror(&feed.source(), &right).assert_code(0);
    flip(&left.join("shelf/a/attachments/note.txt"), "text", "test");
    let said = run("diff", &left, &[&other]).assert_code(1).stdout;
    let lines: Vec<_> = said.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(said.ends_with("2 differences in 1 of 1 collection: 1 revision, 1 bytes"), "{said}");
    assert!(lines[0].starts_with("bytes") && lines[0].contains("shelf  a  1-"), "{said}");
    assert!(lines[1].starts_with("revision") && lines[1].contains("shelf  b  here 1-"), "{said}");
}

#[test]
fn a_mirror_at_work_gives_no_false_alarm() {
    const ROUNDS: usize = 12;
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let attachment = |round: usize| format!("attachment of round {round}");
    let write = |feed: &mut FeedFile, round: usize| {
        for number in 0..100 {
            let id = format!("book:{number}");
            match (number + round) % 5 {
                0 => drop(feed.delete(&id)),
                1 => drop(feed.put(&id, json!({"round": round}), &[])),
                _ => {
                    let text = attachment(round);
                    drop(feed.put(&id, json!({"round": round}), &[("a.txt", text.as_bytes())]));
                }
            }
        }
    };
    write(&mut feed, 0);
    let live = plainfold::live(&feed.source(), &mirror);
    for round in 1..=ROUNDS {
        write(&mut feed, round);
        assert_eq!(problems(&mirror), [], "in round {round}");
    }
    live.terminate();
    live.wait().assert_code(0);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    run("diff", &mirror, &[&feed.source()]).assert_code(0);
}
