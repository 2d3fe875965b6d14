//! Restoring a mirror: into a real server and into a feed, compared by the oracle; interrupted, over
//! other documents, through a server that fails, and from a damaged tree.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::door::{Door, Reply, say};
use crate::env::feed::FeedFile;
use crate::env::plainfold::{Outcome, Stream};
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Proxy};
use crate::env::{Place, library, oracle, plainfold};

pub fn restore(mirror: &Path, target: &str, more: &[&str]) -> Outcome {
    let mut arguments: Vec<OsString> = vec!["restore".into(), mirror.into(), target.into()];
    arguments.extend(more.iter().map(Into::into));
    plainfold::run(arguments)
}

pub fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

/// Every file beneath a mirror but Plainfold's own, by path.
fn files(mirror: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let ours = mirror.join(".plainfold");
    let walk = walkdir::WalkDir::new(mirror).into_iter();
    let walk = walk.filter_entry(|entry| entry.path() != ours).map(Result::unwrap);
    let path = |path: &Path| path.strip_prefix(mirror).unwrap().to_owned();
    walk.filter(|entry| entry.file_type().is_file())
        .map(|entry| (path(entry.path()), fs::read(entry.path()).unwrap()))
        .collect()
}

#[track_caller]
fn assert_same_trees(left: &Path, right: &Path) {
    let (left, right) = (files(left), files(right));
    assert_same_files(&left, &right);
}

/// The same, except for the order of members in stubs, which differs between sources.
#[track_caller]
fn assert_same_trees_but_for_stubs(left: &Path, right: &Path) {
    let normal = |(path, bytes): (PathBuf, Vec<u8>)| match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut body) if path.ends_with("document.json") => {
            let attachments = body["_attachments"].take().to_string();
            let rest: Value = serde_json::from_slice(&bytes).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            let rest = match rest.get("_attachments") {
                Some(_) => text.split("\"_attachments\":").next().unwrap().to_owned(),
                None => text,
            };
            (path, (attachments + &rest).into_bytes())
        }
        _ => (path, bytes),
    };
    // A feed has no security objects.
    let documents = |(path, _): &(PathBuf, Vec<u8>)| !path.ends_with("_security.json");
    let normal = |mirror| files(mirror).into_iter().filter(documents).map(normal).collect();
    assert_same_files(&normal(left), &normal(right));
}

#[track_caller]
fn assert_same_files(left: &BTreeMap<PathBuf, Vec<u8>>, right: &BTreeMap<PathBuf, Vec<u8>>) {
    let differing: Vec<_> = left
        .keys()
        .chain(right.keys())
        .filter(|path| left.get(*path) != right.get(*path))
        .collect();
    assert!(left.len() > 10, "only {} files", left.len());
    assert!(differing.is_empty(), "these differ: {differing:?}");
}

/// A server with documents of all kinds that it keeps exactly, and its mirror.
fn mirrored(place: &Place) -> (PouchServer, PathBuf) {
    let server = PouchServer::start();
    server.create_db("shelf");
    for number in 0..120 {
        let id = format!("book/{number:03}: ж\u{2028}\"%~");
        let body = json!({"title": format!("Volume {number}"), "n": number, "x": [1.5, null]});
        let rev = server.put_doc("shelf", &id, &body);
        if number % 3 == 0 {
            server.put_over(Some(&rev), "shelf", &id, &json!({"title": "revised"}));
        }
        // In the document's newest revision: this server says of all attachments that it is given
        // inline that they came with the revision. CouchDB keeps their `revpos`.
        if number % 10 == 0 {
            let attachments: [(&str, &str, &[u8]); 2] =
                [("a b/ж 1.txt", "text/plain", b"a page\n"), ("empty", "x/y", b"")];
            server.put_with_attachments("shelf", &id, &body, &attachments);
        }
    }
    let large: Vec<u8> = (0..1_500_001_u64).map(|n| ((n * 7919) >> 3) as u8).collect();
    let attachments: [(&str, &str, &[u8]); 2] =
        [("plan.bin", "application/octet-stream", &large), ("small.txt", "text/plain", b"small")];
    server.put_with_attachments("shelf", "large", &json!({}), &attachments);
    server.put_doc(
        "shelf",
        "_design/by",
        &json!({"views": {"t": {"map": "function(d){emit(d.title)}"}}}),
    );
    let mirror = place.mirror();
    plainfold::mirror(&format!("{}/shelf", server.url()), &mirror).assert_code(0);
    (server, mirror)
}

