//! Folders that RxDB's backup plugin wrote (`fixtures/rxdb-backup-17.6.0`): restored, verified, and
//! read with all damage that the plugin or a user can cause.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::env::plainfold::Outcome;
use crate::env::pouchdb::PouchServer;
use crate::env::tree::assert_nothing_written;
use crate::env::{Place, plainfold, root};

/// Documents whose attachments the plugin has damaged.
const SPOILT: [&str; 2] = ["binary", "marked"];

/// A recorded tree where a test may change it, with the folders that git does not keep.
fn recorded(place: &Place, name: &str) -> PathBuf {
    let (from, to) = (root().join("fixtures/rxdb-backup-17.6.0").join(name), place.join(name));
    for entry in walkdir::WalkDir::new(&from) {
        let entry = entry.unwrap();
        let copy = to.join(entry.path().strip_prefix(&from).unwrap());
        match entry.file_type().is_dir() {
            true => fs::create_dir_all(&copy).unwrap(),
            false => _ = fs::copy(entry.path(), &copy).unwrap(),
        }
        if entry.file_name() == "document.json" {
            fs::create_dir_all(copy.with_file_name("attachments")).unwrap();
        }
    }
    for collection in match name {
        "one" => &["shelf"][..],
        _ => &["books", "members"],
    } {
        fs::create_dir(to.join(collection)).unwrap();
    }
    to
}

/// The tree of one collection, with all that the plugin has spoilt removed.
fn sound(place: &Place) -> PathBuf {
    let tree = recorded(place, "one");
    for id in SPOILT {
        fs::remove_dir_all(tree.join(id)).unwrap();
    }
    tree
}

fn run(command: &str, tree: &Path, more: &[&str]) -> Outcome {
    let tree = tree.to_str().unwrap();
    plainfold::run([command, tree].iter().chain(more))
}

fn json_of(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

/// Path and kind of each problem that verify finds.
fn problems(tree: &Path, code: i32) -> BTreeMap<String, String> {
    let outcome = run("verify", tree, &["--format", "json"]).assert_code(code);
    let report = json_of(&outcome);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let problems = report["problems"].as_array().unwrap().iter();
    problems.map(|problem| (text(&problem["path"]), text(&problem["kind"]))).collect()
}

/// The paths that a restore into a feed reports as failed, and the ids that it restores.
fn restored(tree: &Path) -> (Vec<String>, Vec<String>) {
    let feed = tree.with_extension("ndjson");
    let target = format!("feed:{}", feed.display());
    let more = [target.as_str(), "--format", "json", "--on-existing", "overwrite"];
    let report = json_of(&run("restore", tree, &more));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let failed = report["failures"].as_array().unwrap().iter();
    let mut failed: Vec<_> = failed.map(|failure| text(&failure["path"])).collect();
    failed.sort();
    let rows = fs::read_to_string(feed).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    let mut ids: Vec<_> = rows.map(|row| text(&row["id"])).collect();
    ids.sort();
    (failed, ids)
}

/// The documents of a recorded tree as a server is to hold them, by id.
fn expected(tree: &Path, key: &str) -> BTreeMap<String, Value> {
    let files = walkdir::WalkDir::new(tree).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_name() == "document.json");
    let document = |entry: walkdir::DirEntry| {
        let mut body: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        let members = body.as_object_mut().unwrap();
        for own in ["_meta", "_deleted", "_attachments"] {
            assert!(members.remove(own).is_some(), "{own}");
        }
        let id = members[key].as_str().unwrap().to_owned();
        members.insert("_id".to_owned(), json!(id));
        (id, body)
    };
    files.map(document).collect()
}

fn held(server: &PouchServer, db: &str) -> BTreeMap<String, Value> {
    let rows = server.request("GET", &format!("/{db}/_all_docs?include_docs=true"), b"");
    let rows = rows.assert_ok().json();
    let document = |row: &Value| {
        let mut body = row["doc"].clone();
        body.as_object_mut().unwrap().remove("_attachments");
        (row["id"].as_str().unwrap().to_owned(), body)
    };
    rows["rows"].as_array().unwrap().iter().map(document).collect()
}

