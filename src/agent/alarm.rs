//! Watches all mirrors: raises alerts, ends them, and sends the heartbeat.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::alerts::{Alert, AlertKind, AlertState, Alerts, Seen};
use super::hooks::Delivery;
use super::roster::{MirrorHandle, Roster};
use super::state::MirrorState;
use crate::client::webhook::Webhook;
use crate::clock::Moment;
use crate::config::file::AlertHooks;
use crate::document::MirrorName;
use crate::runner::Watcher;

/// How often the mirrors are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The longest wait for the answer to a heartbeat.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches the mirrors until it is dropped.
#[derive(Debug)]
pub struct Alarm {
    _task: AbortOnDropHandle<()>,
}

impl Alarm {
    /// Begins to watch the mirrors of an agent. Their collections are late after this lag.
    pub fn start(roster: Roster, hooks: AlertHooks, late_after: Duration) -> Self {
        let mut eyes = Eyes { late_after, changing: HashMap::new() };
        let look = move || {
            let mirrors = roster.mirrors();
            let is_kept = |name: &MirrorName| mirrors.iter().any(|mirror| mirror.name() == name);
            eyes.changing.retain(|name, _| is_kept(name));
            mirrors.iter().map(|mirror| eyes.see(mirror)).collect()
        };
        Self { _task: AbortOnDropHandle::new(tokio::spawn(watch(hooks, look))) }
    }
}

async fn watch(hooks: AlertHooks, mut look: impl FnMut() -> Vec<Seen> + Send + 'static) {
    let mut heart = hooks.heartbeat.clone().map(|(url, every)| Heart::new(url, every));
    let (delivery, mut alerts) = (Delivery::start(hooks), Alerts::default());
    let every = heart.as_ref().map_or(LOOK, |heart| heart.every.min(LOOK));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for alert in alerts.look(&look(), Moment::now()) {
            log(&alert);
            delivery.send(alert);
        }
        if let Some(heart) = &mut heart {
            heart.beat(alerts.are_well());
        }
    }
}

/// Looks at mirrors.
struct Eyes {
    late_after: Duration,
    /// Since when mirrors have been starting or stopping.
    changing: HashMap<MirrorName, Moment>,
}

impl Eyes {
    fn see(&mut self, mirror: &MirrorHandle) -> Seen {
        let (state, last) = (mirror.state(), mirror.last_run());
        let fault = self.late(mirror.name(), &state).or_else(|| match &state {
            MirrorState::Failed { error, .. } => Some((AlertKind::Down, error.clone())),
            MirrorState::Parked { error, .. } => Some((AlertKind::Parked, error.clone())),
            MirrorState::Waiting { .. } => {
                let trouble = last.as_ref()?.trouble.clone()?;
                Some((AlertKind::Failing, format!("the last catch-up: {trouble}")))
            }
            _ => None,
        });
        let watcher = mirror.watcher();
        let is_changing = matches!(
            state,
            MirrorState::Starting | MirrorState::Stopping | MirrorState::Running { .. }
        );
        let was_whole = matches!(state, MirrorState::Waiting { .. })
            && last.as_ref().is_some_and(|last| last.complete);
        Seen {
            mirror: mirror.name().clone(),
            fault,
            late_after: self.late_after,
            is_unsettled: is_changing && !watcher.as_ref().is_some_and(Watcher::is_ready),
            runs_for: watcher.as_ref().map(Watcher::runs_for).unwrap_or_default(),
            collections: match watcher {
                None => was_whole.then(Vec::new),
                Some(watcher) => Some(watcher.lags()),
            },
        }
    }

    /// Whether it does not start or end, or has not run, although it is time.
    fn late(&mut self, name: &MirrorName, state: &MirrorState) -> Option<(AlertKind, String)> {
        if !matches!(state, MirrorState::Starting | MirrorState::Stopping) {
            self.changing.remove(name);
        }
        let late = match state {
            MirrorState::Starting | MirrorState::Stopping => {
                let since = *self.changing.entry(name.clone()).or_insert_with(Moment::now);
                let age = since.age(Moment::now());
                let (state, seconds) = (state.word(), age.as_secs());
                (age > self.late_after).then(|| format!("it has been {state} for {seconds} s"))
            }
            MirrorState::Waiting { next: Some(next) } => {
                let over = Timestamp::now().duration_since(*next);
                (over.is_positive() && over.unsigned_abs() > self.late_after)
                    .then(|| format!("it should have run at {next:.0}"))
            }
            _ => None,
        };
        late.map(|reason| (AlertKind::Late, reason))
    }
}