fn assert_restored(server: &PouchServer, db: &str, mirror: &Path) {
    oracle::assert_equals_server(&format!("{}/{db}", server.url()), mirror, "shelf");
}

/// A body as a server written in JavaScript keeps it: `1.0` is 1 there. Of attachments it computes
/// digest and length itself. What it does not keep at all is compared through feeds.
fn as_in_javascript(mut value: Value) -> Value {
    match &mut value {
        Value::Number(number) => return json!(number.as_f64()),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| *item = as_in_javascript(item.take()));
        }
        Value::Object(members) => {
            for (key, member) in members.iter_mut() {
                *member = as_in_javascript(member.take());
                if key == "_attachments" {
                    let stubs = member.as_object_mut().unwrap().values_mut();
                    stubs.for_each(|stub| *stub = json!([stub["content_type"], stub["length"]]));
                }
            }
        }
        _ => {}
    }
    value
}

/// An answer of this status and nothing else.
pub fn answer(status: &str) -> Fault {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    Fault::Answer(text.into_bytes())
}

pub fn requests(proxy: &Proxy, part: &str) -> usize {
    proxy.take_requests().iter().filter(|line| line.contains(part)).count()
}

#[test]
fn what_is_put_back_equals_the_mirror_and_mirrors_again_to_the_same_tree() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place);
    let target = PouchServer::start();
    let outcome = restore(&mirror, &target.url(), &["--format", "json"]).assert_code(0);
    assert_eq!(report(&outcome)["collections"][0]["create"], 122, "{outcome}");
    assert_restored(&target, "shelf", &mirror);
    let again = place.join("again");
    plainfold::mirror(&format!("{}/shelf", target.url()), &again).assert_code(0);
    assert_same_trees_but_for_stubs(&mirror, &again);
}

#[test]
fn the_library_is_put_back_into_a_feed_byte_for_byte() {
    let place = Place::new();
    let mirror = place.mirror();
    plainfold::mirror(&format!("feed:{}", library().display()), &mirror).assert_code(0);
    let feed = place.join("back.ndjson");
    let target = format!("feed:{}", feed.display());
    restore(&mirror, &target, &[]).assert_code(0);
    let again = place.join("again");
    plainfold::mirror(&target, &again).assert_code(0);
    assert_same_trees(&mirror, &again);
    oracle::assert_equals_feed(&library(), &again);
    let piped = restore(&mirror, "feed:-", &[]).assert_code(0);
    assert_eq!(piped.stdout.trim_end(), fs::read_to_string(&feed).unwrap().trim_end());
    let refused = restore(&mirror, &target, &[]).assert_code(2);
    assert!(refused.stderr.contains("--on-existing overwrite"), "{refused}");
}

#[test]
fn a_large_attachment_goes_through_a_feed_unchanged() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place);
    let target = format!("feed:{}", place.join("back.ndjson").display());
    restore(&mirror, &target, &[]).assert_code(0);
    let again = place.join("again");
    plainfold::mirror(&target, &again).assert_code(0);
    assert_same_trees_but_for_stubs(&mirror, &again);
}

