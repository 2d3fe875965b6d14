//! What to do about an answer that is an error, or that is not CouchDB's.
//!
//! Pure.

use reqwest::Method;

use super::address::{Address, encode};
use super::credentials::{Credentials, Secret};
use super::error::{Error, Form, Kind, NOTHING_SAID, bounded, web_page};
use super::route::Route;
use super::standing::{database, is_about_rights, is_locked};
use crate::document::doubtful_name;

/// What the server is to the user, which decides the variables that messages name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerRole {
    /// It is read.
    #[default]
    Source,
    /// It is written.
    Target,
}

impl ServerRole {
    /// The variable that may hold the password.
    pub fn password_variable(self) -> &'static str {
        match self {
            Self::Source => "PLAINFOLD_SOURCE_PASSWORD",
            Self::Target => "PLAINFOLD_TARGET_PASSWORD",
        }
    }

    /// The variable that may hold the token.
    pub fn token_variable(self) -> &'static str {
        match self {
            Self::Source => "PLAINFOLD_SOURCE_TOKEN",
            Self::Target => "PLAINFOLD_TARGET_TOKEN",
        }
    }
}

/// A request, as far as advice depends on it.
pub(super) struct Asked<'a> {
    pub method: &'a Method,
    /// Below the server's address, percent-encoded, with its leading slash.
    pub path: &'a str,
    pub address: &'a Address,
    pub route: &'a Route,
    pub credentials: Option<&'a Credentials>,
    pub side: ServerRole,
    /// Whether the server has answered in this protocol before.
    pub is_known: bool,
}

/// What web servers say to a plain request on a port of TLS: nginx, Apache, Go.
const WANTS_TLS: [&str; 3] = [
    "plain HTTP request was sent to HTTPS port",
    "speaking plain HTTP to an SSL-enabled server port",
    "Client sent an HTTP request to an HTTPS server",
];

/// The same error, with what to do about it. `said` is the beginning of the answer.
pub(super) fn on(error: Error, said: &str, label: &str, asked: &Asked<'_>) -> Error {
    let status = error.status().unwrap_or_default();
    if status == 400 && WANTS_TLS.iter().any(|words| said.contains(words)) {
        return asked.route.wrong_scheme(label, asked.is_known);
    }
    if status == 400 && said.contains("No required SSL certificate was sent") {
        return error.advising("Give a client certificate with --client-cert and --client-key");
    }
    if status == 400 && said.contains("The SSL certificate error") {
        let what = "The server does not accept the client certificate: give one that it knows with \
                    --client-cert and --client-key";
        return error.advising(what);
    }
    if let Some(proxy) = asked.route.proxy.as_ref().filter(|_| error.form() != Form::Couch) {
        let around = asked.route.around();
        match status {
            407 => return asked.route.no_proxy_login(proxy, label, asked.is_known),
            403 | 500.. => {
                return error.advising(format!("This may be the answer of {proxy}. {around}"));
            }
            _ => {}
        }
    }
    match status {
        401 => {
            let advice = on_credentials(&error, asked);
            error.advising(advice)
        }
        403 if error.form() == Form::Couch || asked.credentials.is_none() => {
            let advice = on_credentials(&error, asked);
            error.advising(advice)
        }
        403 => error.advising(
            "This is not an answer of CouchDB: a proxy or a firewall before it may have refused",
        ),
        // CouchDB has no such answers; what has them is another server, or stands before it.
        405 | 410 | 418 if error.form() != Form::Couch => error.advising(NO_COUCH),
        _ => error,
    }
}

/// Why an answer is not what was requested.
pub(super) struct Misread {
    /// What the reader of JSON says, scrubbed.
    pub text: String,
    /// Whether it is JSON of another kind.
    pub is_other: bool,
}

