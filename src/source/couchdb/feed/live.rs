//! A live feed behind a proxy that holds it back, or that has less patience than the server's heartbeats
//! need: it is recognised by its silence, and read in another way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Bound, CatchUp, Feed, State};
use crate::client::couchdb::FeedShape;
use crate::client::couchdb::rows::Shape;
use crate::source::SourceError;
use crate::source::couchdb::reader::Reader;

/// How long the server waits for a change before it ends an answer that a proxy would hold back. Most
/// proxies wait for a minute.
const LONG: Duration = Duration::from_secs(20);

/// How often a server that does not end such an answer is asked.
const OFTEN: Duration = Duration::from_secs(2);

/// The shortest heartbeat that is requested.
const SHORTEST: Duration = Duration::from_secs(1);

/// What is known about the live feeds of a database.
#[derive(Debug, Default)]
pub(in crate::source::couchdb) struct Live {
    /// Whether what the server sends in a continuous feed does not arrive.
    held_back: AtomicBool,
    said: AtomicBool,
    /// The heartbeat that a proxy's patience needs, in milliseconds; 0 if that is not known.
    heartbeat: AtomicU64,
}

impl Live {
    pub fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// A continuous feed broke off after a silence, before it brought a heartbeat in its time.
    fn learn(&self, silent: Duration, usual: Duration) {
        let heartbeat = self.heartbeat(usual);
        if silent >= heartbeat * 2 {
            self.held_back.store(true, Ordering::Relaxed);
        } else if silent >= SHORTEST {
            let shorter = (silent.min(heartbeat) / 3).max(SHORTEST).as_millis();
            self.heartbeat.store(u64::try_from(shorter).unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// The heartbeat to request: this one, or a shorter one.
    pub fn heartbeat(&self, usual: Duration) -> Duration {
        match self.heartbeat.load(Ordering::Relaxed) {
            0 => usual,
            shorter => usual.min(Duration::from_millis(shorter)),
        }
    }
}

/// What a continuous feed has brought since it was opened.
#[derive(Debug)]
pub(super) struct Heard {
    /// Whether a heartbeat came in its time. CouchDB sends one at the beginning, which says nothing.
    beat: bool,
    opened: Instant,
    /// When something came last.
    last: Instant,
}

impl Default for Heard {
    fn default() -> Self {
        let now = Instant::now();
        Self { beat: false, opened: now, last: now }
    }
}

impl Heard {
    /// An empty line came.
    pub fn beat(&mut self) {
        self.last = Instant::now();
        self.beat |= self.opened.elapsed() > SHORTEST / 2;
    }

    /// A row came.
    pub fn row(&mut self) {
        self.last = Instant::now();
    }
}

impl Feed {
    /// Learns from the way in which a continuous feed broke off.
    pub(super) fn learn(&self, followed: Result<State, SourceError>) -> Result<State, SourceError> {
        let is_break = matches!(followed, Err(SourceError::Transient { retry_after: None, .. }));
        if is_break && !self.heard.beat {
            self.source.live.learn(self.heard.last.elapsed(), self.source.timings.heartbeat);
        }
        followed
    }

    /// Waits for changes in a feed that ends when there are some, so that a proxy passes it on.
    pub(super) async fn poll(&mut self) -> Result<State, SourceError> {
        let feed = match self.origin.counts() {
            // pouchdb-server ends no such feed without a change.
            true => {
                tokio::time::sleep(OFTEN).await;
                FeedShape::Normal { seq_interval: None }
            }
            false => FeedShape::Long { timeout: LONG },
        };
        self.bound = Bound::default();
        let token = self.token.clone();
        let body = self.ask_for(token.as_deref(), feed).await?;
        let reader = Reader::new(&self.source.database, body, Shape::Normal);
        let open = CatchUp { reader, recognise: None, poll: Some(false) };
        Ok(State::CatchingUp(Box::new(open)))
    }

    /// Such a feed has ended, as it does without a change too.
    pub(super) async fn polled(
        &mut self,
        open: &CatchUp,
        tail: &Bytes,
    ) -> Result<State, SourceError> {
        if !self.source.live.said.swap(true, Ordering::Relaxed) {
            let url = self.source.database.url();
            tracing::warn!(
                "{url}: a proxy holds back the live feed, so changes are asked for with long polling; \
                 to have them at once and with less traffic, turn off response buffering there \
                 (nginx: proxy_buffering off)"
            );
        }
        if open.poll == Some(true) {
            self.finish(&open.reader, tail)?;
        }
        self.check().await?;
        self.be_current();
        Ok(State::AtEnd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_without_patience_gets_more_heartbeats_and_one_that_holds_back_gets_none() {
        let (live, usual) = (Live::default(), Duration::from_secs(10));
        live.learn(Duration::from_millis(500), usual);
        assert_eq!(live.heartbeat(usual), usual, "it broke at once");
        live.learn(Duration::from_secs(12), usual);
        assert_eq!(live.heartbeat(usual), Duration::from_millis(3333));
        live.learn(Duration::from_secs(5), usual);
        assert_eq!(live.heartbeat(usual), Duration::from_millis(1111));
        assert!(!live.is_held_back());
        live.learn(Duration::from_secs(3), usual);
        assert!(live.is_held_back());
    }
}
