//! Who may read what this process creates: the umask by the mode of the mirror that it works on.
//!
//! It is set before there are threads, so that it holds for all files, those of the state included.
//! `plainfold run` sets it when it reads its config, before it opens mirrors, and a command that was given
//! the name of a mirror when it knows the directory.

use std::path::Path;

use rustix::fs::Mode;
use rustix::process::umask;

use crate::document::FolderMode;
use crate::mirror;

/// Lets others read nothing of what this process creates, but what the mirror in `mirror` lets them;
/// `wanted` is the mode that was named for it.
pub fn apply(mirror: Option<&Path>, wanted: Option<FolderMode>) {
    umask(Mode::from_raw_mode(umask_of(mirror, wanted)));
}

/// The same for a process that works on several mirrors: it may create what the most open one of them lets
/// others read. Folders and files get the mode of their own mirror.
pub fn apply_to_all<'a>(mirrors: impl Iterator<Item = (&'a Path, Option<FolderMode>)>) {
    let each = mirrors.map(|(mirror, wanted)| umask_of(Some(mirror), wanted));
    umask(Mode::from_raw_mode(each.fold(umask_of(None, None), |all, one| all & one)));
}

fn umask_of(mirror: Option<&Path>, wanted: Option<FolderMode>) -> u32 {
    // A mirror that cannot be looked at is reported when it is opened.
    let remembered = || mirror::Ours::find(mirror?).and_then(|ours| ours.mode()).ok();
    wanted.or_else(remembered).unwrap_or_default().umask()
}