#[test]
fn the_library_is_put_back_into_a_server_as_far_as_javascript_can_hold_it() {
    let place = Place::new();
    let mirror = place.mirror();
    plainfold::mirror(&format!("feed:{}", library().display()), &mirror).assert_code(0);
    let target = PouchServer::start();
    let options = ["--collections", "loans,members"];
    restore(&mirror, &target.url(), &options).assert_code(0);
    for db in ["loans", "members"] {
        let rows = target.request("GET", &format!("/{db}/_all_docs?include_docs=true"), b"");
        let rows = rows.assert_ok().json();
        let held = rows["rows"].as_array().unwrap().iter();
        let held: BTreeMap<_, _> =
            held.map(|row| (row["id"].to_string(), as_in_javascript(row["doc"].clone()))).collect();
        let kept = fs::read_dir(mirror.join(db)).unwrap().map(|entry| {
            let body = fs::read(entry.unwrap().path().join("document.json")).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            (body["_id"].to_string(), as_in_javascript(body))
        });
        assert_eq!(held, kept.collect(), "{db}");
    }
    // The books have a case 99 with numbers and ids that JavaScript does not keep. Whatever this
    // server refuses is named, and everything else is there.
    let books = restore(&mirror, &target.url(), &["--collections", "books", "--format", "json"]);
    let report = report(&books);
    let created = report["collections"][0]["create"].as_u64().unwrap();
    let failed = report["failed"].as_u64().unwrap();
    let documents = fs::read_dir(mirror.join("books")).unwrap().count() as u64;
    assert_eq!(created + failed, documents, "{books}");
    assert!(created > documents - 20, "{books}");
    let answer = target.request("GET", "/books", b"").assert_ok().json();
    assert_eq!(answer["doc_count"].as_u64(), Some(created));
}

#[test]
fn a_signal_ends_a_restore_after_the_batches_in_hand_and_another_run_goes_on() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    // Each takes a batch of its own.
    let filler = "-".repeat(1_500_000);
    for number in 0..12 {
        feed.put(&format!("{number:02}"), json!({"filler": filler}), &[]);
    }
    let mirror = place.mirror();
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let fired = proxy.inject("_bulk_docs", Fault::StallAfter(0), 1);
    let url = target.url_through(proxy.address());
    let arguments = ["restore".as_ref(), mirror.as_os_str(), url.as_ref()];
    let mut running = plainfold::spawn(arguments);
    fired.wait();
    running.terminate();
    running.wait_for_line(Stream::Stderr, |line| line.contains("stopping"));
    // The batch in flight is sent again.
    proxy.cut_all();
    let outcome = running.wait().assert_code(130);
    assert_eq!(fired.times(), 1);
    assert!(
        outcome.stdout.contains("interrupted: the next run restores what the target lacks"),
        "{outcome}"
    );
    let put_back = fs::read_dir(mirror.join("shelf")).unwrap().count();
    let held = || target.request("GET", "/shelf", b"").assert_ok().json()["doc_count"].clone();
    let first = held().as_u64().unwrap();
    assert!((1..put_back as u64).contains(&first), "{first} of {put_back}: {outcome}");
    let second = report(&restore(&mirror, &url, &["--format", "json"]).assert_code(0));
    assert_eq!(second["collections"][0]["skip"], first);
    assert_eq!(second["interrupted"], false);
    assert_eq!(held(), put_back);
}

#[test]
fn bars_are_drawn_where_they_are_wanted() {
    let place = Place::new();
    let mirror = place.mirror();
    plainfold::mirror(&format!("feed:{}", library().display()), &mirror).assert_code(0);
    let target = format!("feed:{}", place.join("back.ndjson").display());
    let drawn = restore(&mirror, &target, &["--progress", "always"]).assert_code(0);
    assert!(drawn.stderr.contains("restored") && drawn.stderr.contains("80 documents"), "{drawn}");
    let options = ["--progress", "never", "--on-existing", "overwrite"];
    let silent = restore(&mirror, &target, &options).assert_code(0);
    assert!(!silent.stderr.contains("documents"), "{silent}");
}

#[test]
fn an_interrupted_restore_run_again_ends_equal_and_then_writes_nothing() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    // The first write is done by the server, and its answer never comes.
    let fired = proxy.inject("_bulk_docs", Fault::StallAfter(0), 1);
    let url = target.url_through(proxy.address());
    let mut running = plainfold::spawn(["restore".as_ref(), mirror.as_os_str(), url.as_ref()]);
    proxy.wait_for_request("_bulk_docs");
    let begun = std::time::Instant::now();
    while fired.times() == 0 && begun.elapsed() < crate::env::DEADLINE {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.kill();
    assert!(running.wait().was_killed());
    assert_eq!(fired.times(), 1);
    restore(&mirror, &target.url(), &[]).assert_code(0);
    assert_restored(&target, "shelf", &mirror);
    proxy.take_requests();
    let third = restore(&mirror, &url, &["--format", "json"]).assert_code(0);
    assert_eq!(report(&third)["collections"][0]["skip"], 122, "{third}");
    assert_eq!(requests(&proxy, "_bulk_docs"), 0);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let url = target.url_through(proxy.address());
    let outcome = restore(&mirror, &url, &["--dry-run", "--format", "json"]).assert_code(0);
    let report = report(&outcome);
    assert_eq!(report["collections"][0]["create"], 122, "{outcome}");
    assert!(report["collections"][0]["bytes"].as_u64().unwrap() > 1_500_000, "{outcome}");
    let asked = proxy.take_requests();
    assert!(asked.iter().all(|line| line.starts_with("GET ")), "{asked:?}");
    assert_eq!(target.request("GET", "/shelf", b"").status, 404);
    let feed = format!("feed:{}", place.join("never.ndjson").display());
    restore(&mirror, &feed, &["--dry-run"]).assert_code(0);
    assert!(!place.join("never.ndjson").exists() && !place.join("never.ndjson.part").exists());
}

