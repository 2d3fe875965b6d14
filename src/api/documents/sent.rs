//! Files of a mirror as answers in which nothing runs, whatever they hold and are called.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::document::plain;

/// The types that are shown, of those that the source gives an attachment. None of them is text, and in
/// none of them a script reaches the page. All others are only downloaded.
const SHOWN: [&str; 6] =
    ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "application/pdf"];

/// The type of everything that is not shown.
const UNKNOWN: &str = "application/octet-stream";

/// Nothing is loaded, and nothing runs: no script, no form, no plugin, in an origin of its own.
const INERT: &str = "default-src 'none'; sandbox";

/// The same for what a browser shows with a viewer of its own. Chromium does not start its viewer for PDF
/// in a sandbox, nor without plugins and styles. The viewer is a process without access to the page, and
/// the type with `nosniff` keeps the bytes from being taken for HTML.
const VIEWED: &str = "default-src 'none'; object-src 'self'; style-src 'unsafe-inline'; \
                      form-action 'none'; base-uri 'none'";

/// Who may use an answer in a page.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The characters that need no escape in a header (RFC 8187, `attr-char`).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The longest name of a file that is downloaded, in characters.
const LONGEST: usize = 120;

/// What is sent of a file beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentFile {
    /// The type.
    pub kind: &'static str,
    /// Whether the browser needs no viewer for it.
    pub is_inert: bool,
    /// What changes with the bytes, in quotes.
    pub tag: Option<String>,
    /// How the file is shown or saved.
    pub name: Option<HeaderValue>,
}

impl SentFile {
    /// An attachment with this name, of this type and with this digest, as the source has them.
    pub fn of_attachment(name: &str, kind: Option<&str>, digest: Option<&str>) -> Self {
        let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        let shown = SHOWN.iter().find(|shown| shown.eq_ignore_ascii_case(essence));
        let way = if shown.is_some() { "inline" } else { "attachment" };
        Self {
            kind: shown.copied().unwrap_or(UNKNOWN),
            is_inert: shown.is_none_or(|kind| *kind != "application/pdf"),
            tag: digest.and_then(tag),
            name: HeaderValue::try_from(disposition(way, name)).ok(),
        }
    }
}

/// A digest as an entity tag, if it can be one.
fn tag(digest: &str) -> Option<String> {
    const LONGEST: usize = 200;
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    let is_one = !digest.is_empty() && digest.len() <= LONGEST && digest.bytes().all(fits);
    is_one.then(|| format!("\"{digest}\""))
}

