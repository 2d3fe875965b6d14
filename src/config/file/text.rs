//! The text of a config file, bounded in size. It knows nothing of what the text means.

use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::error::{FileError, FileProblem};

/// The largest config, in bytes. An entry with all keys has less than a thousandth of this.
const LARGEST: u64 = 4 << 20;

/// The text of a config, and the mode of its file. Blocks, but not for a pipe without a writer.
pub(super) fn text_of(path: &Path) -> Result<(String, u32), FileError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => FileError::Missing { path: path.to_owned() },
        _ => FileError::Io { path: path.to_owned(), source },
    };
    // A pipe without a writer would be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = std::fs::File::options().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(FileError::TooLarge { path: path.to_owned(), most: LARGEST });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let (line, text) = not_text(&error);
        FileError::Wrong { path: path.to_owned(), problems: vec![FileProblem { line, text }] }
    })?;
    Ok((text, found.permissions().mode() & 0o777))
}

fn not_text(error: &std::string::FromUtf8Error) -> (Option<usize>, String) {
    let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
    (Some(line), "it is not valid UTF-8: save it as UTF-8".to_owned())
}
