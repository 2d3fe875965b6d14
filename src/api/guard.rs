//! Who may ask what: tokens and roles, and requests that a page of another site makes in a browser.
//!
//! Who can open a Unix socket may do everything, but for pages of other sites. A request to an address needs a token. Only while there is
//! no file of tokens, processes of the same machine may ask without one at a loopback address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::listen::Listener;
use super::problem::{ApiProblem, ApiProblemKind};
use super::role::Role;
use super::token_file::{KnownTokens, TokenFile};
use super::tokens::{self, Token};

/// How requests come in.
#[derive(Clone, Debug)]
pub(super) enum Door {
    /// At a Unix socket.
    Own,
    /// At an address; `is_local` says that only processes of this machine reach it.
    Address {
        /// The tokens that are known.
        tokens: Arc<TokenFile>,
        /// Whether only processes of this machine reach it.
        is_local: bool,
    },
}

/// By what a request to an address was admitted.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    tokens: Arc<TokenFile>,
    /// `None` if there was no file of tokens.
    token: Option<Token>,
}

impl Admitted {
    /// Ends when the same request would be refused.
    pub async fn until_refused(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let is_valid = match (self.tokens.now().await, &self.token) {
                (KnownTokens::NoFile, None) => true,
                (KnownTokens::These(all), Some(token)) => all.contains(token),
                _ => false,
            };
            if !is_valid {
                return;
            }
        }
    }
}

/// How often the token of an open stream is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// Why a request is refused.
#[derive(Debug)]
struct Refusal {
    problem: ApiProblem,
    /// The value of `WWW-Authenticate`.
    challenge: Option<&'static str>,
}

/// What proxies say about the clients whose requests they pass on.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "via"];

/// What browsers say about the page that makes a request.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Door {
    /// The door to a listener.
    pub fn of(listener: &Listener, tokens: Arc<TokenFile>) -> Self {
        match listener.is_unix() {
            true => Self::Own,
            false => Self::Address { tokens, is_local: listener.is_local() },
        }
    }

    /// The role of somebody who sends these headers, and by what it was found.
    async fn role(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(Role, Option<Admitted>), Refusal> {
        let Self::Address { tokens, is_local } = self else {
            // A forwarded socket can be reached by the pages of a browser.
            if is_of_page(headers) {
                same_site(uri, headers)?;
            }
            return Ok((Role::Admin, None));
        };
        let admitted = |token| Some(Admitted { tokens: Arc::clone(tokens), token });
        let all = match tokens.now().await {
            KnownTokens::NoFile if *is_local => {
                return same_site(uri, headers).map(|()| (Role::Admin, admitted(None)));
            }
            KnownTokens::NoFile => Arc::default(),
            KnownTokens::These(all) => all,
            KnownTokens::Unreadable => {
                let detail = "the file of tokens cannot be read: look at the log of the agent";
                return Err(Refusal::of(ApiProblemKind::Unavailable, detail, None));
            }
        };
        let Some(given) = headers.get(AUTHORIZATION) else {
            let detail = "send the header `Authorization: Bearer TOKEN`; `plainfold token add NAME --role \
                          read` makes a token";
            return Err(Refusal::of(ApiProblemKind::NoToken, detail, Some(CHALLENGE)));
        };
        let token =
            given.to_str().ok().and_then(bearer).and_then(|given| tokens::find(&all, given));
        token.map(|token| (token.role, admitted(Some(token.clone())))).ok_or_else(|| {
            let detail = "the token is not known: send `Authorization: Bearer TOKEN` with one that `plainfold \
                          token list` lists by its name";
            Refusal::of(ApiProblemKind::NoToken, detail, Some(UNKNOWN))
        })
    }
}

const CHALLENGE: &str = "Bearer realm=\"plainfold\"";
const UNKNOWN: &str = "Bearer realm=\"plainfold\", error=\"invalid_token\"";
const TOO_SMALL: &str = "Bearer realm=\"plainfold\", error=\"insufficient_scope\"";

impl Refusal {
    fn of(kind: ApiProblemKind, detail: impl AsRef<str>, challenge: Option<&'static str>) -> Self {
        Self { problem: ApiProblem::new(kind, detail), challenge }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if let Some(challenge) = self.challenge {
            let challenge = HeaderValue::from_static(challenge);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Admits a request to its route if who makes it has the role that it needs.
pub(super) async fn admit(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let Some(needed) = Role::needed(request.method(), path.unwrap_or_default()) else {
        return next.run(request).await;
    };
    match door.role(request.uri(), request.headers()).await {
        Ok((role, admitted)) if role >= needed => {
            request.extensions_mut().insert(role);
            if let Some(admitted) = admitted {
                request.extensions_mut().insert(admitted);
            }
            next.run(request).await
        }
        Ok((role, _)) => {
            let detail = format!(
                "this needs the role `{needed}`, and the token has the role `{role}`: use another token; \
                 `plainfold token list` lists them"
            );
            Refusal::of(ApiProblemKind::NoRole, detail, Some(TOO_SMALL)).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// The token in the value of `Authorization`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses what a page of another site may have asked for in a browser of this machine. Such a page can
/// give its own name the address of this machine, so a name in `Host` is not trusted.
fn same_site(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let foreign = |detail: &str| {
        let detail = format!(
            "{detail}; without a token, only pages of the agent itself may ask, by its address: `plainfold \
             token add NAME --role admin` makes a token for the addresses of `[api] listen`"
        );
        Err(Refusal::of(ApiProblemKind::Foreign, detail, None))
    };
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        return foreign("a proxy has passed the request on for somebody else");
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => None,
    };
    let Some(host) = host.filter(is_local_name) else {
        return foreign("the header `Host` is not an address");
    };
    if uri.authority().is_some_and(|asked| *asked != host) {
        return foreign("the request is for another host than its header `Host` says");
    }
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        if origin.as_ref().and_then(Uri::authority) != Some(&host) {
            return foreign("the header `Origin` names another site");
        }
    }
    let is_own = |site: &HeaderValue| site == "same-origin" || site == "none";
    if !headers.get_all(SITE).iter().all(is_own) {
        return foreign("a page of another site has made the request");
    }
    Ok(())
}

/// Whether the page of a browser may have made a request: it says so, or it names a host of the network.
fn is_of_page(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_of_network = |host: Authority| host.host().contains('.') && !is_local_name(&host);
    headers.contains_key(ORIGIN) || headers.contains_key(SITE) || host.is_some_and(is_of_network)
}

/// Whether it is an address or this machine's own name, which no other site can have.
fn is_local_name(host: &Authority) -> bool {
    let name = host.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
