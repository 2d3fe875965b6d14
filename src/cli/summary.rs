//! The last lines of a mirror run: what was done, and what could not be.

use indicatif::HumanBytes;
use serde::Serialize;

use super::output::{OutputError, Stream};
use crate::agent::Outcome;
use crate::pipeline::Report;

/// So many failures are named; `status` names more.
const NAMED: usize = 20;

/// Prints the summary on standard error, as text or as one line of JSON. `told` says that a signal
/// ended the run.
pub fn print(outcome: &Outcome, told: bool, json: bool) -> Result<(), OutputError> {
    let summary = Summary::of(outcome, told);
    let text = match json {
        true => serde_json::to_string(&summary).unwrap_or_default() + "\n",
        false => summary.text(),
    };
    Stream::Stderr.report("the summary", &text)
}

/// What is summed up.
#[derive(Debug, Serialize)]
struct Summary {
    timestamp: jiff::Timestamp,
    level: &'static str,
    /// How the run ended.
    message: &'static str,
    documents: u64,
    deletions: u64,
    unchanged: u64,
    attachments: u64,
    bytes: u64,
    seconds: f64,
    failures: usize,
    held_back: u64,
    /// Collections of which deletions are held back, and how many.
    braked: Vec<String>,
    /// The first failures in words, then what ended collections before their time.
    not_mirrored: Vec<String>,
    stopped: Vec<String>,
}

impl Summary {
    fn of(outcome: &Outcome, told: bool) -> Self {
        let sum = |count: fn(&Report) -> u64| -> u64 { outcome.reports.iter().map(count).sum() };
        let message = match (outcome.caught_up, outcome.errors.is_empty(), told) {
            (true, true, _) => "caught up",
            (_, false, _) => "ended with errors",
            (false, true, true) => "interrupted before it had caught up",
            (false, true, false) => "not caught up",
        };
        let failures = outcome.failures.iter().take(NAMED);
        let named = failures.map(|(collection, failure)| {
            format!("{collection}: {}: {}", failure.place, failure.reason)
        });
        let braked = outcome.reports.iter().filter(|report| report.held_back > 0);
        let braked =
            braked.map(|report| format!("{}: {} deletions", report.collection, report.held_back));
        let held_back = outcome.held_back();
        let well = outcome.errors.is_empty() && outcome.failures.is_empty() && held_back == 0;
        Self {
            timestamp: jiff::Timestamp::now(),
            level: if well { "INFO" } else { "ERROR" },
            message,
            documents: sum(|report| report.documents),
            deletions: sum(|report| report.deletions),
            unchanged: sum(|report| report.unchanged),
            attachments: sum(|report| report.attachments),
            bytes: sum(|report| report.bytes),
            seconds: outcome.took.as_secs_f64(),
            failures: outcome.failures.len(),
            held_back,
            braked: braked.collect(),
            not_mirrored: named.collect(),
            stopped: outcome.errors.iter().map(ToString::to_string).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for failure in &self.not_mirrored {
            text.push_str(&format!("not mirrored: {failure}\n"));
        }
        if self.failures > self.not_mirrored.len() {
            let more = self.failures - self.not_mirrored.len();
            text.push_str(&format!("not mirrored: {more} more, see `plainfold status`\n"));
        }
        for collection in &self.braked {
            text.push_str(&format!("held back: {collection}, until `plainfold release`\n"));
        }
        for error in &self.stopped {
            text.push_str(&format!("stopped: {error}\n"));
        }
        text.push_str(&format!(
            "{}: {} documents written, {} deleted, {} unchanged, {} attachments, {} in {:.1} s, {} \
             failures\n",
            self.message,
            self.documents,
            self.deletions,
            self.unchanged,
            self.attachments,
            HumanBytes(self.bytes),
            self.seconds,
            self.failures,
        ));
        text
    }
}
