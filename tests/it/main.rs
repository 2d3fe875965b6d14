//! The integration tests: the binary itself against real servers, a real file system and real kills.
//!
//! One binary, so that its environment (`env`) is compiled once. The oracle
//! (`tests/oracle/oracle.py`), which shares no code with Plainfold, decides what is right.

// Clippy takes only functions marked `#[test]` for tests; everything here is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod env;

mod access;
mod adopted;
mod agent;
mod apart;
mod api;
mod brake;
mod commands;
mod compare;
mod completions;
mod config;
mod copied;
mod crash;
mod crowd;
mod cursors;
mod damaged;
mod docs;
mod documents;
mod drift;
mod empty;
mod environment;
mod failing;
mod failpoints;
mod faults;
mod feeds;
mod fixture;
mod full;
mod gate;
mod guard;
mod hostile;
mod injected;
mod inventory;
mod large;
mod layers;
mod limits;
mod live;
mod messages;
mod monitoring;
mod names;
mod neighbours;
mod once;
mod options;
mod orders;
mod output;
mod packages;
mod page;
mod pages;
mod planted;
mod pouchdb;
mod powerloss;
mod private;
mod prompt;
mod properties;
mod readonly;
mod recorded;
mod repair;
mod restore;
mod revisions;
mod roundtrip;
mod rows;
mod rxdb;
mod rxdb_client;
mod session;
mod sources;
mod systemd;
mod taken_over;
mod targets;
mod terminal;
mod time;
mod tls;
mod together;
mod trash;
mod undelete;
mod unremovable;
mod upgrade;
mod verify;
mod words;
