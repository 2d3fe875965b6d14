//! Limits of the file system that concern one document or one collection affect only that one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::env::feed::FeedFile;
use crate::env::plainfold::Stream;
use crate::env::tiny::Tiny;
use crate::env::{Place, crashing, oracle, plainfold};

/// A feed with names of all lengths.
fn long_names(place: &Place) -> FeedFile {
    let mut feed = FeedFile::create(place.join("long.ndjson"));
    for length in [1, 100, 111, 112, 140, 143, 175, 200, 201, 400] {
        for letter in ["n", "é", "\u{1}"] {
            let id = letter.repeat(length);
            feed.put(&id, json!({ "length": length }), &[(&id, id.as_bytes())]);
        }
    }
    feed
}

/// The longest name in a tree.
fn longest(path: &Path) -> usize {
    let walk = walkdir::WalkDir::new(path).into_iter().map(Result::unwrap);
    walk.map(|entry| entry.file_name().len()).max().unwrap()
}

fn format_of(mirror: &Path) -> Value {
    serde_json::from_slice(&fs::read(mirror.join(".plainfold/format.json")).unwrap()).unwrap()
}

#[test]
fn on_a_file_system_with_short_names_all_of_a_mirror_keeps_to_them() {
    let place = Place::new();
    let mut feed = long_names(&place);
    let (source, mirror) = (feed.source(), place.mirror());
    let run = |more: &[&str]| {
        let base = ["mirror", &source, mirror.to_str().unwrap()];
        crashing::run_with_short_names(143, base.iter().chain(more)).assert_code(0)
    };
    run(&["--trash", "3", "--max-delete", "off"]);
    let format = format_of(&mirror);
    assert_eq!((&format["format"], &format["longest_name"]), (&json!(2), &json!(111)));
    assert_eq!(longest(&mirror), 111);
    let equal = |mirror: &Path| {
        plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
        let arguments = ["diff".as_ref(), mirror.as_os_str(), source.as_ref()];
        plainfold::run(arguments).assert_code(0);
    };
    equal(&mirror);
    run(&[]);
    // A copy keeps its names wherever it is, also without its `.plainfold`.
    let copy = place.join("copy");
    let copied = Command::new("cp").arg("-a").args([&mirror, &copy]).status();
    assert!(copied.unwrap().success());
    fs::remove_dir_all(copy.join(".plainfold")).unwrap();
    equal(&copy);
    plainfold::run(["mirror", &source, copy.to_str().unwrap(), "--adopt"]).assert_code(0);
    assert_eq!(format_of(&copy)["longest_name"], json!(111));
    equal(&copy);
    // What is restored has the ids themselves.
    let restored = place.join("restored.ndjson");
    let target = format!("feed:{}", restored.display());
    plainfold::run(["restore".as_ref(), mirror.as_os_str(), target.as_ref()]).assert_code(0);
    let text = fs::read_to_string(&restored).unwrap();
    assert!(text.contains(&format!("\"{}\"", "n".repeat(400))), "{text}");
    for length in [112, 400] {
        feed.delete(&"n".repeat(length));
    }
    run(&[]);
    equal(&mirror);
    assert!(longest(&mirror) <= 111 + 2, "in the trash they are numbered");
}

#[test]
fn in_a_mirror_that_was_made_for_longer_names_only_documents_that_have_them_fail() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("short", json!({}), &[]);
    plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
    let long = "n".repeat(150);
    feed.put(&long, json!({}), &[]);
    feed.put("attached", json!({}), &[(&long, b"x")]);
    feed.put("other", json!({}), &[("x", b"x")]);
    let mirror = place.mirror();
    let arguments = ["mirror", &feed.source(), mirror.to_str().unwrap()];
    let said = crashing::run_with_short_names(143, arguments).assert_code(1).stderr;
    assert!(said.contains("names of at most 143 bytes"), "{said}");
    for id in [&long, "attached"] {
        assert!(said.contains(&format!("document `{id}` was not mirrored")), "{said}");
    }
    assert!(mirror.join("shelf/other/attachments/x").exists());
    oracle::assert_clean(&mirror);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
}

