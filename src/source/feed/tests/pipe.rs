//! Piped feeds.

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

/// A reader that brings what is sent to it.
struct Sent(std::sync::mpsc::Receiver<Vec<u8>>);

impl std::io::Read for Sent {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let Ok(bytes) = self.0.recv() else { return Ok(0) };
        into[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

#[tokio::test]
async fn a_piped_feed_is_routed_to_its_collections() {
    let text = row("a", "1-x", "").replace("}}\n", "},\"collection\":\"books\"}\n")
        + &row("b", "1-x", "")
        + "nonsense\n"
        + "{\"last_seq\":2,\"pending\":0}";
    let store = FeedStore::reader(std::io::Cursor::new(text), None, Selection::default(), ".");
    assert_eq!(store.identity(), "feed:-");
    let mut names = store.collections(Mode::CatchUp, None).map(Result::unwrap);
    let mut found = Vec::new();
    while let Some(StoreEvent::Collection(name)) = names.next().await {
        found.push(name.as_str().to_owned());
    }
    assert_eq!(found, ["books", "stdin"]);
    assert!(names.next().await.is_none());
    let source = store.open(&"stdin".into());
    let events: Vec<_> =
        source.changes(Since::Scan("x".into()), Mode::CatchUp).map(Result::unwrap).collect().await;
    assert!(matches!(events[0], FeedEvent::ScanStarted { .. }));
    let [.., FeedEvent::ScanFinished { exhaustive: false, .. }, FeedEvent::CaughtUp] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(unreadable(&events)[0].place.ends_with("of standard input"));
    assert_eq!(changes(events)[0].id.as_str(), "b");
    let again = source.changes(Since::Start, Mode::CatchUp).next().await.unwrap().unwrap_err();
    assert_eq!(again.to_string(), "standard input cannot be read twice");
    let books = store.open(&"books".into()).changes(Since::Start, Mode::CatchUp);
    assert_eq!(books.collect::<Vec<_>>().await.len(), 3);
}

#[tokio::test]
async fn an_idle_pipe_has_caught_up_and_an_ended_one_stays_open() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let store = FeedStore::reader(Sent(receiver), None, Selection::default(), ".");
    let mut stream = store.open(&"stdin".into()).changes(Since::Start, Mode::Follow);
    let mut names = store.collections(Mode::Follow, None).map(Result::unwrap);
    for id in ["a", "b"] {
        sender.send(row(id, "1-x", "").into_bytes()).unwrap();
        assert_eq!(changes(catch_up(&mut stream).await)[0].id.as_str(), id);
    }
    assert!(matches!(names.next().await, Some(StoreEvent::Collection(_))));
    assert!(matches!(names.next().await, Some(StoreEvent::Listed(_))));
    drop(sender);
    catch_up(&mut stream).await;
    assert!(stream.next().now_or_never().is_none());
    assert!(names.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_piped_line_without_an_end_is_passed_without_being_held() {
    let text = std::io::Read::chain(
        std::io::Read::take(std::io::repeat(b'x'), 50_000_000),
        std::io::Cursor::new("\n".to_owned() + &row("a", "1-x", "")),
    );
    let store = FeedStore::reader(text, Some("books".into()), Selection::default(), ".");
    let events: Vec<_> = store
        .open(&"books".into())
        .changes(Since::Start, Mode::CatchUp)
        .map(Result::unwrap)
        .collect()
        .await;
    assert!(unreadable(&events)[0].reason.contains("save the feed to a file"), "{events:?}");
    assert_eq!(changes(events).len(), 1);
}

/// A reader that brings bytes in pieces of these sizes.
struct Pieces(Vec<u8>, Vec<usize>);

impl std::io::Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let size = self.1.pop().unwrap_or(usize::MAX).min(self.0.len()).min(into.len());
        into[..size].copy_from_slice(&self.0[..size]);
        self.0.drain(..size);
        Ok(size)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_piped_feed_says_what_the_same_file_says_however_it_arrives(
        lines in prop::collection::vec((0_u8..5, "[a-c]"), 0..12),
        pieces in prop::collection::vec(1_usize..90, 0..60),
    ) {
        let text: String = lines
            .iter()
            .map(|(kind, id)| match kind {
                0 => row(id, "1-x", ""),
                1 => deletion(id, "2-x"),
                2 => row(id, "3-x", ",\"_attachments\":{\"n\":{\"data\":\"eA==\"}}"),
                3 => "\r\n".to_owned(),
                _ => format!("{{\"id\":\"{id}\"}}\n"),
            })
            .collect();
        let said = |events: Vec<FeedEvent>| -> Vec<String> {
            let say = |event: FeedEvent| match event {
                FeedEvent::Change(change) => Some(format!("{} {:?}", change.id, change.state)),
                FeedEvent::Unreadable(row) => Some(row.reason),
                _ => None,
            };
            events.into_iter().filter_map(say).collect()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (piped, filed) = runtime.block_on(async {
            let pipe = Pieces(text.clone().into_bytes(), pieces);
            let store = FeedStore::reader(pipe, Some("library".into()), Selection::default(), ".");
            let piped = store.open(&"library".into()).changes(Since::Start, Mode::CatchUp);
            let piped: Vec<_> = piped.map(Result::unwrap).collect().await;
            (piped, Recording::of(&text).events(Since::Start).await)
        });
        prop_assert_eq!(said(piped), said(filed));
    }
}

#[tokio::test]
async fn a_piped_row_beyond_the_limit_is_named_and_passed() {
    let large = "x".repeat(17 << 20);
    let long = row("big", "2-b", &format!(r#","x":"{large}""#))
        .replace(r#"{"seq":1"#, r#"{"collection":"films","seq":1"#);
    let text = std::io::Cursor::new(long + &row("a", "1-x", ""));
    let store = FeedStore::reader(text, Some("books".into()), Selection::default(), ".");
    let (books, films) = (store.open(&"books".into()), store.open(&"films".into()));
    let read = |source: Arc<dyn Feed>| async move {
        let feed = source.changes(Since::Start, Mode::CatchUp);
        feed.map(Result::unwrap).collect::<Vec<_>>().await
    };
    let (books, films) = tokio::join!(read(books), read(films));
    assert_eq!(changes(books).len(), 1);
    let named = unreadable(&films);
    assert_eq!((named.len(), named[0].id.clone()), (1, Some("big".into())));
    assert_eq!(named[0].revision, Some("2-b".into()));
}

#[test]
fn a_file_and_a_pipe_have_what_they_say() {
    let file = Recording::of("").store();
    let pipe = FeedStore::reader(std::io::empty(), None, Selection::default(), ".");
    for store in [file, pipe] {
        assert_has_what_it_says(&store, &"library".into());
    }
}

/// What the names of a piped text's collections end with, and how many there are.
async fn names_of(text: &[u8]) -> (usize, Option<SourceError>) {
    let text = std::io::Cursor::new(text.to_vec());
    let store = FeedStore::reader(text, None, Selection::default(), ".");
    let mut names = store.collections(Mode::Follow, None);
    let mut found = 0;
    loop {
        match names.next().await {
            Some(Ok(StoreEvent::Collection(_))) => found += 1,
            Some(Ok(_)) => return (found, None),
            Some(Err(error)) => return (found, Some(error)),
            None => return (found, None),
        }
    }
}

#[tokio::test]
async fn a_pipe_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let (found, error) = names_of(b"{\"docs\":[{\"_id\":\"a\"}]}\n").await;
    assert!(matches!(error, Some(SourceError::NotAFeed { .. })), "{error:?}");
    assert_eq!(found, 0);
    let (found, error) = names_of(b"\x1f\x8b\x08\0\0").await;
    assert!(error.unwrap().to_string().contains("gzip"));
    assert_eq!(found, 0);
    let (found, error) = names_of(b"\n\n").await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, 0);
    let (found, error) = names_of(row("a", "1-x", "").as_bytes()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(found, 1);
}
