//! One reading of a file for all its collections.

use std::collections::HashMap;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

fn of(collection: &str, id: &str, text: &str) -> String {
    let row = row(id, "1-x", &format!(",\"text\":\"{text}\""));
    row.replace("}}\n", &format!("}},\"collection\":\"{collection}\"}}\n"))
}

/// The names that come until all present ones have, and where the listing ended.
async fn names(
    listing: &mut BoxStream<'static, Result<StoreEvent, SourceError>>,
) -> (Vec<CollectionName>, Option<Position>) {
    let mut names = Vec::new();
    loop {
        match listing.next().await.unwrap().unwrap() {
            StoreEvent::Collection(name) => names.push(name),
            StoreEvent::Unmatched(_) => {}
            StoreEvent::Listed(position) => return (names, position),
        }
    }
}

fn ids(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| change.id.as_str().to_owned()).collect()
}

fn reads_together(store: &FeedStore) -> usize {
    let Origin::File(feed) = &store.origin else { return 0 };
    feed.together().map_or(0, |routes| routes.count())
}

#[tokio::test]
async fn a_collection_that_takes_nothing_is_read_apart_and_comes_back() {
    let large = "x".repeat(1 << 20);
    let rows = |collection: &str, count: usize, text: &str| -> String {
        (0..count).map(|n| of(collection, &format!("{collection}{n}"), text)).collect()
    };
    // More than the queues may hold of the one, before the end of the other.
    let feed = Recording::of(rows("stuck", 40, &large) + &rows("swift", 10, ""));
    let store = feed.store();
    let mut listing = store.collections_to_read(Mode::Follow, None);
    assert!(matches!(listing.next().await, Some(Ok(StoreEvent::Collection(_)))));
    let mut stuck = store.open(&"stuck".into()).changes(Since::Start, Mode::Follow);
    let first = next(&mut stuck).await.unwrap();
    let mut swift = store.open(&"swift".into()).changes(Since::Start, Mode::Follow);
    let (named, _) = names(&mut listing).await;
    assert_eq!(named, ["swift".into()]);
    assert_eq!(changes(catch_up(&mut swift).await).len(), 10);
    assert_eq!(reads_together(&store), 1, "the other one has been detached");
    // It lacks nothing, and brings nothing twice.
    let mut came = vec![first];
    came.extend(catch_up(&mut stuck).await);
    let wanted: Vec<_> = (0..40).map(|n| format!("stuck{n}")).collect();
    assert_eq!(ids(&changes(came)), wanted);
    while reads_together(&store) < 2 {
        tokio::task::yield_now().await;
    }
    feed.append(of("stuck", "last", "") + &of("swift", "last", ""));
    for stream in [&mut stuck, &mut swift] {
        assert_eq!(ids(&changes(catch_up(stream).await)), ["last"]);
    }
}

#[tokio::test]
async fn a_collection_that_nobody_reads_holds_up_no_other() {
    let text = "x".repeat(1 << 20);
    let mut feed: String = (0..40).map(|n| of("ignored", &format!("i{n}"), &text)).collect();
    feed += &of("read", "a", "");
    let feed = Recording::of(feed);
    for lets_go in [true, false] {
        let store = feed.store();
        let mut listing = store.collections_to_read(Mode::CatchUp, None);
        assert!(matches!(listing.next().await, Some(Ok(StoreEvent::Collection(_)))));
        if lets_go {
            store.let_go(&"ignored".into());
        }
        names(&mut listing).await;
        let read = store.open(&"read".into()).changes(Since::Start, Mode::CatchUp);
        let read: Vec<_> = read.map(Result::unwrap).collect().await;
        assert_eq!(ids(&changes(read)), ["a"]);
        // It may still be read.
        let late = store.open(&"ignored".into()).changes(Since::Start, Mode::CatchUp);
        assert_eq!(changes(late.map(Result::unwrap).collect().await).len(), 40);
    }
}

