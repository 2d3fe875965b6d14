//! Documents that cannot be fetched, and requests without an answer, do not delay other documents.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::env::Place;
use crate::env::hostile::{Hostile, Say, Talk};
use crate::env::plainfold::{self, Running};

/// Bytes for an attachment that is streamed.
fn large() -> Vec<u8> {
    vec![7; 100_000]
}

/// Documents `bad-0` and so on, each with an attachment that cannot be fetched.
fn spoil(server: &Hostile, count: usize, bytes: &[u8], say: &Say) {
    for number in 0..count {
        server.put(&format!("bad-{number}"), &[("bad.bin", bytes)]);
    }
    server.lie("bad.bin", Arc::clone(say));
    // Small attachments are requested in groups: a broken one affects its group.
    let say = Arc::clone(say);
    server.lie(
        "/_bulk_get",
        Arc::new(move |talk: &mut Talk<'_>| {
            match String::from_utf8_lossy(&talk.body).contains("\"bad-") {
                true => say(talk),
                false => talk.honest(),
            }
        }),
    );
}

/// The ways in which an attachment cannot be fetched.
fn ways() -> Vec<(&'static str, Say)> {
    let answers = |status: &'static str, headers: &'static str, body: &'static [u8]| -> Say {
        Arc::new(move |talk: &mut Talk<'_>| talk.answer(status, headers, body))
    };
    vec![
        ("an error", answers("500 No", "", b"{\"error\":\"internal_server_error\"}")),
        ("nothing", answers("404 No", "", b"{\"error\":\"not_found\",\"reason\":\"missing\"}")),
        ("patience", answers("503 No", "Retry-After: 3600\r\n", b"")),
        ("a limit", answers("429 No", "Retry-After: 3600\r\n", b"")),
        ("a refusal", answers("403 No", "", b"{\"error\":\"forbidden\"}")),
        ("other bytes", answers("200 OK", "", b"other bytes")),
        (
            "a cut",
            Arc::new(|talk: &mut Talk<'_>| {
                talk.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun")
            }),
        ),
        ("silence", Arc::new(|talk: &mut Talk<'_>| talk.hold())),
        (
            "a head and silence",
            Arc::new(|talk: &mut Talk<'_>| {
                talk.begin()?;
                talk.hold()
            }),
        ),
    ]
}

/// Waits for the event of a document, and returns the documents of the earlier events.
fn wait_for(tail: &mut Running, id: &str) -> Vec<String> {
    let mut before = Vec::new();
    while before.last().is_none_or(|last| last != id) {
        let event = tail.wait_for_event(|_| true);
        before.push(event["documentId"].as_str().unwrap().to_owned());
    }
    before
}

fn staged(mirror: &Path) -> usize {
    let files = walkdir::WalkDir::new(mirror.join(".plainfold/staging")).into_iter();
    files.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_type().is_file())).count()
}

fn collection(mirror: &Path) -> Value {
    plainfold::status(mirror)["collections"][0].clone()
}

#[test]
fn a_catch_up_brings_all_documents_but_those_that_cannot_be_fetched() {
    for (what, say) in ways() {
        for (count, bytes) in [(1, large()), (12, large()), (12, b"small".to_vec())] {
            let (place, server) = (Place::new(), Hostile::start());
            spoil(&server, count, &bytes, &say);
            for number in 0..30 {
                server.put(&format!("well-{number}"), &[("well.txt", b"a page\n")]);
            }
            let (mirror, shelf) = (place.mirror(), server.shelf());
            let arguments = ["mirror", &shelf, mirror.to_str().unwrap(), "--give-up-after", "2"];
            let outcome = plainfold::run(arguments).assert_code(1);
            let said = format!("{count} document");
            assert!(outcome.stdout.contains(&said), "{what}: {outcome}");
            for number in 0..30 {
                let page = mirror.join(format!("shelf/well-{number}/attachments/well.txt"));
                assert!(page.exists(), "{what}: well-{number}: {outcome}");
            }
            for number in 0..count {
                let named = format!("`bad-{number}`");
                assert!(outcome.stderr.contains(&named), "{what}: {named}: {outcome}");
                assert!(!mirror.join(format!("shelf/bad-{number}")).exists());
            }
            assert_eq!(staged(&mirror), 0, "{what}");
            assert!(server.be_honest() > 0);
            plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
            server.assert_mirrored(&mirror);
        }
    }
}

#[test]
fn a_follower_brings_changes_while_others_cannot_be_fetched() {
    for (what, say) in ways() {
        let (place, server) = (Place::new(), Hostile::start());
        spoil(&server, 40, &large(), &say);
        let mirror = place.mirror();
        let live = plainfold::live(&server.shelf(), &mirror);
        let mut tail = plainfold::tail(&mirror, 0);
        for (id, attachments) in [
            ("plain", vec![]),
            ("small", vec![("small.txt", b"a page\n".to_vec())]),
            ("big", vec![("scan.bin", vec![1; 300_000])]),
        ] {
            let attachments: Vec<(&str, &[u8])> =
                attachments.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
            server.put(id, &attachments);
            let before = wait_for(&mut tail, id);
            assert!(before.iter().all(|id| !id.starts_with("bad")), "{what}: {before:?}");
        }
        let one = collection(&mirror);
        let (failed, in_flight) = (one["failures"].as_u64(), one["in_flight"].as_u64());
        assert_eq!(failed.unwrap() + in_flight.unwrap(), 40, "{what}: {one}");
        live.terminate();
        live.wait().assert_code(0);
        assert_eq!(staged(&mirror), 0, "{what}");
        // What was left is fetched by the next run.
        assert!(server.be_honest() > 0);
        plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
        server.assert_mirrored(&mirror);
    }
}

