//! Foreign text never controls a terminal: ids, names, revisions, positions, error texts and file
//! names with control characters are sent through every command and every output.
//!
//! Text shows them escaped, on the line that quotes them. JSON contains `\u` escapes, and parses to
//! the original text.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::env::hostile::{Hostile, Say, Talk};
use crate::env::plainfold::{self, Outcome, Stream};
use crate::env::{Place, feed};

/// What a terminal obeys: controls of all three kinds, line breaks of all kinds, directions, and
/// characters that cannot be seen. After each line break stands what a forged line would begin with.
const EVIL: &str = "evil\u{1b}[2J\u{1b}]0;title\u{7}\u{8}\r\nFORGED\u{9b}31m\u{9d}\u{7f}\u{85}FORGED\
    \u{2028}FORGED\u{2029}FORGED\u{b}FORGED\u{c}FORGED\t\u{202e}\u{202a}\u{2066}\u{2069}\u{200e}\u{200f}\
    \u{61c}\u{feff}\u{200b}\u{ad}\u{2060}\u{fff9}\u{e0041}";

/// How text shows its beginning.
const SHOWN: &str = r"evil\u{1b}[2J\u{1b}]0;title\u{7}\u{8}\r\nFORGED\u{9b}31m";

/// The same in JSON.
const IN_JSON: &str = r"evil\u001b[2J\u001b]0;title\u0007\b\r\nFORGED\u009b31m";

/// A write event as it would be forged.
const FORGED: &str = r#"{"event":2,"collectionName":"payroll","documentId":"forged","files":[],"deleted":true,"revision":"9-f","position":null,"at":"2026-11-26T00:00:00Z"}"#;

/// Written apart from the program's own rule: what must never be printed as it is.
fn is_evil(c: char) -> bool {
    let code = u32::from(c);
    c != '\n' && (code < 0x20 || (0x7f..0xa0).contains(&code))
        || [0x61c, 0x200b, 0x200e, 0x200f, 0x2028, 0x2029, 0xad, 0xfeff, 0x2060].contains(&code)
        || (0x202a..=0x202e).contains(&code)
        || (0x2066..=0x2069).contains(&code)
        || (0xfff9..=0xfffb).contains(&code)
        || (0xe0000..=0xe007f).contains(&code)
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    let found: Vec<char> = text.chars().filter(|c| is_evil(*c)).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
    let forged = text.lines().find(|line| line.trim_start().starts_with("FORGED"));
    assert_eq!(forged, None, "{what}: {text}");
}

/// Asserts that a command printed nothing that a terminal obeys, and that what the stranger said can
/// be read in it.
#[track_caller]
fn assert_shown(outcome: &Outcome, shown: &str) {
    assert_clean("stdout", &outcome.stdout);
    assert_clean("stderr", &outcome.stderr);
    let printed = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(printed.contains(shown), "{shown} is not shown: {outcome}");
}

/// Whether a string of a value holds what the stranger said.
fn says_evil(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(EVIL),
        Value::Array(items) => items.iter().any(says_evil),
        Value::Object(members) => members.iter().any(|(k, v)| k.contains(EVIL) || says_evil(v)),
        _ => false,
    }
}

/// Runs a command in text and in JSON.
fn run_both(arguments: &[&str], code: i32) {
    let text = plainfold::run(arguments.iter().copied().chain(["--format", "text"]));
    assert_shown(&text.assert_code(code), SHOWN);
    let json = plainfold::run(arguments.iter().copied().chain(["--format", "json"]));
    assert_shown(&json, IN_JSON);
    let json = json.assert_code(code);
    let is_lines = arguments[0] == "tail";
    let values: Vec<Value> = match is_lines {
        true => json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        false => vec![serde_json::from_str(&json.stdout).unwrap()],
    };
    assert!(values.iter().any(says_evil), "{arguments:?}: {json}");
}

