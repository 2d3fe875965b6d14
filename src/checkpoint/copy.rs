//! Copies of the state's files.

use std::io;

use super::error::StateError;
use crate::place::Place;

/// Replaces the state's folder with a copy of the folder `from`, which may be the same.
pub(super) fn replace(above: &Place, from: &str, name: &str) -> Result<(), StateError> {
    let new = above.temporary(&format!("{name}.copy"));
    let copied = || {
        above.remove(&new)?;
        copy_folder(&above.open(from)?, above, &new, true)?;
        above.exchange(&new, name)?;
        above.sync()?;
        above.remove(&new)
    };
    copied().map_err(|source| StateError::io("copy", &above.at(name), source))
}

/// Copies the state's files into the folder `new` temporarily; says whether it did. If there is no
/// space, or no state, no copy is made.
pub(super) fn keep(above: &Place, name: &str, new: &str) -> io::Result<bool> {
    above.remove(new)?;
    if above.look(name)?.is_none() {
        return Ok(false);
    }
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    match copy_folder(&above.open(name)?, above, new, false) {
        Ok(()) => Ok(true),
        Err(error) if full.contains(&error.kind()) => above.remove(new).map(|()| false),
        Err(error) => Err(error),
    }
}

/// Copies the bytes of a folder without their modes, because it may be read-only. An entry that is
/// neither a file nor a folder, or that is removed meanwhile, is left out.
pub(super) fn copy_folder(
    from: &Place,
    above: &Place,
    name: &str,
    durably: bool,
) -> io::Result<()> {
    let to = above.create(name)?;
    for name in from.names()? {
        if from.look(&name)?.is_some_and(|found| found.is_folder()) {
            copy_folder(&from.open(&name)?, &to, &name, durably)?;
        } else if let Some(mut file) = from.open_file(&name)? {
            let mut copy = to.create_file(&name)?;
            io::copy(&mut file, &mut copy)?;
            if durably {
                copy.sync_all()?;
            }
        }
    }
    if durably { to.sync() } else { Ok(()) }
}
