//! The first mistakes: what is said when a server, its URL, a user or a proxy is not as it should be.
//!
//! The tests look for facts: which option, variable, host or URL a message names, and that it repeats no
//! password. All commands that speak to a server say the same.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::env::door::{Asked, Door, Reply, say};
use crate::env::plainfold::{self, Outcome};
use crate::env::tls::{before, openssl, self_signed, signed};
use crate::env::{Place, library};

const UNAUTHORIZED: &str =
    r#"{"error":"unauthorized","reason":"You are not authorized to access this db."}"#;
const NO_MEMBER: &str =
    r#"{"error":"forbidden","reason":"You are not allowed to access this db."}"#;
const NO_ADMIN: &str = r#"{"error":"unauthorized","reason":"You are not a server admin."}"#;
const MISSING: &str = r#"{"error":"not_found","reason":"Database does not exist."}"#;

/// No password of these tests may be in what is said.
const PASSWORD: &str = "hunter2";

fn mirror(source: &str, to: &Path, more: &[&str]) -> Outcome {
    plainfold::run(["mirror", source, to.to_str().unwrap()].iter().chain(more))
}

/// Runs a command with these variables.
fn with(variables: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let program = Path::new(env!("CARGO_BIN_EXE_plainfold"));
    let mut command = plainfold::command_of(program, arguments);
    command.envs(variables.iter().copied());
    plainfold::run_command(command)
}

/// Asserts that these facts were said, and no password.
#[track_caller]
fn assert_says(outcome: &Outcome, facts: &[&str]) {
    let missing: Vec<_> = facts.iter().filter(|fact| !outcome.stderr.contains(**fact)).collect();
    assert!(missing.is_empty(), "it does not say {missing:?}: {outcome}");
    assert!(!outcome.to_string().contains(PASSWORD), "{outcome}");
}

/// A mirror of the library.
fn library_mirror(place: &Place) -> String {
    let source = format!("feed:{}", library().display());
    mirror(&source, &place.mirror(), &[]).assert_code(0);
    place.mirror().to_str().unwrap().to_owned()
}

/// The commands that speak to a server at this URL of a database, beside `mirror`.
fn others<'a>(mirror: &'a str, url: &'a str) -> [Vec<&'a str>; 4] {
    [
        vec!["restore", mirror, url, "--collections", "books"],
        vec!["verify", mirror, "--against", url],
        vec!["verify", mirror, "--repair", "--against", url],
        vec!["diff", mirror, url],
    ]
}

/// A port that speaks plain HTTP as CouchDB does: it waits for the end of a line.
fn patient_http() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut asked = Vec::new();
                let mut piece = [0; 1024];
                while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                    match client.read(&mut piece) {
                        Ok(length) if length > 0 => asked.extend_from_slice(&piece[..length]),
                        _ => return,
                    }
                }
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
            });
        }
    });
    address
}

#[test]
fn a_refusal_without_a_user_says_how_to_give_one() {
    let place = Place::new();
    let door = Door::start(&["books"], |_| say("401 Unauthorized", UNAUTHORIZED));
    let user = door.url("USER@", "books");
    let source = [user.as_str(), "--password-file", "PLAINFOLD_SOURCE_PASSWORD"];
    let target = [user.as_str(), "--password-file", "PLAINFOLD_TARGET_PASSWORD"];
    assert_says(&mirror(&door.url("", "books"), &place.mirror(), &[]).assert_code(4), &source);
    fs::remove_dir_all(place.mirror()).unwrap();
    let (ours, url) = (library_mirror(&place), door.url("", "books"));
    for arguments in others(&ours, &url) {
        let facts = if arguments[0] == "restore" { &target } else { &source };
        assert_says(&plainfold::run(&arguments).assert_code(4), facts);
    }
}

#[test]
fn a_refusal_with_a_user_says_what_the_user_lacks() {
    let place = Place::new();
    let door = Door::start(&["books"], |asked| match asked.line.as_str() {
        line if line.contains("_all_dbs") => say("401 Unauthorized", NO_ADMIN),
        _ => say("403 Forbidden", NO_MEMBER),
    });
    let outcome = mirror(&door.url("me:hunter2@", "books"), &place.mirror(), &[]).assert_code(4);
    assert_says(&outcome, &["`me`", "member", "books/_security"]);
    let outcome = mirror(&door.url("me:hunter2@", ""), &place.join("b"), &[]).assert_code(4);
    assert_says(&outcome, &["`me`", "admin", "--collections"]);
}

