//! The report of a mirror run: what was done, and what is not as it should be. The last line says first
//! what is wrong; it says "caught up" only if nothing is.

use std::path::Path;

use indicatif::HumanBytes;
use serde::Serialize;

use super::logging::Logged;
use super::output::{Lines, OutputError, Stream, many};
use crate::document::plain::quoted;
use crate::pipeline::{self, Awaited, Phase};
use crate::runner::{self, Absent, SessionError};

/// How many failures are named; `status` names more.
const NAMED: usize = 20;

/// How a run was asked to work, and how it was asked to end.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The mirror's directory.
    pub mirror: &'a Path,
    /// It followed the source.
    pub live: bool,
    /// What is absent counts as success.
    pub allow_empty: bool,
    /// A signal ended it.
    pub signalled: bool,
    /// What the log has named, so that the text does not name it again.
    pub logged: Logged,
    /// The summary is a line of JSON.
    pub json: bool,
}

/// Prints the summary on standard output, as text or as one line of JSON. If something is wrong and
/// standard output cannot be written, standard error gets it.
pub fn print(outcome: &runner::Outcome, run: Run<'_>) -> Result<(), OutputError> {
    let summary = Summary::of(outcome, run);
    let text = match run.json {
        true => Lines::json(&summary).unwrap_or_default(),
        false => summary.text(run),
    };
    let written = Stream::Stdout.write("the summary", &text);
    if written.is_err() && !outcome.is_complete() {
        // There is no third place.
        let _lost = Stream::Stderr.write("the summary", &text);
    }
    match written {
        Err(error) if error.is_closed_pipe() => Ok(()),
        written => written,
    }
}

/// What is wrong, in a few words each, most urgent first.
fn wrong(outcome: &runner::Outcome, run: Run<'_>) -> Vec<String> {
    let of = |phase| outcome.reports.iter().filter(|report| report.phase == phase).count();
    let absent = |is: fn(&Absent) -> bool| outcome.absent.iter().filter(|one| is(one)).count();
    let waits = |what| {
        let waits =
            |one: &&pipeline::PipelineReport| one.phase == Phase::Waiting && one.awaited == what;
        outcome.reports.iter().filter(waits).count()
    };
    let (gone, silent, stuck) = (
        waits(Awaited::Database),
        waits(Awaited::Source),
        waits(Awaited::Disk) + waits(Awaited::Room),
    );
    // A mirror that follows its source waits for a database that has vanished.
    let awaited = if run.live && !run.allow_empty { of(Phase::Vanished) } else { 0 };
    let vanished = absent(|one| matches!(one, Absent::Vanished { .. })) + gone + awaited;
    let unmatched = absent(|one| matches!(one, Absent::Pattern(_) | Absent::Database { .. }));
    let failed = outcome.errors.iter();
    let failed = failed.filter(|one| matches!(one, SessionError::Collection { .. })).count();
    let mut parts = Vec::new();
    let interrupted = run.signalled && !outcome.caught_up;
    if interrupted {
        parts.push("interrupted before all was mirrored".to_owned());
    }
    let all = outcome.reports.len();
    match failed {
        0 if outcome.errors.is_empty() => {}
        0 => parts.push("failed".to_owned()),
        failed if all > 1 => parts.push(format!("{failed} of {} failed", many(all, "collection"))),
        _ => parts.push("failed".to_owned()),
    }
    let counted = of(Phase::Failed) + gone + silent + stuck;
    let counts = [
        (vanished, "database has vanished", "databases have vanished"),
        (outcome.failures.len(), "document failed", "documents failed"),
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
            silent,
            "collection is behind its source, which did not answer at the end",
            "collections are behind their sources, which did not answer at the end",
        ),
        (
            stuck,
            "collection is behind its source, because the disk could not be written at the end",
            "collections are behind their sources, because the disk could not be written at the end",
        ),
        (
            // What failed or waits is counted above, and a run that was interrupted has said so.
            if interrupted { 0 } else { outcome.behind().saturating_sub(counted) },
            "collection is behind its source",
            "collections are behind their sources",
        ),
    ];
    let counts = counts.into_iter().filter(|(count, ..)| *count > 0);
    parts.extend(counts.map(|(count, one, more)| match count {
        1 => format!("1 {one}"),
        _ => format!("{} {more}", count),
    }));
    let empty = |one: &Absent| matches!(one, Absent::Everything { .. });
    if outcome.absent.iter().any(empty) {
        parts.push("nothing was mirrored, because the source is empty".to_owned());
    }
    if parts.is_empty() && !outcome.caught_up {
        parts.push("ended before all was mirrored".to_owned());
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
    /// Documents that are still to be fetched, because the run was asked to end.
    in_flight: u64,
    held_back: u64,
    /// Collections of which deletions are held back, and how many.
    braked: Vec<String>,
    /// What was asked for, or followed before, and is not there.
    not_there: Vec<String>,
    /// The first security objects that could not be mirrored, with the reasons.
    security_not_mirrored: Vec<String>,
    /// The first failures in words.
    not_mirrored: Vec<String>,
    /// What ended collections before their time.
    stopped: Vec<String>,
    /// What the log says with a warning, for a text after a log without warnings.
    #[serde(skip)]
    warnings: Vec<String>,
}

