//! The client of one server: it sends requests with their credentials, in their turn, and
//! classifies the answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderName, HeaderValue, IF_RANGE, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::access::{Access, Next, Pass};
use super::address::Address;
use super::advice::{self, Asked, ServerRole};
use super::answer::ServerInfo;
use super::answered::{Answered, Failed, MAX_FAILURE, PROBING, beginning, probe};
use super::body::Body;
use super::contact::Contact;
use super::credentials::Credentials;
use super::error::{self, Error, Kind, bounded};
use super::limit::{Probed, Verdict};
use super::options::{ClientOptions, Patience};
use super::pacer::Pacer;
use super::places::{Places, apart};
use super::request::{Accepts, Part, Request};
use super::route::Route;
use super::standing;
use super::waited::Waited;
use crate::document::CollectionName;

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
    /// The places of requests, if their number is limited.
    places: Option<Places>,
}

impl Client {
    /// A client for this server. Does no I/O.
    pub fn new(address: Address, options: ClientOptions) -> Result<Self, Error> {
        let ClientOptions { credentials, refusal, tls, patience, side, is_known, connections } =
            options;
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
        if let Some(connections) = connections {
            http = http.pool_max_idle_per_host(connections.idle).connector_layer(Waited);
        }
        let places = connections.map(Places::new);
        if let Some(socket) = address.socket() {
            http = http.unix_socket(socket);
        }
        let http = http.build().map_err(|error| Error::transport("the HTTP client", error))?;
        let user = credentials.as_ref().and_then(Credentials::user);
        let route = Route::new(&address, user, patience.connect);
        let access = Access::new(credentials, refusal);
        let (pacer, answered) = (Pacer::default(), Mutex::default());
        let unprobed = address.is_encrypted().then_some(patience.unprobed);
        let contact = Contact::new(route, unprobed, is_known);
        let inner =
            Inner { http, address, access, patience, pacer, side, contact, answered, places };
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
    pub async fn is_server(address: &Address, options: &ClientOptions) -> bool {
        let Ok(client) = Self::new(address.clone(), options.clone()) else { return false };
        // A database has no version.
        let answer = client.server_info().await;
        answer.is_ok_and(|info| info.couchdb.is_some() || info.version.is_some())
    }

    /// `GET /_all_dbs`: the names of all databases. CouchDB gives them to admins only.
    pub async fn all_databases(&self) -> Result<Vec<CollectionName>, Error> {
        let listed = self.read_json(Request::get("/_all_dbs".to_owned())).await;
        listed.map_err(|error: Error| match error.kind() {
            Kind::Missing => error.advising(advice::NO_COUCH),
            _ => error,
        })
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
        let (client, most) = (self.clone(), request.most);
        apart(async move { client.exchange(request).await?.collect(most).await }).await
    }

    /// Sends a request and reads its answer, which holds a single document and may be large.
    pub(super) async fn read_alone(&self, request: Request) -> Result<Bytes, Error> {
        let client = self.clone();
        apart(async move { client.exchange(request).await?.collect_alone().await }).await
    }

    /// Sends a request. The answer is a success, whose body has not been read yet.
    pub(super) async fn send(&self, request: Request) -> Result<Body, Error> {
        let client = self.clone();
        apart(async move { client.exchange(request).await }).await
    }

    /// Sends a request in its place. What has to be found out or renewed for it takes the same place, before
    /// or after it.
    async fn exchange(&self, request: Request) -> Result<Body, Error> {
        let place = match &self.inner.places {
            Some(places) => places.take(request.kind).await,
            None => None,
        };
        let label = self.label(&request);
        let patience = request.patience.unwrap_or(self.inner.patience.answer);
        let (json, beats) = (matches!(request.accepts, Accepts::Json), request.beats);
        let (method, path) = (request.method.clone(), request.path.clone());
        let (access, mut renewed) = (&self.inner.access, false);
        let builder = self.prepare(request);
        // A stream can be sent only once.
        let (mut again, mut next) = (builder.try_clone(), builder);
        loop {
            let mut pass = self.pass(&path).await?;
            let failed = match self.answer(&path, &label, patience, next, &pass).await? {
                Answered::Success(response) => {
                    access.take_cookies(response.headers());
                    access.accepted(&mut pass, &path);
                    let body = Body::new(response, label.clone(), patience, beats);
                    if json && let Some(encoding) = body.encoding().filter(|it| it != "identity") {
                        let what = format!("{label}: the answer has the encoding `{encoding}`");
                        let what = self.scrub(&bounded(&what));
                        let what = format!("{what}, which was not requested");
                        return Err(Error::new(Kind::Permanent, what));
                    }
                    return Ok(body.holding(place));
                }
                Answered::Failure(failed) => failed,
            };
            access.take_cookies(&failed.headers);
            if failed.status == StatusCode::NOT_FOUND {
                access.accepted(&mut pass, &path);
            }
            let error = access.classified(self.failure(&method, &path, &label, &failed));
            if error.kind() != Kind::Refused {
                return Err(error);
            }
            let is_expired =
                failed.status == StatusCode::UNAUTHORIZED && access.expires() && !renewed;
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
    fn failure(&self, method: &Method, path: &str, label: &str, failed: &Failed) -> Error {
        let Failed { status, headers, said } = failed;
        let said = String::from_utf8_lossy(said);
        let (scrub, now) = (|text: &str| self.scrub(text), jiff::Timestamp::now());
        let error = Error::answered(label, *status, headers, &said, scrub, now);
        if error.form() == error::Form::Couch {
            self.inner.contact.understand();
        }
        let Inner { address, contact, access, side, .. } = &*self.inner;
        let (route, credentials, side) = (&contact.route, access.credentials(), *side);
        let is_known = contact.is_understood();
        let asked = Asked { method, path, address, route, credentials, side, is_known };
        advice::on(error, &said, label, &asked)
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
            let response = match self.answer("/_session", &label, patience, builder, &pass).await? {
                Answered::Success(response) => response,
                Answered::Failure(failed) => {
                    let error = self.failure(&Method::POST, "/_session", &label, &failed);
                    return match error.kind() {
                        Kind::Refused => match access.refused(&mut pass, "", error, true).await {
                            Next::Failed(error) => Err(error),
                            Next::Again => Err(Error::transient(label)),
                        },
                        _ => Err(error),
                    };
                }
            };
            let headers = response.headers().clone();
            // Its connection is free for the request.
            beginning(response, PROBING).await;
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
            let answer = probe(shown(request, header)).await;
            let refused = [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED];
            is_whole = answer.is_some_and(|(status, _)| refused.contains(&status));
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
    ) -> Result<Answered, Error> {
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
                return Ok(match response.status().is_success() {
                    true => Answered::Success(response),
                    false => Answered::Failure(Failed::read(response).await),
                });
            }
            let mut verdict = pacer.refused(ticket, path);
            let probing = (verdict == Verdict::Probe).then(|| pacer.probing());
            // The probe takes its connection.
            let failed = Failed::read(response).await;
            let asked = error::retry_after(&failed.headers, jiff::Timestamp::now());
            let is_limit = failed.status == StatusCode::TOO_MANY_REQUESTS;
            if let Some(probing) = probing {
                let probed = self.probe(path, pass).await;
                drop(probing);
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
            let Some((pause, builder)) = pause.zip(again.take()) else {
                return Ok(Answered::Failure(failed));
            };
            tokio::time::sleep(pause).await;
            (again, next) = (builder.try_clone(), builder);
        }
    }

    /// Finds out whether the server refuses other requests too.
    async fn probe(&self, path: &str, pass: &Pass<'_>) -> Probed {
        let other = self.answered().clone().filter(|last| last != path);
        let request = self.prepare(Request::get(other.unwrap_or_else(|| "/".to_owned())));
        let request = shown(request, pass.header.clone());
        match probe(request).await {
            Some((status, headers)) if error::is_refusal(status) => {
                Probed::Refused(error::retry_after(&headers, jiff::Timestamp::now()))
            }
            Some(_) => Probed::Answered,
            None => Probed::Silent,
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

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::places::Connections;
    use super::*;

    /// The URL of a server that answers every request in the same way.
    async fn serve() -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _came = stream.read(&mut [0; 4096]).await.unwrap();
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn a_request_whose_caller_is_not_polled_gives_its_place_to_the_next() {
        let connections = Some(Connections { short: 1, long: 1, feeds: 1, idle: 0 });
        let options = ClientOptions { connections, ..ClientOptions::default() };
        let address = Address::parse(&serve().await).unwrap().address;
        let client = Client::new(address, options).unwrap();
        let mut waiting = Box::pin(client.server_info());
        assert!(poll_immediate(&mut waiting).await.is_none());
        client.server_info().await.unwrap();
        waiting.await.unwrap();
    }
}
