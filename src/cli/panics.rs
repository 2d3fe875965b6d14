//! A fault of Plainfold's own ends with one line and its exit code, not with a backtrace.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use super::exit::{Exit, say};

/// Whether the system had no thread left: libraries panic then.
static NO_THREAD: AtomicBool = AtomicBool::new(false);

/// Runs a command. A panic, wherever it is, is said in one line; one that ends the command ends it with
/// the code for it.
pub fn caught(run: impl FnOnce() -> Exit) -> Exit {
    std::panic::set_hook(Box::new(|panic| {
        let words = panic.payload_as_str().and_then(|words| words.lines().next());
        let words = words.unwrap_or("no reason given");
        if wants_a_thread(words) {
            NO_THREAD.store(true, Ordering::Relaxed);
            return say(&format!(
                "the system has no memory or no thread left for this process ({words}): raise its limits \
                 (`ulimit -u`, or `TasksMax=` and `MemoryMax=` of the service), and run again"
            ));
        }
        let place = panic.location().map_or(String::new(), |place| format!(" ({place})"));
        say(&format!("internal error: {words}{place}"));
    }));
    let failure = |_| match NO_THREAD.load(Ordering::Relaxed) {
        true => Exit::MirrorUnusable,
        false => Exit::Failure,
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(failure)
}

/// Whether these are the words of a library that could not start a thread.
fn wants_a_thread(words: &str) -> bool {
    words.contains("spawn") && (words.contains("os error 11") || words.contains("os error 12"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_cannot_be_started_is_no_fault_of_ours() {
        let tokio = "OS can't spawn worker thread: Resource temporarily unavailable (os error 11)";
        let std = "failed to spawn thread: Os { code: 11, message: \"…\" } (os error 12)";
        assert!(wants_a_thread(tokio) && wants_a_thread(std));
        assert!(!wants_a_thread("index out of bounds") && !wants_a_thread("spawn failed"));
    }
}
