//! Mirrors a source with the library, and prints the write events until it has caught up.
//!
//! ```sh
//! cargo run --example follow -- feed:fixtures/library.ndjson ./mirror
//! ```

// An example may speak to the terminal; the library never does.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use plainfold::config::MirrorConfig;
use plainfold::runner::Notice;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("give a source and a directory".into());
    };
    let session = MirrorConfig::new(&source, directory)?.live(true).start().await?;

    // From event 0 on: first all events in the journal, then each new one. This subscription never
    // misses an event; `session.events()` is a plain broadcast channel, and a slow receiver misses some.
    let mut events = session.watcher().subscribe(Some(0));
    let printing = tokio::spawn(async move {
        let mut count = 0;
        while let Ok(Some(notice)) = events.next().await {
            if let Notice::Event(event) = notice {
                let what = if event.deleted { "removed" } else { "wrote" };
                println!("{what} {}/{}", event.collection, event.document);
                count += 1;
            }
        }
        count
    });

    if !session.caught_up().await {
        eprintln!("it ended before it had caught up");
    }
    session.cancel(); // The batch in flight is finished.
    let outcome = session.join().await;
    let count = printing.await?;
    println!("{count} events, {} failures", outcome.failures.len());
    for error in &outcome.errors {
        eprintln!("{error}");
    }
    Ok(())
}
