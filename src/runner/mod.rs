//! Supervises one pipeline per collection: starts them as collections appear, stops them together,
//! and reports their status.

mod absent;
mod cursors;
mod held;
mod lacking;
mod lag;
mod log;
mod news;
mod noting;
mod obey;
mod options;
mod order;
mod outcome;
mod policy;
mod release;
mod repair;
mod scheduler;
mod session;
mod shared;
mod state;
mod status;
mod subscription;
mod supervisor;
mod trouble;
mod turn;
mod wait;

pub use crate::pipeline::DeletionLimit;
pub use absent::Absent;
pub use cursors::CursorRefusal;
pub use held::HeldDocument;
pub use lag::Lag;
pub use obey::OrderError;
pub use options::SessionOptions;
pub use order::{Action, Effect, Ordered};
pub use outcome::{Outcome, SessionError};
pub use policy::Remedy;
pub use release::Release;
pub use repair::Repairer;
pub use session::{Session, Watcher};
pub(crate) use state::open_state;
pub use status::{CollectionStatus, FailureStatus, Keeps, Status};
pub use subscription::{Notice, Subscription};
