//! Plainfold keeps a live copy of a document database as plain folders.
//!
//! The modules in reading order; imports point down only:
//!
//! 1. [`document`]: values, no I/O; [`client`]: wire protocols.
//! 2. [`source`]: where changes come from; [`mirror`]: the tree on disk.

pub mod agent;
pub mod api;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod config;
pub mod document;
pub mod event;
pub mod mirror;
pub mod pipeline;
pub mod source;
