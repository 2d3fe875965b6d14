//! Write events without a gap: first those in the journal, then the live ones, and the journal again
//! whenever the subscriber was too slow.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoints, Record, StateError};
use crate::document::plain;
use crate::event::{Broadcast, WriteEvent};

/// The number of events that are read from the journal at a time.
const PAGE: usize = 500;

/// A message for a subscriber.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A document was written or removed.
    Event(Arc<WriteEvent>),
    /// The subscriber was so slow that it missed this many events; they follow from the journal.
    Lagged(u64),
    /// The journal no longer holds these events (first and last number).
    Expired(u64, u64),
}

impl Notice {
    /// The notice as one line of JSON, with its newline, and without characters that control a
    /// terminal.
    pub fn line(&self) -> String {
        let mut line = match self {
            Self::Event(event) => {
                // Strings, numbers and raw JSON can always be written.
                let text = serde_json::to_string(event).unwrap_or_default();
                plain::json_line(&text).into_owned()
            }
            Self::Lagged(count) => format!(r#"{{"lagged":{count}}}"#),
            Self::Expired(first, last) => {
                format!(r#"{{"expired":{{"first":{first},"last":{last}}}}}"#)
            }
        };
        line.push('\n');
        line
    }
}

/// A subscriber's place among the events.
#[derive(Debug)]
pub struct Subscription {
    checkpoints: Arc<Checkpoints>,
    receiver: broadcast::Receiver<Arc<WriteEvent>>,
    /// The number of the last event that was delivered, or that is not wanted.
    last: u64,
    page: VecDeque<Notice>,
    /// Whether the journal may hold events that were not delivered.
    behind: bool,
    ended: CancellationToken,
}

impl Subscription {
    /// All events in a mirror's journal after number `since`, without live ones.
    pub fn of_journal(checkpoints: &Arc<Checkpoints>, since: u64) -> Self {
        let ended = CancellationToken::new();
        ended.cancel();
        Self::new(checkpoints, &Broadcast::new(), Some(since), ended)
    }

    pub(super) fn new(
        checkpoints: &Arc<Checkpoints>,
        events: &Broadcast,
        since: Option<u64>,
        ended: CancellationToken,
    ) -> Self {
        // The position first, then the channel: events in between are in both, and delivered once.
        let newest = checkpoints.journal_range().ok().flatten().map_or(0, |range| range.last);
        let receiver = events.subscribe();
        Self {
            checkpoints: Arc::clone(checkpoints),
            receiver,
            last: since.unwrap_or(newest),
            page: VecDeque::new(),
            behind: since.is_some(),
            ended,
        }
    }

    /// The next notice; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Notice>, StateError> {
        loop {
            if let Some(notice) = self.page.pop_front() {
                match &notice {
                    Notice::Event(event) => self.last = event.event,
                    Notice::Expired(_, last) => self.last = *last,
                    Notice::Lagged(_) => {}
                }
                return Ok(Some(notice));
            }
            if self.behind {
                if let Some(gap) = self.turn_page().await? {
                    return Ok(Some(gap));
                }
                continue;
            }
            let received = tokio::select! {
                biased;
                received = self.receiver.recv() => received,
                () = self.ended.cancelled() => return Ok(None),
            };
            match received {
                Ok(event) if event.event <= self.last => {}
                Ok(event) => {
                    self.last = event.event;
                    return Ok(Some(Notice::Event(event)));
                }
                Err(RecvError::Lagged(missed)) => {
                    self.behind = true;
                    return Ok(Some(Notice::Lagged(missed)));
                }
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }

    /// Reads further events from the journal. Returns a gap if the next events are no longer there.
    async fn turn_page(&mut self) -> Result<Option<Notice>, StateError> {
        let newest = self.checkpoints.last_number();
        let (page, first) = read_page(&self.checkpoints, self.last).await?;
        self.behind = !page.is_empty();
        self.page = page;
        let expected = self.last + 1;
        // Without a page, all delivered events have left the journal, or were lost with it.
        self.last = self.last.max(first.map_or(newest, |first| first - 1));
        Ok((self.last >= expected).then_some(Notice::Expired(expected, self.last)))
    }
}

/// Reads some events after number `last` from the journal, with the number of the first. A record
/// that cannot be read, or that contains another number, is not an event.
async fn read_page(
    checkpoints: &Arc<Checkpoints>,
    last: u64,
) -> Result<(VecDeque<Notice>, Option<u64>), StateError> {
    let checkpoints = Arc::clone(checkpoints);
    let read = move || checkpoints.journal_after(last, PAGE);
    let records = match tokio::task::spawn_blocking(read).await {
        Ok(records) => records?,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let first = records.first().map(|record| record.number);
    let notice = |Record { number, text }: &Record| match serde_json::from_str::<WriteEvent>(text) {
        Ok(event) if event.event == *number => Notice::Event(Arc::new(event)),
        _ => Notice::Expired(*number, *number),
    };
    Ok((records.iter().map(notice).collect(), first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Bounds, Checkpoint, Commit};

    struct Journal {
        _dir: tempfile::TempDir,
        checkpoints: Arc<Checkpoints>,
        channel: Broadcast,
        ended: CancellationToken,
    }

    impl Journal {
        fn new(bounds: Bounds) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = Checkpoints::open(&dir.path().join("state"), bounds).unwrap().state;
            Self {
                _dir: dir,
                checkpoints: Arc::new(state),
                channel: Broadcast::new(),
                ended: CancellationToken::new(),
            }
        }

        fn subscribe(&self, since: Option<u64>) -> Subscription {
            Subscription::new(&self.checkpoints, &self.channel, since, self.ended.clone())
        }

        /// Commits and broadcasts events as a pipeline does.
        fn write(&self, count: usize) {
            let mut turn = self.checkpoints.turn();
            let first = turn.draw(count).unwrap();
            let events: Vec<_> = (first..first + count as u64).map(event).collect();
            let text = |event: &WriteEvent| serde_json::to_string(event).unwrap();
            let records: Vec<_> = events
                .iter()
                .map(|event| Record { number: event.event, text: text(event) })
                .collect();
            turn.commit(&"books".into(), &Commit::new(Checkpoint::default()), &records).unwrap();
            events.into_iter().for_each(|event| self.channel.send(Arc::new(event)));
        }
    }

    fn event(number: u64) -> WriteEvent {
        WriteEvent {
            event: number,
            collection: "books".into(),
            document: format!("d{number}").as_str().into(),
            files: Vec::new(),
            deleted: false,
            revision: "1-x".into(),
            position: None,
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    /// The notices of a subscription until its end, shortened: numbers of events, and notices.
    async fn told(mut subscription: Subscription) -> (Vec<u64>, Vec<String>) {
        let (mut numbers, mut notices) = (Vec::new(), Vec::new());
        while let Some(notice) = subscription.next().await.unwrap() {
            match &notice {
                Notice::Event(event) => numbers.push(event.event),
                other => notices.push(other.line()),
            }
        }
        (numbers, notices)
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_how_much_it_lagged_and_recovers_all_of_it() {
        let journal = Journal::new(Bounds::DEFAULT);
        let subscription = journal.subscribe(None);
        let count = Broadcast::CAPACITY + 700;
        journal.write(count);
        journal.ended.cancel();
        let (numbers, notices) = told(subscription).await;
        assert_eq!(notices, ["{\"lagged\":700}\n"]);
        assert!(numbers.into_iter().eq(1..=count as u64), "each once and in order");
    }

    #[tokio::test]
    async fn what_was_missed_comes_first_and_what_comes_meanwhile_comes_once() {
        let journal = Journal::new(Bounds::DEFAULT);
        journal.write(10);
        let subscription = journal.subscribe(Some(4));
        journal.write(5);
        journal.ended.cancel();
        let (numbers, notices) = told(subscription).await;
        assert_eq!(numbers, (5..=15).collect::<Vec<_>>());
        assert!(notices.is_empty(), "{notices:?}");
    }

    #[tokio::test]
    async fn what_has_left_the_journal_is_said_to_have_expired() {
        let journal = Journal::new(Bounds { events: 5, ..Bounds::DEFAULT });
        (0..10).for_each(|_| journal.write(1));
        journal.ended.cancel();
        let (numbers, notices) = told(journal.subscribe(Some(2))).await;
        assert_eq!(notices, ["{\"expired\":{\"first\":3,\"last\":5}}\n"]);
        assert_eq!(numbers, [6, 7, 8, 9, 10]);
    }

    #[tokio::test]
    async fn after_the_state_is_lost_all_that_was_told_has_expired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let given = {
            let state = Checkpoints::open(&path, Bounds::DEFAULT).unwrap().state;
            state.turn().draw(7).unwrap() + 6
        };
        std::fs::remove_dir_all(&path).unwrap();
        let state = Arc::new(Checkpoints::open(&path, Bounds::DEFAULT).unwrap().state);
        let (numbers, notices) = told(Subscription::of_journal(&state, 3)).await;
        assert!(numbers.is_empty());
        assert!(notices[0].starts_with("{\"expired\":{\"first\":4,"), "{notices:?}");
        assert!(state.last_number() >= given);
    }
}
