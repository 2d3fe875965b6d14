//! Compares a mirror with its source, or with another mirror: the documents that differ, and a
//! certificate.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::bytes::{CompareScope, Comparer};
use super::listing::{Difference, DifferenceKind, ListedRevisions, Listing, Side, UNREAD};
use super::pairs::{Comparison, Pair};
use super::progress::Work;
use super::source::{self, SourceListing};
use super::{CollectionReport, Verified, VerifyError};
use crate::archive::StoredCollection;
use crate::document::{CollectionName, DocumentId, Position, Revision};
use crate::source::outage::Said;
use crate::source::retry::{self, RetryPolicy, listing};
use crate::source::{Feed, Mode, Selection, SourceError, Store, StoreEvent};

/// The result of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// The mirror.
    pub here: ComparedPlace,
    /// The source or mirror that it was compared with.
    pub there: ComparedPlace,
    /// The time.
    pub at: Timestamp,
    /// Whether at least one collection was compared, and nothing differs.
    pub equal: bool,
    /// The depth of the comparison.
    pub depth: Depth,
    /// Files without a checksum in the compared collections. Their documents were compared byte by
    /// byte in any case.
    pub unchecked: u64,
    /// Each collection, by name.
    pub collections: Vec<CollectionCertificate>,
    /// The documents that differ.
    pub differences: Vec<Difference>,
    /// Rows of the source that could not be read, so that their documents were not compared.
    pub unreadable: Vec<String>,
    /// Collections of the mirror that the source was not asked for, so that they were not compared.
    pub not_compared: Vec<String>,
    /// Collections of the other side that the mirror does not hold, and that were not compared.
    pub left_out: Vec<String>,
}

/// The depth of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Depth {
    /// Ids and revisions.
    #[serde(rename = "by revision")]
    Revision,
    /// The bytes of every body and attachment, and of histories, branches and tombstones.
    #[serde(rename = "every byte")]
    Bytes,
}

/// One side of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedPlace {
    /// A directory or a source, without credentials.
    pub name: String,
    /// The lineage of a mirror; `None` for a source.
    pub lineage: Option<String>,
    /// Whether it is a directory, and not a source.
    #[serde(skip)]
    pub is_mirror: bool,
}

/// The result for one collection.
#[derive(Clone, Debug, Serialize)]
pub struct CollectionCertificate {
    /// Its name in the mirror.
    pub collection: String,
    /// Its name on the other side, if that differs.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub renamed: Option<String>,
    /// The number of documents that differ, by kind.
    pub differ: BTreeMap<DifferenceKind, u64>,
    /// The content of the mirror.
    pub here: Side,
    /// The content of the other side.
    pub there: Side,
    /// The source's position in its feed at the time of the comparison, as the source writes it.
    pub position: Option<Value>,
}

/// The content of a source, for comparisons.
#[derive(Debug)]
pub struct SourceContent {
    place: ComparedPlace,
    depth: Depth,
    collections: Vec<(Named, SourceListing)>,
    not_compared: Vec<String>,
    left_out: Vec<String>,
}

/// A collection that is compared.
#[derive(Clone, Debug)]
struct Named {
    /// Its name in the certificate.
    name: CollectionName,
    /// Its name in the mirror, if the mirror holds it.
    here: Option<CollectionName>,
    /// Its name on the other side.
    there: CollectionName,
}

/// A later answer of the source about one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAnswer {
    /// It exists, with the revision in its body.
    Present(Option<Revision>),
    /// It is gone.
    Deleted,
}

impl Verified {
    /// Compares with the present source. If `how` names the one collection that the source was asked
    /// for, the mirror's others are ignored; also if the source cannot list its collections.
    pub async fn against(
        &self,
        store: Arc<dyn Store>,
        how: &Comparison,
    ) -> Result<Certificate, VerifyError> {
        self.compare_with(&self.list(store, how).await?)
    }

