//! Errands in a running mirror, by request: every byte is verified, and what is wrong is fetched again.
//!
//! Reading takes no lock, and what the pipelines write meanwhile is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::damage::{find, look_twice};
use super::integrity::{Looked, word};
use super::mending::{Mended, Mending};
use super::order::Order;
use super::session::Watcher;
use super::shared::Shared;
use crate::archive::{self, Problem};
use crate::document::{CollectionName, DocumentId, Selection};
use crate::job::{
    JobEffect, JobHandle, JobKind, JobOutcome, JobProblem, JobRepair, JobReport, JobState,
};
use crate::pipeline::{Fate, WrongDocument};
use crate::verify::{self, Pace, Restraint, Spot, Verified, VerifyError, VerifyProgress, Wrong};

/// Why no job is begun.
#[derive(Debug, thiserror::Error)]
pub enum ErrandError {
    /// Another one runs.
    #[error(
        "job {} is under way, and a mirror has one at a time: wait for its end, or cancel it", _0.id
    )]
    Busy(Box<JobReport>),
    /// The session has ended.
    #[error("the mirror is about to end: ask again after it has started again")]
    Ending,
    /// The mirror has no such collection.
    #[error("there is no such collection")]
    NoCollection,
}

/// How often the progress of a job is noted.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The number of documents that are fetched again at a time.
const TOGETHER: usize = 1000;

impl Watcher {
    /// Begins to verify a collection, or all, at most at this number of bytes a second; with
    /// [`JobKind::Repair`], what is wrong is fetched again.
    pub async fn begin_job(
        &self,
        kind: JobKind,
        collection: Option<CollectionName>,
        rate: Option<u64>,
    ) -> Result<JobReport, ErrandError> {
        let shared = Arc::clone(&self.shared);
        let home = shared.home.clone().filter(|_| !shared.errands.is_cancelled());
        let home = home.ok_or(ErrandError::Ending)?;
        if let Some(name) = collection.clone() {
            let path = shared.mirror.path().to_owned();
            let found = home.spawn_blocking(move || find(&path, &name));
            if !matches!(found.await, Ok(Ok(Some(_)))) {
                return Err(ErrandError::NoCollection);
            }
        }
        let job = shared.jobs.begin(kind, collection, &shared.errands);
        let job = job.map_err(ErrandError::Busy)?;
        let report = job.report();
        let errand = Errand { watcher: self.clone(), job, rate };
        home.spawn(errand.run());
        Ok(report)
    }

    /// The jobs of this session that are remembered, the newest first.
    pub fn jobs(&self) -> Vec<JobReport> {
        self.shared.jobs.list()
    }

    /// A job.
    pub fn job(&self, id: u64) -> Option<JobReport> {
        self.shared.jobs.get(id).map(|job| job.report())
    }

    /// Tells a job to end, and returns it as it is now.
    pub fn cancel_job(&self, id: u64) -> Option<JobReport> {
        let job = self.shared.jobs.get(id)?;
        if job.report().runs() {
            job.cancel();
        }
        Some(job.report())
    }
}

/// A job that is under way.
struct Errand {
    watcher: Watcher,
    job: Arc<JobHandle>,
    rate: Option<u64>,
}

impl Errand {
    async fn run(self) {
        let job = Arc::clone(&self.job);
        let orders = self.watcher.shared.orders.clone();
        let JobReport { id, kind, .. } = job.report();
        let what = if kind == JobKind::Verify { "verify" } else { "repair" };
        tracing::info!("job {id} begins: {what}");
        // In a task of its own, so that a panic is an error of the job.
        let ended = tokio::spawn(self.carry_out()).await;
        let result = ended.unwrap_or_else(|error| Err(format!("internal error: {error}")));
        job.end(result);
        match job.report() {
            JobReport { error: Some(error), .. } => tracing::error!("job {id} has failed: {error}"),
            JobReport { state: JobState::Cancelled, .. } => {
                tracing::info!("job {id} was cancelled before its end");
            }
            JobReport { outcome, .. } => {
                let problems = outcome.map_or(0, |outcome| outcome.problem_count);
                tracing::info!(problems, "job {id} has ended");
            }
        }
        // A catch-up may have waited for it.
        let _ended = orders.send(Order::ErrandEnded);
    }