#[tokio::test]
async fn a_replaced_file_is_scanned_for_all_collections_together() {
    let feed = Recording::of(of("a", "1", "") + &of("b", "1", ""));
    let store = feed.store();
    let mut listing = store.collections_to_read(Mode::Follow, None);
    names(&mut listing).await;
    let sources: Vec<_> = ["a", "b"].map(|name| store.open(&name.into())).into();
    let mut streams: Vec<_> =
        sources.iter().map(|source| source.changes(Since::Start, Mode::Follow)).collect();
    for stream in &mut streams {
        catch_up(stream).await;
    }
    let deleted = deletion("2", "2-x").replace("}\n", ",\"collection\":\"a\"}\n");
    let text = of("a", "2", "") + &deleted + &of("b", "2", "") + &of("c", "1", "");
    fs::write(feed.folder.path().join("aside"), text).unwrap();
    fs::rename(feed.folder.path().join("aside"), feed.path()).unwrap();
    for stream in &mut streams {
        let error = next(stream).await.unwrap_err();
        assert!(matches!(error, SourceError::Expired { .. }), "{error:?}");
    }
    let scan = || Since::Scan("tested".into());
    streams = sources.iter().map(|source| source.changes(scan(), Mode::Follow)).collect();
    let (first, second) = streams.split_at_mut(1);
    let (of_a, of_b) = tokio::join!(catch_up(&mut first[0]), catch_up(&mut second[0]));
    for (events, wanted) in [(of_a, "2 2-x"), (of_b, "2 1-x")] {
        assert!(matches!(&events[0], FeedEvent::ScanStarted { .. }), "{events:?}");
        let finished = |event: &FeedEvent| matches!(event, FeedEvent::ScanFinished { .. });
        assert!(events.iter().any(finished), "{events:?}");
        let came = changes(events);
        let came: Vec<_> = came.iter().map(|one| format!("{} {}", one.id, one.revision)).collect();
        assert_eq!(came, [wanted]);
    }
    assert!(
        matches!(listing.next().await, Some(Ok(StoreEvent::Collection(name))) if name.as_str() == "c")
    );
    assert!(listing.next().now_or_never().is_none());
    assert_eq!(reads_together(&store), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_collection_gets_what_it_lacks_wherever_the_others_are(
        rows in prop::collection::vec((0_usize..4, "[a-c]", any::<bool>()), 1..24),
        places in prop::collection::vec((0_usize..30, 0_u8..4), 4),
        listed in any::<bool>(),
    ) {
        let text: String = rows
            .iter()
            .map(|(collection, id, deletes)| match deletes {
                false => of(&format!("c{collection}"), id, ""),
                true => deletion(id, "2-x")
                    .replace("}\n", &format!(",\"collection\":\"c{collection}\"}}\n")),
            })
            .collect();
        let feed = Recording::of(&text);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let end = names(&mut feed.store().collections(Mode::CatchUp, None)).await.1;
            let mut all = HashMap::new();
            for (collection, (at, kind)) in places.iter().enumerate() {
                let name = CollectionName::from(format!("c{collection}"));
                let apart = feed.store().open(&name);
                let every: Vec<_> = apart.changes(Since::Start, Mode::CatchUp).collect().await;
                let every = changes(every.into_iter().map(Result::unwrap).collect());
                let since = match (kind, every.get(at % every.len().max(1))) {
                    (0, _) | (_, None) => Since::Start,
                    (1, _) => Since::Scan("tested".into()),
                    (_, Some(change)) => Since::Position(change.position.clone().unwrap()),
                };
                let wanted = apart.changes(since.clone(), Mode::CatchUp);
                let wanted: Vec<_> = wanted.map(Result::unwrap).collect().await;
                all.insert(name, (since, format!("{:?}", without_progress(wanted))));
            }
            let store = feed.store();
            let mut listing = store.collections_to_read(Mode::CatchUp, end.filter(|_| listed));
            let mut reading = Vec::new();
            while let Some(event) = listing.next().await {
                let StoreEvent::Collection(name) = event.unwrap() else { continue };
                let (since, wanted) = all[&name].clone();
                let stream = store.open(&name).changes(since, Mode::CatchUp);
                reading.push(tokio::spawn(async move {
                    let came: Vec<_> = stream.map(Result::unwrap).collect().await;
                    (format!("{:?}", without_progress(came)), wanted)
                }));
            }
            for one in reading {
                let (came, wanted) = one.await.unwrap();
                assert_eq!(came, wanted);
            }
        });
    }
}

fn without_progress(events: Vec<FeedEvent>) -> Vec<FeedEvent> {
    let is_progress = |event: &FeedEvent| matches!(event, FeedEvent::Progress(_));
    events.into_iter().filter(|event| !is_progress(event)).collect()
}
