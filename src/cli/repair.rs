//! What `plainfold verify --repair` does between its two reports: the source of each collection
//! opened, and what is wrong fetched again from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::access;
use super::exit::{self, Exit, Usage};
use super::output::Lines;
use super::signals;
use crate::config::{OpenError, OpenedSource};
use crate::document::{CollectionName, DocumentId, plain};
use crate::pipeline::{self, Fate, PipelineError};
use crate::runner::Repairer;
use crate::source::{SourceError, Store};
use crate::tree::MirrorError;
use crate::verify::{self, Certificate, SourceAnswer, SourceContent, Verified};

/// How a repair went.
#[derive(Debug, Default, Serialize)]
pub struct Repairs {
    /// What became of documents that were wrong. Those that came right by themselves are left out.
    pub repaired: Vec<Repair>,
    /// What ended the repair of a collection before its end, in words.
    pub stopped: Vec<String>,
    /// Whether a signal ended it.
    pub interrupted: bool,
    /// The gravest of what stopped it.
    #[serde(skip)]
    pub exit: Option<Exit>,
}

/// What became of a document that was wrong.
#[derive(Debug, Serialize)]
pub struct Repair {
    collection: String,
    id: String,
    outcome: Outcome,
    /// The revision that was written.
    revision: Option<String>,
    /// Why nothing was done.
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Repaired,
    Removed,
    NotRepaired,
}

/// Where documents are fetched from.
pub enum Sources<'a> {
    /// The source that was named, and what it holds.
    Given(&'a OpenedSource, &'a mut SourceContent),
    /// The sources that the mirror remembers, and how they are entered.
    Recorded(&'a access::Options),
}

/// Fetches again what is wrong. The report speaks of the mirror as it is afterwards.
pub async fn run(
    repairer: &Repairer,
    verified: &mut Verified,
    certificate: Option<&Certificate>,
    mut sources: Sources<'_>,
) -> anyhow::Result<Repairs> {
    let mut wrong = verified.wrong(certificate)?;
    say_what_is_left_alone(&wrong, certificate);
    for (name, wrong) in &mut wrong {
        wrong.differing.extend(repairer.interrupted(name)?);
    }
    wrong.retain(|_, wrong| !wrong.is_empty());
    let mut repairs = Repairs::default();
    if wrong.is_empty() {
        return Ok(repairs);
    }
    let mut left: usize = wrong.values().map(|wrong| wrong.all().len()).sum();
    let again = tokio::task::block_in_place(|| verified.set_aside(&wrong))?;
    let stop = signals::catch()?;
    for (name, wrong) in wrong {
        if stop.is_cancelled() {
            break;
        }
        let store = match sources.store(repairer, &name).await {
            Ok(store) => store,
            Err(error) => {
                repairs.stop(&name, error);
                continue;
            }
        };
        let damaged = wrong.damaged.clone();
        let security = wrong.security;
        let wrong = pipeline::WrongDocument {
            differing: wrong.differing.into_iter().collect(),
            damaged: wrong.damaged.into_iter().collect(),
        };
        let done = repairer.repair(&store, &name, wrong, &stop).await;
        left = left.saturating_sub(done.fates.len());
        if let Sources::Given(_, there) = &mut sources {
            let words: Vec<_> = done.fates.iter().filter_map(word).collect();
            there.learn(&name, &words)?;
        }
        for (id, fate) in done.fates {
            let was_damaged = damaged.contains(&id);
            repairs.repaired.extend(Repair::of(&name, &id, fate, was_damaged));
        }
        if let Some(error) = done.error {
            repairs.stop(&name, hinted(error, &sources));
            continue;
        }
        if security {
            match repairer.repair_security(&store, &name).await {
                Ok(found) => repairs.repaired.push(Repair::of_security(&name, found)),
                Err(error) => repairs.stop(&name, hinted(error, &sources)),
            }
        }
    }
    repairs.interrupted = left > 0 && stop.is_cancelled();
    tokio::task::block_in_place(|| verified.take_back(&again))?;
    Ok(repairs)
}

/// What no document can be fetched for, said once.
fn say_what_is_left_alone(
    wrong: &BTreeMap<CollectionName, verify::Wrong>,
    certificate: Option<&Certificate>,
) {
    for (name, wrong) in wrong {
        for folder in &wrong.nameless {
            tracing::warn!(
                collection = %name,
                "the folder `{folder}` does not show which document it belongs to; name the source with \
                 --against to find out",
            );
        }
    }
    let compared = certificate.map(|found| &found.collections[..]).unwrap_or_default();
    for collection in compared {
        let name = CollectionName::from(collection.collection.as_str());
        if !wrong.contains_key(&name) && collection.here != collection.there {
            tracing::warn!(
                collection = %name,
                "it is not in the mirror as a whole, or was not read; `plainfold mirror` brings \
                 whole collections",
            );
        }
    }
}

impl Sources<'_> {
    /// The store that a collection is repaired from.
    async fn store(
        &self,
        repairer: &Repairer,
        name: &CollectionName,
    ) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Self::Given(source, _) => Ok(Arc::clone(&source.store)),
            Self::Recorded(access) => Ok(recorded(repairer, name, access).await?.store),
        }
    }
}

