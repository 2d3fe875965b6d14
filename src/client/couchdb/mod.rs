//! The CouchDB protocol: one client for a server, one handle for each of its databases.
//!
//! It sends requests and reads answers, and says what an answer's status means. It must not know
//! what the answers are for: feeds read with it, restores write with it.

mod address;
mod answer;
mod body;
mod database;
mod error;
pub mod rows;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, IF_RANGE, RANGE};
use reqwest::redirect::Policy;

use crate::document::CollectionName;

pub use address::{Address, BadAddress, Credentials, Given};
pub use answer::{AllDocsRow, BulkAttachment, BulkDocument, BulkItem, BulkResult};
pub use answer::{DatabaseInfo, MissingRevisions, Props, ServerInfo, Unwritten};
pub use answer::{all_docs_rows, bulk_get_results, changes_rows};
pub use body::{Body, MAX_ALONE};
pub use database::{AttachmentAnswer, Changes, Database, Feed, Part, With, can_address, is_plain};
pub use error::{Error, Kind, bounded};
pub use upload::Upload;

/// The largest answer that is held in memory as a whole, in bytes. A stream has no such limit.
pub const MAX_ANSWER: usize = 128 << 20;

/// How much of a failure's body is read, in bytes.
const MAX_FAILURE: usize = 16 << 10;

/// How long a failure's body is waited for: its status has said the most of it.
const FAILURE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a server may take for things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To accept a connection.
    pub connect: Duration,
    /// To begin an answer, and then from one piece of it to the next.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // pouchdb-server builds the whole of a feed before it sends the first byte.
        Self { connect: Duration::from_secs(10), answer: Duration::from_secs(120) }
    }
}

/// A server. Cheap to clone; connections are shared between clones.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    address: Address,
    credentials: Option<Credentials>,
    patience: Patience,
}

/// One request, before it is sent.
struct Request {
    method: Method,
    /// Below the server's address, percent-encoded, with its leading slash.
    path: String,
    /// Without the question mark, percent-encoded.
    query: String,
    upload: Option<Upload>,
    /// The part of a file that is asked for, where not all of it.
    part: Option<Part>,
    accepts: Accepts,
    patience: Option<Duration>,
    /// Whether the answer goes on for ever, a few bytes at a time.
    beats: bool,
    /// The largest answer that is held, in bytes.
    most: usize,
}

/// What a request wants to be answered with.
enum Accepts {
    Json,
    File,
    GzippedFile,
}

impl Request {
    fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            query: String::new(),
            upload: None,
            part: None,
            accepts: Accepts::Json,
            patience: None,
            beats: false,
            most: MAX_ANSWER,
        }
    }

    fn post(path: String, upload: impl Into<Upload>) -> Self {
        Self { method: Method::POST, upload: Some(upload.into()), ..Self::get(path) }
    }

    fn put(path: String) -> Self {
        Self { method: Method::PUT, ..Self::get(path) }
    }
}

impl Client {
    /// A client for this server. Does no I/O.
    pub fn new(
        address: Address,
        credentials: Option<Credentials>,
        patience: Patience,
    ) -> Result<Self, Error> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("plainfold/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            // A redirect would take the credentials to another place.
            .redirect(Policy::none())
            // CouchDB speaks HTTP/1.1; over one HTTP/2 connection a feed that nobody reads for a
            // while would take the flow-control window from all others.
            .http1_only()
            .tcp_keepalive(Duration::from_secs(60));
        if !address.is_encrypted() {
            // A machine without certificates, such as a bare container, can do without them here.
            http = http.tls_certs_only([]);
        }
        if let Some(socket) = address.socket() {
            http = http.unix_socket(socket);
        }
        let http = http.build().map_err(|error| Error::transport("the HTTP client", error))?;
        Ok(Self { inner: Arc::new(Inner { http, address, credentials, patience }) })
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.inner.address
    }

    /// One of its databases. Does no I/O.
    pub fn database(&self, name: &CollectionName) -> Database {
        Database::new(self.clone(), name.clone())
    }

