//! Proof that a mirror is whole, and that it equals its source: every stored byte is read, and the
//! (id, revision) pairs are compared with those of a source or of another mirror.
//!
//! Nothing is written, no lock is taken, and a mirror may be at work meanwhile. It must not know
//! checkpoints, pipelines, or which store a source is.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let place = tempfile::tempdir()?;
//! # let mirror = place.path();
//! # std::fs::create_dir(mirror.join(".plainfold"))?;
//! # let format = r#"{"format":1,"lineage":"","names":"native","created_by":"","created_at":""}"#;
//! # std::fs::write(mirror.join(".plainfold/format.json"), format)?;
//! let verified = plainfold::verify::verify(mirror, &Default::default())?;
//! assert!(verified.report.problems.is_empty());
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::document::CollectionName;
use crate::mirror::MirrorError;
use crate::mirror::read::{Problem, ProblemKind, Tree};
use crate::source::{Selection, SourceError};

mod again;
mod against;
mod bytes;
mod document;
mod inventory;
mod listing;
mod pairs;
mod source;
mod tree;

pub use again::{Again, Wrong};
pub use against::{Certificate, CollectionCertificate, Depth, Place, There, Word};
pub use document::Counts;
pub use inventory::Coverage;
pub use listing::{Difference, DifferenceKind, Side};
pub use pairs::Comparison;
pub use tree::Suspect;

use crate::mirror::sorted::Sorted;
use bytes::Unchecked;
use listing::Listed;

/// What is to be verified.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which collections; `None` is all of the mirror's.
    pub collections: Option<Selection>,
    /// Whether a manifest will be asked for.
    pub manifest: bool,
    /// Treat it as success if a pattern matches no collection.
    pub allow_empty: bool,
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The mirror cannot be read at all.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The selection is empty or cannot be compared.
    #[error("{0}")]
    Selection(String),
    /// Listings too large for memory go to temporary files.
    #[error(
        "a temporary file could not be used: {0}; free some space there, or set TMPDIR to another directory"
    )]
    Temporary(#[source] io::Error),
}

/// A mirror of which every byte has been read.
#[derive(Debug)]
pub struct Verified {
    /// What was found.
    pub report: Report,
    tree: Tree,
    listings: Vec<(String, Listed)>,
    suspects: Vec<Suspect>,
    unchecked: BTreeMap<CollectionName, Unchecked>,
    sums: Sorted,
}

/// What was found in a mirror.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The mirror's directory.
    pub mirror: String,
    /// What each collection holds, by name.
    pub collections: Vec<CollectionReport>,
    /// What is not as it should be, by path. Of files without a checksum only the first ones of each
    /// collection are here; `unchecked` counts all of them.
    pub problems: Vec<Problem>,
    /// What cannot be known of this mirror, in words, if anything cannot.
    pub unknown: Option<String>,
    /// How many files and folders an interrupted run has left in staging. The next run removes them.
    pub leftovers: u64,
    /// How many replaced or deleted things could not be removed, and are in `.plainfold/unremovable`.
    pub unremovable: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What a tree without its `.plainfold` does not say.
const UNKNOWN: &str = "without .plainfold, verify cannot tell whether documents are missing, \
                       whether files without a checksum were altered, whether all attachments were mirrored, and which source the mirror follows";

/// What a collection holds.
#[derive(Clone, Debug, Serialize)]
pub struct CollectionReport {
    /// Its name.
    pub collection: String,
    /// Documents and their digest. A document that cannot be read is in neither.
    #[serde(flatten)]
    pub side: Side,
    /// What else was read.
    #[serde(flatten)]
    pub counts: Counts,
    /// How far its inventory reaches: what that does not list may be lost without a trace. `None` for
    /// what RxDB's plugin wrote.
    pub inventory: Option<Coverage>,
}

