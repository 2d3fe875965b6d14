//! The documents that were deleted at the source and that the mirror still holds: in the trash, and
//! in the tree if a deletion is held back.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::civil::Date;

use super::{Tree, TreeCollection};
use crate::document::DocumentId;
use crate::tree::MirrorError;
use crate::tree::layout::{DOCUMENT, OURS, TRASH};

/// The name in the trash of a document without a known id.
pub(super) const NAMELESS: &str = "without an id";

impl Tree {
    /// The newest version that the mirror has of each deleted document of a collection. For the
    /// documents in `held` that is the version in the tree. For all others that the tree does not
    /// hold, it is the one that was moved to the trash last, on the day `since` or later. They are
    /// returned as separate collections; each document is in one of them.
    pub fn deleted(
        &self,
        collection: &TreeCollection,
        held: &BTreeSet<DocumentId>,
        since: Option<Date>,
    ) -> Result<Vec<TreeCollection>, MirrorError> {
        let names: Vec<String> = held.iter().map(|id| collection.name_of(id)).collect();
        let mut met: HashSet<String> = names.iter().cloned().collect();
        let mut parts = Vec::new();
        if !names.is_empty()
            && let Some(folder) = self.root.open(&collection.encoded)?
        {
            let encoded = collection.encoded.clone();
            parts.push(collection.part(folder, encoded, names, false));
        }
        let trash = match &self.ours {
            Some(ours) => ours.open(TRASH)?,
            None => None,
        };
        let Some(trash) = trash else { return Ok(parts) };
        let wanted = |date: &Date| since.is_none_or(|since| *date >= since);
        let mut days: Vec<(Date, String)> = trash
            .names()?
            .into_iter()
            .filter_map(|name| Some((name.parse().ok()?, name)))
            .filter(|(date, _)| wanted(date))
            .collect();
        days.sort_unstable_by(|left, right| right.cmp(left));
        for (_, day) in days {
            let Some(of_day) = trash.open(&day)? else { continue };
            let Some(folder) = of_day.open(&collection.encoded)? else { continue };
            let mut newest: HashMap<String, (u64, String)> = HashMap::new();
            for name in folder.names()? {
                let Some((document, number)) = numbered(&name) else { continue };
                if met.contains(document) {
                    continue;
                }
                let known = newest.entry(document.to_owned()).or_default();
                if number > known.0 {
                    *known = (number, name);
                }
            }
            let mut names = Vec::new();
            for (document, (_, name)) in newest {
                // A document in the tree was created again since then.
                if collection.folder.stamp(&format!("{document}/{DOCUMENT}"))?.is_none() {
                    names.push(name);
                }
                met.insert(document);
            }
            if !names.is_empty() {
                names.sort_unstable();
                let encoded = format!("{OURS}/{TRASH}/{day}/{}", collection.encoded);
                parts.push(collection.part(folder, encoded, names, true));
            }
        }
        Ok(parts)
    }
}

/// The name of the document, and the number that is appended to it in the trash.
pub(super) fn numbered(name: &str) -> Option<(&str, u64)> {
    let (document, number) = name.rsplit_once('-')?;
    Some((document, number.parse().ok()?))
}
