//! The hooks in a build without failpoints: they do nothing.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use super::Reach;

/// A point at which a test may abort the process.
#[inline]
pub fn pass(_point: &str) {}

/// Runs an operation of the file system, which a test may let fail.
#[inline]
pub fn attempt<T>(_operation: &str, run: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    run()
}

/// The longest name in bytes, if a test sets a lower limit than the file system.
#[inline]
pub fn longest_name() -> Option<u64> {
    None
}

/// Refuses a longer name.
#[inline]
pub fn limited(_name: &str) -> Result<(), Errno> {
    Ok(())
}

/// Records that a file or folder was created.
#[inline]
pub fn made(_folder: impl AsFd, _name: &str) {}

/// Records that a name replaced another.
#[inline]
pub fn renamed(_folder: impl AsFd, _name: &str, _to: impl AsFd, _new_name: &str) {}

/// Records that two names were swapped.
#[inline]
pub fn exchanged(_folder: impl AsFd, _name: &str, _other: impl AsFd, _other_name: &str) {}

/// Records that a file was given a second name.
#[inline]
pub fn linked(_folder: impl AsFd, _name: &str, _to: impl AsFd, _new_name: &str) {}

/// Records that a name was removed.
#[inline]
pub fn removed(_folder: impl AsFd, _name: &str) {}

/// Records that bytes were appended to a file.
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

/// Records that the state in this folder was committed durably.
#[inline]
pub fn committed(_state: &Path) {}
