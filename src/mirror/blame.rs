//! How much of the work a failure of the file system concerns: one document, one collection, or all.
//!
//! An error number does not show this. The module tests whether the collection's folder and staging
//! can still be used.

use rustix::io::Errno;

use super::Mirror;
use super::collection::Collection;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{OURS, STAGING};

impl Collection {
    /// Refuses to write into a folder that has been replaced: everything written there would be
    /// lost.
    pub fn check_place(&self) -> Result<(), MirrorError> {
        let mirror = &self.mirror;
        match self.folder.is_at(&mirror.root, &self.encoded) {
            true => Ok(()),
            false => check(mirror, &self.folder, &self.encoded),
        }
    }

    /// The same error, marked if it concerns this collection alone.
    pub fn blame_end(&self, error: MirrorError) -> MirrorError {
        match self.blame(error) {
            Ok(error) if error.is_of_collection() => error,
            Ok(error) => MirrorError::OneCollection(Box::new(error)),
            Err(error) => error,
        }
    }

    /// The error, if it concerns one document alone. Otherwise fails with the error that ends the
    /// work on the collection, or all work.
    pub fn blame(&self, error: MirrorError) -> Result<MirrorError, MirrorError> {
        if !error.may_be_of_document() {
            return Err(error);
        }
        self.mirror.epoch.check()?;
        if !is_usable(&self.mirror)? {
            return Err(error);
        }
        check(&self.mirror, &self.folder, &self.encoded)?;
        Ok(error)
    }
}

/// The error that ends the work on a collection, marked if it concerns that collection alone.
pub(super) fn of_collection(mirror: &Mirror, error: MirrorError) -> MirrorError {
    let is_io = error.may_be_of_document() && !error.is_of_collection();
    match is_io && matches!(is_usable(mirror), Ok(true)) {
        true => MirrorError::OneCollection(Box::new(error)),
        false => error,
    }
}

/// Whether the parts of the mirror that all collections need exist and can be written to.
fn is_usable(mirror: &Mirror) -> Result<bool, MirrorError> {
    let Mirror { root, ours, staging, .. } = mirror;
    if root.refusal().or(staging.refusal()).is_some() {
        return Ok(false);
    }
    let (Some(ours_now), Some(now)) = (root.open_folder(OURS)?, ours.open_folder(STAGING)?) else {
        return Ok(false);
    };
    let same = |one: &Folder, other: &Folder| Ok(one.identity()? == other.identity()?);
    Ok(same(&ours_now, ours)? && same(&now, staging)? && mirror.epoch.check_lanes().is_ok())
}

/// Refuses a collection's folder that was replaced, that cannot be written to, or that nothing can
/// be renamed into.
pub(super) fn check(mirror: &Mirror, folder: &Folder, name: &str) -> Result<(), MirrorError> {
    let root = &mirror.root;
    let unusable = |reason: &str| Err(unusable(root, name, reason));
    let now = match root.open(name) {
        Err(error) if error.is_disk() => return Err(error),
        opened => opened.ok().flatten(),
    };
    let Some(now) = now else { return unusable("no longer exists") };
    if !now.place()?.reaches(&mirror.staging.place()?) {
        return unusable(
            "is on another file system than `.plainfold`, or is a mount point, so no document can be \
             renamed into it: unmount it, or mirror this collection into another directory",
        );
    }
    if now.identity()? != folder.identity()? {
        return unusable("was replaced by another folder");
    }
    match folder.refusal() {
        None => Ok(()),
        // The whole disk is read-only.
        Some(Errno::ROFS) => Err(folder.error("write to", ".", Errno::ROFS)),
        Some(error) => unusable(&format!(
            "cannot be written to: {}; allow this user to write to it",
            std::io::Error::from(error)
        )),
    }
}

fn unusable(root: &Folder, name: &str, reason: &str) -> MirrorError {
    MirrorError::CollectionFolder { path: root.path().join(name), reason: reason.to_owned() }
}
