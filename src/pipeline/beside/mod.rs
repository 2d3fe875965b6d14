//! Fetches documents beside the feed.
//!
//! Fetching what a document needs from the source may take long, or never end. So each such document
//! is fetched separately, a few at a time, the newest first, while the feed is read on. A stalled
//! fetch gives its place to another; a failed one is tried again later. Each document has at most
//! one fetch: a newer state that arrives meanwhile waits for its end, or replaces it.

mod brought;
mod came;
mod entry;
mod fetches;
mod job;
mod pace;
mod places;
mod states;

pub use brought::Brought;
pub use entry::Question;
pub use fetches::Fetches;
pub use pace::{Pulse, silence};