/// The error for an answer that is a success, and not what was requested. The excerpt is scrubbed, and
/// `typed` is the server's URL with its user. A first answer that is not of this protocol is a permanent
/// error.
pub(super) fn strange(
    label: &str,
    excerpt: &str,
    why: &Misread,
    typed: &str,
    is_first: bool,
) -> Error {
    let kind = match is_first {
        true => Kind::Permanent,
        false => Kind::Transient { retry_after: None },
    };
    if let Some(page) = web_page(excerpt) {
        return Error::new(kind, format!("{label}: the answer is {page}")).advising(NO_COUCH);
    }
    let start: String = excerpt.chars().filter(|c| !c.is_whitespace()).take(20).collect();
    let part = [
        ("{\"_id\":", "a document"),
        ("{\"total_rows\":", "a view"),
        ("{\"rows\":", "a view"),
        ("{\"results\":", "a feed"),
    ];
    if let Some((_, part)) = part.iter().find(|(key, _)| start.starts_with(key)) {
        let what = format!("{label}: this is {part}, not a database");
        return Error::new(kind, what)
            .advising(format!("Give the URL of the database, such as {typed}"));
    }
    let (why, is_other) = (bounded(&why.text), why.is_other);
    let what = format!("{label}: the answer is not understood ({why}): {}", bounded(excerpt));
    // What begins as JSON may have been cut on the way.
    let is_cut = start.starts_with(['{', '[']) && !is_other;
    match is_first && !is_cut {
        true => Error::new(kind, what).advising(NO_COUCH),
        false => Error::transient(what),
    }
}

/// The error for a database that the server does not have; `missing` is its answer. The server is `asked`:
/// its address, and the same with the user. If the answer is a web page, and `is_first` says that the
/// server has given no answer of this protocol, it is another server.
pub(super) fn absent(
    missing: &Error,
    name: &str,
    asked: (&Address, &str),
    is_first: bool,
) -> Error {
    let (address, base) = asked;
    if missing.form() == Form::Page {
        let kind = if is_first { Kind::Permanent } else { Kind::Missing };
        return Error::new(kind, missing.what()).advising(NO_COUCH);
    }
    let mut what = format!("database `{name}` does not exist on {address}");
    let said = missing.what().split_once(": 404 ").map(|(_, said)| said);
    if missing.form() == Form::Other
        && let Some(said) = said.filter(|said| *said != NOTHING_SAID)
    {
        what = format!("{what} (it answers 404: {said})");
    }
    let error = Error::new(Kind::Missing, what);
    let path = base.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    let is_upper = name.chars().any(char::is_uppercase);
    let Some((_, path)) = path.filter(|_| !is_upper) else {
        return match doubtful_name(name) {
            Some(doubt) => error.advising(doubt),
            None => error,
        };
    };
    let host = base.strip_suffix(path).unwrap_or(base).trim_end_matches('/');
    let segment = path.replace('/', "%2F");
    error.advising(format!(
        "The path `/{path}` before the name counts as that of a proxy: if the database is `{path}/{name}`, \
         give {host}/{segment}%2F{}; if it is `{path}`, give {base}",
        encode(name)
    ))
}

/// What to do where something else answers.
pub(super) const NO_COUCH: &str =
    "This is not an answer of CouchDB: check the host, the port and the path of the URL";

fn on_credentials(error: &Error, asked: &Asked<'_>) -> String {
    let variable = asked.side.password_variable();
    let needs = right(asked);
    let Some(credentials) = asked.credentials else {
        let url = asked.address.to_string().replacen("://", "://USER@", 1);
        let name = database(asked.path);
        let url = match name.is_empty() || name.starts_with("_all_dbs") {
            true => url,
            false => format!("{url}/{name}"),
        };
        return format!(
            "{}No user was named: write {url} and give the password with --password-file, in {variable}, \
             or when asked on a terminal{}",
            needs.map(|needs| format!("{needs}. ")).unwrap_or_default(),
            other_way(asked)
        );
    };
    if is_locked(error) {
        return "Check the password before the server accepts attempts again".to_owned();
    }
    let who = match credentials.user() {
        Some(user) => format!("The user `{user}`"),
        None => "The owner of the token".to_owned(),
    };
    if !is_about_rights(error) {
        let place = match credentials.secret() {
            Secret::File(path, _) => format!(" in {}", path.display()),
            Secret::Fixed(_) | Secret::Command(_) => String::new(),
        };
        return match credentials.user() {
            Some(user) => format!("Check the name `{user}` and the password{place}"),
            None => format!("Check the token{place}, and whether it has expired"),
        };
    }
    match needs {
        Some(needs) => format!(
            "{needs}, and `{}` is not one{}",
            { credentials.user().unwrap_or("the owner of the token") },
            other_way(asked)
        ),
        None => {
            let name = database(asked.path);
            format!(
                "{who} is not a member of the database: an admin can add it to the members in {}/{name}/\
                 _security, or name another user",
                asked.address
            )
        }
    }
}

