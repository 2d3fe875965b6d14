//! Which databases of a server are mirrored: a listing now and, while following, again and again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};

use super::options::Databases;
use crate::client::couchdb::Client;
use crate::document::CollectionName;
use crate::source::outage::{Mention, Said};
use crate::source::{Mode, ServerProgress, SourceError, StoreEvent, retry};

/// A listing of a store's collections, under way.
pub(super) struct Listing {
    client: Client,
    databases: Databases,
    /// How often the server is asked for new databases.
    poll: Duration,
    progress: Arc<ServerProgress>,
    mode: Mode,
    ready: VecDeque<StoreEvent>,
    named: HashSet<CollectionName>,
    listed: bool,
    over: bool,
    /// How the databases could not be listed the last times, if so.
    unlisted: Option<Unlisted>,
    /// What the log has said of that.
    said: Said,
}

#[derive(Clone, Copy, Debug, Default)]
struct Unlisted {
    /// Whether the whole server did not answer.
    server_away: bool,
    /// Whether the log has said so.
    named: bool,
}

impl Listing {
    /// A listing that has not begun.
    pub fn new(
        client: Client,
        databases: Databases,
        poll: Duration,
        progress: Arc<ServerProgress>,
        mode: Mode,
    ) -> Self {
        Self {
            client,
            databases,
            poll,
            progress,
            mode,
            ready: VecDeque::new(),
            named: HashSet::new(),
            listed: false,
            over: false,
            unlisted: None,
            said: Said::default(),
        }
    }

    /// What the listing finds.
    pub fn events(self) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
        stream::unfold(self, |mut listing| async {
            listing.next().await.map(|event| (event, listing))
        })
        .boxed()
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Result<StoreEvent, SourceError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.look().await {
                self.over = true;
                return Some(Err(error));
            }
        }
    }

    /// Logs that the databases cannot be listed, unless the log has said that the server is away.
    fn say_unlisted(&mut self, error: &SourceError) {
        let mention = self.progress.mention(None, error, &mut self.said);
        let is_due = match mention {
            Some(mention) => matches!(mention, Mention::Reason(_)),
            None => self.said.is_due(&error.to_string()),
        };
        let unlisted = self.unlisted.get_or_insert_default();
        unlisted.server_away |= mention.is_some();
        unlisted.named |= is_due;
        let until = retry::until(self.poll, None);
        match is_due {
            true => tracing::warn!("the databases cannot be listed: {error}; {until}"),
            false => tracing::debug!("the databases cannot be listed: {error}; {until}"),
        }
    }

    /// Logs that the databases are listed again, if the log has said that they are not.
    fn say_listed(&mut self) {
        let Some(Unlisted { server_away, named }) = self.unlisted.take() else { return };
        self.said = Said::default();
        let ended = if server_away { self.progress.end_outage() } else { None };
        match (ended, named) {
            (Some(ended), _) => tracing::info!("{ended}"),
            (None, true) if !server_away => tracing::info!("the databases are listed again"),
            (None, _) => {}
        }
    }

    /// Finds collections that have not been named yet.
    async fn look(&mut self) -> Result<(), SourceError> {
        let first = !self.listed;
        if !first && self.mode == Mode::CatchUp {
            self.over = true;
            return Ok(());
        }
        // Names without globs need no listing, for which an admin is needed.
        let exact = match &self.databases {
            Databases::One(name) => Some(vec![name.clone()]),
            Databases::Selected(selection) => selection.exact(),
        };
        let found = match (exact, self.databases.clone()) {
            (Some(names), _) if first => names,
            (None, Databases::Selected(selection)) => {
                if !first {
                    tokio::time::sleep(self.poll).await;
                }
                let listed = match self.client.all_databases().await.map_err(SourceError::from) {
                    Err(error @ SourceError::Transient { .. })
                        if !first && !asks_for_more_than(&error, self.poll) =>
                    {
                        self.say_unlisted(&error);
                        return Ok(());
                    }
                    listed => listed?,
                };
                self.say_listed();
                if first {
                    let unmatched = selection.unmatched(&listed).into_iter();
                    self.ready.extend(unmatched.map(StoreEvent::Unmatched));
                }
                let selection = selection.among(&listed);
                listed.into_iter().filter(|name| selection.wants(name)).collect()
            }
            _ => std::future::pending().await,
        };
        for name in found {
            if self.named.insert(name.clone()) {
                self.ready.push_back(StoreEvent::Collection(name));
            }
        }
        if first {
            self.ready.push_back(StoreEvent::Listed(None));
            self.listed = true;
        }
        Ok(())
    }
}

/// Whether the source asks for a longer pause than this.
fn asks_for_more_than(error: &SourceError, pause: Duration) -> bool {
    matches!(error, SourceError::Transient { retry_after: Some(asked), .. } if *asked > pause)
}
