//! The layout of a mirror: fixed names and the paths made of them. Pure.
//!
//! ```text
//! <mirror>/
//!   .plainfold/            format.json, lock, socket, collections/, inventory/, checkpoints/,
//!                          state/, staging/,
//!                          epoch/, trash/, unremovable/, spare/
//!   <collection>/
//!     _security.json
//!     <document>/
//!       document.json        or deleted.json
//!       attachments/<name>
//!       history.json
//!       conflicts/<revision>/document.json, attachments/<name>
//! ```

/// Plainfold's own folder. No encoded name can equal it, because a leading `.` is encoded.
pub const OURS: &str = ".plainfold";
/// The on-disk format's number, the mirror's lineage and its codec.
pub const FORMAT: &str = "format.json";
/// The lock, which also names its holder.
pub const LOCK: &str = "lock";
/// Where a running mirror answers other commands.
pub const SOCKET: &str = "socket";
/// One file per collection: its full name and the source that it follows.
pub const COLLECTIONS: &str = "collections";
/// One file per collection: its checkpoint after the last run that ended normally.
pub const CHECKPOINTS: &str = "checkpoints";
/// One file per collection: the files of each document's folder.
pub const INVENTORY: &str = "inventory";
/// The checkpoints and the journal.
pub const STATE: &str = "state";
/// Files and folders that are about to be published, or were replaced or removed.
pub const STAGING: &str = "staging";
/// One file, named by the number of the process that wrote to the mirror last.
pub const EPOCH: &str = "epoch";
/// Deleted documents that are kept for a time.
pub const TRASH: &str = "trash";
/// Space that is reserved for deletions.
pub const SPARE: &str = "spare";
/// Files and folders that could not be removed.
pub const UNREMOVABLE: &str = "unremovable";
/// A document's body.
pub const DOCUMENT: &str = "document.json";
/// The tombstone of a deleted document, in the place of its body.
pub const TOMBSTONE: &str = "deleted.json";
/// The folder of a document's attachments.
pub const ATTACHMENTS: &str = "attachments";
/// The revisions that led to the one in `document.json`.
pub const HISTORY: &str = "history.json";
/// The folder of a document's branches that lost a conflict, each in a folder named by its revision.
pub const CONFLICTS: &str = "conflicts";
/// The clock of elapsed time, in `.plainfold`.
pub const CLOCK: &str = "clock.json";
/// The options of the mirror, in `.plainfold`.
pub const OPTIONS: &str = "options.json";
/// The security object of a collection. No document's folder has this name.
pub const SECURITY: &str = "_security.json";
/// The metadata file of RxDB's backup plugin, which identifies its directory.
pub const RXDB_META: &str = "backup_meta.json";

/// Entries beside the collections that may belong to the user, such as a repository, or to the file
/// system.
const NEIGHBOURS: [&str; 2] = [".git", "lost+found"];

/// Whether an entry at the top of a mirror is known to belong to the user.
pub fn is_neighbour(name: &str) -> bool {
    NEIGHBOURS.contains(&name)
}

/// The inventory's file of the collection with this encoded name.
pub fn inventory_file(collection: &str) -> String {
    format!("{collection}.ndjson")
}

/// The file of a document's body.
pub const fn body_file(deleted: bool) -> &'static str {
    if deleted { TOMBSTONE } else { DOCUMENT }
}

/// A path relative to the mirror, from the encoded names of a collection and a document, and a path
/// within the document's folder.
pub fn file_path(collection: &str, document: &str, file: &str) -> String {
    format!("{collection}/{document}/{file}")
}

#[cfg(test)]
mod tests {
    use super::is_neighbour;

    #[test]
    fn what_may_stand_beside_collections_is_known() {
        assert!(is_neighbour(".git") && is_neighbour("lost+found"));
        assert!(!is_neighbour("books"));
    }
}
