//! Wire protocols that more than one layer speaks. They know only [`crate::document`].

pub mod couchdb;
pub mod webhook;
