//! The folders of staging, used in turn.
//!
//! A directory is locked while something is created in it or renamed out of it. One batch is staged,
//! by two threads if that helps, while the previous one is published. With a folder for each, none
//! waits for another.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::tree::MirrorError;
use crate::tree::beneath::Folder;

/// The folders: two for a batch, two for the previous one.
const LANES: [&str; 4] = ["0", "1", "2", "3"];

/// One of the folders, for callers that stage one file after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane(usize);

/// The folder whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Lanes(AtomicUsize);

impl Lanes {
    /// The next folder.
    pub fn next(&self) -> Lane {
        Lane(self.0.fetch_add(1, Ordering::Relaxed) % LANES.len())
    }
}

impl Lane {
    /// A name as a path in staging.
    pub(crate) fn path(self, name: &str) -> String {
        format!("{}/{name}", LANES[self.0 % LANES.len()])
    }
}

/// Creates the missing folders.
pub(crate) fn lay(staging: &Folder) -> Result<(), MirrorError> {
    for lane in LANES {
        staging.open_or_create(lane)?;
    }
    Ok(())
}

/// Whether all of the folders exist.
pub(crate) fn are_laid(staging: &Folder) -> Result<bool, MirrorError> {
    for lane in LANES {
        if staging.open_folder(lane)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The entries of staging, as paths in it.
pub(crate) fn contents(staging: &Folder) -> Result<Vec<String>, MirrorError> {
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

/// The entries of the staging of the mirror at `path`.
#[cfg(test)]
pub fn staged(path: &std::path::Path) -> Vec<String> {
    let staging = Folder::open_path(&path.join(".plainfold/staging")).unwrap();
    contents(&staging).unwrap()
}
