//! URLs of CouchDB-protocol servers: where the server is, and which user and database they name.
//!
//! Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::bad_address::{self, BadAddress};
use super::credentials::Credentials;
use crate::document::CollectionName;

/// Everything but RFC 3986's unreserved characters, so that a segment stays one segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The scheme of a server on a Unix socket.
const UNIX: &str = "http+unix";

/// A server's address. It never holds credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Scheme, host, port and the path that a proxy puts before the server's own; no slash at its end.
    base: String,
    /// The socket that stands in the place of host and port, and the base of requests that go there.
    socket: Option<(PathBuf, String)>,
}

/// What one URL, as a person types it, says.
#[derive(Clone, Debug)]
pub struct Given {
    /// Where the server is.
    pub address: Address,
    /// The user part of the URL, if it had one.
    pub credentials: Option<Credentials>,
    /// The database, if the URL had a path: its last segment, percent-decoded.
    pub database: Option<CollectionName>,
    /// Where the server is instead, if the path is not a database's but a proxy's, which only the
    /// server can tell. Only the URL that ends in a slash may be meant so.
    pub below: Option<Address>,
}

impl Address {
    /// The schemes of servers.
    pub const SCHEMES: [&str; 3] = ["http", "https", UNIX];

    /// Whether this begins as the URL of a server does.
    pub fn is_meant(text: &str) -> bool {
        after_scheme(text).is_some()
    }

    /// Whether this may be a URL, mistyped or of something else, and not a path.
    pub fn is_url_like(text: &str) -> bool {
        // Without its colon a scheme is not one any more, and the password still is.
        let hides = text.rsplit_once('@').is_some_and(|(user, _)| {
            let user = user.rsplit('/').next().unwrap_or(user);
            user.contains(':') && (text.contains("//") || !text.contains('/'))
        });
        text.contains("://") || hides || scheme(text).is_some_and(|rest| rest.contains('@'))
    }

    /// What a person typed, for messages: without the password and the query of a URL, even of a mistyped
    /// one. A user part in which the name cannot be told from the password is left out too.
    pub fn hidden(text: &str) -> String {
        let (before, after) = text.rsplit_once('@').unwrap_or(("", text));
        let is_path = after.starts_with(['.', '/']) && !after.starts_with("//");
        let after = match after.find(['?', '#']).filter(|_| !is_path) {
            Some(at) => format!("{}…", &after[..=at]),
            None => after.to_owned(),
        };
        if !text.contains('@') {
            return after;
        }
        let is_name =
            |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
        let (start, user) = match before.find("://") {
            Some(at) => before.split_at(at + 3),
            None if before.starts_with("//") => before.split_at(2),
            None if is_name(before) => ("", before),
            // What looks like a scheme may be a user.
            None => (&before[..scheme(before).map_or(0, |rest| before.len() - rest.len())], ""),
        };
        match user.split_once(':') {
            None if !user.is_empty() && is_name(user) => format!("{start}{user}@{after}"),
            Some((user, _)) if is_name(user) => format!("{start}{user}:…@{after}"),
            _ => format!("{start}…@{after}"),
        }
    }

