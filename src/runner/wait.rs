//! Collections whose run has ended with an error while the mirror follows its source: they wait, and
//! the others continue.

use std::time::Duration;

use tokio::time::Instant;

use super::outcome::SessionError;
use super::policy::Remedy;
use super::shared::Member;
use super::supervisor::Supervisor;
use super::trouble::Trouble;
use crate::document::CollectionName;
use crate::pipeline::{Awaited, Pauses, Phase, PipelineError, Reporter, without_numbers};
use crate::source::outage::Said;
use crate::source::{Mode, Streams};

impl Supervisor {
    /// A run ended with an error. The policy says whether the collection waits, or the mirror ends.
    pub(super) fn wait_or_fail(&mut self, name: CollectionName, error: PipelineError) {
        self.scheduler.rest(&name);
        let mut remedy = match self.options.mode {
            Mode::Follow => Remedy::of(&error),
            Mode::CatchUp => Remedy::End,
        };
        if remedy.is_hopeless() && self.store.streams() == Streams::Once {
            // It cannot be read later.
            remedy = Remedy::End;
        }
        if remedy == Remedy::End {
            return self.fail(name, error);
        }
        if self.store.streams() == Streams::Shared {
            // The others do not wait for it: it is read when it comes back.
            self.store.let_go(&name);
        }
        let (mut trouble, pause) = self.trouble(&name, remedy);
        let why = error.to_string();
        trouble.error = Some(error);
        let is_due = trouble.said.is_due(&without_numbers(&why));
        self.troubled.insert(name.clone(), trouble);
        if self.end_if_hopeless() {
            return;
        }
        let then = match pause {
            Some(pause) => {
                format!("the mirror waits, and tries again in {:.1} s", pause.as_secs_f32())
            }
            None => "this collection is not mirrored any more".to_owned(),
        };
        match is_due {
            true => tracing::warn!(collection = %name, "{why}; {then}"),
            false => tracing::debug!(collection = %name, "{why}; {then}"),
        }
        let error = self.troubled.get(&name).and_then(|trouble| trouble.error.as_ref());
        let awaited = error.map_or(Awaited::Disk, PipelineError::awaited);
        if let Some(member) = self.shared.members().get_mut(&name) {
            member.is_hopeless = remedy.is_hopeless();
            member.in_vain += 1;
            member.reporter.update(|report| match pause {
                Some(pause) => report.wait(awaited, why, pause),
                None => (report.phase, report.trouble) = (Phase::Failed, Some(why)),
            });
        }
        self.shared.note_progress();
    }

    /// Takes the trouble of a collection, which is a new one if its remedy was another, with the time of
    /// the next try. Returns the pause before it, if there is one.
    fn trouble(&mut self, name: &CollectionName, remedy: Remedy) -> (Trouble, Option<Duration>) {
        let trouble = self.troubled.remove(name).filter(|trouble| trouble.remedy == remedy);
        let mut trouble = trouble.unwrap_or_else(|| Trouble {
            remedy,
            pauses: remedy.pauses(self.options.retry).map(Pauses::new),
            again: None,
            error: None,
            said: Said::default(),
        });
        let pause = trouble.pauses.as_mut().map(Pauses::next_after_rest);
        trouble.again = pause.map(|pause| Instant::now() + pause);
        (trouble, pause)
    }

    /// When the next collection is to be tried again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.troubled.values().filter_map(|trouble| trouble.again).min()
    }

    /// Starts the collections again whose pause has ended.
    pub(super) fn try_again(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (name, trouble) in &mut self.troubled {
            if trouble.again.is_some_and(|again| again <= now) {
                (trouble.again, trouble.error) = (None, None);
                due.push(name.clone());
            }
        }
        for name in due {
            if let Some(member) = self.shared.members().get_mut(&name) {
                let reporter = Reporter::continuing(&member.reporter.report());
                let (brake, in_vain) = (member.brake.take(), member.in_vain);
                *member = Member { brake, in_vain, ..Member::new(reporter) };
            }
            match self.ordered.pause(&name) {
                true => self.note_pause(&name),
                false => self.scheduler.want(&name),
            }
        }
    }

    /// News of a collection whose run had to wait, and had no fault of its own, end its pause.
    pub(super) fn wake(&mut self, name: &CollectionName) {
        if let Some(trouble) = self.troubled.get_mut(name)
            && trouble.again.is_some()
            && trouble.error.is_none()
        {
            trouble.again = Some(Instant::now());
            self.try_again();
        }
    }

    /// The run of a collection has waited for its source, and others have got its place: it tries again
    /// after short pauses. The log has named the reason.
    pub(super) fn wait_without_run(&mut self, name: CollectionName) {
        self.scheduler.rest(&name);
        let (trouble, pause) = self.trouble(&name, Remedy::Soon);
        let pause = pause.unwrap_or_default();
        self.troubled.insert(name.clone(), trouble);
        if let Some(member) = self.shared.members().get_mut(&name) {
            member.pipeline = None;
            member.reporter.update(|report| {
                let why = report.trouble.take().unwrap_or_default();
                report.wait(report.awaited, why, pause);
            });
        }
    }

    /// Ends the mirror if no collection is left that this process can mirror: what is wrong concerns
    /// the server, or the only database. Returns whether it does.
    pub(super) fn end_if_hopeless(&mut self) -> bool {
        let is_hopeless = |name| self.troubled.get(name).is_some_and(Trouble::is_hopeless);
        let members = self.shared.members();
        let mut left =
            members.iter().filter(|(name, member)| !is_hopeless(name) && !member.has_vanished);
        if !self.shared.is_listed() || left.next().is_some() {
            return false;
        }
        drop(left);
        drop(members);
        let troubled = std::mem::take(&mut self.troubled);
        let failed = troubled.into_iter().filter_map(|(name, one)| Some((name, one.error?)));
        let mut failed: Vec<_> = failed.collect();
        failed.sort_by(|(left, _), (right, _)| left.cmp(right));
        let ends = !failed.is_empty();
        for (name, error) in failed {
            if let Some(member) = self.shared.members().get(&name) {
                member.reporter.update(|report| report.trouble = None);
            }
            self.fail(name, error);
        }
        ends
    }

    /// At the end of the run, the collections count that were not tried again.
    pub(super) fn note_parked(&mut self) {
        for (collection, trouble) in std::mem::take(&mut self.troubled) {
            if let (Remedy::Park, Some(error)) = (trouble.remedy, trouble.error) {
                self.errors.push(SessionError::Collection { collection, error });
            }
        }
    }
}
