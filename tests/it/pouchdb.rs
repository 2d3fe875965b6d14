//! A real server, pouchdb-server, mirrored: one database and all of them, again, and recreated.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Proxy};
use crate::env::tree::{Tree, assert_nothing_written};
use crate::env::{DEADLINE, Place, library, oracle, plainfold};

/// What CouchDB 3.4.3 says to a position that it does not understand.
const MALFORMED: &str =
    r#"{"error":"bad_request","reason":"Malformed sequence supplied in 'since' parameter."}"#;

#[test]
fn a_live_mirror_of_more_databases_than_it_has_places_for_finds_their_changes() {
    let (server, place) = (PouchServer::start(), Place::new());
    let names = ["a", "b", "c", "d"];
    for name in names {
        server.create_db(name);
        server.put_doc(name, "first", &json!({}));
    }
    let databases = || server.request("GET", "/_all_dbs", b"").body;
    let before = databases();
    let (url, mirror) = (server.url(), place.mirror());
    let arguments = ["mirror", &url, mirror.to_str().unwrap(), "--live", "--max-runs", "4"];
    let running = plainfold::spawn(arguments);
    let has = |name: &str, id: &str| mirror.join(name).join(id).join("document.json").exists();
    let wait_for = |id: &str| {
        let deadline = Instant::now() + DEADLINE;
        while !names.iter().all(|name| has(name, id)) {
            assert!(Instant::now() < deadline, "{id} is missing somewhere");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for("first");
    for name in names {
        server.put_doc(name, "later", &json!({}));
    }
    wait_for("later");
    running.terminate();
    running.wait().assert_code(0);
    assert_eq!(databases(), before, "nothing was written to the server");
}

/// A server that holds a small shelf: ordinary books, odd ids, attachments of odd names.
fn server_with_a_shelf() -> PouchServer {
    let server = PouchServer::start();
    server.create_db("shelf");
    fill_shelf(&server, 0..40);
    server
}

fn fill_shelf(server: &PouchServer, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let id = format!("book:{number:03}");
        let body = json!({"title": format!("Volume {number}"), "n": number});
        let page = format!("page of {number}\n").repeat(number as usize % 7 + 1);
        match number % 4 {
            0 => server.put_with_attachments(
                "shelf",
                &id,
                &body,
                &[("a b/ж 1.txt", "text/plain", page.as_bytes())],
            ),
            _ => server.put_doc("shelf", &id, &body),
        };
    }
}

fn assert_mirrors_shelf(server: &PouchServer, mirror: &Path) {
    oracle::assert_equals_server(&format!("{}/shelf", server.url()), mirror, "shelf");
    oracle::assert_clean(mirror);
}

/// Listens on a Unix socket, and hands on to a server what comes there, for as long as the test runs.
fn listen(socket: &Path, server: SocketAddr) {
    let listener = UnixListener::bind(socket).unwrap();
    let hand_on = move |client: UnixStream| {
        let (Ok(server), Ok(back)) = (TcpStream::connect(server), client.try_clone()) else {
            return;
        };
        let (mut from, mut to) = (client, server.try_clone().unwrap());
        std::thread::spawn(move || io::copy(&mut from, &mut to));
        let (mut from, mut to) = (server, back);
        std::thread::spawn(move || io::copy(&mut from, &mut to));
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(hand_on));
}

#[test]
fn a_server_on_a_unix_socket_is_a_source_and_a_target() {
    let place = Place::new();
    let server = server_with_a_shelf();
    let socket = place.join("server.sock");
    listen(&socket, server.address());
    let path = socket.to_str().unwrap().replace('/', "%2F");
    let (url, mirror) = (format!("http+unix://{path}/shelf"), place.mirror());
    let directory = mirror.to_str().unwrap();
    plainfold::mirror(&url, &mirror).assert_code(0);
    assert_mirrors_shelf(&server, &mirror);
    plainfold::run(["verify", directory, "--against", &url]).assert_code(0);
    plainfold::run(["diff", directory, &url]).assert_code(0);
    let target = format!("http+unix://{path}");
    let said =
        plainfold::run(["restore", directory, &target, "--as", "shelf=again"]).assert_code(0);
    assert!(said.stdout.contains("40 documents created"), "{said}");
    let wrong = plainfold::mirror("http+unix://server.sock/shelf", &mirror).assert_code(2);
    assert!(wrong.stderr.contains("absolute path"), "{wrong}");
    let other = place.join("other");
    let nobody = format!("http+unix://{path}x/shelf");
    let arguments = ["mirror", &nobody, other.to_str().unwrap(), "--give-up-after", "1"];
    let ended = plainfold::run(arguments).assert_code(3);
    assert!(ended.stderr.contains("server.sockx"), "the socket is not named: {ended}");
}

#[test]
fn every_database_of_a_server_is_mirrored() {
    let place = Place::new();
    let server = PouchServer::start();
    server.load_feed(&library());
    plainfold::mirror(&server.url(), &place.mirror()).assert_code(0);
    for db in ["books", "loans", "members"] {
        let said =
            oracle::assert_equals_server(&format!("{}/{db}", server.url()), &place.mirror(), db);
        assert!(!said.contains(" 0 documents"), "{db}: {said}");
    }
    let mut found: Vec<_> =
        fs::read_dir(place.mirror()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, [".plainfold", "books", "loans", "members"], "`_users` is not for us");
    oracle::assert_clean(&place.mirror());
}

#[test]
fn one_database_of_a_server_is_mirrored_alone() {
    let place = Place::new();
    let server = server_with_a_shelf();
    server.create_db("other");
    server.put_doc("other", "x", &json!({}));
    plainfold::mirror(&format!("{}/shelf", server.url()), &place.mirror()).assert_code(0);
    assert_mirrors_shelf(&server, &place.mirror());
    assert!(!place.mirror().join("other").exists());
}

#[test]
fn ids_and_attachment_names_that_no_url_can_spell_are_mirrored() {
    let place = Place::new();
    let server = PouchServer::start();
    server.create_db("shelf");
    let names = [
        "..",
        ".",
        "../../../escape",
        "a/./b",
        "%2e%2e",
        "tab\there",
        "?q#f",
        "名前 📷.png",
        "+",
        "a\\b",
    ];
    let attachments = names.map(|name| (name, "application/octet-stream", name.as_bytes()));
    for id in [
        "..",
        ".",
        "%2F",
        "%2e%2e",
        "a/../b",
        "?",
        "#",
        "+",
        "名",
        "\u{1}\"\\\u{2028}",
        "_design/x y",
    ] {
        server.put_with_attachments("shelf", id, &json!({"id": id}), &attachments);
    }
    plainfold::mirror(&format!("{}/shelf", server.url()), &place.mirror()).assert_code(0);
    assert_mirrors_shelf(&server, &place.mirror());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "something got out of the mirror");
}