/// What a request needs that being a member of the database does not give.
fn right(asked: &Asked<'_>) -> Option<&'static str> {
    let mut segments = asked.path.trim_matches('/').split('/');
    let (first, second) = (segments.next().unwrap_or_default(), segments.next());
    match (asked.method, first, second) {
        (_, "_all_dbs", _) => Some("Listing all databases needs an admin account"),
        (&Method::PUT, _, None) => Some("Creating a database needs an admin account"),
        (&Method::PUT, _, Some("_security" | "_revs_limit")) => {
            Some("Writing this needs an admin of the server or of the database")
        }
        _ => None,
    }
}

/// What can be done without an admin.
fn other_way(asked: &Asked<'_>) -> &'static str {
    match asked.path {
        "/_all_dbs" => {
            ". Without an admin, name each database in --collections without a glob, or one database in \
             the URL"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::HeaderMap;

    use super::*;

    fn advised(
        status: u16,
        said: &str,
        path: &str,
        user: Option<&str>,
        side: ServerRole,
    ) -> String {
        let address = Address::parse("http://couch.example:5984/").unwrap().address;
        let route = Route::new(&address, user, Duration::from_secs(1));
        let credentials = user.map(|user| Credentials::new(user, "hunter2".into()));
        let asked = Asked {
            method: if side == ServerRole::Target { &Method::PUT } else { &Method::GET },
            path,
            address: &address,
            route: &route,
            credentials: credentials.as_ref(),
            side,
            is_known: false,
        };
        let (label, now) = (format!("GET {address}{path}"), jiff::Timestamp::UNIX_EPOCH);
        let status = status.try_into().unwrap();
        let headers = HeaderMap::new();
        let error = Error::answered(&label, status, &headers, said, str::to_owned, now);
        on(error, said, &label, &asked).to_string()
    }

    const NO_ACCESS: &str =
        r#"{"error":"unauthorized","reason":"You are not authorized to access this db."}"#;
    const NO_MEMBER: &str =
        r#"{"error":"forbidden","reason":"You are not allowed to access this db."}"#;
    const NO_ADMIN: &str = r#"{"error":"unauthorized","reason":"You are not a server admin."}"#;
    const WRONG: &str = r#"{"error":"unauthorized","reason":"Name or password is incorrect."}"#;

    #[test]
    fn refused_credentials_say_what_is_lacking_and_how_to_give_it() {
        let source = ServerRole::Source;
        for (text, facts) in [
            (
                advised(401, NO_ACCESS, "/books", None, source),
                &["http://USER@couch.example:5984/books", "--password-file", "_SOURCE_PASSWORD"][..],
            ),
            (
                advised(401, NO_ACCESS, "/b", None, ServerRole::Target),
                &["_TARGET_PASSWORD", "admin"][..],
            ),
            (advised(401, NO_ADMIN, "/_all_dbs", None, source), &["admin", "USER@", "--coll"][..]),
            (advised(401, NO_ADMIN, "/_all_dbs", Some("bob"), source), &["admin", "`bob`"][..]),
            (advised(403, NO_MEMBER, "/books", Some("bob"), source), &["`bob`", "member"][..]),
            (advised(401, WRONG, "/books", Some("bob"), source), &["`bob`", "password"][..]),
            (advised(401, NO_ADMIN, "/books", Some("bob"), ServerRole::Target), &["Creating"][..]),
            (advised(403, "<html>no", "/books", Some("bob"), source), &["not an answer of"][..]),
        ] {
            assert!(facts.iter().all(|fact| text.contains(fact)), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_plain_request_to_a_port_of_tls_names_the_other_scheme() {
        let page = "<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>";
        let text = advised(400, page, "/books", None, ServerRole::Source);
        assert!(text.contains("https://couch.example:5984"), "{text}");
    }
}
