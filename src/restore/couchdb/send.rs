//! Sends documents: small ones together in `_bulk_docs`, a large one alone in parts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::StreamExt;
use tokio::sync::OnceCell;

use super::multipart::Parts;
use super::patience::{TRIES, patiently};
use crate::client::couchdb::{
    Client, Database, Error, Kind, Unwritten, Upload, can_address, is_plain,
};
use crate::restore::body::{self, Piece};
use crate::restore::target::{Form, Writing, streamed};

/// The text around the documents of a request.
const OPEN: &str = "{\"new_edits\":false,\"docs\":[";
const CLOSE: &str = "]}";

/// The number of attempts to send a document in parts if a proxy may have decoded its path.
const TRIES_ODD: usize = 2;

/// Why a request failed.
pub(super) enum Fault {
    Request(Error),
    /// The only document in it cannot be read, or the server rejects it.
    Document(String),
}

/// What is known about the server so far.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// Whether it is a CouchDB, which uses the order of parts.
    is_couchdb: OnceCell<bool>,
    /// Whether it has rejected a document in parts.
    refuses_parts: AtomicBool,
}

impl Sender {
    /// Sends documents, and returns those that were rejected. A document whose attachments are not
    /// held in memory must be alone.
    pub async fn send(
        &self,
        database: &Database,
        client: &Client,
        batch: &[Writing],
        tries: usize,
    ) -> Result<Vec<Unwritten>, Fault> {
        if let [writing] = batch {
            can_be_opened(writing).await?;
        }
        if let [writing] = batch
            && let Some(parts) = self.parts(client, database, writing).await?
            && let Some(refused) = self.send_parts(database, writing, &parts, tries).await?
        {
            if !refused.is_empty() || writing.ends.is_empty() {
                return Ok(refused);
            }
            let ends = Writing { form: Form::Nothing, ..writing.clone() };
            return send_together(database, &[ends], tries).await;
        }
        send_together(database, batch, tries).await
    }

    /// The parts of a document with large attachments, if the server accepts parts.
    async fn parts(
        &self,
        client: &Client,
        database: &Database,
        writing: &Writing,
    ) -> Result<Option<Parts>, Fault> {
        let is_addressable = can_address(&writing.item.id, "x");
        if writing.form == Form::Nothing
            || !is_addressable
            || self.refuses_parts.load(Ordering::Relaxed)
            || (database.decodes() && !is_plain(&writing.item.id, "x"))
        {
            return Ok(None);
        }
        let text = writing.item.text.rendered_apart(writing.on_top());
        let Some(parts) = Parts::new(text) else { return Ok(None) };
        if parts.have_plain_names() {
            return Ok(Some(parts));
        }
        let ask = || async {
            let info = patiently(TRIES, || client.server_info()).await?;
            Ok(info.couchdb.is_some())
        };
        let is_couchdb = self.is_couchdb.get_or_try_init(ask).await.map_err(Fault::Request)?;
        Ok(is_couchdb.then_some(parts))
    }

    /// Sends a document in parts. `None` if the server does not accept parts.
    async fn send_parts(
        &self,
        database: &Database,
        writing: &Writing,
        parts: &Parts,
        tries: usize,
    ) -> Result<Option<Vec<Unwritten>>, Fault> {
        let broken = Broken::default();
        let item = &writing.item;
        // A server that rejects a request may close the connection before it has read all of it.
        let is_plain = is_plain(&item.id, "x");
        let tries = if is_plain { tries } else { tries.min(TRIES_ODD) };
        let sent = patiently(tries, || {
            let upload = parts.upload(&item.files, broken.watch());
            broken.final_if_known(database.put(&item.id, writing.revision(), upload))
        });
        let sent = sent.await;
        match broken.judge(sent) {
            Ok(refused) => Ok(Some(refused)),
            // A proxy may have decoded the path, and then it named another resource.
            Err(Fault::Request(error))
                if !is_plain && matches!(error.status(), None | Some(400 | 404 | 409 | 412)) =>
            {
                tracing::info!("{error}; the document is sent as base64");
                database.note_decoding();
                Ok(None)
            }
            // With these codes a server, or a proxy before it, rejects a request that it does not
            // know. If the database is gone, the next request says so.
            Err(Fault::Request(error)) if matches!(error.status(), Some(404 | 405 | 415 | 501)) => {
                tracing::info!("{error}; large attachments are sent as base64");
                self.refuses_parts.store(true, Ordering::Relaxed);
                Ok(None)
            }
            // A function of the target (`validate_doc_update`) may reject a document. If the target
            // rejects our credentials, it also rejects the next request.
            Err(Fault::Request(error)) if matches!(error.status(), Some(401 | 403)) => {
                match patiently(TRIES, || database.info()).await {
                    Ok(_) => Err(Fault::Document(format!("the server rejected it: {error}"))),
                    Err(_) => Err(Fault::Request(error)),
                }
            }
            Err(fault) => Err(fault),
        }
    }
}

