//! The client of one server: it sends requests with their credentials, in their turn, and
//! classifies the answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE,
};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::access::{Access, Next, Pass};
use super::address::Address;
use super::advice::{self, Asked, ServerRole};
use super::answer::ServerInfo;
use super::body::Body;
use super::contact::Contact;
use super::credentials::Credentials;
use super::error::{self, Error, Kind, bounded};
use super::options::{ClientOptions, Patience};
use super::pacer::{Pacer, Probed, Verdict};
use super::request::{Accepts, Part, Request};
use super::route::Route;
use super::standing;
use crate::document::CollectionName;

/// The most that is read of a failure's body, in bytes.
const MAX_FAILURE: usize = 16 << 10;

/// How long to wait for a failure's body: its status has already said most.
const FAILURE_PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for a probe: one that hangs says nothing about a limit.
const PROBING: Duration = Duration::from_secs(2);

/// How long a request is repeated in its turn while the server limits requests. After that, the caller
/// decides.
const REPEATING: Duration = Duration::from_secs(20);

/// The pauses before a request is repeated that alone was refused with 429, without `Retry-After`.
const REPEATED_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(200)];

/// A server. Cheap to clone; connections are shared between clones.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    address: Address,
    access: Access,
    patience: Patience,
    pacer: Pacer,
    side: ServerRole,
    contact: Contact,
    /// The path of the database that answered last.
    answered: Mutex<Option<String>>,
    /// The places of requests beside the change feeds, if their number is limited.
    beside: Option<Places>,
}

/// The places of requests beside the change feeds. Those that may take long have their own: stalled
/// attachments of one database must not hold up the openings and heartbeats of the others.
#[derive(Debug)]
struct Places {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Client {
    /// A client for this server. Does no I/O.
    pub fn new(address: Address, options: ClientOptions) -> Result<Self, Error> {
        let ClientOptions { credentials, refusal, tls, patience, side, is_known, beside } = options;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("plainfold/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            // A redirect would send the credentials to another place.
            .redirect(Policy::none())
            // CouchDB speaks HTTP/1.1. Over one HTTP/2 connection, a feed that is not read for a while
            // would use up the flow-control window of all others.
            .http1_only()
            .tcp_keepalive(Duration::from_secs(60));
        http = if address.is_encrypted() {
            tls.apply(http).map_err(|bad| Error::new(Kind::Permanent, bad.to_string()))?
        } else {
            // A machine without certificates, such as a bare container, needs none here.
            http.tls_certs_only([])
        };
        if let Some(most) = beside {
            http = http.pool_max_idle_per_host(most.idle);
        }
        let beside = beside.map(|most| Places {
            short: Arc::new(Semaphore::new(most.short)),
            long: Arc::new(Semaphore::new(most.long)),
        });
        if let Some(socket) = address.socket() {
            http = http.unix_socket(socket);
        }
        let http = http.build().map_err(|error| Error::transport("the HTTP client", error))?;
        let user = credentials.as_ref().and_then(Credentials::user);
        let route = Route::new(&address, user, patience.connect);
        let access = Access::new(credentials, refusal);
        let (pacer, answered) = (Pacer::default(), Mutex::default());
        let contact = Contact::new(route, address.is_encrypted(), is_known);
        let inner =
            Inner { http, address, access, patience, pacer, side, contact, answered, beside };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.inner.address
    }

    /// `GET /`: what the server says about itself.
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        self.read_json(Request::get("/".to_owned())).await
    }

    /// Whether a server answers here, and not a database or something else. A failed request counts as no.
    pub async fn is_server(&self) -> bool {
        match self.server_info().await {
            // A database has no version.
            Ok(info) => info.couchdb.is_some() || info.version.is_some(),
            Err(_) => false,
        }
    }

    /// `GET /_all_dbs`: the names of all databases. CouchDB gives them to admins only.
    pub async fn all_databases(&self) -> Result<Vec<CollectionName>, Error> {
        let listed = self.read_json(Request::get("/_all_dbs".to_owned())).await;
        listed.map_err(|error: Error| match error.kind() {
            Kind::Missing => error.advising(advice::NO_COUCH),
            _ => error,
        })
    }

    /// The place of a request, if their number is limited. A change feed has that of its run.
    async fn place(&self, request: &Request) -> Option<OwnedSemaphorePermit> {
        let is_feed = request.method == Method::GET && request.path.ends_with("/_changes");
        let places = self.inner.beside.as_ref().filter(|_| !is_feed && !request.beats)?;
        let of_its_kind = if request.may_take_long() { &places.long } else { &places.short };
        // It is never closed.
        Arc::clone(of_its_kind).acquire_owned().await.ok()
    }

