//! A mirror beside its source, or beside another mirror: which documents differ, and a certificate.
//!
//! It must not know which store a source is.

use std::sync::Arc;

use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::listing::{Difference, DifferenceKind, Listed, Listing, Side, UNREAD};
use super::{Verified, VerifyError};
use crate::document::{CollectionName, DocumentId, DocumentState, Head, Position, Revision};
use crate::source::retry::{Fed, RetryPolicy, listing, resilient};
use crate::source::{FeedEvent, Mode, Since, Source, SourceError, Store, StoreEvent};

/// What a comparison came to.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// The mirror.
    pub here: Place,
    /// What it was compared with.
    pub there: Place,
    /// When.
    pub at: Timestamp,
    /// Whether nothing differs.
    pub equal: bool,
    /// Each collection, by name.
    pub collections: Vec<CollectionCertificate>,
    /// The documents that differ.
    pub differences: Vec<Difference>,
    /// Rows of the source that could not be read, so that nothing is known of their documents.
    pub unreadable: Vec<String>,
    /// Collections of the mirror of which the source says nothing, and which were not compared.
    pub not_compared: Vec<String>,
}

/// One side of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// A directory or a source, without credentials.
    pub name: String,
    /// The lineage of a mirror; a source has none.
    pub lineage: Option<String>,
}

/// What a comparison came to in one collection.
#[derive(Clone, Debug, Serialize)]
pub struct CollectionCertificate {
    /// Its name.
    pub collection: String,
    /// What the mirror holds.
    pub here: Side,
    /// What the other place holds.
    pub there: Side,
    /// The source's place in its feed at which it was compared, as the source writes it.
    pub position: Option<Value>,
}

/// What a source holds, for comparisons.
#[derive(Debug)]
pub struct There {
    place: Place,
    collections: Vec<(CollectionName, SourceListing)>,
    not_compared: Vec<String>,
}

/// What a source said of one document since it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It lives, at the revision that its body tells.
    Present(Option<Revision>),
    /// It is gone.
    Deleted,
}

/// A collection as a source listed it.
#[derive(Debug)]
struct SourceListing {
    listed: Listed,
    position: Option<Position>,
    unreadable: Vec<String>,
}

impl Verified {
    /// Compares with a source, as it is now. `only` is the one collection that it was asked for by
    /// name, if it was; the mirror's others are then left alone. They are, too, where the source
    /// cannot list what it holds.
    pub async fn against(
        &self,
        store: Arc<dyn Store>,
        only: Option<&CollectionName>,
    ) -> Result<Certificate, VerifyError> {
        self.compare_with(&self.list(store, only).await?)
    }

    /// Lists what a source holds now, of the collections that [`against`](Self::against) compares.
    pub async fn list(
        &self,
        store: Arc<dyn Store>,
        only: Option<&CollectionName>,
    ) -> Result<There, VerifyError> {
        let place = Place { name: store.identity(), lineage: None };
        let mut there = There { place, collections: Vec::new(), not_compared: Vec::new() };
        let mut names = named(&store).await?;
        let nameless = self.nameless(names.len());
        for (name, _) in &self.listings {
            let name = CollectionName::from(name.as_str());
            if names.contains(&name) || nameless.is_some() {
                continue;
            }
            match store.lists_everything() && only.is_none() {
                true => names.push(name),
                false => there.not_compared.push(name.to_string()),
            }
        }
        names.sort();
        for name in names {
            let source = list(store.open(&name)).await;
            let source = match source {
                // The mirror holds a collection that the source has lost.
                Err(VerifyError::Source(SourceError::Missing { .. }))
                    if only.is_none() && self.listing(&name).is_some() =>
                {
                    SourceListing {
                        listed: Listing::default().finish(),
                        position: None,
                        unreadable: Vec::new(),
                    }
                }
                source => source?,
            };
            there.collections.push((name, source));
        }
        Ok(there)
    }

    /// Compares with what a source holds.
    pub fn compare_with(&self, there: &There) -> Result<Certificate, VerifyError> {
        let mut certificate = self.certificate(there.place.clone());
        certificate.not_compared.clone_from(&there.not_compared);
        let nameless = self.nameless(there.collections.len());
        for (name, source) in &there.collections {
            let here = nameless.map(|(_, listed)| listed).or(self.listing(name));
            compare(&mut certificate, name, here, &source.listed, source.position.as_ref())?;
            certificate.unreadable.extend_from_slice(&source.unreadable);
        }
        certificate.conclude();
        Ok(certificate)
    }

    /// Compares with another mirror, byte for byte; by revisions only, if one of them is what RxDB's
    /// plugin wrote: its bodies are spelt in another way.
    pub fn beside(&self, other: &Self) -> Result<Certificate, VerifyError> {
        let lineage = other.tree.lineage().map(str::to_owned);
        let there = Place { name: other.report.mirror.clone(), lineage };
        let mut certificate = self.certificate(there);
        let mut names: Vec<CollectionName> = self
            .listings
            .iter()
            .chain(&other.listings)
            .map(|(name, _)| name.as_str().into())
            .collect();
        names.sort();
        names.dedup();
        let nothing = Listing::default().finish();
        let nameless = self.tree.lineage().is_none() || other.tree.lineage().is_none();
        match (&self.listings[..], &other.listings[..]) {
            ([(mine, here)], [(other, there)]) if nameless => {
                let name = if self.tree.lineage().is_none() { other } else { mine };
                compare(&mut certificate, &name.as_str().into(), Some(here), there, None)?;
            }
            _ => {
                for name in names {
                    let there = other.listing(&name).unwrap_or(&nothing);
                    compare(&mut certificate, &name, self.listing(&name), there, None)?;
                }
            }
        }
        if self.tree.lineage().is_none() != other.tree.lineage().is_none() {
            certificate.differences.retain(|one| one.kind != DifferenceKind::Bytes);
        }
        certificate.conclude();
        Ok(certificate)
    }

