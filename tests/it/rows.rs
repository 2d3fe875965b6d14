//! One row never ends the feed: a row that is too large or cannot be read is reported, and the rows
//! after it arrive.

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::env::hostile::{Hostile, Talk};
use crate::env::plainfold::Stream;
use crate::env::{Place, plainfold};

/// The memory limit of a run, in KiB.
const MOST_MEMORY: u64 = 256 << 10;

const LOOKUP: &str = "/_all_docs?include_docs=true";

/// Sends a document of this many MiB without holding it in memory.
fn send_large(talk: &mut Talk<'_>, mib: usize) -> io::Result<()> {
    talk.raw(br#"{"_id":"huge","_rev":"2-h","text":""#)?;
    for _ in 0..mib {
        talk.raw(&vec![b'x'; 1 << 20])?;
    }
    talk.raw(br#""}"#)
}

/// Sends the row of such a document, with its place in the feed before or after it.
fn send_row(talk: &mut Talk<'_>, mib: usize, seq_first: bool) -> io::Result<()> {
    let rest = r#""id":"huge","changes":[{"rev":"2-h"}],"doc":"#;
    let seq = r#""seq":"9-h""#;
    if seq_first {
        talk.raw(format!("{{{seq},{rest}").as_bytes())?;
        send_large(talk, mib)?;
        talk.raw(b"}")
    } else {
        talk.raw(format!("{{{rest}").as_bytes())?;
        send_large(talk, mib)?;
        talk.raw(format!(",{seq}}}").as_bytes())
    }
}

/// Has the server say nothing of how many documents it holds.
fn count_nothing(server: &Hostile) {
    server.lie(
        "GET /shelf HTTP",
        Arc::new(|talk| {
            let mut database = talk.database();
            let members = database.as_object_mut().unwrap();
            members.retain(|key, _| !key.starts_with("doc_"));
            talk.answer("200 OK", "", database.to_string().as_bytes())
        }),
    );
}

/// A server whose feed begins with a document of this many MiB, and that sends it when it is
/// requested.
fn with_large(mib: usize, seq_first: bool) -> Hostile {
    let server = Hostile::start();
    count_nothing(&server);
    server.lie(
        "/_changes",
        Arc::new(move |talk| {
            let rest = talk.feed(talk.query(), &[]);
            talk.begin()?;
            talk.raw(b"{\"results\":[\n")?;
            send_row(talk, mib, seq_first)?;
            talk.raw(rest.replacen("{\"results\":[", ",", 1).as_bytes())
        }),
    );
    server.lie(
        LOOKUP,
        Arc::new(move |talk| {
            talk.begin()?;
            talk.raw(br#"{"rows":[{"key":"huge","id":"huge","value":{"rev":"2-h"},"doc":"#)?;
            send_large(talk, mib)?;
            talk.raw(b"}]}")
        }),
    );
    server.lie(
        "/_all_docs",
        Arc::new(|talk| {
            let row = json!({"key": "huge", "id": "huge", "value": {"rev": "2-h"}});
            talk.answer("200 OK", "", json!({"rows": [row]}).to_string().as_bytes())
        }),
    );
    server
}

#[test]
fn a_document_beyond_all_limits_is_named_and_the_others_arrive() {
    for seq_first in [true, false] {
        let (place, server) = (Place::new(), with_large(200, seq_first));
        let mirror = place.mirror();
        let path = mirror.to_str().unwrap();
        let (outcome, peak) =
            plainfold::run_measured(place.path(), &["mirror", &server.shelf(), path]);
        let outcome = outcome.assert_code(1);
        assert!(peak < MOST_MEMORY, "it took {peak} KiB");
        let said = &outcome.stderr;
        for words in ["`huge`", "its row in the feed is 200 MiB", "larger than the 128 MiB"] {
            assert!(said.contains(words), "{outcome}");
        }
        let failed = &plainfold::status(&mirror)["collections"][0]["failed"];
        assert_eq!(failed.as_array().unwrap().len(), 1, "{failed}");
        assert_eq!(
            (&failed[0]["documentId"], &failed[0]["revision"]),
            (&json!("huge"), &json!("2-h"))
        );
        let downloads = |server: &Hostile| {
            let requests = server.take_requests();
            requests.iter().filter(|line| line.contains(LOOKUP)).count()
        };
        assert_eq!(downloads(&server), 1);
        assert!(server.be_honest() > 2);
        // The honest server does not know it.
        plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
        server.assert_mirrored(&mirror);
    }
}

#[test]
fn a_document_beyond_the_limit_of_rows_is_read_apart() {
    for seq_first in [true, false] {
        let (place, server) = (Place::new(), with_large(100, seq_first));
        let mirror = place.mirror();
        let path = mirror.to_str().unwrap();
        let (outcome, peak) =
            plainfold::run_measured(place.path(), &["mirror", &server.shelf(), path]);
        outcome.assert_code(0);
        assert!(peak < MOST_MEMORY, "it took {peak} KiB");
        let length = std::fs::metadata(mirror.join("shelf/huge/document.json")).unwrap().len();
        assert!(length > 100 << 20, "{length}");
        assert!(mirror.join("shelf/noted/attachments/note.txt").exists());
        server.be_honest();
    }
}

#[test]
fn a_live_mirror_gets_past_a_document_beyond_all_limits() {
    let (place, server) = (Place::new(), Hostile::start());
    server.lie(
        "feed=continuous",
        Arc::new(|talk| {
            talk.begin()?;
            send_row(talk, 65, true)?;
            let after = json!({
                "seq": "10-x", "id": "after", "changes": [{"rev": "1-a"}],
                "doc": {"_id": "after", "_rev": "1-a"},
            });
            talk.raw(format!("\n{after}\n").as_bytes())?;
            talk.hold()
        }),
    );
    // It is written meanwhile, so that it cannot be fetched at all.
    server.lie(LOOKUP, Arc::new(|talk| talk.answer("500 No", "", b"")));
    let mut running = plainfold::live(&server.shelf(), &place.mirror());
    running.wait_for_line(Stream::Stderr, |line| line.contains("its row in the feed is 65 MiB"));
    plainfold::tail(&place.mirror(), 0).wait_for_event(|event| event["documentId"] == "after");
    assert!(place.mirror().join("shelf/after/document.json").exists());
    running.terminate();
    running.wait().assert_code(0);
}

/// Rows of a document `odd` that cannot be used, with words that must be said of each.
fn odd_rows() -> Vec<(Vec<u8>, &'static str)> {
    let odd = |doc: &[u8]| {
        let head = br#"{"seq":"9-o","id":"odd","changes":[{"rev":"1-o"}],"doc":{"_id":"odd","x":"#;
        [head, doc, b"}}"].concat()
    };
    vec![
        (odd(b"NaN"), "not JSON"),
        (odd(b"\"\xff\xfe\""), "not JSON"),
        (odd(b"\"a\nb\""), "not JSON"),
        (odd(b"[1,]"), "not JSON"),
        (br#"{"seq":"9-o","id":"odd","changes":[["rev":"1-o"}],"doc":null}"#.to_vec(), "not JSON"),
        (
            br#"{"seq":"9-o","id":7,"changes":[{"rev":"1-o"}],"doc":{}}"#.to_vec(),
            "names no document",
        ),
        (
            b"{\"seq\":\"9-o\",\"id\":\"o\xff\",\"changes\":[{\"rev\":\"1-o\"}]}".to_vec(),
            "names no document",
        ),
        (br#"{}"#.to_vec(), "names no document"),
    ]
}

#[test]
fn a_row_that_cannot_be_read_is_named_and_the_others_arrive() {
    for (row, words) in odd_rows() {
        let (place, server) = (Place::new(), Hostile::start());
        let sent = row.clone();
        server.lie(
            "/_changes",
            Arc::new(move |talk| {
                let rest = talk.feed(talk.query(), &[]);
                talk.begin()?;
                talk.raw(b"{\"results\":[\n")?;
                talk.raw(&sent)?;
                talk.raw(rest.replacen("{\"results\":[", ",", 1).as_bytes())
            }),
        );
        let sent = row.clone();
        server.lie(
            LOOKUP,
            Arc::new(move |talk| {
                let head = br#"{"rows":[{"key":"odd","id":"odd","value":{"rev":"1-o"},"doc":"#;
                talk.answer("200 OK", "", &[&head[..], &sent, b"}]}"].concat())
            }),
        );
        let outcome = plainfold::mirror(&server.shelf(), &place.mirror()).assert_code(1);
        assert!(outcome.stderr.contains(words), "{outcome}");
        let named = words == "not JSON";
        assert_eq!(outcome.stderr.contains("`odd`"), named, "{outcome}");
        assert!(server.be_honest() > 0);
        server.assert_mirrored(&place.mirror());
    }
}

#[test]
fn rows_with_long_members_and_deep_ones_come_through() {
    let revisions: Vec<Value> =
        (1..200_000).rev().map(|n| json!({"rev": format!("{n}-{n:032x}")})).collect();
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let rows = [
        json!({
            "seq": "9-a", "id": "many", "changes": revisions,
            "doc": {"_id": "many", "_rev": revisions[0]["rev"]},
        })
        .to_string(),
        format!(
            r#"{{"seq":"9-b","id":"deep","changes":[{{"rev":"1-d"}}],"doc":{{"_id":"deep","_rev":"1-d","x":{deep}}}}}"#
        ),
    ];
    let id = "i".repeat(1_000_000);
    let long = json!({
        "seq": "9-c", "id": id, "changes": [{"rev": "1-l"}],
        "doc": {"_id": id, "_rev": "1-l"},
    });
    let rows: Vec<String> = rows.into_iter().chain([long.to_string()]).collect();
    let (place, server) = (Place::new(), Hostile::start());
    count_nothing(&server);
    server.lie(
        "/_changes",
        Arc::new(move |talk| {
            let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
            let feed = talk.feed(talk.query(), &rows);
            talk.answer("200 OK", "", feed.as_bytes())
        }),
    );
    plainfold::mirror(&server.shelf(), &place.mirror()).assert_code(0);
    for id in ["many", "deep", "plain", "noted"] {
        assert!(place.mirror().join("shelf").join(id).join("document.json").exists(), "{id}");
    }
    let folders = std::fs::read_dir(place.mirror().join("shelf")).unwrap();
    // With the security object.
    assert_eq!(folders.count(), 6);
    assert!(server.be_honest() > 0);
}

#[test]
fn what_belongs_to_a_server_alone_is_not_a_document() {
    let (place, server) = (Place::new(), Hostile::start());
    server.lie(
        "/_changes",
        Arc::new(|talk| {
            let local = r#"{"seq":"9-l","id":"_local/x","changes":[{"rev":"0-1"}],"doc":{"_id":"_local/x","_rev":"0-1"}}"#;
            let bare = r#"{"seq":"9-m","id":"_local/y","changes":[{"rev":"0-1"}]}"#;
            let feed = talk.feed(talk.query(), &[local, bare]);
            talk.answer("200 OK", "", feed.as_bytes())
        }),
    );
    plainfold::mirror(&server.shelf(), &place.mirror()).assert_code(0);
    assert!(server.be_honest() > 0);
    server.assert_mirrored(&place.mirror());
}