#[test]
fn a_second_run_makes_four_requests_and_writes_nothing() {
    let place = Place::new();
    let server = server_with_a_shelf();
    let proxy = Proxy::start(server.address());
    let url = format!("{}/shelf", server.url_through(proxy.address()));
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    proxy.take_requests();
    assert_nothing_written(&place.mirror(), || {
        plainfold::mirror(&url, &place.mirror()).assert_code(0)
    });
    let requests = proxy.take_requests();
    let asked = ["/_changes", "/_revs_diff", "/_security", "/_revs_limit"];
    let fits = |(line, part): (&String, &str)| line.contains(part);
    assert!(requests.len() == 4 && requests.iter().zip(asked).all(fits), "{requests:#?}");
    assert_mirrors_shelf(&server, &place.mirror());
}

#[test]
fn a_second_run_of_all_databases_makes_a_few_requests_for_each() {
    let place = Place::new();
    let server = server_with_a_shelf();
    for db in ["b", "c"] {
        server.create_db(db);
        server.put_doc(db, "x", &json!({}));
    }
    let proxy = Proxy::start(server.address());
    let url = server.url_through(proxy.address());
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    proxy.take_requests();
    assert_nothing_written(&place.mirror(), || {
        plainfold::mirror(&url, &place.mirror()).assert_code(0)
    });
    let requests = proxy.take_requests();
    for db in ["shelf", "b", "c"] {
        let of_db = requests.iter().filter(|line| {
            line.contains(&format!(" /{db}/")) || line.contains(&format!(" /{db} "))
        });
        // One change alone needs no second look.
        let count = if db == "shelf" { 4 } else { 3 };
        assert_eq!(of_db.count(), count, "{db}: {requests:#?}");
    }
    assert_eq!(requests.len(), 11, "with the list of databases: {requests:#?}");
}

#[test]
fn after_changes_only_these_are_written() {
    let place = Place::new();
    let server = server_with_a_shelf();
    let url = format!("{}/shelf", server.url());
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    let before = Tree::of(&place.mirror());
    server.put_doc("shelf", "book:001", &json!({"title": "Revised"}));
    server.put_attachment("shelf", "book:002", "new.txt", "text/plain", b"new");
    server.put_doc("shelf", "book:004", &json!({"title": "Its attachment is gone"}));
    server.delete_doc("shelf", "book:005");
    server.put_doc("shelf", "new", &json!({}));
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    assert_mirrors_shelf(&server, &place.mirror());
    let changed = ["book%3A001", "book%3A002", "book%3A004", "book%3A005", "new"];
    for written in before.until(&Tree::of(&place.mirror())) {
        let within = |name: &str| written.path().starts_with(Path::new("shelf").join(name));
        assert!(
            written.path() == Path::new("shelf") || changed.iter().any(|name| within(name)),
            "{written}"
        );
    }
}

