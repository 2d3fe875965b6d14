//! A server as a target: one database per collection, documents with their revisions.
//!
//! Only this part of a restore waits and tries again, and only it knows the errors of the protocol.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};

use self::patience::{TRIES, patiently};
use self::send::{Fault, Sender};
use super::body::Stubs;
use super::plan::{Held, Leaves};
use super::target::{Cause, Item, Refused, Standing, Target, TargetError, Writing};
use crate::client::couchdb::{Client, Database, Error, Kind, Unwritten, all_docs_rows};
use crate::document::{CollectionName, DocumentId, Properties, Revision};

mod leaves;
mod multipart;
mod patience;
mod send;

/// The number of batches that are written at the same time.
const PARALLEL: usize = 3;

/// The number of documents per page of a listing.
const PAGE: usize = 5_000;

/// The number of attempts for parts of a batch that failed as a whole.
const TRIES_OF_PARTS: usize = 2;

/// The default limit of servers for the number of revisions that a document remembers.
const REVS_LIMIT: u64 = 1_000;

/// A server that speaks the CouchDB protocol.
#[derive(Clone, Debug)]
pub struct CouchTarget {
    client: Client,
    sender: Arc<Sender>,
}

impl CouchTarget {
    /// A target on the server of this client.
    pub fn new(client: Client) -> Self {
        Self { client, sender: Arc::default() }
    }

    /// The documents in the database, if they may differ from the mirror's.
    async fn compare(
        &self,
        database: &Database,
        items: &[Item],
        leaves: bool,
    ) -> Result<Vec<Held>, Error> {
        let mut ids: Vec<&DocumentId> = items.iter().map(|item| &item.id).collect();
        let mut is_partitioned = false;
        let answer = match patiently(TRIES, || database.newest(&ids)).await {
            // CouchDB refuses the whole request because of a single id.
            Err(error) if is_about_partitions(&error) => {
                is_partitioned = true;
                ids.retain(|id| has_partition(id));
                patiently(TRIES, || database.newest(&ids)).await?
            }
            answer => answer?,
        };
        let mut winners = HashMap::new();
        for row in all_docs_rows(&answer)? {
            if let Some(value) = row.value {
                winners.insert(row.key.into_owned(), value);
            }
        }
        let winner = |item: &Item| winners.get(item.id.as_str());
        let differs = |item: &&Item| {
            winner(item).is_some_and(|value| value.deleted || value.rev != *item.revision())
        };
        let mut asked: HashMap<DocumentId, Vec<Revision>> = HashMap::new();
        for item in items.iter().filter(differs) {
            asked.entry(item.id.clone()).or_default().push(item.revision().clone());
        }
        let mut unknown = HashMap::new();
        if !asked.is_empty() {
            unknown = patiently(TRIES, || database.revs_diff(&asked)).await?;
        }
        let mut others = HashMap::new();
        if leaves {
            let known = items.iter().filter(|item| winner(item).is_some());
            let known = known.filter(|item| item.branch_of.is_none()).map(|item| &item.id);
            others = leaves::of(database, known.collect()).await?;
        }
        let held = |item: &Item| match winner(item) {
            None if is_partitioned && !has_partition(&item.id) => {
                Held::Impossible(PARTITIONED.to_owned())
            }
            None => Held::Nothing,
            Some(value) => Held::Winner {
                others: others.get(&item.id).cloned().unwrap_or_else(Leaves::default),
                revision: value.rev.clone(),
                deleted: value.deleted,
                knows_ours: unknown
                    .get(&item.id)
                    .is_none_or(|diff| !diff.missing.contains(item.revision())),
            },
        };
        Ok(items.iter().map(held).collect())
    }

    /// Writes a batch. If the server rejects it as a whole, it is halved until only the documents
    /// that cause the error fail.
    async fn put(&self, database: &Database, batch: &[Writing]) -> Result<Vec<Refused>, Error> {
        let mut refused = Vec::new();
        let mut to_do = vec![(0..batch.len(), TRIES)];
        to_do.retain(|(range, _)| !range.is_empty());
        while let Some((range, tries)) = to_do.pop() {
            let part = &batch[range.clone()];
            let (middle, single) = (range.start + range.len() / 2, range.len() == 1);
            let mut halve = |tries| {
                to_do.push((middle..range.end, tries));
                to_do.push((range.start..middle, tries));
            };
            match self.sender.send(database, &self.client, part, tries).await {
                Ok(results) => match assigned(part, &results) {
                    Some(failed) => {
                        refused.extend(failed.into_iter().map(|Refused { index, reason }| {
                            let reason = database.scrub(&reason);
                            Refused { index: range.start + index, reason }
                        }));
                    }
                    None if single => {
                        let reason = "the server answered for another document".to_owned();
                        refused.push(Refused { index: range.start, reason });
                    }
                    None => halve(tries),
                },
                Err(Fault::Document(reason)) => {
                    refused.push(Refused { index: range.start, reason })
                }
                Err(Fault::Request(error)) => match weigh(database, &error).await {
                    Weight::All => return Err(error),
                    _ if single => {
                        refused.push(Refused { index: range.start, reason: explained(&error) });
                    }
                    Weight::Some => halve(tries),
                    Weight::Uncertain => halve(TRIES_OF_PARTS),
                },
            }
        }
        Ok(refused)
    }
}

