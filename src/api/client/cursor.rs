//! The events of a cursor, for a program that acknowledges them.

use bytes::Bytes;

use super::{Answering, Door, DoorError, Events, Origin, refuse_unknown};
use crate::checkpoint::{CursorFilter, CursorStatus};
use crate::document::{CollectionName, CursorName};

/// The events after a cursor, from the process that works on the mirror.
pub struct Acknowledged {
    events: Events,
    process: Answering,
    path: String,
}

impl Door {
    /// The write events after a cursor, those of one `collection` only if it is named. A cursor that does not
    /// exist is created, and begins with the next event.
    pub async fn cursor(
        &self,
        name: &CursorName,
        collection: Option<CollectionName>,
    ) -> Result<Acknowledged, DoorError> {
        let process = match self.answering().await? {
            Ok(process) => process,
            Err(_) => return Err(DoorError::NoCursor(self.directory.clone())),
        };
        if let Some(wanted) = &collection {
            refuse_unknown(&process, wanted).await?;
        }
        let path = format!("/cursors/{name}");
        let known: Option<CursorStatus> = process.get(&path).await?;
        // One that exists keeps its filter, unless another one is asked for.
        if known.is_none() || collection.is_some() {
            let filter = CursorFilter { collection, id: known.and_then(|known| known.filter.id) };
            let created: Option<CursorStatus> = process.put(&path, &filter).await?;
            created.ok_or_else(|| process.lacks(&path))?;
        }
        let pieces = process.stream(&format!("{path}/events"), &[]).await?;
        let events = Events(Origin::Process { pieces, read: Default::default() });
        Ok(Acknowledged { events, process, path })
    }
}

impl Acknowledged {
    /// The next line, with its end; `None` after the last one. It may be dropped while it waits.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DoorError> {
        self.events.next().await
    }

    /// Acknowledges all events up to this one, durably.
    pub async fn acknowledge(&self, event: u64) -> Result<(), DoorError> {
        let path = format!("{}/ack", self.path);
        let body = serde_json::json!({ "event": event });
        let moved: Option<CursorStatus> = self.process.post_json(&path, &body).await?;
        moved.map(drop).ok_or_else(|| self.process.lacks(&path).into())
    }
}
