//! Servers that fail, lie and attack: whatever they send, mirrored documents stay, memory is
//! bounded, the end is clear, and no password is printed.
//!
//! Each case mirrors an honest database first. Then a document is added, and the server lies about
//! one thing. At the end it is honest again, and the mirror must be right.

use std::io::Write;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::env::hostile::{Hostile, Say, Talk, USER};
use crate::env::plainfold::Stream;
use crate::env::tree::{Tree, Written, assert_nothing_written};
use crate::env::{Place, plainfold};

/// The memory limit of a run, in KiB, whatever a server sends.
const MOST_MEMORY: u64 = 256 << 10;

/// The limit of requests of a run while a server misbehaves.
const MOST_REQUESTS: usize = 150;

/// One misbehaviour of a server, and its expected result.
struct Case {
    name: String,
    /// A part of the request lines that are answered this way.
    request: String,
    say: Say,
    /// The exit code.
    code: i32,
    /// A part of the text on standard error.
    says: String,
    /// The exit code of the next run, with an honest server.
    after: i32,
    /// The seconds without progress after which the run gives up.
    patience: &'static str,
}

impl Case {
    /// A row without an id cannot be looked up again: it is remembered until a full scan.
    fn and_is_remembered(self) -> Self {
        Self { after: 1, ..self }
    }

    /// The server answers at once, so the run waits for nothing: only a busy machine takes time.
    fn answered_at_once(self) -> Self {
        Self { patience: "60", ..self }
    }
}

fn case(
    name: impl Into<String>,
    request: &str,
    code: i32,
    says: &str,
    say: impl Fn(&mut Talk<'_>) -> std::io::Result<()> + Send + Sync + 'static,
) -> Case {
    let (name, request, says) = (name.into(), request.to_owned(), says.to_owned());
    // What is sent without an end has its limits in bytes.
    let patience = if name.ends_with("without an end") { "30" } else { "1" };
    Case { name, request, say: Arc::new(say), code, says, after: 0, patience }
}

/// The same answer each time.
fn answers(
    name: &str,
    request: &str,
    code: i32,
    says: &str,
    body: impl AsRef<[u8]> + Send + Sync + 'static,
) -> Case {
    case(name, request, code, says, move |talk| talk.answer("200 OK", "", body.as_ref()))
}

const DATABASE: &str = "GET /shelf HTTP";
const CHANGES: &str = "/_changes";
const BULK: &str = "/_bulk_get";
const LARGE: &str = "/scan.bin";

/// Bytes for a large attachment, which is streamed.
fn scan() -> Vec<u8> {
    (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn check(case: &Case) {
    let (place, server) = (Place::new(), Hostile::start());
    let mirror = place.mirror();
    let path = mirror.to_str().unwrap();
    plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
    server.assert_mirrored(&mirror);
    server.put("new", &[("page.txt", b"a page\n")]);
    server.put("large", &[("scan.bin", &scan())]);
    server.take_requests();
    let before = Tree::of(&mirror);
    server.lie(&case.request, Arc::clone(&case.say));
    // A server's database is found by listing where that is what it lies about.
    let root = server.shelf().replace("/shelf", "");
    let source = if case.request.contains("_all_dbs") { root } else { server.shelf() };
    let arguments = ["mirror", &source, path, "--give-up-after", case.patience];
    let (outcome, peak) = plainfold::run_measured(place.path(), &arguments);
    let requests = server.take_requests();
    let status = plainfold::run(["status", path]);
    assert!(server.be_honest() > 0, "{}: nobody asked for {:?}", case.name, case.request);

    let name = &case.name;
    assert_eq!(outcome.status.code(), Some(case.code), "{name}: {outcome}");
    assert!(outcome.stderr.contains(&case.says), "{name}: {:?} is not said: {outcome}", case.says);
    assert!(!outcome.stderr.contains("panicked"), "{name}: {outcome}");
    let encoded = base64(USER);
    for said in [&outcome.stdout, &outcome.stderr, &status.stdout, &status.stderr] {
        assert!(!said.contains("hunter2") && !said.contains(&encoded), "{name}: {said}");
        assert!(said.lines().all(|line| line.len() < 2000), "{name}: {said}");
    }
    assert!(peak < MOST_MEMORY, "{name}: it took {peak} KiB");
    assert!(requests.len() < MOST_REQUESTS, "{name}: {} requests", requests.len());
    let lost = before.until(&Tree::of(&mirror)).into_iter();
    let lost: Vec<String> =
        lost.filter(|one| !matches!(one, Written::Made(_))).map(|one| one.to_string()).collect();
    let folder = "touched shelf".to_owned();
    assert!(lost.iter().all(|one| *one == folder), "{name}: {lost:?}");

    // What was lied about is put right as soon as it is not.
    let outcome = plainfold::mirror(&server.shelf(), &mirror);
    assert_eq!(outcome.status.code(), Some(case.after), "{name}, honest again: {outcome}");
    server.assert_mirrored(&mirror);
}

/// Checks cases, a few at a time: most of each is waiting.
fn check_all(cases: Vec<Case>) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    check(case);
                }
            });
        }
    });
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Gzip that unpacks to 1 GiB of zeros, and is 1 MiB long.
fn bomb() -> Vec<u8> {
    let mut member = GzEncoder::new(Vec::new(), Compression::fast());
    member.write_all(&vec![0; 16 << 20]).unwrap();
    member.finish().unwrap().repeat(64)
}

