//! Which collections run. A seat is cheap and permanent: each collection has one. A run is dear, so
//! there is room for a limited number: first those with news, then the others in turn, and those
//! that have caught up as long as no other collection wants their place.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::document::CollectionName;

/// A collection that sleeps is visited after this time without news: no news reports a changed
/// security object, nor a change that the server has not announced.
pub(super) const VISIT: Duration = Duration::from_secs(3600);

/// A run keeps its place for at least this time after it has nothing to do: what it fetches beside its
/// feed may still come.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// Gives places to seats.
#[derive(Debug)]
pub(super) struct Scheduler {
    /// How many may run.
    room: usize,
    seats: BTreeMap<CollectionName, Seat>,
    running: usize,
    /// Rises with each wish and each rest, so that they have an order.
    clock: u64,
    /// When the next run may be stopped for those that want a place.
    next_stop: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Seat {
    /// It wants a run since this moment.
    Wants {
        news: bool,
        since: u64,
    },
    Runs(Run),
    /// Its run ended, and its checkpoint is committed.
    Sleeps {
        visit: Instant,
    },
    /// It has failed: somebody else decides when it wants a run again, whatever is new.
    Rests,
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// Since when it has had nothing to do.
    idle: Option<Idle>,
    /// Whether it was told to end.
    stopping: bool,
    /// Whether there were news since it began.
    news: bool,
}

#[derive(Clone, Copy, Debug)]
struct Idle {
    since: u64,
    /// It keeps its place until then.
    until: Instant,
}

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Start a run.
    Start(CollectionName),
    /// Tell a run to end, because others want its place.
    Stop(CollectionName),
}

impl Scheduler {
    /// A scheduler for at most this many runs.
    pub fn new(room: usize) -> Self {
        Self { room: room.max(1), seats: BTreeMap::new(), running: 0, clock: 0, next_stop: None }
    }

    /// A collection that has no seat, or that rests, wants a run.
    pub fn want(&mut self, name: &CollectionName) {
        if matches!(self.seats.get(name), None | Some(Seat::Rests)) {
            let since = self.tick();
            self.seats.insert(name.clone(), Seat::Wants { news: false, since });
        }
    }

    /// Something has changed in a collection.
    pub fn news(&mut self, name: &CollectionName) {
        let now = self.tick();
        match self.seats.get_mut(name) {
            Some(Seat::Runs(run)) => {
                run.news = true;
                run.idle = run.idle.map(|idle| Idle { since: now, ..idle });
            }
            Some(Seat::Wants { news, .. }) => *news = true,
            Some(seat @ Seat::Sleeps { .. }) => *seat = Seat::Wants { news: true, since: now },
            Some(Seat::Rests) | None => {}
        }
    }

    /// A run has nothing to do: it has reached the end of its feed, or waits for its source. It keeps its
    /// place until then, or until a moment that was named before while it was idle.
    pub fn idle(&mut self, name: &CollectionName, until: Instant) {
        let since = self.tick();
        if let Some(Seat::Runs(run)) = self.seats.get_mut(name) {
            let until = run.idle.map_or(until, |idle| idle.until.min(until));
            run.idle = Some(Idle { since, until });
        }
    }

    /// A run has something to do again, and keeps its place until it is done.
    pub fn busy(&mut self, name: &CollectionName) {
        if let Some(Seat::Runs(run)) = self.seats.get_mut(name) {
            run.idle = None;
        }
    }

    /// A run ended by itself or was stopped, and nothing is wrong. It is visited then.
    pub fn sleep(&mut self, name: &CollectionName, visit: Instant) {
        let since = self.tick();
        let next = match self.end(name) {
            Some(Run { news: true, .. }) => Seat::Wants { news: true, since },
            _ => Seat::Sleeps { visit },
        };
        self.seats.insert(name.clone(), next);
    }

    /// A run ended, and the collection does not want another one for now.
    pub fn rest(&mut self, name: &CollectionName) {
        self.end(name);
        self.seats.insert(name.clone(), Seat::Rests);
    }

    /// A collection has no seat any more.
    pub fn remove(&mut self, name: &CollectionName) {
        self.end(name);
        self.seats.remove(name);
    }

