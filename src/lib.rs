//! Plainfold keeps a live copy of a document database as plain folders: one folder per document, its
//! JSON in `document.json`, its attachments as ordinary files beside it.
//!
//! Build a mirror, start it, and listen to what it writes:
//!
//! ```
//! use plainfold::config::MirrorConfig;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path().join("mirror");
//! let session = MirrorConfig::new("feed:fixtures/library.ndjson", &directory)?
//!     .collections(&["books"])?
//!     .start()
//!     .await?;
//! // A `tokio::sync::broadcast` channel; `session.event_stream()` is the same as a stream.
//! let mut events = session.events();
//! let first = events.recv().await?;
//! assert_eq!(first.collection.as_str(), "books");
//! assert!(directory.join(&first.files[0]).exists());
//!
//! assert!(session.caught_up().await);
//! session.cancel();
//! let outcome = session.join().await;
//! assert!(outcome.errors.is_empty() && outcome.failures.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! The modules in reading order. Imports point down only, and a test checks this:
//!
//! 1. [`json`], [`document`]: looking into JSON, and the values that all layers use, no I/O;
//!    [`client`]: wire protocols.
//! 2. [`event`], [`source`], [`tree`], [`checkpoint`]: the events for subscribers, the origin of
//!    changes, what writer and readers of a tree share, the state between runs.
//! 3. [`archive`], [`mirror`]: documents at rest are read, and written.
//! 4. [`pipeline`]: mirrors one collection, from its source to durable folders and events;
//!    [`restore`]: writes the folders back to a server or a feed; [`verify`]: proves that a mirror is
//!    intact and equal to its source.
//! 5. [`job`]: long errands; [`runner`]: a pipeline per collection, their status, and what somebody else
//!    changes in the mirror.
//! 6. [`config`]: the configuration of a mirror, lowered into the options of the layers below;
//!    [`agent`]: every mirror of a config file in one process.
//! 7. [`api`]: the HTTP interface with its web page, and the door to a mirror.
//! 8. [`cli`]: the command line.

pub mod agent;
pub mod api;
pub mod archive;
pub mod checkpoint;
pub mod cli;
pub mod client;
mod clock;
pub mod config;
pub mod document;
pub mod event;
pub mod job;
pub mod json;
pub mod mirror;
pub mod pipeline;
mod place;
pub mod restore;
pub mod runner;
pub mod source;
pub mod tree;
mod trial;
pub mod verify;
mod web;
