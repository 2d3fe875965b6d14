//! `plainfold verify --repair` of a mirror that a process works on: that process does it.

use std::path::Path;
use std::time::Duration;

use super::exit::{Exit, Usage};
use super::output::{Lines, Stream, many};
use crate::api::client::Door;
use crate::document::CollectionName;
use crate::job::{JobEffect, JobOutcome, JobReport, JobState};

/// How often the process is asked how far it is.
const EVERY: Duration = Duration::from_millis(300);

/// The log says how far it is this often.
const SAID_EVERY: u32 = 33;

/// Lets the process that works on a mirror repair a collection, or all, and prints what it did. `None` if no
/// process answers.
pub async fn repair(
    directory: &Path,
    collection: Option<&CollectionName>,
    as_json: bool,
) -> anyhow::Result<Option<Exit>> {
    let Ok(door) = Door::find(directory) else { return Ok(None) };
    let mut job = match door.begin_repair(collection).await? {
        None => return Ok(None),
        Some(Some(job)) => job,
        Some(None) => {
            let name = collection.map(ToString::to_string).unwrap_or_default();
            return Err(Usage(format!("the mirror has no collection `{name}`")).into());
        }
    };
    let (id, begun, kind) = (job.id, job.started_at, job.kind);
    tracing::info!("the process that works on the mirror repairs it: job {id}");
    let mut asked = 0;
    while job.runs() {
        tokio::time::sleep(EVERY).await;
        let gone = || anyhow::anyhow!("the process has ended before job {id}: repair again");
        // Another process counts its jobs from 1 again.
        let now = door.job(id).await?;
        let now = now.filter(|now| (now.started_at, now.kind) == (begun, kind));
        job = now.ok_or_else(gone)?;
        asked += 1;
        if asked % SAID_EVERY == 0 {
            let (phase, done) = (&job.phase, job.progress.done);
            match job.progress.total {
                Some(total) => tracing::info!("{phase}: {done} of {total} documents"),
                None => tracing::info!("{phase}: {}", many(done, "document")),
            }
        }
    }
    let text = if as_json { Lines::pretty(&job)? } else { lines(&job)? };
    Stream::Stdout.report("the report", &text)?;
    Ok(Some(match (job.state, &job.outcome) {
        (JobState::Done, Some(outcome)) if outcome.problem_count == 0 => Exit::Done,
        (JobState::Done, _) => Exit::DocumentsFailed,
        (JobState::Cancelled | JobState::Running, _) => Exit::Interrupted,
        (JobState::Failed, _) => Exit::Failure,
    }))
}

fn lines(job: &JobReport) -> anyhow::Result<Lines> {
    let mut out = Lines::default();
    let empty = JobOutcome::default();
    let outcome = job.outcome.as_ref().unwrap_or(&empty);
    for repair in &outcome.repairs {
        let what = match repair.result {
            JobEffect::Repaired => "repaired",
            JobEffect::NotRepaired => "not-repaired",
        };
        let reason = repair.reason.as_ref().map(|reason| format!(": {reason}"));
        let (collection, id) = (&repair.collection, &repair.id);
        writeln!(out, "{what:<12} {collection}  {id}{}", reason.unwrap_or_default())?;
    }
    for problem in &outcome.problems {
        writeln!(out, "{:<12} {}: {}", problem.kind, problem.path, problem.reason)?;
    }
    match (job.state, &job.error) {
        (JobState::Done, _) => {}
        (JobState::Failed, Some(error)) => writeln!(out, "the job has failed: {error}")?,
        (_, _) => writeln!(out, "the job was cancelled before its end: repair again")?,
    }
    let problems = match outcome.problem_count {
        0 => "no problems left".to_owned(),
        count => format!("{} left", many(count, "problem")),
    };
    writeln!(
        out,
        "{problems}: {}, {}, {} read; {} repaired, {} not repaired",
        many(outcome.documents, "document"),
        many(outcome.attachments, "attachment"),
        many(outcome.bytes, "byte"),
        outcome.repaired,
        outcome.not_repaired,
    )?;
    Ok(out)
}
