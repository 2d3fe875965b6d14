//! The requests that a database answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::address::{document_path, encode, segment};
use super::advice;
use super::answer::{DatabaseInfo, MissingRevisions, Props, Unwritten, Written};
use super::body::Body;
use super::client::Client;
use super::error::{Error, Kind};
use super::places;
use super::request::{Accepts, Part, Request};
use super::upload::Upload;
use crate::document::{CollectionName, DocumentId, Revision};

/// A database of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    client: Client,
    name: CollectionName,
    /// How it was created, by its last answer; `Some(None)` if it is not a CouchDB.
    props: Arc<Mutex<Option<Option<Props>>>>,
    /// Whether a proxy decodes paths.
    decodes: Arc<AtomicBool>,
}

/// Which changes are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// After which position, as the JSON text of a `seq`; without one from the beginning.
    pub since: Option<&'a str>,
    /// The shape of the feed.
    pub feed: FeedShape,
    /// Whether they come with the documents' bodies.
    pub bodies: bool,
    /// Whether every leaf of a document's revisions is named, or the winner alone.
    pub leaves: bool,
}

/// The shape of a change feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedShape {
    /// All changes up to now.
    Normal {
        /// Only one row in this many has a position, which makes CouchDB 1.5 times as fast.
        seq_interval: Option<u64>,
    },
    /// All changes up to now, and all later ones.
    Continuous {
        /// How often the server shows that it lives.
        heartbeat: Duration,
    },
    /// All changes up to now, or the next one if no change has come, in the form of a normal feed.
    Long {
        /// The server ends the feed after this time if no change comes.
        timeout: Duration,
    },
}

/// What comes with the revisions of a `_bulk_get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// The data of their attachments, inline.
    Attachments,
    /// Their histories, as `_revisions`; stubs of their attachments.
    History,
}

/// The largest answer that is held with the data of attachments, in bytes. Several are requested at once;
/// if they do not fit, each is read by itself.
const MAX_ATTACHMENTS: usize = 32 << 20;

/// Requests bodies, and stubs that say how an attachment is stored.
const WITH_BODIES: &str = "include_docs=true&att_encoding_info=true";

/// Requests all leaves of a document.
const ALL_LEAVES: &str = "style=all_docs";

/// An attachment's bytes, as they arrive.
#[derive(Debug)]
pub struct AttachmentAnswer {
    /// The bytes, gzipped or as they are.
    pub body: Body,
    /// Whether they come gzipped.
    pub gzipped: bool,
}

/// Whether a URL can carry this document's id and this attachment's name. Those that none can carry
/// are read with [`Database::bulk_get`].
pub fn can_address(id: &DocumentId, attachment: &str) -> bool {
    document_path(id.as_str()).is_some() && segment(attachment).is_some()
}

/// Characters that a decoded path does not keep.
const DECODED: [char; 7] = ['/', '%', '?', '#', '\\', ';', '+'];

/// Whether the URL of this attachment means the same to a proxy that decodes its path.
pub fn is_plain(id: &DocumentId, attachment: &str) -> bool {
    let id = id.as_str().strip_prefix("_design/").unwrap_or(id.as_str());
    !id.contains(DECODED) && !attachment.contains(DECODED)
}

/// The JSON text of a `seq`, as a query takes it.
fn place(since: &str) -> String {
    let text: Option<String> = serde_json::from_str(since).ok();
    encode(text.as_deref().unwrap_or(since))
}

impl Client {
    /// One of its databases. Does no I/O.
    pub fn database(&self, name: &CollectionName) -> Database {
        Database::new(self.clone(), name.clone())
    }
}

impl Database {
    pub(super) fn new(client: Client, name: CollectionName) -> Self {
        Self { client, name, props: Arc::default(), decodes: Arc::default() }
    }

    /// Whether a proxy before the server was found to decode paths, so that only paths that are
    /// [`is_plain`] arrive as they were sent.
    pub fn decodes(&self) -> bool {
        self.decodes.load(Ordering::Relaxed)
    }

    /// Notes that it does.
    pub fn note_decoding(&self) {
        self.decodes.store(true, Ordering::Relaxed);
    }

    /// Its name.
    pub fn name(&self) -> &CollectionName {
        &self.name
    }

    /// Its URL without credentials, for people.
    pub fn url(&self) -> String {
        self.client.address().database(&self.name)
    }

    /// A text of the server without the credentials, if it repeats them.
    pub fn scrub(&self, text: &str) -> String {
        self.client.scrub(text)
    }

