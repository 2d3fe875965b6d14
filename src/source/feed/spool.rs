//! The text of a compressed feed file, in a temporary file without a name: rows, positions and
//! attachments are read from there as from a plain feed.
//!
//! The file belongs to the process and vanishes with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::begun::Begun;
use super::loaded::{Check, Stop};
use super::packed::Damage;
use crate::source::SourceError;

/// How much text is written at a time.
const BLOCK: usize = 256 * 1024;

/// A decompressed text.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    /// The text, up to the damage if there is any.
    pub text: Arc<File>,
    /// What is wrong with the compressed data.
    pub damage: Option<Arc<Damage>>,
    stamp: Stamp,
}

/// By what a compressed file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let data = file.metadata()?;
        let modified = (data.mtime(), data.mtime_nsec());
        Ok(Self { device: data.dev(), inode: data.ino(), length: data.len(), modified })
    }
}

impl Spool {
    /// Whether this is the text of that compressed file as it is now.
    pub fn is_of(&self, packed: &File) -> io::Result<bool> {
        Ok(Stamp::of(packed)? == self.stamp)
    }

    /// Decompresses `packed`, whose text is `begun`, to the end or to where the data is damaged.
    /// An error of reading is given back by `unreadable`; `path` is for messages.
    pub fn fill(
        packed: &File,
        mut begun: Begun,
        path: &Path,
        unreadable: &dyn Fn(&io::Error) -> SourceError,
        check: Check<'_>,
    ) -> Result<Self, Stop<SourceError>> {
        let no_room = |error: io::Error| {
            let folder = std::env::temp_dir();
            Stop::Failed(SourceError::permanent(format!(
                "{} cannot be decompressed into the temporary folder {}: {error}; set TMPDIR to a \
                 folder with room for the whole text",
                path.display(),
                folder.display(),
            )))
        };
        let failed = |error: &io::Error| Stop::Failed(unreadable(error));
        // Taken first: a file that changes meanwhile is decompressed again.
        let stamp = Stamp::of(packed).map_err(|error| failed(&error))?;
        let mut text = tempfile::tempfile().map_err(no_room)?;
        let mut block = vec![0; BLOCK];
        let mut damage = None;
        loop {
            check()?;
            match begun.read(&mut block) {
                Ok(0) => break,
                Ok(read) => text.write_all(&block[..read]).map_err(no_room)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => match Damage::from(error) {
                    Ok(found) => {
                        damage = Some(Arc::new(found));
                        break;
                    }
                    Err(error) => return Err(failed(&error)),
                },
            }
        }
        Ok(Self { text: Arc::new(text), damage, stamp })
    }
}