#[test]
fn what_the_plugin_kept_is_put_back_into_a_server_and_proven_equal() {
    let place = Place::new();
    let tree = recorded(&place, "one");
    let server = PouchServer::start();
    let outcome = assert_nothing_written(&tree, || {
        run("restore", &tree, &[&server.url(), "--format", "json"]).assert_code(1)
    });
    let report = json_of(&outcome);
    let collection = &report["collections"][0];
    assert_eq!((&collection["collection"], &collection["as"]), (&json!("shelf"), &json!("shelf")));
    assert_eq!((&collection["create"], &collection["problems"]), (&json!(10), &json!(2)));
    for (failure, id) in report["failures"].as_array().unwrap().iter().zip(SPOILT) {
        assert_eq!(failure["path"], id, "{outcome}");
        assert!(failure["reason"].as_str().unwrap().contains("RxDB"), "{outcome}");
    }
    for id in SPOILT {
        fs::remove_dir_all(tree.join(id)).unwrap();
    }
    assert_eq!(held(&server, "shelf"), expected(&tree, "isbn"));
    let text = server.request("GET", "/shelf/plain/gr%C3%BC%C3%9Fe%201.txt", b"");
    assert_eq!(text.assert_ok().body, "grüße\n".as_bytes());

    let again = run("restore", &tree, &[&server.url(), "--format", "json"]).assert_code(0);
    assert_eq!(json_of(&again)["collections"][0]["skip"], 10, "{again}");
    let url = format!("{}/shelf", server.url());
    let proven = run("verify", &tree, &["--against", &url]).assert_code(0);
    assert!(proven.stdout.contains("\nEQUAL\n"), "{proven}");
    run("diff", &tree, &[&url]).assert_code(0);
    server.put_over(Some("1-azvggksmpj"), "shelf", "a:b", &json!({"title": "newer"}));
    let differs = run("diff", &tree, &[&url]).assert_code(1);
    assert!(differs.stdout.starts_with("revision     shelf  a:b  here 1-azvggksmpj"), "{differs}");
    assert!(differs.stdout.ends_with("1 difference in 1 of 1 collection: 1 revision"), "{differs}");
    let bytes = run("diff", &tree, &[&url, "--bytes"]).assert_code(2);
    assert!(bytes.stderr.contains("leave --bytes out"), "{bytes}");
}

#[test]
fn a_database_of_another_name_is_compared_all_the_same() {
    let place = Place::new();
    let tree = sound(&place);
    let server = PouchServer::start();
    let url = format!("{}/elsewhere", server.url());
    run("restore", &tree, &[&url]).assert_code(0);
    run("verify", &tree, &["--against", &url]).assert_code(0);
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    for (left, right) in [(&tree, &place.mirror()), (&place.mirror(), &tree)] {
        let same = run("diff", left, &[right.to_str().unwrap()]).assert_code(0);
        assert!(same.stdout.ends_with("0 differences in 1 collection"), "{same}");
    }
    fs::remove_dir_all(place.mirror().join("elsewhere/plain")).unwrap();
    let differs = run("diff", &tree, &[place.mirror().to_str().unwrap()]).assert_code(1);
    assert!(differs.stdout.starts_with("only-here    elsewhere  plain  "), "{differs}");
}

