//! Sets aside files and folders that cannot be removed, in `.plainfold/unremovable/`, reports them,
//! and tries again at every start. The work never waits for them.

use std::path::Path;

use super::beneath::Folder;
use super::layout::UNREMOVABLE;
use super::{Epoch, MirrorError};

/// Removes an entry of staging, or sets aside what cannot be removed. Says whether staging no longer
/// contains it.
pub(crate) fn clear_away(
    epoch: &Epoch,
    ours: &Folder,
    staging: &Folder,
    path: &str,
) -> Result<bool, MirrorError> {
    let refused = match staging.remove(path) {
        Ok(()) => return Ok(true),
        Err(error) if error.is_disk() => return Err(error),
        Err(error) => {
            epoch.check()?;
            error
        }
    };
    let remedy = "every start tries to remove it again; remove it by hand, or fix its permissions";
    match set_aside(epoch, ours, staging, path) {
        Ok(to) => {
            let to = ours.path().join(UNREMOVABLE).join(to);
            tracing::warn!("{refused}; what remains was set aside as {}: {remedy}", to.display());
            Ok(true)
        }
        Err(error) if error.is_disk() => Err(error),
        Err(error) => {
            tracing::warn!("{refused}, and it cannot be set aside ({error}): {remedy}");
            Ok(false)
        }
    }
}

fn set_aside(
    epoch: &Epoch,
    ours: &Folder,
    staging: &Folder,
    path: &str,
) -> Result<String, MirrorError> {
    let (aside, _) = epoch.open_or_rebuild(ours, UNREMOVABLE)?;
    let inner = path.rsplit('/').next().unwrap_or(path);
    let number = inner.split('~').next().unwrap_or(inner);
    let name = format!("{}-{number}", jiff::Timestamp::now().as_millisecond());
    match staging.rename(path, &aside, &name) {
        Ok(()) => Ok(name),
        Err(error) => Err(aside.error("rename to", &name, error)),
    }
}

/// Tries to remove the entries that earlier runs could not remove. If some remain, that is reported
/// once.
pub(crate) fn sweep(epoch: &Epoch, ours: &Folder) -> Result<(), MirrorError> {
    let Some(aside) = ours.open_folder(UNREMOVABLE)? else { return Ok(()) };
    let (mut left, mut example) = (0_u64, None);
    for name in aside.names()? {
        // A part of it may stay, so it is not moved to a lane first.
        epoch.check_lanes()?;
        match aside.remove(&name) {
            Ok(()) => {}
            Err(error) if error.is_disk() => return Err(error),
            Err(error) => {
                left += 1;
                example.get_or_insert(error);
            }
        }
    }
    if let Some(error) = example {
        tracing::warn!("{}", said(left, ours.path(), &error.to_string()));
    }
    Ok(())
}

fn said(left: u64, ours: &Path, example: &str) -> String {
    let (what, them) = match left {
        1 => ("1 file or folder".to_owned(), "it"),
        _ => (format!("{left} files or folders"), "them"),
    };
    format!(
        "{what} in {} still cannot be removed (for example: {example}): remove {them} by hand, or fix \
         the permissions",
        ours.join(UNREMOVABLE).display(),
    )
}

/// The number of entries that could not be removed.
pub(crate) fn count(ours: &Folder) -> u64 {
    let names = ours.open_folder(UNREMOVABLE).ok().flatten().and_then(|folder| folder.names().ok());
    names.map_or(0, |names| names.len() as u64)
}