/// Mirrors into a fresh mirror with each kind of log, all of it logged; the text's one is `mirror`.
fn mirror_both(source: &str, mirror: &str) {
    for (format, shape, end) in [("json", IN_JSON, "-json"), ("text", SHOWN, "")] {
        let mirror = format!("{mirror}{end}");
        let options = ["--log-format", format, "--log-level", "debug", "--give-up-after", "1"];
        let outcome = plainfold::run(["mirror", source, &mirror].into_iter().chain(options));
        let outcome = outcome.assert_code(1);
        assert_shown(&outcome, shape);
        if format == "json" {
            for line in outcome.stderr.lines().filter(|line| !line.starts_with("plainfold: ")) {
                let value: Value =
                    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                assert!(value.is_object());
            }
        }
    }
}

fn evil(text: &str) -> String {
    format!("{text} {EVIL}")
}

/// Rows of a feed whose every text is evil.
fn rows(collection: &str, generation: u32, extra: &[Value]) -> String {
    let row = |id: &str| {
        let (id, rev) = (evil(id), format!("{generation}-{EVIL}"));
        let attachments = json!({EVIL: {"content_type": EVIL, "data": "aGVsbG8="}});
        let doc = json!({"_id": id, "_rev": rev, EVIL: EVIL, "_attachments": attachments});
        json!({"collection": collection, "seq": EVIL, "id": id, "changes": [{"rev": rev}], "doc": doc})
    };
    let rows = ["a", "b", "c"].map(row);
    rows.iter().chain(extra).map(|row| format!("{row}\n")).collect()
}

/// A row whose attachment is not base64, and one whose attachment is not an object.
fn bad_rows(collection: &str) -> [Value; 2] {
    let (id, rev) = (evil("spoilt"), format!("1-{EVIL}"));
    let doc = json!({"_id": id, "_rev": rev, "_attachments": {EVIL: {"data": EVIL}}});
    let spoilt = json!({"collection": collection, "id": id, "changes": [{"rev": rev}], "doc": doc});
    [spoilt, json!({"collection": collection, "error": EVIL, "reason": EVIL})]
}

struct Fed {
    place: Place,
    collection: String,
}

impl Fed {
    fn new() -> Self {
        let place = Place::new();
        let collection = EVIL.to_owned();
        fs::write(place.join("good"), rows(&collection, 1, &[])).unwrap();
        fs::write(place.join("other"), rows(&collection, 2, &[])).unwrap();
        fs::write(place.join("bad"), rows(&collection, 1, &bad_rows(&collection))).unwrap();
        Self { place, collection }
    }

    fn feed(&self, name: &str) -> String {
        feed::source(&self.place.join(name))
    }

    fn mirrored(&self, name: &str) -> String {
        let mirror = self.place.join(&format!("mirror-{name}"));
        plainfold::mirror(&self.feed(name), &mirror).assert_code(i32::from(name == "bad"));
        mirror.display().to_string()
    }
}

#[test]
fn a_feed_whose_every_text_is_evil_writes_to_no_terminal() {
    let fed = Fed::new();
    let bad = fed.place.join("mirror-bad").display().to_string();
    mirror_both(&fed.feed("bad"), &bad);
    run_both(&["status", &bad], 0);
    run_both(&["tail", &bad, "--since", "0"], 0);
    // A collection that is not there, and what was typed.
    let collections = ["mirror", &fed.feed("bad"), &bad, "--collections", "no-such", "--log-level"];
    let outcome = plainfold::run(collections.into_iter().chain(["debug"])).assert_code(2);
    assert_shown(&outcome, SHOWN);
    let outcome = plainfold::run(["tail", &bad, "--collection", EVIL, "--format", EVIL]);
    assert_clean("usage", &outcome.stderr.replace("\nFORGED", ""));
    let outcome = plainfold::run(["tail", &bad, "--collection", "no-such"]).assert_code(2);
    assert_shown(&outcome, SHOWN);
    // The deletion of everything is held back.
    let gone: String = (0..80)
        .map(|n| {
            json!({"collection": fed.collection, "id": format!("d{n} {EVIL}"),
            "changes": [{"rev": "1-x"}], "doc": {"_id": format!("d{n} {EVIL}"), "_rev": "1-x"}})
        })
        .chain((0..80).map(|n| {
            json!({"collection": fed.collection, "id": format!("d{n} {EVIL}"),
            "changes": [{"rev": "2-x"}], "deleted": true})
        }))
        .map(|row| format!("{row}\n"))
        .collect();
    let lines: Vec<&str> = gone.lines().collect();
    let path = fed.place.join("growing");
    fs::write(&path, lines[..80].join("\n") + "\n").unwrap();
    let growing = fed.mirrored("growing");
    fs::write(&path, gone).unwrap();
    let arguments = ["mirror", &fed.feed("growing"), &growing];
    assert_shown(&plainfold::run(arguments).assert_code(1), SHOWN);
    run_both(&["status", &growing], 0);
    let outcome = plainfold::run(["release", &growing, EVIL]).assert_code(0);
    assert_shown(&outcome, SHOWN);
    assert_shown(&plainfold::run(["release", &growing, &evil("not")]).assert_code(2), SHOWN);
}

