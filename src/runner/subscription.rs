//! Write events without a gap: first those in the journal, then the live ones, and the journal again
//! whenever the subscriber was too slow.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoints, JournalRecord, StateError};
use crate::event::{Broadcast, Emitted};

/// The number of events that are read from the journal at a time.
const PAGE: usize = 500;

/// A message for a subscriber.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A document was written or removed.
    Event(Arc<Emitted>),
    /// The subscriber was so slow that it missed this many events; they follow from the journal.
    Lagged(u64),
    /// The journal no longer holds these events (first and last number).
    Expired(u64, u64),
}

impl Notice {
    /// The notice as one line of JSON, with its newline, and without characters that control a
    /// terminal.
    pub fn line(&self) -> Bytes {
        match self {
            Self::Event(event) => event.line().clone(),
            Self::Lagged(count) => format!("{{\"lagged\":{count}}}\n").into(),
            Self::Expired(first, last) => {
                format!("{{\"expired\":{{\"first\":{first},\"last\":{last}}}}}\n").into()
            }
        }
    }
}

/// Events that follow on one another in the journal, with their numbers.
#[derive(Debug, Default)]
struct Page {
    /// The number after which it was read: it lacks nothing between this and its end.
    since: u64,
    notices: Vec<(u64, Notice)>,
}