#[test]
fn a_security_object_that_does_not_come_holds_nothing_up() {
    let patience: Say =
        Arc::new(|talk: &mut Talk<'_>| talk.answer("503 No", "Retry-After: 3600\r\n", b""));
    let silence: Say = Arc::new(|talk: &mut Talk<'_>| talk.hold());
    for say in [patience, silence] {
        let (place, server) = (Place::new(), Hostile::start());
        let (mirror, shelf) = (place.mirror(), server.shelf());
        server.lie("/_security", say);
        let live = plainfold::live(&shelf, &mirror);
        let mut tail = plainfold::tail(&mirror, 0);
        server.put("new", &[("page.txt", b"a page\n")]);
        wait_for(&mut tail, "new");
        live.terminate();
        live.wait().assert_code(0);
        let catch_up = ["mirror", &shelf, mirror.to_str().unwrap(), "--give-up-after", "2"];
        let outcome = plainfold::run(catch_up).assert_code(1);
        assert!(outcome.stdout.contains("1 security object is not mirrored"), "{outcome}");
        assert!(server.be_honest() > 1);
        plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
        server.assert_mirrored(&mirror);
    }
}

#[test]
fn a_document_that_changes_while_it_is_read_is_at_its_newest_state_and_no_failure() {
    let (place, server) = (Place::new(), Arc::new(Hostile::start()));
    // Whenever the document is read it has just changed, until the test stops.
    let (hot, changes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (changing, counted, writer) = (Arc::clone(&hot), Arc::clone(&changes), Arc::clone(&server));
    server.put("hot", &[("hot.bin", &large())]);
    server.lie(
        "/hot/hot.bin",
        Arc::new(move |talk: &mut Talk<'_>| {
            if changing.load(Ordering::SeqCst) {
                let bytes = counted.fetch_add(1, Ordering::SeqCst).to_string().repeat(100_000);
                writer.put("hot", &[("hot.bin", &bytes.as_bytes()[..100_000])]);
                return talk.answer("404 No", "", b"{\"error\":\"not_found\"}");
            }
            talk.honest()
        }),
    );
    let mirror = place.mirror();
    let live = plainfold::live(&server.shelf(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    for number in 0..5 {
        let id = format!("other-{number}");
        let before = changes.load(Ordering::SeqCst);
        server.put(&id, &[("page.txt", b"a page\n")]);
        wait_for(&mut tail, &id);
        while changes.load(Ordering::SeqCst) < before + 3 {
            std::thread::yield_now();
        }
    }
    hot.store(false, Ordering::SeqCst);
    wait_for(&mut tail, "hot");
    live.terminate();
    let outcome = live.wait().assert_code(0);
    assert!(!outcome.stderr.contains("not mirrored"), "{outcome}");
    server.be_honest();
    server.assert_mirrored(&mirror);
}

#[test]
fn a_server_whose_answers_break_half_the_time_fills_nothing_up() {
    let (place, server) = (Place::new(), Hostile::start());
    for number in 0..40 {
        server.put(&format!("d{number}"), &[("scan.bin", &large())]);
    }
    let times = AtomicUsize::new(0);
    server.lie(
        "scan.bin",
        Arc::new(move |talk: &mut Talk<'_>| match times.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => talk.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun"),
            _ => talk.honest(),
        }),
    );
    let mirror = place.mirror();
    let live = plainfold::live(&server.shelf(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    // Complete documents are published while the others are still tried.
    for _ in 0..20 {
        tail.wait_for_event(|event| event["documentId"].as_str().unwrap().starts_with('d'));
    }
    live.terminate();
    live.wait();
    assert_eq!(staged(&mirror), 0);
    assert!(server.be_honest() > 20);
    plainfold::mirror(&server.shelf(), &mirror).assert_code(0);
    server.assert_mirrored(&mirror);
}

#[test]
fn a_repair_mends_all_documents_but_those_that_cannot_be_fetched() {
    let silence: Say = Arc::new(|talk: &mut Talk<'_>| talk.hold());
    let error: Say = Arc::new(|talk: &mut Talk<'_>| talk.answer("500 No", "", b""));
    for say in [silence, error] {
        let (place, server) = (Place::new(), Hostile::start());
        for number in 0..9 {
            server.put(&format!("bad-{number}"), &[("bad.bin", &large())]);
            server.put(&format!("well-{number}"), &[("well.bin", &large())]);
        }
        let (mirror, shelf) = (place.mirror(), server.shelf());
        plainfold::mirror(&shelf, &mirror).assert_code(0);
        for number in 0..9 {
            for (id, name) in [("bad", "bad.bin"), ("well", "well.bin")] {
                let path = mirror.join(format!("shelf/{id}-{number}/attachments/{name}"));
                std::fs::write(path, b"rot").unwrap();
            }
        }
        server.lie("bad.bin", say);
        let repair = ["verify", mirror.to_str().unwrap(), "--repair", "--against", &shelf];
        let outcome = plainfold::run(repair);
        for number in 0..9 {
            let well =
                std::fs::read(mirror.join(format!("shelf/well-{number}/attachments/well.bin")));
            assert!(well.unwrap() == large(), "{outcome}");
        }
        assert!(server.be_honest() > 0);
        plainfold::run(repair).assert_code(0);
        server.assert_mirrored(&mirror);
    }
}
