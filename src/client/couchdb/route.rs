//! The way to a server, and in words what is wrong when a connection fails on it: the host, the port, a
//! socket, TLS, or a proxy of the environment.

use std::error::Error as _;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;
use super::error::{Error, Kind, causes};
use super::proxy::Proxy;
use super::standing::database;
use super::{error, probe, tls};

/// The databases whose names begin as those of a server's endpoints do.
const DATABASES: [&str; 3] = ["_users", "_replicator", "_global_changes"];

/// The way to one server.
#[derive(Debug)]
pub(super) struct Route {
    /// Its URL, without the path of a database.
    base: String,
    /// The same with the user that was given.
    pub typed: String,
    /// Without it the server is on a socket.
    place: Option<Place>,
    socket: Option<PathBuf>,
    pub proxy: Option<Proxy>,
    is_encrypted: bool,
    /// How long a connection may take.
    patience: Duration,
}

#[derive(Debug)]
struct Place {
    host: String,
    port: u16,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Route {
    pub fn new(address: &Address, user: Option<&str>, patience: Duration) -> Self {
        let base = address.to_string();
        let socket = address.socket().map(ToOwned::to_owned);
        let url = url::Url::parse(&base).ok().filter(|_| socket.is_none());
        let place = url.and_then(|url| {
            let port = url.port_or_known_default()?;
            Some(Place { host: url.host_str()?.to_owned(), port })
        });
        let proxy = place.as_ref().and_then(|_| Proxy::of_environment(&base));
        let is_encrypted = address.is_encrypted();
        let typed = address.with_user(user.unwrap_or_default());
        Self { base, typed, place, socket, proxy, is_encrypted, patience }
    }

    /// The host, without its port.
    pub fn host(&self) -> &str {
        self.place.as_ref().map_or("", |place| &place.host)
    }

    /// What to write instead of a URL with the wrong scheme, to which this request was sent.
    fn other_scheme(&self, label: &str) -> String {
        let (wrong, right) = match self.is_encrypted {
            true => ("https:", "http:"),
            false => ("http:", "https:"),
        };
        let path = label.split_once(&self.base).map_or("", |(_, path)| path);
        let database = match database(path) {
            "" => String::new(),
            name if name.starts_with('_') && !DATABASES.contains(&name) => String::new(),
            name => format!("/{name}"),
        };
        let url = self.typed.replacen(wrong, right, 1);
        format!("Write {right}// instead of {wrong}//, as in {url}{database}")
    }

    /// The error for a port that speaks plain HTTP though the URL says `https`, or the other way round.
    pub fn wrong_scheme(&self, label: &str, is_known: bool) -> Error {
        let speaks = match self.is_encrypted {
            true => "does not speak TLS, but plain HTTP",
            false => "speaks TLS, not plain HTTP",
        };
        let what = format!("{label}: this port {speaks}");
        Error::new(lasting(is_known), what).advising(self.other_scheme(label))
    }

    /// Whether the port speaks what the URL does not say.
    pub async fn has_wrong_scheme(&self) -> bool {
        match &self.place {
            Some(Place { host, port }) if self.proxy.is_none() => match self.is_encrypted {
                // A port of TLS may answer a plain request too, to say what is wrong with it.
                true => {
                    !probe::speaks_tls(host, *port).await && probe::speaks_http(host, *port).await
                }
                false => probe::speaks_tls(host, *port).await,
            },
            _ => false,
        }
    }

    /// The certificate that the server shows, in words, if this error says that it is not accepted.
    pub async fn refused_certificate(&self, error: &reqwest::Error) -> Option<String> {
        let Some(tls::Trouble::Certificate(_)) = tls::explained(error) else { return None };
        let Place { host, port } = self.place.as_ref().filter(|_| self.proxy.is_none())?;
        tls::described(&probe::certificate(host, *port).await?)
    }

    /// The error for a request that got no answer. `certificate` is the one that was not accepted, and
    /// `is_known` says that the server has answered in this protocol before.
    pub fn failed(
        &self,
        label: &str,
        error: reqwest::Error,
        certificate: Option<String>,
        is_known: bool,
    ) -> Error {
        if error.is_builder() {
            return Error::transport(label, error);
        }
        match tls::explained(&error) {
            Some(tls::Trouble::NotTls) if self.proxy.is_none() => {
                return self.wrong_scheme(label, is_known);
            }
            Some(trouble) => {
                let what = format!("{label}: {}", error::bounded(&trouble.to_string()));
                let error = Error::new(Kind::Permanent, what);
                return match certificate {
                    Some(certificate) => error.advising(format!("The certificate: {certificate}")),
                    None => error,
                };
            }
            None => {}
        }
        let cause = Cause::of(&error);
        if let Some(proxy) = &self.proxy {
            return self.failed_through(proxy, label, cause, error, is_known);
        }
        let (what, advice) = match (&self.socket, &self.place) {
            (Some(path), _) => {
                let path = path.display();
                match cause {
                    Cause::Refused => (
                        format!("nobody listens on the socket {path}"),
                        "Check that the server is running".to_owned(),
                    ),
                    Cause::NotFound => (
                        format!("there is no socket {path}"),
                        "Check that the server is running and the path is right".to_owned(),
                    ),
                    Cause::Denied => (
                        format!("no permission to use the socket {path}"),
                        "Run as a user who may write to it".to_owned(),
                    ),
                    _ => return Error::transport(label, error),
                }
            }
            (None, Some(place)) => match cause {
                Cause::Refused => (
                    format!("{place} refused the connection"),
                    match place.host.as_str() {
                        "[::1]" => {
                            "Check that the server is running and the port is right; a server that \
                                    listens on IPv4 only is at 127.0.0.1"
                                .to_owned()
                        }
                        _ => "Check that the server is running and the port is right".to_owned(),
                    },
                ),
                Cause::Unknown(why) => (
                    format!("the host name `{}` cannot be resolved ({why})", place.host),
                    "Check its spelling and the DNS of this machine".to_owned(),
                ),
                Cause::TimedOut => (
                    format!("no connection to {place} within {:?}", self.patience),
                    "Check the host, the port and the firewalls between".to_owned(),
                ),
                Cause::Unreachable => (
                    format!("{place} cannot be reached ({})", causes(error)),
                    "Check the host and the network of this machine".to_owned(),
                ),
                _ => return Error::transport(label, error),
            },
            (None, None) => return Error::transport(label, error),
        };
        Error::transient(format!("{label}: {what}")).advising(advice)
    }

    /// The error for a request that did not get through a proxy.
    fn failed_through(
        &self,
        proxy: &Proxy,
        label: &str,
        cause: Cause,
        error: reqwest::Error,
        is_known: bool,
    ) -> Error {
        let place = self.place.as_ref().map(ToString::to_string).unwrap_or_default();
        let around = self.around();
        let transient = |what: String| Error::transient(format!("{label}: {what}"));
        let advice = format!("Check {}. {around}", proxy.variable);
        if proxy.is_socks {
            let what = format!("{label}: {proxy} speaks SOCKS, which Plainfold does not");
            return Error::new(lasting(is_known), what)
                .advising(format!("Name an HTTP proxy. {around}"));
        }
        match cause {
            Cause::Refused => transient(format!("{proxy} refused the connection")).advising(advice),
            Cause::Unknown(why) => {
                transient(format!("the host name of {proxy} cannot be resolved ({why})"))
                    .advising(advice)
            }
            Cause::TimedOut => transient(format!(
                "no connection to {place} through {proxy} within {:?}",
                self.patience
            ))
            .advising(advice),
            Cause::ProxyLogin => self.no_proxy_login(proxy, label, is_known),
            Cause::NoTunnel => transient(format!("{proxy} does not connect to {place}"))
                .advising(format!("Allow {place} in the proxy. {around}")),
            Cause::NotFound | Cause::Denied | Cause::Unreachable | Cause::Other => {
                transient(format!("no answer through {proxy}: {}", causes(error))).advising(around)
            }
        }
    }

    /// The error for a proxy that wants to know a user.
    pub fn no_proxy_login(&self, proxy: &Proxy, label: &str, is_known: bool) -> Error {
        let what = format!("{label}: {proxy} wants a user and a password (407)");
        let around = self.around();
        Error::new(lasting(is_known), what)
            .advising(format!("Write {}=http://USER:PASSWORD@HOST:PORT. {around}", proxy.variable))
    }

    /// How requests go around the proxy.
    pub fn around(&self) -> String {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        format!("To connect without a proxy, add `{host}` to NO_PROXY")
    }
}

/// The kind of an error that shows a wrong configuration. On the way to a server that has answered before,
/// the configuration was right, so it may pass by itself.
fn lasting(is_known: bool) -> Kind {
    if is_known { Kind::Transient { retry_after: None } } else { Kind::Permanent }
}

/// Whether a request failed that may have been connected to the server.
pub(super) fn was_connected(error: &reqwest::Error) -> bool {
    !error.is_builder()
        && tls::explained(error).is_none()
        && matches!(Cause::of(error), Cause::TimedOut | Cause::Other)
}

/// Why there is no connection.
enum Cause {
    Refused,
    TimedOut,
    Unreachable,
    /// The host is not known. Says why.
    Unknown(String),
    NotFound,
    Denied,
    ProxyLogin,
    NoTunnel,
    Other,
}

impl Cause {
    fn of(error: &reqwest::Error) -> Self {
        let mut next = error.source();
        let mut last = None;
        while let Some(cause) = next {
            let text = cause.to_string();
            // The resolver, the connector and the tunnel have no public types.
            if text == "dns error" {
                let why = cause.source().map(innermost).unwrap_or_default();
                return Self::Unknown(error::bounded(&why));
            }
            if text.contains("proxy authorization required") {
                return Self::ProxyLogin;
            }
            if text == "tunnel error: unsuccessful" || text == "unsuccessful" {
                return Self::NoTunnel;
            }
            last = cause.downcast_ref::<std::io::Error>().or(last);
            next = cause.source();
        }
        match last.map(std::io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => Self::Refused,
            Some(ErrorKind::TimedOut) => Self::TimedOut,
            Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => Self::Unreachable,
            Some(ErrorKind::NotFound) => Self::NotFound,
            Some(ErrorKind::PermissionDenied) => Self::Denied,
            _ if error.is_connect() && error.is_timeout() => Self::TimedOut,
            _ => Self::Other,
        }
    }
}

/// The text of the last cause.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
