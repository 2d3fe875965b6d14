//! Single documents fetched again, apart from the feed.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_repair_writes_what_is_wrong_and_leaves_the_checkpoint_and_what_is_untold_alone() {
    let home = Home::new();
    let rows = || vec![row("old", "1-x", "1"), row("new", "1-x", "2")];
    home.run(vec![script(rows(), "2")]).await.outcome.unwrap();
    let body = std::fs::File::options().append(true).open(home.path("old/document.json")).unwrap();
    body.set_modified(std::time::UNIX_EPOCH).unwrap();
    let open = Checkpoint {
        position: Some(at("1")),
        open_since: Some(jiff::Timestamp::now()),
        ..Checkpoint::default()
    };
    forget_commits(&home, &open);

    let source = Arc::new(Scripted::default());
    source.documents.lock().unwrap().insert("old".into(), change("old", "1-x", None));
    let (pipeline, mut received) = pipeline(home.dir.path(), source.clone(), Mode::CatchUp);
    let damaged = ["old".into(), "unknown".into()].into();
    let wrong = WrongDocument { damaged, ..WrongDocument::default() };
    let mut done = pipeline.repair(wrong, Asking::Singly, &CancellationToken::new()).await;
    assert!(done.error.is_none() && source.opened.lock().unwrap().is_empty());
    done.fates.sort_by(|left, right| left.0.cmp(&right.0));
    let written = Fate::Present { revision: Some("1-x".into()), written: true };
    assert_eq!(done.fates, [("old".into(), written), ("unknown".into(), Fate::Unknown)]);
    let event = received.try_recv().unwrap();
    assert_eq!((event.document.as_str(), event.position.is_none()), ("old", true));
    assert!(received.try_recv().is_err());
    let kept = pipeline.checkpoints.checkpoint(&"books".into()).unwrap().unwrap();
    assert_eq!((kept.position, kept.scanning), (open.position, None));
    assert!(!kept.attachments);
    assert_eq!(kept.open_since, open.open_since);
    assert!(pipeline.failures().is_empty());
    assert!(pipeline.checkpoints.failures(&"books".into()).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_was_interrupted_is_told_of_by_the_next_run() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let source = Arc::new(Scripted::default());
    {
        let (pipeline, _received) = pipeline(home.dir.path(), source, Mode::CatchUp);
        let mut batch = batch::Batch::default();
        batch.push(change("a", "1-x", None), crate::mirror::Authority::Repair);
        let (_settled, settled) = watch::channel(u64::MAX);
        let mut rounds = Rounds::new(pipeline.clone(), None, settled, CancellationToken::new());
        let prepared = rounds.whole(batch).await.unwrap();
        let intents = vec![failures::of_repair(&prepared.staged[0].0, None)];
        // The process ends before the document is in its place.
        std::fs::remove_dir_all(home.dir.path().join(".plainfold/staging")).unwrap();
        pipeline.settle_apart(prepared, intents).await.unwrap_err();
        let left = pipeline.checkpoints.checkpoint(&"books".into()).unwrap().unwrap();
        assert!(left.open_since.is_some() && left.position == Some(at("1")));
    }
    // Or after it: the tree holds the recorded revision.
    let source = Scripted::new(vec![end("1")]);
    source.documents.lock().unwrap().insert("a".into(), change("a", "1-x", None));
    let run = home.run_source(source).await;
    let told: Vec<_> = run.events.iter().map(|event| event.document.as_str()).collect();
    assert_eq!((told, run.failures.len()), (vec!["a"], 0));
    let run = home.run(vec![end("1")]).await;
    assert!(run.events.is_empty() && run.failures.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_repaired_without_a_checkpoint_is_compared_anew() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    std::fs::remove_dir_all(home.state_path()).unwrap();
    let source = Arc::new(Scripted::default());
    source.documents.lock().unwrap().insert("a".into(), change("a", "1-x", None));
    let (pipeline, _received) = pipeline(home.dir.path(), source, Mode::CatchUp);
    let wrong = WrongDocument { damaged: ["a".into()].into(), ..WrongDocument::default() };
    pipeline.repair(wrong, Asking::Singly, &CancellationToken::new()).await;
    drop(pipeline);
    let run = home.run(vec![end("1")]).await;
    assert!(matches!(&run.opened[..], [Since::Scan(_)]), "{:?}", run.opened);
}

#[tokio::test(start_paused = true)]
async fn a_repair_by_a_feed_takes_its_last_word_on_each_document() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "2-x", "1"), row("b", "1-x", "2")], "2")])
        .await
        .outcome
        .unwrap();
    let torn = Unreadable {
        id: Some("b".into()),
        revision: None,
        place: "row at byte 9".into(),
        position: Some(at("4")),
        reason: "it is torn".into(),
    };
    let said = || {
        let rows = vec![row("a", "1-x", "1"), row("b", "1-x", "2"), row("a", "2-x", "3")];
        script(rows.into_iter().chain([Ok(FeedEvent::Unreadable(torn.clone()))]).collect(), "4")
    };
    let source = Arc::new(Scripted::new(vec![said(), said()]));
    let (pipeline, mut received) = pipeline(home.dir.path(), source, Mode::CatchUp);
    let wrong = WrongDocument {
        damaged: ["a", "b", "c"].map(Into::into).into(),
        ..WrongDocument::default()
    };
    let mut done = pipeline.repair(wrong, Asking::ByFeed, &CancellationToken::new()).await;
    assert!(done.error.is_none());
    done.fates.sort_by(|left, right| left.0.cmp(&right.0));
    let [(_, a), (_, b), (_, c)] = &done.fates[..] else { panic!("{:?}", done.fates) };
    assert_eq!(*a, Fate::Present { revision: Some("2-x".into()), written: true });
    assert_eq!(*b, Fate::Failed("row at byte 9: it is torn".into()));
    assert_eq!(*c, Fate::Unknown);
    assert!(received.try_recv().unwrap().position.is_none(), "the feed is not at its place");
}

