//! Where the directories of mirrors really are: no two mirrors share a directory, none is inside
//! another one, and none contains the config.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::MirrorEntry;
use super::error::FileProblem;

/// The number of links that lead from one to the next, at most; as many as Linux follows.
const MOST_LINKS: usize = 40;

/// A directory, or one in which it is: by its path without links, and by its identity if it exists.
/// Two paths may lead to one directory without a link, by a mount.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Path(PathBuf),
    Inode(u64, u64),
}

/// Notes the directories that are in the way of each other; `lines` are those of the entries.
pub(super) fn check(
    mirrors: &[MirrorEntry],
    lines: &[usize],
    config: &Path,
    problems: &mut Vec<FileProblem>,
) {
    let places: Vec<PathBuf> = mirrors.iter().map(|entry| real(&entry.directory)).collect();
    let mut owners: HashMap<Mark, usize> = HashMap::new();
    let named = |at: usize| format!("`{}` (line {})", mirrors[at].name, lines[at]);
    let mut note = |at: usize, text| problems.push(FileProblem { line: Some(lines[at]), text });
    for (at, place) in places.iter().enumerate() {
        let taken = marks(place).find_map(|mark| owners.get(&mark).copied());
        match taken {
            Some(other) => note(
                at,
                format!(
                    "{} and {} have the same directory {}: give each its own",
                    named(other),
                    named(at),
                    place.display()
                ),
            ),
            None => owners.extend(marks(place).map(|mark| (mark, at))),
        }
    }
    for (at, place) in places.iter().enumerate() {
        let above = place.ancestors().skip(1);
        let outer = above.flat_map(marks).find_map(|mark| owners.get(&mark).copied());
        if let Some(outer) = outer {
            note(
                at,
                format!(
                    "the directory of {}, {}, is inside that of {}, {}: a mirror must not contain another one",
                    named(at),
                    place.display(),
                    named(outer),
                    places[outer].display()
                ),
            );
        }
    }
    let config = real(config);
    let around = config.ancestors().skip(1).flat_map(marks);
    let mut around = around.filter_map(|mark| owners.get(&mark).copied());
    if let Some(at) = around.next() {
        let text = format!(
            "the directory of {}, {}, contains this config: give the mirror a directory of its own",
            named(at),
            places[at].display()
        );
        note(at, text);
    }
}

fn marks(place: &Path) -> impl Iterator<Item = Mark> {
    let found = place.metadata().ok().map(|found| Mark::Inode(found.dev(), found.ino()));
    std::iter::once(Mark::Path(place.to_owned())).chain(found)
}

/// An absolute path without links, `.` and `..`, whether or not it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut todo: VecDeque<OsString> = parts(path).into();
    let (mut done, mut links) = (PathBuf::new(), 0);
    while let Some(part) = todo.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                done.pop();
            }
            Some(Component::Normal(name)) => match done.join(name).read_link() {
                Ok(target) if links < MOST_LINKS => {
                    links += 1;
                    parts(&target).into_iter().rev().for_each(|part| todo.push_front(part));
                }
                _ => done.push(name),
            },
            // An absolute target begins at the root.
            Some(Component::RootDir) => done = PathBuf::from("/"),
            _ => {}
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_steps_upwards_are_followed_whether_or_not_the_end_exists() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a/b", root.join("relative")).unwrap();
        symlink(root.join("a"), root.join("absolute")).unwrap();
        symlink("nowhere/x", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for (path, expected) in [
            ("a/./b/../b", "a/b"),
            ("relative/c", "a/b/c"),
            ("relative/..", "a"),
            ("absolute/b/new/deep", "a/b/new/deep"),
            ("dangling", "nowhere/x"),
            ("new/../a", "a"),
            ("loop/x", "loop/x"),
        ] {
            assert_eq!(real(&root.join(path)), root.join(expected), "{path}");
        }
        assert_eq!(real(Path::new("/../..")), Path::new("/"));
    }
}