/// A feed with one more row.
fn row(name: &str, code: i32, says: &str, row: impl Into<String>) -> Case {
    let row = row.into();
    let case = case(name, CHANGES, code, says, move |talk| {
        let body = talk.feed(talk.query(), &[&row]);
        talk.answer("200 OK", "", body.as_bytes())
    });
    // A feed that cannot be read is requested again until the run gives up.
    if code == 3 { case } else { case.answered_at_once() }
}

/// What each endpoint's refusals come to, as exit codes for 401, 403, 404, 409, 429 and 500.
const REFUSALS: [(&str, [i32; 6]); 7] = [
    (DATABASE, [4, 4, 3, 3, 3, 3]),
    (CHANGES, [4, 4, 3, 3, 3, 3]),
    ("/_all_dbs", [4, 4, 3, 3, 3, 3]),
    // An unauthorised answer does not mean that it is another database.
    ("/_revs_diff", [4, 0, 0, 0, 3, 3]),
    // A server without this endpoint does not fail.
    ("/_security", [1, 1, 0, 1, 1, 1]),
    // It refuses these documents, and answers for others.
    (BULK, [1, 1, 0, 0, 1, 1]),
    (LARGE, [1, 1, 1, 1, 1, 1]),
];

fn refusals(statuses: RangeInclusive<usize>) {
    let all = [
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "409 Conflict",
        "429 Too Many Requests",
        "500 Internal Server Error",
    ];
    let mut cases = Vec::new();
    for (request, codes) in REFUSALS {
        for index in statuses.clone() {
            let (status, code) = (all[index], codes[index]);
            let says = if code == 0 { "" } else { &status[..3] };
            let says = if status.starts_with("404") && code == 3 { "" } else { says };
            cases.push(case(format!("{status} at {request}"), request, code, says, move |talk| {
                // It repeats what it was sent, as pages for developers do.
                let body = format!("Authorization: Basic {} {USER}", base64(USER));
                talk.answer(status, "Retry-After: 3600\r\n", body.as_bytes())
            }));
        }
    }
    check_all(cases);
}

#[test]
fn refused_credentials_are_the_end_where_they_matter() {
    refusals(0..=1);
}

#[test]
fn what_is_missing_or_in_conflict_is_told() {
    refusals(2..=3);
}

#[test]
fn a_server_that_asks_for_patience_gets_as_much_as_there_is() {
    refusals(4..=5);
}

#[test]
fn a_document_that_cannot_be_looked_up_is_told() {
    let row = json!({"seq": "9-x", "id": "plain", "changes": [{"rev": "1-x"}], "doc": null});
    for (status, code) in
        [("401 No", 4), ("403 No", 4), ("404 No", 3), ("409 No", 1), ("500 No", 1)]
    {
        let (place, server) = (Place::new(), Hostile::start());
        plainfold::mirror(&server.shelf(), &place.mirror()).assert_code(0);
        server.put("new", &[]);
        let row = row.to_string();
        server.lie(
            CHANGES,
            Arc::new(move |talk| {
                let body = talk.feed(talk.query(), &[&row]);
                talk.answer("200 OK", "", body.as_bytes())
            }),
        );
        server.lie("/_all_docs", Arc::new(move |talk| talk.answer(status, "", b"")));
        let mirror = place.mirror();
        let arguments = ["mirror", &server.shelf(), mirror.to_str().unwrap()];
        let arguments = [&arguments[..], &["--give-up-after", "1"]].concat();
        plainfold::run(arguments).assert_code(code);
        assert!(server.be_honest() > 1);
        plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
        server.assert_mirrored(&mirror);
    }
}

