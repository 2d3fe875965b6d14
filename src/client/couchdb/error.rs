//! What can go wrong between us and a server, and what an answer's status means.
//!
//! It must not know what the caller does about an error.

use std::error::Error as _;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use serde::Deserialize;

use super::tls;

/// The longest text of a server that an error repeats, in characters.
const MAX_SAID: usize = 300;

/// No wait that a server asks for is taken to be longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A request that did not give what it should have. Its text names the request, never credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    kind: Kind,
    what: String,
    status: Option<u16>,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It may work later.
    Transient {
        /// How long the server asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The place in the feed is of no use to this server.
    Expired,
    /// The credentials were refused. Asking again locks the user out.
    Refused,
    /// What was asked for is not there.
    Missing,
    /// The answer is larger than we hold in memory.
    TooLarge,
    /// It will not work however often it is asked.
    Permanent,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), status: None }
    }

    /// An error that may go away by itself.
    pub fn transient(what: impl Into<String>) -> Self {
        Self::new(Kind::Transient { retry_after: None }, what)
    }

    /// The same as one that goes away, after a pause.
    pub(super) fn asking(self, pause: Duration) -> Self {
        Self { kind: Kind::Transient { retry_after: Some(pause) }, ..self }
    }

    /// The same as one of refused credentials.
    pub(super) fn refused(self) -> Self {
        Self { kind: Kind::Refused, ..self }
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The status of the answer, where there was one.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether it may go away by itself.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Transient { .. })
    }

    /// A failure below HTTP's answers: no connection, a broken body, a URL that cannot be sent.
    pub(super) fn transport(label: &str, error: reqwest::Error) -> Self {
        let hopeless = error.is_builder();
        if let Some(words) = tls::explained(&error) {
            return Self::new(Kind::Permanent, format!("{label}: {}", bounded(&words)));
        }
        // reqwest prints the URL, and with it the user part, unless it is taken out.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        let what = format!("{label}: {}", bounded(&text));
        if hopeless { Self::new(Kind::Permanent, what) } else { Self::transient(what) }
    }

    /// An answer whose status is not a success. `said` is the beginning of its body,
    /// and `scrub` takes our credentials out of a text.
    pub(super) fn answered(
        label: &str,
        status: StatusCode,
        headers: &HeaderMap,
        said: &str,
        scrub: impl Fn(&str) -> String,
        now: jiff::Timestamp,
    ) -> Self {
        let said = Said::read(said);
        // JSON may escape what is to be taken out.
        let said = Said { error: scrub(&said.error), reason: scrub(&said.reason) };
        let what = format!("{label}: {} {said}", status.as_u16());
        let kind = match status.as_u16() {
            401 | 403 => Kind::Refused,
            404 => Kind::Missing,
            400 if said.is_about_sequence() => Kind::Expired,
            408 | 429 | 500..=599 => Kind::Transient { retry_after: retry_after(headers, now) },
            300..=399 => return Self::new(Kind::Permanent, redirected(label, headers, scrub)),
            _ => Kind::Permanent,
        };
        Self { kind, what, status: Some(status.as_u16()) }
    }
}

/// A server's own words about a failure: CouchDB's `{"error":…,"reason":…}`, or any text.
#[derive(Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    error: String,
    #[serde(default)]
    reason: String,
}

impl Said {
    fn read(text: &str) -> Self {
        serde_json::from_str(text)
            .unwrap_or_else(|_| Self { error: String::new(), reason: text.to_owned() })
    }

    fn is_about_sequence(&self) -> bool {
        let reason = self.reason.to_lowercase();
        reason.contains("malformed sequence") || reason.contains("'since'")
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.error.is_empty(), self.reason.is_empty()) {
            (true, true) => f.write_str("without a word"),
            (true, false) => f.write_str(&bounded(&self.reason)),
            (false, true) => f.write_str(&bounded(&self.error)),
            (false, false) => write!(f, "{}: {}", bounded(&self.error), bounded(&self.reason)),
        }
    }
}

/// A server's text, cut to a length that fits a line of a log, without control characters.
pub fn bounded(text: &str) -> String {
    let mut short: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID).collect();
    if text.trim().chars().nth(MAX_SAID).is_some() {
        short.push('…');
    }
    short
}

/// Where a redirect leads, without path, query or user, as none of them helps a person here.
fn redirected(label: &str, headers: &HeaderMap, scrub: impl Fn(&str) -> String) -> String {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    match location.and_then(|text| url::Url::parse(text).ok()) {
        Some(url) => format!(
            "{label}: the server redirects to {}; give that URL",
            scrub(&url.origin().ascii_serialization())
        ),
        None => format!("{label}: the server redirects to another path; give the URL it leads to"),
    }
}

/// `Retry-After`, as seconds or as an HTTP date.
pub(super) fn retry_after(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // More seconds than 64 bits hold.
        Err(_) if is_number => MAX_RETRY_AFTER,
        Err(_) => {
            let then = jiff::fmt::rfc2822::DateTimeParser::new()
                .relaxed_weekday(true)
                .parse_timestamp(text)
                .ok()?;
            Duration::try_from(then.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Whether a server refuses a request for now, because there are too many or it is overloaded.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, header: Option<(&'static str, &str)>, said: &str) -> Error {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        let now = "1994-11-06T08:49:07Z".parse().unwrap();
        let scrub = |text: &str| text.replace("pa\"ss9", "…");
        Error::answered("GET http://h/db", status.try_into().unwrap(), &headers, said, scrub, now)
    }

    #[test]
    fn a_servers_words_are_scrubbed_after_they_are_read() {
        let said = r#"{"error":"pa\"ss9","reason":"no p\u0061\"ss9"}"#;
        let text = answered(401, None, said).to_string();
        assert_eq!(text, "GET http://h/db: 401 …: no …");
    }

    #[test]
    fn a_status_is_classified_by_what_can_be_done_about_it() {
        let kinds = [401, 403, 404, 400, 412].map(|status| answered(status, None, "").kind());
        let expected =
            [Kind::Refused, Kind::Refused, Kind::Missing, Kind::Permanent, Kind::Permanent];
        assert_eq!(kinds, expected);
        for status in [408, 429, 500, 502, 503] {
            assert!(answered(status, None, "").is_transient(), "{status}");
        }
    }

    #[test]
    fn a_malformed_sequence_is_an_expired_position() {
        let said = r#"{"error":"bad_request","reason":"Malformed sequence supplied in 'since' parameter."}"#;
        assert_eq!(answered(400, None, said).kind(), Kind::Expired);
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date_and_is_bounded() {
        let wait = |text| match answered(429, Some(("retry-after", text)), "").kind() {
            Kind::Transient { retry_after } => retry_after.map(|wait| wait.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(wait("999999999"), Some(3600));
        assert_eq!(wait("99999999999999999999999999"), Some(3600));
        assert_eq!(wait("Sun, 06 Nov 2094 08:49:37 GMT"), Some(3600));
        for nonsense in ["soon", "", "-5", "1.5", "0x10", "7s", "+"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_redirect_names_the_host_to_give_and_nothing_secret() {
        let error = answered(302, Some(("location", "https://me:pw@other:6984/x?token=1")), "");
        assert_eq!(error.kind(), Kind::Permanent);
        assert!(error.to_string().ends_with("redirects to https://other:6984; give that URL"));
    }

    #[test]
    fn a_servers_words_are_bounded_and_on_one_line() {
        let error = answered(500, None, &"x\n".repeat(10_000)).to_string();
        assert!(error.chars().count() < 400 && !error.contains('\n'));
    }
}
