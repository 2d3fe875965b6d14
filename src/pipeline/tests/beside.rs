//! States of one document that arrive while it is fetched beside the feed.

use super::*;
use crate::mirror::{Authority, Sync};
use crate::pipeline::batch::Item;
use crate::pipeline::beside::{Brought, Fetches, Question};

fn item(revision: &str) -> Item {
    let change = change("a", revision, Some("1"));
    Item { change, authority: Authority::Feed, fed: true }
}

/// A pool of a new mirror, whose source has `a` at this revision.
fn pool(home: &Home, revision: &str) -> (Fetches, Pipeline) {
    let source = Scripted::default();
    source.documents.lock().unwrap().insert("a".into(), change("a", revision, None));
    source.blobs.lock().unwrap().insert("f".into(), (Bytes::from("bytes"), Vec::new()));
    let (pipeline, _received) = pipeline(home.dir.path(), Arc::new(source), Mode::CatchUp);
    (Fetches::new(pipeline.clone()), pipeline)
}

/// Waits until a result is available, and does not take it.
async fn come(beside: &mut Fetches) {
    while !beside.has_ready() {
        tokio::task::yield_now().await;
        beside.turn().unwrap();
    }
}

/// The revisions that are to be planned, in order.
async fn found(beside: &mut Fetches) -> Vec<String> {
    let mut found = Vec::new();
    while !beside.is_empty() {
        match beside.brought().await.unwrap() {
            Brought::Found(item, _) => found.push(item.change.revision.to_string()),
            other => found.push(format!("{other:?}")),
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn an_older_state_that_comes_later_is_not_dropped() {
    let home = Home::new();
    let (mut beside, _pipeline) = pool(&home, "5-a");
    beside.look("a".into(), Question::Older { change: item("3-x").change, held: "4-x".into() });
    come(&mut beside).await;
    beside.supersede(item("4-b"));
    assert_eq!(found(&mut beside).await, ["5-a", "4-b"]);
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_several_states_is_planned_and_older_ones_that_came_later_after_it() {
    let home = Home::new();
    let (mut beside, _pipeline) = pool(&home, "1-x");
    beside.keep(item("3-x"));
    for revision in ["4-x", "5-x", "4-y"] {
        beside.supersede(item(revision));
    }
    assert_eq!(beside.notes().len(), 1);
    assert_eq!(found(&mut beside).await, ["5-x", "4-y"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_for_one_state_is_not_given_to_another() {
    let home = Home::new();
    let (mut beside, pipeline) = pool(&home, "1-x");
    let with = |revision| Item { change: row_with("a", revision, "1", "f", 5), ..item("1-x") };
    let planned = pipeline.plan(vec![with("1-x")], Sync::Each, None).await.unwrap();
    beside.submit(planned.pending);
    beside.replan();
    come(&mut beside).await;
    beside.supersede(with("2-x"));
    let Brought::Found(item, material) = beside.brought().await.unwrap() else { panic!() };
    assert_eq!((item.change.revision.as_str(), material.blobs.len()), ("2-x", 0));
    assert!(beside.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_is_looked_up_after_the_state_before_it() {
    let home = Home::new();
    let (mut beside, _pipeline) = pool(&home, "5-x");
    beside.keep(item("4-x"));
    let failure = failures::of_change(&item("5-x").change, "it is torn".to_owned());
    beside.note_unreadable(&failure);
    let first = beside.brought().await.unwrap();
    assert!(matches!(&first, Brought::Found(item, _) if item.change.revision.as_str() == "4-x"));
    assert!(beside.contains(&"a".into()), "its failure is not forgotten");
    assert_eq!(found(&mut beside).await, ["5-x"]);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_put_back_comes_before_those_that_are_newer() {
    let home = Home::new();
    let (mut beside, _pipeline) = pool(&home, "1-x");
    beside.keep(item("2-x"));
    let brought = beside.brought().await.unwrap();
    beside.keep(item("3-x"));
    beside.put_back(brought);
    assert_eq!(found(&mut beside).await, ["3-x", "2-x"], "which the tree then knows to be older");
    beside.keep(item("3-x"));
    let brought = beside.brought().await.unwrap();
    beside.keep(item("2-x"));
    beside.put_back(brought);
    assert_eq!(found(&mut beside).await, ["3-x", "2-x"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_full_listing_does_not_name_is_looked_up() {
    let home = Home::new();
    let (mut beside, _pipeline) = pool(&home, "7-x");
    beside.keep(item("2-x"));
    beside.look_up_unlisted(|_| true);
    assert_eq!(found(&mut beside).await, ["2-x"]);
    beside.keep(item("2-x"));
    beside.look_up_unlisted(|_| false);
    assert_eq!(found(&mut beside).await, ["7-x"]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_outlives_what_is_fetched_and_put_back_before_it() {
    let home = Home::new();
    let (mut beside, pipeline) = pool(&home, "5-x");
    beside.keep(item("3-x"));
    beside.supersede(item("3-x"));
    beside.note_unreadable(&failures::of_change(&item("5-x").change, "it is torn".to_owned()));
    let brought = beside.brought().await.unwrap();
    assert!(beside.contains(&"a".into()));
    beside.put_back(brought);
    assert!(beside.contains(&"a".into()));
    let Brought::Found(found, _) = beside.brought().await.unwrap() else { panic!() };
    // Its parts are fetched first, and then the row is still looked up.
    let with = Item { change: row_with("a", "3-x", "1", "f", 5), ..found };
    let planned = pipeline.plan(vec![with], Sync::Each, None).await.unwrap();
    beside.submit(planned.pending);
    assert!(matches!(beside.brought().await.unwrap(), Brought::Complete(_)));
    assert!(beside.contains(&"a".into()), "its failure is not forgotten");
    assert_eq!(self::found(&mut beside).await, ["5-x"]);
}
