//! SIGINT and SIGTERM: the first asks for an end, the second is one.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;

/// Cancelled by the first SIGINT or SIGTERM. A second one ends the process at once, as a kill would:
/// the next run goes on from where this one was.
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
        }
    });
    Ok(token)
}
