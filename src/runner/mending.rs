//! What is to be fetched again of a collection, and the work of a run that does it before it follows its feed.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::options::Reopen;
use crate::document::{CollectionName, DocumentId};
use crate::pipeline::{Asking, Fate, Pipeline, Repaired, WrongDocument};
use crate::source::{Capabilities, SourceError};

/// What is to be fetched again of a collection.
#[derive(Clone, Debug, Default)]
pub struct Mending {
    /// The documents.
    pub wrong: WrongDocument,
    /// Whether the security object is wrong.
    pub security: bool,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Mended {
    /// The outcome for each document that was processed.
    pub fates: Vec<(DocumentId, Fate)>,
    /// Whether the source had the security object, if that was to be fetched.
    pub security: Option<bool>,
    /// What ended it early, if anything.
    pub error: Option<String>,
}

/// An order to fetch documents again, and who waits for it.
#[derive(Debug)]
pub(super) struct Mend {
    pub mending: Mending,
    pub answer: oneshot::Sender<Mended>,
}

impl Mended {
    /// Nothing was done, for this reason.
    pub fn failed(error: impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

impl Mend {
    /// Carries it out. The pipeline must not be at work.
    async fn carry_out(
        self,
        pipeline: &Pipeline,
        name: &CollectionName,
        (capabilities, reopen): (Capabilities, Option<&Reopen>),
        stop: &CancellationToken,
    ) {
        let Mending { wrong, security } = self.mending;
        let documents = wrong.damaged.len() + wrong.differing.len();
        tracing::info!(collection = %name, documents, "fetching damaged documents again");
        let mended = match Self::pipeline(pipeline, name, capabilities, reopen) {
            Ok((pipeline, asking)) => {
                let Repaired { fates, error } = match wrong.is_empty() {
                    true => Repaired::default(),
                    false => pipeline.repair(wrong, asking, stop).await,
                };
                let mut mended =
                    Mended { fates, security: None, error: error.map(|error| error.to_string()) };
                if security && mended.error.is_none() {
                    match pipeline.repair_security().await {
                        Ok(found) => mended.security = Some(found),
                        Err(error) => mended.error = Some(error.to_string()),
                    }
                }
                mended
            }
            Err(error) => Mended::failed(error),
        };
        // Nobody may wait for it any more.
        let _gone = self.answer.send(mended);
    }

    fn pipeline(
        pipeline: &Pipeline,
        name: &CollectionName,
        capabilities: Capabilities,
        reopen: Option<&Reopen>,
    ) -> Result<(Pipeline, Asking), SourceError> {
        if capabilities.single_reads {
            return Ok((pipeline.to_repair(None), Asking::Singly));
        }
        // The feed that is being followed is left where it is.
        let source = reopen.map(Reopen::open).transpose()?;
        let source = source.map(|store| store.open(name));
        Ok((pipeline.to_repair(source), Asking::ByFeed))
    }
}

/// What a run does before it follows its feed.
pub(super) struct Todo {
    pub mends: Vec<Mend>,
    /// What the source can do.
    pub capabilities: Capabilities,
    /// Opens it again, where documents are only found by reading its whole feed.
    pub reopen: Option<Reopen>,
}

impl Todo {
    /// Does all of it.
    pub async fn carry_out(
        self,
        pipeline: &Pipeline,
        name: &CollectionName,
        stop: &CancellationToken,
    ) {
        let Self { mends, capabilities, reopen } = self;
        for mend in mends {
            mend.carry_out(pipeline, name, (capabilities, reopen.as_ref()), stop).await;
        }
    }
}
