//! When a feed is opened again, after which pause, and when it is given up.

use std::sync::Mutex;

use super::*;
use crate::document::Position;
use crate::source::scripted::{Said, Scripted};

fn at(token: &str) -> Position {
    Position::new(token, "".into(), None)
}

fn position(token: &str) -> Said {
    Ok(FeedEvent::Position(at(token)))
}

fn cut() -> Said {
    Err(SourceError::transient("the connection was cut"))
}

async fn run(
    scripts: Vec<Vec<Said>>,
    since: Since,
    mode: Mode,
) -> (Vec<Result<Fed, SourceError>>, Vec<Since>) {
    let source = Arc::new(Scripted::new(scripts));
    let feed = resilient(Arc::clone(&source) as Arc<dyn Feed>, since, mode, RetryPolicy::CATCH_UP);
    let said = feed.take(200).collect().await;
    let opened = source.opened.lock().unwrap().clone();
    (said, opened)
}

#[tokio::test(start_paused = true)]
async fn a_broken_feed_goes_on_after_the_last_position() {
    let scripts = vec![
        vec![position("1"), position("2"), cut()],
        vec![position("3"), Ok(FeedEvent::CaughtUp)],
    ];
    let (said, opened) = run(scripts, Since::Start, Mode::CatchUp).await;
    assert_eq!(opened, [Since::Start, Since::Position(at("2"))]);
    assert!(matches!(said[2], Ok(Fed::Waiting { .. })));
    assert!(matches!(said.last(), Some(Ok(Fed::Event(FeedEvent::CaughtUp)))));
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_makes_no_progress_is_given_up() {
    let begun = Instant::now();
    let scripts = (0..100).map(|_| vec![position("1"), cut()]).collect();
    let (said, opened) = run(scripts, Since::Start, Mode::CatchUp).await;
    assert!(opened.len() > 2, "it was tried again");
    assert!(matches!(said.last(), Some(Err(SourceError::Transient { .. }))));
    assert_eq!(begun.elapsed().as_secs(), 30, "as long as it is patient");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_goes_round_in_circles_is_given_up() {
    let round = |n: usize| vec![position(["1", "2"][n % 2]), cut()];
    let (said, opened) = run((0..200).map(round).collect(), Since::Start, Mode::CatchUp).await;
    assert!(opened.len() < 200, "it went round and round");
    assert!(matches!(said.last(), Some(Err(SourceError::Transient { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_sent_away_at_the_end_waits_longer_each_time() {
    let end = || vec![position("1"), Ok(FeedEvent::CaughtUp), cut()];
    let (said, opened) =
        run((0..200).map(|_| end()).collect(), Since::Position(at("1")), Mode::Follow).await;
    assert!(opened.len() < 100, "it is always told the same end");
    assert!(matches!(said.last(), Some(Err(SourceError::Transient { .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_another_each_time_is_scanned_with_a_rest_between() {
    let scan = || {
        let reason = "it was created again".to_owned();
        let expired = SourceError::Expired { reason: reason.clone() };
        let finished = FeedEvent::ScanFinished { position: at("9"), exhaustive: true };
        let started = FeedEvent::ScanStarted { reason };
        vec![Ok(started), Ok(finished), Ok(FeedEvent::CaughtUp), Err(expired)]
    };
    let expired = vec![Err(SourceError::Expired { reason: "it was created again".into() })];
    let scripts = vec![expired, scan(), scan()];
    let (said, _) = run(scripts, Since::Position(at("5")), Mode::Follow).await;
    let pauses: Vec<_> = said
        .iter()
        .filter_map(|said| match said {
            Ok(Fed::Waiting { error: SourceError::Expired { .. }, pause }) => Some(*pause),
            _ => None,
        })
        .collect();
    assert_eq!(
        pauses,
        [Duration::ZERO, RetryPolicy::CATCH_UP.longest, RetryPolicy::CATCH_UP.longest]
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_longer_than_we_are_patient_is_not_begun() {
    let tries = Mutex::new(0);
    let busy = |seconds| SourceError::Transient {
        what: "busy".into(),
        retry_after: Some(Duration::from_secs(seconds)),
        cause: None,
    };
    let answer: Result<(), _> = attempts(&RetryPolicy::CATCH_UP, || {
        *tries.lock().unwrap() += 1;
        async { Err(busy(3600)) }
    })
    .await;
    assert!(answer.is_err());
    assert_eq!(*tries.lock().unwrap(), 1);
}

fn asking(pause: Duration) -> SourceError {
    SourceError::Transient { what: "busy".into(), retry_after: Some(pause), cause: None }
}

#[test]
fn a_pause_that_the_source_asks_for_is_kept_to_once_even_if_we_are_less_patient() {
    let seconds = Duration::from_secs;
    let mut patience = Patience::new(RetryPolicy::CATCH_UP);
    let pause = |patience: &mut Patience, asked| {
        patience.pause(asking(asked), Mode::CatchUp, None).map(|(_, pause)| pause)
    };
    assert_eq!(pause(&mut patience, seconds(200)).unwrap(), seconds(200));
    assert!(pause(&mut patience, seconds(200)).unwrap() <= seconds(30), "not a second time");
    patience.renew();
    let hour = Duration::from_secs(3600);
    assert!(pause(&mut patience, hour).unwrap() <= seconds(30), "and not forever");
    let mut follower = Patience::new(RetryPolicy { give_up_after: None, ..RetryPolicy::CATCH_UP });
    assert_eq!(pause(&mut follower, hour).unwrap(), LONGEST_ASKED);
    assert_eq!(pause(&mut follower, LONGEST_REFUSED).unwrap(), LONGEST_REFUSED);
}

#[tokio::test(start_paused = true)]
async fn patience_is_renewed_by_the_servers_other_collections_alone() {
    let own = ServerProgress::default();
    let other = own.for_another();
    other.note();
    own.note();
    assert_eq!((own.of_others(), other.of_others()), (1, 1));
    let mut patience = Patience::new(RetryPolicy::CATCH_UP);
    let pause = |patience: &mut Patience| {
        patience.pause(cut().unwrap_err(), Mode::CatchUp, Some(&own)).map(|(_, pause)| pause)
    };
    other.note();
    assert!(pause(&mut patience).is_ok());
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(7200)).await;
        other.note();
        assert!(pause(&mut patience).is_ok());
    }
    tokio::time::advance(Duration::from_secs(29)).await;
    assert!(pause(&mut patience).unwrap() <= Duration::from_secs(1), "one last try at the end");
    tokio::time::advance(Duration::from_secs(1)).await;
    own.note();
    assert!(pause(&mut patience).is_err());
}

#[tokio::test(start_paused = true)]
async fn an_expired_position_leads_to_a_scan_which_an_interruption_starts_over() {
    let expired = || Err(SourceError::Expired { reason: "it was created again".into() });
    let scan = || Ok(FeedEvent::ScanStarted { reason: "it was created again".into() });
    let finished = Ok(FeedEvent::ScanFinished { position: at("9"), exhaustive: true });
    let scripts = vec![
        vec![expired()],
        vec![scan(), position("1"), cut()],
        vec![scan(), position("1"), finished, cut()],
        vec![Ok(FeedEvent::CaughtUp)],
    ];
    let (_, opened) = run(scripts, Since::Position(at("5")), Mode::CatchUp).await;
    let scanning = Since::Scan("it was created again".into());
    let expected = [Since::Position(at("5")), scanning.clone(), scanning, Since::Position(at("9"))];
    assert_eq!(opened, expected);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_never_tried_twice() {
    for mode in [Mode::CatchUp, Mode::Follow] {
        let refused = SourceError::Refused { what: "wrong password".into() };
        let (said, opened) = run(vec![vec![Err(refused)]], Since::Start, mode).await;
        assert_eq!(opened.len(), 1);
        assert!(matches!(said[..], [Err(SourceError::Refused { .. })]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_request_is_tried_so_often_and_no_oftener() {
    let tries = Mutex::new(0);
    let answer: Result<(), _> = attempts(&RetryPolicy::CATCH_UP, || {
        *tries.lock().unwrap() += 1;
        async { Err(SourceError::transient("busy")) }
    })
    .await;
    assert!(answer.is_err());
    assert_eq!(*tries.lock().unwrap(), RetryPolicy::CATCH_UP.attempts);
}
