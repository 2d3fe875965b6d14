//! What a mirror records about itself and its collections.

use super::*;

#[test]
fn a_codec_is_chosen_once() {
    let dir = tempfile::tempdir().unwrap();
    let portable = MirrorOptions { names: Some(Codec::Portable), ..MirrorOptions::default() };
    let native = MirrorOptions { names: Some(Codec::Native), ..MirrorOptions::default() };
    drop(open(dir.path(), &portable).unwrap());
    assert!(open(dir.path(), &MirrorOptions::default()).is_ok());
    assert!(matches!(open(dir.path(), &native), Err(MirrorError::OtherNames { .. })));
}

#[test]
fn from_outside_it_is_seen_who_holds_a_mirror() {
    let dir = tempfile::tempdir().unwrap();
    for nothing in [dir.path().to_owned(), dir.path().join("missing")] {
        let error = Ours::find(&nothing).unwrap_err();
        assert!(matches!(&error, MirrorError::NoMirror { path } if *path == nothing), "{error}");
    }
    let holder = Holder { socket: Some("/run/a.sock".into()), ..Holder::this_process("mirror") };
    let mirror = open(dir.path(), &MirrorOptions::default()).unwrap();
    let ours = Ours::find(dir.path()).unwrap();
    assert_eq!(ours.holder().unwrap().map(|holder| holder.socket), Some(None));
    mirror.describe_holder(&holder).unwrap();
    assert_eq!(ours.holder().unwrap(), Some(holder));
    drop(mirror);
    assert_eq!(ours.holder().unwrap(), None);
}

#[test]
fn a_collection_remembers_whom_it_follows_and_what_of_it_is_mirrored() {
    let dir = tempfile::tempdir().unwrap();
    let with = MirrorOptions::default();
    let without = MirrorOptions { attachments: false, ..with.clone() };
    let keeping = MirrorOptions { kept: Kept { revisions: true, deleted: true }, ..with.clone() };
    let collection =
        |options| open(dir.path(), options).unwrap().collection(&"books".into()).unwrap();
    let record = || {
        let path = dir.path().join(".plainfold/collections/books.json");
        fs::metadata(path).unwrap().ino()
    };
    let books = collection(&with);
    assert!(books.is_new() && books.followed().unwrap().is_none());
    books.follow("http://a/books").unwrap();
    drop(books);
    let before = record();
    let books = collection(&with);
    assert!(!books.is_new());
    assert_eq!(books.followed().unwrap().as_deref(), Some("http://a/books"));
    books.follow("http://a/books").unwrap();
    assert_eq!(record(), before, "nothing is written again");
    drop(books);
    for other in [&without, &keeping, &with] {
        let books = collection(other);
        let kept = other.kept;
        assert_eq!((books.mirrors_attachments(), books.kept()), (other.attachments, kept));
        books.follow("http://a/books").unwrap();
        drop(books);
        for now in [&without, &keeping, &with] {
            let recorded = collection(now).as_recorded().unwrap();
            assert_eq!(
                (recorded.mirrors_attachments(), recorded.kept()),
                (other.attachments, kept)
            );
        }
    }
    let books = collection(&with);
    books.follow("http://b/books").unwrap();
    assert_eq!(books.followed().unwrap().as_deref(), Some("http://b/books"));
}

#[test]
fn a_collection_that_came_to_hold_nothing_is_forgotten() {
    let bench = Bench::new();
    let mirror = &bench.collection.mirror;
    let record = bench.path("../.plainfold/collections/books.json");
    bench.apply(&present("a", "1-x", &[])).unwrap();
    mirror.forget_empty(&"books".into()).unwrap();
    assert!(record.exists() && bench.path("a").exists());
    bench.apply(&deleted("a", "2-x")).unwrap();
    mirror.forget_empty(&"books".into()).unwrap();
    assert!(!record.exists() && !bench.path("").exists());
}