/// Fails if the file of a large attachment cannot be opened: a request that breaks off half-way costs the
/// server much, and ends a pouchdb-server.
async fn can_be_opened(writing: &Writing) -> Result<(), Fault> {
    let name = |piece| match piece {
        Piece::Attachment { name, .. } => Some(name),
        _ => None,
    };
    let names: Vec<String> = writing.pieces().into_iter().filter_map(name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let files = Arc::clone(&writing.item.files);
    let open = move || names.iter().try_for_each(|name| files.open(name).map(drop));
    let opened = tokio::task::spawn_blocking(open).await.map_err(std::io::Error::other);
    opened.flatten().map_err(|error| Fault::Document(error.to_string()))
}

/// Why the file of an attachment could not be sent, if that caused the failure.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<Option<String>>>);

impl Broken {
    fn watch(&self) -> impl FnMut(&std::io::Result<Bytes>) + Send + 'static {
        let Self(reason) = self.clone();
        move |piece| {
            if let (Err(error), Ok(mut reason)) = (piece, reason.lock()) {
                *reason = Some(error.to_string());
            }
        }
    }

    /// A request that is not repeated if the file is why it failed: the file stays as it is.
    async fn final_if_known<R>(
        &self,
        request: impl Future<Output = Result<R, Error>>,
    ) -> Result<R, Error> {
        let sent = request.await;
        match (sent, self.0.lock()) {
            (Err(error), Ok(reason)) if reason.is_some() => {
                Err(Error::new(Kind::Permanent, error.to_string()))
            }
            (sent, _) => sent,
        }
    }

    fn judge<R>(self, sent: Result<R, Error>) -> Result<R, Fault> {
        let reason = self.0.lock().ok().and_then(|mut reason| reason.take());
        match (sent, reason) {
            (Ok(results), _) => Ok(results),
            (Err(_), Some(reason)) => Err(Fault::Document(reason)),
            (Err(error), None) => Err(Fault::Request(error)),
        }
    }
}

async fn send_together(
    database: &Database,
    batch: &[Writing],
    tries: usize,
) -> Result<Vec<Unwritten>, Fault> {
    let mut pieces = vec![Piece::Text(OPEN.into())];
    let mut add = |document: Vec<Piece>| {
        if !document.is_empty() {
            if pieces.len() > 1 {
                pieces.push(Piece::Text(",".into()));
            }
            pieces.extend(document);
        }
    };
    for writing in batch {
        add(writing.pieces());
        for leaf in &writing.ends {
            let tombstone = body::tombstone(&writing.item.id, leaf);
            add(tombstone.map(|text| Piece::Text(text.into())).into_iter().collect());
        }
    }
    pieces.push(Piece::Text(CLOSE.into()));
    let length = body::length(&pieces);
    let is_text = |piece: &Piece| matches!(piece, Piece::Text(_));
    if pieces.iter().all(is_text) {
        let mut text = Vec::with_capacity(length as usize);
        for piece in &pieces {
            if let Piece::Text(part) = piece {
                text.extend_from_slice(part);
            }
        }
        let text = Bytes::from(text);
        let sent = patiently(tries, || database.bulk_docs(text.clone().into())).await;
        return sent.map_err(Fault::Request);
    }
    let Some(writing) = batch.first() else { return Ok(Vec::new()) };
    let broken = Broken::default();
    let sent = patiently(tries, || {
        let stream = streamed(pieces.clone(), Arc::clone(&writing.item.files));
        let stream = stream.inspect(broken.watch());
        let upload = Upload::streamed(length, "application/json", stream.boxed());
        broken.final_if_known(database.bulk_docs(upload))
    });
    let sent = sent.await;
    broken.judge(sent)
}