    /// Whether a collection sleeps.
    pub fn sleeps(&self, name: &CollectionName) -> bool {
        matches!(self.seats.get(name), Some(Seat::Sleeps { .. }))
    }

    /// Whether any collection has no run although nothing is wrong with it.
    pub fn is_crowded(&self) -> bool {
        self.seats.len() > self.room
    }

    /// What is to be done now. The caller does all of it.
    pub fn moves(&mut self, now: Instant) -> Vec<Move> {
        for seat in self.seats.values_mut() {
            if let Seat::Sleeps { visit } = seat
                && *visit <= now
            {
                self.clock += 1;
                *seat = Seat::Wants { news: false, since: self.clock };
            }
        }
        if !self.seats.values().any(|seat| matches!(seat, Seat::Wants { .. })) {
            self.next_stop = None;
            return Vec::new();
        }
        let mut wishes: Vec<(bool, u64, CollectionName)> = Vec::new();
        let mut idle: Vec<(u64, CollectionName)> = Vec::new();
        let mut lingering: Option<Instant> = None;
        let mut stopping = 0;
        for (name, seat) in &self.seats {
            match seat {
                Seat::Wants { news, since } => wishes.push((!news, *since, name.clone())),
                Seat::Runs(Run { stopping: true, .. }) => stopping += 1,
                Seat::Runs(Run { idle: Some(Idle { since, until }), .. }) if *until <= now => {
                    idle.push((*since, name.clone()));
                }
                Seat::Runs(Run { idle: Some(Idle { until, .. }), .. }) => {
                    lingering = Some(lingering.map_or(*until, |one| one.min(*until)));
                }
                Seat::Runs(_) | Seat::Sleeps { .. } | Seat::Rests => {}
            }
        }
        wishes.sort();
        idle.sort();
        let free = self.room.saturating_sub(self.running);
        let left = wishes.len().saturating_sub(free + stopping);
        self.next_stop = lingering.filter(|_| left > idle.len());
        let mut moves = Vec::new();
        for (.., name) in wishes.into_iter().take(free) {
            self.running += 1;
            self.seats.insert(name.clone(), Seat::Runs(Run::default()));
            moves.push(Move::Start(name));
        }
        for (_, name) in idle.into_iter().take(left) {
            if let Some(Seat::Runs(run)) = self.seats.get_mut(&name) {
                run.stopping = true;
            }
            moves.push(Move::Stop(name));
        }
        moves
    }

    /// When [`moves`](Self::moves) is to be called at the latest.
    pub fn next_visit(&self) -> Option<Instant> {
        let visits = self.seats.values().filter_map(|seat| match seat {
            Seat::Sleeps { visit } => Some(*visit),
            _ => None,
        });
        visits.chain(self.next_stop).min()
    }

