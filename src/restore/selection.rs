//! What is restored, and under which names.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::blocking::blocking;
use super::{Options, RestoreError};
use crate::archive::StoredCollection;
use crate::document::{CollectionName, DocumentId, Pattern};

/// The database whose documents start replications, and the suffix of other such databases.
const REPLICATOR: &str = "_replicator";

/// A collection, and its name at the target.
type Named = (Arc<dyn StoredCollection>, CollectionName);

/// The selected collections with their names at the target.
pub(super) fn named(
    options: &Options,
    collections: Vec<Arc<dyn StoredCollection>>,
) -> Result<Vec<Named>, RestoreError> {
    let wrong = |what: String| Err(RestoreError::Selection(what));
    let names: Vec<_> = collections.iter().map(|collection| collection.name().clone()).collect();
    let selection = options.collections.resolved(&names, options.allow_empty);
    let selection = selection.map_err(RestoreError::Selection)?;
    let wanted: Vec<_> =
        collections.into_iter().filter(|collection| selection.wants(collection.name())).collect();
    if wanted.is_empty() {
        return wrong("no collection of the mirror is selected: see --collections".to_owned());
    }
    for old in options.renamed.keys() {
        if !wanted.iter().any(|collection| collection.name() == old) {
            return wrong(format!("no selected collection is named `{old}`: see --as"));
        }
    }
    if let Some(only) = &options.only_as {
        let [one] = &wanted[..] else {
            let names: Vec<_> = wanted.iter().map(|one| one.name().as_str()).collect();
            return wrong(format!(
                "the target has one name, `{only}`, but several collections are selected: {}; \
                 select one with --collections, or give no name",
                names.join(", ")
            ));
        };
        return Ok(vec![(Arc::clone(one), only.clone())]);
    }
    let mut taken = BTreeSet::new();
    let mut named = Vec::new();
    for collection in wanted {
        let name = options.renamed.get(collection.name()).unwrap_or(collection.name());
        let name = name.clone();
        if !taken.insert(name.clone()) {
            return wrong(format!("two collections would be named `{name}`: see --as"));
        }
        named.push((collection, name));
    }
    Ok(named)
}

/// The documents that a pattern for ids selects in these collections: an id that one of them holds
/// is not a glob.
pub(super) async fn ids_among(
    ids: Pattern,
    collections: impl Iterator<Item = &Arc<dyn StoredCollection>>,
) -> Result<Pattern, RestoreError> {
    let id = DocumentId::from(ids.text());
    for collection in collections {
        let (collection, id) = (Arc::clone(collection), id.clone());
        let held = blocking(move || collection.entry(&collection.name_of(&id))).await??;
        if held.is_some() {
            return Ok(ids.as_name());
        }
    }
    Ok(ids)
}

/// Whether the documents of a database with this name start replications.
pub(super) fn is_replicator(name: &str) -> bool {
    name.strip_suffix(REPLICATOR).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}
