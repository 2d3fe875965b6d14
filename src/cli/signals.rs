//! SIGINT and SIGTERM: the first asks for an end, the second is one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::exit::{self, Exit};
use super::footer;

/// After a signal the process ends within this time, whatever hangs.
const PATIENCE: Duration = Duration::from_millis(4500);

/// Cancelled by the first SIGINT or SIGTERM. A second one, or a few seconds, end the process at once, as
/// a kill would: the next run resumes where this one was.
pub fn catch() -> anyhow::Result<CancellationToken> {
    catch_within(PATIENCE)
}

/// The same, where the process ends within `patience` after the first signal.
pub fn catch_within(patience: Duration) -> anyhow::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = listeners()?;
    replace(&ENDING, None);
    let token = CancellationToken::new();
    let told = token.clone();
    tokio::spawn(async move {
        for cancelled in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancelled {
                std::process::exit(i32::from(Exit::Interrupted as u8));
            }
            tracing::info!("stopping: the batch in flight is finished first");
            told.cancel();
            // In a thread of its own, because the runtime may be what hangs.
            std::thread::spawn(move || {
                std::thread::sleep(patience);
                footer::clear_before_end();
                exit::say(&format!(
                    "something still hangs {} seconds after the signal, so the process ends without \
                     it; the next run resumes what was in flight",
                    patience.as_secs_f64().round()
                ));
                std::process::exit(i32::from(Exit::Interrupted as u8));
            });
        }
    });
    Ok(token)
}

/// What ends the process by the first SIGINT or SIGTERM until these are caught.
static ENDING: Mutex<Option<AbortHandle>> = Mutex::new(None);

/// What ends the process by a SIGHUP or SIGQUIT, once [`end_at_once`] has been called: from then on the
/// system does not.
static LEAVING: Mutex<Option<AbortHandle>> = Mutex::new(None);

/// Ends the process by the first SIGINT, SIGTERM, SIGHUP or SIGQUIT after `undo`, until this function is
/// called again; SIGINT and SIGTERM also until [`catch`] is.
pub fn end_at_once(undo: impl Fn() + Clone + Send + 'static) -> anyhow::Result<()> {
    let (interrupt, terminate) = listeners()?;
    let hang_up = signal(SignalKind::hangup()).context("SIGHUP cannot be caught")?;
    let quit = signal(SignalKind::quit()).context("SIGQUIT cannot be caught")?;
    replace(&ENDING, Some(end_by(interrupt, terminate, undo.clone())));
    replace(&LEAVING, Some(end_by(hang_up, quit, undo)));
    Ok(())
}

fn end_by(mut one: Signal, mut other: Signal, undo: impl Fn() + Send + 'static) -> AbortHandle {
    let ending = tokio::spawn(async move {
        tokio::select! {
            _ = one.recv() => {}
            _ = other.recv() => {}
        }
        undo();
        std::process::exit(i32::from(Exit::Interrupted as u8));
    });
    ending.abort_handle()
}

fn replace(held: &Mutex<Option<AbortHandle>>, with: Option<AbortHandle>) {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = std::mem::replace(&mut *held, with) {
        before.abort();
    }
}

fn listeners() -> anyhow::Result<(Signal, Signal)> {
    let interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    Ok((interrupt, terminate))
}