#[test]
fn a_feed_gets_every_byte_but_rxdbs_own_members() {
    let place = Place::new();
    let tree = sound(&place);
    let body = r#"{"isbn":"a:b","n":1.0,"big":123456789012345678901,"x":"\u00e9\ud800","x":0,"_deleted":false,"_attachments":{},"_meta":{"lwt":1.01},"_rev":"1-azvggksmpj"}"#;
    fs::write(tree.join("a:b/document.json"), body).unwrap();
    let feed = place.join("shelf.ndjson");
    let target = format!("feed:{}", feed.display());
    run("restore", &tree, &[&target]).assert_code(0);
    let text = fs::read_to_string(&feed).unwrap();
    let row = text.lines().find(|row| row.contains(r#""id":"a:b""#)).unwrap();
    let kept = r#"{"_id":"a:b","isbn":"a:b","n":1.0,"big":123456789012345678901,"x":"\u00e9\ud800","x":0,"_rev":"1-azvggksmpj"}"#;
    assert!(row.ends_with(&format!("\"doc\":{kept}}}")), "{row}");
    run("verify", &tree, &["--against", &target]).assert_code(0);
    plainfold::mirror(&target, &place.mirror()).assert_code(0);
    let mirrored = place.mirror().join("shelf/plain/attachments/grüße 1.txt");
    assert_eq!(fs::read(mirrored).unwrap(), "grüße\n".as_bytes());
    let named = run("restore", &tree, &["feed:-", "--as", "books"]).assert_code(0);
    assert!(named.stdout.starts_with(r#"{"collection":"books","id""#), "{named}");
    let both = run("restore", &tree, &["http://127.0.0.1:1/db", "--as", "books"]).assert_code(2);
    assert!(both.stderr.contains("both name one"), "{both}");
}

#[test]
fn verify_names_what_the_plugin_has_spoilt_and_counts_what_has_no_checksum() {
    let place = Place::new();
    let tree = recorded(&place, "one");
    let found = problems(&tree, 1);
    let spoilt =
        [("binary/attachments/all.bin", "altered"), ("marked/attachments/bom.txt", "half-written")];
    assert_eq!(found, spoilt.map(|(path, kind)| (path.to_owned(), kind.to_owned())).into());
    let report = json_of(&run("verify", &tree, &["--format", "json"]));
    let shelf = &report["collections"][0];
    assert_eq!((&shelf["collection"], &shelf["documents"]), (&json!("shelf"), &json!(12)));
    assert_eq!((&shelf["attachments"], &shelf["unchecked"]), (&json!(4), &json!(16)));
}

#[test]
fn the_manifest_is_read_by_sha256sum_whatever_the_files_are_called() {
    let place = Place::new();
    let tree = sound(&place);
    for (folder, id) in [("back\\slash", r"back\\slash"), ("two\nlines", r"two\nlines")] {
        fs::create_dir(tree.join(folder)).unwrap();
        let body = format!(r#"{{"isbn":"{id}","_rev":"1-a"}}"#);
        fs::write(tree.join(folder).join("document.json"), body).unwrap();
    }
    let manifest = place.join("SHA256SUMS");
    run("verify", &tree, &["--manifest", manifest.to_str().unwrap()]).assert_code(0);
    let mut sha256sum = Command::new("sha256sum");
    let checked = sha256sum.args(["--check", "--strict"]).arg(&manifest).current_dir(&tree);
    let checked = checked.output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    assert_eq!(said.lines().filter(|line| line.ends_with(": OK")).count(), 14, "{said}");
}

#[test]
fn two_collections_are_read_as_one_that_is_named_as_the_directory() {
    let place = Place::new();
    let tree = recorded(&place, "two");
    assert!(problems(&tree, 0).is_empty());
    let server = PouchServer::start();
    let outcome = run("restore", &tree, &[&server.url()]).assert_code(0);
    assert!(outcome.stdout.starts_with("two: 3 documents created"), "{outcome}");
    assert!(outcome.stderr.contains("books and members"), "{outcome}");
    let url = format!("{}/members", server.url());
    run("restore", &tree, &[&url, "--ids", "{m1,same}"]).assert_code(0);
    assert_eq!(held(&server, "members").into_keys().collect::<Vec<_>>(), ["m1", "same"]);
}

#[test]
fn whatever_is_wrong_is_named_by_its_path_and_everything_else_goes_on() {
    let place = Place::new();
    let tree = sound(&place);
    let write = |path: &str, text: &str| {
        fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
        fs::write(tree.join(path), text).unwrap();
    };
    let hash = "0".repeat(64);
    write("torn/document.json", r#"{"isbn":"torn","ti"#);
    write("nojson/document.json", "thesis");
    write("renamed/document.json", r#"{"isbn":"other","_rev":"1-a"}"#);
    write("dead/document.json", r#"{"isbn":"dead","_rev":"2-a","_deleted":true}"#);
    write("lost/document.json", r#"{"isbn":"lost","_attachments":{"f":{"length":1}}}"#);
    let digest = format!(r#"{{"isbn":"hash","_attachments":{{"f":{{"digest":"{hash}"}}}}}}"#);
    write("hash/document.json", &digest);
    write("hash/attachments/f", "x");
    write("slash/document.json", r#"{"isbn":"slash","_attachments":{"../f":{"length":1}}}"#);
    write("slash/f", "x");
    write("orphan/attachments/f", "x");
    write("stray.txt", "x");
    write("plain/attachments/stray.txt", "x");
    fs::create_dir_all(tree.join("begun/deeper")).unwrap();
    symlink(tree.join("plain"), tree.join("linked")).unwrap();
    fs::create_dir(tree.join("body")).unwrap();
    symlink(tree.join("plain/document.json"), tree.join("body/document.json")).unwrap();
    let found = problems(&tree, 1);
    let wrong = [
        ("begun/deeper/document.json", "missing"),
        ("body/document.json", "altered"),
        ("dead/document.json", "altered"),
        ("hash/attachments/f", "altered"),
        ("linked", "extra"),
        ("lost/attachments/f", "missing"),
        ("nojson/document.json", "altered"),
        ("orphan/document.json", "missing"),
        ("plain/attachments/stray.txt", "extra"),
        ("renamed/document.json", "altered"),
        ("slash/attachments/%2E.%2Ff", "missing"),
        ("slash/f", "extra"),
        ("stray.txt", "extra"),
        ("torn/document.json", "half-written"),
    ];
    assert_eq!(found, wrong.map(|(path, kind)| (path.to_owned(), kind.to_owned())).into());
    let (failed, ids) = restored(&tree);
    // A document whose attachments are not there, or not right, is named by its folder.
    let whole = |path: &str| ["hash", "lost", "slash"].contains(&path.split('/').next().unwrap());
    let in_attachments = |path: &str| path.contains("/attachments/");
    let mut named: Vec<_> = wrong.iter().map(|(path, _)| *path).collect();
    for path in named.iter_mut().filter(|path| whole(path) && in_attachments(path)) {
        *path = path.split('/').next().unwrap();
    }
    named.sort_unstable();
    assert_eq!(failed, named);
    assert_eq!(ids, expected(&sound(&Place::new()), "isbn").into_keys().collect::<Vec<_>>());
}

#[test]
fn a_backup_whose_own_file_is_damaged_is_read_nonetheless() {
    let place = Place::new();
    let tree = sound(&place);
    fs::write(tree.join("backup_meta.json"), r#"{"createdAt":1,"coll"#).unwrap();
    // The folder of a collection looks the same as the folder of an unfinished document.
    let found: Vec<_> = problems(&tree, 1).into_keys().collect();
    assert_eq!(found, ["backup_meta.json", "shelf/document.json"]);
    let (failed, ids) = restored(&tree);
    assert_eq!((failed, ids.len()), (found, 10));
}

#[test]
fn a_directory_that_is_neither_is_refused_and_a_backup_is_not_mirrored_into() {
    let place = Place::new();
    fs::create_dir(place.join("photos")).unwrap();
    for command in [&["verify"][..], &["restore", "feed:-"]] {
        let refused = run(command[0], &place.join("photos"), &command[1..]).assert_code(5);
        for known in [".plainfold/format.json", "backup_meta.json"] {
            assert!(refused.stderr.contains(known), "{refused}");
        }
    }
    let tree = recorded(&place, "one");
    let feed = place.join("feed.ndjson");
    fs::write(&feed, "").unwrap();
    assert_nothing_written(&tree, || {
        plainfold::mirror(&format!("feed:{}", feed.display()), &tree).assert_code(5)
    });
    assert!(!tree.join(".plainfold").exists());
}
