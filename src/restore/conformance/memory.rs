//! The target that the suite is tried on first: databases in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::Value;

use super::store::{Database, REFUSED, Winner};
use super::{Seen, Subject};
use crate::document::{CollectionName, DocumentId, Properties, Revision};
use crate::restore::body::{Stubs, tombstone};
use crate::restore::plan::{Held, Leaves};
use crate::restore::target::{Form, streamed};
use crate::restore::{Cause, Item, Refused, Standing, Target, TargetError, Writing};

/// The documents of a page.
const PAGE: usize = 3;

/// Databases in memory.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Database>>>);

impl Memory {
    /// Does something with a database, which exists.
    fn with<R>(
        &self,
        collection: &CollectionName,
        work: impl FnOnce(&mut Database) -> R,
    ) -> Result<R, TargetError> {
        let mut all = self.0.lock().unwrap();
        let absent =
            || TargetError::permanent(Cause::Unusable, format!("`{collection}` is absent"));
        Ok(work(all.get_mut(collection.as_str()).ok_or_else(absent)?))
    }

    async fn put(
        &self,
        collection: &CollectionName,
        batch: &[Writing],
    ) -> Result<Vec<Refused>, TargetError> {
        let mut refused = Vec::new();
        for (index, writing) in batch.iter().enumerate() {
            let mut text = Vec::new();
            let mut stream = streamed(writing.pieces(), writing.item.files.clone());
            let mut read = Ok(());
            while let Some(piece) = stream.next().await {
                match piece {
                    Ok(piece) => text.extend_from_slice(&piece),
                    Err(error) => read = Err(error.to_string()),
                }
            }
            let mut bodies = Vec::new();
            if read.is_ok() && writing.form != Form::Nothing {
                bodies.push(serde_json::from_slice::<Value>(&text).unwrap());
            }
            let ends = writing.ends.iter().filter_map(|leaf| tombstone(&writing.item.id, leaf));
            bodies.extend(ends.map(|text| serde_json::from_str(&text).unwrap()));
            let write = |database: &mut Database| {
                bodies.into_iter().try_for_each(|body| database.write(body))
            };
            let written = match read {
                Ok(()) => self.with(collection, write)?,
                Err(reason) => Err(reason),
            };
            refused.extend(written.err().map(|reason| Refused { index, reason }));
        }
        Ok(refused)
    }
}

impl Target for Memory {
    fn stubs(&self) -> Stubs {
        Stubs::Server
    }

    fn takes_branches(&self) -> bool {
        true
    }

    fn parallel(&self) -> usize {
        2
    }

    fn place(&self, collection: &CollectionName) -> String {
        format!("memory `{collection}`")
    }

    fn standing<'a>(
        &'a self,
        collection: &'a CollectionName,
    ) -> BoxFuture<'a, Result<Standing, TargetError>> {
        let standing = match self.0.lock().unwrap().get(collection.as_str()) {
            None => Standing::Absent,
            Some(database) if database.documents.is_empty() => Standing::Empty,
            Some(_) => Standing::Present,
        };
        async move { Ok(standing) }.boxed()
    }

    fn create<'a>(
        &'a self,
        collection: &'a CollectionName,
        properties: Properties,
    ) -> BoxFuture<'a, Result<Vec<String>, TargetError>> {
        self.0.lock().unwrap().entry(collection.to_string()).or_default();
        let has_any = properties != Properties::default();
        let missing = has_any.then(|| "it has no such properties".to_owned());
        async move { Ok(missing.into_iter().collect()) }.boxed()
    }

    fn list<'a>(
        &'a self,
        collection: &'a CollectionName,
        after: Option<&'a DocumentId>,
    ) -> BoxFuture<'a, Result<Vec<(DocumentId, Revision)>, TargetError>> {
        let after = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_string()));
        let listed = self.with(collection, |database| {
            let documents = database.documents.range((after, Bound::Unbounded));
            let winners = documents.map(|(id, document)| (id, document.winner()));
            let live = winners.filter(|(_, winner)| !winner.deleted).take(PAGE);
            live.map(|(id, winner)| (id.as_str().into(), winner.revision.as_str().into())).collect()
        });
        async move { listed }.boxed()
    }

    fn held<'a>(
        &'a self,
        collection: &'a CollectionName,
        items: &'a [Item],
        leaves: bool,
    ) -> BoxFuture<'a, Result<Vec<Held>, TargetError>> {
        let revisions = |of: Vec<String>| of.iter().map(|one| Revision::from(&**one)).collect();
        let held = self.with(collection, |database| {
            let held = |item: &Item| match database.documents.get(item.id.as_str()) {
                None => Held::Nothing,
                Some(document) => {
                    let Winner { revision, deleted, live, dead, .. } = document.winner();
                    let beside = Leaves { live: revisions(live), deleted: revisions(dead) };
                    Held::Winner {
                        revision: revision.as_str().into(),
                        deleted,
                        knows_ours: document.knows(item.revision().as_str()),
                        others: if leaves { beside } else { Leaves::default() },
                    }
                }
            };
            items.iter().map(held).collect()
        });
        async move { held }.boxed()
    }

    fn write<'a>(
        &'a self,
        collection: &'a CollectionName,
        batch: &'a [Writing],
    ) -> BoxFuture<'a, Result<Vec<Refused>, TargetError>> {
        self.put(collection, batch).boxed()
    }

    fn security<'a>(
        &'a self,
        collection: &'a CollectionName,
    ) -> BoxFuture<'a, Result<Option<Bytes>, TargetError>> {
        let text = |database: &mut Database| {
            database.security.as_ref().map_or("{}".to_owned(), Value::to_string)
        };
        let security = self.with(collection, text);
        async move { Ok(Some(security?.into())) }.boxed()
    }

    fn secure<'a>(
        &'a self,
        collection: &'a CollectionName,
        security: Bytes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        let security = serde_json::from_slice(&security).unwrap();
        let secured = self.with(collection, |database| database.security = Some(security));
        async move { secured }.boxed()
    }

    fn finish(&self) -> BoxFuture<'_, Result<(), TargetError>> {
        async { Ok(()) }.boxed()
    }
}

impl Subject for Memory {
    type Target = Self;

    async fn start() -> Self {
        Self::default()
    }

    fn target(&self) -> &Self {
        self
    }

    fn refuses(&self) -> Option<&'static str> {
        Some(REFUSED)
    }

    async fn broken(&self) -> Vec<(Self, Cause)> {
        Vec::new()
    }

    async fn look(&self, collection: &CollectionName) -> Seen {
        let winners = self.with(collection, |database| {
            let winners = database.documents.values().map(super::store::Document::winner);
            winners.filter(|winner| !winner.deleted).map(|winner| winner.body).collect()
        });
        super::seen(winners.unwrap())
    }
}