    /// Reads `https://user:password@host:5984/database`, or `http+unix://user@%2Fpath%2Fsocket/database`
    /// for a server on a Unix socket. Without a path it is the whole server.
    /// Where the path has several segments the last is the database and those before it are a
    /// proxy's; a `/` in a database's name is written `%2F`.
    pub fn parse(url: &str) -> Result<Given, BadAddress> {
        let url = read(url)?;
        let segments: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
        let server = |until: usize| {
            let server = Self::below(&url, segments.get(..until)?).ok()?;
            Some(server.with_user(&percent_decode_str(url.username()).decode_utf8_lossy()))
        };
        if let Some(endpoint) = bad_address::endpoint(&url, &segments, server) {
            return Err(BadAddress::Endpoint(endpoint));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BadAddress::Query);
        }
        let (database, proxy) = match segments.split_last() {
            None => (None, &[][..]),
            Some((last, proxy)) => {
                let name = percent_decode_str(last).decode_utf8().map_err(|_| BadAddress::Name)?;
                (Some(CollectionName::from(name.as_ref())), proxy)
            }
        };
        let address = Self::below(&url, proxy)?;
        let may_be_proxy = database.is_some() && url.path().ends_with('/');
        let below = may_be_proxy.then(|| Self::below(&url, &segments)).transpose()?;
        Ok(Given { address, credentials: user(&url)?, database, below })
    }

    /// Reads the URL of a whole server: a path in it is a proxy's and no database.
    pub fn server(url: &str) -> Result<(Self, Option<Credentials>), BadAddress> {
        let url = read(url)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BadAddress::Query);
        }
        let segments: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
        Ok((Self::below(&url, &segments)?, user(&url)?))
    }

    fn below(url: &Url, proxy: &[&str]) -> Result<Self, BadAddress> {
        let below = |base: String| proxy.iter().fold(base, |base, segment| base + "/" + segment);
        if url.scheme() != UNIX {
            let base = below(url.origin().ascii_serialization());
            return Ok(Self { base, socket: None });
        }
        let host = url.host_str().unwrap_or_default();
        let path = percent_decode_str(host).decode_utf8().map_err(|_| BadAddress::Socket)?;
        if !path.starts_with('/') || url.port().is_some() {
            return Err(BadAddress::Socket);
        }
        let base = below(format!("{UNIX}://{}", encode(&path)));
        let socket = Some((PathBuf::from(&*path), below("http://localhost".to_owned())));
        Ok(Self { base, socket })
    }

    /// The socket, where the server listens on one.
    pub(super) fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(|(path, _)| path.as_path())
    }

    /// What a request's URL begins with.
    pub(super) fn request_base(&self) -> &str {
        self.socket.as_ref().map_or(&self.base, |(_, base)| base)
    }

    /// The URL with the user, as a person writes it.
    pub(super) fn with_user(&self, user: &str) -> String {
        match user {
            "" => self.base.clone(),
            user => self.base.replacen("://", &format!("://{}@", encode(user)), 1),
        }
    }

    /// Whether connections to it are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// The URL of a database, for people.
    pub fn database(&self, name: &CollectionName) -> String {
        format!("{self}/{}", encode(name.as_str()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// What follows a URL's scheme, and slashes after it.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.trim_start().split_once(':')?;
    let mut letters = scheme.chars();
    let is_scheme = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|next| next.is_ascii_alphanumeric() || "+-.".contains(next));
    is_scheme.then(|| rest.trim_start_matches('/'))
}

/// What follows `http://`, where a text begins so or with the scheme of another server.
fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.trim_start().split_once("://")?;
    Address::SCHEMES.iter().any(|one| one.eq_ignore_ascii_case(scheme)).then_some(rest)
}

fn read(url: &str) -> Result<Url, BadAddress> {
    let url = url.trim();
    let is_unix = url.get(..UNIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(UNIX));
    if let Some(rest) = after_scheme(url)
        && let Some(mistake) = bad_address::mistake(rest)
        && (!is_unix || mistake == BadAddress::At)
    {
        return Err(mistake);
    }
    let url = Url::parse(url)?;
    if !Address::SCHEMES.contains(&url.scheme()) {
        return Err(BadAddress::Scheme(url.scheme().to_owned()));
    }
    Ok(url)
}

/// The user part of a URL.
fn user(url: &Url) -> Result<Option<Credentials>, BadAddress> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decode = |text| -> Result<String, BadAddress> {
        let text = percent_decode_str(text).decode_utf8().map_err(|_| BadAddress::User)?;
        Ok(text.into_owned())
    };
    let password = decode(url.password().unwrap_or_default())?;
    Ok(Some(Credentials::new(decode(url.username())?, password.into())))
}

/// One percent-encoded path segment or query value.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The path segment for a name, unless it is one that no URL can carry: every URL library takes
/// `.` and `..` (and their encoded forms) for a way through the path.
pub(super) fn segment(name: &str) -> Option<String> {
    if matches!(name, "" | "." | "..") { None } else { Some(encode(name)) }
}

