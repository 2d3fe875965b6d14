//! Builds an inventory from the present content of a collection's folder, for mirrors of older
//! versions and for copies without an inventory.

use std::collections::HashSet;

use rustix::fs::XattrFlags;
use serde::Serialize;

use crate::mirror::collection::Collection;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::checksum::CHECKSUM_ATTRIBUTE;
use crate::tree::checksum::{Unnoted, checksum};
use crate::tree::inventory::read::{Scan, records_of};
use crate::tree::inventory::resolve::{Trust, found_in};
use crate::tree::inventory::{Contents, Recorded, State};
use crate::tree::layout::{SECURITY, inventory_file};

/// The result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stamped {
    /// Documents that are listed now, tombstones included.
    pub documents: u64,
    /// Files whose checksum was noted beside them again.
    pub noted: u64,
}

impl Collection {
    /// Lists the present content of the folder, after reading every byte. Entries under `doubtful`
    /// names stay as they were recorded, or uncovered. Nobody may be writing to the collection.
    pub fn stamp_tree(&self, doubtful: &HashSet<String>) -> Result<Stamped, MirrorError> {
        let inventories = &self.mirror.inventories;
        let name = inventory_file(&self.encoded);
        let mut recorded = match inventories.open_file(&name)? {
            None => std::collections::HashMap::new(),
            Some(file) => {
                let failed = |error| MirrorError::io("read", inventories.path().join(&name), error);
                let scan = Scan::of(&file).map_err(failed)?;
                records_of(&file, &scan, |name| doubtful.contains(name)).map_err(failed)?
            }
        };
        let mut stamped = Stamped::default();
        let mut names = self.folder.each_name()?;
        let mut left: Vec<Recorded> = Vec::new();
        let mut ended = false;
        let mut next = || -> Result<Option<Recorded>, MirrorError> {
            loop {
                if ended {
                    return Ok(left.pop());
                }
                let Some(name) = names.next().transpose()? else {
                    ended = true;
                    left.extend(recorded.drain().map(|(_, one)| one));
                    continue;
                };
                // A name that is not valid UTF-8 belongs to no document.
                let Ok(name) = name else { continue };
                if doubtful.contains(&name) {
                    match recorded.remove(&name) {
                        Some(one) => return Ok(Some(one)),
                        None => continue,
                    }
                }
                let Some(contents) = found_in(&self.folder, &name, Trust::Bytes)? else { continue };
                stamped.documents += u64::from(name != SECURITY);
                stamped.noted += note_lost(&self.folder, &name, &contents)?;
                let id = match self.id_told_by(&name) {
                    Some(_) => None,
                    None => self.id_of(&name)?.map(|id| id.as_str().to_owned()),
                };
                return Ok(Some(Recorded { name, id, states: vec![State::Present(contents)] }));
            }
        };
        self.stamp(&mut std::iter::from_fn(|| next().transpose()))?;
        Ok(stamped)
    }
}

/// Notes checksums beside the files that have lost theirs, if the file system keeps attributes.
fn note_lost(collection: &Folder, name: &str, contents: &Contents) -> Result<u64, MirrorError> {
    let mut noted = 0;
    for (path, sum) in contents {
        let whole = if path.is_empty() { name.to_owned() } else { format!("{name}/{path}") };
        let (mut folder, mut parts) = (None, whole.split('/').peekable());
        while let Some(part) = parts.next() {
            let above = folder.as_ref().unwrap_or(collection);
            if parts.peek().is_some() {
                let Some(below) = above.open_folder(part)? else { break };
                folder = Some(below);
                continue;
            }
            let (Some(file), Some(sum)) = (above.open_file(part)?, &sum.sum) else { break };
            if checksum(&file) != Err(Unnoted::Lost) {
                break;
            }
            rustix::fs::fsetxattr(&file, CHECKSUM_ATTRIBUTE, sum, XattrFlags::empty())
                .map_err(|error| above.error("note the checksum of", part, error))?;
            noted += 1;
        }
    }
    Ok(noted)
}
