//! What can go wrong between us and a server, and what an answer's status means.

use std::error::Error as _;
use std::io::ErrorKind;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use serde::Deserialize;

/// The longest text of a server that an error repeats, in characters.
const MAX_SAID: usize = 300;

/// No wait that a server asks for is taken to be longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What stands in the place of a server's words where it says nothing.
pub(super) const NOTHING_SAID: &str = "without a reason";

/// A request that failed. Its text names the request, never credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", with(what, advice.as_deref()))]
pub struct Error {
    kind: Kind,
    what: String,
    /// What to do, as a sentence without its full stop.
    advice: Option<String>,
    status: Option<u16>,
    form: Form,
}

/// What the body of an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An error as CouchDB writes it.
    Couch,
    /// A web page.
    Page,
    /// Something else, or nothing.
    Other,
}

fn with(what: &str, advice: Option<&str>) -> String {
    match advice {
        None => what.to_owned(),
        Some(advice) => format!("{}. {advice}", what.trim_end_matches('.')),
    }
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It may work later.
    Transient {
        /// How long the server asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The server does not understand the position in its feed.
    Expired,
    /// The server refused the credentials. More attempts may lock the user out.
    Refused,
    /// The server does not have what was requested.
    Missing,
    /// The answer is larger than we hold in memory.
    TooLarge,
    /// It fails however often it is tried.
    Permanent,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), advice: None, status: None, form: Form::Other }
    }

    /// The same with a sentence, without its full stop, that says what to do.
    pub(super) fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// What happened, without the advice.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// What the body of the answer looked like.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// An error that may pass by itself.
    pub fn transient(what: impl Into<String>) -> Self {
        Self::new(Kind::Transient { retry_after: None }, what)
    }

    /// The same as a transient error, after a pause.
    pub(super) fn asking(self, pause: Duration) -> Self {
        Self { kind: Kind::Transient { retry_after: Some(pause) }, ..self }
    }

    /// The same as an error of refused credentials.
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

    /// Whether it may pass by itself.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Transient { .. })
    }

    /// A failure below HTTP's answers: a lost connection, a broken body, a URL that cannot be sent.
    pub(super) fn transport(label: &str, error: reqwest::Error) -> Self {
        let hopeless = error.is_builder();
        let what = format!("{label}: {}", causes(error));
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
        let (said, form) = Said::read(said);
        // JSON may escape what is to be removed.
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
        Self { kind, what, advice: None, status: Some(status.as_u16()), form }
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
    fn read(text: &str) -> (Self, Form) {
        if let Ok(said) = serde_json::from_str::<Self>(text) {
            let form = if said.error.is_empty() { Form::Other } else { Form::Couch };
            return (said, form);
        }
        let (reason, form) = match web_page(text) {
            Some(page) => (page, Form::Page),
            None => (text.to_owned(), Form::Other),
        };
        (Self { error: String::new(), reason }, form)
    }

    fn is_about_sequence(&self) -> bool {
        let reason = self.reason.to_lowercase();
        reason.contains("malformed sequence") || reason.contains("'since'")
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.error.is_empty(), self.reason.is_empty()) {
            (true, true) => f.write_str(NOTHING_SAID),
            (true, false) => f.write_str(&bounded(&self.reason)),
            (false, true) => f.write_str(&bounded(&self.error)),
            (false, false) => write!(f, "{}: {}", bounded(&self.error), bounded(&self.reason)),
        }
    }
}

/// The words of an error of the HTTP client, and of its causes.
pub(super) fn causes(error: reqwest::Error) -> String {
    if let Some(words) = cut(&error) {
        return words.to_owned();
    }
    // reqwest prints the URL, and with it the user part, unless it is removed.
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
    bounded(&text)
}

/// What is said instead of the words of a library where a connection ended too early.
fn cut(error: &reqwest::Error) -> Option<&'static str> {
    const IN_ANSWER: &str = "the server closed the connection in the middle of an answer";
    let mut next = error.source();
    while let Some(cause) = next {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        // The HTTP library has no public kinds.
        let text = cause.to_string();
        let is_end = io == Some(ErrorKind::UnexpectedEof)
            || ["unexpected EOF", "end of file before message length"]
                .iter()
                .any(|words| text.contains(words));
        if is_end && (error.is_body() || error.is_decode()) {
            return Some(IN_ANSWER);
        }
        if text == "connection closed before message completed" {
            return Some("the server closed the connection before it answered");
        }
        next = cause.source();
    }
    None
}