/// The path of a document below its database. CouchDB redirects `_design%2Fname`, so the slash
/// after these two prefixes stays as it is.
pub(super) fn document_path(id: &str) -> Option<String> {
    for prefix in ["_design/", "_local/"] {
        if let Some(rest) = id.strip_prefix(prefix) {
            return Some(format!("{prefix}{}", segment(rest)?));
        }
    }
    segment(id)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_url_gives_the_server_the_user_and_the_database() {
        let given = Address::parse("https://me:p%40ss@host:6984/a%2Fb/").unwrap();
        assert_eq!(given.address.to_string(), "https://host:6984");
        assert_eq!(given.database.unwrap().as_str(), "a/b");
        let credentials = given.credentials.unwrap();
        assert_eq!(credentials.user(), Some("me"));
        assert_eq!(credentials.secret().read().unwrap().expose_secret(), "p@ss");
    }

    #[test]
    fn a_url_without_a_path_is_the_whole_server() {
        let given = Address::parse("http://host:5984/").unwrap();
        assert_eq!(given.address.to_string(), "http://host:5984");
        assert!(given.database.is_none() && given.credentials.is_none());
    }

    #[test]
    fn a_socket_stands_in_the_place_of_the_host() {
        let given = Address::parse("http+unix://me:p@%2Frun%2Fa%20b.sock/couch/shelf").unwrap();
        assert_eq!(given.address.to_string(), "http+unix://%2Frun%2Fa%20b.sock/couch");
        assert!(Address::is_meant("http+unix://x") && !Address::is_meant("unix://x"));
        assert_eq!(given.address.socket(), Some(Path::new("/run/a b.sock")));
        assert_eq!(given.address.request_base(), "http://localhost/couch");
        assert_eq!(given.database.unwrap().as_str(), "shelf");
        assert_eq!(given.credentials.unwrap().user(), Some("me"));
        let again = Address::server(&given.address.to_string()).unwrap().0;
        assert_eq!(again, given.address);
        for bad in ["http+unix:///run/a.sock", "http+unix://a.sock/b", "http+unix://%2Fa:80/b"] {
            assert_eq!(Address::parse(bad).unwrap_err(), BadAddress::Socket, "{bad}");
        }
    }

    #[test]
    fn a_path_that_ends_in_a_slash_may_be_a_proxys() {
        let below = |url: &str| Address::parse(url).unwrap().below.map(|below| below.to_string());
        assert_eq!(below("http://host/couch/").as_deref(), Some("http://host/couch"));
        assert_eq!(below("http://host/a/couch/").as_deref(), Some("http://host/a/couch"));
        assert_eq!(below("http://host/couch"), None);
        assert_eq!(below("http://host/"), None);
    }

    #[test]
    fn segments_before_the_last_are_a_proxys() {
        let given = Address::parse("http://host/couch/shelf").unwrap();
        assert_eq!(given.address.to_string(), "http://host/couch");
        assert_eq!(given.database.unwrap().as_str(), "shelf");
        let (server, _) = Address::server("http://host/couch").unwrap();
        assert_eq!(server.to_string(), "http://host/couch");
    }

    #[test]
    fn what_is_typed_wrong_is_shown_without_its_user_part() {
        for (typed, hidden) in [
            ("htp://me:hunter2@h/db", "htp://me:…@h/db"),
            ("htp://me@h/db", "htp://me@h/db"),
            ("me@h/db", "me@h/db"),
            ("htp://me%3Ahunter2@h/db", "htp://…@h/db"),
            ("htp://:hunter2@h/db", "htp://:…@h/db"),
            ("http://h/db?token=hunter2", "http://h/db?…"),
            ("http://me:hunter2@h/db#token=hunter2", "http://me:…@h/db#…"),
            ("h:1/db?token=hunter2", "h:1/db?…"),
            ("./what?", "./what?"),
            ("http:/me:hunter2@h/db", "http:/…@h/db"),
            ("http:me:hunter2@h/db", "http:…@h/db"),
            ("me:hunter2@h/db", "me:…@h/db"),
            ("//me:hunter2@h/db", "//me:…@h/db"),
            ("http://me:hun@ter2@h/db", "http://me:…@h/db"),
            ("http://me:hun/ter2@h/db", "http://me:…@h/db"),
            ("http://me:hun?ter2@h/db", "http://me:…@h/db"),
            ("feed:http://me:hunter2@h/db", "feed:http://me:…@h/db"),
            ("./folder", "./folder"),
        ] {
            assert_eq!(Address::hidden(typed), hidden);
        }
        for like in ["htp://h", "http:/me:p@h", "me:p@h", "http//me:p@h/db", "feed:http://h"] {
            assert!(Address::is_url_like(like), "{like}");
        }
        for path in ["/srv/a@b", "./a:b", "C:/folder", "folder", "/srv/x:y@z"] {
            assert!(!Address::is_url_like(path), "{path}");
        }
        assert!(Address::is_meant("HTTP://h") && Address::is_meant(" https://h"));
        assert_eq!(Address::parse("http://me:1/x@h/db").unwrap_err(), BadAddress::At);
    }

    #[test]
    fn no_form_of_credentials_or_of_a_bad_url_shows_the_password() {
        let given = Address::parse("http://me:hunter2@host/db").unwrap();
        assert!(!format!("{given:?}").contains("hunter2"));
        assert!(!format!("{given:?}").contains("me:"));
        for bad in
            ["http://me:hunter2@host:99999/", "ftp://me:hunter2@host/", "http://me:hunter2@h/?x"]
        {
            let error = Address::parse(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_segment_stays_one_segment_and_dots_are_refused() {
        assert_eq!(segment("a/b ü.txt").unwrap(), "a%2Fb%20%C3%BC.txt");
        assert_eq!(document_path("_design/by year").unwrap(), "_design/by%20year");
        assert_eq!(segment("..a").unwrap(), "..a");
        assert!(segment("..").is_none() && segment(".").is_none());
        assert!(document_path("_design/..").is_none());
    }
}
