//! What monitoring gets of a mirror: how old its copy is, metrics, health, and the rules and the dashboard
//! that are made of them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::env::door::{Door, Reply};
use crate::env::feed::FeedFile;
use crate::env::{Place, plainfold, root};

/// The status code and the body of an answer of a mirror's process.
fn get(mirror: &Path, path: &str) -> (u16, String) {
    let mut socket = UnixStream::connect(mirror.join(".plainfold/socket")).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: mirror\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn collection(mirror: &Path) -> Value {
    plainfold::status(mirror)["collections"][0].clone()
}

/// Asks again and again until it is so.
fn wait_until(mirror: &Path, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..600 {
        last = collection(mirror);
        if is_so(&last) {
            return last;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: {last:#}");
}

#[test]
fn a_running_mirror_says_how_old_its_copy_is_and_so_does_one_at_rest() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book:1", json!({"n": 1}), &[]);
    let live = plainfold::live(&feed.source(), &mirror);
    let now = wait_until(&mirror, "the file is read", |now| now["behind"]["bytes"] == 0);
    for key in ["lag_seconds", "heard_seconds", "committed_seconds", "behind_seconds"] {
        assert!(now[key].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)), "{now:#}");
    }
    assert!(now["changed_at"].is_string() && now["by_wall_clock"] == false, "{now:#}");
    // Half a row is behind the copy, and stays there.
    feed.raw(b"{\"seq\":99");
    wait_until(&mirror, "the row has begun", |now| now["behind"]["bytes"] == 9);
    live.terminate();
    live.wait().assert_code(0);

    let rest = collection(&mirror);
    assert!(rest["by_wall_clock"] == true && rest["behind"].is_null(), "{rest:#}");
    for key in ["lag_seconds", "heard_seconds", "committed_seconds"] {
        assert!(rest[key].as_f64().is_some_and(|seconds| seconds >= 0.0), "{key}: {rest:#}");
    }
    assert_eq!(rest["changed_at"], now["changed_at"]);
    let text = plainfold::run([Path::new("status"), &mirror]).assert_code(0).stdout;
    assert!(text.contains("(by the wall clock)") && text.contains("  committed   "), "{text}");
}

#[test]
fn a_catch_up_with_nothing_new_makes_the_copy_young_again() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book:1", json!({"n": 1}), &[]);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    let first = collection(&mirror);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    let second = collection(&mirror);
    let time = |status: &Value| status["current_at"].as_str().unwrap().parse::<jiff::Timestamp>();
    assert!(time(&second).unwrap() > time(&first).unwrap(), "{first:#} {second:#}");
    assert_eq!(first["changed_at"], second["changed_at"]);
}

#[test]
fn while_the_server_says_nothing_the_numbers_grow() {
    let place = Place::new();
    let mirror = place.mirror();
    let hangs = Arc::new(AtomicBool::new(false));
    let hung = Arc::clone(&hangs);
    let server = Door::start(&["shelf"], move |asked| {
        let is_live = asked.line.contains("feed=continuous");
        hung.fetch_or(is_live, Ordering::SeqCst);
        match hung.load(Ordering::SeqCst) {
            true => Reply::Hang,
            false => Reply::Honest,
        }
    });
    let live = plainfold::live(&server.url("", "shelf"), &mirror);
    let first = wait_until(&mirror, "it has caught up", |now| now["caught_up"] == true);
    let grown = wait_until(&mirror, "silence", |now| {
        ["lag_seconds", "heard_seconds", "committed_seconds"].iter().all(|key| {
            now[key].as_f64().zip(first[key].as_f64()).is_some_and(|(now, first)| now > first + 2.0)
        })
    });
    assert!(hangs.load(Ordering::SeqCst), "the live feed was asked for");
    // What the server said then is as old as everything else.
    let stated = grown["behind_seconds"].as_f64().unwrap_or(f64::MAX);
    assert!(stated > 2.0, "{grown:#}");
    live.terminate();
    live.wait();
}

#[test]
fn a_running_mirror_has_metrics_and_is_healthy_and_ready() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book:1", json!({"n": 1}), &[("a.txt", b"12345")]);
    let live = plainfold::live(&feed.source(), &mirror);
    let (code, text) = get(&mirror, "/metrics");
    assert_eq!(code, 200, "{text}");
    let labels = "{mirror=\"mirror\",collection=\"shelf\"}";
    let value = |name: &str, labels: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{labels} ")));
        line.unwrap_or_else(|| panic!("{name}{labels} in {text}")).parse().unwrap()
    };
    let of = |name: &str| value(&format!("plainfold_collection_{name}"), labels);
    assert_eq!((of("documents_written_total"), of("attachments_written_total")), (1.0, 1.0));
    assert_eq!((of("caught_up"), of("failed_documents"), of("out_of_room")), (1.0, 0.0, 0.0));
    assert!(of("lag_seconds") >= 0.0 && of("changed_timestamp_seconds") > 1e9);
    assert_eq!(value("plainfold_mirror_running", "{mirror=\"mirror\"}"), 1.0);
    assert!(value("process_resident_memory_bytes", "") > 1e6);
    assert!(text.contains("plainfold_build_info{version=\""), "{text}");
    assert!(!text.contains("book"), "no label names a document");
    assert_eq!(get(&mirror, "/healthz"), (200, r#"{"status":"ok","mirrors":[]}"#.to_owned()));
    assert_eq!(get(&mirror, "/readyz").0, 200);
    if let Some(mut checking) = promtool(&["check", "metrics"]) {
        checking.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = checking.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn a_mirror_that_has_not_caught_up_is_healthy_and_not_ready() {
    let place = Place::new();
    let mirror = place.mirror();
    let server = Door::start(&["shelf"], |asked| {
        if asked.line.contains("/_changes") { Reply::Hang } else { Reply::Honest }
    });
    let source = server.url("", "shelf");
    let directory = mirror.display().to_string();
    let live = plainfold::spawn(["mirror", &source, &directory, "--live"]);
    wait_until_running(&mirror);
    server.wait_for(1, |asked| asked.line.contains("/_changes"));
    let (code, text) = get(&mirror, "/readyz");
    assert!(code == 503 && text.contains("it has not caught up"), "{code} {text}");
    assert_eq!(get(&mirror, "/healthz").0, 200);
    live.terminate();
    live.wait();
}

fn wait_until_running(mirror: &Path) {
    for _ in 0..600 {
        if UnixStream::connect(mirror.join(".plainfold/socket")).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no process answers");
}

/// Starts `promtool`, if it is there.
fn promtool(arguments: &[&str]) -> Option<std::process::Child> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(root());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "left out: promtool is not installed (on Debian: apt-get install prometheus)"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn prometheus_accepts_the_alert_rules() {
    let Some(checking) = promtool(&["check", "rules", "docs/monitoring/alerts.yml"]) else {
        return;
    };
    let output = checking.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("12 rules found"), "{said}");
}
