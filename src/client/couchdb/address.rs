//! Where a CouchDB-protocol server is and who asks: URLs, their paths, credentials.
//!
//! Pure. It must not know HTTP, nor what is asked of the server.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::document::CollectionName;

/// Everything but RFC 3986's unreserved characters, so that a segment stays one segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The scheme of a server on a Unix socket.
const UNIX: &str = "http+unix";

/// The schemes of servers.
const SCHEMES: [&str; 3] = ["http", "https", UNIX];

/// A server's address. It never holds credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Scheme, host, port and what path a proxy puts before the server's own; no slash at its end.
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
    /// Whether this is meant as the URL of a server: whether it begins as one.
    pub fn is_meant(text: &str) -> bool {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| SCHEMES.contains(&scheme))
    }

    /// Reads `https://user:password@host:5984/database`, or `http+unix://user@%2Fpath%2Fsocket/database`
    /// for a server on a Unix socket. Without a path it is the whole server.
    /// Where the path has several segments the last is the database and those before it are a
    /// proxy's; a `/` in a database's name is written `%2F`.
    pub fn parse(url: &str) -> Result<Given, BadAddress> {
        let url = read(url)?;
        let segments: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
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
        Ok(Given { address, credentials: Credentials::of(&url)?, database, below })
    }

    /// Reads the URL of a whole server: a path in it is a proxy's and no database.
    pub fn server(url: &str) -> Result<(Self, Option<Credentials>), BadAddress> {
        let url = read(url)?;
        let segments: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
        Ok((Self::below(&url, &segments)?, Credentials::of(&url)?))
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

    /// Whether what goes there is encrypted.
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

/// A name and a password, sent as HTTP Basic authentication. Neither is ever printed.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: SecretString,
}

impl Credentials {
    /// Credentials of this user.
    pub fn new(user: impl Into<String>, password: SecretString) -> Self {
        Self { user: user.into(), password }
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn password(&self) -> &str {
        self.password.expose_secret()
    }

    fn of(url: &Url) -> Result<Option<Self>, BadAddress> {
        if url.username().is_empty() && url.password().is_none() {
            return Ok(None);
        }
        let decode = |text| -> Result<String, BadAddress> {
            let text = percent_decode_str(text).decode_utf8().map_err(|_| BadAddress::User)?;
            Ok(text.into_owned())
        };
        let password = decode(url.password().unwrap_or_default())?;
        Ok(Some(Self::new(decode(url.username())?, password.into())))
    }

    /// The pair as it is sent.
    pub(super) fn encoded(&self) -> String {
        STANDARD.encode(format!("{}:{}", self.user, self.password()))
    }

    /// A server's words without the password, should the server repeat it, or the header that
    /// holds it.
    pub(super) fn scrub(&self, text: &str) -> String {
        let (password, header) = (self.password(), self.encoded());
        if password.is_empty() {
            return text.to_owned();
        }
        let mut scrubbed = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let secret = beginning(rest, &header).or_else(|| beginning(rest, password));
            scrubbed.push(if secret.is_some() { '…' } else { next });
            rest = &rest[secret.unwrap_or(next.len_utf8())..];
        }
        scrubbed
    }
}

/// How many bytes at the beginning of a text are this secret: as it is, or with characters that are
/// escaped as in JSON or in a URL.
fn beginning(text: &str, secret: &str) -> Option<usize> {
    if text.starts_with(secret) {
        return Some(secret.len());
    }
    secret.chars().try_fold(0, |length, next| Some(length + spelling(&text[length..], next)?))
}

