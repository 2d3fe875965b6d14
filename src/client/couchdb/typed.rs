//! What a person typed in the place of a server's URL, and what was probably meant.
//!
//! Pure. None of its texts repeats a password. It must not know what is done with a URL.

use std::fmt;

use url::Url;

use super::address::{Address, BadAddress, encode};

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
pub struct Endpoint {
    /// The segment of the path by which it was recognised.
    segment: String,
    /// The server, and the database that was probably meant, percent-encoded.
    server: String,
    database: Option<String>,
}

impl fmt::Display for Endpoint {
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
) -> Option<Endpoint> {
    for (at, segment) in segments.iter().enumerate() {
        let (until, database) = if OF_SERVER.contains(segment) {
            (at, (*segment == "_utils").then(|| shown(url)).flatten())
        } else if at > 0 && OF_DATABASE.contains(segment) {
            (at - 1, Some(segments[at - 1].to_owned()))
        } else {
            continue;
        };
        let segment = (*segment).to_owned();
        return Some(Endpoint { segment, server: server(until)?, database });
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

/// The user with its `@`, without the password, and the path after it.
fn apart(text: &str) -> (String, &str) {
    match text.rsplit_once('@') {
        // An `@` may belong to the path.
        Some((before, _)) if before.contains('/') && !before.contains(':') => (String::new(), text),
        Some((before, path)) => {
            let user = before.split(':').next().unwrap_or_default().trim_start_matches('/');
            let user = if user.is_empty() { String::new() } else { encode(user) + "@" };
            (user, path)
        }
        None => (String::new(), text),
    }
}

/// What to type, if it can be guessed from a text that does not begin as a URL of a server does.
pub fn meant(text: &str) -> Option<String> {
    const QUOTES: [char; 8] = ['\'', '"', '`', '“', '”', '‘', '’', '<'];
    let text = text.trim();
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    if text.starts_with(QUOTES) {
        return Some("leave out the quotation marks around it".to_owned());
    }
    let hidden = Address::hidden(text);
    // A query is left out.
    let hidden = hidden.trim_end_matches(['…', '?', '#']);
    let lower = text.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("feed:") {
        return Some(match rest {
            "" => "name the file, as in feed:library.ndjson".to_owned(),
            _ => "`feed:` takes a file: give the URL of a server without it".to_owned(),
        });
    }
    if let Some(path) = ["file://", "file:"].iter().find_map(|scheme| lower.strip_prefix(scheme)) {
        let (_, path) = apart(&text[text.len() - path.len()..]);
        return Some(format!("for a recorded feed, write feed:{path}"));
    }
    if let Some(path) = lower.strip_prefix("unix:") {
        let (user, path) = apart(text[text.len() - path.len()..].trim_start_matches("//"));
        let path = encode(path);
        return Some(format!("for a Unix socket, write http+unix://{user}{path}/DATABASE"));
    }
    for scheme in ["https", "http"] {
        let Some(rest) = lower.strip_prefix(scheme) else { continue };
        // One of `:` and `/` is missing, or both.
        if rest.starts_with([':', '/']) {
            let rest = hidden[scheme.len()..].trim_start_matches([':', '/']);
            return Some(format!("write {scheme}://{rest}"));
        }
    }
    if let Some((_, rest)) = hidden.split_once("://") {
        return Some(format!("write http://{rest} or https://{rest}"));
    }
    let rest = hidden.trim_start_matches('/');
    let named = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let (host, port) = match named.split('/').next().unwrap_or_default().split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (named.split('/').next().unwrap_or_default(), None),
    };
    let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
    let is_host = is_port || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok();
    let is_path = text.starts_with(['.', '/']) && !text.starts_with("//");
    if (is_host || rest.contains('@') || text.starts_with("//")) && !is_path {
        return Some(format!("write http://{rest} or https://{rest}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urls_of_what_is_not_a_database_name_the_database() {
        for (url, meant) in [
            ("http://h/books/_all_docs", "http://h/books"),
            ("http://h/books/_all_docs?include_docs=true", "http://h/books"),
            ("http://h/a%2Fb/_changes?feed=continuous", "http://h/a%2Fb"),
            ("http://me:hunter2@h/books/_design/x/_view/y", "http://me@h/books"),
            ("http://me@h/books/_changes", "http://me@h/books"),
            ("http://h/couch/books/_local/x", "http://h/couch/books"),
            ("http://h/_utils/#database/books/_all_docs", "http://h/books"),
            ("http://h/_utils/#/database/a%2Fb/doc@x", "http://h/a%2Fb"),
            ("http://me:hunter2@h/couch/_utils/#/_all_dbs", "http://me@h/couch for all"),
            ("http://h/_utils/database.html?books", "http://h/books"),
            ("http://h/_all_dbs", "http://h/DATABASE"),
            ("http://h/_node/_local", "http://h/DATABASE"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(meant) && !error.contains("hunter2"), "{url}: {error}");
        }
        for database in ["_users", "_replicator", "_global_changes", "shelf/_mine"] {
            assert!(Address::parse(&format!("http://h/{database}")).is_ok(), "{database}");
        }
    }

    #[test]
    fn a_character_of_a_password_that_a_url_cannot_hold_is_named_and_the_password_is_not() {
        for password in ["pa#ss", "pa/ss", "pa?ss", "pa\\ss", "12/34", "#hunter2", "p#a@b", "1#4"] {
            let error = Address::parse(&format!("http://me:{password}@h:1/books")).unwrap_err();
            assert_eq!(error, BadAddress::At, "{password}");
            let text = error.to_string();
            assert!(text.contains("--password-file") && text.contains("%23"), "{text}");
            assert!(!text.contains(password), "{text}");
        }
        for password in ["pa@ss", "pa:ss", "pa%zz", "pa ss", "a[b"] {
            let given = Address::parse(&format!("http://me:{password}@h:1/books")).unwrap();
            let secret = given.credentials.unwrap().secret().read().unwrap();
            assert_eq!(secrecy::ExposeSecret::expose_secret(&secret), password);
        }
    }

    #[test]
    fn what_is_wrong_before_the_path_is_named() {
        for (url, expected) in [
            ("http://::1:5984/books", BadAddress::Brackets),
            ("http://me:hunter2@fe80::1/books", BadAddress::Brackets),
            ("http://h:159840/books", BadAddress::PortOrUser),
            ("http://me:hunter2@h:159840/books", BadAddress::Port),
            ("http://me:hunter2", BadAddress::PortOrUser),
            ("http://[::1]:70000/books", BadAddress::PortOrUser),
            ("http://[::1/books", BadAddress::Bracket),
            ("http://me:hunter2@[::1:5984/books", BadAddress::Bracket),
            ("http://::1]:5984/books", BadAddress::Bracket),
            ("http:///books", BadAddress::NoHost),
            ("http://me:hunter2@/books", BadAddress::NoHost),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error, expected, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for valid in ["http://[::1]:5984/books", "http://h:/books", "HTTP://H/b", " http://h/b "] {
            assert!(Address::parse(valid).is_ok(), "{valid}");
        }
    }

    #[test]
    fn what_is_not_a_url_says_what_to_type() {
        for (typed, say) in [
            ("localhost:5984/books", "http://localhost:5984/books"),
            ("localhost/books", "http://localhost/books"),
            ("127.0.0.1:5984/books", "http://127.0.0.1:5984/books"),
            ("//h/books", "http://h/books"),
            ("me:hunter2@h/books", "@h/books"),
            ("couchdb://me:hunter2@h/books", "https://me:…@h/books"),
            ("me@h/books", "http://me@h/books"),
            ("couchdb://me@h/books?token=hunter2", "https://me@h/books"),
            ("http:/h/books", "http://h/books"),
            ("https:h/books", "https://h/books"),
            ("https//h/books", "https://h/books"),
            ("'http://h/books'", "quotation marks"),
            ("“http://h/books”", "quotation marks"),
            ("file:///tmp/x.ndjson", "feed:/tmp/x.ndjson"),
            ("file:/tmp/x.ndjson", "feed:/tmp/x.ndjson"),
            ("file:///tmp/a@b.ndjson", "feed:/tmp/a@b.ndjson"),
            ("file://me:hunter2@h/b", "feed:h/b"),
            ("file:/me:hunter2@h/b", "feed:h/b"),
            ("unix:/run/x.sock", "http+unix://%2Frun%2Fx.sock/DATABASE"),
            ("unix://me:hunter2@/run/x.sock", "http+unix://me@%2Frun%2Fx.sock/DATABASE"),
            ("unix://me:hun/ter2@/run/x.sock", "http+unix://me@%2Frun%2Fx.sock/DATABASE"),
            ("feed:", "feed:library.ndjson"),
            ("feed:http://me:hunter2@h/books", "without it"),
            ("", "empty"),
        ] {
            let text = meant(typed).unwrap();
            assert!(text.contains(say) && !text.contains("hunter2"), "{typed}: {text}");
        }
        for unknown in ["books", "/srv/mirror", "./a:1/b"] {
            assert_eq!(meant(unknown), None, "{unknown}");
        }
    }
}
