//! What subscribers cost a mirror: nobody listens, 1,000 subscribers read, and one of 1,000 is stuck.
//!
//! ```sh
//! cargo bench --bench subscribers [-- DIRECTORY]
//! ```
//!
//! The three cases run in turn, several times, in new folders below DIRECTORY (by default the folder of
//! temporary files). A case mirrors a feed of documents at once, and then follows changes that come one
//! by one. The stuck subscriber reads at the end, and must receive everything that it missed.

// A benchmark speaks to the terminal; the library never does.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use plainfold::config::MirrorConfig;
use plainfold::runner::{Notice, Subscription};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The number of documents that are mirrored at once.
const DOCUMENTS: u64 = 10_000;

/// The number of changes that come one by one.
const CHANGES: u64 = 300;

const SUBSCRIBERS: usize = 1_000;

const ROUNDS: usize = 5;

const CASES: [(&str, usize, usize); 3] = [
    ("nobody", 0, 0),
    ("1,000 reading", SUBSCRIBERS, 0),
    ("999 reading, 1 stuck", SUBSCRIBERS - 1, 1),
];

/// The seconds of one run.
struct Took {
    at_once: f64,
    one_by_one: f64,
}

#[tokio::main]
async fn main() {
    let above = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let above = above.map_or_else(std::env::temp_dir, PathBuf::from);
    let mut took: [Vec<Took>; CASES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for ((_, reading, stuck), took) in CASES.into_iter().zip(&mut took) {
            took.push(run(&above, reading, stuck).await);
        }
    }
    let best = |took: &[Took], of: fn(&Took) -> f64| took.iter().map(of).fold(f64::MAX, f64::min);
    println!(
        "| subscribers | {DOCUMENTS} documents at once | time ÷ nobody's | {CHANGES} changes one by one | time ÷ nobody's |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let nobody = [best(&took[0], |it| it.at_once), best(&took[0], |it| it.one_by_one)];
    for ((name, ..), took) in CASES.into_iter().zip(&took) {
        let [once, one] = [best(took, |it| it.at_once), best(took, |it| it.one_by_one)];
        println!(
            "| {name} | {once:.2} s | {:.2} | {one:.2} s | {:.2} |",
            once / nobody[0],
            one / nobody[1],
        );
    }
}

async fn run(above: &Path, reading: usize, stuck: usize) -> Took {
    let directory = tempfile::tempdir_in(above).unwrap();
    let path = directory.path().join("documents.ndjson");
    let mut feed = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    write(&mut feed, 1..=DOCUMENTS);
    let source = format!("feed:{}", path.display());
    let config = MirrorConfig::new(&source, directory.path().join("mirror")).unwrap();
    let session = config.live(true).start().await.unwrap();
    let watcher = session.watcher();
    let begun = Instant::now();
    let stuck: Vec<Subscription> = (0..stuck).map(|_| watcher.subscribe(None)).collect();
    let have_read = Arc::new(Semaphore::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..reading {
        readers.spawn(read(watcher.subscribe(Some(0)), Arc::clone(&have_read)));
    }
    assert!(session.caught_up().await);
    let at_once = begun.elapsed().as_secs_f64();

    let all = u32::try_from(reading).unwrap();
    let _all_have_read_these = have_read.acquire_many(all).await.unwrap();
    let mut committed = session.events();
    let begun = Instant::now();
    for number in DOCUMENTS + 1..=DOCUMENTS + CHANGES {
        write(&mut feed, number..=number);
        assert_eq!(committed.recv().await.unwrap().event, number);
    }
    let one_by_one = begun.elapsed().as_secs_f64();
    session.cancel();
    let outcome = session.join().await;
    assert!(outcome.errors.is_empty() && outcome.failures.is_empty());
    while let Some(counts) = readers.join_next().await {
        assert_eq!(counts.unwrap().0, DOCUMENTS + CHANGES);
    }
    for stuck in stuck {
        let (events, missed) = read(stuck, Arc::clone(&have_read)).await;
        assert_eq!((events, missed > 0), (DOCUMENTS + CHANGES, true));
    }
    Took { at_once, one_by_one }
}

/// The number of events of a subscription until its end, and how many it missed at first. Adds a
/// permit when it has read the documents that are mirrored at once.
async fn read(mut subscription: Subscription, have_read: Arc<Semaphore>) -> (u64, u64) {
    let (mut events, mut missed) = (0, 0);
    while let Some(notice) = subscription.next().await.unwrap() {
        match notice {
            Notice::Event(_) => {
                events += 1;
                have_read.add_permits(usize::from(events == DOCUMENTS));
            }
            Notice::Lagged(count) => missed += count,
            Notice::Expired(first, last) => panic!("{first} to {last} are not in the journal"),
        }
    }
    (events, missed)
}

/// Appends documents of about 500 bytes.
fn write(feed: &mut File, numbers: impl Iterator<Item = u64>) {
    let text = "x".repeat(410);
    let row = |number: u64| {
        let (id, rev) = (format!("doc-{number:07}"), "1-0123456789abcdef0123456789abcdef");
        format!(
            "{{\"seq\":{number},\"id\":\"{id}\",\"changes\":[{{\"rev\":\"{rev}\"}}],\
             \"doc\":{{\"_id\":\"{id}\",\"_rev\":\"{rev}\",\"text\":\"{text}\"}}}}\n"
        )
    };
    feed.write_all(numbers.map(row).collect::<String>().as_bytes()).unwrap();
}
