//! Getting the revisions beside the winners, and the histories of all, many at a time.

use std::collections::{HashMap, HashSet};

use super::fetch::{both, judge, of_group, one_each};
use super::prepare::Pending;
use super::{Pipeline, PipelineError};
use crate::checkpoint::Failure;
use crate::document::{Branch, DocumentId, Revision};
use crate::mirror::BranchFiles;
use crate::source::SourceError;
use crate::source::retry::attempts;

/// A request asks for at most so many revisions, and about so many bytes: of a branch nothing is
/// known but its winner's size.
const GROUP: (usize, usize) = (100, 2 << 20);

/// A revision that is wanted: for which of the pending writes, and which.
type Task = (usize, (DocumentId, Revision));

/// The owners of a request's revisions, and what they want, in the same order.
type Group = (Vec<usize>, Vec<(DocumentId, Revision)>);

impl Pipeline {
    /// Reads the revisions that the writes in `pending` need. A document of which one cannot be had
    /// fails alone, as with [attachments](Self::fetch).
    pub(super) async fn fetch_branches(
        &self,
        mut pending: Vec<Pending>,
        suspects: &HashSet<DocumentId>,
    ) -> Result<(Vec<Pending>, Vec<Failure>), PipelineError> {
        let mut failures: HashMap<usize, Failure> = HashMap::new();
        let mut interrupted = None;
        for (owners, wanted) in groups(&pending) {
            let answers = self.read_branches(&wanted).await;
            for ((owner, answer), (id, revision)) in owners.into_iter().zip(answers).zip(&wanted) {
                let Some(one) = pending.get_mut(owner) else { continue };
                match answer {
                    Ok(branch) => {
                        let files = BranchFiles { branch, blobs: HashMap::new() };
                        one.material.branches.push(files);
                    }
                    Err(error) => {
                        let what = format!("revision {revision}");
                        match judge(&one.item.change, &what, error, suspects.contains(id)) {
                            Ok(failure) => _ = failures.entry(owner).or_insert(failure),
                            Err(error) => interrupted = Some(both(interrupted, error)?),
                        }
                    }
                }
            }
            // The next group would only take longer.
            if let Some(error) = interrupted.take() {
                return Err(error);
            }
        }
        let mut owner = 0..;
        pending.retain(|_| owner.next().is_none_or(|owner| !failures.contains_key(&owner)));
        Ok((pending, failures.into_values().collect()))
    }

    /// Reads a group in one request, and tries again, one by one, what that did not bring.
    async fn read_branches(
        &self,
        wanted: &[(DocumentId, Revision)],
    ) -> Vec<Result<Branch, SourceError>> {
        let policy = &self.options.retry;
        let answers = match attempts(policy, || self.source.branches(wanted)).await {
            Ok(answers) => one_each(answers, wanted.len()),
            // The source itself does not answer: to ask for each would only take longer.
            Err(error) => return vec![Err(of_group(error, wanted.len())); wanted.len()],
        };
        let mut outcomes = Vec::with_capacity(wanted.len());
        for (one, answer) in wanted.iter().zip(answers) {
            outcomes.push(match answer {
                Err(SourceError::Missing { .. } | SourceError::Transient { .. }) => {
                    attempts(policy, || self.read_branch(one)).await
                }
                answer => answer,
            });
        }
        outcomes
    }

    async fn read_branch(&self, one: &(DocumentId, Revision)) -> Result<Branch, SourceError> {
        let answers = self.source.branches(std::slice::from_ref(one)).await?;
        one_each(answers, 1).swap_remove(0)
    }
}

/// What the writes need, in groups.
fn groups(pending: &[Pending]) -> Vec<Group> {
    let mut groups: Vec<Vec<Task>> = Vec::new();
    let mut bytes = 0;
    for (owner, one) in pending.iter().enumerate() {
        for revision in &one.write.branches {
            let size = one.item.change.document().body.len();
            let fits = |group: &&mut Vec<Task>| group.len() < GROUP.0 && bytes + size <= GROUP.1;
            let task = (owner, (one.item.change.id.clone(), revision.clone()));
            match groups.last_mut().filter(fits) {
                Some(group) => {
                    group.push(task);
                    bytes += size;
                }
                None => {
                    groups.push(vec![task]);
                    bytes = size;
                }
            }
        }
    }
    groups.into_iter().map(|group| group.into_iter().unzip()).collect()
}
