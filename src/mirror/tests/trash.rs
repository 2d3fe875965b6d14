//! Deleted documents that are kept for a time.

use jiff::civil::Date;

use super::*;

fn today() -> Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// A mirror that keeps deleted documents for three days.
fn thrifty() -> MirrorOptions {
    MirrorOptions { trash_days: 3, ..MirrorOptions::default() }
}

/// The entries of the trash, as `<date>/<collection>/<document>`.
fn trash(bench: &Bench) -> Vec<String> {
    let top = bench.path("../.plainfold/trash");
    let walk = walkdir::WalkDir::new(&top).min_depth(3).max_depth(3).sort_by_file_name();
    let below = |entry: walkdir::DirEntry| entry.path().strip_prefix(&top).unwrap().to_owned();
    walk.into_iter()
        .filter_map(Result::ok)
        .map(|entry| below(entry).to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_deleted_goes_to_the_trash_as_often_as_it_is() {
    let bench = Bench::with(&thrifty());
    for revision in [1, 3] {
        bench.apply(&present("a", &format!("{revision}-x"), &[("f", "one")])).unwrap();
        bench.apply(&deleted("a", &format!("{}-x", revision + 1))).unwrap();
    }
    let today = today();
    assert_eq!(trash(&bench), [format!("{today}/books/a-1"), format!("{today}/books/a-2")]);
    let kept = |below: &str| {
        let place = bench.path(&format!("../.plainfold/trash/{today}/books/{below}"));
        fs::read_to_string(place).unwrap()
    };
    assert!(kept("a-1/document.json").contains("1-x"));
    assert!(kept("a-2/document.json").contains("3-x"));
    assert_eq!(kept("a-2/attachments/f"), "one");
    // Replacing is not deleting.
    bench.apply(&present("b", "1-x", &[("f", "one")])).unwrap();
    bench.apply(&present("b", "2-x", &[("f", "two")])).unwrap();
    assert_eq!(trash(&bench).len(), 2);
}

#[test]
fn without_being_asked_for_there_is_no_trash() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[])).unwrap();
    bench.apply(&deleted("a", "2-x")).unwrap();
    assert!(!bench.path("../.plainfold/trash").exists());
    // Nor does a crash move it there.
    let name = bench.collection.mirror.aside_deleted("books", Lane::default());
    assert!(name.contains("-removed~"), "{name}");
}

#[test]
fn each_collection_has_a_trash_of_its_own() {
    let bench = Bench::with(&thrifty());
    let mirror = Arc::clone(&bench.collection.mirror);
    let maps = mirror.collection(&"maps".into()).unwrap();
    let bench = (bench, Bench { dir: tempfile::tempdir().unwrap(), collection: maps });
    let mut published = Vec::new();
    for collection in [&bench.0.collection, &bench.1.collection] {
        let place = mirror.path().join(collection.name().as_str()).join("a");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("document.json"), "{\"_id\":\"a\"}\n").unwrap();
        let removal = Plan::Remove(collection.document_name("a"));
        let staged = collection.stage_removal(removal).unwrap();
        published.push(collection.publish(staged, Sync::Each).unwrap());
    }
    mirror.dispose(&published).unwrap();
    let today = today();
    assert_eq!(trash(&bench.0), [format!("{today}/books/a-1"), format!("{today}/maps/a-1")]);
}

/// The days of the trash, with the time since something was last put there, by the mirror's clock.
fn marked(bench: &Bench, days: &[(&str, i64)]) {
    let path = bench.path("../.plainfold/clock.json");
    let mut clock: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let hour = 60 * 60 * 1_000;
    let passed = 1_000 * hour;
    clock["seen"] = passed.into();
    for (day, hours) in days {
        clock["marks"][*day] = (passed - hours * hour).into();
    }
    fs::write(&path, clock.to_string()).unwrap();
}

#[test]
fn the_trash_is_emptied_of_what_has_lain_there_for_its_time() {
    let bench = Bench::with(&thrifty());
    bench.collection.mirror.clock().save();
    let top = bench.path("../.plainfold/trash");
    let put = |name: &str| fs::create_dir_all(top.join(name).join("books/a-1")).unwrap();
    // The names of the folders decide nothing.
    let (old, edge, unknown) = ("2099-01-01", "1970-01-01", "2001-01-01");
    for name in [old, edge, unknown, "notes"] {
        put(name);
    }
    marked(&bench, &[(old, 73), (edge, 71)]);
    // The trash was swept less than an hour ago.
    bench.collection.mirror.sweep_trash().unwrap();
    assert_eq!(trash(&bench).len(), 4);
    let bench = bench.reopened(&thrifty());
    let left = [edge, unknown, "notes"].map(|name| format!("{name}/books/a-1"));
    assert_eq!(trash(&bench), left);
    // An unknown day counts from now on.
    bench.collection.mirror.clock().save();
    marked(&bench, &[(unknown, 73)]);
    let bench = bench.reopened(&thrifty());
    assert_eq!(trash(&bench), [left[0].clone(), left[2].clone()]);
}

#[test]
fn what_a_crash_left_on_its_way_to_the_trash_comes_there() {
    let bench = Bench::with(&thrifty());
    let staged = bench.path("../.plainfold/staging/1-2");
    for (name, body) in [
        ("7-~books", Some("{\"_id\":\"a\",\"_rev\":\"1-x\"}\n")),
        ("8-~books", Some("torn")),
        ("9-~books", None),
    ] {
        fs::create_dir(staged.join(name)).unwrap();
        if let Some(body) = body {
            fs::write(staged.join(name).join("document.json"), body).unwrap();
        }
    }
    let bench = bench.reopened(&MirrorOptions::default());
    assert_eq!(trash(&bench), [""; 0], "it stays until its event is emitted");
    bench.collection.forget_interrupted().unwrap();
    let today = today();
    let expected = [format!("{today}/books/a-1"), format!("{today}/books/without an id-1")];
    assert_eq!(trash(&bench), expected);
    assert_eq!(crate::tree::lanes::staged(&bench.dir.path().join("mirror")), [""; 0]);
}