#[test]
fn an_answer_that_is_no_answer_ends_in_time() {
    let mut cases = Vec::new();
    // An attachment is tried again often, and so a few of the ways must do.
    for (request, every) in [(DATABASE, 1), (CHANGES, 1), (BULK, 5), (LARGE, 3)] {
        let code = if request == BULK || request == LARGE { 1 } else { 3 };
        // A document is given up by then, whatever it waits for.
        let silence = if code == 1 { "" } else { "no answer within 1s" };
        let named = |what: &str| format!("{what} at {request}");
        let ways = [
            case(named("silence"), request, code, silence, |talk| talk.hold()),
            case(named("a head and silence"), request, code, "", |talk| {
                talk.begin()?;
                talk.hold()
            }),
            case(named("a closed door"), request, code, "", |_| Ok(())),
            case(named("no HTTP"), request, code, "", |talk| talk.raw(b"220 ftp ready\r\n\r\n")),
            case(named("a head without an end"), request, code, "", |talk| {
                talk.raw(b"HTTP/1.1 200 OK\r\n")?;
                talk.for_ever(b"X-More: and more and more and more and more\r\n")
            }),
            case(named("a long header"), request, code, "", |talk| {
                talk.raw(b"HTTP/1.1 200 OK\r\nX-Long: ")?;
                talk.raw(&vec![b'x'; 4 << 20])?;
                talk.raw(b"\r\n\r\n{}")
            }),
            case(named("broken chunks"), request, code, "", |talk| {
                talk.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")
            }),
            case(named("less than promised"), request, code, "", |talk| {
                talk.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"results\":[")
            }),
            case(named("more than promised"), request, code, "", |talk| {
                talk.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{\"results\":[")
            }),
            case(named("two lengths"), request, code, "", |talk| {
                talk.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")
            }),
            case(named("a trickle"), request, code, "", |talk| {
                talk.begin()?;
                talk.trickle(b"{\"results\": [          ")
            }),
            case(named("no text"), request, code, "", |talk| {
                talk.answer("200 OK", "", b"\xff\xfe\x00{\"results\":[]}")
            }),
        ];
        cases.extend(ways.into_iter().step_by(every));
    }
    check_all(cases);
}

#[test]
fn a_page_that_is_no_answer_is_shown() {
    const PAGE: &str = "<!DOCTYPE html><title>Log in</title> hunter2hunter2";
    let mut cases: Vec<Case> = [(DATABASE, 3), (CHANGES, 3), ("/_all_dbs", 3)]
        .map(|(request, code)| answers("a login page", request, code, "Log in", PAGE))
        .into();
    cases.extend([
        answers("a login page", BULK, 1, "_bulk_get", PAGE),
        answers("a login page", LARGE, 1, "do not match its digest", PAGE),
        answers("a login page", "/_security", 1, "JSON object", PAGE),
        answers("a login page", "/_revs_diff", 3, "Log in", PAGE),
        answers("other JSON", DATABASE, 3, "not understood", "[]"),
        answers("other JSON", CHANGES, 3, "change feed", "[]"),
        answers("other JSON", BULK, 1, "_bulk_get", "{\"results\":{}}"),
        answers("other JSON", "/_all_dbs", 3, "not understood", "[\"shelf\",7]"),
        answers("the password", DATABASE, 3, "not understood", "{\"update_seq\":\"hunter2hunter2"),
        answers(
            "the password as a number",
            DATABASE,
            3,
            "not understood",
            "{\"update_seq\":1,\"doc_count\":\"hunter2hunter2\"}",
        ),
        answers(
            "an error in the feed",
            CHANGES,
            3,
            "the server says oops",
            "{\"results\":[{\"error\":\"oops\",\"reason\":\"hunter2hunter2 is wrong\"}]}",
        ),
        answers(
            "counts without a bound",
            DATABASE,
            1,
            "the source says that it holds 9223372036854775807 documents",
            r#"{"update_seq":"9-y","instance_start_time":"1","purge_seq":"0-x",
                "doc_count":18446744073709551615,"doc_del_count":18446744073709551615,
                "sizes":{"external":18446744073709551615}}"#,
        ),
    ]);
    check_all(cases);
}