#[test]
fn a_collection_gets_another_name_and_ids_are_chosen() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place);
    let target = PouchServer::start();
    restore(&mirror, &format!("{}/other", target.url()), &[]).assert_code(0);
    assert_restored(&target, "other", &mirror);
    restore(&mirror, &target.url(), &["--as", "shelf=third", "--ids", "book/00*"]).assert_code(0);
    let third = target.request("GET", "/third", b"").assert_ok().json();
    assert_eq!(third["doc_count"], 10);
    let wrong = restore(&mirror, &target.url(), &["--as", "nothing=third"]).assert_code(2);
    assert!(wrong.stderr.contains("`nothing`"), "{wrong}");
    restore(&mirror, &target.url(), &["--collections", "nothing"]).assert_code(2);
}

/// A target that holds: ours as it is, a later revision of ours, a foreign branch of ours that is
/// higher, one that is lower, three at once, a deletion of ours, and a document that the mirror does not know.
fn crowded(mirror: &Path) -> PouchServer {
    let target = PouchServer::start();
    restore(mirror, &target.url(), &["--ids", "{same,later,gone}"]).assert_code(0);
    target.put_doc("shelf", "later", &json!({"v": "later"}));
    target.delete_doc("shelf", "gone");
    let rev = target.put_doc("shelf", "higher", &json!({"v": "theirs 1"}));
    let rev = target.put_over(Some(&rev), "shelf", "higher", &json!({"v": "theirs 2"}));
    target.put_over(Some(&rev), "shelf", "higher", &json!({"v": "theirs 3"}));
    target.put_doc("shelf", "lower", &json!({"v": "theirs"}));
    target.put_doc("shelf", "unknown", &json!({"v": "theirs"}));
    let branch = |rev: &str| json!({"_id": "branched", "_rev": rev, "v": "theirs"});
    let branches = [branch("4-a"), branch("5-b"), branch("6-c")];
    let docs = json!({"new_edits": false, "docs": branches});
    target.request("POST", "/shelf/_bulk_docs", docs.to_string().as_bytes()).assert_ok();
    target
}

fn small_mirror(place: &Place) -> PathBuf {
    let source = PouchServer::start();
    source.create_db("shelf");
    for id in ["same", "later", "gone", "higher", "new", "branched"] {
        source.put_doc("shelf", id, &json!({"v": "ours"}));
    }
    for v in ["first", "ours"] {
        source.put_doc("shelf", "lower", &json!({"v": v}));
    }
    plainfold::mirror(&format!("{}/shelf", source.url()), &place.mirror()).assert_code(0);
    place.mirror()
}

fn values(server: &PouchServer) -> BTreeMap<String, String> {
    let answer = server.request("GET", "/shelf/_all_docs?include_docs=true", b"");
    let answer = answer.assert_ok().json();
    let rows = answer["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        (row["id"].as_str().unwrap().to_owned(), row["doc"]["v"].as_str().unwrap().to_owned())
    })
    .collect()
}