#[test]
fn a_user_and_a_password_belong_together_and_nothing_is_sent_before() {
    let place = Place::new();
    let door = Door::start(&["books"], |_| Reply::Honest);
    let to = place.mirror();
    for user in ["me@", "me:@"] {
        let outcome = mirror(&door.url(user, "books"), &to, &[]).assert_code(2);
        assert_says(&outcome, &["`me`", "--password-file", "PLAINFOLD_SOURCE_PASSWORD"]);
    }
    assert_says(
        &mirror(&door.url(":hunter2@", "books"), &to, &[]).assert_code(2),
        &["http://user@host"],
    );
    let url = door.url("", "books");
    let arguments = ["mirror", &url, to.to_str().unwrap()];
    let outcome = with(&[("PLAINFOLD_SOURCE_PASSWORD", PASSWORD)], &arguments).assert_code(2);
    assert_says(&outcome, &["http://user@host"]);
    assert!(door.asked().is_empty(), "{:?}", door.asked());
}

#[test]
fn the_wrong_scheme_is_recognised_and_the_right_one_is_named() {
    let place = Place::new();
    let door = Door::start(&["books"], |_| Reply::Honest);
    self_signed(place.path(), "server", "-addext subjectAltName=DNS:localhost");
    let tls = before(door.address(), place.path(), "server", None);
    let plain = patient_http();
    let closes = Door::start(&[], |_| say("400 Bad Request", "no"));
    for (given, right) in [
        (format!("http://{tls}/books"), format!("https://{tls}")),
        (format!("https://{plain}/books"), format!("http://{plain}/books")),
        (format!("https://me:hunter2@{plain}/books"), format!("http://me@{plain}/books")),
        (format!("https://{}/books", closes.address()), format!("http://{}", closes.address())),
    ] {
        let outcome = mirror(&given, &place.mirror(), &[]).assert_code(3);
        assert_says(&outcome, &[&right]);
        assert!(!outcome.stderr.contains("trying again"), "it is final: {outcome}");
    }
    assert!(door.asked().is_empty());
}