    /// Sends a request and reads its answer, which must be JSON, as a whole.
    pub(super) async fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<T, Error> {
        let label = self.label(&request);
        let answer = self.read(request).await?;
        match serde_json::from_slice(&answer) {
            Ok(answer) => {
                self.inner.contact.understand();
                Ok(answer)
            }
            Err(error) => {
                // A text is cut only after it is scrubbed, or a part of the password could be left.
                let excerpt = String::from_utf8_lossy(&answer[..answer.len().min(MAX_FAILURE)]);
                let excerpt = self.scrub(&excerpt);
                let (text, is_other) = (self.scrub(&error.to_string()), error.is_data());
                let why = advice::Misread { text, is_other };
                let is_first = !self.is_understood();
                Err(advice::strange(&label, &excerpt, &why, self.typed(), is_first))
            }
        }
    }

    /// Its URL with the user, for messages that say what to type.
    pub(super) fn typed(&self) -> &str {
        &self.inner.contact.route.typed
    }

    /// Whether an answer has been one of this protocol.
    pub(super) fn is_understood(&self) -> bool {
        self.inner.contact.is_understood()
    }

    /// Sends a request and reads its answer as a whole.
    pub(super) async fn read(&self, request: Request) -> Result<Bytes, Error> {
        let most = request.most;
        self.send(request).await?.collect(most).await
    }

    /// Sends a request. The answer is a success, whose body has not been read yet.
    pub(super) async fn send(&self, request: Request) -> Result<Body, Error> {
        let label = self.label(&request);
        let patience = request.patience.unwrap_or(self.inner.patience.answer);
        let (json, beats) = (matches!(request.accepts, Accepts::Json), request.beats);
        let (method, path) = (request.method.clone(), request.path.clone());
        let (access, mut renewed) = (&self.inner.access, false);
        let place = self.place(&request).await;
        let builder = self.prepare(request);
        // A stream can be sent only once.
        let (mut again, mut next) = (builder.try_clone(), builder);
        loop {
            let mut pass = self.pass(&path).await?;
            let response = self.answer(&path, &label, patience, next, &pass).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            access.take_cookies(&headers);
            if status.is_success() || status == StatusCode::NOT_FOUND {
                access.accepted(&mut pass, &path);
            }
            let mut body = Body::new(response, label.clone(), patience, beats);
            if status.is_success() {
                if json && let Some(encoding) = body.encoding().filter(|it| it != "identity") {
                    let what = format!("{label}: the answer has the encoding `{encoding}`");
                    let what = format!("{}, which was not requested", self.scrub(&bounded(&what)));
                    return Err(Error::new(Kind::Permanent, what));
                }
                return Ok(body.holding(place));
            }
            let error = self.failure(&method, &path, status, &headers, &mut body).await;
            let error = access.classified(error);
            if error.kind() != Kind::Refused {
                return Err(error);
            }
            let is_expired = status == StatusCode::UNAUTHORIZED && access.expires() && !renewed;
            if standing::is_about_rights(&error) && !is_expired {
                let header = pass.header.take();
                access.known(&mut pass, &path);
                return Err(self.forbidden(&path, error, header).await);
            }
            match access.refused(&mut pass, &path, error, renewed).await {
                Next::Failed(error) => return Err(error),
                Next::Again => match again.take() {
                    Some(builder) => {
                        (again, next, renewed) = (builder.try_clone(), builder, true);
                    }
                    None => {
                        let what = format!("{label}: the session or the token had expired");
                        return Err(Error::transient(what));
                    }
                },
            }
        }
    }

    /// An answer whose status is not a success, as an error that says what to do.
    async fn failure(
        &self,
        method: &Method,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Error {
        let said = body.beginning(MAX_FAILURE, FAILURE_PATIENCE).await;
        let said = String::from_utf8_lossy(&said);
        let (scrub, now) = (|text: &str| self.scrub(text), jiff::Timestamp::now());
        let error = Error::answered(body.label(), status, headers, &said, scrub, now);
        if error.form() == error::Form::Couch {
            self.inner.contact.understand();
        }
        let Inner { address, contact, access, side, .. } = &*self.inner;
        let (route, credentials, side) = (&contact.route, access.credentials(), *side);
        let is_known = contact.is_understood();
        let asked = Asked { method, path, address, route, credentials, side, is_known };
        advice::on(error, &said, body.label(), &asked)
    }

    /// The right to send a request, with a session if the credentials need one.
    async fn pass(&self, path: &str) -> Result<Pass<'_>, Error> {
        let access = &self.inner.access;
        let mut pass = access.enter(path).await?;
        let Some((name, password)) = pass.login.take() else { return Ok(pass) };
        let _renewing = access.renewing.lock().await;
        if access.lacks_session(&pass)? {
            let login = serde_json::json!({ "name": name, "password": password.expose_secret() });
            let request = Request::post("/_session".to_owned(), login.to_string().into_bytes());
            let label = self.label(&request);
            let (patience, builder) = (self.inner.patience.answer, self.prepare(request));
            let response = self.answer("/_session", &label, patience, builder, &pass).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut body = Body::new(response, label.clone(), patience, false);
            if !status.is_success() {
                let asked = (&Method::POST, "/_session");
                let error = self.failure(asked.0, asked.1, status, &headers, &mut body).await;
                return match error.kind() {
                    Kind::Refused => match access.refused(&mut pass, "", error, true).await {
                        Next::Failed(error) => Err(error),
                        Next::Again => Err(Error::transient(label)),
                    },
                    _ => Err(error),
                };
            }
            if !access.take_cookies(&headers) {
                let what = format!(
                    "{label}: the server sets no cookie, so it has no sessions: leave out --auth session"
                );
                return Err(Error::new(Kind::Permanent, what));
            }
        }
        access.show(&mut pass)?;
        Ok(pass)
    }

