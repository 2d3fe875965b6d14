//! The page's files without a socket.

use std::collections::BTreeSet;

use axum::body::{Body, to_bytes};
use tower::ServiceExt as _;

use super::*;

async fn ask(request: axum::http::request::Builder) -> (Response<()>, String) {
    let response = routes::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (Response::from_parts(parts, ()), String::from_utf8_lossy(&body).into_owned())
}

type Response<T> = axum::http::Response<T>;

#[tokio::test]
async fn every_file_has_the_headers_that_let_nothing_foreign_run() {
    for file in FILES {
        let (response, body) = ask(Request::get(file.path)).await;
        assert_eq!(response.status(), StatusCode::OK, "{}", file.path);
        assert_eq!(body.as_bytes(), file.bytes);
        for (name, value) in HEADERS {
            assert_eq!(response.headers()[&name], value, "{}", file.path);
        }
        assert_eq!(response.headers()[CONTENT_TYPE], file.kind);
    }
    assert!(POLICY.starts_with("default-src 'none';") && !POLICY.contains("unsafe"));
    assert!(!POLICY.contains("http:") && !POLICY.contains("data:") && !POLICY.contains('*'));
}

#[tokio::test]
async fn a_browser_keeps_its_copy_until_the_file_changes() {
    let (response, _) = ask(Request::get("/page/app.js")).await;
    let tag = response.headers()[ETAG].to_str().unwrap().to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"old\", {tag}"), "*".to_owned()] {
        let (response, body) = ask(Request::get("/page/app.js").header(IF_NONE_MATCH, known)).await;
        assert_eq!((response.status(), body.as_str()), (StatusCode::NOT_MODIFIED, ""));
        assert_eq!(response.headers()[ETAG], tag);
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY);
    }
    // The file of another version has another tag.
    for other in ["\"old\"".to_owned(), super::tag(b"another version")] {
        let (response, body) = ask(Request::get("/page/app.js").header(IF_NONE_MATCH, other)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!body.is_empty());
    }
}

/// The texts between `'` that follow a word in a file, such as the modules that it imports.
fn quoted<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.split(word).skip(1).filter_map(|rest| rest.split(['\'', '"']).next()).collect()
}

#[test]
fn the_page_uses_each_of_its_files_and_nothing_from_elsewhere() {
    let mut used = BTreeSet::from(["/".to_owned()]);
    for file in FILES {
        let text = std::str::from_utf8(file.bytes).unwrap();
        let imports = quoted(text, " from './").into_iter().map(|name| format!("/page/{name}"));
        used.extend(imports);
        let links = quoted(text, "href=\"page/").into_iter().chain(quoted(text, "src=\"page/"));
        used.extend(links.map(|name| format!("/page/{name}")));
        for refused in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "style=", "onclick=\""]
        {
            assert!(!text.contains(refused), "{}: {refused}", file.path);
        }
        let outside = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://"), "{}", file.path);
    }
    assert_eq!(used, FILES.iter().map(|file| file.path.to_owned()).collect());
    let whole: usize = FILES.iter().map(|file| file.bytes.len()).sum();
    assert!(whole < 150_000, "{whole} bytes");
}