#[test]
fn what_has_no_end_is_ended() {
    const ROW: &str = "{\"seq\":\"1-x\",\"id\":\"plain\",\"changes\":[{\"rev\":\"1-x\"}]},\n";
    check_all(vec![
        case("a row without an end", CHANGES, 3, "larger than the 64 MiB", |talk| {
            talk.begin()?;
            talk.raw(b"{\"results\":[{\"seq\":\"9-x\",\"id\":\"plain\",\"doc\":{\"x\":\"")?;
            talk.for_ever(&[b'x'; 64 << 10])
        }),
        case("brackets without an end", CHANGES, 3, "larger than the 64 MiB", |talk| {
            talk.begin()?;
            talk.raw(b"{\"results\":[{\"doc\":")?;
            talk.for_ever(&[b'['; 64 << 10])
        }),
        case("white space without an end", CHANGES, 3, "64 MiB", |talk| {
            talk.begin()?;
            talk.raw(b"{\"results\":[")?;
            talk.for_ever(&[b' '; 64 << 10])
        }),
        case("commas without an end", CHANGES, 3, "64 MiB", |talk| {
            talk.begin()?;
            talk.raw(b"{\"results\":[")?;
            talk.for_ever(&[b','; 64 << 10])
        }),
        case("the same row forever", CHANGES, 3, "repeats itself", |talk| {
            talk.begin()?;
            talk.raw(b"{\"results\":[")?;
            let row = talk.rows("").swap_remove(0).to_string() + ",\n";
            talk.for_ever(row.repeat(100).as_bytes())
        }),
        case("the same bare row forever", CHANGES, 3, "repeats itself", |talk| {
            talk.begin()?;
            talk.raw(b"{\"results\":[")?;
            talk.for_ever(ROW.replace("]}", "],\"deleted\":false,\"doc\":[]}").as_bytes())
        }),
        case("a database without an end", DATABASE, 3, "larger than", |talk| {
            talk.begin()?;
            talk.for_ever(&[b' '; 64 << 10])
        }),
        case("data without an end", BULK, 0, "", |talk| {
            talk.begin()?;
            talk.raw(b"{\"results\":[{\"id\":\"new\",\"docs\":[{\"ok\":{\"_rev\":\"")?;
            talk.for_ever(&[b'x'; 64 << 10])
        }),
        case("an attachment without an end", LARGE, 1, "more than 300000 bytes", |talk| {
            talk.begin()?;
            talk.for_ever(&[b'x'; 64 << 10])
        }),
        case("a bomb", LARGE, 1, "more than", |talk| {
            let bomb = bomb();
            talk.answer("200 OK", "Content-Encoding: gzip\r\n", &bomb)
        }),
        case("a bomb for a feed", CHANGES, 3, "`gzip`", |talk| {
            let bomb = bomb();
            talk.answer("200 OK", "Content-Encoding: gzip\r\n", &bomb)
        }),
        case("a bomb for a database", DATABASE, 3, "`gzip`", |talk| {
            let bomb = bomb();
            talk.answer("200 OK", "Content-Encoding: gzip\r\n", &bomb)
        }),
    ]);
}

