//! The last lines of a mirror run: what was done, and what could not be.

use std::io::Write;

use indicatif::HumanBytes;

use crate::agent::{AgentError, Outcome};

/// Prints the summary on standard error. `told` says that a signal ended the run.
pub fn print(outcome: &Outcome, told: bool) {
    // A closed standard error is nobody's to be told.
    let _closed = std::io::stderr().write_all(text(outcome, told).as_bytes());
}

fn text(outcome: &Outcome, told: bool) -> String {
    /// So many failures are named; `status` names more.
    const NAMED: usize = 20;
    let sum = |count: fn(&crate::pipeline::Report) -> u64| -> u64 {
        outcome.reports.iter().map(count).sum()
    };
    let mut text = String::new();
    for (collection, failure) in outcome.failures.iter().take(NAMED) {
        text.push_str(&format!(
            "not mirrored: {collection}: {}: {}\n",
            failure.place, failure.reason
        ));
    }
    if outcome.failures.len() > NAMED {
        let more = outcome.failures.len() - NAMED;
        text.push_str(&format!("not mirrored: {more} more, see `plainfold status`\n"));
    }
    for error in &outcome.errors {
        let error: &AgentError = error;
        text.push_str(&format!("stopped: {error}\n"));
    }
    let state = match (outcome.caught_up, outcome.errors.is_empty(), told) {
        (true, true, _) => "caught up",
        (_, false, _) => "ended with errors",
        (false, true, true) => "interrupted before it had caught up",
        (false, true, false) => "not caught up",
    };
    text.push_str(&format!(
        "{state}: {} documents written, {} deleted, {} unchanged, {} attachments, {} in {:.1} s, \
         {} failures\n",
        sum(|report| report.documents),
        sum(|report| report.deletions),
        sum(|report| report.unchanged),
        sum(|report| report.attachments),
        HumanBytes(sum(|report| report.bytes)),
        outcome.took.as_secs_f64(),
        outcome.failures.len(),
    ));
    text
}
