//! The environment of the tests: servers, a proxy that injects faults, the binary, the oracle,
//! trees.
//!
//! Nothing here knows Plainfold's modules. Tests wait only for observable events, with [`DEADLINE`]
//! as the time limit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use walkdir::{DirEntry, WalkDir};

pub mod agent;
pub mod browser;
pub mod crashing;
pub mod disk;
pub mod door;
pub mod feed;
pub mod hostile;
pub mod http;
pub mod leaves;
pub mod npm;
pub mod oracle;
pub mod plainfold;
pub mod pouchdb;
pub mod proxy;
pub mod pty;
pub mod random;
pub mod schemathesis;
pub mod tiny;
pub mod tls;
pub mod tree;

/// The time limit for anything that a test waits for. Generous, because CI machines are slow.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of a folder with one of these extensions, but those of builds and of packages, in order.
pub fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    const SKIPPED: [&str; 3] = ["target", "node_modules", ".git"];
    let is_searched = |entry: &DirEntry| !SKIPPED.iter().any(|name| entry.file_name() == *name);
    let entries = WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(is_searched);
    let paths = entries.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().is_file());
    let ends = |path: &PathBuf| {
        path.extension().is_some_and(|end| extensions.iter().any(|one| end == *one))
    };
    paths.map(DirEntry::into_path).filter(ends).collect()
}

/// The recorded feed of the invented library.
pub fn library() -> PathBuf {
    root().join("fixtures/library.ndjson")
}

/// A folder for one test, removed when it is dropped.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// An empty place.
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("plainfold-it-").tempdir().unwrap() }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the test's mirror goes. Not made here.
    pub fn mirror(&self) -> PathBuf {
        self.path().join("mirror")
    }

    /// Another path in this place.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}
