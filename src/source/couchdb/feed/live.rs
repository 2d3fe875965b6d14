//! A live feed behind a proxy that holds it back, or that has less patience than the server's heartbeats
//! need: it is recognised by its silence.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest heartbeat that is requested.
const SHORTEST: Duration = Duration::from_secs(1);

/// What is known about the live feeds of a database.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Whether what the server sends in a continuous feed does not arrive.
    held_back: AtomicBool,
    /// Whether the log has said so.
    pub said: AtomicBool,
    /// The heartbeat that a proxy's patience needs, in milliseconds; 0 if that is not known.
    heartbeat: AtomicU64,
}

impl Live {
    pub fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// A continuous feed broke off after a silence, before it brought a heartbeat in its time.
    pub fn learn(&self, silent: Duration, usual: Duration) {
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
    pub beat: bool,
    opened: Instant,
    /// When something came last.
    pub last: Instant,
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