    /// The error for a user who may log in and lacks a right: finds out whether it concerns the whole
    /// database.
    async fn forbidden(
        &self,
        path: &str,
        error: Error,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Error {
        let access = &self.inner.access;
        if !access.waits() {
            return error;
        }
        let database = path.split('/').nth(1).unwrap_or_default();
        let mut is_whole = matches!(path.split('/').nth(2), None | Some("_changes"));
        if !is_whole {
            let request = self.prepare(Request::get(format!("/{database}")));
            let answer = shown(request, header).send();
            let answer = tokio::time::timeout(PROBING, answer).await;
            let refused = [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED];
            is_whole = matches!(answer, Ok(Ok(answer)) if refused.contains(&answer.status()));
        }
        if is_whole { access.denied(path, error) } else { error }
    }

    /// Sends a request in its turn, and repeats it while the server limits requests. The answer may be a
    /// failure.
    async fn answer(
        &self,
        path: &str,
        label: &str,
        patience: Duration,
        builder: RequestBuilder,
        pass: &Pass<'_>,
    ) -> Result<Response, Error> {
        let (pacer, most) = (&self.inner.pacer, self.inner.patience.asked);
        let begun = Instant::now();
        let builder = shown(builder, pass.header.clone());
        let (mut again, mut next) = (builder.try_clone(), builder);
        let mut pauses = REPEATED_AFTER.iter();
        loop {
            let ticket = pacer.admit().await;
            let response = self.inner.contact.send(label, patience, next).await?;
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
            let is_limit = response.status() == StatusCode::TOO_MANY_REQUESTS;
            let mut verdict = pacer.refused(ticket, path);
            if verdict == Verdict::Probe {
                let probed = self.probe(path, pass).await;
                verdict = pacer.probed(probed, asked, most);
            }
            let pause = match verdict {
                Verdict::Limited => (begun.elapsed() < REPEATING).then_some(Duration::ZERO),
                // The server may refuse a request, and accept the same one a moment later.
                Verdict::Own | Verdict::Probe if is_limit && asked.is_none() => {
                    pauses.next().copied()
                }
                Verdict::Own | Verdict::Probe => None,
            };
            let Some((pause, builder)) = pause.zip(again.take()) else { return Ok(response) };
            tokio::time::sleep(pause).await;
            (again, next) = (builder.try_clone(), builder);
        }
    }

    /// Finds out whether the server refuses other requests too.
    async fn probe(&self, path: &str, pass: &Pass<'_>) -> Probed {
        let other = self.answered().clone().filter(|last| last != path);
        let request = self.prepare(Request::get(other.unwrap_or_else(|| "/".to_owned())));
        let request = shown(request, pass.header.clone());
        match tokio::time::timeout(PROBING, request.send()).await {
            Ok(Ok(response)) if error::is_refusal(response.status()) => {
                Probed::Refused(error::retry_after(response.headers(), jiff::Timestamp::now()))
            }
            Ok(Ok(_)) => Probed::Answered,
            Ok(Err(_)) | Err(_) => Probed::Silent,
        }
    }

    /// Resolves when a pause after refused credentials may be cut short.
    pub async fn recovers(&self) {
        self.inner.access.recovers().await;
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
        if let Some(Part { from, tag }) = request.part {
            builder = builder.header(RANGE, format!("bytes={from}-"));
            if let Some(tag) = tag {
                builder = builder.header(IF_RANGE, tag);
            }
        }
        match request.upload {
            Some(upload) => upload.attach(builder),
            None => builder,
        }
    }

    /// How long the answer may take, by the size of what the request sends.
    pub(super) fn patience_for(&self, request: &Request) -> Option<Duration> {
        let upload = request.upload.as_ref()?;
        Some(self.inner.patience.answer + upload.patience())
    }

    /// The request as errors name it, without its user and its query.
    fn label(&self, request: &Request) -> String {
        format!("{} {}{}", request.method, self.inner.address, request.path)
    }

    /// A text of the server without the credentials, if it repeats them.
    pub(super) fn scrub(&self, text: &str) -> String {
        self.inner.access.scrub(text)
    }
}

/// A request with its credentials.
fn shown(builder: RequestBuilder, header: Option<(HeaderName, HeaderValue)>) -> RequestBuilder {
    match header {
        Some((name, value)) => builder.header(name, value),
        None => builder,
    }
}

/// Whether a path is that of a database.
fn is_database(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|name| !name.is_empty() && !name.contains('/') && !name.starts_with('_'))
}