/// The error of a single document, and the remedy if it is too large.
fn explained(error: &Error) -> String {
    match error.status() {
        Some(413) => format!(
            "{error}; raise `max_attachment_size`, `max_document_size` or `max_http_request_size` of \
             the target, and restore again"
        ),
        _ if is_about_partitions(error) => format!("{error}; {PARTITIONED}"),
        _ => error.to_string(),
    }
}

/// The message for a document whose id a partitioned database does not accept.
const PARTITIONED: &str = "the target database is partitioned and takes only ids of the form \
                           partition:id: restore into a database that is not partitioned, or leave \
                           the document out with --ids";

/// Whether a partitioned database refuses an id because it names no partition.
fn is_about_partitions(error: &Error) -> bool {
    let text = error.to_string();
    error.status() == Some(400) && text.contains("illegal_docid") && text.contains("artition")
}

/// Whether a partitioned database accepts this id.
fn has_partition(id: &DocumentId) -> bool {
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('_');
    let parts = id.as_str().split_once(':');
    id.as_str().starts_with("_design/")
        || parts.is_some_and(|(partition, rest)| is_part(partition) && is_part(rest))
}

/// What an error means for the rest of a batch.
enum Weight {
    /// Nothing can be written.
    All,
    /// Some of it is rejected.
    Some,
    /// The server fails, but only for this batch.
    Uncertain,
}

async fn weigh(database: &Database, error: &Error) -> Weight {
    match (error.kind(), error.status()) {
        (_, Some(400 | 409 | 412 | 413 | 417)) => Weight::Some,
        (Kind::Transient { .. }, _) if patiently(TRIES, || database.info()).await.is_ok() => {
            Weight::Uncertain
        }
        _ => Weight::All,
    }
}

/// The rejected documents by their index in the batch. `None` if the server does not say which they
/// are.
fn assigned(batch: &[Writing], results: &[Unwritten]) -> Option<Vec<Refused>> {
    let mut refused: Vec<Refused> = Vec::new();
    for result in results {
        let index = match &result.id {
            Some(id) => {
                let of_id = |writing: &Writing| writing.item.id == *id;
                let exactly = |writing: &Writing| {
                    of_id(writing) && result.rev.as_ref() == Some(writing.item.revision())
                };
                let exact = batch.iter().position(exactly);
                exact.or_else(|| batch.iter().position(of_id))?
            }
            None if batch.len() == 1 => 0,
            None => return None,
        };
        if refused.iter().all(|known| known.index != index) {
            let reason = format!("the server rejected it: {}", result.why());
            refused.push(Refused { index, reason });
        }
    }
    Some(refused)
}

/// The message for a server that cannot create a partitioned database.
const NOT_PARTITIONED: &str = "the mirror's database is partitioned. Create a database of this name \
                               by hand and restore into that: such documents do not need a \
                               partitioned one";

/// The message for a server that ignores partitioning.
const IGNORED: &str = "the mirror's database is partitioned, and the server does not support \
                       that. The documents are restored, but queries of a single partition will fail. If you need those, restore into CouchDB 3 or newer";

/// Sets the number of revisions of a document that are remembered, if it differs.
async fn limit_revisions(database: &Database, limit: u64) -> Result<Result<(), Error>, Error> {
    let refused = |error: &Error| !matches!(error.kind(), Kind::Transient { .. });
    match patiently(TRIES, || database.revs_limit()).await {
        Ok(present) if present == limit => return Ok(Ok(())),
        Err(_) if limit == REVS_LIMIT => return Ok(Ok(())),
        Err(error) if !refused(&error) => return Err(error),
        _ => {}
    }
    match patiently(TRIES, || database.set_revs_limit(limit)).await {
        Err(error) if !refused(&error) => Err(error),
        set => Ok(set),
    }
}

