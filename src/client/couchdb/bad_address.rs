//! URLs that do not name a server or a database: what they name instead, or what is wrong with them.
//!
//! Pure. None of its texts repeats a password.

use std::fmt;

use url::Url;

/// A URL that does not name a server. It never repeats the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// It is not a URL.
    #[error("it is not a valid URL ({0}): write it as http://host:port/database")]
    Url(#[from] url::ParseError),
    /// It is the URL of something else.
    #[error("it must begin with http://, https:// or http+unix://, not `{0}:`")]
    Scheme(String),
    /// It has no host.
    #[error("it has no host: write http://host:port/database")]
    NoHost,
    /// Its port is not a port.
    #[error("its port must be a number from 1 to 65535, as in http://user@host:5984/database")]
    Port,
    /// Its port is not a port, or it is a password.
    #[error(
        "the port after the host must be a number from 1 to 65535, as in http://host:5984/database; to \
         name a user, write http://user@host:5984/database"
    )]
    PortOrUser,
    /// It holds an IPv6 address without brackets.
    #[error("an IPv6 address stands in brackets in a URL, as in http://[::1]:5984/database")]
    Brackets,
    /// One of the brackets around its IPv6 address is missing.
    #[error(
        "a bracket around the IPv6 address is missing: write both, as in http://[::1]:5984/database"
    )]
    Bracket,
    /// It names no socket.
    #[error(
        "the URL of a Unix socket must hold the socket's absolute path in the host's place, \
         percent-encoded, as in http+unix://%2Frun%2Fapp%2Ffeed.sock/database"
    )]
    Socket,
    /// It names something else than a database or a server.
    #[error("{0}")]
    Endpoint(NotADatabase),
    /// It has a query or a fragment.
    #[error("it must not have a `?` or `#` part: leave out the `?` or `#` and what follows")]
    Query,
    /// The database's name is not UTF-8.
    #[error("the database's name in it is not UTF-8 when percent-decoded")]
    Name,
    /// What stands before an `@` may be a password that holds a character with a meaning in URLs.
    #[error(
        "it has an `@` after a `/`, `?`, `#` or `\\`. If these belong to the password, give the password \
         with --password-file, or percent-encode it in the URL: # as %23, / as %2F, ? as %3F, \\ as %5C, \
         @ as %40, : as %3A, % as %25. In a database's name, write the `@` as %40"
    )]
    At,
    /// The user part is not UTF-8.
    #[error(
        "its user part is not UTF-8 when percent-decoded: write each % of the password as %25, or give \
         the password with --password-file"
    )]
    User,
}

/// The endpoints of a server that are mistaken for databases. Databases such as `_users` are not here.
const OF_SERVER: [&str; 20] = [
    "_active_tasks",
    "_all_dbs",
    "_config",
    "_db_updates",
    "_dbs_info",
    "_log",
    "_membership",
    "_node",
    "_nouveau_analyze",
    "_replicate",
    "_reshard",
    "_restart",
    "_scheduler",
    "_search_analyze",
    "_session",
    "_stats",
    "_up",
    "_utils",
    "_uuids",
    "_prometheus",
];

/// The endpoints of a database.
const OF_DATABASE: [&str; 30] = [
    "_all_docs",
    "_auto_purge",
    "_bulk_docs",
    "_bulk_get",
    "_changes",
    "_compact",
    "_design",
    "_design_docs",
    "_ensure_full_commit",
    "_explain",
    "_find",
    "_index",
    "_local",
    "_local_docs",
    "_missing_revs",
    "_partition",
    "_purge",
    "_purged_infos",
    "_purged_infos_limit",
    "_revs_diff",
    "_revs_limit",
    "_security",
    "_shards",
    "_sync_shards",
    "_temp_view",
    "_time_seq",
    "_view",
    "_view_cleanup",
    "_list",
    "_show",
];

/// What a URL names that is not a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotADatabase {
    /// The segment of the path by which it was recognised.
    segment: String,
    /// The server, and the database that was probably meant, percent-encoded.
    server: String,
    database: Option<String>,
}

impl fmt::Display for NotADatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, server, database } = self;
        match (segment.as_str(), database) {
            ("_utils", Some(name)) => write!(
                f,
                "it is the address of CouchDB's web interface: to mean the database it shows, give \
                 {server}/{name}"
            ),
            ("_utils", None) => write!(
                f,
                "it is the address of CouchDB's web interface: give {server} for all databases, or \
                 {server}/DATABASE for one"
            ),
            (_, Some(name)) => write!(
                f,
                "`{segment}` is a part of a database, not a database: give {server}/{name}"
            ),
            (_, None) => write!(
                f,
                "`{segment}` is a part of the server, not a database: give {server} for all databases, \
                 or {server}/DATABASE for one"
            ),
        }
    }
}

/// What a URL names, if its path shows that it is not a database. `server` makes the URL of what stands
/// before the given number of segments.
pub(super) fn endpoint(
    url: &Url,
    segments: &[&str],
    server: impl Fn(usize) -> Option<String>,
) -> Option<NotADatabase> {
    for (at, segment) in segments.iter().enumerate() {
        let (until, database) = if OF_SERVER.contains(segment) {
            (at, (*segment == "_utils").then(|| shown(url)).flatten())
        } else if at > 0 && OF_DATABASE.contains(segment) {
            (at - 1, Some(segments[at - 1].to_owned()))
        } else {
            continue;
        };
        let segment = (*segment).to_owned();
        return Some(NotADatabase { segment, server: server(until)?, database });
    }
    None
}

/// The database that CouchDB's web interface shows at this URL, percent-encoded.
fn shown(url: &Url) -> Option<String> {
    // Fauxton has `#database/NAME/…` or `#/database/NAME/…`, and Futon `database.html?NAME/…`.
    let fauxton = url.fragment().and_then(|text| {
        let text = text.trim_start_matches('/');
        text.strip_prefix("database/").and_then(|rest| rest.split(['/', '?']).next())
    });
    let futon = || {
        let query = url.query().filter(|_| url.path().ends_with(".html"))?;
        query.split('/').next()
    };
    fauxton.or_else(futon).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// What is wrong with the part of a URL before its path, where the library that reads URLs would blame
/// something else. `rest` is what follows `http://`.
pub(super) fn mistake(rest: &str) -> Option<BadAddress> {
    if rest.starts_with('/') {
        return Some(BadAddress::NoHost);
    }
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let is_interface = rest[end..].starts_with("/_utils");
    if !is_interface && rest.rfind('@').is_some_and(|at| at > end) {
        return Some(BadAddress::At);
    }
    let authority = &rest[..end];
    let (has_user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (true, host),
        None => (false, authority),
    };
    if host.is_empty() {
        return Some(BadAddress::NoHost);
    }
    if host.starts_with('[') != host.contains(']') {
        return Some(BadAddress::Bracket);
    }
    let is_hex = |c: char| c.is_ascii_hexdigit() || c == ':';
    if host.matches(':').count() > 1 && host.chars().all(is_hex) {
        return Some(BadAddress::Brackets);
    }
    let port = match host.rsplit_once(']') {
        Some((_, rest)) => rest.strip_prefix(':'),
        None => host.split_once(':').map(|(_, port)| port),
    };
    let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    if port.is_some_and(|port| !is_port(port)) {
        return Some(if has_user { BadAddress::Port } else { BadAddress::PortOrUser });
    }
    None
}
