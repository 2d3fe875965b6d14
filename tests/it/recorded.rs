//! A real CouchDB's recorded answers, mirrored by the binary: opaque positions, chunks in the middle
//! of rows, reordered rows without a place, a digest of gzipped bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::env::{Place, plainfold, root, tree};

/// What a row of the feed says: the document's body, or that it is deleted.
type Rows = BTreeMap<String, Option<String>>;

fn recording(name: &str) -> Vec<u8> {
    fs::read(root().join("fixtures/couchdb-3.4.3").join(name)).unwrap()
}

/// Answers requests with recordings: the part of a request line that picks one, and its name.
struct Recorded {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Recorded {
    fn start(answers: &'static [(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream.unwrap(), answers, &seen));
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/shelf", self.address)
    }

    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, answers: &[(&str, &str)], seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header == "\r\n" {
                break;
            }
            let lower = header.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        reader.by_ref().take(length).read_to_end(&mut Vec::new()).unwrap();
        let (_, name) = *answers
            .iter()
            .find(|(part, _)| line.contains(part))
            .unwrap_or_else(|| panic!("nothing was recorded for {line}"));
        seen.lock().unwrap().push(line.trim_end().to_owned());
        if stream.write_all(&recording(name)).is_err() {
            return;
        }
    }
}

/// The rows of a recorded feed, read by other means than the client's.
fn rows(name: &str) -> Rows {
    let answer = recording(name);
    let text = String::from_utf8(answer).unwrap();
    let (_, chunked) = text.split_once("\r\n\r\n").unwrap();
    let (mut body, mut rest) = (String::new(), chunked);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        body.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    let mut rows = Rows::new();
    for line in body.lines().filter(|line| line.starts_with("{\"seq\"")) {
        let row = line.trim_end_matches(',');
        let value: serde_json::Value = serde_json::from_str(row).unwrap();
        let id = value["id"].as_str().unwrap().to_owned();
        let (_, doc) = row.split_once("\"doc\":").unwrap();
        let doc = doc.strip_suffix('}').unwrap().to_owned();
        rows.insert(id, value["deleted"].is_null().then_some(doc));
    }
    rows
}

fn assert_mirrors(mirror: &Path, rows: &Rows) {
    let folders = [
        ("_design/by_year", "_design%2Fby_year"),
        ("..", "%2E%2E"),
        ("a/b", "a%2Fb"),
        ("book:1", "book%3A1"),
        ("book:2", "book%3A2"),
        ("torn", "torn"),
    ];
    assert_eq!(rows.len(), 8, "two of them are deleted");
    let shelf = mirror.join("shelf");
    for (id, folder) in folders {
        let expected = rows[id].as_ref().unwrap().clone() + "\n";
        assert_eq!(fs::read_to_string(shelf.join(folder).join("document.json")).unwrap(), expected);
    }
    let security = "{\"members\":{\"roles\":[\"_admin\"]},\"admins\":{\"roles\":[\"_admin\"]}}\n";
    assert_eq!(fs::read_to_string(shelf.join("_security.json")).unwrap(), security);
    assert_eq!(fs::read_dir(&shelf).unwrap().count(), folders.len() + 1, "deleted ones are gone");
    let attachment = |name: &str| -> PathBuf { shelf.join("book%3A1/attachments").join(name) };
    let whole = |name: &str| -> Vec<u8> {
        let answer = recording(name);
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        answer[end + 4..].to_vec()
    };
    assert_eq!(fs::read(attachment("notes.txt")).unwrap(), whole("attachment-identity.http"));
    assert_eq!(
        fs::read(attachment("scans%2Fpäge 1.bin")).unwrap(),
        whole("attachment-binary.http")
    );
}

#[test]
fn a_recorded_database_is_mirrored_byte_for_byte_and_a_second_run_makes_four_requests() {
    let server = Recorded::start(&[
        ("GET /shelf HTTP", "database.http"),
        ("GET /shelf/_security", "security.http"),
        ("GET /shelf/_revs_limit", "revs-limit.http"),
        ("GET /shelf/_changes", "changes-normal.http"),
        ("POST /shelf/_bulk_get", "bulk-get.http"),
        // It names one revision that is not there: of another document than the last change's.
        ("POST /shelf/_revs_diff", "revs-diff.http"),
    ]);
    let place = Place::new();
    plainfold::mirror(&server.url(), &place.mirror()).assert_code(0);
    assert_mirrors(&place.mirror(), &rows("changes-normal.http"));
    server.take_requests();
    tree::assert_nothing_written(&place.mirror(), || {
        plainfold::mirror(&server.url(), &place.mirror()).assert_code(0)
    });
    let requests = server.take_requests();
    let verified = "POST /shelf/_revs_diff HTTP/1.1";
    let security = "GET /shelf/_security HTTP/1.1";
    let limit = "GET /shelf/_revs_limit HTTP/1.1";
    assert_eq!(requests, ["GET /shelf HTTP/1.1", verified, security, limit]);
}

#[test]
fn rows_in_another_order_and_without_a_place_come_to_the_same_mirror() {
    let server = Recorded::start(&[
        ("GET /shelf HTTP", "database.http"),
        ("GET /shelf/_security", "security.http"),
        ("GET /shelf/_revs_limit", "revs-limit.http"),
        ("GET /shelf/_changes", "changes-seq-interval.http"),
        ("POST /shelf/_bulk_get", "bulk-get.http"),
        // The stubs of this feed do not tell that the digest is of gzipped bytes.
        ("GET /shelf/book%3A1/notes.txt", "attachment-gzip.http"),
    ]);
    let place = Place::new();
    plainfold::mirror(&server.url(), &place.mirror()).assert_code(0);
    assert_mirrors(&place.mirror(), &rows("changes-seq-interval.http"));
}

#[test]
fn a_database_that_is_not_there_and_a_wrong_password_have_codes_of_their_own() {
    let missing = Recorded::start(&[("GET /shelf", "database-missing.http")]);
    let place = Place::new();
    let outcome = plainfold::mirror(&missing.url(), &place.mirror()).assert_code(3);
    assert!(outcome.stderr.contains("shelf"), "{outcome}");

    let refusing = Recorded::start(&[("GET /shelf", "wrong-password.http")]);
    let url = refusing.url().replace("http://", "http://ana:sesame@");
    let outcome = plainfold::mirror(&url, &Place::new().mirror()).assert_code(4);
    assert!(!outcome.stderr.contains("sesame"), "the password is told: {outcome}");
    assert_eq!(refusing.take_requests().len(), 1, "refused credentials are not tried again");
}