    /// `GET /db`: what it holds and which incarnation it is.
    pub async fn info(&self) -> Result<DatabaseInfo, Error> {
        let request = Request::get(self.path("")?);
        let info: Result<DatabaseInfo, Error> = self.client.read_json(request).await;
        let info = info.map_err(|error| self.absent(error))?;
        *self.props.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(info.disk_format_version.map(|_| info.props));
        Ok(info)
    }

    /// How it was created, by the last answer of [`Database::info`], which is requested if there was none.
    /// `None` if it is not a CouchDB.
    pub async fn props(&self) -> Result<Option<Props>, Error> {
        let last = || *self.props.lock().unwrap_or_else(PoisonError::into_inner);
        match last() {
            Some(props) => Ok(props),
            None => {
                self.info().await?;
                Ok(last().flatten())
            }
        }
    }

    /// `GET /db/_changes`, with each document's body and stubs of its attachments if wanted.
    pub async fn changes(&self, changes: Changes<'_>) -> Result<Body, Error> {
        let mut query = Vec::new();
        if changes.bodies {
            query.push(WITH_BODIES.to_owned());
        }
        if changes.leaves {
            query.push(ALL_LEAVES.to_owned());
        }
        let mut patience = None;
        match changes.feed {
            FeedShape::Normal { seq_interval: None } => {}
            FeedShape::Normal { seq_interval: Some(rows) } => {
                query.push(format!("seq_interval={rows}"))
            }
            FeedShape::Continuous { heartbeat } => {
                query.push(format!("feed=continuous&heartbeat={}", heartbeat.as_millis()));
                // pouchdb-server sends even the headers only with its first row or heartbeat.
                patience = Some(heartbeat * 3);
            }
            FeedShape::Long { timeout } => {
                query.push(format!("feed=longpoll&timeout={}", timeout.as_millis()));
                patience = Some(timeout * 3);
            }
        }
        if let Some(since) = changes.since {
            query.push(format!("since={}", place(since)));
        }
        let mut request = Request::get(self.path("/_changes")?);
        request.query = query.join("&");
        request.patience = patience;
        request.kind = places::Kind::Feed;
        request.beats = matches!(changes.feed, FeedShape::Continuous { .. });
        self.client.send(request).await.map_err(|error| self.absent(error))
    }

    /// `GET /db/_changes?limit=1`: how many changes come after a position, or in all. `None` if the server does
    /// not say how many are pending, as only CouchDB does.
    pub async fn changes_after(&self, since: Option<&str>) -> Result<Option<u64>, Error> {
        /// A row without a body, whose document may have many leaves.
        const MOST: usize = 64 << 10;
        #[derive(serde::Deserialize)]
        struct Answer {
            results: Vec<serde::de::IgnoredAny>,
            #[serde(default)]
            pending: Option<u64>,
        }
        let mut request = Request::get(self.path("/_changes")?);
        let since = since.map(|since| format!("&since={}", place(since)));
        request.query = format!("limit=1{}", since.unwrap_or_default());
        request.most = MOST;
        let answer: Answer =
            self.client.read_json(request).await.map_err(|error| self.absent(error))?;
        let rows = u64::try_from(answer.results.len()).unwrap_or(u64::MAX);
        Ok(answer.pending.map(|pending| pending.saturating_add(rows)))
    }

    /// `POST /db/_changes` with `filter=_doc_ids`: the newest change of this document, with all its
    /// leaves. Read the answer with [`super::changes_rows`].
    pub async fn change_of(&self, id: &DocumentId) -> Result<Bytes, Error> {
        let ids = json(&serde_json::json!({ "doc_ids": [id] }))?;
        let mut request = Request::post(self.path("/_changes")?, ids);
        request.query = format!("filter=_doc_ids&{WITH_BODIES}&{ALL_LEAVES}");
        self.read_alone(request).await
    }

    /// `GET /db/_security`: the security object, as JSON text.
    pub async fn security(&self) -> Result<Bytes, Error> {
        self.client.read(Request::get(self.path("/_security")?)).await
    }

    /// `PUT /db/_security`.
    pub async fn set_security(&self, security: Bytes) -> Result<(), Error> {
        let mut request = Request::put(self.path("/_security")?);
        request.upload = Some(security.into());
        self.client.read(request).await.map(drop)
    }

    /// `POST /db/_all_docs` with a key: the document of this id as it is now.
    /// Read the answer with [`super::all_docs_rows`].
    pub async fn document(&self, id: &DocumentId) -> Result<Bytes, Error> {
        let keys = json(&serde_json::json!({ "keys": [id] }))?;
        let mut request = Request::post(self.path("/_all_docs")?, keys);
        request.query = WITH_BODIES.to_owned();
        self.read_alone(request).await
    }

    /// Reads an answer that holds a single document, which may be large.
    async fn read_alone(&self, request: Request) -> Result<Bytes, Error> {
        self.client.read_alone(request).await.map_err(|error| self.absent(error))
    }

