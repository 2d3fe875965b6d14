//! The folders of staging, used in turn.
//!
//! A directory is locked while something is created in it or renamed out of it. One batch is staged,
//! by two threads if that helps, while the previous one is published. With a folder for each, none
//! waits for another: two for a batch, two for the previous one. Which folders they are, the epoch
//! says.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FileType;

use crate::tree::beneath::Folder;
use crate::tree::epoch::{LANES, lane_of};
use crate::tree::{Epoch, MirrorError};

/// One of the folders, for callers that stage one file after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane(pub(crate) usize);

/// The folder whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Lanes(AtomicUsize);

impl Lanes {
    /// The next folder.
    pub fn next(&self) -> Lane {
        Lane(self.0.fetch_add(1, Ordering::Relaxed) % LANES)
    }
}

/// The entries of the lanes of an epoch, as paths in staging.
pub(crate) fn own(staging: &Folder, epoch: &Epoch) -> Result<Vec<String>, MirrorError> {
    let mut paths = Vec::new();
    for lane in 0..LANES {
        list(staging, &epoch.lane(lane), &mut paths)?;
    }
    Ok(paths)
}

/// The entries of staging in all lanes and beside them, as paths in it.
pub(crate) fn contents(staging: &Folder) -> Result<Vec<String>, MirrorError> {
    let mut paths = Vec::new();
    for name in staging.names()? {
        let is_lane = lane_of(&name);
        match staging.kind(&name)? {
            Some(FileType::Directory) if is_lane.is_some() => list(staging, &name, &mut paths)?,
            // It keeps a process out that another has replaced.
            Some(FileType::RegularFile) if is_lane.is_some_and(|(epoch, _)| epoch.is_some()) => {}
            _ => paths.push(name),
        }
    }
    Ok(paths)
}

fn list(staging: &Folder, lane: &str, paths: &mut Vec<String>) -> Result<(), MirrorError> {
    if let Some(folder) = staging.open(lane)? {
        paths.extend(folder.names()?.into_iter().map(|inner| format!("{lane}/{inner}")));
    }
    Ok(())
}

/// The entries of the staging of the mirror at `path`.
#[cfg(test)]
pub fn staged(path: &std::path::Path) -> Vec<String> {
    let staging = Folder::open_path(&path.join(".plainfold/staging")).unwrap();
    contents(&staging).unwrap()
}