    async fn carry_out(self) -> Result<JobOutcome, String> {
        let said = |error: VerifyError| error.to_string();
        self.job.enter("verifying", None);
        let verified = self.verify().await.map_err(said)?;
        let mut outcome = JobOutcome::default();
        for collection in &verified.report.collections {
            outcome.documents += collection.side.documents;
            outcome.attachments += collection.counts.attachments;
            outcome.bytes += collection.counts.bytes;
        }
        let mut problems = verified.report.problems.clone();
        if self.job.report().kind == JobKind::Repair {
            let wrong = verified.wrong(None).map_err(said)?;
            let total = wrong.values().map(|wrong| wrong.all().len() as u64).sum();
            drop(verified);
            self.job.enter("repairing", Some(total));
            let mut done = 0;
            for (name, wrong) in wrong {
                if !self.job.stop().is_cancelled() {
                    self.repair(&name, wrong, &mut outcome, &mut problems, &mut done).await?;
                }
            }
        }
        for Problem { path, kind, reason } in problems {
            outcome.blame(JobProblem { path, kind: word(kind).to_owned(), reason });
        }
        Ok(outcome)
    }

    /// Reads every byte, and remembers what was found.
    async fn verify(&self) -> Result<Verified, VerifyError> {
        let shared = Arc::clone(&self.watcher.shared);
        let progress = Arc::new(VerifyProgress::default());
        let wanted = self.job.report().collection;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let options = verify::Options {
            collections: wanted.as_ref().map(Selection::of),
            allow_empty: true,
            progress: Some(Arc::clone(&progress)),
            restraint: Restraint {
                // The mirror's own work has the others.
                threads: Some((threads / 2).max(1)),
                pace: self.rate.map(|rate| Arc::new(Pace::new(rate))),
                stop: self.job.stop().clone(),
            },
            ..verify::Options::default()
        };
        let (path, begun) = (shared.mirror.path().to_owned(), Timestamp::now());
        let reading = spawn_blocking(move || {
            let verified = verify::verify(&path, &options)?;
            note(&shared, &path, &verified, begun)?;
            Ok(verified)
        });
        tokio::pin!(reading);
        loop {
            tokio::select! {
                verified = &mut reading => return match verified {
                    Ok(verified) => verified,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = tokio::time::sleep(PROGRESS_EVERY) => {
                    let steps = progress.steps();
                    let done = steps.iter().map(|step| step.documents).sum();
                    let total = steps.iter().map(|step| step.total).sum();
                    self.job.advance(done, total);
                }
            }
        }
    }

    /// Fetches what is wrong in a collection again, and reads it again. What is right then is no problem any
    /// more.
    async fn repair(
        &self,
        name: &CollectionName,
        wrong: Wrong,
        outcome: &mut JobOutcome,
        problems: &mut Vec<Problem>,
        done: &mut u64,
    ) -> Result<(), String> {
        for folder in &wrong.nameless {
            let reason = "its folder does not show which document it belongs to: remove it by hand";
            outcome.note(refused(name, folder.clone(), reason));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let ids = wrong.all();
        for (number, some) in ids.chunks(TOGETHER).enumerate().map(|(at, ids)| (at, ids.to_vec())) {
            if self.job.stop().is_cancelled() {
                return Ok(());
            }
            let security = wrong.security && number == 0;
            self.fetch(name, some.clone(), security, outcome).await;
            self.look_again(name, some, security, problems).await.map_err(|e| e.to_string())?;
            *done += TOGETHER.min(ids.len()) as u64;
            self.job.advance(*done, self.job.report().progress.total);
        }
        if ids.is_empty() && wrong.security {
            self.fetch(name, Vec::new(), true, outcome).await;
            self.look_again(name, Vec::new(), true, problems).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    async fn fetch(
        &self,
        name: &CollectionName,
        ids: Vec<DocumentId>,
        security: bool,
        outcome: &mut JobOutcome,
    ) {
        let damaged = ids.iter().cloned().collect();
        let wrong = WrongDocument { damaged, ..WrongDocument::default() };
        let mending = self.watcher.shared.mend(name, Mending { wrong, security });
        let mended = tokio::select! {
            mended = mending => mended,
            // What is in flight is finished, but nobody waits for it.
            () = self.job.stop().cancelled(), if !self.watcher.shared.errands.is_cancelled() => {
                Mended::failed("the job was cancelled before it was fetched")
            }
        };
        let Mended { fates, security: found, error } = mended;
        let answered: BTreeSet<_> = fates.iter().map(|(id, _)| id.clone()).collect();
        for (id, fate) in fates {
            outcome.note(repair_of(name, &id, fate));
        }
        let reason = error.unwrap_or_else(|| "it was not processed: repair again".to_owned());
        for id in ids.into_iter().filter(|id| !answered.contains(id)) {
            outcome.note(refused(name, id.to_string(), &reason));
        }
        if security {
            let id = "_security".to_owned();
            outcome.note(match found {
                Some(true) => {
                    let (collection, result) = (name.clone(), JobEffect::Repaired);
                    JobRepair { collection, id, result, reason: None }
                }
                Some(false) => refused(name, id, "the source has no security object"),
                None => refused(name, id, &reason),
            });
        }
    }

    async fn look_again(
        &self,
        name: &CollectionName,
        ids: Vec<DocumentId>,
        security: bool,
        problems: &mut Vec<Problem>,
    ) -> Result<(), VerifyError> {
        let (shared, name) = (Arc::clone(&self.watcher.shared), name.clone());
        let before = std::mem::take(problems);
        let looking = spawn_blocking(move || look_again(&shared, &name, &ids, security, before));
        *problems = match looking.await {
            Ok(looked) => looked?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        Ok(())
    }
}

/// Remembers what a verification of whole collections has found.
fn note(
    shared: &Shared,
    path: &Path,
    verified: &Verified,
    begun: Timestamp,
) -> Result<(), VerifyError> {
    let (collections, _) = archive::open(path)?.collections()?;
    let mut names: BTreeMap<CollectionName, BTreeMap<String, Option<DocumentId>>> = BTreeMap::new();
    for one in verified.suspects() {
        let of = names.entry(one.collection.clone()).or_default();
        of.insert(one.name.clone(), one.id.clone());
    }
    for report in &verified.report.collections {
        let name = CollectionName::from(report.collection.as_str());
        let Some(collection) = collections.iter().find(|one| *one.name() == name) else { continue };
        let mut spot = Spot::default();
        for problem in &verified.report.problems {
            let Some(entry) = collection.entry_of(&problem.path) else { continue };
            if problem.kind != archive::ProblemKind::Unchecked {
                spot.problems.entry(entry.to_owned()).or_default().push(problem.clone());
            }
        }
        for (entry, id) in names.remove(&name).unwrap_or_default() {
            spot.ids.extend(id.map(|id| (entry, id)));
        }
        look_twice(
            &shared.soundness(&name),
            &**collection,
            Looked::All,
            &mut spot,
            &shared.errands,
        )?;
        shared.note_spot(&name, Looked::All, &spot);
        shared.change_soundness(&name, true, |known| {
            (known.at, known.from) = (Some(Timestamp::now()), Some(begun));
            (known.begun, known.after) = (None, None);
        });
    }
    Ok(())
}

/// Reads documents again. Returns the problems of before with theirs as they are now.
fn look_again(
    shared: &Shared,
    name: &CollectionName,
    ids: &[DocumentId],
    security: bool,
    mut problems: Vec<Problem>,
) -> Result<Vec<Problem>, VerifyError> {
    let Some(collection) = find(shared.mirror.path(), name)? else { return Ok(problems) };
    let mut names: BTreeSet<String> = ids.iter().map(|id| collection.name_of(id)).collect();
    if security {
        names.insert(verify::SECURITY_ENTRY.to_owned());
    }
    let spot = verify::look_at(&*collection, &names, &Restraint::default())?;
    shared.note_spot(name, Looked::These(&names), &spot);
    let is_of_them =
        |path: &str| collection.entry_of(path).is_some_and(|name| names.contains(name));
    problems.retain(|problem| !is_of_them(&problem.path));
    problems.extend(spot.problems.into_values().flatten());
    Ok(problems)
}

fn refused(collection: &CollectionName, id: String, reason: &str) -> JobRepair {
    let (collection, reason) = (collection.clone(), Some(reason.to_owned()));
    JobRepair { collection, id, result: JobEffect::NotRepaired, reason }
}

fn repair_of(collection: &CollectionName, id: &DocumentId, fate: Fate) -> JobRepair {
    let (result, reason) = match fate {
        Fate::Present { .. } | Fate::Buried { .. } => (JobEffect::Repaired, None),
        Fate::Deleted { .. } => {
            let reason = "the source reports it as deleted, but its folder does not hold a \
                          document: remove the folder by hand";
            (JobEffect::NotRepaired, Some(reason.to_owned()))
        }
        Fate::Unknown => {
            let reason = "the source does not know such a document; what is here stays";
            (JobEffect::NotRepaired, Some(reason.to_owned()))
        }
        Fate::Failed(reason) => (JobEffect::NotRepaired, Some(reason)),
    };
    JobRepair { collection: collection.clone(), id: id.to_string(), result, reason }
}
