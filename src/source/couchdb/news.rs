//! Which databases of a server have changed: `_db_updates`, and update sequences.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde::Deserialize;

use crate::client::couchdb::rows::{Frame, Rows, Shape};
use crate::client::couchdb::{Body, Client, DatabaseInfo, Reported};
use crate::document::CollectionName;
use crate::source::{ChangeMark, SourceError, Update};

/// A row of `_db_updates`.
#[derive(Deserialize)]
struct Row {
    db_name: String,
}

enum State {
    Closed(Client),
    Open(Box<(Body, Rows, Bytes)>),
}

/// The names of databases that change, from the moment at which the server answers.
pub(super) fn updates(
    client: Client,
    heartbeat: Duration,
) -> BoxStream<'static, Result<Update, SourceError>> {
    stream::try_unfold(State::Closed(client), move |state| next(state, heartbeat)).boxed()
}

async fn next(state: State, heartbeat: Duration) -> Result<Option<(Update, State)>, SourceError> {
    let mut open = match state {
        State::Closed(client) => {
            let body = client.updates(heartbeat).await?;
            let open = (body, Rows::new(Shape::Continuous), Bytes::new());
            return Ok(Some((Update::Begun, State::Open(Box::new(open)))));
        }
        State::Open(open) => open,
    };
    loop {
        let (body, rows, input) = &mut *open;
        let label = body.label().to_owned();
        let failed = |why: String| SourceError::transient(format!("{label}: {why}"));
        match rows.next(input).map_err(|error| failed(error.to_string()))? {
            Some(Frame::Row(row)) => {
                let row: Row =
                    serde_json::from_slice(&row).map_err(|error| failed(error.to_string()))?;
                let name = CollectionName::from(row.db_name);
                return Ok(Some((Update::Changed(name), State::Open(open))));
            }
            Some(Frame::Blank) => return Ok(Some((Update::Silence, State::Open(open)))),
            Some(Frame::Oversized(_) | Frame::Tail(_)) => {}
            None => match body.chunk().await? {
                Some(chunk) => *input = chunk,
                None => return Err(failed("the server ended it".to_owned())),
            },
        }
    }
}

/// The update sequences of databases. Where the server does not report many at once, each is asked for.
pub(super) async fn marks(
    client: &Client,
    names: &[CollectionName],
) -> Result<Vec<ChangeMark>, SourceError> {
    if let Ok(infos) = client.infos(names).await {
        let marks = infos.into_iter().map(|info| match info {
            Reported::Info(info) => ChangeMark::At(mark(&info)),
            Reported::Missing => ChangeMark::Missing,
            Reported::Unknown => ChangeMark::Unknown,
        });
        return Ok(marks.collect());
    }
    let mut marks = Vec::with_capacity(names.len());
    for name in names {
        let error = match client.database(name).info().await {
            Ok(info) => {
                marks.push(ChangeMark::At(mark(&info)));
                continue;
            }
            Err(error) => error,
        };
        match error.status() {
            Some(404) => marks.push(ChangeMark::Missing),
            // The server does not answer, or none of the requests.
            None | Some(401 | 429 | 503) => return Err(error.into()),
            // A run finds out what is wrong with the database.
            Some(_) => marks.push(ChangeMark::Unknown),
        }
    }
    Ok(marks)
}

/// What is another one if the database has changed or was created again.
fn mark(info: &DatabaseInfo) -> String {
    let begun = info.instance_start_time.as_ref().map_or("", |time| time.get());
    format!("{} {begun}", info.update_seq.get())
}
