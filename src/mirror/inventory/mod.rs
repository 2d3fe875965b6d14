//! Writes the inventory of each collection, for the process that works on the mirror. `tree/inventory`
//! describes and reads it.

mod agree;
mod stamp;
mod write;

pub use stamp::Stamped;
pub(super) use write::{NewRecord, Writer, displace};