#[test]
fn a_row_that_is_wrong_harms_no_other() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let doc = format!("{{\"_id\":\"deep\",\"_rev\":\"1-a\",\"x\":{open}{close}}}");
        format!(
            "{{\"seq\":\"4-x\",\"id\":\"deep\",\"changes\":[{{\"rev\":\"1-a\"}}],\"doc\":{doc}}}"
        )
    };
    let of = |doc: Value| json!({"seq": "4-x", "id": "x", "changes": [{"rev": "1-a"}], "doc": doc});
    let stubs = |stub: Value| of(json!({"_id": "x", "_rev": "1-a", "_attachments": {"f": stub}}));
    let sized = |bytes: usize| of(json!({"_id": "y", "x": "x".repeat(bytes)})).to_string();
    check_all(vec![
        row(
            "another document's body",
            1,
            "another document's, `y`",
            of(json!({"_id": "y"})).to_string(),
        ),
        row("a body that is not an object", 1, "not a JSON object", of(json!([])).to_string()),
        row("no id", 1, "names no document", json!({"seq": "4-x", "changes": []}).to_string())
            .and_is_remembered(),
        row(
            "no revision",
            1,
            "names no revision",
            json!({"seq": "4-x", "id": "x", "doc": {}}).to_string(),
        ),
        row(
            "an id that is not a string",
            1,
            "names no document",
            r#"{"seq":"4-x","id":{"a":1},"changes":[]}"#,
        )
        .and_is_remembered(),
        row(
            "stubs that are not objects",
            1,
            "`_attachments` cannot be read",
            stubs(json!([7])).to_string(),
        ),
        row(
            "a length below nothing",
            1,
            "cannot be read",
            stubs(json!({"length": -1})).to_string(),
        ),
        row(
            "a stub with the password",
            1,
            "cannot be read",
            stubs(json!("hunter2hunter2")).to_string(),
        ),
        row(
            "an attachment that is not there",
            1,
            "does not exist",
            stubs(json!({"length": 3, "digest": "md5-x"})).to_string(),
        ),
        row("a row of 63 MiB of another", 1, "another document's", sized(63 << 20)),
        row("nothing but white space", 0, "", "        "),
        row("a row that is no JSON", 1, "is not JSON", "{\"seq\" \"9-x\"}").and_is_remembered(),
        row("half of a feed's end", 3, "", "{\"last_seq\":\"1-x\"}"),
        row(
            "deeply nested, and not the document's",
            1,
            "another",
            nested(1_000_000).replacen("\"deep\"", "\"x\"", 1),
        ),
    ]);
}

#[test]
fn places_of_every_kind_are_given_back_or_not_taken() {
    let long = format!("\"{}\"", "9".repeat(100_000));
    let kinds = [
        "null",
        "7",
        "-7",
        "7.5",
        "1e400",
        "true",
        "\"\"",
        "\"\\ud800\"",
        "[1,\"x\"]",
        "{\"a\":{}}",
        &long,
    ];
    let mut cases = Vec::new();
    for kind in kinds {
        for (at, ends) in [("\"seq\":", false), ("\"last_seq\":", true)] {
            let (kind, at) = (kind.to_owned(), at.to_owned());
            let name = format!("{at}{:.40}", kind);
            let fails = ends && (kind == "null" || kind.len() > 1000);
            let code = if fails { 3 } else { 0 };
            cases.push(case(name, CHANGES, code, "", move |talk| {
                let body = talk.feed(talk.query(), &[]);
                let mut said = String::new();
                let mut rest = &body[..];
                while let Some(found) = rest.find(&at) {
                    let value = found + at.len();
                    let end = value + rest[value..].find(['}', ',']).unwrap();
                    said.push_str(&rest[..value]);
                    said.push_str(&kind);
                    rest = &rest[end..];
                }
                said.push_str(rest);
                talk.answer("200 OK", "", said.as_bytes())
            }));
        }
    }
    check_all(cases);
}