/// How many bytes at the beginning of a text are this character, escaped or not.
fn spelling(text: &str, character: char) -> Option<usize> {
    let json = || {
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units);
        let unicode = units.iter().try_fold(0, |length, unit| {
            let digits = text[length..].strip_prefix("\\u")?.get(..4)?;
            (u16::from_str_radix(digits, 16).ok()? == *unit).then_some(length + 6)
        });
        let short = match character {
            '"' | '\\' | '/' => character,
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            _ => return unicode,
        };
        unicode.or_else(|| text.strip_prefix('\\')?.starts_with(short).then_some(2))
    };
    let percent = |bytes: &[u8]| {
        bytes.iter().try_fold(0, |length, byte| {
            let digits = text[length..].strip_prefix('%')?.get(..2)?;
            (u8::from_str_radix(digits, 16).ok()? == *byte).then_some(length + 3)
        })
    };
    let utf8 = || percent(character.encode_utf8(&mut [0; 4]).as_bytes());
    let latin1 = || percent(&[u8::try_from(character).ok()?]);
    let form = || (character == ' ' && text.starts_with('+')).then_some(1);
    let itself = || text.starts_with(character).then_some(character.len_utf8());
    json().or_else(utf8).or_else(latin1).or_else(form).or_else(itself)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A URL that does not name a server. It never repeats the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// It is no URL.
    #[error("the server's URL cannot be read: {0}")]
    Url(#[from] url::ParseError),
    /// It is the URL of something else.
    #[error("the server's URL must begin with http://, https:// or http+unix://, not `{0}:`")]
    Scheme(String),
    /// It names no socket.
    #[error(
        "the URL of a Unix socket must hold the socket's absolute path in the host's place, \
         percent-encoded, as in http+unix://%2Frun%2Fapp%2Ffeed.sock/database"
    )]
    Socket,
    /// It has a query or a fragment.
    #[error("the server's URL must not have a `?` or `#` part")]
    Query,
    /// The database's name is not UTF-8.
    #[error("the database's name in the URL is not UTF-8 when percent-decoded")]
    Name,
    /// The user part is not UTF-8.
    #[error("the user part of the URL is not UTF-8 when percent-decoded")]
    User,
}

fn read(url: &str) -> Result<Url, BadAddress> {
    let url = Url::parse(url.trim())?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(BadAddress::Scheme(url.scheme().to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BadAddress::Query);
    }
    Ok(url)
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
    use super::*;

    #[test]
    fn a_url_gives_the_server_the_user_and_the_database() {
        let given = Address::parse("https://me:p%40ss@host:6984/a%2Fb/").unwrap();
        assert_eq!(given.address.to_string(), "https://host:6984");
        assert_eq!(given.database.unwrap().as_str(), "a/b");
        let credentials = given.credentials.unwrap();
        assert_eq!((credentials.user(), credentials.password()), ("me", "p@ss"));
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
        assert_eq!(given.credentials.unwrap().user(), "me");
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
    fn a_servers_words_are_scrubbed_of_the_password_and_of_the_header_that_holds_it() {
        let credentials = Credentials::new("me", SecretString::from("hunter2"));
        let said = credentials.scrub("Authorization: Basic bWU6aHVudGVyMg== (hunter2) is wrong");
        assert_eq!(said, "Authorization: Basic … (…) is wrong");
    }

    #[test]
    fn a_password_is_scrubbed_in_every_spelling() {
        for (password, spellings) in [
            ("pa\"ss9", &["pa\"ss9", r#"pa\"ss9"#, "pa%22ss9", r"pa\u0022ss9"][..]),
            ("pa\\ss9", &["pa\\ss9", r"pa\\ss9", "pa%5Css9", "pa%5css9", r"pa\u005css9"]),
            ("pa\\\\9", &[r"pa\\9", r"pa\\\\9", "pa%5C%5C9"]),
            ("pässß9", &["pässß9", r"p\u00e4ss\u00DF9", "p%C3%A4ss%c3%9f9", "p%E4ss%DF9"]),
            ("pa/ss9", &["pa/ss9", r"pa\/ss9", "pa%2Fss9", "%70%61%2f%73%73%39"]),
            ("pa ss😀", &["pa ss😀", "pa+ss%F0%9F%98%80", r"pa%20ss\ud83d\ude00"]),
            ("50%25x", &["50%25x", "50%2525x"]),
        ] {
            let credentials = Credentials::new("me", SecretString::from(password));
            for spelling in spellings {
                let said = credentials.scrub(&format!("ü ({spelling}) %zz \\u12 \\"));
                assert_eq!(said, "ü (…) %zz \\u12 \\", "{password} as {spelling}");
            }
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
