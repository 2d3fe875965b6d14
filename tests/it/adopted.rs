//! A mirror without its `.plainfold`, copied or kept in git: read as it is, and adopted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::env::feed::FeedFile;
use crate::env::pouchdb::PouchServer;
use crate::env::tree::Tree;
use crate::env::{Place, library, plainfold};

fn source() -> String {
    format!("feed:{}", library().display())
}

/// A mirror of the library, and a copy of its collections alone.
fn copied(place: &Place, how: &str, more: &[&str]) -> PathBuf {
    let mirror = place.mirror();
    let base = ["mirror", &source(), mirror.to_str().unwrap()];
    plainfold::run(base.iter().chain(more)).assert_code(0);
    let copy = place.join("copy");
    let done = Command::new("cp").arg(how).args([&mirror, &copy]).status().unwrap();
    assert!(done.success());
    fs::remove_dir_all(copy.join(".plainfold")).unwrap();
    copy
}

fn run(arguments: &[&str]) -> plainfold::Outcome {
    plainfold::run(arguments)
}

#[test]
fn a_mirror_without_its_folder_is_restored_verified_and_compared_and_not_written_to() {
    for names in ["native", "portable"] {
        let place = Place::new();
        let copy = copied(&place, "-a", &["--names", names]);
        let before = Tree::of(&copy);
        let path = copy.to_str().unwrap();
        let said = run(&["verify", path]).assert_code(0);
        let unknown: Vec<_> =
            said.stdout.lines().filter(|line| line.contains("cannot tell")).collect();
        assert_eq!(unknown.len(), 1, "{said}");
        assert!(unknown[0].contains("which source the mirror follows"), "{said}");
        let json = run(&["verify", path, "--format", "json"]).assert_code(0);
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert!(json["unknown"].is_string(), "{json}");
        run(&["verify", path, "--against", &source()]).assert_code(0);
        run(&["diff", path, place.mirror().to_str().unwrap()]).assert_code(0);
        assert_restored(&place, path, &[]);
        assert!(before.until(&Tree::of(&copy)).is_empty(), "something was written");
        // What is wrong with it is found as ever.
        let mut documents = walkdir::WalkDir::new(&copy).into_iter().filter_map(Result::ok);
        let one = documents.find(|entry| entry.file_name() == "document.json").unwrap();
        fs::write(one.path(), "{").unwrap();
        run(&["verify", path]).assert_code(1);
    }
}

/// Restores a tree into a feed, mirrors that feed, and compares both mirrors.
fn assert_restored(place: &Place, path: &str, more: &[&str]) {
    let feed = format!("feed:{}", place.join("back.ndjson").display());
    let base = ["restore", path, &feed];
    plainfold::run(base.iter().chain(more)).assert_code(0);
    let again = place.join("again");
    plainfold::mirror(&feed, &again).assert_code(0);
    run(&["diff", path, again.to_str().unwrap()]).assert_code(0);
}

#[test]
fn a_copy_that_has_lost_its_checksums_too_is_not_called_intact_and_can_be_restored() {
    let place = Place::new();
    let copy = copied(&place, "-r", &[]);
    let path = copy.to_str().unwrap();
    let said = run(&["verify", path]).assert_code(1);
    assert!(said.stdout.contains("unchecked ") && !said.stdout.contains("missing "), "{said}");
    run(&["diff", path, place.mirror().to_str().unwrap()]).assert_code(0);
    assert_restored(&place, path, &["--accept-unchecked"]);
}

#[test]
fn a_copy_without_attachments_is_not_told_that_they_are_missing() {
    let place = Place::new();
    let copy = copied(&place, "-a", &["--attachments", "false"]);
    run(&["verify", copy.to_str().unwrap()]).assert_code(0);
}

#[test]
fn it_is_taken_on_only_when_that_is_asked_for_and_compared_in_full() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for id in ["a", "b", "c"] {
        feed.put(id, json!({}), &[("note.txt", b"text")]);
    }
    feed.delete("c");
    let mirror = place.mirror();
    let path = mirror.to_str().unwrap();
    run(&["mirror", &feed.source(), path, "--deleted=keep"]).assert_code(0);
    let last = plainfold::journal(&mirror, 0).iter().filter_map(|one| one["event"].as_u64()).max();
    fs::remove_dir_all(mirror.join(".plainfold")).unwrap();
    fs::remove_dir_all(mirror.join("shelf/b")).unwrap();
    feed.put("d", json!({}), &[]);
    feed.delete("a");
    let before = Tree::of(&mirror);
    let said = run(&["mirror", &feed.source(), path]).assert_code(5);
    assert!(said.stderr.contains("--adopt"), "{said}");
    assert!(before.until(&Tree::of(&mirror)).is_empty(), "a refusal writes nothing");
    let said = run(&["mirror", &feed.source(), path, "--adopt"]).assert_code(0);
    assert!(said.stderr.contains("holds documents but no checkpoint"), "a full scan: {said}");
    assert!(mirror.join("shelf/b/document.json").exists() && mirror.join("shelf/d").exists());
    // Tombstones were kept, and no option changed that.
    for id in ["a", "c"] {
        assert!(mirror.join(format!("shelf/{id}/deleted.json")).exists(), "{id}");
    }
    assert_eq!(plainfold::status(&mirror)["options"]["deleted"], "keep");
    let first = plainfold::journal(&mirror, 0).iter().filter_map(|one| one["event"].as_u64()).min();
    assert!(first > last, "{first:?} after {last:?}");
    run(&["verify", path]).assert_code(0);
    let again = run(&["mirror", &feed.source(), path, "--adopt"]).assert_code(0);
    assert!(!again.stderr.contains("checkpoint"), "it is a mirror already: {again}");
}

