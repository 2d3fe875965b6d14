//! Attachments' bytes, streamed and in bulk.

use bytes::Bytes;

use super::*;
use crate::document::{Attachment, Content, Digester};
use crate::source::Wanted;

const REVISION: &str = "3-a60598173d15fa055cc13b6981ba45b9";
const BULK: &str = "POST /shelf/_bulk_get?attachments=true";

fn attachment(name: &str, digest: &str, length: u64, gzipped: bool) -> Attachment {
    Attachment {
        name: name.into(),
        digest: Some(digest.into()),
        length: Some(length),
        gzipped,
        content: Content::Remote("".into()),
    }
}

fn notes() -> Attachment {
    attachment("notes.txt", "md5-fsKYhpsUMC28kzTIrIwzMg==", 6000, true)
}

fn page() -> Attachment {
    attachment("scans/päge 1.bin", "md5-X59j3RXsY0xVyI9BWdKlMQ==", 700, false)
}

fn notes_line() -> String {
    format!("GET /shelf/book%3A1/notes.txt?rev={REVISION}")
}

fn page_line() -> String {
    format!("GET /shelf/book%3A1/scans%2Fp%C3%A4ge%201.bin?rev={REVISION}")
}

fn wanted(id: &str, attachment: Attachment) -> Wanted {
    Wanted { id: id.into(), revision: REVISION.into(), attachment }
}

/// The bytes of an attachment of `book:1`, or the error that its stream ends in.
async fn read(answer: Answer, attachment: &Attachment) -> Result<Vec<u8>, SourceError> {
    let replay = Replay::new(vec![answer]).await;
    let (id, revision) = ("book:1".into(), REVISION.into());
    let source = source(&replay);
    let mut stream = source.attachment(&id, &revision, attachment).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    replay.lines();
    Ok(bytes)
}

fn body(name: &str) -> Vec<u8> {
    let whole = recording(name);
    let at = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    whole[at + 4..].to_vec()
}

#[tokio::test]
async fn a_gzipped_attachment_is_checked_as_it_came_and_given_as_it_was() {
    let answer = Answer::recorded(&notes_line(), "attachment-gzip");
    assert_eq!(read(answer, &notes()).await.unwrap(), body("attachment-identity"));
}

#[tokio::test]
async fn a_gzipped_attachment_may_come_as_it_is() {
    let answer = Answer::recorded(&notes_line(), "attachment-identity");
    assert_eq!(read(answer, &notes()).await.unwrap(), body("attachment-identity"));
    let longer = Attachment { length: Some(6001), ..notes() };
    let error = read(Answer::recorded(&notes_line(), "attachment-identity"), &longer).await;
    assert!(matches!(error, Err(SourceError::Transient { .. })), "{error:?}");
}

#[tokio::test]
async fn a_binary_attachment_with_an_odd_name_comes_through() {
    let answer = Answer::recorded(&page_line(), "attachment-binary");
    assert_eq!(read(answer, &page()).await.unwrap(), body("attachment-binary"));
}

#[tokio::test]
async fn only_a_gzipped_attachment_is_asked_for_gzipped() {
    let replay = Replay::new(vec![
        Answer::recorded(&notes_line(), "attachment-gzip"),
        Answer::recorded(&page_line(), "attachment-binary"),
    ])
    .await;
    let (source, id, revision) = (source(&replay), "book:1".into(), REVISION.into());
    for attachment in [notes(), page()] {
        let mut stream = source.attachment(&id, &revision, &attachment).await.unwrap();
        while stream.next().await.is_some() {}
    }
    let asked: Vec<bool> = replay
        .seen()
        .iter()
        .map(|seen| seen.head.to_lowercase().contains("accept-encoding: gzip"))
        .collect();
    assert_eq!(asked, [true, false]);
}

