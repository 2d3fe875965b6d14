//! Which requests are sent, on a paused clock.

use futures_util::FutureExt;
use reqwest::StatusCode;

use super::*;
use crate::client::couchdb::credentials::{Secret, SecretKind};

/// Credentials of a run that follows several databases.
fn access() -> Access {
    let credentials = Credentials::new("me", "right".into());
    let refusal = Refusal::Wait { accepted_before: false, several: true };
    Access::new(Some(credentials), refusal)
}

/// What a server answers that locks the user out.
fn lock_out() -> Error {
    let said = r#"{"error":"forbidden","reason":"Account is temporarily locked"}"#;
    let (status, now) = (StatusCode::FORBIDDEN, jiff::Timestamp::UNIX_EPOCH);
    Error::answered("GET http://h/a", status, &HeaderMap::new(), said, str::to_owned, now)
}

/// The pass of a request that is sent at once.
async fn enters<'a>(access: &'a Access, path: &str) -> Pass<'a> {
    let entered = access.enter(path).now_or_never();
    entered.expect("a request that is sent at once").unwrap()
}

/// Whether a request is kept waiting.
fn waits(access: &Access, path: &str) -> bool {
    access.enter(path).now_or_never().is_none()
}

/// The pause of a request that is not sent.
async fn pause(access: &Access, path: &str) -> Option<Duration> {
    match access.enter(path).await.expect_err("a request that is not sent").kind() {
        Kind::Transient { retry_after } => retry_after,
        other => panic!("{other:?}"),
    }
}

/// Credentials that the server has just accepted.
async fn accepted() -> Access {
    let access = access();
    let mut pass = enters(&access, "/a").await;
    access.accepted(&mut pass, "/a");
    drop(pass);
    access
}

#[tokio::test(start_paused = true)]
async fn one_request_is_sent_first_until_an_answer_and_when_the_last_one_has_become_old() {
    let access = access();
    let mut first = enters(&access, "/a").await;
    assert!(waits(&access, "/b"));
    access.accepted(&mut first, "/a");
    drop(first);
    let (_a, _b) = (enters(&access, "/a").await, enters(&access, "/b").await);
    tokio::time::advance(FRESH).await;
    let _first = enters(&access, "/a").await;
    assert!(waits(&access, "/b"));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_that_hangs_holds_up_the_others_for_a_while_only() {
    for (access, patience) in [(access(), FIRST_PATIENCE[0]), (accepted().await, FIRST_PATIENCE[1])]
    {
        tokio::time::advance(FRESH).await;
        let _hangs = enters(&access, "/a").await;
        let begun = Instant::now();
        let _others = tokio::join!(access.enter("/b"), access.enter("/c"));
        assert_eq!(begun.elapsed(), patience);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_out_is_met_by_one_request_and_tried_again_by_one_a_pause() {
    let access = accepted().await;
    tokio::time::advance(FRESH).await;
    let mut first = enters(&access, "/a").await;
    let others = ["/b", "/c"].map(|path| access.enter(path));
    let refused = async {
        let next = access.refused(&mut first, "/a", lock_out(), false).await;
        assert!(matches!(next, Next::Failed(_)));
        drop(first);
    };
    let (others, ()) = tokio::join!(futures_util::future::join_all(others), refused);
    assert!(others.iter().all(Result::is_err), "none is sent behind the refusal");
    assert_eq!(pause(&access, "/b").await, Some(FIRST_LOCKED));

    for doubled in [2, 4] {
        tokio::time::advance(FIRST_LOCKED * doubled / 2).await;
        let mut again = enters(&access, "/c").await;
        assert!(waits(&access, "/b"), "one request tries them");
        access.refused(&mut again, "/c", lock_out(), false).await;
        drop(again);
        assert_eq!(pause(&access, "/b").await, Some(FIRST_LOCKED * doubled));
    }
    tokio::time::advance(FIRST_LOCKED * 4).await;
    let mut again = enters(&access, "/c").await;
    access.accepted(&mut again, "/c");
    let _b = enters(&access, "/b").await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_a_password_is_read_again_lets_another_one_try() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "right").unwrap();
    let password = Secret::File(path.clone(), SecretKind::Password);
    let credentials = Credentials::Basic { user: "me".into(), password };
    let access =
        Access::new(Some(credentials), Refusal::Wait { accepted_before: true, several: true });
    let mut pass = access.enter("/a").await.unwrap();
    access.refused(&mut pass, "/a", lock_out(), false).await;
    drop(pass);
    tokio::time::advance(FIRST_LOCKED).await;

    // A pipe that nobody writes to.
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    assert!(waits(&access, "/a"), "it reads the password");
    // The reading itself is not given up.
    std::fs::write(&path, "right").unwrap();
    std::fs::remove_file(&path).unwrap();
    let again = access.enter("/b").await.expect("another request tries");
    assert!(again.tries);
}
