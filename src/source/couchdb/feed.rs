//! The change feed of one database as a state machine: read to the end, then followed.
//!
//! [`Feed`] is one reading of it. What it has in common with later readings is in [`KnownDatabase`].

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};

use self::state::{Feed, State};
use super::origin::{Recent, is_number};
use crate::source::{FeedEvent, Mode, Since, SourceError};

mod apart;
mod broken;
mod catch_up;
mod delivery;
mod following;
mod known;
mod live;
mod opening;
mod polling;
mod state;

pub(super) use self::known::KnownDatabase;

/// Opens the feed of a database.
pub(super) fn events(
    source: Arc<KnownDatabase>,
    since: Since,
    mode: Mode,
) -> BoxStream<'static, Result<FeedEvent, SourceError>> {
    let feed = Feed::new(source, since, mode);
    stream::unfold(feed, |mut feed| async { feed.next().await.map(|event| (event, feed)) }).boxed()
}

impl Feed {
    async fn next(&mut self) -> Option<Result<FeedEvent, SourceError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            // An error leaves the state as it is now: over.
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return None,
                state => match self.step(state).await {
                    Ok(state) => self.state = state,
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }

    async fn step(&mut self, state: State) -> Result<State, SourceError> {
        match state {
            State::Opening(Since::Start) => self.read_all().await,
            State::Opening(Since::Scan(reason)) => {
                self.scan = true;
                self.ready.push_back(FeedEvent::ScanStarted { reason });
                self.read_all().await
            }
            State::Opening(Since::Position(position)) => {
                self.token = Some(position.token().into());
                self.last = position.anchor().cloned();
                self.recent = Recent::at(&position);
                if is_number(position.token()) {
                    self.resume_counting(position).await
                } else {
                    self.resume(position).await
                }
            }
            State::CatchingUp(open) => match self.catch_up(open).await {
                Err(error) if self.may_continue(&error) => self.continue_scan(error).await,
                caught_up => caught_up,
            },
            State::AtEnd if self.source.live.is_held_back() => self.poll().await,
            State::AtEnd => {
                let followed = self.follow().await;
                self.learn(followed)
            }
            State::Following(reader) => {
                let followed = self.go_on(reader).await;
                self.learn(followed)
            }
            State::Over => Ok(State::Over),
        }
    }
}
