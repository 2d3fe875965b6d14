//! A snapshot of a directory tree, which shows what was written since, or that nothing was.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything beneath a directory except `.plainfold`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Of a file its content's hash, of a link its target.
    content: String,
}

/// A file or folder that was written between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Written {
    Made(PathBuf),
    Removed(PathBuf),
    /// With the same bytes or with others: its inode or its time of modification changed.
    Touched(PathBuf),
}

impl Written {
    pub fn path(&self) -> &Path {
        match self {
            Self::Made(path) | Self::Removed(path) | Self::Touched(path) => path,
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Made(_) => "made",
            Self::Removed(_) => "removed",
            Self::Touched(_) => "touched",
        };
        write!(f, "{verb} {}", self.path().display())
    }
}

impl Tree {
    /// Takes a snapshot of everything beneath `root`.
    pub fn of(root: &Path) -> Self {
        let walk = walkdir::WalkDir::new(root).min_depth(1).into_iter();
        let ours =
            |entry: &walkdir::DirEntry| entry.depth() == 1 && entry.file_name() == ".plainfold";
        let mut entries = BTreeMap::new();
        for entry in walk.filter_entry(|entry| !ours(entry)) {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(root).unwrap().to_owned();
            entries.insert(path, Entry::of(entry.path()));
        }
        Self { entries }
    }

    /// The entries that were written between this snapshot and a later one.
    pub fn until(&self, later: &Self) -> Vec<Written> {
        let mut written = Vec::new();
        for (path, entry) in &self.entries {
            match later.entries.get(path) {
                None => written.push(Written::Removed(path.clone())),
                Some(now) if now != entry => written.push(Written::Touched(path.clone())),
                Some(_) => {}
            }
        }
        let made = later.entries.keys().filter(|path| !self.entries.contains_key(*path));
        written.extend(made.cloned().map(Written::Made));
        written.sort();
        written
    }
}

impl Entry {
    fn of(path: &Path) -> Self {
        let metadata = path.symlink_metadata().unwrap();
        let (kind, content) = if metadata.is_symlink() {
            ("link", path.read_link().unwrap().display().to_string())
        } else if metadata.is_dir() {
            ("folder", String::new())
        } else if !metadata.is_file() {
            ("other", String::new())
        } else {
            ("file", blake3::hash(&std::fs::read(path).unwrap()).to_string())
        };
        Self {
            kind,
            inode: metadata.ino(),
            size: if kind == "folder" { 0 } else { metadata.size() },
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            content,
        }
    }
}

/// Runs `action` and asserts that nothing beneath `root` but `.plainfold` was written meanwhile.
pub fn assert_nothing_written<T>(root: &Path, action: impl FnOnce() -> T) -> T {
    let before = Tree::of(root);
    let result = action();
    let written = before.until(&Tree::of(root));
    let lines: Vec<String> = written.iter().map(Written::to_string).collect();
    assert!(lines.is_empty(), "written, though nothing was new:\n{}", lines.join("\n"));
    result
}

/// How many things a run has left in staging, whose own folders stay.
pub fn staged(mirror: &Path) -> usize {
    walkdir::WalkDir::new(mirror.join(".plainfold/staging")).min_depth(2).into_iter().count()
}