#[test]
fn what_the_file_system_refuses_of_one_document_fails_that_document() {
    let refusals = [
        ("io-write", "EFBIG"),
        ("io-make-file", "EILSEQ"),
        ("io-make-folder", "EINVAL"),
        ("io-rename-new", "EPERM"),
        ("io-exchange", "EACCES"),
        ("io-rename", "EPERM"),
    ];
    for (operation, error) in refusals {
        let place = Place::new();
        let mut feed = FeedFile::create(place.join("shelf.ndjson"));
        let mirror = place.mirror();
        let mut turn = 0;
        let mut change = |feed: &mut FeedFile| {
            turn += 1;
            for number in 0..20 {
                let text = turn.to_string();
                let attachments = [("f", text.as_bytes())];
                let attachments = if number % 2 == 0 { &attachments[..] } else { &[] };
                feed.put(&format!("d{number}"), json!({ "turn": turn }), attachments);
                feed.put(&format!("new:{turn}:{number}"), json!({}), &[]);
            }
        };
        change(&mut feed);
        plainfold::mirror(&feed.source(), &mirror).assert_code(0);
        change(&mut feed);
        // Those of a start come first.
        let passings = if operation == "io-make-folder" { 24 } else { 4 };
        let arguments = ["mirror", &feed.source(), mirror.to_str().unwrap()];
        let ended = crashing::run_failing((operation, error), passings, arguments).assert_code(1);
        assert!(ended.stderr.contains(&format!("`{operation}` fails with {error}")), "{ended}");
        assert!(ended.stdout.contains("1 document failed"), "{ended}");
        oracle::assert_clean(&mirror);
        plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
        plainfold::mirror(&feed.source(), &mirror).assert_code(0);
        oracle::assert_equals_feed(feed.path(), &mirror);
        plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
    }
}

#[test]
fn a_file_that_is_too_large_for_the_file_system_fails_its_document_alone() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let large = vec![b'x'; 3_000_000];
    let files = place.join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("large"), &large).unwrap();
    for number in 0..5 {
        feed.put(&format!("before:{number}"), json!({}), &[("f", b"x")]);
    }
    let mut entries = serde_json::Map::new();
    let entry = json!({"content_type": "text/plain", "file": "files/large"});
    entries.insert("large".to_owned(), entry);
    feed.put_with("with:large", json!({}), entries);
    feed.put("inline:large", json!({}), &[("large", &large)]);
    for number in 0..5 {
        feed.put(&format!("after:{number}"), json!({}), &[("f", b"x")]);
    }
    let mirror = place.mirror();
    // Blocks of 512 bytes.
    let script = "ulimit -f 4096; exec \"$0\" mirror \"$1\" \"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_plainfold"), &feed.source()]).arg(&mirror);
    let ended = plainfold::run_command(command).assert_code(1);
    assert!(ended.stdout.contains("2 documents failed"), "{ended}");
    assert!(ended.stderr.contains("File too large"), "{ended}");
    assert_eq!(fs::read_dir(mirror.join("shelf")).unwrap().count(), 10);
    oracle::assert_clean(&mirror);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
}

#[test]
fn folders_that_cannot_be_moved_are_copied_and_removed() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let change = |turn: u32, feed: &mut FeedFile| {
        for number in 0..6 {
            let text = format!("{turn}");
            let attachments = [("f", text.as_bytes()), ("same", b"same")];
            feed.put(&format!("d{number}"), json!({ "turn": turn }), &attachments);
        }
    };
    change(0, &mut feed);
    let mirror = place.mirror();
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    change(1, &mut feed);
    let Some(overlay) = Overlay::mount(&place, &mirror) else { return };
    feed.delete("d4");
    let arguments = ["mirror", &feed.source(), overlay.0.to_str().unwrap(), "--trash", "9"];
    plainfold::run(arguments).assert_code(0);
    oracle::assert_equals_feed(feed.path(), &overlay.0);
    oracle::assert_clean(&overlay.0);
    plainfold::run(["verify".as_ref(), overlay.0.as_os_str()]).assert_code(0);
    let trash = overlay.0.join(".plainfold/trash");
    let names = walkdir::WalkDir::new(trash).into_iter().map(|entry| entry.unwrap().into_path());
    assert!(names.into_iter().any(|path| path.ends_with("d4-1/attachments/same")));
}

/// An overlay of a mirror; `None` where none can be mounted.
struct Overlay(std::path::PathBuf);

impl Overlay {
    fn mount(place: &Place, lower: &Path) -> Option<Self> {
        let folders = ["upper", "work", "merged"].map(|name| place.join(name));
        folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let [upper, work, merged] = folders;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged);
        if !mount.output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: an overlay cannot be mounted here");
            return None;
        }
        Some(Self(merged))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "it stays mounted");
    }
}

#[test]
fn a_file_system_without_attributes_is_as_good() {
    let Some(tiny) = Tiny::mount_as("ramfs", "mode=755") else { return };
    let place = Place::new();
    let feed = long_names(&place);
    let mirror = tiny.mirror();
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
    plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
}

