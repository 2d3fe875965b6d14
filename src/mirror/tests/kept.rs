//! What publishing takes out of the tree is handed over before it is removed.

use std::sync::atomic::Ordering;

use super::*;

/// The body of `a` in its second revision, published over the first and not yet disposed of.
fn replaced(bench: &Bench) -> Published {
    bench.apply(&present("a", "1-x", &[("f", "one")])).unwrap();
    let change = present("a", "2-x", &[("f", "one")]);
    let Plan::Write(write) = bench.plan(&change) else { panic!("it is a change") };
    let (document, sync) = (change.document(), Sync::Each);
    let stage =
        bench.collection.stage(&document, write, Material::default(), sync, Lane::default());
    let published = bench.collection.publish(stage.unwrap(), sync).unwrap();
    assert!(bench.read("a/document.json").contains("2-x"));
    assert_eq!(bench.read("a/attachments/f"), "one");
    assert_eq!(published.tally, Some(Default::default()));
    published
}

#[test]
fn a_body_that_nobody_wants_is_overwritten() {
    let bench = Bench::new();
    let published = replaced(&bench);
    assert_eq!(published.replaced, None);
    assert_eq!(crate::tree::lanes::staged(&bench.dir.path().join("mirror")), [""; 0]);
}

#[test]
fn a_body_that_is_wanted_leaves_the_tree_whole_and_goes_after_the_commit() {
    let bench = Bench::new();
    let mirror = Arc::clone(&bench.collection.mirror);
    mirror.policy.bodies.store(true, Ordering::Release);
    let published = replaced(&bench);
    let kept = published.replaced.as_deref().unwrap();
    let old = mirror.staging.read_file(kept).unwrap().unwrap();
    assert!(String::from_utf8(old).unwrap().contains("1-x"));
    mirror.dispose([&published]).unwrap();
    assert_eq!(crate::tree::lanes::staged(&bench.dir.path().join("mirror")), [""; 0]);
}

#[test]
fn after_a_crash_the_next_run_removes_the_old_body_and_keeps_the_new_one() {
    let bench = Bench::new();
    bench.collection.mirror.policy.bodies.store(true, Ordering::Release);
    assert!(replaced(&bench).replaced.is_some());
    let bench = bench.reopened(&MirrorOptions::default());
    assert_eq!(crate::tree::lanes::staged(&bench.dir.path().join("mirror")), [""; 0]);
    assert!(bench.read("a/document.json").contains("2-x"));
    assert!(bench.apply(&present("a", "2-x", &[("f", "one")])).is_none());
}
