//! The ground that writers and readers of a mirror share: names and layout (pure), operations on what
//! lies beneath a folder that is held open, the lock, and the errors of a mirror on disk.

pub(crate) mod bare;
pub(crate) mod beneath;
pub mod checksum;
pub(crate) mod epoch;
mod error;
pub(crate) mod format;
mod holder;
pub mod inventory;
pub mod lanes;
pub mod layout;
pub(crate) mod lock;
pub mod names;
pub(crate) mod record;
pub mod sorted;
pub(crate) mod temporary;
pub(crate) mod unremovable;

pub(crate) use epoch::Epoch;
pub use error::MirrorError;
pub(crate) use error::{described, unless_disk};
pub use format::{FORMAT_NUMBER, Format};
pub use holder::{AgentMirror, Holder};
pub(crate) use lock::Lock;
pub use lock::SharedLock;