/// Rows of two collections.
struct Two {
    place: Place,
    feed: FeedFile,
    turn: u32,
}

impl Two {
    fn mirrored() -> Self {
        let place = Place::new();
        let feed = FeedFile::create(place.join("both.ndjson"));
        let mut two = Self { place, feed, turn: 0 };
        two.change();
        plainfold::mirror(&two.feed.source(), &two.place.mirror()).assert_code(0);
        two
    }

    /// A new document in each collection. Gives its id.
    fn change(&mut self) -> String {
        self.turn += 1;
        let id = format!("d{}", self.turn);
        for collection in ["one", "two"] {
            let doc = json!({"_id": id, "_rev": "1-a"});
            let row = json!({"id": id, "collection": collection, "changes": [{"rev": "1-a"}], "doc": doc});
            self.feed.raw(format!("{row}\n").as_bytes());
        }
        id
    }
}

#[test]
fn a_collection_whose_folder_is_a_link_or_mounted_by_itself_fails_and_the_other_does_not() {
    for mounted in [false, true] {
        let mut two = Two::mirrored();
        let (mirror, aside) = (two.place.mirror(), two.place.join("aside"));
        let one = mirror.join("one");
        if mounted {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "none"]).arg(&one);
            if !mount.output().is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: nothing can be mounted here");
                return;
            }
        } else {
            fs::rename(&one, &aside).unwrap();
            std::os::unix::fs::symlink(&aside, &one).unwrap();
        }
        let id = two.change();
        let ended = plainfold::mirror(&two.feed.source(), &mirror);
        let outside = fs::read_dir(&one).unwrap().count();
        if mounted {
            let done = Command::new("umount").arg(&one).status();
            assert!(done.is_ok_and(|status| status.success()), "it stays mounted");
        } else {
            fs::remove_file(&one).unwrap();
            fs::rename(&aside, &one).unwrap();
        }
        let ended = ended.assert_code(5);
        let reason = if mounted { "another file system" } else { "a symbolic link" };
        assert!(ended.stderr.contains(reason), "{ended}");
        assert_eq!(outside, if mounted { 0 } else { 1 }, "nothing is written there");
        assert!(mirror.join("two").join(&id).exists(), "{ended}");
        plainfold::mirror(&two.feed.source(), &mirror).assert_code(0);
        oracle::assert_equals_feed(two.feed.path(), &mirror);
    }
}

#[test]
fn while_following_a_collection_whose_folder_vanishes_is_begun_again_and_the_other_never_stops() {
    let mut two = Two::mirrored();
    let mirror = two.place.mirror();
    let mut live = plainfold::live(&two.feed.source(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    fs::rename(mirror.join("one"), two.place.join("gone")).unwrap();
    for _ in 0..2 {
        let id = two.change();
        // In both collections, in any order.
        for _ in 0..2 {
            tail.wait_for_event(|event| event["documentId"] == *id);
        }
    }
    live.wait_for_line(Stream::Stderr, |line| line.contains("no longer exists"));
    live.terminate();
    live.wait().assert_code(0);
    oracle::assert_equals_feed(two.feed.path(), &mirror);
}

#[test]
fn a_limit_of_open_files_is_raised_and_what_is_left_of_it_is_said() {
    let mut two = Two::mirrored();
    let mirror = two.place.mirror();
    let source = two.feed.source();
    two.change();
    let shell = |limits: &str| {
        let program = env!("CARGO_BIN_EXE_plainfold");
        let script = format!("{limits}; exec \"$0\" mirror \"$1\" \"$2\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, program, &source]).arg(&mirror);
        plainfold::run_command(command)
    };
    shell("ulimit -Sn 24").assert_code(0);
    oracle::assert_equals_feed(two.feed.path(), &mirror);
    two.change();
    let when = two.place.join("when");
    let failure = ("io-make-file", "EMFILE");
    let mut live = crashing::live_failing(failure, 1, &when, &source, &mirror);
    fs::write(&when, "").unwrap();
    two.change();
    let said = live.wait_for_line(Stream::Stderr, |line| line.contains("the mirror waits"));
    assert!(said.contains("limit of open files") && said.contains("LimitNOFILE"), "{said}");
    live.wait_for_line(Stream::Stderr, |line| line.contains("files can be opened again"));
    live.terminate();
    live.wait().assert_code(0);
    plainfold::mirror(&source, &mirror).assert_code(0);
    oracle::assert_equals_feed(two.feed.path(), &mirror);
}
