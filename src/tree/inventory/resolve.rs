//! The present content of a folder of the tree, for records that are not settled: after a crash the
//! tree shows which of them were applied.

use std::fs::File;
use std::io;

use rustix::fs::FileType;

use super::{Contents, FileSum};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::checksum::checksum;
use crate::tree::layout::SECURITY;

/// Whether the checksums beside the files are trusted, or every byte is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The checksum beside a file, if there is one.
    Noted,
    /// The bytes of the file.
    Bytes,
}

/// The content under a name in a collection's folder; `None` if the name does not exist.
pub(crate) fn found_in(
    collection: &Folder,
    name: &str,
    trust: Trust,
) -> Result<Option<Contents>, MirrorError> {
    let mut contents = Contents::new();
    if name == SECURITY {
        let Some(file) = collection.open_file(name)? else { return Ok(None) };
        contents.insert(String::new(), sum_of(collection, name, &file, trust)?);
        return Ok(Some(contents));
    }
    let Some(folder) = collection.open_folder(name)? else { return Ok(None) };
    collect(&folder, "", trust, &mut contents)?;
    Ok(Some(contents))
}

fn collect(
    folder: &Folder,
    below: &str,
    trust: Trust,
    contents: &mut Contents,
) -> Result<(), MirrorError> {
    for (name, kind) in folder.entries()? {
        match kind {
            Some(FileType::RegularFile) => {
                let Some(file) = folder.open_file(&name)? else { continue };
                let sum = sum_of(folder, &name, &file, trust)?;
                contents.insert(format!("{below}{name}"), sum);
            }
            Some(FileType::Directory) => {
                if let Some(inner) = folder.open_folder(&name)? {
                    collect(&inner, &format!("{below}{name}/"), trust, contents)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn sum_of(folder: &Folder, name: &str, file: &File, trust: Trust) -> Result<FileSum, MirrorError> {
    let read = || -> io::Result<FileSum> {
        let length = file.metadata()?.len();
        let noted = (trust == Trust::Noted).then(|| checksum(file).ok()).flatten();
        let sum = match noted {
            Some(noted) => noted,
            None => *blake3::Hasher::new().update_reader(file)?.finalize().as_bytes(),
        };
        Ok(FileSum { length, sum: Some(sum) })
    };
    read().map_err(|error| MirrorError::io("read", folder.path().join(name), error))
}
