//! How a verification is held back: in its threads, by a rate, and until it is told to end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::VerifyError;

/// What reading a document costs in addition to its bytes: even an empty one moves the disk.
pub const EACH: u64 = 4096;

/// How a verification is held back. By default it is not.
#[derive(Clone, Debug, Default)]
pub struct Restraint {
    /// The number of threads that read; `None` is one for each processor.
    pub threads: Option<usize>,
    /// The rate at which it reads; `None` is no limit.
    pub pace: Option<Arc<Pace>>,
    /// Ends it between two documents.
    pub stop: CancellationToken,
}

impl Restraint {
    /// Fails if it was told to end.
    pub fn check(&self) -> Result<(), VerifyError> {
        if self.stop.is_cancelled() { Err(VerifyError::Cancelled) } else { Ok(()) }
    }

    /// Waits as long as the rate requires after this number of bytes was read. Blocks.
    pub fn spend(&self, bytes: u64) {
        /// It ends this soon after it was told to.
        const SLICE: Duration = Duration::from_millis(50);
        let Some(pace) = &self.pace else { return };
        let until = Instant::now() + pace.spend(bytes);
        while !self.stop.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

/// A rate in bytes a second. What was read is paid for by waiting afterwards; time in which nothing was read
/// is not saved up.
#[derive(Debug)]
pub struct Pace(Mutex<Debt>);

#[derive(Debug)]
struct Debt {
    rate: f64,
    /// When all that was read is paid for.
    free: Instant,
}

impl Pace {
    /// This number of bytes a second, and at least one.
    pub fn new(rate: u64) -> Self {
        Self(Mutex::new(Debt { rate: rate.max(1) as f64, free: Instant::now() }))
    }

    /// Changes the rate for what is read from now on.
    pub fn set(&self, rate: u64) {
        self.debt().rate = rate.max(1) as f64;
    }

    /// Notes that a document of this number of bytes was read, and returns how long to wait.
    pub fn spend(&self, bytes: u64) -> Duration {
        /// No document is paid for longer than this, whatever it costs.
        const LONGEST: f64 = 7.0 * 24.0 * 3600.0;
        let now = Instant::now();
        let mut debt = self.debt();
        let seconds = bytes.saturating_add(EACH) as f64 / debt.rate;
        debt.free = debt.free.max(now) + Duration::from_secs_f64(seconds.min(LONGEST));
        debt.free - now
    }

    fn debt(&self) -> std::sync::MutexGuard<'_, Debt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_paid_for_at_the_rate_and_a_pause_earns_nothing() {
        let pace = Pace::new(1 << 20);
        let second = (1 << 20) - EACH;
        assert_eq!(pace.spend(second), Duration::from_secs(1));
        assert_eq!(pace.spend(second), Duration::from_secs(2), "the first one is not paid for");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(pace.spend(second), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(pace.spend(second), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_can_be_changed_and_is_never_nothing() {
        let pace = Pace::new(0);
        assert!(pace.spend(1) > Duration::from_secs(60));
        let pace = Pace::new(1);
        pace.set(EACH);
        assert_eq!(pace.spend(0), Duration::from_secs(1));
    }

    #[test]
    fn a_wait_ends_when_it_is_told_to() {
        let restraint = Restraint { pace: Some(Arc::new(Pace::new(1))), ..Restraint::default() };
        restraint.check().unwrap();
        restraint.stop.cancel();
        restraint.spend(1 << 40);
        assert!(matches!(restraint.check(), Err(VerifyError::Cancelled)));
    }
}