#[test]
fn conflicts_and_histories_that_were_kept_are_kept_by_the_mirror_that_adopts_them() {
    let place = Place::new();
    let server = PouchServer::start();
    server.create_db("shelf");
    let leaf = |id: &str| json!({"_id": "torn", "_rev": format!("2-{id}"), "_revisions": {"start": 2, "ids": [id, "00"]}});
    let docs = json!({"new_edits": false, "docs": [leaf("aa"), leaf("bb")]});
    server.request("POST", "/shelf/_bulk_docs", docs.to_string().as_bytes()).assert_ok();
    let url = format!("{}/shelf", server.url());
    let mirror = place.mirror();
    let path = mirror.to_str().unwrap();
    run(&["mirror", &url, path, "--revisions"]).assert_code(0);
    fs::remove_dir_all(mirror.join(".plainfold")).unwrap();
    run(&["mirror", &url, path, "--adopt"]).assert_code(0);
    assert!(mirror.join("shelf/torn/conflicts/2-aa/document.json").exists());
    assert_eq!(plainfold::status(&mirror)["options"]["revisions"], true);
}

#[test]
fn what_is_not_a_mirrors_tree_is_not_adopted() {
    let place = Place::new();
    fs::create_dir_all(place.join("empty")).unwrap();
    fs::create_dir_all(place.join("papers/chapter")).unwrap();
    fs::write(place.join("papers/chapter/thesis.tex"), "draft").unwrap();
    for name in ["empty", "papers"] {
        let path = place.join(name);
        let before = Tree::of(&path);
        let said = run(&["mirror", &source(), path.to_str().unwrap(), "--adopt"]).assert_code(5);
        assert!(said.stderr.contains("no collections of documents"), "{said}");
        assert!(before.until(&Tree::of(&path)).is_empty());
    }
    let gone = place.join("gone");
    run(&["mirror", &source(), gone.to_str().unwrap(), "--adopt"]).assert_code(5);
    assert!(!gone.exists());
}

fn git(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(folder).args(["-c", "user.name=a", "-c", "user.email=a@example.org"]);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    let output = command.args(arguments).output().expect("git");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The entries that README recommends for the repository's `.gitignore`.
fn advised() -> String {
    let page = fs::read_to_string(crate::env::root().join("docs/mirror.md")).unwrap();
    let lines = page.lines().filter(|line| line.starts_with('/') || line.starts_with("!/"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_clone_of_a_mirror_that_is_kept_in_git_is_read_and_becomes_a_mirror() {
    let place = Place::new();
    let mirror = place.mirror();
    plainfold::mirror(&source(), &mirror).assert_code(0);
    let advised = advised();
    assert!(advised.contains("!/.plainfold/collections"), "{advised}");
    fs::write(mirror.join(".gitignore"), advised).unwrap();
    git(&mirror, &["init", "-q"]);
    git(&mirror, &["add", "-A"]);
    git(&mirror, &["commit", "-qm", "mirror"]);
    let clone = place.join("clone");
    git(place.path(), &["clone", "-q", mirror.to_str().unwrap(), clone.to_str().unwrap()]);
    let mut ours: Vec<_> = fs::read_dir(clone.join(".plainfold"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    ours.sort();
    assert_eq!(ours, ["collections", "format.json", "inventory"]);
    let path = clone.to_str().unwrap();
    let before = Tree::of(&clone);
    run(&["verify", path, "--against", &source()]).assert_code(0);
    run(&["diff", path, mirror.to_str().unwrap()]).assert_code(0);
    let feed = format!("feed:{}", place.join("back.ndjson").display());
    run(&["restore", path, &feed]).assert_code(0);
    assert!(before.until(&Tree::of(&clone)).is_empty(), "something was written");
    let last = plainfold::journal(&mirror, 0).iter().filter_map(|one| one["event"].as_u64()).max();
    let said = plainfold::mirror(&source(), &clone).assert_code(0);
    assert!(said.stderr.contains("holds documents but no checkpoint"), "{said}");
    run(&["verify", path, "--against", &source()]).assert_code(0);
    let first = plainfold::journal(&clone, 0).iter().filter_map(|one| one["event"].as_u64()).min();
    assert!(first.is_none_or(|first| Some(first) > last), "{first:?} after {last:?}");
}
