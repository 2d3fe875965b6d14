//! How much of the work a failure of the file system concerns: one document, one collection, or all.
//!
//! An error number does not show this. The module tests whether the collection's folder and staging
//! can still be used.

use rustix::io::Errno;

use super::Mirror;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{OURS, STAGING};

/// The error that ends the work on a collection, marked if it concerns that collection alone.
pub(super) fn of_collection(mirror: &Mirror, error: MirrorError) -> MirrorError {
    let is_io = error.may_be_of_document() && !error.is_of_collection();
    match is_io && matches!(is_usable(mirror), Ok(true)) {
        true => MirrorError::OneCollection(Box::new(error)),
        false => error,
    }
}

/// Whether the parts of the mirror that all collections need exist and can be written to.
pub(super) fn is_usable(mirror: &Mirror) -> Result<bool, MirrorError> {
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
