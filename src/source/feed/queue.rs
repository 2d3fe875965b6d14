//! Hands what a blocking thread reads to an asynchronous stream, bounded by bytes.
//!
//! One budget may be shared by many queues. Something larger than the whole budget passes when
//! nothing else is in it; what weighs nothing always passes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::mpsc;

/// The bytes that may lie in queues at one time.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(0), freed: Condvar::new() })
    }

    fn take(self: &Arc<Self>, weight: usize) -> Share {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let over =
            |used: &mut usize| weight > 0 && *used > 0 && used.saturating_add(weight) > self.limit;
        let mut used = self.freed.wait_while(used, over).unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_add(weight);
        Share { budget: self.clone(), weight }
    }
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    weight: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.weight);
        self.budget.freed.notify_all();
    }
}

/// Nobody receives any more: the sender should stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abandoned;

/// The end into which a blocking thread sends.
#[derive(Debug)]
pub(super) struct Outlet<T> {
    sender: mpsc::UnboundedSender<(T, Share)>,
    budget: Arc<Budget>,
}

/// The end from which a stream receives.
#[derive(Debug)]
pub(super) struct Inlet<T> {
    receiver: mpsc::UnboundedReceiver<(T, Share)>,
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), budget: self.budget.clone() }
    }
}

/// A queue within a budget.
pub(super) fn queue<T>(budget: &Arc<Budget>) -> (Outlet<T>, Inlet<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Outlet { sender, budget: budget.clone() }, Inlet { receiver })
}

impl<T> Outlet<T> {
    /// Sends, waiting while the budget is used up. Blocks: not for asynchronous code.
    pub fn send(&self, item: T, weight: usize) -> Result<(), Abandoned> {
        self.check()?;
        self.sender.send((item, self.budget.take(weight))).map_err(|_| Abandoned)
    }

    /// Whether anybody still receives.
    pub fn check(&self) -> Result<(), Abandoned> {
        if self.sender.is_closed() { Err(Abandoned) } else { Ok(()) }
    }
}

impl<T> Inlet<T> {
    /// The next item; `None` when the sender is gone. Its share of the budget is free again.
    pub async fn next(&mut self) -> Option<T> {
        self.receiver.recv().await.map(|(item, _share)| item)
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
    fn what_is_larger_than_the_budget_passes_alone() {
        let (outlet, mut inlet) = queue::<u32>(&Budget::new(10));
        outlet.send(1, 1000).unwrap();
        assert_eq!(inlet.receiver.blocking_recv().unwrap().0, 1);
        outlet.send(2, 1000).unwrap();
    }
}
