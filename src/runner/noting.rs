//! Notes in the state, now and then and at the end, when the collections were as their source: so it is
//! known without a process how old the mirror is.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::shared::Shared;

/// How often it is noted. A quiet mirror writes nothing else.
const EVERY: Duration = Duration::from_secs(600);

/// A task that notes it until it is dropped.
pub(super) struct Noting {
    _task: AbortOnDropHandle<()>,
}

impl Noting {
    /// Begins to note it.
    pub fn start(shared: &Arc<Shared>) -> Self {
        // A mirror that has ended is closed at once, although this task ends a moment later.
        let shared = Arc::downgrade(shared);
        let noting = async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(shared) = shared.upgrade() else { return };
                note(&shared).await;
            }
        };
        Self { _task: AbortOnDropHandle::new(tokio::spawn(noting)) }
    }
}

/// Notes it once.
pub(super) async fn note(shared: &Arc<Shared>) {
    let times: Vec<_> = shared
        .reports()
        .into_iter()
        .filter(|report| report.evidence.current.is_some())
        .filter_map(|report| Some((report.collection, report.current_at?)))
        .collect();
    if times.is_empty() {
        return;
    }
    let shared = Arc::clone(shared);
    let noted = spawn_blocking(move || shared.checkpoints.note_current(times)).await;
    if let Ok(Err(error)) = noted {
        // Other writes report what is wrong with the state.
        tracing::debug!("when the collections were as their source is not noted: {error}");
    }
}