/// A web page in words: that it is one, and its title. `None` for any other text.
pub(super) fn web_page(text: &str) -> Option<String> {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let lower = start.to_ascii_lowercase();
    if !["<!doctype html", "<html", "<head", "<title", "<body", "<!--"]
        .iter()
        .any(|tag| lower.starts_with(tag))
    {
        return None;
    }
    // Lower case in ASCII moves no byte.
    let title = lower.find("<title").and_then(|at| {
        let open = at + lower[at..].find('>')? + 1;
        let end = open + lower[open..].find('<')?;
        let words: Vec<_> = start[open..end].split_whitespace().collect();
        (!words.is_empty()).then(|| words.join(" "))
    });
    Some(match title {
        Some(title) => format!("a web page with the title \"{}\"", bounded(&title)),
        None => "a web page".to_owned(),
    })
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

/// Where a redirect leads, without query, parameters or user, which may be secret.
fn redirected(label: &str, headers: &HeaderMap, scrub: impl Fn(&str) -> String) -> String {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let asked = label.split_once(' ').and_then(|(_, url)| url::Url::parse(url).ok());
    let to = location.and_then(|text| match &asked {
        Some(asked) => asked.join(text).ok(),
        None => url::Url::parse(text).ok(),
    });
    let Some(to) = to else {
        return format!("{label}: the server redirects to another URL: give the URL it leads to");
    };
    let origin = scrub(&to.origin().ascii_serialization());
    if let Some(asked) = asked
        && asked.origin() == to.origin()
    {
        let path = to.path().split(';').next().unwrap_or_default();
        let path = bounded(&scrub(path));
        if to.path().trim_end_matches('/') == asked.path().trim_end_matches('/') {
            return format!(
                "{label}: the server redirects to {origin}{path}: give that URL, if it is the address of \
                 a server behind a proxy"
            );
        }
        return format!(
            "{label}: the server redirects to {origin}{path}, which CouchDB does not do: check the path \
             of the URL; if it leads to a login page, Plainfold needs an address without one"
        );
    }
    format!(
        "{label}: the server redirects to {origin}; give that URL, unless it leads to a login page: \
         Plainfold needs an address without one"
    )
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
        let text = error.to_string();
        assert!(text.contains("redirects to https://other:6984; give that URL"), "{text}");
        assert!(!text.contains("pw") && !text.contains("token"), "{text}");
        let error = answered(301, Some(("location", "/db/")), "").to_string();
        assert!(error.contains("redirects to http://h/db/: give that URL"), "{error}");
        let error = answered(302, Some(("location", "/login?token=1")), "").to_string();
        assert!(error.contains("http://h/login") && !error.contains("token"), "{error}");
        let error = answered(302, Some(("location", "/login;session=1")), "").to_string();
        assert!(error.contains("http://h/login") && !error.contains("session"), "{error}");
    }

    #[test]
    fn a_web_page_is_named_by_its_title() {
        let page = "<!DOCTYPE HTML>\n<html><head><TITLE lang=en>502 Bad\n Gateway</TITLE></head>";
        let error = answered(502, None, page);
        assert!(
            error.form() == Form::Page && error.to_string().contains("\"502 Bad Gateway\""),
            "{error}"
        );
        assert_eq!(web_page("<html><body>x").as_deref(), Some("a web page"));
        assert_eq!(web_page("no page"), None);
        assert!(
            answered(404, None, r#"{"error":"not_found","reason":"missing"}"#).form()
                == Form::Couch
        );
    }

    #[test]
    fn a_servers_words_are_bounded_and_on_one_line() {
        let error = answered(500, None, &"x\n".repeat(10_000)).to_string();
        assert!(error.chars().count() < 400 && !error.contains('\n'));
    }
}