    fn end(&mut self, name: &CollectionName) -> Option<Run> {
        match self.seats.get(name) {
            Some(Seat::Runs(run)) => {
                self.running -= 1;
                Some(*run)
            }
            _ => None,
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> CollectionName {
        CollectionName::from(text)
    }

    fn seated(room: usize, names: &[&str]) -> Scheduler {
        let mut scheduler = Scheduler::new(room);
        names.iter().for_each(|one| scheduler.want(&name(one)));
        scheduler
    }

    fn started(moves: &[Move]) -> Vec<&str> {
        let start = |one: &'_ Move| matches!(one, Move::Start(_));
        assert!(moves.iter().all(start), "{moves:?}");
        moves.iter().map(named).collect()
    }

    fn named(one: &Move) -> &str {
        let (Move::Start(name) | Move::Stop(name)) = one;
        name.as_str()
    }

    #[test]
    fn everybody_runs_for_good_where_there_is_room() {
        let (mut seats, now) = (seated(3, &["a", "b", "c"]), Instant::now());
        assert_eq!(started(&seats.moves(now)), ["a", "b", "c"]);
        ["a", "b", "c"].iter().for_each(|one| seats.idle(&name(one), now));
        assert!(seats.moves(now + VISIT * 2).is_empty() && !seats.is_crowded());
    }

    #[test]
    fn whoever_has_caught_up_longest_gives_up_its_place() {
        let (mut seats, now) = (seated(2, &["a", "b", "c", "d"]), Instant::now());
        assert_eq!(started(&seats.moves(now)), ["a", "b"]);
        assert!(seats.moves(now).is_empty(), "nobody is stopped before its end");
        seats.idle(&name("a"), now);
        seats.busy(&name("a"));
        seats.idle(&name("b"), now);
        assert_eq!(seats.moves(now), [Move::Stop(name("b"))]);
        assert!(seats.moves(now).is_empty(), "once");
        seats.sleep(&name("b"), now + VISIT);
        assert_eq!(started(&seats.moves(now)), ["c"]);
        assert!(seats.sleeps(&name("b")) && !seats.sleeps(&name("c")));
    }

    #[test]
    fn a_run_keeps_its_place_for_a_while_when_it_is_idle() {
        let (mut seats, now) = (seated(2, &["a", "b", "c"]), Instant::now());
        seats.moves(now);
        seats.idle(&name("b"), now + LINGER * 2);
        seats.idle(&name("a"), now + LINGER);
        seats.idle(&name("a"), now + LINGER * 3);
        assert!(seats.moves(now).is_empty());
        let next = seats.next_visit().unwrap();
        assert_eq!(next, now + LINGER);
        assert_eq!(seats.moves(next), [Move::Stop(name("a"))]);
        assert!(seats.moves(next).is_empty() && seats.next_visit().is_none(), "one is enough");
        seats.sleep(&name("a"), now + VISIT);
        assert_eq!(started(&seats.moves(next)), ["c"]);
        assert_eq!(seats.next_visit(), Some(now + VISIT));
    }

    #[test]
    fn those_with_news_come_first() {
        let (mut seats, now) = (seated(1, &["a", "b", "c"]), Instant::now());
        assert_eq!(started(&seats.moves(now)), ["a"]);
        seats.sleep(&name("a"), now + VISIT);
        seats.news(&name("a"));
        assert_eq!(started(&seats.moves(now)), ["a"], "before those that have waited longer");
        seats.sleep(&name("a"), now + VISIT);
        assert_eq!(started(&seats.moves(now)), ["b"]);
    }

    #[test]
    fn news_during_a_run_are_not_lost_with_its_place() {
        let (mut seats, now) = (seated(1, &["a", "b"]), Instant::now());
        seats.moves(now);
        seats.idle(&name("a"), now);
        assert_eq!(seats.moves(now), [Move::Stop(name("a"))]);
        seats.news(&name("a"));
        seats.sleep(&name("a"), now + VISIT);
        assert_eq!(started(&seats.moves(now)), ["a"]);
    }

    #[test]
    fn a_collection_that_rests_is_not_woken_by_news() {
        let (mut seats, now) = (seated(1, &["a", "b"]), Instant::now());
        seats.moves(now);
        seats.rest(&name("a"));
        seats.news(&name("a"));
        assert_eq!(started(&seats.moves(now)), ["b"]);
        seats.remove(&name("b"));
        seats.want(&name("a"));
        assert_eq!(started(&seats.moves(now)), ["a"]);
    }

    #[test]
    fn whoever_sleeps_is_visited_in_time() {
        let (mut seats, now) = (seated(1, &["a"]), Instant::now());
        seats.moves(now);
        seats.sleep(&name("a"), now + VISIT);
        assert!(seats.moves(now).is_empty());
        let visit = seats.next_visit().unwrap();
        assert_eq!(started(&seats.moves(visit)), ["a"]);
    }

    #[test]
    fn no_more_than_the_room_run_whatever_happens() {
        let names: Vec<String> = (0..50).map(|number| format!("{number:02}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let (mut seats, now) = (seated(7, &all), Instant::now());
        let (mut running, mut ran) = (Vec::new(), Vec::new());
        for step in 0..2_000_usize {
            for one in seats.moves(now) {
                match one {
                    Move::Start(name) => {
                        ran.push(name.clone());
                        running.push(name);
                    }
                    Move::Stop(name) => {
                        running.retain(|one| *one != name);
                        seats.sleep(&name, now + VISIT);
                    }
                }
            }
            assert!(running.len() <= 7);
            match step % 3 {
                0 => seats.news(&name(&names[step * 31 % 50])),
                _ => seats.idle(&running[step % running.len()].clone(), now),
            }
        }
        ran.sort();
        ran.dedup();
        assert_eq!(ran.len(), 50, "each had its turn");
    }
}
