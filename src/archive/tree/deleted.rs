//! The documents that were deleted at the source and that the mirror still holds: in the trash, and
//! in the tree if a deletion is held back.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::civil::Date;

use super::collection::{TreeCollection, numbered};
use crate::archive::StoredCollection;
use crate::document::DocumentId;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{DOCUMENT, OURS, TRASH};

impl TreeCollection {
    /// The documents in `held`, and those in the trash that the tree does not hold.
    pub fn held_or_in_trash(
        &self,
        held: &BTreeSet<DocumentId>,
        since: Option<Date>,
    ) -> Result<Vec<Arc<dyn StoredCollection>>, MirrorError> {
        let names: Vec<String> = held.iter().map(|id| self.name_of(id)).collect();
        let mut met: HashSet<String> = names.iter().cloned().collect();
        let mut parts = Vec::new();
        if !names.is_empty()
            && let Some(folder) = self.tree.root.open(&self.encoded)?
        {
            parts.push(self.part(folder, self.encoded.clone(), names, false));
        }
        let trash = match &self.tree.ours {
            Some(ours) => ours.folder.open(TRASH)?,
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
            let Some(folder) = of_day.open(&self.encoded)? else { continue };
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
                if self.folder.stamp(&format!("{document}/{DOCUMENT}"))?.is_none() {
                    names.push(name);
                }
                met.insert(document);
            }
            if !names.is_empty() {
                names.sort_unstable();
                let encoded = format!("{OURS}/{TRASH}/{day}/{}", self.encoded);
                parts.push(self.part(folder, encoded, names, true));
            }
        }
        Ok(parts)
    }

    /// Some of its documents as a collection in a separate folder.
    fn part(
        &self,
        folder: Folder,
        encoded: String,
        only: Vec<String>,
        numbered: bool,
    ) -> Arc<dyn StoredCollection> {
        // The inventory no longer lists what is in the trash.
        let inventories = self.inventories.clone().filter(|_| !numbered);
        let (properties, only) = (self.properties, Some(only));
        let part = Self::new(Arc::clone(&self.tree), self.name.clone(), folder, encoded);
        Arc::new(Self { inventories, properties, only, numbered, ..part })
    }
}
