//! Messages to a service manager: readiness, status, signs of life. Without one (no
//! `NOTIFY_SOCKET`) nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::document::plain;
use crate::runner::{Status, Watcher};

/// How often the status line is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Reports the status of the mirror to the service manager until `ended`. A service is ready when it
/// has caught up with all databases that can be read.
pub async fn notify(watcher: Watcher, live: bool, ended: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let ready = async {
        if watcher.ready().await && live {
            send(&[NotifyState::Ready, NotifyState::Status(&line(&watcher.status()))]);
        }
    };
    let alive = keep_alive(|| line(&watcher.status()), |timeout| !is_stuck(&watcher, timeout));
    tokio::select! {
        () = ended.cancelled() => {}
        ((), ()) = async { tokio::join!(ready, alive) } => {}
    }
}

/// Renews the line of status for as long as it is polled, and gives signs of life to a watchdog with this
/// timeout as long as `is_alive`.
pub async fn keep_alive(line: impl Fn() -> String, is_alive: impl Fn(Duration) -> bool) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // Twice as often as requested, so that one late timer does not count as a hang.
    let every = watchdog.map_or(STATUS_EVERY, |timeout| (timeout / 2).min(STATUS_EVERY));
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        let line = line();
        let mut states = vec![NotifyState::Status(&line)];
        states.extend(watchdog.filter(|timeout| is_alive(*timeout)).map(|_| NotifyState::Watchdog));
        send(&states);
    }
}

/// Reports to the service manager that the process is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Whether a batch has been in flight for longer than any disk takes that does not hang.
fn is_stuck(watcher: &Watcher, timeout: Duration) -> bool {
    /// Several times the watchdog's own time: a full sync of a slow disk is not a hang.
    const SLOW_DISK: u32 = 20;
    watcher.longest_busy().is_some_and(|busy| busy > timeout * SLOW_DISK)
}

/// The status in a line: collections, positions and lag of the first few, failures.
fn line(status: &Status) -> String {
    const SHOWN: usize = 3;
    let collections = &status.collections;
    let failures: u64 = collections.iter().map(|collection| collection.report.failures).sum();
    let lag = collections.iter().filter_map(|collection| collection.lag.seconds);
    let lag = lag.fold(0.0, f64::max);
    let mut line = match status.caught_up {
        true => format!("live, lag {lag:.1} s, {failures} failed"),
        false => format!("catching up, lag {lag:.1} s, {failures} failed"),
    };
    for collection in collections.iter().take(SHOWN) {
        let position =
            collection.report.position.as_ref().map_or("none".to_owned(), Value::to_string);
        let short: String = position.chars().take(24).collect();
        line.push_str(&format!("; {} at position {short}", collection.report.collection));
    }
    if collections.len() > SHOWN {
        line.push_str(&format!("; and {} more", collections.len() - SHOWN));
    }
    plain::text(&line).into_owned()
}

/// Sends notifications.
pub fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager cannot be reached: {error}");
    }
}