#[test]
fn a_server_that_is_no_couchdb_is_said_to_be_none() {
    const PAGE: &str = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>";
    let page = |status: &'static str| move |_: &Asked| say(status, PAGE);
    let place = Place::new();
    for (keeper, facts) in [
        (Box::new(page("200 OK")) as Box<dyn FnMut(&Asked) -> Reply + Send>, &["Sign in"][..]),
        (Box::new(page("404 Not Found")), &["Sign in", "CouchDB"]),
        (Box::new(|_: &Asked| say("200 OK", r#"{"hello":1}"#)), &["hello", "CouchDB"]),
        (Box::new(|_: &Asked| say("200 OK", "It works!")), &["It works!", "CouchDB"]),
        (
            Box::new(|_: &Asked| {
                let status = "302 Found\r\nLocation: https://login.example/start?token=hunter2";
                say(status, "")
            }),
            &["https://login.example", "login"],
        ),
    ] {
        let door = Door::start(&[], keeper);
        let outcome = mirror(&door.url("", "books"), &place.mirror(), &[]).assert_code(3);
        assert_says(&outcome, facts);
        assert_says(&outcome, &[&door.url("", "books")]);
        assert_eq!(door.asked().len(), 1, "{:?}", door.asked());
        let outcome = mirror(&door.url("", ""), &place.mirror(), &[]).assert_code(3);
        assert_says(&outcome, facts);
    }
}

#[test]
fn a_server_that_was_mirrored_before_is_waited_for_while_it_shows_a_web_page() {
    let place = Place::new();
    let pages = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&pages);
    let door = Door::start(&["books"], move |_| {
        match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => say("200 OK", "<html>maintenance</html>"),
            Err(_) => Reply::Honest,
        }
    });
    let source = door.url("", "books");
    mirror(&source, &place.mirror(), &[]).assert_code(0);
    pages.store(1, Ordering::Relaxed);
    let outcome = mirror(&source, &place.mirror(), &[]).assert_code(0);
    assert_says(&outcome, &["web page"]);
    assert_eq!(pages.load(Ordering::Relaxed), 0);
}

#[test]
fn a_document_or_a_view_in_the_place_of_a_database_names_the_database() {
    let place = Place::new();
    for (answer, path) in
        [(r#"{"_id":"d","_rev":"1-a"}"#, "books/d"), (r#"{"total_rows":0,"rows":[]}"#, "books/x")]
    {
        let door = Door::start(&[], move |_| say("200 OK", answer));
        let outcome = mirror(&door.url("", path), &place.mirror(), &[]).assert_code(3);
        assert_says(&outcome, &["not a database", &door.url("", "books")]);
        assert_eq!(door.asked().len(), 1, "{:?}", door.asked());
    }
}

#[test]
fn the_url_of_an_endpoint_names_the_database_and_nothing_is_asked() {
    let place = Place::new();
    let door = Door::start(&["books"], |_| Reply::Honest);
    let ours = library_mirror(&place);
    for path in [
        "books/_all_docs",
        "books/_changes?since=now",
        "books/_design/x/_view/y",
        "_utils/#database/books/_all_docs",
        "_utils/#/database/books/d@x",
    ] {
        let url = door.url("me:hunter2@", path);
        let facts = [door.url("me@", "books")];
        let facts = facts.each_ref().map(String::as_str);
        assert_says(&mirror(&url, &place.join("b"), &[]).assert_code(2), &facts);
        for arguments in others(&ours, &url) {
            assert_says(&plainfold::run(&arguments).assert_code(2), &facts);
        }
    }
    for path in ["_all_dbs", "_utils/", "_session"] {
        let outcome = mirror(&door.url("", path), &place.join("b"), &[]).assert_code(2);
        assert_says(&outcome, &[&door.url("", "DATABASE")]);
    }
    assert!(door.asked().is_empty(), "{:?}", door.asked());
}

#[test]
fn a_name_that_is_not_there_says_what_it_may_be_meant_to_be() {
    let place = Place::new();
    let door = Door::start(&["books"], |asked| match asked.line.as_str() {
        "GET /books" => Reply::Honest,
        _ => say("404 Object Not Found", MISSING),
    });
    for (path, fact) in [("a/b", "/a%2Fb"), ("Books", "`books`"), ("my%20books", "a to z")] {
        let outcome = mirror(&door.url("", path), &place.mirror(), &[]).assert_code(3);
        assert_says(&outcome, &[fact, "does not exist"]);
    }
    for (name, fact) in [("a%2Fb", "`a/b`"), ("Books", "`books`"), ("books/", "`books`")] {
        let more = ["--collections", name];
        let outcome = mirror(&door.url("", ""), &place.join(&name.len().to_string()), &more);
        assert_says(&outcome.assert_code(2), &[fact]);
    }
}

#[test]
fn another_source_says_both_ways_out() {
    let place = Place::new();
    let (one, two) =
        (Door::start(&["a"], |_| Reply::Honest), Door::start(&["a"], |_| Reply::Honest));
    mirror(&one.url("", "a"), &place.mirror(), &[]).assert_code(0);
    let outcome = mirror(&two.url("", "a"), &place.mirror(), &[]).assert_code(2);
    let (follows, given) = (one.url("", "a"), two.url("", "a"));
    assert_says(&outcome, &[&follows, &given, "--source-moved", "another directory"]);
    mirror(&given, &place.mirror(), &["--source-moved"]).assert_code(0);
}

#[test]
fn schemes_in_any_case_work() {
    let place = Place::new();
    let door = Door::start(&["a"], |_| Reply::Honest);
    let port = door.address().port();
    for (at, source) in
        [format!("HTTP://127.0.0.1:{port}/a"), format!(" Http://LOCALHOST:{port}/a ")]
            .iter()
            .enumerate()
    {
        mirror(source, &place.join(&at.to_string()), &[]).assert_code(0);
    }
    let feed = format!("FEED:{}", library().display());
    mirror(&feed, &place.mirror(), &[]).assert_code(0);
    let ours = place.mirror();
    let written = place.join("out.ndjson");
    let target = format!("Feed:{}", written.display());
    plainfold::run(["restore", ours.to_str().unwrap(), &target]).assert_code(0);
    assert!(written.exists());
    plainfold::run(["diff", ours.to_str().unwrap(), &feed]).assert_code(0);
}

#[test]
fn what_is_not_a_source_says_what_to_type() {
    let place = Place::new();
    let ours = library_mirror(&place);
    let feed = library().display().to_string();
    for (typed, fact) in [
        ("localhost:5984/books", "http://localhost:5984/books"),
        ("//me:hunter2@h/books", "http://me:…@h/books"),
        ("me@h/books", "http://me@h/books"),
        ("couchdb://me:hunter2@h/books", "http://me:…@h/books"),
        ("couchdb://h/books?token=hunter2", "http://h/books"),
        ("file://me:hunter2@h/books", "feed:"),
        ("file:/srv/x.ndjson", "feed:/srv/x.ndjson"),
        ("file:///srv/x.ndjson", "feed:/srv/x.ndjson"),
        ("unix://me:hunter2@/run/x.sock", "http+unix://me@%2Frun%2Fx.sock"),
        ("http://[::1/books", "bracket"),
        ("\"http://me:hunter2@h/books\"", "quotation marks"),
        ("http:/me:hunter2@h/books", "http://"),
        ("http://::1:5984/books", "[::1]"),
        ("http://me:hunter2@h:99999/books", "65535"),
        ("http:///books", "host"),
        ("feed:", "feed:"),
        (&feed, &format!("feed:{feed}")),
    ] {
        let outcome = mirror(typed, &place.join("b"), &[]).assert_code(2);
        assert_says(&outcome, &[fact]);
        for arguments in others(&ours, typed) {
            // A file or a folder beside a mirror is another mirror for `diff`.
            if arguments[0] != "diff" || typed != feed {
                assert_says(&plainfold::run(&arguments).assert_code(2), &[fact]);
            }
        }
    }
    let outcome = mirror(&ours, Path::new("http://me:hunter2@h/books"), &[]).assert_code(2);
    assert_says(&outcome, &["mirror SOURCE DIR"]);
}

#[test]
fn a_password_that_a_url_cannot_hold_is_explained_and_not_repeated() {
    let place = Place::new();
    let ours = library_mirror(&place);
    for mark in ["#", "/", "?", "\\", "#a@", "/1"] {
        let url = format!("http://me:hun{mark}ter2@127.0.0.1:9/books");
        let facts = ["--password-file", "%23", "%2F", "%3F", "%40", "%25"];
        let outcome = mirror(&url, &place.join("b"), &[]).assert_code(2);
        assert_says(&outcome, &facts);
        assert!(!outcome.stderr.contains("ter2"), "{outcome}");
        for arguments in others(&ours, &url) {
            let outcome = plainfold::run(&arguments).assert_code(2);
            assert_says(&outcome, &facts);
            assert!(!outcome.stderr.contains("ter2"), "{outcome}");
        }
    }
}

#[test]
fn a_certificate_that_is_not_accepted_is_named() {
    let place = Place::new();
    let door = Door::start(&["a"], |_| Reply::Honest);
    self_signed(place.path(), "authority", "");
    let names = "subjectAltName=DNS:localhost";
    signed(place.path(), "authority", "server", names, "-days 2");
    let port = before(door.address(), place.path(), "server", None).port();
    let source = format!("https://localhost:{port}/a");
    let outcome = mirror(&source, &place.mirror(), &[]).assert_code(3);
    assert_says(&outcome, &["--ca-file", "CN=server", "CN=authority"]);
    assert!(door.asked().is_empty(), "{:?}", door.asked());
}

#[test]
fn a_key_of_another_certificate_is_named() {
    let place = Place::new();
    self_signed(place.path(), "client", "");
    openssl(place.path(), "genrsa -out other.key 2048");
    let (cert, key) = (place.join("client.pem"), place.join("other.key"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let more = ["--client-cert", cert, "--client-key", key];
    let outcome = mirror("https://localhost:9/a", &place.mirror(), &more).assert_code(2);
    assert_says(&outcome, &[cert, key]);
}

#[test]
fn a_proxy_of_the_environment_is_named_without_its_password() {
    let place = Place::new();
    let to = place.mirror();
    let to = to.to_str().unwrap();
    let proxy = Door::start(&[], |_| say("407 Proxy Authentication Required", "<html>no</html>"));
    let refuses = Door::start(&[], |_| say("403 Forbidden", "<html>no</html>"));
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let url = |address: SocketAddr| format!("http://me:hunter2@{address}");
    for (variable, address, source, code, fact) in [
        ("http_proxy", nobody, "http://couch.invalid:5984/a", 3, "refused"),
        ("HTTPS_PROXY", nobody, "https://couch.invalid/a", 3, "refused"),
        ("ALL_PROXY", nobody, "http://couch.invalid:5984/a", 3, "refused"),
        ("HTTP_PROXY", proxy.address(), "http://couch.invalid:5984/a", 3, "USER:PASSWORD"),
        ("https_proxy", proxy.address(), "https://couch.invalid/a", 3, "USER:PASSWORD"),
        ("http_proxy", refuses.address(), "http://couch.invalid:5984/a", 4, "403"),
        ("https_proxy", refuses.address(), "https://couch.invalid/a", 3, "couch.invalid:443"),
    ] {
        let arguments = ["mirror", source, to, "--give-up-after", "1"];
        let outcome = with(&[(variable, &url(address))], &arguments).assert_code(code);
        let proxy = format!("http://{address}");
        assert_says(&outcome, &[&proxy, variable, "NO_PROXY", "couch.invalid", fact]);
    }
    let socks =
        with(&[("all_proxy", "socks5://127.0.0.1:9")], &["mirror", "http://h.invalid/a", to]);
    assert_says(&socks.assert_code(3), &["socks5://127.0.0.1:9", "all_proxy", "SOCKS"]);
    // What goes around the proxy says nothing of it.
    let direct = Door::start(&["a"], |_| Reply::Honest);
    let variables = [("http_proxy", url(nobody)), ("NO_PROXY", "127.0.0.1".to_owned())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    with(&variables, &["mirror", &direct.url("", "a"), to]).assert_code(0);
}

#[test]
fn a_server_that_is_not_there_is_named_with_its_port() {
    let place = Place::new();
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let more = ["--give-up-after", "1"];
    let outcome = mirror(&format!("http://{nobody}/a"), &place.mirror(), &more).assert_code(3);
    assert_says(&outcome, &[&nobody.to_string(), "refused", "running"]);
    let outcome = mirror("http://couch.invalid/a", &place.mirror(), &more).assert_code(3);
    assert_says(&outcome, &["`couch.invalid`", "resolve"]);
    let socket = place.join("none.sock");
    let encoded = socket.to_str().unwrap().replace('/', "%2F");
    let outcome =
        mirror(&format!("http+unix://{encoded}/a"), &place.mirror(), &more).assert_code(3);
    assert_says(&outcome, &[socket.to_str().unwrap()]);
}

#[test]
fn a_proxy_that_fails_before_a_known_server_is_waited_for() {
    let place = Place::new();
    let door = Door::start(&["a"], |_| Reply::Honest);
    let proxy = Door::start(&[], |_| say("407 Proxy Authentication Required", "<html>no</html>"));
    let proxy = format!("http://me:hunter2@{}", proxy.address());
    self_signed(place.path(), "server", "-addext subjectAltName=DNS:localhost");
    let tls = before(door.address(), place.path(), "server", None).port();
    let (plain, encrypted) = (door.url("", "a"), format!("https://localhost:{tls}/a"));
    let ca = place.join("server.pem");
    for (at, (variable, proxy, source, fact)) in [
        ("http_proxy", proxy.as_str(), &plain, "USER:PASSWORD"),
        ("https_proxy", &proxy, &encrypted, "USER:PASSWORD"),
        ("all_proxy", "socks5://127.0.0.1:9", &plain, "SOCKS"),
    ]
    .into_iter()
    .enumerate()
    {
        let to = place.join(&at.to_string());
        let to = to.to_str().unwrap();
        let arguments =
            ["mirror", source, to, "--ca-file", ca.to_str().unwrap(), "--give-up-after", "1"];
        let first = with(&[(variable, proxy)], &arguments).assert_code(3);
        assert_says(&first, &[variable, fact]);
        assert!(!first.stderr.contains("trying again"), "it is final: {first}");
        with(&[], &arguments).assert_code(0);
        let later = with(&[(variable, proxy)], &arguments).assert_code(3);
        assert_says(&later, &[variable, fact, "trying again"]);
    }
}

#[test]
fn a_restore_that_waits_says_why_once() {
    const REASON: &str = r#"{"error":"boom","reason":"under maintenance"}"#;
    const NO: &str = r#"{"error":"bad_request","reason":"enough"}"#;
    let place = Place::new();
    let mut left = 2_u8;
    let door = Door::start(&[], move |_| match left.checked_sub(1) {
        Some(less) => {
            left = less;
            say("500 Internal Server Error", REASON)
        }
        None => say("400 Bad Request", NO),
    });
    let ours = library_mirror(&place);
    let outcome =
        plainfold::run(["restore", &ours, &door.url("", "books"), "--collections", "books"]);
    assert_ne!(outcome.status.code(), Some(0), "{outcome}");
    assert_says(&outcome, &["trying again", "enough"]);
    assert_eq!(outcome.stderr.matches("under maintenance").count(), 1, "{outcome}");
}

#[test]
fn an_answer_that_ends_in_its_middle_is_said_to_end_there() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (at, mut client) in listener.incoming().flatten().enumerate() {
            let _ = client.read(&mut [0; 4096]);
            let begun = match at % 2 {
                0 => "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"db_\r\n",
                _ => "Content-Length: 100\r\n\r\n{\"db_",
            };
            let _ = client.write_all(format!("HTTP/1.1 200 OK\r\n{begun}").as_bytes());
        }
    });
    let place = Place::new();
    let more = ["--give-up-after", "1"];
    let outcome = mirror(&format!("http://{address}/books"), &place.mirror(), &more).assert_code(3);
    assert_says(&outcome, &["closed the connection in the middle of an answer"]);
    assert!(!outcome.stderr.contains("decoding"), "{outcome}");
}
