//! A password is asked for on a terminal, and only there; what is typed is not shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::env::door::{Door, Reply, say};
use crate::env::plainfold;
use crate::env::{Place, pty};

const REFUSED: &str = r#"{"error":"unauthorized","reason":"Name or password is incorrect."}"#;

/// A server that lets in the user `me` with the password `s3cret`.
fn guarded() -> Door {
    let right = format!("Basic {}", STANDARD.encode("me:s3cret"));
    Door::start(&["books"], move |asked| match asked.header("authorization") == right {
        true => Reply::Honest,
        false => say("401 Unauthorized", REFUSED),
    })
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let (place, door) = (Place::new(), guarded());
    door.put("books", "a");
    let (source, mirror) = (door.url("me@", "books"), place.mirror().display().to_string());
    let typing = [("assword", "s3cret\n")];
    let commands: [&[&str]; 4] = [
        &["mirror", &source, &mirror],
        &["verify", &mirror, "--against", &source],
        &["diff", &mirror, &source],
        &["restore", &mirror, &source, "--dry-run"],
    ];
    for arguments in commands {
        let shown = pty::run(arguments, &typing, &[]);
        // The server cannot list its documents in parts, as a restore wants.
        let code = if arguments[0] == "restore" { 3 } else { 0 };
        assert_eq!(shown.code, code, "{arguments:?}: {shown:#?}");
        assert!(shown.text.contains("`me`") && shown.text.contains("127.0.0.1"), "{shown:#?}");
        assert!(!shown.text.contains("s3cret"), "{shown:#?}");
        let screen = shown.screen();
        let asks = |line: &String| line.contains("assword of `me`") && line.contains("127.0.0.1");
        assert!(screen.iter().any(asks), "{arguments:?}: the question is visible: {screen:#?}");
        assert!(shown.echoes && shown.silent == [true], "{shown:#?}");
    }
    assert!(place.mirror().join("books/a/document.json").is_file());
}

#[test]
fn a_wrong_password_is_refused_and_an_empty_one_is_not_sent() {
    let (place, door) = (Place::new(), guarded());
    let (source, mirror) = (door.url("me@", "books"), place.mirror().display().to_string());
    let arguments = ["mirror", source.as_str(), mirror.as_str()];
    let empty = pty::run(&arguments, &[("assword", "\n")], &[]);
    assert_eq!((empty.code, door.asked().len()), (2, 0), "{empty:#?}");
    let wrong = pty::run(&arguments, &[("assword", "guess\n")], &[]);
    assert_eq!(wrong.code, 4, "{wrong:#?}");
    assert!(!wrong.text.contains("guess") && wrong.echoes, "{wrong:#?}");
}

#[test]
fn an_interrupt_at_the_question_leaves_the_terminal_as_it_was() {
    let (place, door) = (Place::new(), guarded());
    let (source, mirror) = (door.url("me@", "books"), place.mirror().display().to_string());
    let shown = pty::run(&["mirror", &source, &mirror, "--live"], &[("assword", "s3\u{3}")], &[]);
    assert_eq!(shown.code, 130, "{shown:#?}");
    assert!(shown.echoes && shown.silent == [true] && door.asked().is_empty(), "{shown:#?}");
    assert!(!place.mirror().exists(), "nothing was begun");
}

#[test]
fn a_quit_at_the_question_leaves_the_terminal_as_it_was() {
    let (place, door) = (Place::new(), guarded());
    let (source, mirror) = (door.url("me@", "books"), place.mirror().display().to_string());
    // The second time, the process has had the time to wait for what is typed.
    for typing in [&[("assword", "s3\u{1c}")][..], &[("assword", ""), ("", "s3"), ("", "\u{1c}")]] {
        let shown = pty::run(&["mirror", &source, &mirror], typing, &[]);
        assert_eq!(shown.code, 130, "{shown:#?}");
        assert!(shown.echoes && shown.silent.iter().all(|is_silent| *is_silent), "{shown:#?}");
        assert!(door.asked().is_empty(), "{shown:#?}");
    }
}

#[test]
fn an_interrupt_after_the_question_still_ends_the_command() {
    let place = Place::new();
    let hanging = Door::start(&["books"], |_| Reply::Hang);
    let mirror = place.mirror().display().to_string();
    let library = format!("feed:{}", crate::env::library().display());
    plainfold::mirror(&library, &place.mirror()).assert_code(0);
    let source = hanging.url("me@", "");
    let typing = [("assword", "s3cret\n"), ("\n", "\u{3}")];
    let shown = pty::run(&["diff", &mirror, &source], &typing, &[]);
    assert_eq!(shown.code, 130, "{shown:#?}");
    assert!(shown.echoes, "{shown:#?}");
}

#[test]
fn nobody_is_asked_without_a_terminal_or_if_the_password_is_given() {
    let (place, door) = (Place::new(), guarded());
    let (source, mirror) = (door.url("me@", "books"), place.mirror().display().to_string());
    let outcome = plainfold::run(["mirror", &source, &mirror]);
    assert_ne!(outcome.status.code(), Some(0), "{outcome}");
    assert!(!outcome.stderr.contains("assword of"), "{outcome}");
    let file = place.join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let with_file = ["mirror", &source, &mirror, "--password-file", file.to_str().unwrap()];
    let in_url = door.url("me:s3cret@", "books");
    let variable = [("PLAINFOLD_SOURCE_PASSWORD", "s3cret")];
    for shown in [
        pty::run(&with_file, &[], &[]),
        pty::run(&["mirror", &in_url, &mirror], &[], &[]),
        pty::run(&["mirror", &source, &mirror], &[], &variable),
    ] {
        assert_eq!(shown.code, 0, "{shown:#?}");
        assert!(!shown.text.contains("assword of"), "{shown:#?}");
    }
}