    /// Lists the present content of a source for the collections that [`against`](Self::against)
    /// compares.
    pub async fn list(
        &self,
        store: Arc<dyn Store>,
        how: &Comparison,
    ) -> Result<SourceContent, VerifyError> {
        if let Some(why) = self.archive.rewritten().filter(|_| how.bytes) {
            let what = format!("{why}, so they cannot be compared byte by byte: leave --bytes out");
            return Err(VerifyError::Selection(what));
        }
        let pairs = how.pairs(&self.names())?;
        if let Some((only, refusal)) = how.unheld(&pairs).filter(|_| self.nameless(how).is_none())
            && source::has_documents(store.open(only)).await?
        {
            return Err(refusal);
        }
        let named = match named(&store).await {
            // A user who may not list the databases may still read those that the mirror holds.
            Err(VerifyError::Source(SourceError::Refused { .. }))
                if store.capabilities().exhaustive_scan && how.only.is_none() && !how.all =>
            {
                Vec::new()
            }
            named => named?,
        };
        let mut there = SourceContent {
            place: ComparedPlace { name: store.identity(), lineage: None, is_mirror: false },
            depth: if how.bytes { Depth::Bytes } else { Depth::Revision },
            collections: Vec::new(),
            not_compared: Vec::new(),
            left_out: Vec::new(),
        };
        let mut wanted = Vec::new();
        match (self.nameless(how), &named[..]) {
            (Some(here), [only]) => {
                let (name, here) = (only.clone(), Some(here));
                wanted.push(Named { name, here, there: only.clone() });
            }
            _ => {
                for pair in &pairs {
                    let is_wanted = how.only.as_ref().is_none_or(|only| *only == pair.there);
                    match is_wanted
                        && (named.contains(&pair.there) || store.capabilities().exhaustive_scan)
                    {
                        true => wanted.push(Named::of(pair)),
                        false if pair.here != pair.there => {
                            let named = &pair.there;
                            let what = format!("the source does not name `{named}`: see --as");
                            return Err(VerifyError::Selection(what));
                        }
                        false => there.not_compared.push(pair.here.to_string()),
                    }
                }
                let (compared, left_out) = others(how, &pairs, &named);
                wanted.extend(compared);
                there.left_out = left_out;
            }
        }
        wanted.sort_by(|left, right| left.name.cmp(&right.name));
        let folders = self.archive.collections()?.0;
        let mut folders: BTreeMap<_, _> =
            folders.into_iter().map(|folder| (folder.name().clone(), folder)).collect();
        for named in wanted {
            let folder = named.here.as_ref().and_then(|here| folders.remove(here));
            let source = store.open(&named.there);
            let beside = folder.and_then(|folder| self.beside_source(folder, &store, &source, how));
            let mut here = self.report.collections.iter();
            let here = here.find(|one| one.collection == named.name.as_str());
            let total = here.map(|one| one.side.documents);
            tracing::debug!(collection = %named.name, "reading the feed of the source");
            let watch = self.progress.as_deref();
            let step = watch.map(|on| (on, on.begin(named.name.as_str(), Work::List, total)));
            let listed = source::list(source, beside, step).await;
            if let Some((progress, step)) = step {
                progress.end(step);
            }
            let source = match listed {
                // The mirror holds a collection that the source has lost.
                Err(VerifyError::Source(SourceError::Missing { .. }))
                    if how.only.is_none() && named.here.is_some() =>
                {
                    SourceListing::default()
                }
                source => source?,
            };
            there.collections.push((named, source));
        }
        Ok(there)
    }