#[test]
fn a_database_that_the_target_does_not_create_is_a_collection_that_failed() {
    let place = Place::new();
    let mirror = small_mirror(&place);
    let name = fs::read_dir(&mirror).unwrap().map(|one| one.unwrap().file_name());
    let mut names =
        name.map(|name| name.into_string().unwrap()).filter(|name| !name.starts_with('.'));
    let name = names.next().unwrap();
    let illegal = r#"{"error":"illegal_database_name","reason":"Name: 'Copy'."}"#;
    let server = Door::start(&[], move |asked| match asked.line.split('?').next() {
        Some("GET /Copy") => say("404 Object Not Found", r#"{"error":"not_found","reason":"no"}"#),
        Some("PUT /Copy") => say("400 Bad Request", illegal),
        _ => Reply::Honest,
    });
    let renamed = format!("{name}=Copy");
    let said = restore(&mirror, &server.url("", ""), &["--as", &renamed]).assert_code(1).stdout;
    assert!(said.contains("the whole collection") && said.contains("lower case: `copy`"), "{said}");
    assert!(!said.contains("document failed"), "{said}");
}

#[test]
fn other_documents_at_the_target_are_refused_kept_or_overwritten() {
    let place = Place::new();
    let mirror = small_mirror(&place);
    let target = crowded(&mirror);
    let before = values(&target);
    let refused = restore(&mirror, &target.url(), &[]).assert_code(2);
    assert!(refused.stderr.contains("--on-existing"), "{refused}");
    assert_eq!(values(&target), before);

    let skip = ["--on-existing", "skip", "--format", "json"];
    let skipped = report(&restore(&mirror, &target.url(), &skip).assert_code(0));
    let counts = |report: &Value| {
        let one = &report["collections"][0];
        ["create", "replace", "skip", "deleted_there"].map(|count| one[count].as_u64().unwrap())
    };
    assert_eq!(counts(&skipped), [1, 0, 5, 1]);
    let mut expected = before;
    expected.insert("new".to_owned(), "ours".to_owned());
    assert_eq!(values(&target), expected);

    let overwrite = ["--on-existing", "overwrite", "--format", "json"];
    let written = report(&restore(&mirror, &target.url(), &overwrite).assert_code(0));
    assert_eq!(counts(&written), [0, 5, 2, 0]);
    for (id, value) in values(&target) {
        assert_eq!(value, if id == "unknown" { "theirs" } else { "ours" }, "{id}");
    }
    for id in ["higher", "lower", "same", "branched"] {
        let url = format!("/shelf/{id}?conflicts=true");
        let conflicts = target.request("GET", &url, b"").assert_ok().json()["_conflicts"].take();
        assert!(conflicts.is_null(), "{id}: {conflicts}");
        let body = fs::read_to_string(mirror.join("shelf").join(id).join("document.json")).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(target.rev("shelf", id).as_deref(), body["_rev"].as_str(), "{id}");
    }
    let again = report(&restore(&mirror, &target.url(), &overwrite).assert_code(0));
    assert_eq!(counts(&again), [0, 0, 7, 0]);
}

#[test]
fn a_batch_that_is_too_large_for_the_server_is_halved() {
    let place = Place::new();
    let mirror = small_mirror(&place);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    // Seven documents, three, one of which is refused; the other halves are taken.
    let large = proxy.inject("_bulk_docs", answer("413 Payload Too Large"), 3);
    let url = target.url_through(proxy.address());
    let outcome = restore(&mirror, &url, &["--format", "json"]).assert_code(1);
    assert_eq!(large.times(), 3);
    let report = report(&outcome);
    assert_eq!(report["failed"], 1, "{outcome}");
    assert!(report["failures"][0]["reason"].as_str().unwrap().contains("413"), "{outcome}");
    assert_eq!(requests(&proxy, "_bulk_docs"), 5);
    restore(&mirror, &url, &[]).assert_code(0);
    assert_restored(&target, "shelf", &mirror);
}

#[test]
fn a_server_that_breaks_is_waited_for() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let broken = proxy.inject("_bulk_docs", answer("500 Internal Server Error"), 1);
    let busy = proxy.inject("_bulk_docs", answer("429 Too Many Requests"), 1);
    let cut = proxy.inject("_bulk_docs", Fault::CutAfter(0), 1);
    restore(&mirror, &target.url_through(proxy.address()), &[]).assert_code(0);
    for fired in [broken, busy, cut] {
        assert_eq!(fired.times(), 1);
    }
    assert_restored(&target, "shelf", &mirror);
}