#[test]
fn what_is_damaged_or_differs_is_named_without_being_obeyed() {
    let fed = Fed::new();
    let (good, other) = (fed.mirrored("good"), fed.mirrored("other"));
    run_both(&["verify", &good, "--against", &fed.feed("other")], 1);
    run_both(&["diff", &good, &fed.feed("other")], 1);
    run_both(&["diff", &good, &fed.feed("bad")], 1);
    run_both(&["diff", &good, &other], 1);
    let out = feed::source(&fed.place.join("out"));
    run_both(&["restore", &good, &out, "--on-existing", "overwrite"], 0);
    run_both(&["restore", &good, &feed::source(&fed.place.join("dry")), "--dry-run"], 0);
    let written = fs::read_to_string(fed.place.join("out")).unwrap();
    assert_eq!(written.split(['\n', '\r']).filter(|line| !line.is_empty()).count(), 3);
    for line in written.split_terminator('\n') {
        assert!(says_evil(&serde_json::from_str(line).unwrap()), "{line}");
    }
    let outcome = plainfold::run(["restore", &good, "feed:-"]).assert_code(0);
    assert_clean("the report beside a feed", &outcome.stderr);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&outcome.stdout), sorted(&written));

    // Files with names of their own, and bodies that are damaged.
    let folder = only_folder(Path::new(&good));
    for document in fs::read_dir(&folder).unwrap() {
        let body = document.unwrap().path().join("document.json");
        if body.exists() {
            fs::write(body, format!("{{\"_id\":{}", json!(EVIL))).unwrap();
        }
    }
    let short = "evil\u{1b}[2J\u{9b}\r\nFORGED\u{202e}\u{2028}";
    fs::write(folder.join(short), "x").unwrap();
    fs::create_dir(folder.join(format!("{short}d"))).unwrap();
    fs::write(folder.join(OsStr::from_bytes(b"evil\x1b[2J\xff\x9b\n")), "x").unwrap();
    fs::write(Path::new(&good).join(short), "x").unwrap();
    fs::create_dir(Path::new(&good).join(format!("{short}d"))).unwrap();
    run_both(&["verify", &good], 1);
    for arguments in [
        vec!["verify", &good, "--manifest", "-"],
        vec!["diff", &good, &other],
        vec!["restore", &good, "feed:/dev/null", "--collections", "no-such"],
        vec!["restore", &good, "feed:/dev/null", "--ids", EVIL],
        vec!["restore", &good, "feed:/dev/null", "--on-existing", "overwrite"],
        vec!["diff", &good, &format!("/no/such/{short}")],
        vec!["verify", &format!("/no/such/{short}")],
        vec!["status", &format!("/no/such/{short}")],
        vec!["restore", &good, &format!("http://127.0.0.1:1/{short}")],
        vec!["restore", &good, short],
        vec!["mirror", &format!("http://{short}"), &good],
        vec!["mirror", &format!("feed:/no/such/{short}"), &good],
    ] {
        let outcome = plainfold::run(&arguments);
        assert_clean(&format!("{arguments:?}"), &outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    }
    run_both(&["verify", &good, "--against", &fed.feed("good"), "--repair"], 1);
}

/// The folder of the only collection.
fn only_folder(mirror: &Path) -> std::path::PathBuf {
    let entries = fs::read_dir(mirror).unwrap().map(|entry| entry.unwrap());
    let mut folders = entries.filter(|entry| entry.file_name() != ".plainfold");
    folders.next().unwrap().path()
}

