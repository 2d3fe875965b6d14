//! The brake on mass deletion: it counts the deletions in a period, and says when there are too
//! many.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::document::DeletionLimit;
use crate::tree::MirrorError;

/// While following, the count of deletions starts over after this time.
const WINDOW: Duration = Duration::from_secs(60 * 60);

/// The brake of one collection.
#[derive(Debug)]
pub struct Brake {
    limit: Option<DeletionLimit>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whether everything is held back until it is released.
    engaged: bool,
    /// The number of deletions held back, as the state records it.
    held: u64,
    /// Whether this is the first catch-up, which deletes only what it brought.
    first: bool,
    caught_up: bool,
    since: Instant,
    /// Deletions that were let through in this period, less the documents that were added: adding
    /// and deleting in balance is not mass deletion.
    deletions: u64,
    /// All of those deletions that the tree shows, and all documents that were added.
    settled: u64,
    added: u64,
    /// The number of documents in the collection at the start of the period, if it was needed.
    documents: Option<u64>,
}

impl Brake {
    /// A brake that has counted nothing yet, with `held` deletions held back by earlier runs.
    pub fn new(limit: Option<DeletionLimit>, held: u64, first: bool) -> Self {
        let state = State {
            engaged: held > 0,
            held,
            first,
            caught_up: false,
            since: Instant::now(),
            deletions: 0,
            settled: 0,
            added: 0,
            documents: None,
        };
        Self { limit, state: Mutex::new(state) }
    }

    /// Whether `more` deletions are to be held back. `documents` counts the documents in the tree,
    /// and is only called if it matters.
    pub fn holds(
        &self,
        more: u64,
        documents: impl FnOnce() -> Result<u64, MirrorError>,
    ) -> Result<bool, MirrorError> {
        let Some(limit) = self.limit else { return Ok(false) };
        let mut state = self.state();
        if state.engaged || state.first {
            return Ok(state.engaged);
        }
        if state.caught_up && state.since.elapsed() >= WINDOW {
            state.count_anew();
        }
        let deletions = state.deletions + more;
        if deletions > limit.documents {
            let counted = match state.documents {
                Some(counted) => counted,
                None => documents()? + state.settled.saturating_sub(state.added),
            };
            state.documents = Some(counted);
            state.engaged = is_exceeded(limit, deletions, counted);
        }
        if !state.engaged {
            state.deletions = deletions;
        }
        Ok(state.engaged)
    }

    /// A new document is added to the tree.
    pub fn adds(&self) {
        let mut state = self.state();
        state.added += 1;
        state.deletions = state.deletions.saturating_sub(1);
        // Counted again when it matters next.
        state.documents = None;
    }

    /// The tree shows this many further deletions.
    pub fn settled(&self, deletions: u64) {
        self.state().settled += deletions;
    }

    /// Adds `more`, which may be negative, to the number of deletions held back. Returns that number,
    /// and whether these are the first.
    pub fn note_held(&self, more: i64) -> (u64, bool) {
        let mut state = self.state();
        let before = state.held;
        state.held = before.saturating_add_signed(more);
        state.engaged |= state.held > 0;
        if state.held == 0 && before > 0 {
            state.engaged = false;
            state.count_anew();
        }
        (state.held, before == 0 && state.held > 0)
    }

    /// The number of deletions held back.
    pub fn held(&self) -> u64 {
        self.state().held
    }

    /// Whether deletions are held back although the brake is switched off.
    pub fn is_obsolete(&self) -> bool {
        self.limit.is_none() && self.held() > 0
    }

    /// The end of the source was reached.
    pub fn caught_up(&self) {
        let mut state = self.state();
        state.first = false;
        state.caught_up = true;
    }

