//! Logging in to a server, refusals, and the rate of requests. The tests check what the server saw:
//! the number of login attempts and of requests.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::env::door::{Asked, Door, Reply, say};
use crate::env::plainfold::{self, Outcome, Running, Stream};
use crate::env::{DEADLINE, Place};

const UNAUTHORIZED: &str = r#"{"error":"unauthorized","reason":"Name or password is incorrect."}"#;
const LOCKED: &str = r#"{"error":"forbidden","reason":"Account is temporarily locked due to multiple authentication failures"}"#;
const NO_MEMBER: &str =
    r#"{"error":"forbidden","reason":"You are not allowed to access this db."}"#;

#[track_caller]
fn wait_until(reached: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "it does not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mirror(source: &str, mirror: &Path, more: &[&str]) -> Outcome {
    plainfold::run(["mirror", source, mirror.to_str().unwrap()].iter().chain(more))
}

/// A mirror that follows these databases, with a password in this file.
fn follow(door: &Door, place: &Place, names: &str, password: &Path) -> Running {
    let to = place.mirror();
    let arguments = [
        "mirror",
        &door.url("me@", ""),
        to.to_str().unwrap(),
        "--live",
        "--collections",
        names,
        "--password-file",
        password.to_str().unwrap(),
    ];
    plainfold::spawn(arguments)
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("me:{password}")))
}

fn has(place: &Place, database: &str, id: &str) -> bool {
    place.mirror().join(database).join(id).join("document.json").exists()
}

