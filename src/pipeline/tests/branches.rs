//! Losing revisions, requested in groups.

use super::*;
use crate::document::Branch;

/// A revision with its history, in a body of about this many bytes.
fn branch(id: &str, revision: &str, bytes: usize) -> Branch {
    let (history, filling) = (format!(r#"{{"start":1,"ids":["{revision}"]}}"#), "x".repeat(bytes));
    let body = format!(
        r#"{{"_id":"{id}","_rev":"{revision}","_revisions":{history},"filling":"{filling}"}}"#
    );
    let document = Document { body: body.into(), attachments: Vec::new() };
    Branch { revision: revision.into(), history: history.into(), document }
}

/// Documents whose winner is `2-w` and that have another leaf, `1-l`, and a source that has both.
fn branched(count: usize, bytes: usize) -> Scripted {
    let source = Scripted::default();
    let mut rows = Vec::new();
    for n in 0..count {
        let (id, filling) = (format!("d{n}"), "x".repeat(bytes));
        let body = format!(r#"{{"_id":"{id}","_rev":"2-w","filling":"{filling}"}}"#).into();
        let state = DocumentState::Present(Document { body, attachments: Vec::new() });
        let others = Some(vec!["1-l".into()]);
        rows.push(Ok(FeedEvent::Change(Change { state, others, ..change(&id, "2-w", Some("1")) })));
        for revision in ["2-w", "1-l"] {
            let key = (id.as_str().into(), revision.into());
            source.branches.lock().unwrap().insert(key, branch(&id, revision, bytes));
        }
    }
    source.scripts.lock().unwrap().push(script(rows, "1"));
    source
}

/// The number of revisions in each request.
async fn asked(source: Scripted) -> Vec<usize> {
    let home = Home::new();
    let count = source.branches.lock().unwrap().len() / 2;
    let source = Arc::new(source);
    let (pipeline, _received) =
        pipeline_with(home.dir.path(), source.clone(), Mode::CatchUp, &keeping(true, false));
    pipeline.run(&CancellationToken::new()).await.unwrap();
    assert_eq!(pipeline.reporter.report().failures, 0);
    for n in 0..count {
        let other = home.path(&format!("d{n}/conflicts/1-l/document.json"));
        assert!(std::fs::read_to_string(other).unwrap().contains("\"1-l\""), "d{n}");
        assert!(home.path(&format!("d{n}/history.json")).exists(), "d{n}");
    }
    std::mem::take(&mut source.asked.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_request_asks_for_at_most_so_many_revisions_and_so_many_bytes() {
    assert_eq!(asked(branched(3, 10)).await, [6]);
    assert_eq!(asked(branched(125, 10)).await, [100, 100, 50]);
    // Two of them (1.4 MB) fit into a request; all six (about 4 MiB) still fit into one batch.
    assert_eq!(asked(branched(3, 700_000)).await, [2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_a_source_says_nothing_of_is_asked_for_again() {
    let source = branched(2, 10);
    *source.silent.lock().unwrap() = 2;
    assert_eq!(asked(source).await, [4, 2, 2, 2], "both, and then each");
}

#[tokio::test(start_paused = true)]
async fn a_document_of_which_a_revision_cannot_be_had_fails_alone() {
    let home = Home::new();
    let source = branched(3, 10);
    source.branches.lock().unwrap().remove(&("d1".into(), "1-l".into()));
    let run = home.run_with(source, &keeping(true, false)).await;
    run.outcome.unwrap();
    assert_eq!(home.documents(), ["d0", "d2"]);
    let failed: Vec<_> = run.failures.iter().map(|one| one.place.as_str()).collect();
    assert_eq!(failed, ["document `d1`"]);
    assert!(run.failures[0].reason.contains("revision 1-l"), "{}", run.failures[0].reason);
}

#[tokio::test(start_paused = true)]
async fn the_attachments_of_a_revision_are_fetched_for_it() {
    let home = Home::new();
    let source = branched(1, 10);
    let with = row_with("d0", "1-l", "1", "f", 5);
    if let DocumentState::Present(document) = with.state {
        let key = ("d0".into(), "1-l".into());
        let branch = Branch { document, ..branch("d0", "1-l", 0) };
        source.branches.lock().unwrap().insert(key, branch);
    }
    source.blobs.lock().unwrap().insert("f".into(), (Bytes::from("bytes"), Vec::new()));
    home.run_with(source, &keeping(true, false)).await.outcome.unwrap();
    let attachment = home.path("d0/conflicts/1-l/attachments/f");
    assert_eq!(std::fs::read_to_string(attachment).unwrap(), "bytes");
    assert!(!home.path("d0/attachments").exists(), "the winner has none");
}