/// Mirrors a shelf, recreates its database with the documents of `fill`, mirrors again, and asks the
/// oracle.
fn assert_noticed_when_made_anew(fill: impl FnOnce(&PouchServer)) {
    let place = Place::new();
    let server = server_with_a_shelf();
    let url = format!("{}/shelf", server.url());
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    server.delete_db("shelf");
    server.create_db("shelf");
    fill(&server);
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    assert_mirrors_shelf(&server, &place.mirror());
}

#[test]
fn a_database_made_anew_with_fewer_documents_is_noticed_and_the_stale_ones_are_removed() {
    assert_noticed_when_made_anew(|server| fill_shelf(server, 35..45));
}

#[test]
fn a_database_made_anew_with_more_documents_is_noticed_and_the_stale_ones_are_removed() {
    // Its feed is longer than where we stood.
    assert_noticed_when_made_anew(|server| fill_shelf(server, 30..90));
}

#[test]
fn a_database_made_anew_with_other_contents_is_noticed_and_the_stale_documents_are_removed() {
    assert_noticed_when_made_anew(|server| {
        for number in 10..80 {
            server.put_doc("shelf", &format!("book:{number:03}"), &json!({"edition": 2}));
        }
    });
}

#[test]
fn a_position_that_the_server_refuses_leads_to_a_scan_that_removes_what_is_gone() {
    let place = Place::new();
    let server = server_with_a_shelf();
    let proxy = Proxy::start(server.address());
    let url = format!("{}/shelf", server.url_through(proxy.address()));
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    // A document that the scan will not list, as after a purge.
    let stale = place.mirror().join("shelf/stale");
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("document.json"), "{\"_id\":\"stale\",\"_rev\":\"1-a\"}\n").unwrap();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{MALFORMED}",
        MALFORMED.len()
    );
    let fault = proxy.inject("/shelf/_changes", Fault::Answer(answer.into()), 1);
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    assert_eq!(fault.times(), 1);
    assert!(!stale.exists(), "a document that the server does not have is still here");
    assert_mirrors_shelf(&server, &place.mirror());
}

#[test]
fn refused_credentials_end_the_run_at_once_and_are_not_told() {
    let place = Place::new();
    let server = PouchServer::start_with_admin("ana", "open sesame");
    server.create_db("shelf");
    server.close_db("shelf");
    let proxy = Proxy::start(server.address());
    let url = format!("http://ana:mellon%2Dmellon@{}/shelf", proxy.address());
    let outcome = plainfold::mirror(&url, &place.mirror()).assert_code(4);
    assert!(!format!("{outcome}").contains("mellon"), "the password is told: {outcome}");
    let requests = proxy.take_requests();
    assert!((1..=2).contains(&requests.len()), "it tries again and again: {requests:#?}");
}

#[test]
fn a_password_may_come_from_the_url_the_environment_or_a_file() {
    let server = PouchServer::start_with_admin("ana", "open sesame");
    server.create_db("shelf");
    server.close_db("shelf");
    fill_shelf(&server, 0..5);
    let [by_url, by_environment, by_file] = [Place::new(), Place::new(), Place::new()];
    let url = format!("http://ana:open%20sesame@{}/shelf", server.address());
    plainfold::mirror(&url, &by_url.mirror()).assert_code(0);

    let url = format!("http://ana@{}/shelf", server.address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_plainfold"));
    command.args(["mirror", &url]).arg(by_environment.mirror());
    let output = command.env("PLAINFOLD_SOURCE_PASSWORD", "open sesame").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let password = by_file.join("password");
    fs::write(&password, "open sesame\n").unwrap();
    let mirror = by_file.mirror().display().to_string();
    let arguments = ["mirror", &url, &mirror, "--password-file", password.to_str().unwrap()];
    plainfold::run(arguments).assert_code(0);

    let url = format!("http://ana:open%20sesame@{}/shelf", server.address());
    for place in [by_url, by_environment, by_file] {
        oracle::assert_equals_server(&url, &place.mirror(), "shelf");
    }
}

#[test]
fn a_missing_database_and_a_server_that_is_not_there_are_told_apart_from_success() {
    let place = Place::new();
    let mut server = PouchServer::start();
    plainfold::mirror(&format!("{}/nothing-here", server.url()), &place.mirror()).assert_code(3);
    let url = format!("{}/shelf", server.url());
    server.stop();
    plainfold::mirror(&url, &place.join("other")).assert_code(3);
}
