//! A mirror's tree without its `.plainfold`, adopted as a mirror.
//!
//! Each collection gets a record of the options that its files show, so that a run without options
//! discards nothing. The source is unknown and there is no checkpoint, so the first run makes a
//! full scan.

use crate::tree::bare::{Bare, Holdings};
use crate::tree::beneath::Folder;
use crate::tree::layout::{FORMAT, OURS, RXDB_META, STATE};
use crate::tree::names::{Codec, Decoded, Spelling};
use crate::tree::record::{Record, record_name};
use crate::tree::{Epoch, MirrorError};

/// A tree that is about to become a mirror.
#[derive(Debug)]
pub(super) struct Adopted(Bare);

impl Adopted {
    /// Inspects a directory; `None` if it is a mirror already. `names` is the codec that the user
    /// asked for, if any.
    pub fn look(root: &Folder, names: Option<Codec>) -> Result<Option<Self>, MirrorError> {
        if let Some(ours) = root.open(OURS)?
            && ours.kind(FORMAT)?.is_some()
        {
            return Ok(None);
        }
        let nothing = || MirrorError::NothingToAdopt { path: root.path().to_owned() };
        if root.kind(RXDB_META)?.is_some() {
            return Err(nothing());
        }
        let found = Bare::recognise(root)?.ok_or_else(nothing)?;
        if names.is_some_and(|names| names != found.spelling.codec()) {
            return Err(MirrorError::OtherNames {
                path: root.path().to_owned(),
                found: found.spelling.codec().word(),
            });
        }
        Ok(Some(Self(found)))
    }

    /// The codec of the names in the tree.
    pub fn spelling(&self) -> Spelling {
        self.0.spelling
    }

    /// Records for each collection the options that its files show. A state of unknown age is set
    /// aside.
    pub fn record(
        &self,
        epoch: &Epoch,
        root: &Folder,
        ours: &Folder,
        records: &Folder,
    ) -> Result<(), MirrorError> {
        epoch.check_lanes()?;
        ours.set_aside(STATE, "may belong to another tree")?;
        for encoded in &self.0.collections {
            // The run that follows the collection records a shortened name.
            let Decoded::Exact(name) = self.0.spelling.decode(encoded) else { continue };
            let Some(folder) = root.open_folder(encoded)? else { continue };
            let kept = Holdings::of(&folder)?.kept;
            // A tree without attachments does not show whether attachments are switched off.
            let (source, attachments) = (String::new(), Some(true));
            let record = Record { name, source, attachments, kept, properties: None };
            epoch.write(records, &record_name(encoded), &record)?;
            tracing::info!(
                "adopted `{}`: revisions {}, tombstones {}",
                encoded,
                if kept.revisions { "are kept" } else { "are not kept" },
                if kept.deleted { "are kept" } else { "are not kept" },
            );
        }
        ours.sync()
    }
}