fn log(Alert { subject, state, reason, .. }: &Alert) {
    match state {
        AlertState::Raised => tracing::warn!("alert {subject}: {reason}"),
        AlertState::Resolved => {
            tracing::info!("alert \"{}\" has ended: {}", subject.word(), subject.place());
        }
    }
}

/// Calls an address while all is well.
struct Heart {
    url: Webhook,
    every: Duration,
    last: Option<Moment>,
    /// The call that is under way.
    calling: Option<AbortOnDropHandle<()>>,
    /// Whether the last call failed.
    fails: Arc<AtomicBool>,
}

impl Heart {
    fn new(url: Webhook, every: Duration) -> Self {
        Self { url, every, last: None, calling: None, fails: Arc::default() }
    }

    /// Calls if it is time, and all is well. Never waits.
    fn beat(&mut self, is_well: bool) {
        let now = Moment::now();
        let is_due = self.last.is_none_or(|last| last.age(now) >= self.every);
        let is_calling = self.calling.as_ref().is_some_and(|call| !call.is_finished());
        if !is_well || !is_due || is_calling {
            return;
        }
        self.last = Some(now);
        let (url, fails) = (self.url.clone(), Arc::clone(&self.fails));
        let call = async move {
            let called = url.call(PATIENCE).await;
            // The log says once that it fails, and once that it works again.
            match (&called, fails.swap(called.is_err(), Ordering::Relaxed)) {
                (Err(error), false) => tracing::warn!("the heartbeat {url} failed: {error}"),
                (Ok(()), true) => tracing::info!("the heartbeat {url} works again"),
                _ => {}
            }
        };
        self.calling = Some(AbortOnDropHandle::new(tokio::spawn(call)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::pipeline::{Phase, PipelineReport};
    use crate::runner::Lag;

    /// A server that answers everything, and the requests that it has received.
    async fn server() -> (Webhook, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noting = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (mut text, mut piece) = (Vec::new(), [0; 4096]);
                while !text.ends_with(b"}") && !text.starts_with(b"GET") {
                    let read = client.read(&mut piece).await.unwrap();
                    text.extend_from_slice(&piece[..read]);
                }
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                client.write_all(answer).await.unwrap();
                noting.lock().unwrap().push(String::from_utf8(text).unwrap());
            }
        });
        (Webhook::new(&format!("http://{address}/hook")).unwrap(), asked)
    }

    async fn wait_for(asked: &Mutex<Vec<String>>, is_so: impl Fn(&[String]) -> bool) {
        while !is_so(&asked.lock().unwrap()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn the_heartbeat_stops_while_something_is_wrong_and_the_alert_is_delivered_once() {
        let (heartbeat, beats) = server().await;
        let (url, alerts) = server().await;
        let braked = Arc::new(AtomicBool::new(false));
        let is_braked = Arc::clone(&braked);
        let look = move || {
            let held_back = u64::from(is_braked.load(Ordering::Relaxed));
            let new = PipelineReport::new("books".into());
            let report = PipelineReport { phase: Phase::Live, caught_up: true, held_back, ..new };
            vec![Seen {
                mirror: "shop".parse().unwrap(),
                fault: None,
                is_unsettled: false,
                late_after: Duration::from_secs(300),
                collections: Some(vec![(report, Lag::default())]),
                runs_for: Duration::from_secs(1),
            }]
        };
        let beat = Some((heartbeat, Duration::from_millis(10)));
        let hooks = AlertHooks { command: None, url: Some(url), heartbeat: beat };
        let _watch = AbortOnDropHandle::new(tokio::spawn(watch(hooks, look)));
        wait_for(&beats, |beats| beats.len() >= 3).await;
        assert!(alerts.lock().unwrap().is_empty());
        braked.store(true, Ordering::Relaxed);
        wait_for(&alerts, |alerts| !alerts.is_empty()).await;
        // A call may have been under way.
        let so_far = beats.lock().unwrap().len();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(beats.lock().unwrap().len() <= so_far + 1);
        let alerts = alerts.lock().unwrap();
        assert_eq!(alerts.len(), 1);
        assert!(alerts[0].starts_with("POST /hook ") && alerts[0].contains("\"alert\":\"braked\""));
    }
}