/// Two documents whose names differ in case or in how an accent is written, and a document whose
/// revision is nothing that a server makes.
#[test]
fn ids_and_revisions_that_nobody_expects_are_mirrored() {
    let (place, server) = (Place::new(), Hostile::start());
    let ids = ["Book", "book", "BOOK", "caf\u{e9}", "cafe\u{301}", "x\u{200b}", "end "];
    for id in ids {
        server.put(id, &[]);
    }
    let revisions = ["", "0", "-1", "18446744073709551616-x", "1-../..", "1-\u{0}", "9-🤷"];
    server.lie(
        CHANGES,
        Arc::new(move |talk| {
            let mut rows = Vec::new();
            for (index, revision) in revisions.iter().enumerate() {
                let id = format!("absurd {index}");
                let doc = json!({"_id": id, "_rev": revision});
                let changes = json!([{"rev": revision}]);
                let row = json!({"seq": null, "id": id, "changes": changes, "doc": doc});
                rows.push(row.to_string());
            }
            let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
            talk.answer("200 OK", "", talk.feed(talk.query(), &rows).as_bytes())
        }),
    );
    // The server does not count what its feed names.
    let run = plainfold::mirror(&server.shelf(), &place.mirror()).assert_code(1);
    assert!(run.stdout.contains("has other documents than its source counts"), "{run}");
    assert!(server.be_honest() > 0);
    for folder in ["Book", "book", "BOOK", "caf\u{e9}", "cafe\u{301}", "end%20", "absurd 6"] {
        assert!(
            place.mirror().join("shelf").join(folder).join("document.json").exists(),
            "{folder}"
        );
    }
    plainfold::run(["verify", place.mirror().to_str().unwrap()]).assert_code(0);
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let elsewhere = Hostile::start();
    let to = elsewhere.url();
    for request in [DATABASE, CHANGES, BULK, LARGE, "/_security", "/_revs_diff", "/_all_dbs"] {
        let code = match request {
            LARGE | "/_security" => 1,
            // Each is asked for singly instead, or done without.
            BULK | "/_revs_diff" => 0,
            _ => 3,
        };
        let location = format!("Location: {to}/shelf\r\n");
        let says = if code == 0 { String::new() } else { format!("redirects to {to}; give that") };
        check(&case("a redirect", request, code, &says, move |talk| {
            talk.answer("302 Found", &location, b"")
        }));
    }
    assert!(elsewhere.heads().is_empty(), "{:?}", elsewhere.heads());
}

#[test]
fn a_database_that_is_another_each_time_is_given_up_or_compared_and_loses_nothing_it_holds() {
    let times = AtomicUsize::new(0);
    check(&case("another database each time", DATABASE, 0, "created again", move |talk| {
        let time = times.fetch_add(1, Ordering::SeqCst);
        let mut said = talk.database();
        said["instance_start_time"] = time.to_string().into();
        talk.answer("200 OK", "", said.to_string().as_bytes())
    }));
}

#[test]
fn attachments_that_are_not_what_their_stubs_say_are_streamed_or_fail_alone() {
    let data = |talk: &mut Talk<'_>, length: usize| {
        let rev =
            talk.rows("").iter().find(|row| row["id"] == "new").unwrap()["doc"]["_rev"].clone();
        let data = base64(&"x".repeat(length));
        let body = json!({"_rev": rev, "_attachments": {"page.txt": {"data": data}}});
        let docs = json!({"results": [{"id": "new", "docs": [{"ok": body}]}]});
        talk.answer("200 OK", "", docs.to_string().as_bytes())
    };
    let cases = vec![
        case("more data than the stub says", BULK, 0, "", move |talk| data(talk, 3 << 20)),
        case("less data than the stub says", BULK, 0, "", move |talk| data(talk, 2)),
        answers("an empty attachment", LARGE, 1, "do not match its digest", ""),
        answers("another attachment", LARGE, 1, "do not match its digest", vec![7; 300_000]),
        answers("a longer attachment", LARGE, 1, "more than 300000 bytes", vec![7; 300_001]),
    ];
    check_all(cases.into_iter().map(Case::answered_at_once).collect());
}

#[test]
fn a_server_that_fails_for_every_attachment_is_asked_for_each_once() {
    let (place, server) = (Place::new(), Hostile::start());
    for number in 0..80 {
        server.put(&format!("book {number}"), &[("page.txt", b"a page\n")]);
    }
    let busy = |talk: &mut Talk<'_>| talk.answer("503 No", "Retry-After: 3600\r\n", b"");
    server.lie(BULK, Arc::new(busy));
    let mirror = place.mirror();
    let arguments = ["mirror", &server.shelf(), mirror.to_str().unwrap(), "--give-up-after", "1"];
    let outcome = plainfold::run(arguments).assert_code(1);
    assert!(outcome.stderr.contains("`book 79` was not mirrored"), "{outcome}");
    let requests = server.take_requests().len();
    assert!(requests < 80 + 20, "{requests} requests");
    assert!(server.be_honest() > 0);
    plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
    assert!(mirror.join("shelf/book 79/attachments/page.txt").exists());
}

