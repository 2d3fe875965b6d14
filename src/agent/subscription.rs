//! Write events without a gap: first those that the journal holds, then the live ones, and the
//! journal again whenever the subscriber was too slow.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoints, StateError};
use crate::event::{Broadcast, WriteEvent};

/// So many events are read from the journal at a time.
const PAGE: usize = 500;

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A document was written, or removed.
    Event(Arc<WriteEvent>),
    /// The subscriber was so slow that this many events passed it by; they follow from the journal.
    Lagged(u64),
    /// The journal does not hold these events any more (first and last number).
    Expired(u64, u64),
}

impl Notice {
    /// The notice as one line of JSON, with its newline.
    pub fn line(&self) -> String {
        let mut line = match self {
            // Strings, numbers and raw JSON can always be written.
            Self::Event(event) => serde_json::to_string(event).unwrap_or_default(),
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
    /// The number of the last event that was told, or that is not wanted.
    last: u64,
    page: VecDeque<Arc<WriteEvent>>,
    /// Whether the journal may hold events that were not told.
    behind: bool,
    ended: CancellationToken,
}

impl Subscription {
    /// All that the journal of a mirror holds after number `since`, and nothing live.
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
        // The place first, then the channel: what comes between is in both, and told once.
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

    /// The next notice; `None` when no more will come.
    pub async fn next(&mut self) -> Result<Option<Notice>, StateError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.last = event.event;
                return Ok(Some(Notice::Event(event)));
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

    /// Reads on in the journal. Answers a gap, where what follows is not there any more.
    async fn turn_page(&mut self) -> Result<Option<Notice>, StateError> {
        let newest = self.checkpoints.last_number();
        let (page, first) = read_page(&self.checkpoints, self.last).await?;
        self.behind = !page.is_empty();
        self.page = page;
        let expected = self.last + 1;
        // Without a page, all that was ever told has left the journal, or was lost with it.
        self.last = self.last.max(first.map_or(newest, |first| first - 1));
        Ok((self.last >= expected).then_some(Notice::Expired(expected, self.last)))
    }
}

/// Reads the events after number `last` from the journal: some of them, and the number of the first.
async fn read_page(
    checkpoints: &Arc<Checkpoints>,
    last: u64,
) -> Result<(VecDeque<Arc<WriteEvent>>, Option<u64>), StateError> {
    let checkpoints = Arc::clone(checkpoints);
    let read = move || checkpoints.journal_after(last, PAGE);
    let records = match tokio::task::spawn_blocking(read).await {
        Ok(records) => records?,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let first = records.first().map(|record| record.number);
    let parse = |text: &str| serde_json::from_str::<WriteEvent>(text).ok().map(Arc::new);
    Ok((records.iter().filter_map(|record| parse(&record.text)).collect(), first))
}