impl From<Error> for TargetError {
    fn from(error: Error) -> Self {
        let cause = match error.kind() {
            Kind::Transient { .. } => return Self::Transient(error.to_string()),
            Kind::Refused => Cause::Credentials,
            Kind::Permanent => Cause::Rejected,
            Kind::Missing | Kind::Expired | Kind::TooLarge => Cause::Unusable,
        };
        Self::permanent(cause, error.to_string())
    }
}

impl Target for CouchTarget {
    fn stubs(&self) -> Stubs {
        Stubs::Server
    }

    fn takes_branches(&self) -> bool {
        true
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    fn place(&self, collection: &CollectionName) -> String {
        self.client.database(collection).url()
    }

    fn standing<'a>(
        &'a self,
        collection: &'a CollectionName,
    ) -> BoxFuture<'a, Result<Standing, TargetError>> {
        async move {
            let database = self.client.database(collection);
            match patiently(TRIES, || database.info()).await {
                Ok(info) if info.is_untouched() => Ok(Standing::Empty),
                Ok(_) => Ok(Standing::Present),
                Err(error) if error.kind() == Kind::Missing => Ok(Standing::Absent),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        collection: &'a CollectionName,
        properties: Properties,
    ) -> BoxFuture<'a, Result<Vec<String>, TargetError>> {
        async move {
            let database = self.client.database(collection);
            let Properties { partitioned, revs_limit } = properties;
            let created = patiently(TRIES, || database.create(partitioned)).await;
            if let Err(error) = &created
                && partitioned
                && error.kind() == Kind::Permanent
            {
                return Err(Error::new(error.kind(), format!("{error}; {NOT_PARTITIONED}")).into());
            }
            created?;
            let mut not_taken = Vec::new();
            if partitioned && !patiently(TRIES, || database.info()).await?.props.partitioned {
                not_taken.push(format!("{} is not partitioned: {IGNORED}", database.url()));
            }
            if let Some(limit) = revs_limit
                && let Err(error) = limit_revisions(&database, limit).await?
            {
                not_taken.push(format!(
                    "the server refused the mirror's `_revs_limit` of {limit} ({error}), so its \
                     own limit applies. The documents are restored. Set the limit by hand if you need it"
                ));
            }
            Ok(not_taken)
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        collection: &'a CollectionName,
        after: Option<&'a DocumentId>,
    ) -> BoxFuture<'a, Result<Vec<(DocumentId, Revision)>, TargetError>> {
        async move {
            let database = self.client.database(collection);
            let answer = patiently(TRIES, || database.list(after, PAGE)).await?;
            let rows = all_docs_rows(&answer)?.into_iter();
            let listed = rows.filter_map(|row| Some((row.key.as_ref().into(), row.value?.rev)));
            Ok(listed.filter(|(id, _)| Some(id) != after).collect())
        }
        .boxed()
    }

    fn held<'a>(
        &'a self,
        collection: &'a CollectionName,
        items: &'a [Item],
        leaves: bool,
    ) -> BoxFuture<'a, Result<Vec<Held>, TargetError>> {
        async move { Ok(self.compare(&self.client.database(collection), items, leaves).await?) }
            .boxed()
    }

    fn write<'a>(
        &'a self,
        collection: &'a CollectionName,
        batch: &'a [Writing],
    ) -> BoxFuture<'a, Result<Vec<Refused>, TargetError>> {
        async move { Ok(self.put(&self.client.database(collection), batch).await?) }.boxed()
    }

    fn security<'a>(
        &'a self,
        collection: &'a CollectionName,
    ) -> BoxFuture<'a, Result<Option<Bytes>, TargetError>> {
        async move {
            let database = self.client.database(collection);
            match patiently(TRIES, || database.security()).await {
                // This server has no security objects.
                Err(error) if error.kind() == Kind::Missing => Ok(None),
                security => Ok(Some(security?)),
            }
        }
        .boxed()
    }

    fn secure<'a>(
        &'a self,
        collection: &'a CollectionName,
        security: Bytes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        async move {
            let database = self.client.database(collection);
            Ok(patiently(TRIES, || database.set_security(security.clone())).await?)
        }
        .boxed()
    }

    fn finish(&self) -> BoxFuture<'_, Result<(), TargetError>> {
        // A server has made durable what it has confirmed.
        async { Ok(()) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_partitioned_databases_name_a_partition_or_a_design() {
        for id in ["a:b", "a:b:c", "_design/by"] {
            assert!(has_partition(&id.into()), "{id}");
        }
        for id in ["plain", ":b", "a:", "_a:b", "a:_b", ""] {
            assert!(!has_partition(&id.into()), "{id}");
        }
    }
}