fn trouble(status: &Value, collection: &str) -> String {
    let all = status["collections"].as_array().unwrap();
    let one = all.iter().find(|one| one["collection"] == collection).unwrap();
    one["trouble"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn wrong_credentials_are_sent_once_and_by_one_database_only() {
    let place = Place::new();
    let door = Door::start(&["a", "b", "c"], |_| say("401 Unauthorized", UNAUTHORIZED));
    let source = door.url("me:wrong-password@", "");
    let outcome = mirror(&source, &place.mirror(), &["--collections", "a,b,c"]).assert_code(4);
    assert!(outcome.stderr.contains("Name or password is incorrect"), "{outcome}");
    assert_eq!(door.asked().len(), 1, "{:#?}", door.asked());
    let arguments = ["restore".into(), place.mirror().into_os_string(), source.into()];
    plainfold::run(arguments);
    assert!(door.asked().len() <= 2, "{:#?}", door.asked());
}

#[test]
fn a_lock_out_while_databases_are_followed_is_waited_for() {
    let place = Place::new();
    fs::write(place.join("password"), "right").unwrap();
    let locked = Arc::new(AtomicBool::new(false));
    let keeper = Arc::clone(&locked);
    let door = Door::start(&["a", "b", "c"], move |_| match keeper.load(Ordering::Relaxed) {
        true => say("403 Forbidden", LOCKED),
        false => Reply::Honest,
    });
    let mut live = follow(&door, &place, "a,b,c", &place.join("password"));
    wait_until(|| ["a", "b", "c"].iter().all(|name| has(&place, name, "first")));
    door.wait_for(3, |asked| asked.line.contains("feed=continuous"));
    let before = door.asked().len();
    locked.store(true, Ordering::Relaxed);
    door.hang_up();
    live.wait_for_line(Stream::Stderr, |line| line.contains("temporarily locked"));
    wait_until(|| {
        let status = plainfold::status(&place.mirror());
        ["a", "b", "c"].iter().all(|name| trouble(&status, name).contains("temporarily locked"))
    });
    // One for each feed that was open, and maybe the one after the first pause.
    let tries = door.asked().len() - before;
    assert!((1..=4).contains(&tries), "{:#?}", &door.asked()[before..]);
    locked.store(false, Ordering::Relaxed);
    door.put("a", "second");
    door.put("c", "second");
    wait_until(|| has(&place, "a", "second") && has(&place, "c", "second"));
    live.terminate();
    let outcome = live.wait().assert_code(0);
    assert!(!outcome.stderr.contains("right"), "{outcome}");
}

#[test]
fn a_lock_out_at_the_start_of_a_catch_up_is_waited_for_too() {
    let place = Place::new();
    let times = AtomicUsize::new(0);
    let door = Door::start(&["a"], move |_| match times.fetch_add(1, Ordering::Relaxed) {
        0 => say("403 Forbidden", LOCKED),
        _ => Reply::Honest,
    });
    mirror(&door.url("me:right@", "a"), &place.mirror(), &[]).assert_code(0);
    assert!(has(&place, "a", "first"));
}

#[test]
fn a_changed_password_is_taken_from_its_file_at_once() {
    let place = Place::new();
    let file = place.join("password");
    fs::write(&file, "first-password\n").unwrap();
    let right = Arc::new(Mutex::new("first-password"));
    let (keeper, wrong) = (Arc::clone(&right), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&wrong);
    let door = Door::start(&["a", "b", "c"], move |asked| {
        if asked.header("authorization") == basic(&keeper.lock().unwrap()) {
            return Reply::Honest;
        }
        counter.fetch_add(1, Ordering::Relaxed);
        say("401 Unauthorized", UNAUTHORIZED)
    });
    let mut live = follow(&door, &place, "a,b,c", &file);
    wait_until(|| ["a", "b", "c"].iter().all(|name| has(&place, name, "first")));
    door.wait_for(3, |asked| asked.line.contains("feed=continuous"));
    *right.lock().unwrap() = "second-password";
    door.hang_up();
    live.wait_for_line(Stream::Stderr, |line| line.contains("Name or password is incorrect"));
    door.put("b", "second");
    fs::write(&file, "second-password\n").unwrap();
    wait_until(|| has(&place, "b", "second"));
    let refused = wrong.load(Ordering::Relaxed);
    assert!(
        (1..=3).contains(&refused),
        "one a feed at most, then the new one: {:#?}",
        door.asked()
    );
    live.terminate();
    let outcome = live.wait().assert_code(0);
    assert!(!outcome.stderr.contains("-password"), "{outcome}");

    // A mirror that was followed before waits, even if it has just been started.
    *right.lock().unwrap() = "third-password";
    let mut live = follow(&door, &place, "a,b,c", &file);
    live.wait_for_line(Stream::Stderr, |line| line.contains("trying again in"));
    assert_eq!(wrong.load(Ordering::Relaxed), refused + 1, "one for all databases");
    door.put("a", "second");
    fs::write(&file, "third-password\n").unwrap();
    wait_until(|| has(&place, "a", "second"));
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn a_database_that_the_user_may_not_read_any_more_waits_alone() {
    let place = Place::new();
    fs::write(place.join("password"), "right").unwrap();
    let closed = Arc::new(AtomicBool::new(false));
    let keeper = Arc::clone(&closed);
    let door = Door::start(&["a", "b"], move |asked| {
        let is_a = asked.line.starts_with("GET /a") || asked.line.starts_with("POST /a");
        match is_a && keeper.load(Ordering::Relaxed) {
            true => say("403 Forbidden", NO_MEMBER),
            false => Reply::Honest,
        }
    });
    let live = follow(&door, &place, "a,b", &place.join("password"));
    wait_until(|| ["a", "b"].iter().all(|name| has(&place, name, "first")));
    door.wait_for(2, |asked| asked.line.contains("feed=continuous"));
    closed.store(true, Ordering::Relaxed);
    door.hang_up();
    wait_until(|| trouble(&plainfold::status(&place.mirror()), "a").contains("not allowed"));
    door.put("b", "second");
    wait_until(|| has(&place, "b", "second"));
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn what_a_new_mirror_may_not_read_is_a_mistake_unless_it_may_read_others() {
    let place = Place::new();
    let door = Door::start(&["a", "b"], |asked| match &*asked.line {
        "GET /_all_dbs" => say(
            "401 Unauthorized",
            r#"{"error":"unauthorized","reason":"You are not a server admin."}"#,
        ),
        line if line.starts_with("GET /a") => say("403 Forbidden", NO_MEMBER),
        _ => Reply::Honest,
    });
    let to = place.mirror();
    for path in ["a", ""] {
        let source = door.url("me:right@", path);
        let arguments = ["mirror", &source, to.to_str().unwrap(), "--live"];
        plainfold::run(arguments).assert_code(4);
    }
    fs::write(place.join("password"), "right").unwrap();
    let live = follow(&door, &place, "a,b", &place.join("password"));
    wait_until(|| has(&place, "b", "first"));
    wait_until(|| trouble(&plainfold::status(&place.mirror()), "a").contains("not allowed"));
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn a_server_that_limits_requests_is_mirrored_at_its_pace() {
    const RATE: f64 = 60.0;
    let place = Place::new();
    let names: Vec<String> = (0..40).map(|n| format!("db{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut tokens, mut filled, refused) = (5.0, Instant::now(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&refused);
    let door = Door::start(&names, move |_| {
        tokens = f64::min(5.0, tokens + RATE * filled.elapsed().as_secs_f64());
        filled = Instant::now();
        if tokens >= 1.0 {
            tokens -= 1.0;
            return Reply::Honest;
        }
        counter.fetch_add(1, Ordering::Relaxed);
        say("429 Too Many Requests", "slow down")
    });
    mirror(&door.url("", ""), &place.mirror(), &["--give-up-after", "10"]).assert_code(0);
    assert!(names.iter().all(|name| has(&place, name, "first")));
    let (refused, all) = (refused.load(Ordering::Relaxed), door.asked().len());
    assert!(refused > 0, "the limit was never met");
    assert!(refused * 2 < all, "{refused} of {all} requests were refused");
    // The other side of a comparison is asked at its pace too.
    let against = ["verify".into(), place.mirror().into_os_string(), "--against".into()];
    plainfold::run(against.into_iter().chain([door.url("", "").into()])).assert_code(0);
}

#[test]
fn a_refusal_of_one_database_does_not_slow_down_the_others() {
    let place = Place::new();
    let names: Vec<String> = (0..20).map(|n| format!("db{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let door = Door::start(&names, |asked| match asked.line.contains("/db7") {
        true => say("503 Service Unavailable\r\nRetry-After: 3600", "later"),
        false => Reply::Honest,
    });
    let begun = Instant::now();
    mirror(&door.url("", ""), &place.mirror(), &["--give-up-after", "2"]).assert_code(3);
    assert!(names.iter().all(|name| *name == "db7" || has(&place, name, "first")));
    assert!(begun.elapsed().as_secs() < 60, "nobody waits for an hour");
}

#[test]
fn a_first_request_that_hangs_does_not_keep_others_out() {
    let place = Place::new();
    let limited = AtomicUsize::new(0);
    let door = Door::start(&["a", "b", "c"], move |asked| {
        // The server limits requests too: the one that hangs must not keep its place.
        match limited.fetch_add(1, Ordering::Relaxed) % 4 {
            _ if asked.line.starts_with("GET /a") => Reply::Hang,
            3 => say("429 Too Many Requests", "slow down"),
            _ => Reply::Honest,
        }
    });
    let more = ["--collections", "a,b,c", "--give-up-after", "8"];
    mirror(&door.url("me:right@", ""), &place.mirror(), &more).assert_code(3);
    assert!(has(&place, "b", "first") && has(&place, "c", "first"));
}

#[test]
fn a_session_is_begun_once_and_again_when_it_has_expired() {
    let place = Place::new();
    let (mut logins, mut left) = (0, 0);
    let logged_in = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&logged_in);
    let door = Door::start(&["a", "b", "c"], move |asked: &Asked| {
        if asked.line == "POST /_session" {
            if !asked.body.contains(r#""password":"right-password""#) {
                return say("401 Unauthorized", UNAUTHORIZED);
            }
            (logins, left) = (logins + 1, 6);
            counter.store(logins, Ordering::Relaxed);
            let cookie =
                format!("200 OK\r\nSet-Cookie: AuthSession=cookie-{logins}; Path=/; HttpOnly");
            return say(&cookie, r#"{"ok":true}"#);
        }
        if left == 0 || asked.header("cookie") != format!("AuthSession=cookie-{logins}") {
            return say(
                "401 Unauthorized",
                r#"{"error":"unauthorized","reason":"You are not authorized to access this db."}"#,
            );
        }
        left -= 1;
        Reply::Honest
    });
    let more = ["--collections", "a,b,c", "--auth", "session"];
    let to = place.mirror();
    mirror(&door.url("me:right-password@", ""), &to, &more).assert_code(0);
    assert!(["a", "b", "c"].iter().all(|name| has(&place, name, "first")));
    let asked = door.asked();
    assert!(asked.iter().all(|one| one.header("authorization").is_empty()), "{asked:#?}");
    let logins = logged_in.load(Ordering::Relaxed);
    assert!((2..=6).contains(&logins), "{logins} logins: {asked:#?}");

    let before = door.asked().len();
    let outcome = mirror(&door.url("me:wrong-password@", ""), &to, &more).assert_code(4);
    assert_eq!(door.asked().len(), before + 1, "one login alone: {outcome}");
}

#[test]
fn a_token_is_read_again_when_it_is_refused_and_no_further() {
    let place = Place::new();
    let file = place.join("token");
    fs::write(&file, "token.of.2").unwrap();
    let accepted = Arc::new(Mutex::new("Bearer token.of.2"));
    let keeper = Arc::clone(&accepted);
    let door = Door::start(&["a"], move |asked| {
        match asked.header("authorization") == *keeper.lock().unwrap() {
            true => Reply::Honest,
            false => say("401 Unauthorized", UNAUTHORIZED),
        }
    });
    let (source, to) = (door.url("", "a"), place.mirror());
    mirror(&source, &to, &["--token-file", file.to_str().unwrap()]).assert_code(0);

    // A command prints an old token first.
    let count = place.join("count");
    let script = format!("echo >> {0}; echo token.of.$(wc -l < {0})", count.display());
    let before = door.asked().len();
    mirror(&source, &to, &["--token-command", &script]).assert_code(0);
    let seen: Vec<_> =
        door.asked()[before..].iter().map(|one| one.header("authorization").to_owned()).collect();
    assert_eq!(seen.iter().filter(|one| *one == "Bearer token.of.1").count(), 1, "{seen:?}");

    let before = door.asked().len();
    let outcome = mirror(&source, &to, &["--token-command", "echo token.of.0"]).assert_code(4);
    assert_eq!(door.asked().len(), before + 1, "{outcome}");
    let more = ["--token-file", file.to_str().unwrap()];
    mirror(&door.url("me@", "a"), &to, &more).assert_code(2);
    let status = fs::read_to_string(to.join(".plainfold/options.json")).unwrap_or_default();
    assert!(!status.contains("token"), "remembered: {status}");
}

#[test]
fn a_password_file_that_cannot_be_right_costs_no_attempt() {
    let place = Place::new();
    let door = Door::start(&["a"], |_| Reply::Honest);
    let file = place.join("password");
    let path = file.to_str().unwrap();
    for (content, why) in
        [("", "is empty"), ("\n", "is empty"), ("hunter2\nother\n", "holds 2 lines")]
    {
        fs::write(&file, content).unwrap();
        for option in ["--password-file", "--token-file"] {
            let source = door.url(if option == "--token-file" { "" } else { "me@" }, "a");
            let outcome = mirror(&source, &place.mirror(), &[option, path]).assert_code(2);
            assert!(outcome.stderr.contains(why) && outcome.stderr.contains(path), "{outcome}");
            assert!(!outcome.stderr.contains("hunter2"), "{outcome}");
        }
    }
    assert_eq!(door.asked().len(), 0);
    fs::write(&file, "right\r\n").unwrap();
    mirror(&door.url("me@", "a"), &place.mirror(), &["--password-file", path]).assert_code(0);
    assert_eq!(door.asked()[0].header("authorization"), basic("right"));
}

#[test]
fn a_server_that_repeats_what_it_was_sent_brings_no_secret_into_anything() {
    const PASSWORD: &str = "pa ss\"w/rd";
    let forms = [
        PASSWORD.to_owned(),
        r#"pa ss\"w/rd"#.to_owned(),
        "pa%20ss%22w%2Frd".to_owned(),
        "pa%20ss%22w%2frd".to_owned(),
        "pa+ss%22w%2Frd".to_owned(),
        STANDARD.encode(format!("me:{PASSWORD}")),
        STANDARD.encode(PASSWORD),
        "tok3n-tok3n.tok3n".to_owned(),
    ];
    for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "500 Oh No", "200 OK"] {
        let place = Place::new();
        let words = forms.join(" ");
        let door = Door::start(&["a"], move |asked| {
            let headers: Vec<_> =
                asked.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let reason = format!("{} {words}", headers.join(", "));
            say(status, &serde_json::json!({ "error": "echo", "reason": reason }).to_string())
        });
        fs::write(place.join("password"), PASSWORD).unwrap();
        fs::write(place.join("token"), "tok3n-tok3n.tok3n").unwrap();
        let (password, token) = (place.join("password"), place.join("token"));
        for (user, option, file) in
            [("me@", "--password-file", &password), ("", "--token-file", &token)]
        {
            let more =
                [option, file.to_str().unwrap(), "--give-up-after", "1", "--log-level", "debug"];
            let outcome = mirror(&door.url(user, "a"), &place.mirror(), &more);
            let mut seen = format!("{outcome}");
            for entry in walkdir::WalkDir::new(place.mirror()) {
                let entry = entry.unwrap();
                if entry.file_type().is_file() {
                    seen.push_str(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap()));
                }
            }
            let secrets = if user.is_empty() { &forms[7..] } else { &forms[..7] };
            for form in secrets {
                assert!(!seen.contains(form.as_str()), "{status}: {form} in {seen}");
            }
        }
    }
}

#[test]
fn no_command_repeats_the_password_of_a_mistyped_url() {
    let place = Place::new();
    let folder = place.join("none");
    let folder = folder.to_str().unwrap();
    for url in [
        "htp://me:hunter2@h/db",
        "http:/me:hunter2@h/db",
        "me:hunter2@h/db",
        "feed:http://me:hunter2@h/db",
        "HTTP://me:hunter2@h:99999/db",
        "http+unix://me:hunter2@sock/db",
        "http://me:hun/ter2@h/db",
    ] {
        for arguments in [
            vec!["mirror", url, folder],
            vec!["mirror", folder, url],
            vec!["mirror", folder, folder, url],
            vec!["restore", folder, url],
            vec!["restore", url, folder],
            vec!["verify", folder, "--against", url],
            vec!["verify", url],
            vec!["diff", folder, url],
            vec!["diff", url, folder],
            vec!["tail", url],
            vec!["status", url],
            vec!["release", url, "a"],
        ] {
            let outcome = plainfold::run(&arguments);
            assert_ne!(outcome.status.code(), Some(0), "{arguments:?}");
            let said = format!("{outcome}");
            assert!(!said.contains("hunter2") && !said.contains("ter2"), "{arguments:?}: {said}");
        }
    }
}
