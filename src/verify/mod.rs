//! Proves that a mirror is intact and equal to its source: reads every stored byte, and compares the
//! (id, revision) pairs with those of a source or of another mirror.
//!
//! It writes nothing and takes no lock, and another process may write to the mirror meanwhile.
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
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use crate::archive::{self, Archive, Problem, ProblemKind};
use crate::document::CollectionName;
use crate::source::Selection;

mod again;
mod against;
mod bytes;
mod document;
mod error;
mod inventory;
mod listing;
mod pairs;
mod progress;
mod reading;
mod restraint;
mod source;
mod spot;
mod tree;

pub use again::{UnderRepair, Wrong};
pub use against::{
    Certificate, CollectionCertificate, ComparedPlace, Depth, SourceAnswer, SourceContent,
};
pub use document::Counts;
pub use error::VerifyError;
pub use inventory::Coverage;
pub use listing::{Difference, DifferenceKind, Side};
pub use pairs::Comparison;
pub use progress::{Step, VerifyProgress, Work};
pub use reading::Suspect;
pub use restraint::{EACH, Pace, Restraint};
pub use spot::{SECURITY_ENTRY, Spot, Stretch, look_at, size_of, stretch};

use crate::tree::sorted::Sorted;
use bytes::Unchecked;
use listing::ListedRevisions;

/// The options of a verification.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The selected collections; `None` is all of the mirror's.
    pub collections: Option<Selection>,
    /// Whether a manifest will be written.
    pub manifest: bool,
    /// Treat it as success if a pattern matches no collection.
    pub allow_empty: bool,
    /// Where it is noted how far the verification is, if somebody watches it.
    pub progress: Option<Arc<VerifyProgress>>,
    /// How it is held back.
    pub restraint: Restraint,
}

/// A mirror of which every byte has been read.
#[derive(Debug)]
pub struct Verified {
    /// The results.
    pub report: Report,
    archive: Arc<dyn Archive>,
    listings: Vec<(String, ListedRevisions)>,
    suspects: Vec<Suspect>,
    unchecked: BTreeMap<CollectionName, Unchecked>,
    sums: Sorted,
    progress: Option<Arc<VerifyProgress>>,
}

/// The results for a mirror.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The mirror's directory.
    pub mirror: String,
    /// The content of each collection, by name.
    pub collections: Vec<CollectionReport>,
    /// The problems, by path. Only the first files without a checksum of each collection are listed;
    /// `unchecked` counts all of them.
    pub problems: Vec<Problem>,
    /// What cannot be determined for this mirror, in words.
    pub unknown: Option<String>,
    /// The number of leftovers of interrupted runs in staging. The next run removes them.
    pub leftovers: u64,
    /// The number of replaced or deleted files and folders that could not be removed, and are in
    /// `.plainfold/unremovable`.
    pub unremovable: u64,
    /// The duration.
    pub seconds: f64,
}

/// The content of a collection.
#[derive(Clone, Debug, Serialize)]
pub struct CollectionReport {
    /// Its name.
    pub collection: String,
    /// The documents and their digest. An unreadable document is not included.
    #[serde(flatten)]
    pub side: Side,
    /// Counts of everything else that was read.
    #[serde(flatten)]
    pub counts: Counts,
    /// The coverage of its inventory: uncovered documents may be lost without a trace. `None` for
    /// the output of RxDB's backup plugin.
    pub inventory: Option<Coverage>,
}

/// Reads every stored byte of the archive in `directory`. Blocks, and uses all processors.
pub fn verify(directory: &Path, options: &Options) -> Result<Verified, VerifyError> {
    verify_archive(archive::open(directory)?, &directory.display().to_string(), options)
}

/// The same of any archive. Reports call it by this name.
pub fn verify_archive(
    archive: Arc<dyn Archive>,
    name: &str,
    options: &Options,
) -> Result<Verified, VerifyError> {
    let started = Instant::now();
    let selection = match &options.collections {
        Some(selection) => {
            let (collections, _) = archive.collections()?;
            let names: Vec<_> = collections.iter().map(|one| one.name().clone()).collect();
            let selection = selection.resolved(&names, options.allow_empty);
            Some(selection.map_err(VerifyError::Selection)?)
        }
        None => None,
    };
    let (progress, restraint) = (options.progress.as_deref(), &options.restraint);
    let found = tree::read(&*archive, selection.as_ref(), options.manifest, progress, restraint)?;
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
        // Files that the inventory confirms are known to be intact.
        if found.counts.unchecked > 0 || found.denied > 0 {
            unchecked.insert(found.name.as_str().into(), found.unchecked);
        }
        listings.push((found.name, listed));
    }
    let report = Report {
        mirror: name.to_owned(),
        collections,
        problems: found.problems,
        unknown: archive.unknown().map(str::to_owned),
        leftovers: found.leftovers,
        unremovable: archive.unremovable(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let (suspects, sums) = (found.suspects, found.sums.finish());
    let progress = options.progress.clone();
    Ok(Verified { report, archive, listings, suspects, unchecked, sums, progress })
}

impl Verified {
    /// The documents with problems, and unexpected entries in place of documents.
    pub fn suspects(&self) -> &[Suspect] {
        &self.suspects
    }

    /// The names in a collection's folder with a problem, except files that have only lost their
    /// checksums.
    pub fn doubtful(&self, collection: &str) -> Result<HashSet<String>, VerifyError> {
        let folders = self.archive.collections()?.0;
        let folder = folders.iter().find(|folder| folder.name().as_str() == collection);
        let Some(folder) = folder else { return Ok(HashSet::new()) };
        let of_it = |problem: &Problem| {
            let within = problem.path.strip_prefix(folder.path())?.strip_prefix('/')?;
            let name = within.split('/').next().unwrap_or(within);
            (problem.kind != ProblemKind::Unchecked).then(|| name.to_owned())
        };
        Ok(self.report.problems.iter().filter_map(of_it).collect())
    }

    /// The inventory now lists the files that had only lost their checksums.
    pub fn note_stamped(&mut self) {
        self.report.problems.retain(|problem| problem.kind != ProblemKind::Unchecked);
        for collection in &mut self.report.collections {
            collection.counts.unchecked = 0;
            collection.inventory = Some(Coverage::Complete);
        }
    }

    /// Writes the manifest, if [`Options::manifest`] was set: a line for every intact file, by path,
    /// as `sha256sum -c` reads it in the mirror's directory. Our names contain neither a backslash
    /// nor a line feed; those of RxDB's backup plugin may, and are escaped.
    pub fn write_manifest(&self, mut out: impl Write) -> io::Result<()> {
        let problems = self.report.problems.iter();
        let blamed: HashSet<&str> = problems.map(|problem| &*problem.path).collect();
        for record in self.sums.iter()? {
            let record = record?;
            let path = String::from_utf8_lossy(&record.key);
            // The inventory's objections to a file, or to its folder, were only known later.
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

#[cfg(test)]
mod tests;
