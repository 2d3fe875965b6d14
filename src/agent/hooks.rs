//! Delivers alerts to a command or an address.
//!
//! A hook that hangs or fails holds up nobody: each has bounded time, and what waits is bounded. Its secrets
//! reach no log: of an address only the host is named, of a command only its program.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::alerts::Alert;
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
            Self::Command(command) => run(command, document, PATIENCE).await,
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

/// Runs a program without a shell, with a document on its standard input. If it takes too long, it ends
/// with everything that it has started.
async fn run(command: &[String], document: &[u8], patience: Duration) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir(Path::new("/")).process_group(0).kill_on_drop(true);
    // Any variable may hold a secret of a source.
    command.env_clear();
    let harmless = ["PATH", "HOME", "LANG", "TZ"];
    command.envs(harmless.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    let mut child = command.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let input = child.stdin.take();
    let working = async {
        if let Some(mut input) = input {
            // A program that does not read it may still do its work.
            let _closed = input.write_all(document).await;
        }
        child.wait().await
    };
    let ended = tokio::time::timeout(patience, working).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it ended with {status}")),
        Ok(Err(error)) => Err(format!("it cannot be waited for: {error}")),
        Err(_) => {
            if let Some(group) = group {
                let _gone = kill_process_group(group, Signal::KILL);
            }
            Err(format!("it was ended after {} s", patience.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    /// A program that does this.
    fn program(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("program");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    async fn run_it(program: &Path, argument: &str, patience: Duration) -> Result<(), String> {
        let command = [program.display().to_string(), argument.to_owned()];
        run(&command, b"{\"alert\":1}", patience).await
    }

    #[tokio::test]
    async fn a_command_gets_the_document_and_its_arguments_without_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let text = format!("{{ echo \"$1\"; cat; }} > '{}'", out.display());
        let program = program(dir.path(), &text);
        run_it(&program, "$(touch x); a b", PATIENCE).await.unwrap();
        assert_eq!(fs::read_to_string(out).unwrap(), "$(touch x); a b\n{\"alert\":1}");
    }

    #[tokio::test]
    async fn a_command_that_fails_hangs_or_is_missing_is_an_error_in_bounded_time() {
        let dir = tempfile::tempdir().unwrap();
        let failing = program(dir.path(), "exit 3");
        let error = run_it(&failing, "secret", PATIENCE).await.unwrap_err();
        assert!(error.contains("exit status: 3") && !error.contains("secret"), "{error}");
        // What it has started ends too.
        let out = dir.path().join("out");
        let text = format!("(trap '' TERM; sleep 600) & echo $! > '{}'; wait", out.display());
        let hanging = program(dir.path(), &text);
        let error = run_it(&hanging, "", Duration::from_secs(1)).await.unwrap_err();
        assert!(error.contains("it was ended after 1 s"), "{error}");
        let child = fs::read_to_string(&out).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        while fs::read_to_string(&stat).is_ok_and(|state| !state.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let missing = dir.path().join("missing");
        let error = run_it(&missing, "", PATIENCE).await.unwrap_err();
        assert!(error.contains("cannot be started"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_reads_nothing_may_succeed() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), "exit 0");
        let command = [program.display().to_string()];
        let large = vec![b'x'; 1 << 20];
        run(&command, &large, PATIENCE).await.unwrap();
    }

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