impl Page {
    /// Reads events after number `since`, up to the last one that is durable: the journal shows those
    /// of a commit before their flush. A record that cannot be read, or that contains another number,
    /// is not an event.
    async fn read(checkpoints: &Arc<Checkpoints>, since: u64) -> Result<Self, StateError> {
        let checkpoints = Arc::clone(checkpoints);
        let read = move || -> Result<_, StateError> {
            let notice = |JournalRecord { number, text }| match Emitted::read(&text) {
                Ok(event) if event.event == number => (number, Notice::Event(Arc::new(event))),
                _ => (number, Notice::Expired(number, number)),
            };
            let durable = checkpoints.last_number();
            let mut records = checkpoints.journal_after(since, PAGE)?;
            records.retain(|record| record.number <= durable);
            Ok(Self { since, notices: records.into_iter().map(notice).collect() })
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(page) => page,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Whether it holds what follows number `last`.
    fn continues(&self, last: u64) -> bool {
        self.since <= last && self.notices.last().is_some_and(|(end, _)| *end > last)
    }
}

/// The page that was read last, which subscribers share as long as one of them needs it. Only one
/// page is read at a time: many slow subscribers must not take the threads and the processors from
/// the mirror.
#[derive(Debug, Default)]
pub struct Pages(Mutex<Weak<Page>>);

impl Pages {
    /// Some events after number `last`, or an empty page.
    async fn after(
        self: &Arc<Self>,
        checkpoints: &Arc<Checkpoints>,
        last: u64,
    ) -> Result<Arc<Page>, StateError> {
        let (pages, checkpoints) = (Arc::clone(self), Arc::clone(checkpoints));
        // In a task of its own: a subscriber whose reader is slow is not polled, and would keep the lock.
        let turned = tokio::spawn(async move {
            let mut newest = pages.0.lock().await;
            if let Some(page) = newest.upgrade().filter(|page| page.continues(last)) {
                return Ok(page);
            }
            let page = Arc::new(Page::read(&checkpoints, last).await?);
            *newest = Arc::downgrade(&page);
            Ok(page)
        });
        match turned.await.map_err(JoinError::try_into_panic) {
            Ok(page) => page,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends, and all its tasks.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

/// A subscriber's place among the events.
#[derive(Debug)]
pub struct Subscription {
    checkpoints: Arc<Checkpoints>,
    receiver: broadcast::Receiver<Arc<Emitted>>,
    /// The number of the last event that was delivered, or that is not wanted.
    last: u64,
    /// The page of the journal that is being delivered, from this notice on.
    page: Arc<Page>,
    turned: usize,
    pages: Arc<Pages>,
    /// Whether the journal may hold events that were not delivered.
    behind: bool,
    ended: CancellationToken,
}

impl Subscription {
    /// All events in a mirror's journal after number `since`, without live ones.
    pub fn of_journal(checkpoints: &Arc<Checkpoints>, since: u64) -> Self {
        let ended = CancellationToken::new();
        ended.cancel();
        Self::new(checkpoints, &Broadcast::new(), &Arc::default(), Some(since), ended)
    }

    pub(super) fn new(
        checkpoints: &Arc<Checkpoints>,
        events: &Broadcast,
        pages: &Arc<Pages>,
        since: Option<u64>,
        ended: CancellationToken,
    ) -> Self {
        // The channel first, then the position: every event after it is in the channel.
        let receiver = events.subscribe();
        let newest = checkpoints.last_number();
        // A number that no event has had is of another journal: all of this one is new, and what it no longer
        // holds has expired.
        let since = since.map(|since| if since > newest { 0 } else { since });
        Self {
            checkpoints: Arc::clone(checkpoints),
            receiver,
            last: since.unwrap_or(newest),
            page: Arc::default(),
            turned: 0,
            pages: Arc::clone(pages),
            behind: since.is_some(),
            ended,
        }
    }

    /// The next notice; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Notice>, StateError> {
        loop {
            if let Some((number, notice)) = self.page.notices.get(self.turned) {
                self.turned += 1;
                self.last = *number;
                return Ok(Some(notice.clone()));
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
                // A commit was made whose events could not be emitted, because the disk failed.
                Ok(event) if event.event > self.last + 1 => self.behind = true,
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
        // Everything before this is in the journal.
        self.receiver = self.receiver.resubscribe();
        self.page = Arc::default();
        let page = self.pages.after(&self.checkpoints, self.last).await?;
        self.turned = page.notices.partition_point(|(number, _)| *number <= self.last);
        let first = page.notices.get(self.turned).map(|(number, _)| *number);
        self.behind = first.is_some();
        self.page = page;
        let expected = self.last + 1;
        // Without a page, all delivered events have left the journal, or were lost with it.
        self.last = self.last.max(first.map_or(newest, |first| first - 1));
        Ok((self.last >= expected).then_some(Notice::Expired(expected, self.last)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checkpoint::{Bounds, Checkpoint, Commit, NewEvents, Numbered};
    use crate::event::WriteEvent;

    struct Journal {
        _dir: tempfile::TempDir,
        checkpoints: Arc<Checkpoints>,
        channel: Broadcast,
        pages: Arc<Pages>,
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
                pages: Arc::default(),
                ended: CancellationToken::new(),
            }
        }

        fn subscribe(&self, since: Option<u64>) -> Subscription {
            let ended = self.ended.clone();
            Subscription::new(&self.checkpoints, &self.channel, &self.pages, since, ended)
        }

        /// Commits and broadcasts events as a pipeline does.
        fn write(&self, count: usize) {
            let channel = self.channel.clone();
            commit(&self.checkpoints, count, move |event| channel.send(event));
        }
    }

    fn commit(
        checkpoints: &Checkpoints,
        count: usize,
        emit: impl Fn(Arc<Emitted>) + Send + 'static,
    ) {
        let events = NewEvents::new(count, move |first| {
            let events = (first..first + count as u64).map(|number| Arc::new(event(number)));
            let events: Vec<Arc<Emitted>> = events.collect();
            let record = |one: &Arc<Emitted>| JournalRecord { number: one.event, text: one.text() };
            let records = events.iter().map(record).collect();
            Numbered { records, emit: Box::new(move || events.into_iter().for_each(emit)) }
        });
        let nothing = Commit::new(Checkpoint::default());
        checkpoints.commit_with(&"books".into(), &nothing, events).unwrap();
    }

    fn event(number: u64) -> Emitted {
        Emitted::new(WriteEvent {
            event: number,
            collection: "books".into(),
            document: format!("d{number}").as_str().into(),
            files: Vec::new(),
            deleted: false,
            revision: "1-x".into(),
            position: None,
            at: jiff::Timestamp::UNIX_EPOCH,
        })
    }

    /// The notices of a subscription until its end, shortened: numbers of events, and notices.
    async fn told(mut subscription: Subscription) -> (Vec<u64>, Vec<String>) {
        let (mut numbers, mut notices) = (Vec::new(), Vec::new());
        while let Some(notice) = subscription.next().await.unwrap() {
            match &notice {
                Notice::Event(event) => numbers.push(event.event),
                other => notices.push(String::from_utf8(other.line().to_vec()).unwrap()),
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
    async fn events_that_were_not_emitted_come_from_the_journal() {
        let journal = Journal::new(Bounds::DEFAULT);
        let subscription = journal.subscribe(None);
        journal.write(2);
        commit(&journal.checkpoints, 3, drop);
        journal.write(2);
        journal.ended.cancel();
        let (numbers, notices) = told(subscription).await;
        assert_eq!((numbers, notices.len()), (vec![1, 2, 3, 4, 5, 6, 7], 0));
    }

    #[tokio::test]
    async fn a_stuck_subscriber_is_told_what_it_missed_and_those_that_follow_share_a_page() {
        let journal = Journal::new(Bounds::DEFAULT);
        let stuck = journal.subscribe(None);
        let mut slow: Vec<_> = (0..100).map(|_| journal.subscribe(Some(0))).collect();
        let count = 3 * Broadcast::CAPACITY;
        journal.write(count);
        // Each turns its first page.
        for one in &mut slow {
            assert!(matches!(one.next().await, Ok(Some(Notice::Event(event))) if event.event == 1));
        }
        assert!(slow.iter().all(|one| Arc::ptr_eq(&one.page, &slow[0].page)));
        journal.ended.cancel();
        for one in slow {
            let (numbers, notices) = told(one).await;
            assert!(numbers.into_iter().eq(2..=count as u64) && notices.is_empty());
        }
        let (numbers, notices) = told(stuck).await;
        assert_eq!(notices, [format!("{{\"lagged\":{}}}\n", 2 * Broadcast::CAPACITY)]);
        assert!(numbers.into_iter().eq(1..=count as u64));
    }

    #[tokio::test]
    async fn a_subscriber_that_is_not_polled_any_more_holds_up_no_other() {
        let journal = Journal::new(Bounds::DEFAULT);
        journal.write(10);
        let [mut reading, mut waiting, mut other] =
            [0, 3, 0].map(|last| journal.subscribe(Some(last)));
        let mut stuck = [Box::pin(reading.next()), Box::pin(waiting.next())];
        for one in &mut stuck {
            assert!(futures_util::poll!(one).is_pending(), "it is stuck in the middle of a page");
        }
        let next = tokio::time::timeout(Duration::from_secs(10), other.next());
        let next = next.await.expect("the others do not wait for it");
        assert!(matches!(next, Ok(Some(Notice::Event(event))) if event.event == 1));
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
    async fn a_number_that_no_event_has_had_is_of_another_journal_and_all_of_this_one_comes() {
        let journal = Journal::new(Bounds::DEFAULT);
        let empty = journal.subscribe(Some(u64::MAX));
        journal.write(3);
        let beyond = [4, u64::MAX - 1, u64::MAX].map(|since| journal.subscribe(Some(since)));
        let last = journal.subscribe(Some(3));
        journal.write(1);
        journal.ended.cancel();
        for one in beyond.into_iter().chain([empty]) {
            assert_eq!(told(one).await, (vec![1, 2, 3, 4], vec![]));
        }
        assert_eq!(told(last).await, (vec![4], vec![]), "the last one has been");
        let journal = Journal::new(Bounds { events: 5, ..Bounds::DEFAULT });
        (0..10).for_each(|_| journal.write(1));
        journal.ended.cancel();
        let (numbers, notices) = told(journal.subscribe(Some(11))).await;
        assert_eq!(notices, ["{\"expired\":{\"first\":1,\"last\":5}}\n"]);
        assert_eq!(numbers, [6, 7, 8, 9, 10]);
    }

    #[tokio::test]
    async fn after_the_state_is_lost_all_that_was_told_has_expired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let given = {
            let state = Checkpoints::open(&path, Bounds::DEFAULT).unwrap().state;
            commit(&state, 7, drop);
            state.last_number()
        };
        std::fs::remove_dir_all(&path).unwrap();
        let state = Arc::new(Checkpoints::open(&path, Bounds::DEFAULT).unwrap().state);
        let (numbers, notices) = told(Subscription::of_journal(&state, 3)).await;
        assert!(numbers.is_empty());
        assert!(notices[0].starts_with("{\"expired\":{\"first\":4,"), "{notices:?}");
        assert!(state.last_number() >= given);
    }
}