#[tokio::test]
async fn damaged_or_shortened_bytes_end_in_a_transient_error() {
    let mut damaged = recording("attachment-binary");
    *damaged.last_mut().unwrap() ^= 1;
    let whole = recording("attachment-binary");
    let mut gzip = recording("attachment-gzip");
    let last = gzip.len() - 30;
    gzip[last] ^= 0xff;
    let answers = [
        (Answer::bytes(&page_line(), damaged), page()),
        (Answer::bytes(&page_line(), &whole[..whole.len() - 1]).close(), page()),
        (Answer::json(&page_line(), body("attachment-binary").split_last().unwrap().1), page()),
        (Answer::bytes(&notes_line(), gzip), notes()),
    ];
    for (answer, attachment) in answers {
        let error = read(answer, &attachment).await;
        assert!(matches!(error, Err(SourceError::Transient { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn an_attachment_without_a_digest_is_checked_by_its_length() {
    let line = page_line();
    let bare = Attachment { digest: None, ..page() };
    assert!(read(Answer::recorded(&line, "attachment-binary"), &bare).await.is_ok());
    let longer = Attachment { length: Some(701), ..bare };
    let error = read(Answer::recorded(&line, "attachment-binary"), &longer).await;
    assert!(matches!(error, Err(SourceError::Transient { .. })), "{error:?}");
}

#[tokio::test]
async fn a_gzip_bomb_is_given_in_bounded_pieces() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; 8 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    let answer = Answer::made(&notes_line(), "200 OK\r\nContent-Encoding: gzip", bomb);
    let replay = Replay::new(vec![answer]).await;
    let bomb = Attachment { digest: None, length: Some(8 << 20), ..notes() };
    let source = source(&replay);
    let (id, revision) = ("book:1".into(), REVISION.into());
    let mut stream = source.attachment(&id, &revision, &bomb).await.unwrap();
    let (mut sum, mut largest) = (0, 0);
    while let Some(piece) = stream.next().await {
        let length = piece.unwrap().len();
        (sum, largest) = (sum + length, largest.max(length));
    }
    assert_eq!(sum, 8 << 20);
    assert!(largest <= 128 << 10, "{largest}");
}

#[tokio::test]
async fn an_attachment_that_is_not_there_is_missing() {
    let said = r#"{"error":"not_found","reason":"Document is missing attachment"}"#;
    let error = read(Answer::made(&page_line(), "404 Not Found", said), &page()).await;
    match error {
        Err(SourceError::Missing { what }) => {
            assert!(
                what.starts_with("attachment `scans/päge 1.bin` of `book:1` at 3-a6"),
                "{what}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_id_or_name_that_no_url_can_carry_is_read_in_bulk() {
    let stub = attachment("x", "md5-XUFAKrxLKna5cZ2REBfFkg==", 5, false);
    let of_dots = r#"{"results":[{"id":"..","docs":[{"ok":{"_id":"..","_rev":"1-a","_attachments":{"x":{"data":"aGVsbG8="},".":{"data":"aGVsbG8="}}}}]}]}"#;
    let replay = Replay::new(vec![Answer::json(BULK, of_dots), Answer::json(BULK, of_dots)]).await;
    let (source, revision) = (source(&replay), "1-a".into());
    for (id, name) in [("..", "x"), ("..", ".")] {
        let stub = Attachment { name: name.into(), ..stub.clone() };
        let id = id.into();
        let mut stream = source.attachment(&id, &revision, &stub).await.unwrap();
        assert_eq!(&stream.next().await.unwrap().unwrap()[..], b"hello");
        assert!(stream.next().await.is_none());
    }
    assert_eq!(replay.seen()[0].body, r#"{"docs":[{"id":"..","rev":"1-a"}]}"#);
}

#[tokio::test]
async fn many_attachments_come_with_one_request_in_the_order_asked_for() {
    let again = Answer::recorded(&page_line(), "attachment-binary");
    let replay = Replay::new(vec![Answer::recorded(BULK, "bulk-get"), again]).await;
    let asked = [
        wanted("book:1", notes()),
        wanted("nothing-here", page()),
        wanted("book:1", page()),
        wanted("book:1", Attachment { name: "other".into(), ..page() }),
        wanted("book:1", Attachment { digest: Some("md5-AAAA".into()), ..page() }),
    ];
    let found = source(&replay).many_attachments(&asked).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap()[..], body("attachment-identity"));
    assert!(matches!(found[1], Err(SourceError::Missing { .. })), "{:?}", found[1]);
    assert_eq!(found[2].as_ref().unwrap()[..], body("attachment-binary"));
    assert!(matches!(found[3], Err(SourceError::Missing { .. })), "{:?}", found[3]);
    assert!(matches!(found[4], Err(SourceError::Transient { .. })), "{:?}", found[4]);
    // What does not match its digest is asked for once more, as the server keeps it.
    assert_eq!(replay.lines(), [BULK.to_owned(), page_line()]);
    let docs = replay.seen()[0].body.clone();
    assert_eq!(docs.matches("book:1").count(), 1, "{docs}");
}

#[tokio::test]
async fn a_sha256_is_checked_too() {
    let mut digester = crate::document::Digester::of("sha256-").unwrap();
    digester.update(&body("attachment-binary"));
    let right = digester.finish();
    for (digest, fits) in [(right.as_str(), true), ("sha256-00", false)] {
        let replay = Replay::new(vec![Answer::recorded(&page_line(), "attachment-binary")]).await;
        let page = Attachment { digest: Some(digest.into()), ..page() };
        let (id, revision) = ("book:1".into(), wanted("book:1", page.clone()).revision);
        let mut stream = source(&replay).attachment(&id, &revision, &page).await.unwrap();
        let mut last = Ok(Bytes::new());
        while let Some(piece) = stream.next().await {
            last = piece;
        }
        assert_eq!(last.is_ok(), fits, "{last:?}");
    }
}

#[tokio::test]
async fn pouchdb_servers_ways_of_saying_no_are_understood() {
    for item in ["{}", r#"{"missing":"3-x"}"#, r#"{"error":{"error":"not_found"}}"#] {
        let answer = format!(r#"{{"results":[{{"id":"book:1","docs":[{item}]}}]}}"#);
        let replay = Replay::new(vec![Answer::json(BULK, answer)]).await;
        let found = source(&replay).many_attachments(&[wanted("book:1", page())]).await.unwrap();
        assert!(matches!(found[..], [Err(SourceError::Missing { .. })]), "{found:?}");
    }
}

#[tokio::test]
async fn a_document_with_much_beside_what_is_wanted_is_not_read_in_bulk() {
    let replay = Replay::new(vec![Answer::recorded(&page_line(), "attachment-binary")]).await;
    let page = Attachment { content: Content::Remote("90000000".into()), ..page() };
    let found = source(&replay).many_attachments(&[wanted("book:1", page)]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap()[..], body("attachment-binary"));
    assert_eq!(replay.lines(), [page_line()]);
}

#[tokio::test]
async fn a_server_without_the_bulk_request_is_asked_one_by_one() {
    let replay = Replay::new(vec![
        Answer::made(BULK, "405 Method Not Allowed", "{}"),
        Answer::recorded(&page_line(), "attachment-binary"),
        Answer::recorded(&notes_line(), "attachment-gzip"),
    ])
    .await;
    let asked = [wanted("book:1", notes()), wanted("book:1", page())];
    let found = source(&replay).many_attachments(&asked).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap()[..], body("attachment-identity"));
    assert_eq!(found[1].as_ref().unwrap()[..], body("attachment-binary"));
}

#[tokio::test]
async fn the_feed_notes_how_much_a_document_has_in_all() {
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::recorded(CATCH_UP, "changes-normal"),
    ])
    .await;
    let (events, _) = all(&source(&replay), Since::Start, Mode::CatchUp).await;
    let DocumentState::Present(document) = &change(&events, "book:1").state else { panic!() };
    for attachment in &document.attachments {
        assert_eq!(attachment.content, Content::Remote("6700".into()));
    }
}

/// 100,000 bytes, and the stub of an attachment `scan` that they are.
fn scan() -> (Vec<u8>, Attachment) {
    let bytes: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut digester = Digester::of("md5-x").unwrap();
    digester.update(&bytes);
    let length = bytes.len() as u64;
    let stub = attachment("scan", &digester.finish(), length, false);
    (bytes, stub)
}

fn scan_line() -> String {
    format!("GET /shelf/book%3A1/scan?rev={REVISION}")
}

/// An answer that promises all of these bytes and ends after some of them.
fn broken_off(status: &str, bytes: &[u8], after: usize) -> Answer {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", bytes.len());
    Answer::bytes(&scan_line(), [head.as_bytes(), &bytes[..after]].concat()).close()
}

fn part(from: usize) -> String {
    format!("206 Partial Content\r\nETag: \"t\"\r\nContent-Range: bytes {from}-99999/100000")
}

/// What comes of an attachment whose answers break off, and the ranges that were asked for.
async fn resumed(answers: Vec<Answer>) -> (Result<Vec<u8>, SourceError>, Vec<Option<String>>) {
    let replay = Replay::new(answers).await;
    let (source, id, revision) = (source(&replay), "book:1".into(), REVISION.into());
    let mut stream = source.attachment(&id, &revision, &scan().1).await.unwrap();
    let mut bytes = Vec::new();
    let mut ended = Ok(());
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => ended = Err(error),
        }
    }
    replay.lines();
    let range = |head: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with("range:"))?;
        Some(line[6..].trim().to_owned())
    };
    let asked = replay.seen().iter().map(|seen| range(&seen.head)).collect();
    (ended.map(|()| bytes), asked)
}

#[tokio::test]
async fn an_attachment_that_breaks_off_continues_where_it_broke() {
    let (bytes, _) = scan();
    let (found, asked) = resumed(vec![
        broken_off("200 OK\r\nETag: \"t\"", &bytes, 30_000),
        broken_off(&part(30_000), &bytes[30_000..], 40_000),
        Answer::made(&scan_line(), &part(70_000), &bytes[70_000..]),
    ])
    .await;
    assert!(found.unwrap() == bytes);
    let ranges = [None, Some("bytes=30000-".to_owned()), Some("bytes=70000-".to_owned())];
    assert_eq!(asked, ranges);
}

#[tokio::test]
async fn a_server_that_sends_all_of_it_again_gets_past_where_it_broke() {
    let (bytes, _) = scan();
    let (found, asked) = resumed(vec![
        broken_off("200 OK", &bytes, 30_000),
        broken_off("200 OK", &bytes, 60_000),
        Answer::made(&scan_line(), "200 OK", &bytes),
    ])
    .await;
    assert!(found.unwrap() == bytes);
    assert_eq!(asked.len(), 3);
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_asked_again_for_the_rest() {
    let (bytes, _) = scan();
    let (found, asked) = resumed(vec![
        broken_off("200 OK", &bytes, 30_000),
        Answer::made(&scan_line(), "503 Restarting", ""),
        Answer::made(&scan_line(), &part(30_000), &bytes[30_000..]),
    ])
    .await;
    assert!(found.unwrap() == bytes);
    // How a server that asks for patience is asked is the client's to know.
    let rest = Some("bytes=30000-".to_owned());
    assert_eq!((&asked[0], &asked[1], asked.last()), (&None, &rest, Some(&rest)));
}

#[tokio::test]
async fn what_breaks_off_without_getting_ahead_is_an_error() {
    let (bytes, _) = scan();
    for answers in [
        // At once, or again at the same place.
        vec![broken_off("200 OK", &bytes, 100)],
        vec![broken_off("200 OK", &bytes, 30_000), broken_off("200 OK", &bytes, 30_000)],
        vec![
            broken_off("200 OK", &bytes, 30_000),
            broken_off(&part(30_000), &bytes[30_000..], 1000),
        ],
    ] {
        let (found, _) = resumed(answers).await;
        assert!(matches!(found, Err(SourceError::Transient { .. })), "{found:?}");
    }
}

#[tokio::test]
async fn a_rest_that_is_not_of_the_same_bytes_is_never_taken() {
    let (bytes, _) = scan();
    let other_tag = "206 No\r\nETag: \"u\"\r\nContent-Range: bytes 30000-99999/100000";
    for (status, rest) in [
        (other_tag, &bytes[30_000..]),
        ("206 No\r\nContent-Range: bytes 30001-99999/100000", &bytes[30_001..]),
        ("206 No\r\nContent-Range: bytes 30000-100000/100001", &bytes[30_000..]),
        ("206 No", &bytes[30_000..]),
        ("206 No\r\nContent-Range: bytes 30000-99999/100000", &bytes[..70_000]),
    ] {
        let (found, _) = resumed(vec![
            broken_off("200 OK\r\nETag: \"t\"", &bytes, 30_000),
            Answer::made(&scan_line(), status, rest),
        ])
        .await;
        assert!(matches!(found, Err(SourceError::Transient { .. })), "{status}");
    }
}

#[tokio::test]
async fn what_a_proxy_spoils_by_decoding_the_path_is_read_with_its_document() {
    let data = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        body("attachment-binary"),
    );
    let answer = format!(
        r#"{{"results":[{{"id":"book:1","docs":[{{"ok":{{"_rev":"{REVISION}",
            "_attachments":{{"scans/päge 1.bin":{{"data":"{data}"}}}}}}}}]}}]}}"#
    );
    // The first is not there, the second is another attachment, and then no path is relied on.
    for first in ["404 Object Not Found", "200 OK"] {
        let replay = Replay::new(vec![
            Answer::made(&page_line(), first, "another"),
            Answer::json(BULK, &answer),
            Answer::json(BULK, &answer),
        ])
        .await;
        let (source, id, revision) = (source(&replay), "book:1".into(), REVISION.into());
        let mut read = 0;
        while read < 2 {
            let mut stream = source.attachment(&id, &revision, &page()).await.unwrap();
            let mut bytes = Vec::new();
            while let Some(Ok(piece)) = stream.next().await {
                bytes.extend_from_slice(&piece);
            }
            read += usize::from(bytes == body("attachment-binary"));
        }
        assert_eq!(replay.lines(), [&page_line(), BULK, BULK], "{first}");
    }
}