    /// The one collection that is compared whatever its name, with a source of so many: what RxDB's
    /// plugin wrote tells no name that could be held against the source's.
    fn nameless(&self, collections: usize) -> Option<&(String, Listed)> {
        self.listings.first().filter(|_| self.tree.lineage().is_none() && collections == 1)
    }

    fn certificate(&self, there: Place) -> Certificate {
        let name = self.report.mirror.clone();
        Certificate {
            here: Place { name, lineage: self.tree.lineage().map(str::to_owned) },
            there,
            at: Timestamp::now(),
            equal: false,
            collections: Vec::new(),
            differences: Vec::new(),
            unreadable: Vec::new(),
            not_compared: Vec::new(),
        }
    }

    pub(super) fn listing(&self, name: &CollectionName) -> Option<&Listed> {
        let mut listings = self.listings.iter();
        listings.find(|(own, _)| own == name.as_str()).map(|(_, listed)| listed)
    }
}

fn compare(
    certificate: &mut Certificate,
    name: &CollectionName,
    here: Option<&Listed>,
    there: &Listed,
    position: Option<&Position>,
) -> Result<(), VerifyError> {
    let nothing = Listing::default().finish();
    let here = here.unwrap_or(&nothing);
    let differences = &mut certificate.differences;
    let compared = here.compare(there, name.as_str(), |difference| {
        differences.push(difference);
    });
    let (here, there) = compared.map_err(VerifyError::Temporary)?;
    let position = position.and_then(|position| serde_json::from_str(position.token()).ok());
    let collection = name.to_string();
    certificate.collections.push(CollectionCertificate { collection, here, there, position });
    Ok(())
}

impl There {
    /// Takes what the source said of documents of a collection since it was listed.
    pub fn learn(
        &mut self,
        collection: &CollectionName,
        words: &[(DocumentId, Word)],
    ) -> Result<(), VerifyError> {
        let named = self.collections.iter_mut().find(|(name, _)| name == collection);
        let Some((_, source)) = named else { return Ok(()) };
        let mut listing = source.listed.reopen().map_err(VerifyError::Temporary)?;
        for (id, word) in words {
            let pushed = match word {
                Word::Present(revision) => listing.push(id, revision.as_ref(), &UNREAD),
                Word::Deleted => listing.push_deleted(id),
            };
            pushed.map_err(VerifyError::Temporary)?;
        }
        source.listed = listing.finish();
        Ok(())
    }
}

impl Certificate {
    fn conclude(&mut self) {
        self.at = Timestamp::now();
        self.equal = self.differences.is_empty() && self.unreadable.is_empty();
    }
}

async fn named(store: &Arc<dyn Store>) -> Result<Vec<CollectionName>, VerifyError> {
    let listing = listing(Arc::clone(store), Mode::CatchUp, None, RetryPolicy::CATCH_UP);
    let mut listing = std::pin::pin!(listing);
    let mut names = Vec::new();
    while let Some(event) = listing.next().await {
        match event? {
            StoreEvent::Collection(name) if !names.contains(&name) => names.push(name),
            StoreEvent::Collection(_) | StoreEvent::Unmatched(_) | StoreEvent::Listed(_) => {}
        }
    }
    Ok(names)
}

/// Lists what a source holds now. Of a document that it names more than once, the last word counts.
async fn list(source: Arc<dyn Source>) -> Result<SourceListing, VerifyError> {
    let feed = resilient(source, Since::Start, Mode::CatchUp, RetryPolicy::CATCH_UP);
    let mut feed = std::pin::pin!(feed);
    let mut listing = Listing::default();
    let (mut position, mut unreadable) = (None, Vec::new());
    while let Some(fed) = feed.next().await {
        let event = match fed? {
            Fed::Event(event) => event,
            Fed::Waiting { error, pause } => {
                tracing::warn!("{error}; trying again in {:.1} s", pause.as_secs_f32());
                continue;
            }
        };
        match event {
            FeedEvent::Change(change) => {
                let pushed = match change.state {
                    DocumentState::Present(document) => {
                        // As the mirror tells it: a row may name a revision that its body does not.
                        let head = Head::read(&document.body).unwrap_or_default();
                        let revision = head.revision.as_deref().map(Revision::from);
                        listing.push(&change.id, revision.as_ref(), &UNREAD)
                    }
                    DocumentState::Deleted(_) => listing.push_deleted(&change.id),
                };
                pushed.map_err(VerifyError::Temporary)?;
                position = change.position.or(position);
            }
            FeedEvent::Unreadable(row) => {
                position = row.position.or(position);
                unreadable.push(format!("{}: {}", row.place, row.reason));
            }
            FeedEvent::ScanStarted { .. } => {
                listing.clear();
                unreadable.clear();
            }
            FeedEvent::Position(at) | FeedEvent::ScanFinished { position: at, .. } => {
                position = Some(at);
            }
            FeedEvent::Holds(_) | FeedEvent::CaughtUp | FeedEvent::Progress(_) => {}
        }
    }
    Ok(SourceListing { listed: listing.finish(), position, unreadable })
}
