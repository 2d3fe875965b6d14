//! A disk that cannot be written to.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_follower_waits_for_a_disk_and_says_so_and_a_catch_up_ends() {
    let home = Home::new();
    let full = MirrorOptions { reserve: u64::MAX, ..MirrorOptions::default() };
    let rows = || vec![script(vec![row("a", "1-x", "1")], "1")];
    let run = home.run_with(Scripted::new(rows()), &full).await;
    assert!(run.outcome.unwrap_err().is_disk());

    let how = in_mode(Mode::Follow);
    // The feed is read again for deletions, each time that the disk is tried.
    let openings = std::iter::repeat_with(rows).take(20).flatten().collect();
    let mut following = Following::with(&home, Scripted::new(openings), &full, how);
    let waiting = following.report(|report| report.phase == Phase::Waiting).await;
    let trouble = waiting.trouble.unwrap();
    assert!(trouble.contains("bytes"), "{trouble}");
    // It reports the failure after each attempt.
    for _ in 0..9 {
        assert_eq!(following.next_report().await.phase, Phase::Waiting);
    }
    following.stop().await;
    assert_eq!(home.documents(), [""; 0]);

    let enough = MirrorOptions { reserve: 1, ..full };
    let run = home.run_with(Scripted::new(rows()), &enough).await;
    assert_eq!(run.opened, [Since::Start]);
    assert_eq!(home.documents(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn room_is_asked_for_before_an_attachment_is_fetched_and_none_for_a_deletion() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let reserving = |reserve| MirrorOptions { reserve, ..MirrorOptions::default() };
    let huge = Ok(FeedEvent::Change(row_with("b", "1-x", "2", "f", 1 << 60)));
    let run = home.run_with(Scripted::new(vec![script(vec![huge], "2")]), &reserving(1)).await;
    assert!(run.outcome.unwrap_err().is_disk());

    let gone = Scripted::new(vec![script(vec![deleted("a", "2-x", "2")], "2")]);
    home.run_with(gone, &reserving(u64::MAX)).await.outcome.unwrap();
    assert_eq!(home.documents(), [""; 0]);
}
