//! Making one round: its documents are planned, what they need is fetched beside the feed, and what is
//! complete is staged.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::round::Round;
use super::{LOOK, Rounds};
use crate::checkpoint::Failure;
use crate::document::DocumentId;
use crate::mirror::{Material, Sync};
use crate::pipeline::PipelineError;
use crate::pipeline::batch::{Batch, Item};
use crate::pipeline::beside::{Brought, Question};
use crate::pipeline::prepare::{Planned, stage};
use crate::pipeline::prepared::{Answer, Prepared};
use crate::tree::MirrorError;

/// The time that a batch of a catch-up waits for what its documents need.
const GRACE: Duration = Duration::from_secs(1);

/// The same for a follower, whose next change should not wait.
const GRACE_FOLLOWING: Duration = Duration::from_millis(100);

impl Rounds {
    /// Makes a round. A `whole` one waits for all fetches, any other one waits a moment. `None` if
    /// the settler has ended.
    pub(super) async fn prepare(
        &mut self,
        mut batch: Batch,
        brought: Option<Brought>,
        whole: bool,
    ) -> Result<Option<Prepared>, PipelineError> {
        let begun = Timestamp::now();
        let mut brought = Vec::from_iter(brought);
        brought.extend(self.beside.sweep()?);
        let mut round = Round::new(batch.items.len() + brought.len());
        round.failed = batch.take_failures();
        let unreadable: HashSet<DocumentId> =
            round.failed.iter().filter_map(|one| one.document.clone()).collect();
        let mut later = Vec::new();
        let ids = brought.iter().map(|one| one.id().clone()).collect();
        if !self.await_settled(&ids).await {
            return Ok(None);
        }
        self.accept(&mut round, brought, &mut later).await?;
        later.drain(..).rev().for_each(|one| self.beside.put_back(one));
        let items = self.not_beside(std::mem::take(&mut batch.items), &round.done);
        let ids: HashSet<DocumentId> = items.iter().map(|item| item.change.id.clone()).collect();
        if !self.await_settled(&ids).await {
            return Ok(None);
        }
        round.ids.extend(ids);
        self.plan(&mut round, items, HashMap::new()).await?;
        let of_batch =
            |one: &&Failure| one.document.as_ref().is_some_and(|id| unreadable.contains(id));
        round.failed.iter().filter(of_batch).for_each(|one| self.beside.note_unreadable(one));
        let grace = if self.following { GRACE_FOLLOWING } else { GRACE };
        let deadline = Instant::now() + grace;
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let now = Instant::now();
            let soon = now < deadline && self.beside.expects(&round.ids);
            if !(soon || self.beside.is_full() || (whole && !self.beside.is_empty())) {
                break;
            }
            let look = if now < deadline { deadline.min(now + LOOK) } else { now + LOOK };
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                first = self.beside.brought() => Some(first?),
                () = sleep_until(look) => None,
            };
            let mut brought = Vec::from_iter(first);
            brought.extend(self.beside.sweep()?);
            self.accept(&mut round, brought, &mut later).await?;
        }
        if stop.is_cancelled() {
            self.beside.stop().await;
            let brought = self.beside.sweep()?;
            self.accept(&mut round, brought, &mut later).await?;
        }
        let waiting: HashSet<DocumentId> = later.iter().map(|one| one.id().clone()).collect();
        later.into_iter().rev().for_each(|one| self.beside.put_back(one));
        round.planned.held.iter().for_each(|one| self.beside.note_again(&one.document));
        self.stage(&mut round).await?;
        if !whole {
            round.failed.extend(self.beside.notes());
        }
        self.number += 1;
        self.in_flight.push_back((self.number, std::mem::take(&mut round.ids)));
        self.passed_over |= round.planned.passed_over;
        let position = batch.position.filter(|_| !self.passed_over);
        let mut prepared = round.prepared(position, begun);
        let is_settled = |id: &DocumentId| {
            !self.beside.contains(id) && !unreadable.contains(id) && !waiting.contains(id)
        };
        prepared.settled.retain(is_settled);
        Ok(Some(prepared))
    }

    /// The items that are not fetched beside the feed. The others wait there, or replace the present
    /// fetch.
    fn not_beside(&mut self, items: Vec<Item>, done: &HashSet<DocumentId>) -> Vec<Item> {
        let mut left = Vec::with_capacity(items.len());
        for item in items {
            if self.beside.contains(&item.change.id) {
                self.beside.supersede(item);
            } else if done.contains(&item.change.id) {
                self.beside.keep(item);
            } else {
                left.push(item);
            }
        }
        left
    }

    /// Waits until the tree holds the documents of earlier rounds that this round needs: planning
    /// depends on the tree.
    async fn await_settled(&mut self, ids: &HashSet<DocumentId>) -> bool {
        let latest = self.in_flight.iter().rev().find(|(_, held)| !held.is_disjoint(ids));
        if let Some((latest, _)) = latest
            && self.settled.wait_for(|count| count >= latest).await.is_err()
        {
            return false;
        }
        self.forget_settled();
        true
    }

    fn forget_settled(&mut self) {
        let done = *self.settled.borrow_and_update();
        self.in_flight.retain(|(number, _)| *number > done);
    }

    /// Takes results into the round; those that cannot be taken yet go to `later`.
    async fn accept(
        &mut self,
        round: &mut Round,
        brought: Vec<Brought>,
        later: &mut Vec<Brought>,
    ) -> Result<(), PipelineError> {
        let (mut items, mut materials) = (Vec::new(), HashMap::new());
        for one in brought {
            let id = one.id().clone();
            if round.done.contains(&id) || materials.contains_key(&id) || self.is_in_flight(&id) {
                later.push(one);
                continue;
            }
            round.ids.insert(id.clone());
            match one {
                Brought::Found(item, material) => {
                    round.moved_on.insert(id.clone(), Answer::of(&item.change));
                    materials.insert(id, material);
                    items.push(item);
                    continue;
                }
                Brought::Complete(pending) => round.complete.push(pending),
                Brought::Gone(id) => {
                    round.gone.insert(id.clone());
                    round.settled.push(id);
                }
                Brought::Unchanged(id) => round.planned.unchanged.push(id),
                Brought::Failed(_, failure) => round.failed.push(failure),
            }
            round.done.insert(id);
        }
        self.plan(round, items, materials).await
    }

    fn is_in_flight(&mut self, id: &DocumentId) -> bool {
        self.forget_settled();
        self.in_flight.iter().any(|(_, ids)| ids.contains(id))
    }

    /// Plans items, and starts fetching what they need.
    async fn plan(
        &mut self,
        round: &mut Round,
        items: Vec<Item>,
        mut materials: HashMap<DocumentId, Material>,
    ) -> Result<(), PipelineError> {
        if items.is_empty() {
            return Ok(());
        }
        let ids: Vec<DocumentId> = items.iter().map(|item| item.change.id.clone()).collect();
        let written = items.iter().filter(|item| !item.change.is_deletion());
        let room: u64 = written.map(|item| item.change.weight() as u64).sum();
        if room > 0 && !self.pipeline.removals_only {
            self.pipeline.mirror.check_room(room)?;
        }
        let mut planned = self.pipeline.plan(items, round.sync, self.doubt.as_ref()).await?;
        let older = planned.older.iter().map(|(change, _)| &change.id);
        let asked = older.chain(planned.pending.iter().map(|one| &one.item.change.id));
        let asked: HashSet<DocumentId> = asked.cloned().collect();
        for (change, held) in std::mem::take(&mut planned.older) {
            self.beside.look(change.id.clone(), Question::Older { change, held });
        }
        let mut pending = std::mem::take(&mut planned.pending);
        let wanted = pending.iter().flat_map(|one| &one.write.fetch);
        let wanted = wanted.filter_map(|attachment| attachment.length).fold(0, u64::saturating_add);
        if wanted > 0 {
            self.pipeline.mirror.check_room(room.saturating_add(wanted))?;
        }
        for one in &mut pending {
            if let Some(material) = materials.remove(&one.item.change.id) {
                one.material = one.reusable(material);
            }
        }
        self.beside.submit(pending);
        round.planned.extend(planned);
        round.done.extend(ids.into_iter().filter(|id| !asked.contains(id)));
        Ok(())
    }

    /// Stages complete documents.
    async fn stage(&mut self, round: &mut Round) -> Result<(), PipelineError> {
        let complete = std::mem::take(&mut round.complete);
        if complete.is_empty() {
            return Ok(());
        }
        if complete.iter().any(|one| one.sync == Sync::Together) {
            // Fetched files were not made durable one by one.
            round.sync = Sync::Together;
        }
        let (collection, lane) = (self.pipeline.collection.clone(), self.pipeline.mirror.lane());
        let sync = round.sync;
        let stage = move || -> Result<Planned, MirrorError> {
            let mut staged = Planned::default();
            for item in complete {
                staged.take(stage(&collection, item, sync, lane)?);
            }
            Ok(staged)
        };
        round.planned.extend(spawn_blocking(stage).await??);
        Ok(())
    }
}
