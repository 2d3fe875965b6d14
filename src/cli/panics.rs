//! A fault of Plainfold's own ends with one line and its exit code, not with a backtrace.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::exit::{Exit, say};

/// Runs a command. A panic, wherever it is, is said in one line; one that ends the command ends it with
/// the code for it.
pub fn caught(run: impl FnOnce() -> Exit) -> Exit {
    std::panic::set_hook(Box::new(|panic| {
        let words = panic.payload_as_str().and_then(|words| words.lines().next());
        let place = panic.location().map_or(String::new(), |place| format!(" ({place})"));
        say(&format!("internal error: {}{place}", words.unwrap_or("no reason given")));
    }));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Exit::Failure)
}