impl Summary {
    fn of(outcome: &runner::Outcome, run: Run<'_>) -> Self {
        let sum = |count: fn(&pipeline::PipelineReport) -> u64| -> u64 {
            outcome.reports.iter().map(count).sum()
        };
        let wrong = wrong(outcome, run);
        let message = match wrong.is_empty() {
            true if run.live && !run.json => "caught up, then stopped by a signal".to_owned(),
            true => "caught up".to_owned(),
            false => wrong.join(", "),
        };
        let failures = outcome.failures.iter().take(NAMED);
        let named = failures.map(|(collection, failure)| {
            format!("{collection}: {}: {}", failure.place, failure.reason)
        });
        let unsecured = outcome
            .unsecured()
            .map(|(collection, reason)| format!("the security object of {collection}: {reason}"));
        let mirror = quoted(&run.mirror.to_string_lossy());
        let warnings = outcome.reports.iter().flat_map(|report| {
            let pipeline::PipelineReport { collection, held_back, .. } = report;
            let held = (*held_back > 0).then(|| {
                let of = quoted(collection.as_str());
                let held = many(*held_back, "deletion");
                format!("held back: {collection}: {held}; `plainfold release {mirror} {of}` applies them")
            });
            let counts = report.count_trouble.as_ref();
            let counts = counts.map(|why| format!("{collection}: {why}, even after a full scan"));
            let waits = report.trouble.as_ref().filter(|_| report.phase == Phase::Waiting);
            let waits = waits.map(|why| format!("behind: {collection}: {why}"));
            [held, counts, waits].into_iter().flatten()
        });
        let braked = outcome.reports.iter().filter(|report| report.held_back > 0);
        let braked = braked
            .map(|report| format!("{}: {}", report.collection, many(report.held_back, "deletion")));
        Self {
            timestamp: jiff::Timestamp::now(),
            level: if outcome.is_complete() && wrong.is_empty() { "INFO" } else { "ERROR" },
            message,
            documents: sum(|report| report.documents),
            deletions: sum(|report| report.deletions),
            unchanged: sum(|report| report.unchanged),
            attachments: sum(|report| report.attachments),
            bytes: sum(|report| report.bytes),
            seconds: outcome.took.as_secs_f64(),
            failures: outcome.failures.len(),
            in_flight: outcome.in_flight(),
            held_back: outcome.held_back(),
            braked: braked.collect(),
            not_there: outcome.absent.iter().map(ToString::to_string).collect(),
            security_not_mirrored: unsecured.take(NAMED).collect(),
            not_mirrored: named.collect(),
            stopped: outcome.errors.iter().map(ToString::to_string).collect(),
            warnings: warnings.collect(),
        }
    }

    fn text(&self, run: Run<'_>) -> Lines {
        let mut text = Lines::default();
        self.name_what_is_wrong(&mut text, run);
        text.push(&format!(
            "{}: {} written, {} deleted, {} unchanged, {}, {} in {:.1} s",
            self.message,
            many(self.documents, "document"),
            self.deletions,
            self.unchanged,
            many(self.attachments, "attachment"),
            HumanBytes(self.bytes),
            self.seconds,
        ));
        text
    }

