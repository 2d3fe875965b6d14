//! Delivers alerts to a command or an address.
//!
//! A hook that hangs or fails holds up nobody: each has bounded time, and what waits is bounded. Its secrets
//! reach no log: of an address only the host is named, of a command only its program.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::alerts::Alert;
use super::program::Program;
use crate::client::webhook::Webhook;
use crate::config::file::AlertHooks;
use crate::document::plain;

/// How long a hook may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pauses before a hook that failed is tried again.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(2), Duration::from_secs(15), Duration::from_secs(60)];

/// How many alerts wait at most. The oldest is dropped.
const MOST: usize = 1_000;

/// Delivers alerts one after the other, in a task that ends when this is dropped.
#[derive(Debug)]
pub struct Delivery {
    waiting: Arc<Waiting>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    alerts: Mutex<VecDeque<Alert>>,
    more: Notify,
}

impl Delivery {
    /// Begins to deliver to these hooks.
    pub fn start(hooks: AlertHooks) -> Self {
        let waiting = Arc::<Waiting>::default();
        let task = tokio::spawn(deliver(Arc::clone(&waiting), hooks));
        Self { waiting, _task: AbortOnDropHandle::new(task) }
    }

    /// Takes an alert. Never waits.
    pub fn send(&self, alert: Alert) {
        let mut alerts = self.waiting.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        if alerts.len() >= MOST
            && let Some(dropped) = alerts.pop_front()
        {
            tracing::warn!(
                "the alert hook is too slow; this alert is not delivered: {}",
                dropped.subject
            );
        }
        alerts.push_back(alert);
        drop(alerts);
        self.waiting.more.notify_one();
    }
}

async fn deliver(waiting: Arc<Waiting>, hooks: AlertHooks) {
    let command = hooks.command.map(Hook::Command);
    let hooks: Vec<Hook> = command.into_iter().chain(hooks.url.map(Hook::Address)).collect();
    loop {
        let next = || waiting.alerts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(alert) = next() else {
            waiting.more.notified().await;
            continue;
        };
        let Ok(document) = serde_json::to_string(&alert) else { continue };
        let document = plain::json(&document);
        for hook in &hooks {
            hook.tell(&alert, document.as_bytes()).await;
        }
    }
}

/// Where alerts go.
enum Hook {
    /// A program with its arguments.
    Command(Vec<String>),
    Address(Webhook),
}

impl Hook {
    /// Delivers an alert, and tries again a few times.
    async fn tell(&self, alert: &Alert, document: &[u8]) {
        let mut pauses = PAUSES.into_iter();
        loop {
            let Err(error) = self.attempt(document).await else { return };
            let Some(pause) = pauses.next() else {
                let Alert { subject, .. } = alert;
                tracing::error!(
                    "{self} has failed; an alert was not delivered: {subject}: {error}"
                );
                return;
            };
            let seconds = pause.as_secs();
            tracing::warn!("{self} failed, and is tried again in {seconds} s: {error}");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, document: &[u8]) -> Result<(), String> {
        match self {
            Self::Command(command) => {
                Program { command, variables: &[] }.run(document, PATIENCE).await
            }
            Self::Address(url) => {
                let posted = url.post(document.to_vec(), PATIENCE).await;
                posted.map_err(|error| error.to_string())
            }
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => {
                let program = command.first().map(String::as_str).unwrap_or_default();
                write!(f, "the alert command {}", plain::quoted(program))
            }
            Self::Address(url) => write!(f, "the alert address {url}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_named_without_its_secrets() {
        let command = Hook::Command(vec!["/bin/page".to_owned(), "--key=secret".to_owned()]);
        let address = Hook::Address(Webhook::new("https://a:secret@host/secret").unwrap());
        for (hook, name) in [(command, "/bin/page"), (address, "https://host/…")] {
            let text = hook.to_string();
            assert!(text.contains(name) && !text.contains("secret"), "{text}");
        }
    }
}