/// How a file is shown or saved, with a name that is no path, hides nothing, and is not long.
fn disposition(way: &str, name: &str) -> String {
    let mut safe: String = name
        .chars()
        .map(|c| if plain::is_obeyed(c) || r#"/\:*?"<>|"#.contains(c) { '_' } else { c })
        .collect();
    if let Some((cut, _)) = safe.char_indices().nth(LONGEST) {
        // The end says what kind of file it is.
        let ends = safe.char_indices().rev().nth(LONGEST / 4).map_or(cut, |(at, _)| at.max(cut));
        let starts = safe.char_indices().nth(LONGEST - LONGEST / 4 - 2).map_or(cut, |(at, _)| at);
        safe = format!("{}…{}", &safe[..starts], &safe[ends..]);
    }
    let safe = safe.trim_matches(['.', ' ']);
    let safe = if safe.is_empty() { "attachment" } else { safe };
    let ascii =
        |c: char| if c.is_ascii_alphanumeric() || "._- ()+,@".contains(c) { c } else { '_' };
    let ascii: String = safe.chars().map(ascii).collect();
    format!("{way}; filename=\"{ascii}\"; filename*=UTF-8''{}", utf8_percent_encode(safe, PLAIN))
}

/// Whether a client that sends these headers has the bytes with this tag.
pub fn is_known(headers: &HeaderMap, tag: Option<&str>) -> bool {
    let Some(tag) = tag else { return false };
    let held = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut held = held.flat_map(|value| value.split(','));
    held.any(|one| matches!(one.trim(), one if one == "*" || one.trim_start_matches("W/") == tag))
}

/// The answer to a client that has the bytes.
pub fn unchanged(content: &SentFile) -> Response {
    let mut answer = StatusCode::NOT_MODIFIED.into_response();
    describe(answer.headers_mut(), content);
    answer
}

/// An answer of this number of bytes.
pub fn answer(content: &SentFile, length: u64, body: Body) -> Response {
    let mut answer = body.into_response();
    let headers = answer.headers_mut();
    describe(headers, content);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content.kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    answer
}

fn describe(headers: &mut HeaderMap, content: &SentFile) {
    let policy = if content.is_inert { INERT } else { VIEWED };
    let always = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, policy),
        (RESOURCE_POLICY, "same-origin"),
        // What was read may be shown again only after the mirror was asked.
        (CACHE_CONTROL, "private, no-cache"),
    ];
    headers.extend(always.map(|(name, value)| (name, HeaderValue::from_static(value))));
    if let Some(tag) = content.tag.as_ref().and_then(|tag| HeaderValue::from_str(tag).ok()) {
        headers.insert(ETAG, tag);
    }
    if let Some(name) = &content.name {
        headers.insert(CONTENT_DISPOSITION, name.clone());
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_download_is_no_path_and_hides_nothing() {
        let names = [
            ("a.txt", "filename=\"a.txt\"; filename*=UTF-8''a.txt"),
            ("größe 1.png", "filename=\"gr__e 1.png\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%201.png"),
            ("../../etc/passwd", "filename=\"_.._etc_passwd\"; filename*=UTF-8''_.._etc_passwd"),
            ("a\"; x=\"y\r\nSet-Cookie: z", "filename=\"a__ x__y__Set-Cookie_ z\"; filename*="),
            ("exe.\u{202e}gnp", "filename=\"exe._gnp\"; filename*=UTF-8''exe._gnp"),
            ("", "filename=\"attachment\"; filename*=UTF-8''attachment"),
            ("..", "filename=\"attachment\"; filename*=UTF-8''attachment"),
        ];
        for (name, expected) in names {
            let header = disposition("attachment", name);
            assert!(header.starts_with(&format!("attachment; {expected}")), "{name:?}: {header}");
            assert!(HeaderValue::try_from(header).is_ok(), "{name:?}");
        }
        let long = disposition("inline", &format!("{}.tar.gz", "ü".repeat(5_000)));
        assert!(long.len() < 1_200 && long.ends_with(".tar.gz"), "{long}");
        assert!(HeaderValue::try_from(long).is_ok());
    }

    #[test]
    fn only_some_types_are_shown_and_the_rest_is_downloaded_without_its_type() {
        let of = |kind| SentFile::of_attachment("a", kind, None);
        let way = |content: &SentFile| {
            let name = content.name.as_ref().unwrap().to_str().unwrap();
            name.split(';').next().unwrap().to_owned()
        };
        for kind in ["image/png", "IMAGE/PNG; charset=x", " image/png "] {
            let content = of(Some(kind));
            assert_eq!((content.kind, &*way(&content)), ("image/png", "inline"), "{kind}");
            assert!(content.is_inert);
        }
        assert!(!of(Some("application/pdf")).is_inert);
        let others = ["text/html", "image/svg+xml", "image/png,text/html", "text/xml", "", "é"];
        for content in others.map(|kind| of(Some(kind))).into_iter().chain([of(None)]) {
            assert_eq!((content.kind, &*way(&content)), (UNKNOWN, "attachment"));
            assert!(content.is_inert);
        }
    }

    #[test]
    fn a_digest_is_a_tag_if_it_can_be_one() {
        let tag = |digest| SentFile::of_attachment("a", None, Some(digest)).tag;
        assert_eq!(
            tag("md5-rL0Y20zC+Fzt72VPzMSk2A==").unwrap(),
            "\"md5-rL0Y20zC+Fzt72VPzMSk2A==\""
        );
        for digest in ["", "a\"b", "a\r\nb", "a b", "é", &"x".repeat(201)] {
            assert_eq!(tag(digest), None, "{digest}");
        }
        let known = |value: &str| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().unwrap())]);
            is_known(&headers, Some("\"a\""))
        };
        assert!(known("\"a\"") && known("\"b\", W/\"a\"") && known("*"));
        assert!(!known("\"b\"") && !known("a") && !is_known(&HeaderMap::new(), Some("\"a\"")));
    }
}
