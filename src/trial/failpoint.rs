//! Named points at which a test has the process abort, by the variable `FAILPOINTS` of the crate
//! `fail`: `publish=2*off->return` aborts at the third passing of `publish`.

use std::io::Write as _;

/// Passes a point at which a test may have the process abort.
pub fn pass(point: &str) {
    fail::fail_point!(point, |_| {
        // Whoever reads this wants to know that the abort was meant; nobody there is no reason to stay.
        let _ = writeln!(std::io::stderr(), "aborted at the failpoint `{point}`");
        std::process::abort()
    });
}