/// A row whose every text is evil, and whose place is laid out on several lines that forge events.
fn hostile_row(id: &str) -> String {
    let (id, rev) = (json!(evil(id)), json!(format!("7-{EVIL}")));
    let stub = json!({EVIL: {"content_type": EVIL, "digest": EVIL, "length": 5, "stub": true}});
    format!(
        "{{\"seq\":[\n{FORGED}\r\n,{}\n],\"id\":{id},\"changes\":[{{\"rev\":{rev}}}],\
         \"doc\":{{\"_id\":{id},\"_rev\":{rev},\"_attachments\":{stub}}}}}",
        json!(EVIL),
    )
}

fn error() -> String {
    json!({"error": EVIL, "reason": EVIL}).to_string()
}

/// A refusal with evil words, in its status line too.
fn refuses(code: u16) -> Say {
    Arc::new(move |talk: &mut Talk<'_>| {
        let status = format!("{code} evil\u{9b}31m\u{202e}");
        talk.answer(&status, "X-Evil: evil\u{9b}\r\n", error().as_bytes())
    })
}

/// The server knows each revision that it is asked about.
fn knows_all() -> Say {
    Arc::new(|talk: &mut Talk<'_>| talk.answer("200 OK", "", b"{}"))
}

fn evil_changes() -> Say {
    Arc::new(|talk: &mut Talk<'_>| {
        if talk.line.contains("feed=continuous") {
            talk.begin()?;
            talk.raw(hostile_row("live").replace(['\n', '\r'], " ").as_bytes())?;
            talk.raw(b"\n")?;
            return talk.hold();
        }
        let (row, plain) = (hostile_row("row"), hostile_row("plain"));
        // Without attachments, so that it is mirrored.
        let (plain, _) = plain.split_once(",\"_attachments\"").unwrap();
        let plain = format!("{plain}}}}}");
        let nameless = format!("{{\"seq\":[\n3\n],\"changes\":[{{\"rev\":{}}}]}}", json!(EVIL));
        let feed = talk.feed(talk.query(), &[&row, &plain, &nameless]);
        talk.answer("200 OK", "", feed.as_bytes())
    })
}

#[test]
fn a_server_whose_every_word_is_evil_writes_to_no_terminal() {
    let (place, server) = (Place::new(), Hostile::start());
    server.lie("/_changes", evil_changes());
    server.lie("/_bulk_get", refuses(404));
    server.lie("/_security", refuses(400));
    server.lie("/_revs_diff", knows_all());
    server.lie("evil", refuses(400));
    let mirror = place.mirror().display().to_string();
    let shelf = server.shelf();
    mirror_both(&shelf, &mirror);
    run_both(&["status", &mirror], 0);
    run_both(&["tail", &mirror, "--since", "0"], 0);
    let events = plainfold::journal(&place.mirror(), 0);
    assert!(events.iter().all(|event| event["collectionName"] == "shelf"), "{events:?}");
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["event"].as_u64()).collect();
    assert!(numbers.is_sorted() && numbers.len() == events.len(), "{numbers:?}");
    run_both(&["verify", &mirror, "--against", &shelf], 1);
    run_both(&["diff", &mirror, &shelf], 1);
    let repaired = plainfold::run(["verify", &mirror, "--against", &shelf, "--repair"]);
    assert_shown(&repaired, SHOWN);

    // Refusals of all kinds, of a restore too.
    for code in [401, 403, 404, 409, 412, 429, 500, 503] {
        let (fresh, server) = (place.join(&format!("fresh-{code}")), Hostile::start());
        let shown = if code == 404 { "" } else { "evil" };
        server.lie("", refuses(code));
        for log in ["text", "json"] {
            let options = ["--give-up-after", "1", "--log-format", log];
            let fresh = fresh.to_str().unwrap();
            let (shelf, other) = (server.shelf(), server.other());
            let mirrored = ["mirror", &shelf, fresh];
            let outcome = plainfold::run(mirrored.into_iter().chain(options));
            assert_shown(&outcome, shown);
            // What is waited for is waited for long.
            if ![429, 500, 503].contains(&code) {
                let outcome = plainfold::run(["restore", &mirror, &other, "--log-format", log]);
                assert_shown(&outcome, shown);
            }
        }
    }
    for format in ["text", "json"] {
        let refusing = Hostile::start();
        refusing.lie("POST /other/_bulk_docs", refuses(400));
        let other = refusing.other();
        let outcome = plainfold::run(["restore", &mirror, &other, "--format", format]);
        assert_shown(&outcome.assert_code(1), "evil%1B");
    }
}

