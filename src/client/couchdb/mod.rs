//! The CouchDB protocol: one client for a server, one handle for each of its databases.
//!
//! It sends requests and reads answers, and says what an answer's status means. It must not know
//! what the answers are for: feeds read with it, restores write with it.

mod address;
mod answer;
mod body;
mod database;
mod error;
mod pacer;
pub mod rows;
mod upload;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response};
use tokio::time::Instant;

use self::pacer::{Pacer, Probed, Verdict};
use crate::document::CollectionName;

pub use address::{Address, BadAddress, Credentials, Given};
pub use answer::{AllDocsRow, BulkAttachment, BulkDocument, BulkItem, BulkResult};
pub use answer::{DatabaseInfo, MissingRevisions, Props, ServerInfo, Unwritten};
pub use answer::{all_docs_rows, bulk_get_results, changes_rows};
pub use body::Body;
pub use database::{AttachmentAnswer, Changes, Database, Feed, With, can_address};
pub use error::{Error, Kind, bounded};
pub use upload::Upload;

/// The largest answer that is held in memory as a whole, in bytes. A stream has no such limit.
pub const MAX_ANSWER: usize = 128 << 20;

/// How much of a failure's body is read, in bytes.
const MAX_FAILURE: usize = 16 << 10;

/// How long a failure's body is waited for: its status has said the most of it.
const FAILURE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a probe is waited for: one that hangs says nothing of a limit.
const PROBING: Duration = Duration::from_secs(2);

/// For this long a request is repeated in its turn while the server limits requests. After that, the
/// caller decides.
const REPEATING: Duration = Duration::from_secs(20);

/// How long a server may take for things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To accept a connection.
    pub connect: Duration,
    /// To begin an answer, and then from one piece of it to the next.
    pub answer: Duration,
    /// The longest pause that the server may ask for, of all requests.
    pub asked: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // pouchdb-server builds the whole of a feed before it sends the first byte.
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(120),
            asked: pacer::LONGEST_ASKED,
        }
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
    pacer: Pacer,
    /// The path of the database that answered last.
    answered: Mutex<Option<String>>,
}

/// One request, before it is sent.
struct Request {
    method: Method,
    /// Below the server's address, percent-encoded, with its leading slash.
    path: String,
    /// Without the question mark, percent-encoded.
    query: String,
    upload: Option<Upload>,
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
        Ok(Self {
            inner: Arc::new(Inner {
                http,
                address,
                credentials,
                patience,
                pacer: Pacer::default(),
                answered: Mutex::default(),
            }),
        })
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
        let path = request.path.clone();
        let response = self.answer(&path, &label, patience, self.prepare(request)).await?;
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

    /// Sends a request in its turn, and again while the server limits requests. The answer may be a
    /// failure.
    async fn answer(
        &self,
        path: &str,
        label: &str,
        patience: Duration,
        builder: RequestBuilder,
    ) -> Result<Response, Error> {
        let (pacer, most) = (&self.inner.pacer, self.inner.patience.asked);
        let begun = Instant::now();
        // What is streamed can be sent once.
        let (mut again, mut next) = (builder.try_clone(), Some(builder));
        loop {
            let ticket = pacer.admit().await;
            let Some(builder) = next.take() else { return Err(Error::transient(label)) };
            let response = sent(label, patience, builder).await?;
            if !error::is_refusal(response.status()) {
                pacer.served(ticket, path);
                if response.status().is_success() && is_database(path) {
                    let mut answered = self.answered();
                    if answered.as_deref() != Some(path) {
                        *answered = Some(path.to_owned());
                    }
                }
                return Ok(response);
            }
            let asked = error::retry_after(response.headers(), jiff::Timestamp::now());
            let mut verdict = pacer.refused(ticket, path);
            if verdict == Verdict::Probe {
                let probed = self.probe(path).await;
                verdict = pacer.probed(probed, asked, most);
            }
            next =
                again.take().filter(|_| verdict == Verdict::Limited && begun.elapsed() < REPEATING);
            match &next {
                Some(repeated) => again = repeated.try_clone(),
                None => return Ok(response),
            }
        }
    }

    /// Shows whether the server refuses other requests than this one too.
    async fn probe(&self, path: &str) -> Probed {
        let other =
            self.answered().clone().filter(|last| last != path).unwrap_or_else(|| "/".to_owned());
        let request = self.prepare(Request::get(other));
        match tokio::time::timeout(PROBING, request.send()).await {
            Ok(Ok(response)) if error::is_refusal(response.status()) => {
                Probed::Refused(error::retry_after(response.headers(), jiff::Timestamp::now()))
            }
            Ok(Ok(_)) => Probed::Answered,
            Ok(Err(_)) | Err(_) => Probed::Silent,
        }
    }

    fn answered(&self) -> MutexGuard<'_, Option<String>> {
        self.inner.answered.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The beginning of an answer.
async fn sent(label: &str, patience: Duration, builder: RequestBuilder) -> Result<Response, Error> {
    let sent = tokio::time::timeout(patience, builder.send()).await;
    sent.map_err(|_| Error::transient(format!("{label}: no answer within {patience:?}")))?
        .map_err(|error| Error::transport(label, error))
}

/// Whether a path is that of a database.
fn is_database(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|name| !name.is_empty() && !name.contains('/') && !name.starts_with('_'))
}
