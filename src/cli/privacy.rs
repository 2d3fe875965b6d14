//! Who may read what this process creates: the umask by the mode of the mirror that it works on.
//!
//! It is set before there are threads, so that it holds for all files, those of the state included.

use std::path::Path;

use crate::document::FolderMode;
use crate::mirror;

/// Lets others read nothing of what this process creates, but what the mirror in `mirror` lets them;
/// `wanted` is the mode that was named for it.
pub fn apply(mirror: Option<&Path>, wanted: Option<FolderMode>) {
    // A mirror that cannot be looked at is reported when it is opened.
    let remembered = || mirror::Ours::find(mirror?).and_then(|ours| ours.mode()).ok();
    let mode = wanted.or_else(remembered).unwrap_or_default();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mode.umask()));
}

/// The same for a process that works on several mirrors: it may create what the most open one of them lets
/// others read. Folders and files get the mode of their own mirror.
pub fn apply_to_all<'a>(mirrors: impl Iterator<Item = (&'a Path, Option<FolderMode>)>) {
    let umask = |(mirror, wanted): (&Path, Option<FolderMode>)| {
        let remembered = || mirror::Ours::find(mirror).and_then(|ours| ours.mode()).ok();
        wanted.or_else(remembered).unwrap_or_default().umask()
    };
    let umask = mirrors.map(umask).fold(FolderMode::default().umask(), |all, one| all & one);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
}
