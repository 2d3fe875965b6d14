//! The events of changes, from staging to the commit that emits them.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};

use crate::checkpoint::{JournalRecord, NewEvents, Numbered};
use crate::document::{Change, CollectionName, DocumentId, Position, Revision};
use crate::event::{Broadcast, Emitted, WriteEvent};
use crate::mirror::Published;
use crate::trial;

/// The event of a staged change, emitted once it is durable.
#[derive(Debug)]
pub struct Meta {
    pub id: DocumentId,
    pub revision: Revision,
    pub position: Option<Position>,
    pub deleted: bool,
}

impl Meta {
    /// The event of a change.
    pub fn of(change: Change) -> Self {
        let deleted = change.is_deletion();
        Self { id: change.id, revision: change.revision, position: change.position, deleted }
    }
}

/// The event of a change, with its files.
pub struct Told {
    pub meta: Meta,
    pub files: Vec<String>,
}

impl Told {
    pub fn of((meta, published): (Meta, &Published)) -> Self {
        Self { meta, files: published.files.clone() }
    }
}

/// The events of one commit of a collection at a time. They get their numbers from the commit, and are
/// emitted after it.
pub fn of_commit(
    told: Vec<Told>,
    at: Timestamp,
    collection: CollectionName,
    channel: Broadcast,
) -> NewEvents {
    NewEvents::new(told.len(), move |first| {
        let event = |(Told { meta, files }, event): (Told, u64)| {
            Arc::new(Emitted::new(WriteEvent {
                event,
                collection: collection.clone(),
                document: meta.id,
                files,
                deleted: meta.deleted,
                revision: meta.revision,
                position: meta.position.as_ref().and_then(raw),
                at,
            }))
        };
        let events: Vec<Arc<Emitted>> = told.into_iter().zip(first..).map(event).collect();
        let record = |one: &Arc<Emitted>| JournalRecord { number: one.event, text: one.text() };
        let records = events.iter().map(record).collect();
        let emit = move || {
            trial::pass("committed");
            events.into_iter().for_each(|event| channel.send(event));
        };
        Numbered { records, emit: Box::new(emit) }
    })
}

/// A position as raw JSON, as its source writes it.
fn raw(position: &Position) -> Option<Box<RawValue>> {
    let token = position.token();
    RawValue::from_string(token.to_owned()).or_else(|_| to_raw_value(token)).ok()
}
