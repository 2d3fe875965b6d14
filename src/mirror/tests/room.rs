//! A disk that cannot be written.

use super::*;

#[test]
fn a_disk_is_at_fault_where_waiting_may_mend_it() {
    let failed = |errno| MirrorError::io("write", Path::new("a"), errno);
    for mends in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO] {
        assert!(failed(mends).is_disk(), "{mends}");
    }
    assert!(MirrorError::Reserve { path: "a".into(), free: 1, reserve: 2 }.is_disk());
    for stays in [Errno::ACCESS, Errno::NOENT, Errno::NOTDIR] {
        assert!(!failed(stays).is_disk(), "{stays}");
    }
    assert!(!MirrorError::NoMirror { path: "a".into() }.is_disk());
}

#[test]
fn after_a_failure_a_collection_clears_up_behind_itself_alone() {
    let bench = Bench::new();
    let staged = |name: &str| bench.path("../.plainfold/staging/1-2").join(name);
    for (name, id) in [("7~books", "a"), ("8-removed~books", "b"), ("9~maps", "c")] {
        fs::create_dir(staged(name)).unwrap();
        let body = format!(r#"{{"_id":"{id}","_rev":"1-x"}}"#);
        fs::write(staged(name).join("document.json"), body).unwrap();
    }
    bench.collection.clear_up().unwrap();
    assert!(!staged("7~books").exists() && staged("9~maps").exists());
    let mut in_doubt: Vec<_> = bench.collection.interrupted().into_keys().collect();
    in_doubt.sort();
    let in_doubt: Vec<_> = in_doubt.iter().map(|id| id.as_str()).collect();
    assert_eq!(in_doubt, ["a", "b"], "their events may be emitted again");
}

#[test]
fn a_probe_tells_whether_the_disk_can_be_written_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let reserving = |reserve| {
        let options = MirrorOptions { reserve, ..MirrorOptions::default() };
        open(dir.path(), &options).unwrap()
    };
    let mirror = reserving(1);
    mirror.probe().unwrap();
    assert_eq!(staged(dir.path()), [""; 0]);
    fs::remove_dir_all(dir.path().join(".plainfold/staging")).unwrap();
    mirror.probe().unwrap_err();
    drop(mirror);
    assert!(reserving(u64::MAX).probe().unwrap_err().is_disk());
}
