//! No link is followed, and nothing is waited for.

use super::*;

/// A temporary folder, removed with its guard.
pub fn folder() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open_path(dir.path()).unwrap();
    (dir, folder)
}

#[test]
fn a_link_is_named_and_never_followed() {
    let (dir, folder) = folder();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
    let error = folder.open("link").unwrap_err().to_string();
    assert!(error.contains("symbolic link") && error.contains("/link"), "{error}");
    assert!(folder.open_file("link").unwrap().is_none());
}

#[test]
fn a_file_in_the_place_of_a_folder_is_set_aside_and_a_link_is_named() {
    let (dir, folder) = folder();
    std::fs::write(dir.path().join("staging"), "kept").unwrap();
    assert!(folder.open_or_rebuild("staging").unwrap().1, "it is made");
    assert!(!folder.open_or_rebuild("staging").unwrap().1, "and stays");
    let names = folder.names().unwrap();
    let kept = names.iter().find(|name| name.starts_with("staging.damaged-")).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join(kept)).unwrap(), "kept");
    std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
    let error = folder.open_or_rebuild("link").unwrap_err();
    assert!(matches!(error, MirrorError::InTheWay { .. }), "{error}");
}

#[test]
fn a_planted_pipe_is_not_waited_for() {
    let (dir, folder) = folder();
    let path = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert!(folder.open_file("pipe").unwrap().is_none());
}

#[test]
fn a_file_is_read_to_its_end_however_long_it_is_and_whatever_it_says() {
    let (dir, folder) = folder();
    for length in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 1] {
        std::fs::write(dir.path().join("f"), vec![b'x'; length]).unwrap();
        assert_eq!(folder.read_file("f").unwrap().unwrap().len(), length);
    }
    assert!(folder.read_file("none").unwrap().is_none());
    // Files that the kernel makes up claim a length of 0.
    let kernel = Folder::open_path(Path::new("/proc/self")).unwrap();
    assert!(kernel.read_file("status").unwrap().unwrap().ends_with(b"\n"));
    let mut names: Vec<_> = folder.entries().unwrap();
    names.extend(folder.entries().unwrap());
    let file = ("f".to_owned(), Some(FileType::RegularFile));
    assert_eq!(names, [file.clone(), file], "a folder is listed again from its beginning");
}

#[test]
fn both_parts_are_written_whole() {
    let (dir, folder) = folder();
    let mut file = folder.create_file("f").unwrap();
    write_all(&mut file, [b"body", b"\n"]).unwrap();
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"body\n");
}