    /// `POST /db/_all_docs` with keys: the newest revisions of these ids, in their order.
    /// Read the answer with [`super::all_docs_rows`].
    pub async fn newest(&self, ids: &[&DocumentId]) -> Result<Bytes, Error> {
        let keys = json(&serde_json::json!({ "keys": ids }))?;
        let request = Request::post(self.path("/_all_docs")?, keys);
        self.client.read(request).await.map_err(|error| self.absent(error))
    }

    /// `GET /db/_all_docs`: up to `limit` live documents in the order of their ids, beginning with
    /// the id `from`. Read the answer with [`super::all_docs_rows`].
    pub async fn list(&self, from: Option<&DocumentId>, limit: usize) -> Result<Bytes, Error> {
        let mut request = Request::get(self.path("/_all_docs")?);
        request.query = format!("limit={limit}");
        if let Some(from) = from {
            let key = serde_json::Value::from(from.as_str()).to_string();
            request.query.push_str(&format!("&startkey={}", encode(&key)));
        }
        self.client.read(request).await.map_err(|error| self.absent(error))
    }

    /// `PUT /db`: creates it, partitioned if wanted. Returns whether it did not exist before. A server that
    /// has no partitioned databases may ignore that wish.
    pub async fn create(&self, partitioned: bool) -> Result<bool, Error> {
        let mut request = Request::put(self.path("")?);
        if partitioned {
            request.query = "partitioned=true".to_owned();
        }
        match self.client.read(request).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(412) => Ok(false),
            Err(error) => Err(self.absent(error)),
        }
    }

    /// `PUT /db/id?new_edits=false&rev=…`: one document under its own `revision`. Returns it if
    /// the server refuses it. The id must be one that [`can_address`] knows. If a proxy decodes
    /// the path, it becomes that of an attachment, which the server refuses because of the revision.
    pub async fn put(
        &self,
        id: &DocumentId,
        revision: &Revision,
        document: Upload,
    ) -> Result<Vec<Unwritten>, Error> {
        let Some(path) = document_path(id.as_str()) else {
            let what = format!("no URL can carry the document `{id}`");
            return Err(Error::new(Kind::Permanent, what));
        };
        let mut request = Request::put(self.path(&format!("/{path}"))?);
        request.query = format!("new_edits=false&rev={}", encode(revision.as_str()));
        request.upload = Some(document);
        request.patience = self.client.patience_for(&request);
        let written: Written = self.client.read_json(request).await?;
        match written {
            Written::One { ok: true, rev } if rev == *revision => Ok(Vec::new()),
            Written::One { rev, .. } => {
                let rev = super::bounded(&self.scrub(rev.as_str()));
                let reason = format!("the server answers for revision {rev} and not {revision}");
                Ok(vec![Unwritten { reason: Some(reason), ..Unwritten::default() }])
            }
            Written::Many(results) => Ok(self.refused(results)),
        }
    }

    /// The documents that were not written, without the credentials.
    fn refused(&self, results: Vec<Unwritten>) -> Vec<Unwritten> {
        let refused = results.into_iter().filter(|result| result.error.is_some());
        refused.map(|result| result.scrubbed(|text| self.scrub(text))).collect()
    }

    /// `POST /db/_bulk_docs` with `{"docs":[…],"new_edits":false}`, or another body that it accepts:
    /// writes documents under their own revisions, and returns those that were refused.
    pub async fn bulk_docs(&self, docs: Upload) -> Result<Vec<Unwritten>, Error> {
        let mut request = Request::post(self.path("/_bulk_docs")?, docs);
        request.patience = self.client.patience_for(&request);
        let results: Vec<Unwritten> = self.client.read_json(request).await?;
        Ok(self.refused(results))
    }

    /// `POST /db/_changes` with `filter=_doc_ids`: the revisions of all leaves of these documents,
    /// deleted ones too. Read the answer with [`super::changes_rows`]. CouchDB reads its whole feed
    /// for more than a hundred ids.
    pub async fn leaves(&self, ids: &[&DocumentId]) -> Result<Bytes, Error> {
        let ids = json(&serde_json::json!({ "doc_ids": ids }))?;
        let mut request = Request::post(self.path("/_changes")?, ids);
        request.query = format!("filter=_doc_ids&{ALL_LEAVES}");
        self.client.read(request).await.map_err(|error| self.absent(error))
    }

    /// `POST /db/_all_docs` with keys: the winners of these ids, and in `_conflicts` of their bodies
    /// the revisions of their other live leaves. Read the answer with [`super::all_docs_rows`].
    pub async fn conflicts(&self, ids: &[&DocumentId]) -> Result<Bytes, Error> {
        let keys = json(&serde_json::json!({ "keys": ids }))?;
        let mut request = Request::post(self.path("/_all_docs")?, keys);
        request.query = "include_docs=true&conflicts=true".to_owned();
        self.client.read(request).await.map_err(|error| self.absent(error))
    }

    /// `POST /db/_bulk_get`: these revisions, with their attachments or their histories.
    /// Read the answer with [`super::bulk_get_results`].
    pub async fn bulk_get(
        &self,
        wanted: &[(&DocumentId, &Revision)],
        with: With,
    ) -> Result<Bytes, Error> {
        #[derive(Serialize)]
        struct One<'a> {
            id: &'a DocumentId,
            rev: &'a Revision,
        }
        #[derive(Serialize)]
        struct Docs<'a> {
            docs: Vec<One<'a>>,
        }
        let docs = wanted.iter().map(|(id, rev)| One { id, rev }).collect();
        let mut request = Request::post(self.path("/_bulk_get")?, json(&Docs { docs })?);
        request.kind = places::Kind::Long;
        request.query = match with {
            With::Attachments => "attachments=true".to_owned(),
            With::History => "revs=true&att_encoding_info=true".to_owned(),
        };
        match (with, wanted) {
            (With::History, [_]) => return self.read_alone(request).await,
            (With::History, _) => {}
            (With::Attachments, _) => request.most = MAX_ATTACHMENTS,
        }
        self.client.read(request).await.map_err(|error| self.absent(error))
    }

    /// `POST /db/_revs_diff`: which of these revisions the database does not know.
    pub async fn revs_diff(
        &self,
        revisions: &HashMap<DocumentId, Vec<Revision>>,
    ) -> Result<HashMap<DocumentId, MissingRevisions>, Error> {
        let request = Request::post(self.path("/_revs_diff")?, json(revisions)?);
        self.client.read_json(request).await.map_err(|error| self.absent(error))
    }

    /// `GET /db/_revs_limit`: how many revisions of a document the database remembers.
    pub async fn revs_limit(&self) -> Result<u64, Error> {
        self.client.read_json(Request::get(self.path("/_revs_limit")?)).await
    }

    /// `PUT /db/_revs_limit`.
    pub async fn set_revs_limit(&self, limit: u64) -> Result<(), Error> {
        let mut request = Request::put(self.path("/_revs_limit")?);
        request.upload = Some(limit.to_string().into_bytes().into());
        self.client.read(request).await.map(drop)
    }

    /// `GET /db/id/name`: one attachment's bytes, gzipped if that is wanted and it is stored so. A server
    /// may send all of it although a part is requested: see [`Body::range`].
    pub async fn attachment(
        &self,
        id: &DocumentId,
        revision: &Revision,
        name: &str,
        gzip: bool,
        part: Option<Part>,
    ) -> Result<AttachmentAnswer, Error> {
        let path = document_path(id.as_str()).zip(segment(name));
        let Some((document, attachment)) = path else {
            let what = format!("no URL can carry the attachment `{name}` of `{id}`");
            return Err(Error::new(Kind::Permanent, what));
        };
        let mut request = Request::get(self.path(&format!("/{document}/{attachment}"))?);
        request.query = format!("rev={}", encode(revision.as_str()));
        request.part = part;
        request.kind = places::Kind::Long;
        request.accepts = if gzip { Accepts::GzippedFile } else { Accepts::File };
        let body = self.client.send(request).await?;
        match body.encoding().as_deref() {
            None | Some("identity") => Ok(AttachmentAnswer { body, gzipped: false }),
            Some("gzip" | "x-gzip") => Ok(AttachmentAnswer { body, gzipped: true }),
            Some(other) => {
                let what = format!("{}: the answer has the encoding `{other}`", body.label());
                Err(Error::new(Kind::Permanent, super::bounded(&self.scrub(&what))))
            }
        }
    }

    /// A path below the database.
    fn path(&self, rest: &str) -> Result<String, Error> {
        let Some(name) = segment(self.name.as_str()) else {
            let what = format!("no URL can carry a database named `{}`", self.name);
            return Err(Error::new(Kind::Permanent, what));
        };
        Ok(format!("/{name}{rest}"))
    }

    /// Says what a 404 means for a database. A server answers otherwise if it lacks an endpoint.
    fn absent(&self, error: Error) -> Error {
        if error.kind() != Kind::Missing {
            return error;
        }
        let is_first = !self.client.is_understood();
        let asked = (self.client.address(), self.client.typed());
        advice::absent(&error, self.name.as_str(), asked, is_first)
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::new(Kind::Permanent, error.to_string()))
}
