//! Staging's folders, used in turn.
//!
//! A directory is locked while something is made in it or renamed out of it. One batch is staged, by two
//! threads where that helps, while the one before is published: in a folder each, none waits for another.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::beneath::Folder;
use super::error::MirrorError;

/// The folders: two for a batch, two for the one before.
const LANES: [&str; 4] = ["0", "1", "2", "3"];

/// One of the folders, for whoever stages things one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane(usize);

/// Which of the folders has its turn.
#[derive(Debug, Default)]
pub(super) struct Lanes(AtomicUsize);

impl Lanes {
    /// The next folder.
    pub fn next(&self) -> Lane {
        Lane(self.0.fetch_add(1, Ordering::Relaxed) % LANES.len())
    }
}

impl Lane {
    /// A name as a path in staging.
    pub(super) fn path(self, name: &str) -> String {
        format!("{}/{name}", LANES[self.0 % LANES.len()])
    }
}

/// Makes the folders that are not there.
pub(super) fn lay(staging: &Folder) -> Result<(), MirrorError> {
    for lane in LANES {
        staging.open_or_create(lane)?;
    }
    Ok(())
}

/// Whether all of the folders are there.
pub(super) fn are_laid(staging: &Folder) -> Result<bool, MirrorError> {
    for lane in LANES {
        if staging.open_folder(lane)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What lies in staging, as paths in it.
pub(super) fn contents(staging: &Folder) -> Result<Vec<String>, MirrorError> {
    let mut paths = Vec::new();
    for name in staging.names()? {
        match LANES.contains(&name.as_str()).then(|| staging.open(&name).ok()).flatten().flatten() {
            Some(lane) => {
                paths.extend(lane.names()?.into_iter().map(|inner| format!("{name}/{inner}")));
            }
            None => paths.push(name),
        }
    }
    Ok(paths)
}

/// What lies in the staging of the mirror at `path`.
#[cfg(test)]
pub fn staged(path: &std::path::Path) -> Vec<String> {
    let staging = Folder::open_path(&path.join(".plainfold/staging")).unwrap();
    contents(&staging).unwrap()
}