#[test]
fn a_feed_that_ends_as_soon_as_it_is_followed_is_opened_ever_more_slowly() {
    let (place, server) = (Place::new(), Hostile::start());
    server.lie("feed=continuous", Arc::new(|talk| talk.begin()));
    let mirror = place.mirror();
    let (shelf, log) = (server.shelf(), ["--live", "--log-level", "debug"]);
    let mut live =
        plainfold::spawn(["mirror", &shelf, mirror.to_str().unwrap()].iter().chain(&log));
    live.wait_for_line(Stream::Stderr, |line| {
        let pause = line.split("trying again in ").nth(1);
        let seconds = pause.and_then(|pause| pause.split(' ').next()?.parse::<f32>().ok());
        seconds.is_some_and(|seconds| seconds > 2.0)
    });
    assert!(server.take_requests().len() < MOST_REQUESTS);
    server.be_honest();
    server.put("new", &[]);
    live.terminate();
    live.wait().assert_code(0);
}

/// Restores a mirror into a server that does one thing wrong.
fn check_restore(case: &Case) {
    let (place, server) = (Place::new(), Hostile::start());
    let mirror = place.mirror();
    // Large enough to be sent alone, as a stream.
    server.put("large", &[("scan.bin", &scan().repeat(6))]);
    plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
    let name = &case.name;
    if name.starts_with("early") {
        server.lie_early(&case.request, Arc::clone(&case.say));
    } else {
        server.lie(&case.request, Arc::clone(&case.say));
    }
    if case.request.contains("_all_docs") {
        server.create_other();
    }
    server.take_requests();
    let arguments = ["restore", mirror.to_str().unwrap(), &server.other()];
    let (outcome, peak) =
        assert_nothing_written(&mirror, || plainfold::run_measured(place.path(), &arguments));
    assert!(server.be_honest() > 0, "{name}: nobody asked for {:?}", case.request);
    assert_eq!(outcome.status.code(), Some(case.code), "{name}: {outcome}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains(&case.says), "{name}: {:?} is not said: {outcome}", case.says);
    assert!(!said.contains("panicked"), "{name}: {outcome}");
    assert!(!said.contains("hunter2") && !said.contains(&base64(USER)), "{name}: {said}");
    assert!(peak < MOST_MEMORY, "{name}: it took {peak} KiB");
    assert!(server.take_requests().len() < MOST_REQUESTS, "{name}");
}

#[test]
fn a_target_that_does_not_do_what_it_should_is_told_and_nothing_is_harmed() {
    let elsewhere = Hostile::start();
    let location = format!("Location: {}/other\r\n", elsewhere.url());
    let refuses = |name: &str, request: &str, code: i32, status: &'static str| {
        case(name, request, code, &status[..3], move |talk| {
            talk.answer(status, "", format!("{{\"reason\":\"{USER} is wrong\"}}").as_bytes())
        })
    };
    let told = |name: &str, code: i32, says: &str, body: &'static str| {
        case(name, "_bulk_docs", code, says, move |talk| {
            talk.answer("201 Created", "", body.as_bytes())
        })
    };
    const BULK_DOCS: &str = "POST /other/_bulk_docs";
    let cases = vec![
        refuses("a door that stays closed", "GET /other HTTP", 4, "401 Unauthorized"),
        refuses("no right to create", "PUT /other HTTP", 4, "403 Forbidden"),
        refuses("no right to write", BULK_DOCS, 4, "403 Forbidden"),
        refuses("conflicts", BULK_DOCS, 1, "409 Conflict"),
        refuses("all too large", BULK_DOCS, 1, "413 Too Large"),
        refuses("no place to write to", BULK_DOCS, 3, "404 Not Found"),
        told("an answer for others", 1, "another document", r#"[{"id":"x","error":"no"}]"#),
        told("the password", 1, "rejected it", r#"[{"error":"no","reason":"hunter2hunter2"}]"#),
        told("garbage", 1, "web page", "<html>hunter2hunter2"),
        case("a redirect", BULK_DOCS, 3, "redirects to", move |talk| {
            talk.answer("307 Temporary Redirect", &location, b"")
        }),
        case("early: the connection closed while it is written", BULK_DOCS, 1, "", |_| Ok(())),
        case("a listing that goes round", "GET /other/_all_docs", 3, "came twice", |talk| {
            talk.honest()
        }),
    ];
    std::thread::scope(|scope| {
        for case in &cases {
            scope.spawn(|| check_restore(case));
        }
    });
    assert!(elsewhere.heads().is_empty(), "{:?}", elsewhere.heads());
}
