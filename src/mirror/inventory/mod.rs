//! Writes the inventory of each collection, for the process that works on the mirror. `tree/inventory`
//! describes and reads it.

mod agree;
mod log;
mod stamp;
mod write;

pub(super) use log::{NewRecord, Writer};
pub use stamp::Stamped;
pub(super) use write::displace;
