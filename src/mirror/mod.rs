//! The tree on disk.

pub mod names;