    /// `GET /`: what the server says of itself.
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        self.read_json(Request::get("/".to_owned())).await
    }

    /// Whether a server answers here, and not a database or something else. What cannot be asked is not
    /// a server.
    pub async fn is_server(&self) -> bool {
        match self.server_info().await {
            // No database tells its version.
            Ok(info) => info.couchdb.is_some() || info.version.is_some(),
            Err(_) => false,
        }
    }

    /// `GET /_all_dbs`: the names of all databases. CouchDB tells them to an admin only.
    pub async fn all_databases(&self) -> Result<Vec<CollectionName>, Error> {
        self.read_json(Request::get("/_all_dbs".to_owned())).await
    }

    /// Sends a request and reads its answer, which must be JSON, as a whole.
    async fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<T, Error> {
        let label = self.label(&request);
        let answer = self.read(request).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            // A text is cut only after it is scrubbed, or a part of the password could be left.
            let excerpt = String::from_utf8_lossy(&answer[..answer.len().min(MAX_FAILURE)]);
            let (excerpt, error) = (self.scrub(&excerpt), self.scrub(&error.to_string()));
            let (excerpt, error) = (bounded(&excerpt), bounded(&error));
            Error::transient(format!("{label}: the answer is not understood ({error}): {excerpt}"))
        })
    }

    /// Sends a request and reads its answer as a whole.
    async fn read(&self, request: Request) -> Result<Bytes, Error> {
        let most = request.most;
        self.send(request).await?.collect(most).await
    }

    /// Sends a request. The answer is a success, and its body is yet to be read.
    async fn send(&self, request: Request) -> Result<Body, Error> {
        let label = self.label(&request);
        let patience = request.patience.unwrap_or(self.inner.patience.answer);
        let (json, beats) = (matches!(request.accepts, Accepts::Json), request.beats);
        let sent = tokio::time::timeout(patience, self.prepare(request).send()).await;
        let response = sent
            .map_err(|_| Error::transient(format!("{label}: no answer within {patience:?}")))?
            .map_err(|error| Error::transport(&label, error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Body::new(response, label, patience, beats);
        if status.is_success() {
            if json && let Some(encoding) = body.encoding().filter(|it| it != "identity") {
                let what = format!("{}: the answer comes as `{encoding}`", body.label());
                let what = format!("{}, which was not asked for", self.scrub(&bounded(&what)));
                return Err(Error::new(Kind::Permanent, what));
            }
            return Ok(body);
        }
        let said = body.beginning(MAX_FAILURE, FAILURE_PATIENCE).await;
        let said = String::from_utf8_lossy(&said);
        let (scrub, now) = (|text: &str| self.scrub(text), jiff::Timestamp::now());
        Err(Error::answered(body.label(), status, &headers, &said, scrub, now))
    }

    fn prepare(&self, request: Request) -> reqwest::RequestBuilder {
        let mut url = format!("{}{}", self.inner.address.request_base(), request.path);
        if !request.query.is_empty() {
            url = format!("{url}?{}", request.query);
        }
        let mut builder = self.inner.http.request(request.method, url);
        builder = match request.accepts {
            // Anything beside exactly this makes CouchDB choose multipart or a login page.
            Accepts::Json => builder.header(ACCEPT, "application/json"),
            Accepts::GzippedFile => builder.header(ACCEPT_ENCODING, "gzip"),
            Accepts::File => builder,
        };
        if let Some(Part { from, tag }) = request.part {
            builder = builder.header(RANGE, format!("bytes={from}-"));
            if let Some(tag) = tag {
                builder = builder.header(IF_RANGE, tag);
            }
        }
        if let Some(authorization) = self.authorization() {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        match request.upload {
            Some(upload) => upload.attach(builder),
            None => builder,
        }
    }

    /// How long the answer to a request may take, by what it sends.
    fn patience_for(&self, request: &Request) -> Option<Duration> {
        let upload = request.upload.as_ref()?;
        Some(self.inner.patience.answer + upload.patience())
    }

    fn authorization(&self) -> Option<HeaderValue> {
        let credentials = self.inner.credentials.as_ref()?;
        let mut value = HeaderValue::try_from(format!("Basic {}", credentials.encoded())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The request as errors name it: neither its user nor its query.
    fn label(&self, request: &Request) -> String {
        format!("{} {}{}", request.method, self.inner.address, request.path)
    }

    /// A server's words without our credentials, should it repeat them.
    fn scrub(&self, text: &str) -> String {
        match &self.inner.credentials {
            Some(credentials) => credentials.scrub(text),
            None => text.to_owned(),
        }
    }
}