    /// The documents of a collection that are compared byte by byte, if any.
    fn beside_source(
        &self,
        collection: Arc<dyn StoredCollection>,
        store: &Arc<dyn Store>,
        source: &Arc<dyn Feed>,
        how: &Comparison,
    ) -> Option<Comparer<'_>> {
        if self.archive.rewritten().is_some() {
            return None;
        }
        let unchecked = self.unchecked.get(collection.name()).filter(|those| !those.is_empty());
        let which = match how.bytes {
            true => CompareScope::Every,
            false => CompareScope::Unchecked(unchecked?),
        };
        let source = Arc::clone(source);
        let branches = store.capabilities().branches;
        Some(Comparer { collection, source, which, branches })
    }

    /// Compares with the content of a source.
    pub fn compare_with(&self, there: &SourceContent) -> Result<Certificate, VerifyError> {
        let mut certificate = self.certificate(there.place.clone(), there.depth);
        certificate.not_compared.clone_from(&there.not_compared);
        certificate.left_out.clone_from(&there.left_out);
        for (named, source) in &there.collections {
            self.compare(&mut certificate, named, &source.listed, source.position.as_ref())?;
            certificate.unreadable.extend_from_slice(&source.unreadable);
            for (id, revision) in &source.tombstones {
                let revision = Some(revision.to_string());
                certificate.differs(Difference {
                    kind: DifferenceKind::Bytes,
                    collection: named.name.to_string(),
                    id: id.to_string(),
                    here: revision.clone(),
                    there: revision,
                });
            }
        }
        certificate.conclude();
        Ok(certificate)
    }

    /// Compares with another mirror, byte for byte; by revisions only, if the bodies of one
    /// of them were rewritten.
    pub fn beside(&self, other: &Self, how: &Comparison) -> Result<Certificate, VerifyError> {
        let lineage = other.archive.lineage().map(str::to_owned);
        let there = ComparedPlace { name: other.report.mirror.clone(), lineage, is_mirror: true };
        let both = self.archive.rewritten().is_none() && other.archive.rewritten().is_none();
        let depth = if both { Depth::Bytes } else { Depth::Revision };
        let mut certificate = self.certificate(there, depth);
        let pairs = how.pairs(&self.names())?;
        let nothing = Listing::default().finish();
        match (&self.listings[..], &other.listings[..]) {
            ([(mine, _)], [(its, listed)]) if !both && !how.renames() => {
                let (mine, its) = (CollectionName::from(&**mine), CollectionName::from(&**its));
                let name = if self.archive.has_names() { mine.clone() } else { its.clone() };
                let named = Named { name, here: Some(mine), there: its };
                self.compare(&mut certificate, &named, listed, None)?;
            }
            _ => {
                let held =
                    other.archive.collections()?.0.into_iter().map(|folder| folder.name().clone());
                let (compared, left_out) = others(how, &pairs, &held.collect::<Vec<_>>());
                certificate.left_out = left_out;
                let mut wanted: Vec<_> = pairs.iter().map(Named::of).chain(compared).collect();
                wanted.sort_by(|left, right| left.name.cmp(&right.name));
                for named in wanted {
                    let there = other.listing(&named.there).unwrap_or(&nothing);
                    self.compare(&mut certificate, &named, there, None)?;
                }
            }
        }
        if !both {
            certificate.differences.retain(|one| one.kind != DifferenceKind::Bytes);
            for collection in &mut certificate.collections {
                collection.differ.remove(&DifferenceKind::Bytes);
            }
        }
        certificate.conclude();
        Ok(certificate)
    }

    /// The collections of another mirror that have to be read for a comparison; `None` is all.
    pub fn wanted_of(&self, how: &Comparison) -> Result<Option<Selection>, VerifyError> {
        let pairs = how.pairs(&self.names())?;
        if how.all || pairs.is_empty() || !self.archive.has_names() {
            return Ok(None);
        }
        let names: Vec<_> = pairs.iter().map(|pair| globset::escape(pair.there.as_str())).collect();
        Selection::new(&names).map(Some).map_err(|bad| VerifyError::Selection(bad.to_string()))
    }

    /// The one collection that is compared whatever its name, if it has none that could be compared
    /// with the source's.
    fn nameless(&self, how: &Comparison) -> Option<CollectionName> {
        let is_meant = !self.archive.has_names() && !how.renames();
        self.names().into_iter().next().filter(|_| is_meant)
    }

    fn names(&self) -> Vec<CollectionName> {
        self.listings.iter().map(|(name, _)| name.as_str().into()).collect()
    }

    fn certificate(&self, there: ComparedPlace, depth: Depth) -> Certificate {
        let name = self.report.mirror.clone();
        let lineage = self.archive.lineage().map(str::to_owned);
        Certificate {
            here: ComparedPlace { name, lineage, is_mirror: true },
            there,
            at: Timestamp::now(),
            equal: false,
            depth,
            unchecked: 0,
            collections: Vec::new(),
            differences: Vec::new(),
            unreadable: Vec::new(),
            not_compared: Vec::new(),
            left_out: Vec::new(),
        }
    }

    pub(super) fn listing(&self, name: &CollectionName) -> Option<&ListedRevisions> {
        let mut listings = self.listings.iter();
        listings.find(|(own, _)| own == name.as_str()).map(|(_, listed)| listed)
    }

    fn compare(
        &self,
        certificate: &mut Certificate,
        named: &Named,
        there: &ListedRevisions,
        position: Option<&Position>,
    ) -> Result<(), VerifyError> {
        let nothing = Listing::default().finish();
        let here = named.here.as_ref().and_then(|here| self.listing(here)).unwrap_or(&nothing);
        let is_here = |one: &&CollectionReport| {
            named.here.as_ref().is_some_and(|here| here.as_str() == one.collection)
        };
        let report = self.report.collections.iter().find(is_here);
        certificate.unchecked += report.map_or(0, |report| report.counts.unchecked);
        let (differences, mut differ) = (&mut certificate.differences, BTreeMap::new());
        let compared = here.compare(there, named.name.as_str(), |difference| {
            *differ.entry(difference.kind).or_default() += 1;
            differences.push(difference);
        });
        let (here, there) = compared.map_err(VerifyError::Temporary)?;
        let position = position.and_then(|position| serde_json::from_str(position.token()).ok());
        let renamed = (named.there != named.name).then(|| named.there.to_string());
        let collection = named.name.to_string();
        let compared = CollectionCertificate { collection, renamed, differ, here, there, position };
        certificate.collections.push(compared);
        Ok(())
    }
}