    /// Starts a new count of deletions.
    pub fn release(&self) {
        let mut state = self.state();
        state.engaged = false;
        state.count_anew();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_exceeded(limit: DeletionLimit, deletions: u64, documents: u64) -> bool {
    let share = u128::from(deletions) * 100 > u128::from(limit.percent) * u128::from(documents);
    deletions > limit.documents && share
}

impl State {
    fn count_anew(&mut self) {
        self.since = Instant::now();
        self.deletions = 0;
        self.settled = 0;
        self.added = 0;
        self.documents = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brake(held: u64, first: bool) -> Brake {
        Brake::new(Some(DeletionLimit { percent: 30, documents: 5 }), held, first)
    }

    #[test]
    fn only_more_than_both_limits_is_held_back() {
        let few = brake(0, false);
        assert!((0..5).all(|_| !few.holds(1, || panic!("not needed")).unwrap()));
        assert!(few.holds(1, || Ok(19)).unwrap(), "6 of 19 are more than 30 percent");
        let many = brake(0, false);
        assert!(!many.holds(6, || Ok(20)).unwrap(), "6 of 20 are not");
        assert!(many.holds(1, || panic!("counted already")).unwrap());
    }

    #[test]
    fn what_a_follower_deletes_bit_by_bit_adds_up() {
        let brake = brake(0, false);
        brake.caught_up();
        assert!((0..5).all(|_| !brake.holds(1, || Ok(10)).unwrap()));
        assert!(brake.holds(1, || Ok(10)).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_hour_of_following_the_count_starts_over_and_a_catch_up_counts_on() {
        let brake = brake(0, false);
        assert!(!brake.holds(4, || Ok(10)).unwrap());
        tokio::time::advance(WINDOW * 2).await;
        assert!(!brake.holds(1, || Ok(10)).unwrap());
        brake.caught_up();
        tokio::time::advance(WINDOW).await;
        assert!(!brake.holds(5, || Ok(10)).unwrap(), "the hours of the catch-up are over");
        tokio::time::advance(WINDOW - Duration::from_millis(1)).await;
        assert!(brake.holds(1, || Ok(10)).unwrap(), "6 of 10 within an hour");
        tokio::time::advance(WINDOW * 24).await;
        assert!(brake.holds(1, || Ok(1_000)).unwrap(), "time alone releases nothing");
    }

    #[test]
    fn what_is_held_back_by_an_earlier_run_holds_back_more_until_it_is_released() {
        let brake = brake(3, false);
        assert!(brake.holds(1, || Ok(1_000)).unwrap());
        brake.release();
        assert!(!brake.holds(1, || Ok(1_000)).unwrap());
    }

    #[test]
    fn what_comes_back_to_life_to_the_last_lets_the_brake_go() {
        let brake = brake(2, false);
        assert_eq!(brake.note_held(-2), (0, false));
        assert!(!brake.holds(1, || Ok(1_000)).unwrap());
        assert_eq!(brake.note_held(4), (4, true));
    }

    #[test]
    fn what_comes_and_goes_is_no_mass_deletion() {
        let brake = brake(0, false);
        for _ in 0..1_000 {
            assert!(!brake.holds(3, || Ok(10)).unwrap());
            (0..3).for_each(|_| brake.adds());
        }
        assert!(brake.holds(6, || Ok(10)).unwrap());
    }

    #[test]
    fn the_first_catch_up_deletes_what_it_brought_itself() {
        let brake = brake(0, true);
        assert!(!brake.holds(1_000, || Ok(1_000)).unwrap());
        brake.caught_up();
        assert!(brake.holds(1_000, || Ok(1_000)).unwrap());
    }

    #[test]
    fn what_is_committed_meanwhile_changes_no_count() {
        let brake = brake(0, false);
        assert!(!brake.holds(5, || Ok(10)).unwrap());
        assert_eq!(brake.note_held(0), (0, false));
        assert!(brake.holds(1, || Ok(10)).unwrap());
    }

    #[test]
    fn a_share_is_one_of_the_documents_that_were_there_when_counting_began() {
        let brake = brake(0, false);
        brake.settled(8);
        (0..3).for_each(|_| brake.adds());
        assert!(brake.holds(7, || Ok(17)).unwrap(), "7 of 22: 8 have gone since, and 3 have come");
    }

    #[test]
    fn what_has_gone_since_was_there_when_counting_began() {
        let brake = brake(0, false);
        brake.settled(8);
        assert!(!brake.holds(7, || Ok(16)).unwrap(), "7 of 24 are not more than 30 percent");
    }

    #[test]
    fn only_what_is_held_back_without_a_limit_is_obsolete() {
        assert!(Brake::new(None, 3, false).is_obsolete());
        assert!(!Brake::new(None, 0, false).is_obsolete());
        assert!(!brake(3, false).is_obsolete());
    }
}
