//! The threads of one session: a runtime of its own, so that a mirror whose disk hangs takes no thread
//! from the others, and every line that these threads log names the mirror.

use std::cell::RefCell;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tracing::Span;
use tracing::span::EnteredSpan;

use crate::document::MirrorName;

/// The target of the span that names the mirror. It is enabled, whatever the filter of the log says.
pub const MIRROR: &str = "mirror-of-agent";

thread_local! {
    static ENTERED: RefCell<Option<EnteredSpan>> = const { RefCell::new(None) };
}

/// The threads of one session. Dropping it waits for nothing: what hangs is left behind.
#[derive(Debug)]
pub(super) struct Home(Option<Runtime>);

/// The span in which all is logged about a mirror.
pub(super) fn span(name: &MirrorName) -> Span {
    tracing::error_span!(target: MIRROR, parent: None, "mirror", mirror = %name)
}

impl Home {
    /// Starts this number of threads, and others on demand for work on the disk.
    pub fn start(name: &MirrorName, threads: usize) -> io::Result<Self> {
        let span = span(name);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("mirror")
            .on_thread_start(move || ENTERED.set(Some(span.clone().entered())))
            .on_thread_stop(|| drop(ENTERED.take()))
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Where tasks are spawned.
    pub fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