    fn name_what_is_wrong(&self, text: &mut Lines, run: Run<'_>) {
        let mut name = |word: &str, what: &[String]| {
            what.iter().for_each(|what| text.push(&format!("{word}: {what}")));
        };
        if !run.logged.errors {
            name("missing", &self.not_there);
            name("not mirrored", &self.not_mirrored);
            if self.failures > self.not_mirrored.len() {
                let more = self.failures - self.not_mirrored.len();
                let mirror = quoted(&run.mirror.to_string_lossy());
                let more = format!("{more} more; `plainfold status {mirror}` lists them");
                name("not mirrored", &[more]);
            }
            name("failed", &self.stopped);
        }
        if !run.logged.warnings {
            name("not mirrored", &self.security_not_mirrored);
            self.warnings.iter().for_each(|line| text.push(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::source::SourceError;

    const ALL: Logged = Logged { errors: true, warnings: true };

    fn ends() -> Run<'static> {
        let mirror = Path::new("it's a mirror");
        Run { mirror, live: false, allow_empty: false, signalled: false, logged: ALL, json: false }
    }

    fn outcome(phases: &[Phase], caught_up: bool) -> runner::Outcome {
        let report = |(number, phase): (usize, &Phase)| {
            let mut report =
                pipeline::PipelineReport::new(format!("shelf-{number}").as_str().into());
            report.phase = *phase;
            report
        };
        runner::Outcome {
            reports: phases.iter().enumerate().map(report).collect(),
            failures: Vec::new(),
            absent: Vec::new(),
            errors: Vec::new(),
            caught_up,
            took: Duration::from_secs(1),
        }
    }

    fn error(collection: &str) -> SessionError {
        let error = SourceError::transient("no answer").into();
        SessionError::Collection { collection: collection.into(), error }
    }

    fn message(outcome: &runner::Outcome, run: Run<'_>) -> String {
        Summary::of(outcome, run).message
    }

    #[test]
    fn only_a_run_that_lacks_nothing_has_caught_up() {
        let done = outcome(&[Phase::CaughtUp, Phase::CaughtUp], true);
        assert_eq!(message(&done, ends()), "caught up");
        let live = Run { live: true, signalled: true, ..ends() };
        let followed = outcome(&[Phase::Live], true);
        assert!(message(&followed, live).starts_with("caught up"));
        assert_eq!(message(&followed, Run { json: true, ..live }), "caught up");

        let mut some = outcome(&[Phase::CaughtUp, Phase::Failed], false);
        some.errors.push(error("shelf-1"));
        let mut only = outcome(&[Phase::Failed], false);
        only.errors.push(error("shelf-0"));
        let mut held = outcome(&[Phase::CaughtUp], true);
        held.reports[0].held_back = 1;
        let cut = outcome(&[Phase::CaughtUp, Phase::Stopped], false);
        let signalled = Run { signalled: true, ..ends() };
        for (outcome, run, expected) in [
            (&some, ends(), "1 of 2 collections failed"),
            (&only, ends(), "failed"),
            (&held, ends(), "1 deletion is held back"),
            (&cut, signalled, "interrupted before all was mirrored"),
            (&cut, ends(), "1 collection is behind its source"),
            (&outcome(&[], false), signalled, "interrupted before all was mirrored"),
            (&outcome(&[], false), ends(), "ended before all was mirrored"),
        ] {
            assert_eq!(message(outcome, run), expected);
            assert!(!message(outcome, run).contains("caught up"));
        }
    }

    #[test]
    fn failures_that_no_log_has_named_are_in_the_text() {
        let mut only = outcome(&[Phase::Failed], false);
        only.errors.push(error("shelf-0"));
        only.reports[0].held_back = 2;
        let summary = Summary::of(&only, ends());
        let text = |logged| summary.text(Run { logged, ..ends() }).as_str().to_owned();
        assert_eq!(text(ALL).lines().count(), 1);
        let nothing = text(Logged { errors: false, warnings: false });
        assert!(nothing.contains("failed: shelf-0: no answer"), "{nothing}");
        let errors = text(Logged { warnings: false, ..ALL });
        assert!(!errors.contains("no answer"), "{errors}");
        let command = "`plainfold release 'it'\\''s a mirror' shelf-0`";
        assert!(errors.contains(command) && nothing.contains(command), "{errors}");
    }

    #[test]
    fn what_a_collection_waited_for_at_the_end_is_in_the_last_line() {
        for (awaited, expected) in [
            (Awaited::Database, "1 database has vanished"),
            (Awaited::Source, "1 collection is behind its source, which did not answer"),
            (Awaited::Disk, "1 collection is behind its source, because the disk"),
        ] {
            let mut behind = outcome(&[Phase::Live, Phase::Waiting], true);
            behind.reports[1].awaited = awaited;
            behind.reports[1].trouble = Some("the reason".to_owned());
            let live = Run { live: true, signalled: true, ..ends() };
            assert!(!message(&outcome(&[Phase::Vanished], true), live).contains("caught up"));
            assert!(message(&behind, live).starts_with(expected), "{}", message(&behind, live));
            let quiet = Run { logged: Logged { warnings: false, ..ALL }, ..live };
            let text = Summary::of(&behind, quiet).text(quiet);
            assert!(text.as_str().contains("shelf-1: the reason"), "{text:?}");
        }
    }
}
