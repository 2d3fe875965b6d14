//! Only its owner can read a mirror, unless the mode allows more; and `--existing` forbids creating
//! one.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::{Place, library};

/// Runs the program under a umask.
fn under(umask: &str, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("sh");
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_plainfold")]).args(arguments);
    plainfold::run_command(command)
}

/// Everything beneath a folder, itself included, whose mode is not the one for its kind.
fn others(folder: &Path, mode: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let wanted = match metadata.file_type() {
            kind if kind.is_dir() => mode,
            kind if kind.is_socket() => 0o600,
            _ => mode & 0o666,
        };
        let found = metadata.permissions().mode() & 0o7777;
        if found != wanted {
            wrong.push(format!("{} has {found:o}", path.display()));
        }
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    wrong
}

#[test]
fn a_mirror_is_private_unless_a_mode_is_named_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        for (named, mode) in [(None, 0o700), (Some("0750"), 0o750), (Some("777"), 0o777)] {
            let place = Place::new();
            let to = place.mirror();
            let mut feed = FeedFile::create(place.join("shelf.ndjson"));
            feed.put("book", json!({}), &[("note.txt", b"first")]);
            let source = feed.source();
            let mut arguments = vec!["mirror", &source, to.to_str().unwrap(), "--trash=9"];
            if let Some(named) = named {
                arguments.extend(["--mode", named]);
            }
            under(umask, &arguments).assert_code(0);
            let none: [String; 0] = [];
            assert_eq!(others(&to, mode), none, "umask {umask}, {named:?}");
            // It is remembered; everything that later commands write is as private.
            feed.put("more", json!({}), &[("note.txt", b"second")]);
            feed.delete("book");
            under(umask, &arguments[..3]).assert_code(0);
            under(umask, &["release", to.to_str().unwrap(), "shelf"]).assert_code(0);
            under(umask, &["verify", to.to_str().unwrap(), "--repair", "--against", &source])
                .assert_code(0);
            fs::remove_dir_all(to.join(".plainfold/state")).unwrap();
            under(umask, &arguments[..3]).assert_code(0);
            assert_eq!(others(&to, mode), none, "later: umask {umask}, {named:?}");
            let running = plainfold::live(&source, &to);
            assert_eq!(others(&to, mode), none, "live: umask {umask}, {named:?}");
            running.terminate();
            running.wait().assert_code(0);
        }
    }
}

#[test]
fn a_mirror_that_was_made_for_others_to_read_stays_so() {
    let place = Place::new();
    let to = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({}), &[]);
    plainfold::mirror(&feed.source(), &to).assert_code(0);
    // As an older version left it.
    let opened = Command::new("chmod").args(["-R", "go=rX"]).arg(&to).status().unwrap();
    assert!(opened.success());
    feed.put("more", json!({}), &[("note.txt", b"second")]);
    plainfold::mirror(&feed.source(), &to).assert_code(0);
    let none: [String; 0] = [];
    assert_eq!(others(&to, 0o755), none);
    let path = to.to_str().unwrap();
    let said = under("022", &["mirror", &feed.source(), path, "--mode=0750"]).assert_code(0);
    assert!(said.stderr.contains("--mode changes from 0755 to 0750"), "{said}");
    let advice = format!("chmod -R u=rwX,g=rX,o= {}", to.display());
    assert!(said.stderr.contains(&advice), "what is there keeps its mode, which is said: {said}");
    assert!(Command::new("sh").args(["-c", &advice]).status().unwrap().success());
    assert_eq!(others(&to, 0o750), none);
}

#[test]
fn a_mode_that_would_lock_us_out_is_refused() {
    let place = Place::new();
    let to = place.mirror();
    let source = crate::env::feed::source(&library());
    for bad in ["0", "0600", "077", "2750", "rwx"] {
        let mode = format!("--mode={bad}");
        let said = plainfold::run(["mirror", &source, to.to_str().unwrap(), &mode]).assert_code(2);
        assert!(said.stderr.contains("in octal, from 0700 to 0777"), "{said}");
        assert!(!to.exists());
    }
}

#[test]
fn what_is_restored_into_a_feed_is_private() {
    let place = Place::new();
    let to = place.mirror();
    plainfold::mirror(&crate::env::feed::source(&library()), &to).assert_code(0);
    let target = place.join("out.ndjson");
    let feed = crate::env::feed::source(&target);
    under("000", &["restore", to.to_str().unwrap(), &feed]).assert_code(0);
    let sums = place.join("sums");
    under("000", &["verify", to.to_str().unwrap(), "--manifest", sums.to_str().unwrap()])
        .assert_code(0);
    for file in [target, sums] {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{}", file.display());
    }
}

#[test]
fn a_mirror_that_has_to_exist_is_not_begun_anew() {
    let place = Place::new();
    let to = place.mirror();
    let source = crate::env::feed::source(&library());
    let run = || plainfold::run(["mirror", &source, to.to_str().unwrap(), "--existing"]);
    // The mount point is missing, or is there and empty, or holds what the file system below it does.
    for mount in ["missing", "empty", "other files"] {
        match mount {
            "missing" => {}
            "empty" => fs::create_dir(&to).unwrap(),
            _ => fs::write(to.join("notes"), "somebody's own").unwrap(),
        }
        let said = run().assert_code(5);
        assert!(said.stderr.contains("`--existing` forbids"), "{mount}: {said}");
        assert!(said.stderr.contains("mounted"), "{mount}: {said}");
        assert_eq!(to.exists(), mount != "missing");
        assert!(!to.join(".plainfold").exists(), "{mount}");
    }
    fs::remove_dir_all(&to).unwrap();
    plainfold::mirror(&source, &to).assert_code(0);
    run().assert_code(0);
}
