//! What the hooks are in a build that is used: nothing.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use super::Reach;

/// Passes a point at which a test may have the process abort.
#[inline]
pub fn pass(_point: &str) {}

/// Does something to the file system, which a test may have fail.
#[inline]
pub fn attempt<T>(_operation: &str, run: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    run()
}

/// The most bytes of a name, where that is less than the file system says.
#[inline]
pub fn longest_name() -> Option<u64> {
    None
}

/// Refuses a name that is longer.
#[inline]
pub fn limited(_name: &str) -> Result<(), Errno> {
    Ok(())
}

/// A file or folder was created.
#[inline]
pub fn made(_folder: impl AsFd, _name: &str) {}

/// A name was moved over another.
#[inline]
pub fn renamed(_folder: impl AsFd, _name: &str, _to: impl AsFd, _new_name: &str) {}

/// Two names were swapped.
#[inline]
pub fn exchanged(_folder: impl AsFd, _name: &str, _other: impl AsFd, _other_name: &str) {}

/// A file was given a second name.
#[inline]
pub fn linked(_folder: impl AsFd, _name: &str, _to: impl AsFd, _new_name: &str) {}

/// A name was removed.
#[inline]
pub fn removed(_folder: impl AsFd, _name: &str) {}

/// Bytes were appended to a file.
#[inline]
pub fn written(_file: impl AsFd, _bytes: &[u8]) {}

/// Runs `sync`, which makes `what` durable as far as `reach` says.
#[inline]
pub fn synced<E>(
    _what: impl AsFd,
    _reach: Reach,
    sync: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    sync()
}

/// The state in this folder was committed durably.
#[inline]
pub fn committed(_state: &Path) {}
