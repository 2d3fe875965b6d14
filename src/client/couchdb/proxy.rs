//! Which proxy of the environment requests go through, for messages.
//!
//! The HTTP client reads these variables by itself, so this reads the same ones by the same rules.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;

/// The proxy that requests to one server go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    /// Where it is, without its user.
    url: String,
    /// The variable that names it.
    pub variable: &'static str,
    /// Whether it speaks SOCKS, which the HTTP client does not.
    pub is_socks: bool,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {} from {}", self.url, self.variable)
    }
}

impl Proxy {
    /// The proxy for a server, if the environment names one.
    pub fn of_environment(base: &str) -> Option<Self> {
        let matcher = Matcher::from_env();
        let intercept = matcher.intercept(&base.parse().ok()?)?;
        let uri = intercept.uri();
        let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host()?);
        let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        let names = match base.starts_with("https:") {
            true => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
            false => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        };
        let is_set = |name: &&str| std::env::var(name).is_ok_and(|value| value.contains(host));
        Some(Self {
            url: format!("{scheme}://{host}{port}"),
            variable: names.into_iter().find(is_set)?,
            is_socks: scheme.starts_with("socks"),
        })
    }
}