#[test]
fn a_live_mirror_and_its_socket_hand_nothing_on_that_a_terminal_obeys() {
    for log in ["text", "json"] {
        let (place, server) = (Place::new(), Hostile::start());
        server.lie("/_changes", evil_changes());
        server.lie("/_revs_diff", knows_all());
        server.lie("/_bulk_get", refuses(404));
        server.lie("evil", refuses(404));
        let path = place.mirror();
        let path = path.to_str().unwrap();
        let arguments = ["mirror", &server.shelf(), path, "--live"];
        let options = ["--log-format", log, "--log-level", "debug"];
        let mut live = plainfold::spawn(arguments.into_iter().chain(options));
        live.wait_for_line(Stream::Stderr, |line| line.contains("evil"));
        let mut tail = plainfold::tail(Path::new(path), 0);
        let event = tail.wait_for_event(says_evil);
        assert_eq!(event["documentId"], evil("plain"));
        assert_eq!(event["position"][1], EVIL);
        run_both(&["status", path], 0);
        let status = asked(path, "/status");
        assert_clean("/status", status.split_once("\r\n\r\n").unwrap().1);
        assert!(status.contains(IN_JSON), "{status}");
        let refused = plainfold::run(["tail", path, "--collection", EVIL]).assert_code(2);
        assert_shown(&refused, SHOWN);
        tail.terminate();
        let tail = tail.wait();
        assert_shown(&tail, IN_JSON);
        live.terminate();
        assert_shown(&live.wait().assert_code(0), if log == "text" { SHOWN } else { IN_JSON });
    }
}

/// The answer of a mirror's socket.
fn asked(mirror: &str, path: &str) -> String {
    let lock = fs::read(Path::new(mirror).join(".plainfold/lock")).unwrap();
    let holder: Value = serde_json::from_slice(&lock).unwrap();
    let mut stream = UnixStream::connect(holder["socket"].as_str().unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn progress_bars_show_no_more_than_their_own_controls() {
    let fed = Fed::new();
    let mirror = fed.place.mirror().display().to_string();
    let source = fed.feed("bad");
    let outcome =
        plainfold::run(["mirror", &source, &mirror, "--progress", "always"]).assert_code(1);
    assert!(outcome.stderr.contains(r"evil\u{1b}"), "{outcome}");
    assert!(!outcome.stderr.contains("\u{1b}]") && !outcome.stderr.contains("\u{1b}[2J"));
    // What moves the bars' own lines, and colours them.
    let own = |c: char| matches!(c, '\u{1b}' | '\r');
    let printed: String = outcome.stderr.chars().filter(|c| !own(*c)).collect();
    assert_clean("bars", &printed);
}

/// Where the standard streams may be named, and foreign text escaped. The last three write the bytes of a
/// feed, and what tests look for.
const PRINTING: [&str; 7] = [
    "cli/output.rs",
    "cli/logging.rs",
    "cli/progress.rs",
    "document/plain.rs",
    "restore/feed.rs",
    "trial/failpoint.rs",
    "trial/recorder.rs",
];

#[test]
fn foreign_text_is_escaped_and_printed_in_one_place() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut wrong) = (vec![source.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !PRINTING.contains(&below.as_str()) {
                let text = fs::read_to_string(&path).unwrap();
                let prints = ["io::stdout()", "io::stderr()", "println!", ".escape_debug()"];
                wrong.extend(
                    prints.iter().filter(|it| text.contains(**it)).map(|it| (below.clone(), *it)),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "quote it as it is, and let `cli/output.rs` escape it: {wrong:?}");
}
