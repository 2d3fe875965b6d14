//! The last lines of a mirror run: what was done, and what could not be.

use indicatif::HumanBytes;
use serde::Serialize;

use super::output::{Lines, OutputError, Stream, many};
use crate::agent::{Absent, Outcome};
use crate::pipeline::Report;

/// So many failures are named; `status` names more.
const NAMED: usize = 20;

/// Prints the summary on standard error, as text or as one line of JSON. `told` says that a signal
/// ended the run.
pub fn print(outcome: &Outcome, told: bool, json: bool) -> Result<(), OutputError> {
    let summary = Summary::of(outcome, told);
    let text = match json {
        true => Lines::json(&summary).unwrap_or_default(),
        false => summary.text(),
    };
    Stream::Stderr.report("the summary", &text)
}

/// What is wrong, in a few words each, most urgent first: the last line must not begin with success.
fn wrong(outcome: &Outcome) -> Vec<String> {
    let count = |is: fn(&Absent) -> bool| outcome.absent.iter().filter(|one| is(one)).count();
    let vanished = count(|one| matches!(one, Absent::Vanished { .. }));
    let unmatched = count(|one| matches!(one, Absent::Pattern(_) | Absent::Database { .. }));
    let empty = count(|one| matches!(one, Absent::Everything { .. }));
    let parts = [
        (vanished, "database has vanished", "databases have vanished"),
        (outcome.failures.len(), "document is not mirrored", "documents are not mirrored"),
        (
            outcome.in_flight() as usize,
            "document is still to be fetched",
            "documents are still to be fetched",
        ),
        (outcome.held_back() as usize, "deletion is held back", "deletions are held back"),
        (
            outcome.miscounted(),
            "collection has other documents than its source counts",
            "collections have other documents than their sources count",
        ),
        (
            outcome.unsecured().count(),
            "security object is not mirrored",
            "security objects are not mirrored",
        ),
        (unmatched, "name or glob matches nothing", "names or globs match nothing"),
        (
            outcome.behind(),
            "collection is behind its source",
            "collections are behind their source",
        ),
    ];
    let parts = parts.into_iter().filter(|(count, ..)| *count > 0);
    let mut parts: Vec<String> = parts
        .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
        .collect();
    if empty > 0 {
        parts.push("nothing was mirrored, because the source is empty".to_owned());
    }
    parts
}

/// What is summed up.
#[derive(Debug, Serialize)]
struct Summary {
    timestamp: jiff::Timestamp,
    level: &'static str,
    /// How the run ended.
    message: String,
    documents: u64,
    deletions: u64,
    unchanged: u64,
    attachments: u64,
    bytes: u64,
    seconds: f64,
    failures: usize,
    /// Documents that are still to be fetched, because the run was told to end.
    in_flight: u64,
    held_back: u64,
    /// Collections of which deletions are held back, and how many.
    braked: Vec<String>,
    /// What was asked for, or followed before, and is not there.
    not_there: Vec<String>,
    /// The first security objects that could not be mirrored, with the reasons.
    security_not_mirrored: Vec<String>,
    /// The first failures in words, then what ended collections before their time.
    not_mirrored: Vec<String>,
    stopped: Vec<String>,
}

impl Summary {
    fn of(outcome: &Outcome, told: bool) -> Self {
        let sum = |count: fn(&Report) -> u64| -> u64 { outcome.reports.iter().map(count).sum() };
        let wrong = wrong(outcome);
        let message = match (outcome.caught_up, outcome.errors.is_empty(), told) {
            (true, true, _) if wrong.is_empty() => "caught up".to_owned(),
            (true, true, _) if outcome.reports.is_empty() => wrong.join(", "),
            (true, true, _) => format!("{}; everything else is caught up", wrong.join(", ")),
            (_, false, _) => "ended with errors".to_owned(),
            (false, true, true) => "interrupted before it had caught up".to_owned(),
            (false, true, false) => "not caught up".to_owned(),
        };
        let failures = outcome.failures.iter().take(NAMED);
        let named = failures.map(|(collection, failure)| {
            format!("{collection}: {}: {}", failure.place, failure.reason)
        });
        let unsecured = outcome
            .unsecured()
            .map(|(collection, reason)| format!("the security object of {collection}: {reason}"));
        let braked = outcome.reports.iter().filter(|report| report.held_back > 0);
        let braked =
            braked.map(|report| format!("{}: {} deletions", report.collection, report.held_back));
        let held_back = outcome.held_back();
        let well = outcome.is_complete();
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
            in_flight: outcome.in_flight(),
            held_back,
            braked: braked.collect(),
            not_there: outcome.absent.iter().map(ToString::to_string).collect(),
            security_not_mirrored: unsecured.take(NAMED).collect(),
            not_mirrored: named.collect(),
            stopped: outcome.errors.iter().map(ToString::to_string).collect(),
        }
    }

    fn text(&self) -> Lines {
        let mut text = Lines::default();
        for absent in &self.not_there {
            text.push(&format!("missing: {absent}"));
        }
        for security in &self.security_not_mirrored {
            text.push(&format!("not mirrored: {security}"));
        }
        for failure in &self.not_mirrored {
            text.push(&format!("not mirrored: {}", failure));
        }
        if self.failures > self.not_mirrored.len() {
            let more = self.failures - self.not_mirrored.len();
            text.push(&format!("not mirrored: {more} more, see `plainfold status`"));
        }
        for collection in &self.braked {
            text.push(&format!("held back: {}, until `plainfold release`", collection));
        }
        for error in &self.stopped {
            text.push(&format!("stopped: {}", error));
        }
        text.push(&format!(
            "{}: {} written, {} deleted, {} unchanged, {}, {} in {:.1} s, {}",
            self.message,
            many(self.documents, "document"),
            self.deletions,
            self.unchanged,
            many(self.attachments, "attachment"),
            HumanBytes(self.bytes),
            self.seconds,
            many(self.failures, "failure"),
        ));
        text
    }
}
