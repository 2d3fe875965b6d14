//! Attachments: inline, in files, large, and as CouchDB gives them.

use super::*;

#[tokio::test]
async fn inline_data_becomes_an_attachment_and_a_stub() {
    let data = STANDARD.encode(b"hello");
    let members = format!(
        r#", "z":1.0,"_attachments" : {{"a.txt": {{"data":"{data}","content_type":"text/x\u002dy"}} , "b":{{"stub":true,"length":7,"digest":"md5-x"}}}},"y":[ ]"#
    );
    let feed = Recording::of(row("a", "3-x", &members));
    let changes = feed.changes(Since::Start).await;
    let digest = md5(b"hello");
    let stub = format!(
        r#"{{"content_type":"text/x\u002dy","revpos":3,"digest":"{digest}","length":5,"stub":true}}"#
    );
    let expected = format!(
        r#"{{"_id":"a","_rev":"3-x", "z":1.0,"_attachments" : {{"a.txt": {stub} , "b":{{"stub":true,"length":7,"digest":"md5-x"}}}},"y":[ ]}}"#
    );
    assert_eq!(body(&changes[0]), expected);
    let attachments = &document(&changes[0]).attachments;
    assert_eq!(attachments[0].content, Content::Inline(Bytes::from_static(b"hello")));
    assert_eq!(attachments[0].digest.as_deref(), Some(&*digest));
    let error = read(&feed.source(), &changes[0], 1).await.unwrap_err();
    assert!(matches!(error, SourceError::Permanent { .. }));
    for way_out in ["attachments=true", "--no-attachments"] {
        assert!(error.to_string().contains(way_out), "{error}");
    }
}

