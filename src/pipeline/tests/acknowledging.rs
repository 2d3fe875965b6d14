//! What the source is told is durable.

use std::sync::Mutex;

use super::*;

/// A source that notes what it is told is durable, and whether the state held it then.
fn hearing(
    scripts: Vec<Vec<Said>>,
    answer: Result<(), SourceError>,
) -> (Arc<Scripted>, Arc<Mutex<Heard>>) {
    let (source, heard) = (Arc::new(Scripted::new(scripts)), Arc::<Mutex<Heard>>::default());
    let hears = {
        let heard = Arc::clone(&heard);
        move |position: &Position| {
            let mut heard = heard.lock().unwrap();
            let state = heard.state.as_ref().unwrap().checkpoint(&"books".into()).unwrap();
            let durable = state.and_then(|checkpoint| checkpoint.position);
            heard.told.push((position.clone(), durable.unwrap()));
            answer.clone()
        }
    };
    *source.hears.lock().unwrap() = Some(Box::new(hears));
    (source, heard)
}

#[derive(Default)]
struct Heard {
    state: Option<Arc<Checkpoints>>,
    /// What was acknowledged, and the position of the state at that time.
    told: Vec<(Position, Position)>,
}

#[tokio::test]
async fn a_position_is_acknowledged_after_its_commit_and_none_that_did_not_come() {
    let home = Home::new();
    let broken = vec![row("a", "1-x", "1"), Err(SourceError::permanent("broken"))];
    let (source, heard) = hearing(vec![broken], Ok(()));
    let (pipeline, _received) =
        pipeline_with(home.dir.path(), source, Mode::CatchUp, &MirrorOptions::default());
    heard.lock().unwrap().state = Some(Arc::clone(&pipeline.checkpoints));
    pipeline.run(&CancellationToken::new()).await.unwrap_err();
    assert_eq!(heard.lock().unwrap().told, [(at("1"), at("1"))]);
}

#[tokio::test]
async fn a_scan_acknowledges_nothing_before_its_end() {
    let home = Home::new();
    let begin = Ok(FeedEvent::ScanStarted { reason: "a test".into() });
    let finish = Ok(FeedEvent::ScanFinished { position: at("9"), exhaustive: true });
    let scan = vec![begin, row("a", "1-x", "1"), finish, Ok(FeedEvent::CaughtUp)];
    let (source, heard) = hearing(vec![scan], Ok(()));
    let (pipeline, _received) =
        pipeline_with(home.dir.path(), source, Mode::CatchUp, &MirrorOptions::default());
    heard.lock().unwrap().state = Some(Arc::clone(&pipeline.checkpoints));
    pipeline.run(&CancellationToken::new()).await.unwrap();
    assert_eq!(heard.lock().unwrap().told, [(at("9"), at("9"))]);
}

#[tokio::test]
async fn a_source_that_takes_no_acknowledgement_is_mirrored_all_the_same() {
    let home = Home::new();
    let (source, heard) = hearing(vec![script(vec![row("a", "1-x", "1")], "2")], Err(transient()));
    let (pipeline, _received) =
        pipeline_with(home.dir.path(), source, Mode::CatchUp, &MirrorOptions::default());
    heard.lock().unwrap().state = Some(Arc::clone(&pipeline.checkpoints));
    pipeline.run(&CancellationToken::new()).await.unwrap();
    assert_eq!(home.documents(), ["a"]);
    assert_eq!(heard.lock().unwrap().told.last(), Some(&(at("2"), at("2"))));
}

#[tokio::test]
async fn what_failed_is_not_discarded_by_a_source_that_can_only_be_asked_by_its_feed() {
    for (single_reads, wanted) in [(false, vec![at("1")]), (true, vec![at("1"), at("3")])] {
        let home = Home::new();
        let unreadable = Ok(FeedEvent::Unreadable(Unreadable {
            id: Some("b".into()),
            revision: None,
            place: "row 2".into(),
            position: Some(at("2")),
            reason: "broken".into(),
        }));
        let script =
            vec![row("a", "1-x", "1"), Ok(FeedEvent::CaughtUp), unreadable, row("c", "1-x", "3")];
        let (source, heard) = hearing(vec![script], Ok(()));
        *source.away.lock().unwrap() = Some(SourceError::permanent("broken"));
        let mut how = in_mode(Mode::CatchUp);
        how.capabilities.single_reads = single_reads;
        let (pipeline, _received) =
            pipeline_as(home.dir.path(), source, &MirrorOptions::default(), how);
        heard.lock().unwrap().state = Some(Arc::clone(&pipeline.checkpoints));
        pipeline.run(&CancellationToken::new()).await.unwrap();
        assert_eq!(home.documents(), ["a", "c"]);
        let told = std::mem::take(&mut heard.lock().unwrap().told);
        let told: Vec<_> = told.into_iter().map(|(position, _)| position).collect();
        // Of several commits, perhaps only the last is acknowledged.
        assert_eq!(told.last(), wanted.last(), "{told:?}");
        assert!(told.iter().all(|one| wanted.contains(one)), "{told:?}");
    }
}
