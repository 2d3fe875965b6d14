//! SIGINT and SIGTERM: the first asks for an end, the second is one.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::{self, Exit};

/// After a signal the process ends within this time, whatever hangs.
const PATIENCE: Duration = Duration::from_millis(4500);

/// Cancelled by the first SIGINT or SIGTERM. A second one, or a few seconds, end the process at once, as
/// a kill would: the next run resumes where this one was.
pub fn catch() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
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
            std::thread::spawn(|| {
                std::thread::sleep(PATIENCE);
                exit::say(
                    "something still hangs 5 seconds after the signal, so the process ends without \
                     it; the next run resumes what was in flight",
                );
                std::process::exit(i32::from(Exit::Interrupted as u8));
            });
        }
    });
    Ok(token)
}
