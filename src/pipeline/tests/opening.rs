//! Where the feed is opened, by the state and the tree.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_emptied_from_outside_is_read_in_a_full_scan() {
    let home = Home::new();
    let rows = || vec![script(vec![row("a", "1-x", "1")], "1")];
    home.run(rows()).await.outcome.unwrap();
    std::fs::remove_dir_all(home.path("")).unwrap();
    let run = home.run(rows()).await;
    // The inventory's entries that the source no longer holds are dropped afterwards.
    assert_eq!(run.opened, [Since::Scan("the folder of the collection was gone".to_owned())]);
    assert_eq!(home.documents(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_source_emptied_goes_on_from_its_checkpoint() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    home.run(vec![script(vec![deleted("a", "2-x", "2")], "2")]).await.outcome.unwrap();
    assert_eq!(home.documents(), [""; 0]);
    assert_eq!(home.run(vec![end("2")]).await.opened, [Since::Position(at("2"))]);
}

#[tokio::test(start_paused = true)]
async fn when_more_is_to_be_kept_everything_is_compared_anew_once() {
    let before = MirrorOptions { attachments: false, ..MirrorOptions::default() };
    let kept =
        |revisions, deleted| MirrorOptions { kept: Kept { revisions, deleted }, ..before.clone() };
    let cases = [
        (MirrorOptions { attachments: true, ..before.clone() }, "attachments are mirrored"),
        (kept(true, false), "all revisions are kept"),
        (kept(false, true), "deleted documents are kept"),
    ];
    for (more, what) in cases {
        let home = Home::new();
        let run = async |options, script| home.run_with(Scripted::new(vec![script]), options).await;
        run(&before, script(vec![row("a", "1-x", "1")], "1")).await.outcome.unwrap();
        let scan = vec![
            Ok(FeedEvent::ScanStarted { reason: what.into() }),
            row("a", "1-x", "1"),
            Ok(FeedEvent::ScanFinished { position: at("2"), exhaustive: true }),
            Ok(FeedEvent::CaughtUp),
        ];
        assert_eq!(run(&more, scan).await.opened, [Since::Scan(format!("{what} from now on"))]);
        for less_again in [&more, &before] {
            let opened = run(less_again, end("2")).await.opened;
            assert_eq!(opened, [Since::Position(at("2"))], "{what}");
        }
    }
}
