//! Documents with any id and any attachment, asked for without a socket.

use std::fs;
use std::os::unix::fs::symlink;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Method, Request};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::api::tests::{Answer, AtWork, rows};

/// Ids and names that somebody may choose to harm the reader.
fn hostile() -> Vec<String> {
    let names = [
        "../../etc/passwd",
        "a/b",
        "_design/x",
        "_local",
        "a\0b",
        "a\nb",
        "\u{1b}]0;x\u{7}",
        ".",
        "..",
        "...",
        ".plainfold",
        "%2e%2e",
        "%",
        "~",
        "CON",
        "🦀",
        "\u{202e}gpj.exe",
        "a b?c#d&e=f",
        "\\x\\..",
        "document.json",
        "_security.json",
        "'; DROP TABLE",
        "<script>alert(1)</script>",
    ];
    let long = ["x".repeat(4_000), "é".repeat(200), "../".repeat(100)];
    names.map(str::to_owned).into_iter().chain(long).collect()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A row of a feed with this document.
fn row(collection: &str, document: &Value) -> String {
    let row = json!({
        "collection": collection, "seq": 1, "id": document["_id"],
        "changes": [{ "rev": document["_rev"] }], "doc": document
    });
    format!("{row}\n")
}

/// A document with these attachments: name, type, bytes.
fn with(id: &str, attachments: &[(&str, &str, &[u8])]) -> Value {
    let mut all = serde_json::Map::new();
    for (name, kind, bytes) in attachments {
        let one = json!({ "content_type": kind, "data": base64(bytes) });
        all.insert((*name).to_owned(), one);
    }
    json!({ "_id": id, "_rev": "1-a", "_attachments": all })
}

/// What is answered with these headers, in bytes.
async fn bytes(
    mirror: &AtWork,
    path: &str,
    headers: &[(HeaderName, &str)],
) -> (u16, HeaderMap, Vec<u8>) {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let answer = mirror.routes.clone().oneshot(request).await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, headers, body.to_vec())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn documents_and_attachments_with_hostile_names_are_listed_and_read_and_no_name_is_a_path() {
    let names = hostile();
    let feed: String = names
        .iter()
        .map(|id| row("shelf", &with(id, &[(id, "text/html", id.as_bytes())])))
        .collect();
    let mirror = AtWork::on(&feed).await;
    let (mut after, mut listed) = (String::new(), Vec::new());
    loop {
        let page = mirror.get(&format!("/collections/shelf/documents?limit=5{after}")).await.json();
        assert_eq!((&page["unreadable"], &page["complete"]), (&json!(0), &json!(true)));
        for document in page["documents"].as_array().unwrap() {
            let path = mirror.mirror().join(document["path"].as_str().unwrap());
            assert!(path.join("document.json").is_file(), "{document}");
            listed.push(document["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={}", encoded(next));
    }
    let mut expected = names.clone();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    for id in &names {
        let of_document = format!("/collections/shelf/documents/{}", encoded(id));
        let document = mirror.get(&of_document).await;
        assert!(!document.text.contains('\u{1b}'), "nothing controls a terminal");
        let document = document.json();
        assert_eq!(document["id"], **id);
        assert_eq!(document["revision"], "1-a");
        let attachment = &document["attachments"][0];
        assert_eq!((&attachment["name"], &attachment["stored"]), (&json!(id), &json!(true)));
        let file = mirror.mirror().join(attachment["path"].as_str().unwrap());
        assert_eq!(fs::read(file).unwrap(), id.as_bytes());

        let (status, headers, body) = bytes(&mirror, &format!("{of_document}/body"), &[]).await;
        let path = mirror.mirror().join(document["path"].as_str().unwrap());
        let file = fs::read(path.join("document.json")).unwrap();
        assert_eq!((status, body.len() as u64), (200, document["bytes"].as_u64().unwrap()));
        assert_eq!((body, header(&headers, &CONTENT_TYPE)), (file, "application/json"));

        let of_attachment = format!("{of_document}/attachments/{}", encoded(id));
        let (status, headers, body) = bytes(&mirror, &of_attachment, &[]).await;
        assert_eq!((status, body), (200, id.as_bytes().to_vec()));
        assert_eq!(header(&headers, &CONTENT_TYPE), "application/octet-stream");
        assert!(header(&headers, &CONTENT_DISPOSITION).starts_with("attachment; filename=\""));
        assert_eq!(header(&headers, &CONTENT_LENGTH), id.len().to_string());
        assert_eq!(header(&headers, &CONTENT_SECURITY_POLICY), "default-src 'none'; sandbox");
        assert_eq!(header(&headers, &X_CONTENT_TYPE_OPTIONS), "nosniff");

        // The same names where nothing has them.
        let none = mirror.get(&format!("/collections/{}/documents", encoded(id))).await;
        assert_eq!(none.problem(404)["type"], "urn:plainfold:problem:no-collection");
        let none = mirror.get(&format!("/collections/shelf/documents/0{}", encoded(id))).await;
        assert_eq!(none.problem(404)["type"], "urn:plainfold:problem:no-document");
        let none = mirror.get(&format!("{of_document}/attachments/0{}", encoded(id))).await;
        assert_eq!(none.problem(404)["type"], "urn:plainfold:problem:no-attachment");
    }
    for path in [
        "/collections/shelf/documents/%ff",
        "/collections/%ff/documents",
        "/collections/%2e%2e/documents",
    ] {
        assert!(mirror.get(path).await.status.is_client_error(), "{path}");
    }
    mirror.ask(Method::DELETE, "/collections/shelf/documents/a%2Fb").await.problem(405);
}

#[tokio::test]
async fn a_search_finds_ids_by_their_beginning_and_by_any_part_also_if_their_names_are_shortened() {
    let long = format!("long/{}/end", "y".repeat(400));
    let ids = ["order:1", "order:2", "border:3", "_design/order:x", &long];
    let mirror = AtWork::on(&rows(&ids.map(|id| ("shelf", id)))).await;
    let found = async |query: &str| -> Vec<String> {
        let page = mirror.get(&format!("/collections/shelf/documents?{query}")).await.json();
        let ids = page["documents"].as_array().unwrap().iter();
        ids.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found("prefix=order:").await, ["order:1", "order:2"]);
    assert_eq!(found("contains=order:").await.len(), 4);
    assert_eq!(found("contains=y%2Fend").await, std::slice::from_ref(&long));
    assert_eq!(found("prefix=long%2Fy").await, [long]);
    assert!(found("prefix=none").await.is_empty());
    mirror.get("/collections/shelf/documents?limit=0").await.problem(400);
}

#[tokio::test]
async fn what_is_damaged_is_named_with_its_remedy_and_no_link_is_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("document.json"), "{\"_id\":\"link\",\"secret\":1}\n").unwrap();
    let ids = ["torn", "bare", "lacks", "link", "linked", "swapped"];
    let feed: String =
        ids.iter().map(|id| row("shelf", &with(id, &[("a", "image/png", b"x")]))).collect();
    let mirror = AtWork::on(&feed).await;
    let shelf = mirror.mirror().join("shelf");
    fs::write(shelf.join("torn/document.json"), "{\"_id\":\"to").unwrap();
    fs::remove_file(shelf.join("bare/document.json")).unwrap();
    fs::remove_file(shelf.join("lacks/attachments/a")).unwrap();
    fs::remove_dir_all(shelf.join("link")).unwrap();
    symlink(outside.path(), shelf.join("link")).unwrap();
    fs::remove_file(shelf.join("linked/attachments/a")).unwrap();
    symlink(outside.path().join("document.json"), shelf.join("linked/attachments/a")).unwrap();
    fs::write(shelf.join("swapped/document.json"), "{\"_id\":\"other\"}\n").unwrap();
    let damaged = async |path: &str, file: &str| {
        let problem =
            mirror.get(&format!("/collections/shelf/documents/{path}")).await.problem(500);
        assert_eq!(problem["type"], "urn:plainfold:problem:damaged");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(file), "{detail}");
        assert!(detail.contains("`plainfold verify ") && detail.contains(" --repair`"), "{detail}");
    };
    damaged("torn", "shelf/torn/document.json").await;
    damaged("torn/body", "shelf/torn/document.json").await;
    damaged("bare/body", "shelf/bare/document.json").await;
    damaged("lacks/attachments/a", "shelf/lacks/attachments/a").await;
    damaged("link/body", "shelf/link").await;
    damaged("linked/attachments/a", "shelf/linked/attachments/a").await;
    damaged("swapped", "shelf/swapped/document.json").await;
    let lacks = mirror.get("/collections/shelf/documents/lacks").await.json();
    assert_eq!(lacks["attachments"][0]["stored"], false);
    // A link in place of a collection is not followed.
    symlink(outside.path(), mirror.mirror().join("planted")).unwrap();
    mirror.get("/collections/planted/documents").await.problem(404);
    let archive = mirror.get("/archive").await.json();
    assert_eq!(archive, json!({ "collections": [{ "collection": "shelf" }] }));
}

