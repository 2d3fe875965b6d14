//! What every store keeps, whatever it is: run by the tests of each.

use super::Store;
use crate::document::CollectionName;

/// The interfaces of a feed are those that its store says it has.
pub fn assert_has_what_it_says(store: &dyn Store, collection: &CollectionName) {
    let (can, feed) = (store.capabilities(), store.open(collection));
    assert_eq!(feed.attachments().is_some(), can.attachments, "attachments");
    assert_eq!(feed.branches().is_some(), can.branches, "branches");
    assert_eq!(feed.security().is_some(), can.security, "security");
    assert!(feed.reads().is_some() || !can.single_reads, "single reads without reads");
}
