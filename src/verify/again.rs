//! The documents that are wrong, and the correction of the report after their repair.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::document::{Counts, How, What};
use super::inventory::Comparison;
use super::reading::{Suspect, read_security, settle};
use super::{Certificate, CollectionReport, DifferenceKind, Verified, VerifyError};
use crate::archive::TreeCollection;
use crate::document::{CollectionName, DocumentId};
use crate::tree::layout::SECURITY;

/// The documents of a collection that are wrong.
#[derive(Clone, Debug, Default)]
pub struct Wrong {
    /// Intact documents that differ from the source's.
    pub differing: BTreeSet<DocumentId>,
    /// Documents with problems, and unexpected entries in place of documents.
    pub damaged: BTreeSet<DocumentId>,
    /// Folders with problems whose document is unknown.
    pub nameless: BTreeSet<String>,
    /// Whether the security object has a problem.
    pub security: bool,
}

impl Wrong {
    /// All of the documents that have an id.
    pub fn all(&self) -> Vec<DocumentId> {
        self.differing.union(&self.damaged).cloned().collect()
    }

    /// Whether there is anything to fetch again.
    pub fn is_empty(&self) -> bool {
        self.differing.is_empty() && self.damaged.is_empty() && !self.security
    }
}

/// Documents that are about to change, and that are left out of the report meanwhile.
#[derive(Debug)]
pub struct Again {
    collections: Vec<Set>,
}

/// The documents of one collection.
#[derive(Debug)]
struct Set {
    collection: TreeCollection,
    how: How,
    ids: Vec<DocumentId>,
    security: bool,
}

impl Verified {
    /// The documents that are wrong, by collection, including every collection that was read.
    /// Differences in other collections are not included.
    pub fn wrong(
        &self,
        certificate: Option<&Certificate>,
    ) -> Result<BTreeMap<CollectionName, Wrong>, VerifyError> {
        let mut wrong: BTreeMap<CollectionName, Wrong> = self
            .listings
            .iter()
            .map(|(name, _)| (name.as_str().into(), Wrong::default()))
            .collect();
        for Suspect { collection, name, id } in &self.suspects {
            let Some(wrong) = wrong.get_mut(collection) else { continue };
            match id {
                _ if name == SECURITY => wrong.security = true,
                Some(id) => drop(wrong.damaged.insert(id.clone())),
                None => drop(wrong.nameless.insert(name.clone())),
            }
        }
        let differences = certificate.map(|found| &found.differences[..]).unwrap_or_default();
        let folders = self.tree.collections()?.0;
        let mut by_name = BTreeMap::new();
        for folder in &folders {
            by_name.insert(folder.name.as_str(), folder);
        }
        for difference in differences {
            let collection = difference.collection.as_str();
            let Some(wrong) = wrong.get_mut(&collection.into()) else { continue };
            let id = DocumentId::from(difference.id.as_str());
            let name = by_name.get(collection).map(|folder| folder.name_of(&id));
            // At the same revision, other bytes can only come from a complete replacement.
            let is_damaged = difference.kind == DifferenceKind::Bytes;
            match name.is_some_and(|name| wrong.nameless.remove(&name)) || is_damaged {
                true => drop(wrong.damaged.insert(id)),
                false => drop(wrong.differing.insert(id)),
            }
        }
        Ok(wrong)
    }

    /// Removes these documents from the report. They must not have changed since they were read.
    pub fn set_aside(
        &mut self,
        wanted: &BTreeMap<CollectionName, Wrong>,
    ) -> Result<Again, VerifyError> {
        let mut again = Again { collections: Vec::new() };
        for collection in self.tree.collections()?.0 {
            let Some(wrong) = wanted.get(&collection.name) else { continue };
            let how = How { attachments: self.tree.holds_attachments(&collection)?, sums: false };
            let (ids, security) = (wrong.all(), wrong.security);
            again.collections.push(Set { collection, how, ids, security });
        }
        let mut paths = HashSet::new();
        for Set { collection, how, ids, security } in &again.collections {
            if *security {
                paths.insert(collection.security_path());
            }
            for id in ids {
                let name = collection.name_of(id);
                let before = settle(collection, &name, *how).checked;
                if let (Some(report), Some(before)) = (self.report_of(collection), before) {
                    report.counts -= before.counts;
                }
                paths.insert(format!("{}/{name}", collection.path()));
            }
        }
        self.report.problems.retain(|problem| !paths.contains(document_path(&problem.path)));
        Ok(again)
    }

    /// Adds the present version of the documents that were set aside to the report.
    pub fn take_back(&mut self, again: &Again) -> Result<(), VerifyError> {
        for Set { collection, how, ids, security } in &again.collections {
            let mut listings = self.listings.iter_mut();
            let named = listings.find(|(name, _)| name == collection.name.as_str());
            let Some((_, listed)) = named else { continue };
            let mut listing = listed.reopen().map_err(VerifyError::Temporary)?;
            let mut counts = Counts::default();
            for id in ids {
                let reading = settle(collection, &collection.name_of(id), *how);
                let now = reading.take(&mut self.report.problems);
                let pushed = match &now {
                    Some(now) if now.what == What::Document => {
                        listing.push(&now.id, now.revision.as_ref(), &now.content)
                    }
                    _ => listing.push_deleted(id),
                };
                pushed.map_err(VerifyError::Temporary)?;
                counts += now.map(|now| now.counts).unwrap_or_default();
            }
            let mut names: HashSet<_> = ids.iter().map(|id| collection.name_of(id)).collect();
            if *security {
                read_security(collection, *how)?.take(&mut self.report.problems);
                names.insert(SECURITY.to_owned());
            }
            let comparison = Comparison { collection, how: *how };
            let compared = comparison.of(names)?;
            self.report.problems.extend(compared.problems);
            counts.unchecked = counts.unchecked.saturating_sub(compared.vouched + compared.denied);
            *listed = listing.finish();
            let side = listed.side().map_err(VerifyError::Temporary)?;
            if let Some(report) = self.report_of(collection) {
                report.side = side;
                report.counts += counts;
            }
        }
        self.report.problems.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(())
    }

    fn report_of(&mut self, collection: &TreeCollection) -> Option<&mut CollectionReport> {
        let mut reports = self.report.collections.iter_mut();
        reports.find(|report| report.collection == collection.name.as_str())
    }
}

/// The folder of the document that a path belongs to.
pub fn document_path(path: &str) -> &str {
    let end = path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at);
    path.get(..end).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::document_path;

    #[test]
    fn a_path_belongs_to_the_document_in_whose_folder_it_is() {
        assert_eq!(document_path("shelf/a/attachments/b"), "shelf/a");
        assert_eq!(document_path("shelf/a"), "shelf/a");
        assert_eq!(document_path("shelf"), "shelf");
    }
}
