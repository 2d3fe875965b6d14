//! The CouchDB protocol: one client for a server, one handle for each of its databases.
//!
//! It sends requests, reads answers, and says what an answer's status means. Feeds read with it,
//! restores write with it.

mod access;
mod address;
mod advice;
mod answer;
mod answered;
mod bad_address;
mod body;
mod client;
mod contact;
pub mod credentials;
mod database;
mod error;
mod limit;
mod many;
mod options;
mod pacer;
mod places;
mod probe;
mod proxy;
mod request;
mod route;
pub mod rows;
mod scrub;
mod standing;
mod tls;
pub mod typed;
mod upload;
mod waited;

pub use access::Refusal;
pub use address::{Address, Given};
pub use advice::ServerRole;
pub use answer::{AllDocsRow, BulkAttachment, BulkDocument, BulkItem, BulkResult};
pub use answer::{DatabaseInfo, MissingRevisions, Props, ServerInfo, Unwritten};
pub use answer::{all_docs_rows, bulk_get_results, changes_rows};
pub use bad_address::BadAddress;
pub use body::{Body, MAX_ALONE};
pub use client::Client;
pub use credentials::{BadSecret, Credentials, Secret};
pub use database::{AttachmentAnswer, Changes, Database, FeedShape, With, can_address, is_plain};
pub use error::{Error, Kind, bounded};
pub use limit::LONGEST_ASKED;
pub use many::Reported;
pub use options::{ClientOptions, Patience};
pub use places::Connections;
pub use request::{MAX_ANSWER, Part};
pub use tls::{BadTls, Tls};
pub use upload::Upload;