#[tokio::test(start_paused = true)]
async fn a_repair_writes_a_tombstone_where_those_are_kept() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let source = Arc::new(Scripted::default());
    let state = DocumentState::Deleted(None);
    let gone = Change { state, ..change("a", "2-x", None) };
    source.documents.lock().unwrap().insert("a".into(), gone);
    let keeping = keeping(false, true);
    let (pipeline, _received) = pipeline_with(home.dir.path(), source, Mode::CatchUp, &keeping);
    let differing = ["a".into()].into();
    let wrong = WrongDocument { differing, ..WrongDocument::default() };
    assert!(!wrong.is_empty() && WrongDocument::default().is_empty());
    let done = pipeline.repair(wrong, Asking::Singly, &CancellationToken::new()).await;
    let buried = Fate::Buried { revision: "2-x".into(), written: true };
    assert_eq!(done.fates, [("a".into(), buried)]);
    assert!(home.path("a/deleted.json").exists());
}

#[tokio::test(start_paused = true)]
async fn a_document_that_changes_while_it_is_repaired_is_replaced_as_a_whole_all_the_same() {
    let home = Home::new();
    let source = || {
        let rows = ["a", "b"].map(|id| Ok(FeedEvent::Change(row_with(id, "1-x", "1", "kept", 5))));
        let source = Scripted::new(vec![script(rows.into(), "2")]);
        source.blobs.lock().unwrap().insert("kept".into(), (Bytes::from("bytes"), Vec::new()));
        source
    };
    home.run_source(source()).await.outcome.unwrap();
    let attachment = home.path("a/attachments/kept");
    std::fs::write(&attachment, "rot").unwrap();

    let source = Arc::new(source());
    let first = ["a", "b"].map(|id| (id.into(), row_with(id, "2-x", "3", "gone", 5)));
    source.documents.lock().unwrap().extend(first);
    // The attachment has its original content.
    let mut changed = row_with("a", "1-x", "4", "kept", 5);
    changed.revision = "3-x".into();
    if let DocumentState::Present(document) = &mut changed.state {
        let body = std::str::from_utf8(&document.body).unwrap();
        document.body = body.replace(r#""_rev":"1-x""#, r#""_rev":"3-x""#).into();
    }
    let deleted = Change { state: DocumentState::Deleted(None), ..change("b", "3-x", None) };
    source.newer.lock().unwrap().extend([("a".into(), changed), ("b".into(), deleted)]);
    let (pipeline, _received) = pipeline(home.dir.path(), source, Mode::CatchUp);
    let wrong =
        WrongDocument { damaged: ["a", "b"].map(Into::into).into(), ..WrongDocument::default() };
    let mut done = pipeline.repair(wrong, Asking::Singly, &CancellationToken::new()).await;
    assert!(done.error.is_none());
    done.fates.sort_by(|left, right| left.0.cmp(&right.0));
    let written = Fate::Present { revision: Some("3-x".into()), written: true };
    let removed = Fate::Deleted { removed: true };
    assert_eq!(done.fates, [("a".into(), written), ("b".into(), removed)]);
    assert_eq!(std::fs::read_to_string(&attachment).unwrap(), "bytes");
    assert_eq!(home.documents(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_has_gone_from_the_feed_meanwhile_is_said_to_have() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let source = Scripted::new(vec![script(vec![row("a", "2-x", "2")], "2"), end("2")]);
    let (pipeline, _received) = pipeline(home.dir.path(), Arc::new(source), Mode::CatchUp);
    let wrong = WrongDocument { damaged: ["a".into()].into(), ..WrongDocument::default() };
    let done = pipeline.repair(wrong, Asking::ByFeed, &CancellationToken::new()).await;
    let gone = Fate::Failed("its row is not in the feed any more".into());
    assert_eq!(done.fates, [("a".into(), gone)]);
    assert_eq!(home.documents(), ["a"], "what is here stays");
}

#[tokio::test(start_paused = true)]
async fn a_repair_of_a_running_mirror_removes_nothing() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let gone = || Change { state: DocumentState::Deleted(None), ..change("a", "2-x", None) };
    let source = Arc::new(Scripted::default());
    source.documents.lock().unwrap().insert("a".into(), gone());
    let (pipeline, mut received) = pipeline(home.dir.path(), source, Mode::CatchUp);
    let wrong = || WrongDocument { damaged: ["a".into()].into(), ..WrongDocument::default() };
    let stop = CancellationToken::new();
    let done = pipeline.to_repair(None).repair(wrong(), Asking::Singly, &stop).await;
    let [(_, Fate::Failed(reason))] = &done.fates[..] else { panic!("{done:?}") };
    assert!(reason.contains("the source has deleted it"), "{reason}");
    assert!(home.path("a/document.json").exists() && received.try_recv().is_err());
    assert!(pipeline.failures().is_empty(), "it is no failure of the feed");
    // At rest, it is removed.
    let done = pipeline.repair(wrong(), Asking::Singly, &stop).await;
    assert_eq!(done.fates, [("a".into(), Fate::Deleted { removed: true })]);
    assert!(!home.path("a").exists());
}
