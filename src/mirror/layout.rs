//! What lies where in a mirror: fixed names and the paths made of them. Pure.
//!
//! ```text
//! <mirror>/
//!   .plainfold/            format.json, lock, socket, collections/, state/, staging/
//!   <collection>/
//!     <document>/
//!       document.json
//!       attachments/<name>
//! ```

/// The folder that is ours. No encoded name can be equal to it, as a leading `.` is encoded.
pub const OURS: &str = ".plainfold";
/// The on-disk format's number, the mirror's lineage and its codec.
pub const FORMAT: &str = "format.json";
/// The lock, and who holds it.
pub const LOCK: &str = "lock";
/// Where a running mirror answers `tail` and `status`.
pub const SOCKET: &str = "socket";
/// One file a collection: its true name and the source that it follows.
pub const COLLECTIONS: &str = "collections";
/// The checkpoints and the journal.
pub const STATE: &str = "state";
/// Files and folders on their way into the mirror, or out of it.
pub const STAGING: &str = "staging";
/// A document's body.
pub const DOCUMENT: &str = "document.json";
/// The folder of a document's attachments.
pub const ATTACHMENTS: &str = "attachments";

/// The path of a document's body, relative to the mirror, from encoded names.
pub fn document_path(collection: &str, document: &str) -> String {
    format!("{collection}/{document}/{DOCUMENT}")
}

/// The path of an attachment, relative to the mirror, from encoded names.
pub fn attachment_path(collection: &str, document: &str, attachment: &str) -> String {
    format!("{collection}/{document}/{ATTACHMENTS}/{attachment}")
}