/// Reads every stored byte of the mirror in `directory`. Blocks, and uses all processors.
pub fn verify(directory: &Path, options: &Options) -> Result<Verified, VerifyError> {
    let started = Instant::now();
    let tree = Tree::open(directory)?;
    let selection = match &options.collections {
        Some(selection) => Some(select(&tree, selection, options.allow_empty)?),
        None => None,
    };
    let found = tree::read(&tree, selection.as_ref(), options.manifest)?;
    let (mut collections, mut listings) = (Vec::new(), Vec::new());
    let mut unchecked = BTreeMap::new();
    for found in found.collections {
        let listed = found.listing.finish();
        let side = listed.side().map_err(VerifyError::Temporary)?;
        collections.push(CollectionReport {
            collection: found.name.clone(),
            side,
            counts: found.counts,
            inventory: found.coverage,
        });
        // Where the inventory vouches for all files, their bytes are known to be right.
        if found.counts.unchecked > 0 || found.denied > 0 {
            unchecked.insert(found.name.as_str().into(), found.unchecked);
        }
        listings.push((found.name, listed));
    }
    let report = Report {
        mirror: directory.display().to_string(),
        collections,
        problems: found.problems,
        unknown: tree.is_bare().then(|| UNKNOWN.to_owned()),
        leftovers: found.leftovers,
        unremovable: tree.unremovable(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let (suspects, sums) = (found.suspects, found.sums.finish());
    Ok(Verified { report, tree, listings, suspects, unchecked, sums })
}

/// What a selection means among the mirror's collections.
fn select(tree: &Tree, selection: &Selection, allow_empty: bool) -> Result<Selection, VerifyError> {
    let (collections, _) = tree.collections()?;
    let names: Vec<_> = collections.into_iter().map(|collection| collection.name).collect();
    match selection.unmatched(&names).first() {
        Some(pattern) if !allow_empty => Err(VerifyError::Selection(pattern.no_match(&names))),
        _ => Ok(selection.among(&names)),
    }
}

impl Verified {
    /// The names in a collection's folder of which something is wrong, but for files that have only lost
    /// their checksums.
    pub fn doubtful(&self, collection: &str) -> Result<HashSet<String>, VerifyError> {
        let folders = self.tree.collections()?.0;
        let folder = folders.iter().find(|folder| folder.name.as_str() == collection);
        let Some(folder) = folder else { return Ok(HashSet::new()) };
        let of_it = |problem: &Problem| {
            let within = problem.path.strip_prefix(folder.path())?.strip_prefix('/')?;
            let name = within.split('/').next().unwrap_or(within);
            (problem.kind != ProblemKind::Unchecked).then(|| name.to_owned())
        };
        Ok(self.report.problems.iter().filter_map(of_it).collect())
    }

    /// What had only lost its checksum is listed in the inventory now.
    pub fn note_stamped(&mut self) {
        self.report.problems.retain(|problem| problem.kind != ProblemKind::Unchecked);
        for collection in &mut self.report.collections {
            collection.counts.unchecked = 0;
            collection.inventory = Some(Coverage::Complete);
        }
    }

    /// Writes the manifest, if [`Options::manifest`] was set: a line for every file that was found
    /// well, by path, as `sha256sum -c` reads it from within the mirror's directory. Names of ours
    /// hold neither a backslash nor a line's end; those of RxDB's plugin may, and are escaped.
    pub fn write_manifest(&self, mut out: impl Write) -> io::Result<()> {
        let problems = self.report.problems.iter();
        let blamed: HashSet<&str> = problems.map(|problem| &*problem.path).collect();
        for record in self.sums.iter()? {
            let record = record?;
            let path = String::from_utf8_lossy(&record.key);
            // What the inventory has against a file, or against its folder, was found out later.
            if blamed.contains(&*path) || blamed.contains(again::document_path(&path)) {
                continue;
            }
            let escaped = path.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r");
            if escaped != path {
                out.write_all(b"\\")?;
            }
            out.write_all(&record.value)?;
            out.write_all(b"  ")?;
            out.write_all(escaped.as_bytes())?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}
