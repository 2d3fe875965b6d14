//! The pace of requests to one server: as fast as possible until it refuses, then as fast as it allows.
//!
//! A server that limits requests answers 429 or 503, perhaps with `Retry-After`. So does one that
//! fails for a single document. The difference shows in another request. So a refusal is followed
//! by a probe, and only a refused probe slows down the server's other requests.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::limit::{Limit, Probed, Verdict};

/// The pace of one server's requests.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// Whether the server limits requests; while it does not, requests pass without a lock.
    limited: AtomicBool,
    state: Arc<Mutex<Limit>>,
    /// Requests wait in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    changed: Arc<Notify>,
    /// Whether answers are to be noted: the server limits requests, or has refused some.
    watching: AtomicBool,
    served: AtomicU64,
}

/// A request on its way to the beginning of its answer.
#[derive(Debug)]
pub(super) struct Ticket {
    began: Instant,
    /// The request's number, if the server limits requests.
    number: Option<(u64, Arc<Mutex<Limit>>, Arc<Notify>)>,
}

impl Ticket {
    fn free(now: Instant) -> Self {
        Self { began: now, number: None }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some((number, state, changed)) = self.number.take() {
            lock(&state).waiting.retain(|(one, _)| *one != number);
            changed.notify_one();
        }
    }
}

/// A probe that is to be sent.
pub(super) struct Probing<'a>(&'a Mutex<Limit>);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        lock(self.0).probing = false;
    }
}

fn lock(state: &Mutex<Limit>) -> MutexGuard<'_, Limit> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

impl Pacer {
    /// Waits until a request may be sent.
    pub async fn admit(&self) -> Ticket {
        if !self.limited.load(Ordering::Relaxed) {
            return Ticket::free(Instant::now());
        }
        let _turn = self.turn.lock().await;
        loop {
            let now = Instant::now();
            let wait = match lock(&self.state).enter(now) {
                Ok(None) => return Ticket::free(now),
                Ok(Some(number)) => {
                    let (state, changed) = (Arc::clone(&self.state), Arc::clone(&self.changed));
                    return Ticket { began: now, number: Some((number, state, changed)) };
                }
                Err(until) => until,
            };
            tokio::select! {
                () = tokio::time::sleep_until(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// A request was answered, whatever the answer was.
    pub fn served(&self, ticket: Ticket, path: &str) {
        drop(ticket);
        self.served.fetch_add(1, Ordering::Relaxed);
        if !self.watching.load(Ordering::Relaxed) {
            return;
        }
        let mut state = lock(&self.state);
        state.served(hash(path));
        if state.interval.is_zero() {
            self.limited.store(false, Ordering::Relaxed);
            self.watching.store(!state.refused.is_empty(), Ordering::Relaxed);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A request was refused with 429 or 503.
    pub fn refused(&self, ticket: Ticket, path: &str) -> Verdict {
        let began = ticket.began;
        drop(ticket);
        let served = self.served.load(Ordering::Relaxed);
        self.watching.store(true, Ordering::Relaxed);
        lock(&self.state).refused(hash(path), began, served)
    }

    /// The right to send the probe that [`Pacer::refused`] wants. If it is never sent, another one may be.
    pub fn probing(&self) -> Probing<'_> {
        Probing(&self.state)
    }

    /// A probe that [`Pacer::refused`] wanted has ended. `asked` is the pause that the first refusal
    /// asked for.
    pub fn probed(&self, probed: Probed, asked: Option<Duration>, most: Duration) -> Verdict {
        let mut state = lock(&self.state);
        let verdict = state.probed(probed, asked, most, Instant::now());
        self.limited.store(!state.interval.is_zero(), Ordering::Relaxed);
        drop(state);
        self.changed.notify_one();
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::couchdb::limit::{FIRST_INTERVAL, LONGEST_ASKED, ROOM, STALLED};

    #[tokio::test]
    async fn a_probe_that_is_given_up_is_followed_by_another_one() {
        let pacer = Pacer::default();
        assert_eq!(pacer.refused(pacer.admit().await, "/a"), Verdict::Probe);
        let probing = pacer.probing();
        assert_eq!(pacer.refused(pacer.admit().await, "/b"), Verdict::Own);
        drop(probing);
        assert_eq!(pacer.refused(pacer.admit().await, "/c"), Verdict::Probe);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_a_limited_servers_pause_and_then_go_one_by_one() {
        let (pacer, begun) = (Pacer::default(), Instant::now());
        assert_eq!(pacer.refused(pacer.admit().await, "/a"), Verdict::Probe);
        let probed =
            pacer.probed(Probed::Refused(Some(Duration::from_secs(7))), None, LONGEST_ASKED);
        assert_eq!(probed, Verdict::Limited);
        let first = pacer.admit().await;
        assert_eq!(begun.elapsed().as_secs(), 7);
        let (_second, since) = (pacer.admit().await, Instant::now());
        assert!(since >= first.began + FIRST_INTERVAL);
        // Neither is answered: the next one waits until the first is taken to hang.
        let mut held = vec![first];
        while held.len() < ROOM.1 && begun.elapsed() < Duration::from_secs(7) + STALLED {
            held.push(pacer.admit().await);
        }
        assert!(
            held.len() < ROOM.1 && begun.elapsed() >= Duration::from_secs(7) + STALLED,
            "{held:?}"
        );
    }
}
