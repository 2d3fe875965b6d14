//! What the tests stand on: servers, a proxy that breaks connections, the binary, the oracle, trees.
//!
//! Nothing here knows Plainfold's modules. Waiting is always for something that can be seen, with
//! [`DEADLINE`] as the time after which it will not come.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod crashing;
pub mod disk;
pub mod door;
pub mod feed;
pub mod hostile;
pub mod http;
pub mod leaves;
pub mod oracle;
pub mod plainfold;
pub mod pouchdb;
pub mod proxy;
pub mod pty;
pub mod random;
pub mod tiny;
pub mod tls;
pub mod tree;

/// After this, what a test waits for will not come. Generous: machines of CI are slow.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The recorded feed of the invented library.
pub fn library() -> PathBuf {
    root().join("fixtures/library.ndjson")
}

/// A folder of the test's own, removed when it is dropped.
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
