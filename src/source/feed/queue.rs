//! Hands what a blocking thread reads to an asynchronous stream, bounded by bytes.
//!
//! One budget may be shared by many queues. Something larger than the whole budget passes when
//! nothing else is in it; what weighs nothing always passes.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

/// The bytes that may lie in queues at one time.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    /// The most for each queue that exists, within the limit.
    each: usize,
    queues: AtomicUsize,
    used: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Self::growing(limit, limit)
    }

    /// A budget of this many bytes for `each` of its queues, up to a limit.
    pub fn growing(each: usize, limit: usize) -> Arc<Self> {
        let (used, freed) = (Mutex::new(0), Condvar::new());
        Arc::new(Self { limit, each, queues: AtomicUsize::new(0), used, freed })
    }

    fn bytes(&self) -> usize {
        let queues = self.queues.load(Ordering::Acquire).max(1);
        self.each.saturating_mul(queues).min(self.limit)
    }

    /// Takes a part as soon as there is room; `None` after that time without room.
    fn take(&self, weight: usize, patience: Duration) -> Option<()> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |used: &mut usize| {
            weight > 0 && *used > 0 && used.saturating_add(weight) > self.bytes()
        };
        let waited = self.freed.wait_timeout_while(used, patience, over);
        let (mut used, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return None;
        }
        *used = used.saturating_add(weight);
        Some(())
    }
}

/// What is known of a queue at both ends.
#[derive(Debug)]
struct Load {
    budget: Arc<Budget>,
    /// The bytes in it.
    held: AtomicUsize,
    /// How often something was taken out of it.
    taken: AtomicU64,
    /// Whether its part of the budget was given back before it was taken out.
    given_back: AtomicBool,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.budget.queues.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
struct Share {
    load: Arc<Load>,
    weight: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.load.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.load.held.fetch_sub(self.weight, Ordering::AcqRel);
        if self.load.given_back.load(Ordering::Acquire) {
            return;
        }
        *used = used.saturating_sub(self.weight);
        self.load.budget.freed.notify_all();
    }
}

/// Nobody receives any more: the sender should stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abandoned;

/// Why something was not sent.
#[derive(Debug)]
pub(super) enum Unsent<T> {
    /// Nobody receives any more.
    Abandoned,
    /// In that time, there was no room.
    Late(T),
}

/// The end into which a blocking thread sends.
#[derive(Debug)]
pub(super) struct Outlet<T> {
    sender: mpsc::UnboundedSender<(T, Share)>,
    load: Arc<Load>,
}

/// The end from which a stream receives.
#[derive(Debug)]
pub(super) struct Inlet<T> {
    /// What comes before the rest.
    first: Option<T>,
    receiver: mpsc::UnboundedReceiver<(T, Share)>,
    load: Arc<Load>,
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), load: self.load.clone() }
    }
}

/// A queue within a budget.
pub(super) fn queue<T>(budget: &Arc<Budget>) -> (Outlet<T>, Inlet<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    budget.queues.fetch_add(1, Ordering::AcqRel);
    let (budget, held, taken) = (Arc::clone(budget), AtomicUsize::new(0), AtomicU64::new(0));
    let given_back = AtomicBool::new(false);
    let load = Arc::new(Load { budget, held, taken, given_back });
    (Outlet { sender, load: Arc::clone(&load) }, Inlet { first: None, receiver, load })
}

impl<T> Outlet<T> {
    /// Sends, waiting while the budget is used up. Blocks: not for asynchronous code.
    pub fn send(&self, item: T, weight: usize) -> Result<(), Abandoned> {
        let mut item = item;
        loop {
            match self.send_within(item, weight, Duration::from_secs(1)) {
                Ok(()) => return Ok(()),
                Err(Unsent::Abandoned) => return Err(Abandoned),
                Err(Unsent::Late(late)) => item = late,
            }
        }
    }

    /// The same for a limited time.
    pub fn send_within(&self, item: T, weight: usize, patience: Duration) -> Result<(), Unsent<T>> {
        self.check().map_err(|Abandoned| Unsent::Abandoned)?;
        if self.load.budget.take(weight, patience).is_none() {
            return Err(Unsent::Late(item));
        }
        self.load.held.fetch_add(weight, Ordering::AcqRel);
        let share = Share { load: Arc::clone(&self.load), weight };
        self.sender.send((item, share)).map_err(|_| Unsent::Abandoned)
    }

    /// Whether anybody still receives.
    pub fn check(&self) -> Result<(), Abandoned> {
        if self.sender.is_closed() { Err(Abandoned) } else { Ok(()) }
    }

    /// What waits in it uses no room of the budget any more. Nothing that has a weight may follow.
    pub fn give_back(&self) {
        let mut used = self.load.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.load.given_back.swap(true, Ordering::AcqRel) {
            *used = used.saturating_sub(self.load.held.load(Ordering::Acquire));
        }
        self.load.budget.freed.notify_all();
    }

    /// The bytes that wait in it.
    pub fn held(&self) -> usize {
        self.load.held.load(Ordering::Acquire)
    }

    /// How often something was taken out of it.
    pub fn taken(&self) -> u64 {
        self.load.taken.load(Ordering::Acquire)
    }
}

impl<T> Inlet<T> {
    /// The same queue after this item.
    pub fn after(self, first: T) -> Self {
        Self { first: Some(first), ..self }
    }

    /// The next item; `None` when the sender is gone. Its share of the budget is free again.
    pub async fn next(&mut self) -> Option<T> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let (item, _share) = self.receiver.recv().await?;
        self.load.taken.fetch_add(1, Ordering::AcqRel);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sender_waits_for_the_budget_and_stops_when_abandoned() {
        let (outlet, mut inlet) = queue::<u32>(&Budget::new(10));
        let sender = std::thread::spawn(move || {
            for n in 0_u32.. {
                if outlet.send(n, 6).is_err() {
                    return n;
                }
            }
            u32::MAX
        });
        assert_eq!(inlet.next().await, Some(0));
        assert_eq!(inlet.next().await, Some(1));
        drop(inlet);
        assert!(sender.join().unwrap() <= 4);
    }

    #[test]
    fn a_budget_grows_with_its_queues_up_to_its_limit() {
        let budget = Budget::growing(10, 25);
        let fits = |outlet: &Outlet<u32>| outlet.send_within(1, 8, Duration::ZERO).is_ok();
        let (first, _inlet) = queue(&budget);
        assert!(fits(&first) && !fits(&first));
        let second = queue(&budget);
        assert!(fits(&second.0) && !fits(&second.0) && !fits(&first));
        let _third = queue::<u32>(&budget);
        assert!(fits(&first) && !fits(&first), "25 is the limit");
        drop(second);
        assert_eq!(budget.bytes(), 20);
    }

    #[test]
    fn what_is_larger_than_the_budget_passes_alone() {
        let (outlet, mut inlet) = queue::<u32>(&Budget::new(10));
        outlet.send(1, 1000).unwrap();
        assert_eq!(inlet.receiver.blocking_recv().unwrap().0, 1);
        outlet.send(2, 1000).unwrap();
    }
}