#[tokio::test]
async fn an_attachment_is_sent_in_parts_with_its_type_and_not_again_if_it_is_known() {
    let picture: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
    let attachments = [("p.png", "image/png", &picture[..]), ("r.pdf", "application/pdf", b"%PDF")];
    let mirror = AtWork::on(&row("shelf", &with("d", &attachments))).await;
    let path = "/collections/shelf/documents/d/attachments/p.png";
    let (status, headers, body) = bytes(&mirror, path, &[]).await;
    assert!(status == 200 && body == picture);
    assert_eq!(header(&headers, &CONTENT_TYPE), "image/png");
    assert_eq!(header(&headers, &ACCEPT_RANGES), "bytes");
    assert!(header(&headers, &CONTENT_DISPOSITION).starts_with("inline; filename=\"p.png\""));
    let tag = header(&headers, &ETAG).to_owned();
    assert!(tag.starts_with("\"md5-"), "{tag}");

    let (status, headers, body) = bytes(&mirror, path, &[(IF_NONE_MATCH, &tag)]).await;
    assert_eq!((status, body.len(), header(&headers, &ETAG)), (304, 0, &*tag));
    let (status, headers, body) = bytes(&mirror, path, &[(RANGE, "bytes=299990-600009")]).await;
    assert!(status == 206 && body == picture[299_990..600_010]);
    assert_eq!(header(&headers, &CONTENT_RANGE), "bytes 299990-600009/700000");
    assert_eq!(header(&headers, &CONTENT_LENGTH), "300020");
    let (status, headers, _) = bytes(&mirror, path, &[(RANGE, "bytes=700000-")]).await;
    assert_eq!((status, header(&headers, &CONTENT_RANGE)), (416, "bytes */700000"));
    let head = mirror.ask(Method::HEAD, path).await;
    assert_eq!((head.status.as_u16(), header(&head.headers, &CONTENT_LENGTH)), (200, "700000"));

    let pdf = mirror.get("/collections/shelf/documents/d/attachments/r.pdf").await;
    assert_eq!((&*pdf.kind, &*pdf.text), ("application/pdf", "%PDF"));
    let policy = header(&pdf.headers, &CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("script"), "{policy}");
    let body = bytes(&mirror, "/collections/shelf/documents/d/body", &[]).await;
    let tag = header(&body.1, &ETAG).to_owned();
    let known =
        bytes(&mirror, "/collections/shelf/documents/d/body", &[(IF_NONE_MATCH, &tag)]).await;
    assert_eq!(known.0, 304);
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_sent_ends_the_answer_before_its_announced_length() {
    let bytes = vec![b'x'; 2_000_000];
    let mirror = AtWork::on(&row("shelf", &with("d", &[("a", "a/b", &bytes)]))).await;
    let request = Request::builder().uri("/collections/shelf/documents/d/attachments/a");
    let request = request.body(Body::empty()).unwrap();
    let answer = mirror.routes.clone().oneshot(request).await.unwrap();
    assert_eq!(header(answer.headers(), &CONTENT_LENGTH), "2000000");
    let file = mirror.mirror().join("shelf/d/attachments/a");
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(1_000_000).unwrap();
    assert!(axum::body::to_bytes(answer.into_body(), usize::MAX).await.is_err());
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_in_its_file_and_not_in_memory() {
    let text = json!({ "_id": "d", "_rev": "1-a", "text": "x".repeat(2_000_000) });
    let mirror = AtWork::on(&row("shelf", &text)).await;
    let path = "/collections/shelf/documents/d/body";
    let request = || Request::builder().uri(path).body(Body::empty()).unwrap();
    let whole = bytes(&mirror, path, &[]).await.2;
    let unread = mirror.routes.clone().oneshot(request()).await.unwrap();
    let replaced = mirror.routes.clone().oneshot(request()).await.unwrap();
    let file = mirror.mirror().join("shelf/d/document.json");
    assert_eq!(
        header(unread.headers(), &CONTENT_LENGTH),
        fs::read(&file).unwrap().len().to_string()
    );
    // What replaces the file meanwhile is not what was checked, and is not sent.
    let new = mirror.mirror().join("shelf/d/new");
    fs::write(&new, "{\"_id\":\"d\"}\n").unwrap();
    fs::rename(&file, mirror.mirror().join("shelf/d/old")).unwrap();
    fs::rename(&new, &file).unwrap();
    let replaced = axum::body::to_bytes(replaced.into_body(), usize::MAX).await.unwrap();
    assert!(replaced == whole, "the file that was opened is sent");
    // The file that is sent is cut: so its bytes were not in memory.
    let old = mirror.mirror().join("shelf/d/old");
    fs::OpenOptions::new().write(true).open(old).unwrap().set_len(1_000_000).unwrap();
    assert!(axum::body::to_bytes(unread.into_body(), usize::MAX).await.is_err());
}

#[tokio::test]
async fn a_mirror_whose_readers_all_hang_answers_that_it_is_not_available() {
    let mirror = AtWork::on(&rows(&[("shelf", "d")])).await;
    let readers = super::Readers::default();
    let turns = readers.of(&mirror.mirror());
    let held = turns.clone().acquire_many_owned(super::READERS as u32).await.unwrap();
    let files = super::Files {
        directory: mirror.mirror().into(),
        named: "shelf".into(),
        turns: readers.of(&mirror.mirror()),
        all: readers.all.clone(),
    };
    tokio::time::pause();
    let refused = files.read(|_| Ok(())).await;
    assert!(refused.is_err());
    tokio::time::resume();
    drop(held);
    assert!(files.read(|_| Ok(())).await.is_ok());
    assert!(readers.of(&mirror.mirror()).available_permits() == super::READERS);
}

#[tokio::test]
async fn a_body_of_any_json_is_sent_byte_for_byte() {
    let text = "{\"_id\":\"d\",\"_rev\":\"1-a\",\"n\":1e400,\"big\":123456789012345678901234567890,\
                \"twice\":1,\"twice\":2,\"esc\":\"\\u202e\\u0000\",\"raw\":\"\u{202e}\u{2028}\"}";
    let row = format!(
        "{{\"collection\":\"shelf\",\"seq\":1,\"id\":\"d\",\"changes\":[{{\"rev\":\"1-a\"}}],\"doc\":{text}}}\n"
    );
    let mirror = AtWork::on(&row).await;
    let Answer { text: body, .. } = mirror.get("/collections/shelf/documents/d/body").await;
    assert_eq!(body, format!("{text}\n"));
}