impl Named {
    fn of(pair: &Pair) -> Self {
        let Pair { here, there } = pair.clone();
        Self { name: here.clone(), here: Some(here), there }
    }
}

/// The collections of the other side that are compared although the mirror does not hold them, and
/// the names of the others.
fn others(how: &Comparison, pairs: &[Pair], named: &[CollectionName]) -> (Vec<Named>, Vec<String>) {
    let (mut compared, mut left_out) = (Vec::new(), Vec::new());
    for name in how.others(pairs, named) {
        match how.all || how.only.as_ref() == Some(&name) {
            true => compared.push(Named { name: name.clone(), here: None, there: name }),
            false => left_out.push(name.to_string()),
        }
    }
    (compared, left_out)
}

impl SourceContent {
    /// Applies later answers of the source about documents of a collection.
    pub fn learn(
        &mut self,
        collection: &CollectionName,
        words: &[(DocumentId, SourceAnswer)],
    ) -> Result<(), VerifyError> {
        let mut all = self.collections.iter_mut();
        let named = all.find(|(named, _)| named.here.as_ref() == Some(collection));
        let Some((_, source)) = named else { return Ok(()) };
        let mut listing = source.listed.reopen().map_err(VerifyError::Temporary)?;
        for (id, word) in words {
            let pushed = match word {
                SourceAnswer::Present(revision) => listing.push(id, revision.as_ref(), &UNREAD),
                SourceAnswer::Deleted => listing.push_deleted(id),
            };
            pushed.map_err(VerifyError::Temporary)?;
        }
        source.listed = listing.finish();
        source.tombstones.retain(|(id, _)| !words.iter().any(|(told, _)| told == id));
        Ok(())
    }
}

impl Certificate {
    /// Adds a difference to the last collection.
    fn differs(&mut self, difference: Difference) {
        if let Some(collection) = self.collections.last_mut() {
            *collection.differ.entry(difference.kind).or_default() += 1;
        }
        self.differences.push(difference);
    }

    /// Whether nothing was compared, and nothing failed.
    pub fn is_empty(&self) -> bool {
        self.collections.is_empty() && self.differences.is_empty() && self.unreadable.is_empty()
    }

    fn conclude(&mut self) {
        self.at = Timestamp::now();
        self.equal = self.differences.is_empty()
            && self.unreadable.is_empty()
            && !self.collections.is_empty();
    }
}

async fn named(store: &Arc<dyn Store>) -> Result<Vec<CollectionName>, VerifyError> {
    let (names, policy) = (retry::Purpose::Names, RetryPolicy::CATCH_UP);
    let listing = listing(Arc::clone(store), names, Mode::CatchUp, None, policy);
    let mut listing = std::pin::pin!(listing);
    let (mut names, mut said) = (Vec::new(), Said::default());
    while let Some(event) = listing.next().await {
        match event? {
            retry::Listed::Event(StoreEvent::Collection(name)) if !names.contains(&name) => {
                names.push(name);
            }
            retry::Listed::Event(_) => said = Said::default(),
            retry::Listed::Waiting { error, pause } => {
                retry::log_wait(&error, pause, RetryPolicy::CATCH_UP, &mut said);
            }
        }
    }
    Ok(names)
}