#[test]
fn a_document_that_the_server_never_takes_is_named_and_the_others_are_there() {
    let place = Place::new();
    let mirror = small_mirror(&place);
    let target = PouchServer::start();
    // A member that begins with `_` and that no server knows.
    let path = mirror.join("shelf/new/document.json");
    let body = fs::read_to_string(&path).unwrap().replace("\"v\"", "\"_nonsense\"");
    // A new file, as an editor makes it: the checksum beside the old one is gone with it.
    fs::remove_file(&path).unwrap();
    fs::write(&path, body).unwrap();
    fs::remove_dir_all(mirror.join(".plainfold/inventory")).unwrap();
    let outcome = restore(&mirror, &target.url(), &["--accept-unchecked"]).assert_code(1);
    assert!(outcome.stdout.contains("not restored: shelf/new: "), "{outcome}");
    assert!(outcome.stdout.contains("_nonsense"), "{outcome}");
    assert_eq!(values(&target).len(), 6);
}

/// Whether the file system keeps the checksum of what was written beside it.
fn keeps_checksums(path: &Path) -> bool {
    let listed = rustix::fs::getxattr(path, "user.plainfold.b3", &mut [0_u8; 32][..]);
    listed == Ok(32)
}

#[test]
fn everything_wrong_in_a_tree_is_named_and_the_rest_is_put_back() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place);
    let shelf = mirror.join("shelf");
    let names: Vec<_> = fs::read_dir(&shelf)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("book"))
        .collect();
    let with = |attached: bool| {
        let mut named: Vec<_> =
            names.iter().filter(|path| path.join("attachments").exists() == attached).collect();
        named.sort();
        named.into_iter()
    };
    let (mut plain, mut attached) = (with(false), with(true));
    let mut spoilt = Vec::new();
    let mut spoil = |path: PathBuf, change: &dyn Fn(&Path)| {
        change(&path);
        spoilt.push(path.strip_prefix(&mirror).unwrap().to_str().unwrap().to_owned());
    };
    let body = |path: &Path| path.join("document.json");
    spoil(plain.next().unwrap().clone(), &|path| {
        fs::write(body(path), "{\"_id\": nonsense\n").unwrap()
    });
    spoil(plain.next().unwrap().clone(), &|path| fs::write(body(path), "{\"_id\":").unwrap());
    spoil(plain.next().unwrap().clone(), &|path| {
        fs::write(body(path), "{\"_id\":\"another\",\"_rev\":\"1-a\"}\n").unwrap();
    });
    spoil(plain.next().unwrap().clone(), &|path| fs::remove_file(body(path)).unwrap());
    spoil(attached.next().unwrap().clone(), &|path| {
        fs::remove_file(path.join("attachments/empty")).unwrap();
    });
    spoil(attached.next().unwrap().clone(), &|path| {
        fs::write(path.join("attachments/empty"), "too long").unwrap();
    });
    // Rot: of the same length, and JSON as before. Checksums tell, on file systems that keep them.
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    };
    if keeps_checksums(&body(&names[0])) {
        spoil(plain.next().unwrap().clone(), &|path| {
            let text = fs::read_to_string(body(path)).unwrap();
            fs::write(body(path), text.replacen('a', "b", 1)).unwrap();
        });
        spoil(attached.next().unwrap().clone(), &|path| {
            let file = |entry: &fs::DirEntry| entry.metadata().unwrap().len() > 0;
            let mut files = fs::read_dir(path.join("attachments")).unwrap().map(Result::unwrap);
            flip(&files.find(file).unwrap().path());
        });
    }
    let failed_documents = spoilt.len();
    let mut spoil = |path: PathBuf, change: &dyn Fn(&Path)| {
        change(&path);
        spoilt.push(path.strip_prefix(&mirror).unwrap().to_str().unwrap().to_owned());
    };
    spoil(plain.next().unwrap().join("notes.txt"), &|path| fs::write(path, "mine").unwrap());
    spoil(attached.next().unwrap().join("attachments/extra"), &|path| fs::write(path, "").unwrap());
    spoil(shelf.join("no:name"), &|path| fs::create_dir(path).unwrap());
    spoil(shelf.join("file.txt"), &|path| fs::write(path, "mine").unwrap());
    spoil(mirror.join("beside.txt"), &|path| fs::write(path, "mine").unwrap());
    fs::create_dir(mirror.join(".git")).unwrap();

    let target = PouchServer::start();
    let outcome = restore(&mirror, &target.url(), &["--format", "json"]).assert_code(1);
    let report = report(&outcome);
    assert_eq!(report["failed"].as_u64(), Some(spoilt.len() as u64), "{outcome}");
    for path in spoilt {
        let failures = report["failures"].as_array().unwrap();
        let named = |one: &Value| one["path"].as_str().unwrap().starts_with(&path);
        assert_eq!(failures.iter().filter(|one| named(one)).count(), 1, "{path}: {outcome}");
    }
    let held = target.request("GET", "/shelf", b"").assert_ok().json();
    assert_eq!(held["doc_count"].as_u64(), Some(122 - failed_documents as u64));
}

