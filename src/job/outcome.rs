//! What a verification or a repair has found and done, in bounded size.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::CollectionName;

/// The number of problems, and of repairs, that are listed. All are counted.
const LISTED: usize = 100;

/// What a job has found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobOutcome {
    /// Documents that were read.
    pub documents: u64,
    /// Attachments that were read.
    pub attachments: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Problems in the mirror, as it is at the end of the job.
    pub problem_count: u64,
    /// The first 100 of them.
    pub problems: Vec<JobProblem>,
    /// Documents that were fetched again.
    pub repaired: u64,
    /// Documents that could not be repaired.
    pub not_repaired: u64,
    /// The first 100 documents that were to be repaired.
    pub repairs: Vec<JobRepair>,
}

/// A problem in a mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobProblem {
    /// The path, relative to the mirror.
    pub path: String,
    /// The kind: `missing`, `altered`, `half-written`, `extra` or `unchecked`.
    pub kind: String,
    /// What is wrong.
    pub reason: String,
}

/// What became of a document that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRepair {
    /// Its collection.
    pub collection: CollectionName,
    /// Its id; the name of its folder if the id is not known.
    pub id: String,
    /// What became of it.
    pub result: JobEffect,
    /// Why it was not repaired.
    pub reason: Option<String>,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobEffect {
    /// It is as at the source.
    Repaired,
    /// It is as it was.
    NotRepaired,
}

impl JobOutcome {
    /// Counts a problem, and lists it if there is room.
    pub fn blame(&mut self, problem: JobProblem) {
        self.problem_count += 1;
        if self.problems.len() < LISTED {
            self.problems.push(problem);
        }
    }

    /// Counts what became of a document, and lists it if there is room.
    pub fn note(&mut self, repair: JobRepair) {
        match repair.result {
            JobEffect::Repaired => self.repaired += 1,
            JobEffect::NotRepaired => self.not_repaired += 1,
        }
        if self.repairs.len() < LISTED {
            self.repairs.push(repair);
        }
    }
}
