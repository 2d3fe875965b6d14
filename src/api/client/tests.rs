//! The door to a mirror at rest, at work, and in between.

use std::cell::Cell;

use axum::Router;
use axum::routing::{get, post};
use futures_util::stream;

use super::*;
use crate::api::socket;
use crate::mirror::MirrorOptions;
use crate::pipeline::PipelineReport;
use crate::runner::{CollectionStatus, Lag};

/// A process that answers at a socket in this folder, as these routes do.
async fn answering(dir: &Path, routes: Router) -> Answering {
    let at = dir.join("socket");
    let listener = socket::bind(&at, false).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let holder = Holder { socket: Some(at), ..Holder::this_process("mirror") };
    Process::new(dir, holder).answering().unwrap()
}

/// The status of a process with one collection, `books`.
fn status() -> String {
    let collection = CollectionStatus {
        report: PipelineReport::new("books".into()),
        lag: Lag::default(),
        checkpoint_at: None,
        keeps: None,
        failed: Vec::new(),
    };
    let status = Status::closed(Path::new("/mirror"), "none".to_owned());
    serde_json::to_string(&Status { collections: vec![collection], ..status }).unwrap()
}

#[tokio::test]
async fn a_path_that_a_process_does_not_know_is_not_a_collection_that_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let older = Router::new().route("/status", get(|| async { status() }));
    let process = answering(dir.path(), older).await;
    let ask =
        async |name: &str| ask_about::<Release>(&process, "/release", Some(&name.into())).await;
    let error = ask("books").await.unwrap_err().to_string();
    assert!(error.contains("does not know /release"), "{error}");
    assert!(ask("loans").await.unwrap().is_none());
    let all = ask_about::<Vec<Ordered>>(&process, "/pause", None).await;
    assert!(all.unwrap_err().to_string().contains("does not know /pause"));
}

#[tokio::test]
async fn a_collection_that_a_process_does_not_have_is_unknown() {
    use axum::http::StatusCode;
    let dir = tempfile::tempdir().unwrap();
    let routes = Router::new()
        .route("/status", get(|| async { status() }))
        .route("/release", post(|| async { StatusCode::NOT_FOUND }));
    let process = answering(dir.path(), routes).await;
    let loans = "loans".into();
    let asked = ask_about::<Release>(&process, "/release", Some(&loans)).await;
    assert!(asked.unwrap().is_none());
}

#[tokio::test]
async fn a_process_that_ends_while_it_is_asked_is_not_called_silent() {
    let dir = tempfile::tempdir().unwrap();
    let gone = Holder::this_process("mirror");
    drop(Mirror::open(dir.path(), &MirrorOptions::default(), &gone).unwrap());
    let door = Door::find(dir.path()).unwrap();
    let silent = || Process::new(dir.path(), gone.clone()).unanswered("in time");
    let asked = Cell::new(0);
    let answer = door.twice(async || match asked.replace(asked.get() + 1) {
        0 => Err(silent().into()),
        _ => Ok("at rest"),
    });
    assert_eq!(answer.await.unwrap(), "at rest");
    let answer: Result<(), _> = door.twice(async || Err(silent().into())).await;
    assert!(answer.unwrap_err().to_string().contains("in time"), "it is asked twice only");
}

#[tokio::test]
async fn a_mirror_that_begins_while_it_is_taken_for_one_at_rest_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let holder = Holder::this_process("mirror");
    let _mirror = Mirror::open(dir.path(), &MirrorOptions::default(), &holder).unwrap();
    let door = Door::find(dir.path()).unwrap();
    let asked = Cell::new(0);
    let answer = door.twice(async || match asked.replace(asked.get() + 1) {
        0 => {
            Err(MirrorError::Locked { path: dir.path().to_owned(), holder: holder.clone() }.into())
        }
        _ => Ok(()),
    });
    answer.await.unwrap();
}

#[tokio::test]
async fn lines_are_whole_however_they_come_and_the_beginning_of_one_is_dropped() {
    let pieces = ["a", "b\nc\n\nd", "", "e\nf"].map(|piece| Ok(Bytes::from(piece)));
    let mut pieces = stream::iter(pieces).boxed();
    let mut read = BytesMut::new();
    for line in ["ab\n", "c\n", "\n", "de\n"] {
        assert_eq!(next_line(&mut pieces, &mut read).await.unwrap(), line);
    }
    assert_eq!(next_line(&mut pieces, &mut read).await, None);
}