/// The source that the mirror remembers for a collection.
async fn recorded(
    repairer: &Repairer,
    name: &CollectionName,
    access: &access::Options,
) -> anyhow::Result<OpenedSource> {
    let Some(source) = repairer.followed(name)? else {
        let what = "the mirror does not remember its source: name it with --against SOURCE";
        return Err(Usage(what.to_owned()).into());
    };
    let access = access.lower(&source, access::ServerRole::Source)?;
    if access.password.is_some() || access.session {
        let what = "the mirror remembers its source without the user, so the password is of no use: \
                    name the source with its user, as in --against http://user@host/database";
        return Err(Usage(what.to_owned()).into());
    }
    let kept = repairer.kept(name)?;
    let opened = OpenedSource::open(&source, &[] as &[&str], access, kept).await;
    opened.map_err(|error| match error {
        OpenError::Config(_) => anyhow::Error::from(Usage(format!(
            "{source}, which the mirror follows, cannot be read again: mirror from another source \
             first, and give that with --against"
        ))),
        error @ OpenError::Source(_) => error.into(),
    })
}

/// The error, and what can be done.
fn hinted(error: PipelineError, sources: &Sources<'_>) -> anyhow::Error {
    let hint = match (&error, sources) {
        (PipelineError::Source(SourceError::Refused { .. }), Sources::Recorded(_)) => {
            "name the source with its user, as in --against http://user@host/database"
        }
        (PipelineError::Mirror(MirrorError::OtherSource { .. }), _) => {
            "nothing is fetched from a source that the mirror does not follow: if it has moved, run \
             `plainfold mirror` from there first"
        }
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(hint)
}

/// What the source said of a document.
fn word((id, fate): &(DocumentId, Fate)) -> Option<(DocumentId, SourceAnswer)> {
    let word = match fate {
        Fate::Present { revision, .. } => SourceAnswer::Present(revision.clone()),
        Fate::Buried { .. } | Fate::Deleted { .. } => SourceAnswer::Deleted,
        Fate::Unknown | Fate::Failed(_) => return None,
    };
    Some((id.clone(), word))
}

impl Repair {
    fn of_security(name: &CollectionName, found: bool) -> Self {
        let reason = "the source has no security object; what is here stays";
        Self {
            collection: name.to_string(),
            id: "_security".to_owned(),
            outcome: if found { Outcome::Repaired } else { Outcome::NotRepaired },
            revision: None,
            reason: (!found).then(|| reason.to_owned()),
        }
    }

    fn of(name: &CollectionName, id: &DocumentId, fate: Fate, was_damaged: bool) -> Option<Self> {
        let kept = |reason: &str| (Outcome::NotRepaired, None, Some(reason.to_owned()));
        let (outcome, revision, reason) = match fate {
            Fate::Present { written: true, revision } => {
                let revision = revision.map(|revision| revision.to_string());
                (Outcome::Repaired, revision, None)
            }
            Fate::Buried { written: true, revision } => {
                (Outcome::Repaired, Some(revision.to_string()), None)
            }
            Fate::Deleted { removed: true } => (Outcome::Removed, None, None),
            Fate::Deleted { removed: false } if was_damaged => kept(
                "the source reports it as deleted, but its folder does not hold a document: remove \
                 the folder by hand",
            ),
            Fate::Present { written: false, .. }
            | Fate::Buried { written: false, .. }
            | Fate::Deleted { removed: false } => return None,
            Fate::Unknown => kept("the source does not know such a document; what is here stays"),
            Fate::Failed(reason) => kept(&reason),
        };
        let (collection, id) = (name.to_string(), id.to_string());
        Some(Self { collection, id, outcome, revision, reason })
    }
}

impl Repairs {
    fn stop(&mut self, name: &CollectionName, error: anyhow::Error) {
        let exit = exit::of(&error);
        let worse = |other: &Exit| exit as u8 > *other as u8;
        if self.exit.as_ref().is_none_or(worse) {
            self.exit = Some(exit);
        }
        self.stopped.push(format!("{name}: {}", plain::with_causes(error.as_ref())));
    }

    /// Writes what was done, a line a document.
    pub fn write(&self, out: &mut Lines) -> fmt::Result {
        for repair in &self.repaired {
            let what = match repair.outcome {
                Outcome::Repaired => "repaired",
                Outcome::Removed => "removed",
                Outcome::NotRepaired => "not-repaired",
            };
            let (collection, id) = (&repair.collection, &repair.id);
            let result = match (&repair.revision, &repair.reason) {
                (Some(revision), _) => format!("  {revision}"),
                (None, Some(reason)) => format!(": {reason}"),
                (None, None) => String::new(),
            };
            writeln!(out, "{what:<12} {collection}  {id}{result}")?;
        }
        for stopped in &self.stopped {
            writeln!(out, "stopped: {stopped}")?;
        }
        if self.interrupted {
            writeln!(out, "interrupted: the next run resumes it")?;
        }
        Ok(())
    }
}
