//! Following a database behind a proxy that holds back a continuous feed: by feeds that end when there is
//! a change.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::state::{CatchUp, Feed, State};
use crate::client::couchdb::FeedShape;
use crate::client::couchdb::rows::Shape;
use crate::source::SourceError;
use crate::source::couchdb::bound::Bound;
use crate::source::couchdb::reader::Reader;

/// How long the server waits for a change before it ends an answer that a proxy would hold back. Most
/// proxies wait for a minute.
const LONG: Duration = Duration::from_secs(20);

/// How often a server that does not end such an answer is asked.
const OFTEN: Duration = Duration::from_secs(2);

impl Feed {
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
