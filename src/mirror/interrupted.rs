//! Documents that were in flight when a run was interrupted: perhaps published, perhaps not
//! committed, so that their events may not have been emitted.
//!
//! A folder that was replaced or removed stays in staging until its commit is durable. Together with
//! the inventory's records that no mark has settled, it shows the next run which events to emit
//! again.

use std::collections::HashMap;

use crate::document::{DocumentId, Head, Revision};
use crate::tree::beneath::Folder;
use crate::tree::layout::{ATTACHMENTS, CONFLICTS, body_file};
use crate::tree::temporary::{Purpose, Temporary};
use crate::tree::{Epoch, MirrorError, lanes, unless_disk, unremovable};

/// What an interrupted run has left in staging, by the encoded name of the collection.
pub(super) type Interrupted = HashMap<String, Left>;

/// What it has left of one collection.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The documents, with the revisions found in staging.
    pub documents: HashMap<DocumentId, Revision>,
    /// The names of removed documents in staging. They stay there until the event of their removal
    /// is emitted: nothing else remembers it.
    pub removed: Vec<String>,
}

/// Reads staging, of one collection or all, and removes from it what is not needed. Also returns the
/// first number that no remaining name has.
pub(super) fn sweep(
    epoch: &Epoch,
    ours: &Folder,
    staging: &Folder,
    only: Option<&str>,
) -> Result<(Interrupted, u64), MirrorError> {
    let mut paths = match only {
        // Other lanes may be those of a process that has taken over.
        Some(_) => lanes::own(staging, epoch)?,
        None => lanes::contents(staging)?,
    };
    // Otherwise the list may name what another process has staged.
    epoch.check_lanes()?;
    if only.is_some() {
        paths.retain(|path| Temporary::of(path).map(|one| one.collection) == only);
    }
    let mut found = Interrupted::new();
    let mut next = 0;
    for path in paths {
        let named = Temporary::of(&path);
        if let Some(Temporary { number, purpose, collection }) = named
            && let Some(folder) = look(staging, &path, collection, &mut found)?
            && purpose != Purpose::Passing
        {
            next = next.max(number.saturating_add(1));
            if purpose == Purpose::Removed {
                // The body is enough for the event, and the rest may be large. What cannot be
                // removed stays for now.
                for name in [ATTACHMENTS, CONFLICTS] {
                    unless_disk(folder.remove(name))?;
                }
            }
            found.entry(collection.to_owned()).or_default().removed.push(path);
        } else if !unremovable::clear_away(epoch, ours, staging, &path)?
            && let Some(Temporary { number, .. }) = named
        {
            next = next.max(number.saturating_add(1));
        }
    }
    Ok((found, next))
}

/// Adds the document in a folder of staging to those that were in flight. `None` if there is no
/// folder, or no readable body in it: files in staging are bodies and attachments that were never
/// published.
fn look(
    staging: &Folder,
    path: &str,
    collection: &str,
    found: &mut Interrupted,
) -> Result<Option<Folder>, MirrorError> {
    let Some(folder) = unless_disk(staging.open_folder(path))? else { return Ok(None) };
    let Some(text) = unless_disk(body_text(&folder))? else { return Ok(None) };
    let head = Head::read(&text).unwrap_or_default();
    let left = found.entry(collection.to_owned()).or_default();
    if let Some(id) = head.id {
        let revision = Revision::from(head.revision.as_deref().unwrap_or_default());
        left.documents.insert((&*id).into(), revision);
    }
    Ok(Some(folder))
}

/// The text of a document's body or tombstone.
pub(super) fn body_text(folder: &Folder) -> Result<Option<Vec<u8>>, MirrorError> {
    match folder.read_file(body_file(false))? {
        None => folder.read_file(body_file(true)),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tree::Holder;

    #[test]
    fn of_one_collection_what_nobody_needs_goes_and_what_was_not_told_of_stays() {
        let home = tempfile::tempdir().unwrap();
        let ours = Folder::open_path(home.path()).unwrap();
        let epoch = Epoch::begin(&ours, &Holder::default(), false, || Ok(())).unwrap();
        let dir = home.path().join("staging/1-2");
        let names = ["1~books", "2-removed~books", "3-~books", "4-removed~maps", "5~maps"];
        for name in names {
            let folder = dir.join(name);
            fs::create_dir_all(folder.join(ATTACHMENTS)).unwrap();
            let body = format!("{{\"_id\":\"{name}\",\"_rev\":\"1-x\"}}\n");
            fs::write(folder.join(body_file(false)), body).unwrap();
        }
        fs::write(dir.join("6~books"), "a body that was not published").unwrap();
        let staging = ours.open("staging").map(Option::unwrap).unwrap();
        let (found, next) = sweep(&epoch, &ours, &staging, Some("books")).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["books"]);
        let left = &found["books"];
        let mut documents: Vec<_> = left.documents.keys().map(DocumentId::as_str).collect();
        documents.sort_unstable();
        assert_eq!(documents, names[..3]);
        let mut removed = left.removed.clone();
        removed.sort_unstable();
        assert_eq!(
            (removed, next),
            ([names[1], names[2]].map(|name| format!("1-2/{name}")).to_vec(), 4)
        );
        let stands = |path: &str| dir.join(path).exists();
        assert_eq!(names.map(stands), [false, true, true, true, true]);
        assert!(!stands("6~books"));
        let attached = |name: &str| stands(&format!("{name}/{ATTACHMENTS}"));
        // What belongs in the trash is moved there complete; of other removed documents the body is
        // enough.
        assert_eq!(names.map(attached), [false, false, true, true, true]);

        let (found, next) = sweep(&epoch, &ours, &staging, None).unwrap();
        assert_eq!((found["maps"].removed.len(), found["maps"].documents.len(), next), (1, 2, 5));
        assert!(!stands(names[4]));
    }
}