#[test]
fn documents_of_a_mirror_without_attachments_are_named() {
    let place = Place::new();
    let (source, _) = mirrored(&place);
    let bare = place.join("bare");
    let url = format!("{}/shelf", source.url());
    plainfold::run(["mirror", &url, bare.to_str().unwrap(), "--attachments", "false"])
        .assert_code(0);
    let target = PouchServer::start();
    let outcome = restore(&bare, &target.url(), &["--format", "json"]).assert_code(1);
    assert_eq!(report(&outcome)["failed"], 13, "{outcome}");
    assert_eq!(report(&outcome)["collections"][0]["create"], 109, "{outcome}");
}

#[test]
fn each_way_to_fail_has_its_exit_code() {
    let place = Place::new();
    let mirror = small_mirror(&place);
    restore(&place.join("nowhere"), "http://127.0.0.1:1", &[]).assert_code(5);
    restore(&mirror, "nonsense", &[]).assert_code(2);
    let closed = PouchServer::start_with_admin("root", "hunter2");
    closed.create_db("shelf");
    closed.close_db("shelf");
    let url = format!("http://root@{}", closed.address());
    let password = place.join("password");
    fs::write(&password, "wrong-one\n").unwrap();
    let file = ["--password-file", password.to_str().unwrap()];
    let refused = restore(&mirror, &url, &file).assert_code(4);
    assert!(!refused.stderr.contains("wrong-one"), "{refused}");
    fs::write(&password, "hunter2\n").unwrap();
    // The database lets in other people than the mirror's.
    let refused = restore(&mirror, &url, &file).assert_code(2);
    assert!(refused.stderr.contains("security object"), "{refused}");
    let skip = ["--on-existing", "skip"];
    restore(&mirror, &url, &[&file[..], &skip].concat()).assert_code(0);
}

#[test]
fn ids_that_a_partitioned_database_does_not_take_are_named_and_the_others_are_compared() {
    let place = Place::new();
    let source = PouchServer::start();
    source.create_db("shelf");
    for id in ["a:b", "a:c", "plain"] {
        source.put_doc("shelf", id, &json!({"n": 1}));
    }
    plainfold::mirror(&format!("{}/shelf", source.url()), &place.mirror()).assert_code(0);
    let target = PouchServer::start();
    restore(&place.mirror(), &target.url(), &["--ids", "a:b"]).assert_code(0);
    let proxy = Proxy::start(target.address());
    let url = target.url_through(proxy.address());
    let said = r#"{"error":"illegal_docid","reason":"Doc id must be of form partition:id"}"#;
    let head = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n";
    let text = format!("{head}Content-Length: {}\r\n\r\n{said}", said.len());
    for more in [&["--dry-run"][..], &["--on-existing", "skip"], &[]] {
        let refused = Fault::Answer(text.clone().into_bytes());
        let fired = proxy.inject("POST /shelf/_all_docs", refused, 1);
        let outcome = restore(&place.mirror(), &url, more).assert_code(1);
        assert_eq!(fired.times(), 1);
        assert!(outcome.stdout.contains("shelf/plain: the target database is"), "{outcome}");
        assert_eq!(target.rev("shelf", "plain"), None);
    }
    assert!(target.rev("shelf", "a:c").is_some());
}
