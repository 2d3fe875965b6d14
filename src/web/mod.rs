//! The web page that an agent serves at `/`: its files, which are part of the program, and their headers.
//!
//! The page asks the API as every other client does. Nothing here knows what it shows.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

#[cfg(test)]
mod tests;

/// A file of the page.
#[derive(Clone, Copy, Debug)]
struct PageFile {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! page_files {
    ($(($path:literal, $file:literal, $kind:expr)),* $(,)?) => {
        &[$(PageFile { path: $path, kind: $kind, bytes: include_bytes!($file) }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: &[PageFile] = page_files![
    ("/", "index.html", HTML),
    ("/page/icon.svg", "icon.svg", "image/svg+xml"),
    ("/page/style.css", "style.css", STYLE),
    ("/page/api.js", "api.js", SCRIPT),
    ("/page/app.js", "app.js", SCRIPT),
    ("/page/chart.js", "chart.js", SCRIPT),
    ("/page/collection.js", "collection.js", SCRIPT),
    ("/page/document.js", "document.js", SCRIPT),
    ("/page/documents.js", "documents.js", SCRIPT),
    ("/page/dom.js", "dom.js", SCRIPT),
    ("/page/events.js", "events.js", SCRIPT),
    ("/page/jobs.js", "jobs.js", SCRIPT),
    ("/page/json.js", "json.js", SCRIPT),
    ("/page/mirror.js", "mirror.js", SCRIPT),
    ("/page/overview.js", "overview.js", SCRIPT),
    ("/page/release.js", "release.js", SCRIPT),
    ("/page/stream.js", "stream.js", SCRIPT),
    ("/page/view.js", "view.js", SCRIPT),
    ("/page/words.js", "words.js", SCRIPT),
];

/// What the page may do: run its own scripts, ask its own server, and show images and PDF files that it has
/// received as bytes. No text can become a script or markup, whatever a document contains.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' blob:; frame-src blob:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The headers of all files.
const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
    // A browser asks each time whether its copy is right, so that no file of an older version is used.
    (CACHE_CONTROL, "no-cache"),
];

/// The routes of the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |routes, file| {
        let tag = tag(file.bytes);
        routes.route(
            file.path,
            get(async move |request: Request| answer(file, &tag, request.headers())),
        )
    })
}

/// The entity tag of a file: it changes with the file alone.
fn tag(bytes: &[u8]) -> String {
    let hash = blake3::hash(bytes).to_hex();
    format!("\"{}\"", &hash[..32])
}

fn answer(file: &PageFile, tag: &str, asked: &HeaderMap) -> Response {
    let known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let is_known = known.flat_map(|tags| tags.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    });
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(CONTENT_TYPE, file.kind)], file.bytes).into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    response
}