/// The server keeps `notes.txt` gzipped: it gives the digest of the gzipped bytes, but the bytes
/// themselves.
#[tokio::test]
async fn an_inline_attachment_that_couchdb_keeps_gzipped_comes_out_as_it_was_put_in() {
    let text = recorded!("changes-inline-attachments");
    let feed = Recording::of(&text);
    let changes = feed.changes(Since::Start).await;
    let notes = &document(&changes[0]).attachments[1];
    let put_in = include_str!("../../../../fixtures/couchdb-3.4.3/attachment-identity.http")
        .split_once("\r\n\r\n")
        .unwrap()
        .1;
    assert_eq!(notes.content, Content::Inline(Bytes::from_static(put_in.as_bytes())));
    assert!(notes.gzipped);
    assert!(!document(&changes[0]).attachments[0].gzipped);

    // The stubs that we put in are those that the server itself gives.
    let stubs = include_str!("../../../../fixtures/couchdb-3.4.3/document-stubs.http")
        .split_once("\r\n\r\n")
        .unwrap()
        .1;
    assert_eq!(body(&changes[0]), stubs.trim_end());

    // Without att_encoding_info the server does not say so.
    let feed = Recording::of(text.replace(r#","encoding":"gzip","encoded_length":78"#, ""));
    let changes = feed.changes(Since::Start).await;
    assert_eq!(document(&changes[0]).attachments[1], *notes);

    // Of a type that is never kept gzipped the same is a fault.
    let feed = Recording::of(
        text.replace(r#","encoding":"gzip","encoded_length":78"#, "")
            .replace("text/plain", "image/png"),
    );
    let events = feed.events(Since::Start).await;
    assert!(unreadable(&events)[0].reason.contains("its digest is md5-3Q1mCZvzVm3wXp9/aD3fMA=="));
}

#[tokio::test]
async fn inline_data_that_is_gzipped_itself_is_unpacked() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&noise(1_500_000)).unwrap();
    let packed = packed.finish().unwrap();
    // The second row takes the way of those too long for memory.
    for filler in [0, 5_000_000] {
        let members = format!(
            r#","_attachments":{{"a":{{"data":"{}","digest":"{}","encoding":"gzip"}}}},"f":"{}""#,
            STANDARD.encode(&packed),
            md5(&packed),
            "x".repeat(filler)
        );
        let feed = Recording::of(row("a", "1-x", &members));
        let changes = feed.changes(Since::Start).await;
        let attachment = &document(&changes[0]).attachments[0];
        assert_eq!((attachment.length, attachment.gzipped), (Some(1_500_000), true));
        assert_eq!(matches!(attachment.content, Content::Remote(_)), filler > 0);
        assert_eq!(read(&feed.source(), &changes[0], 0).await.unwrap(), noise(1_500_000));
    }
}

#[tokio::test]
async fn a_row_with_a_large_attachment_streams_byte_exact_without_being_held() {
    let large = noise(20_000_000);
    let data = STANDARD.encode(&large).replace('/', "\\/");
    let members = format!(
        r#","_attachments":{{"s":{{"data":"eA=="}},"l":{{"data":"{data}","revpos":2}}}},"after":1.0"#
    );
    let feed =
        Recording::of(row("a", "1-x", "") + &row("b", "3-x", &members) + &row("c", "1-x", ""));
    let changes = feed.changes(Since::Start).await;
    assert_eq!(changes.len(), 3);
    assert!(changes[1].weight() < 2000);
    let attachments = &document(&changes[1]).attachments;
    assert_eq!(attachments[0].content, Content::Inline(Bytes::from_static(b"x")));
    assert_eq!(attachments[1].digest.as_deref(), Some(&*md5(&large)));
    assert!(body(&changes[1]).ends_with(&format!(
        r#""l":{{"content_type":"application/octet-stream","revpos":2,"digest":"{}","length":20000000,"stub":true}}}},"after":1.0}}"#,
        md5(&large)
    )));
    assert!(read(&feed.source(), &changes[1], 1).await.unwrap() == large);

    // The position after such a row is as good as any.
    let rest = feed.changes(Since::Position(changes[1].position.clone().unwrap())).await;
    assert_eq!(rest.len(), 1);

    // Bytes that have changed since are not given out as the attachment's.
    let mut text = fs::read(feed.path()).unwrap();
    let at = memchr::memmem::find(&text, &data.as_bytes()[1_000_000..1_000_040]).unwrap();
    text[at..at + 4].copy_from_slice(b"AAAA");
    fs::write(feed.path(), text).unwrap();
    let error = read(&feed.source(), &changes[1], 1).await.unwrap_err();
    assert!(error.to_string().contains("has changed since its row was read"), "{error}");
}

#[tokio::test]
async fn attachment_files_are_read_beneath_the_feeds_folder_only() {
    let members = |file: &str| format!(r#","_attachments":{{"n":{{"file":"{file}"}}}}"#);
    let outside = tempfile::NamedTempFile::new().unwrap();
    let names = [
        "files/small",
        "files/large",
        "files/../files/small",
        "/etc/passwd",
        "out",
        "files",
        "missing",
        "",
        "fifo",
        "in",
    ];
    let rows: Vec<_> = names.iter().map(|name| row("a", "1-x", &members(name))).collect();
    let feed = Recording::of(rows.concat());
    let at = |name: &str| feed.folder.path().join(name);
    fs::create_dir(at("files")).unwrap();
    fs::write(at("files/small"), b"small").unwrap();
    fs::write(at("files/large"), noise(300_000)).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("out")).unwrap();
    std::os::unix::fs::symlink("files/small", at("in")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();

    let events = feed.events(Since::Start).await;
    let reasons: Vec<_> = unreadable(&events).into_iter().map(|row| row.reason.clone()).collect();
    assert_eq!(
        reasons,
        [
            "the attachment `n`: `files/../files/small` is not a path beneath the feed's folder",
            "the attachment `n`: `/etc/passwd` is not a path beneath the feed's folder",
            "the attachment `n`: `out` leads out of the feed's folder",
            "the attachment `n`: `files` is not a file",
            "the attachment `n`: the file `missing` does not exist",
            "the attachment `n`: `` is not a path beneath the feed's folder",
            "the attachment `n`: `fifo` is not a file",
        ]
    );
    let changes = changes(events);
    assert_eq!(changes.len(), 3);
    assert_eq!(
        document(&changes[0]).attachments[0].content,
        Content::Inline(Bytes::from_static(b"small"))
    );
    assert_eq!(
        document(&changes[1]).attachments[0].digest.as_deref(),
        Some(&*md5(&noise(300_000)))
    );
    assert!(matches!(document(&changes[1]).attachments[0].content, Content::Remote(_)));
    assert_eq!(read(&feed.source(), &changes[1], 0).await.unwrap(), noise(300_000));
    fs::write(at("files/large"), noise(200_000)).unwrap();
    read(&feed.source(), &changes[1], 0).await.unwrap_err();
}

#[tokio::test]
async fn the_last_attachment_of_a_name_and_the_last_of_repeated_keys_count() {
    let members = r#","_attachments":{"a":{"data":"QQ=="}},"_attachments":{"b":{"data":"Qg=="},"b":{"data":"Qw=="}}"#;
    let feed = Recording::of(row("a", "1-x", members));
    let changes = feed.changes(Since::Start).await;
    let attachments = &document(&changes[0]).attachments;
    assert_eq!(attachments.len(), 1);
    assert_eq!(attachments[0].content, Content::Inline(Bytes::from_static(b"C")));
    assert!(!body(&changes[0]).contains("data"));
}

#[tokio::test]
async fn base64_with_breaks_of_lines_is_taken() {
    for length in [10, 200_000] {
        let bytes = noise(length);
        let encoded = STANDARD.encode(&bytes).into_bytes();
        for stop in ["\\r\\n", " ", "\\n\\t ", "\\u000a"] {
            let lines: Vec<_> =
                encoded.chunks(76).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
            let data = lines.join(stop) + stop;
            let members = format!(r#","_attachments":{{"a":{{"data":"{data}"}}}}"#);
            let feed = Recording::of(row("a", "1-x", &members));
            let changes = feed.changes(Since::Start).await;
            let attachment = &document(&changes[0]).attachments[0];
            assert_eq!(attachment.digest.as_deref(), Some(&*md5(&bytes)), "{stop:?}");
            match &attachment.content {
                Content::Inline(found) => assert!(*found == bytes),
                Content::Remote(_) => {
                    assert!(read(&feed.source(), &changes[0], 0).await.unwrap() == bytes);
                }
            }
        }
    }
}
