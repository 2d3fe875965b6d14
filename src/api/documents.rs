//! The documents of a mirror, whether it is at work or not: collections, lists, documents, bodies and
//! attachments, each a file below. Nothing here writes, and no name of a request is a path: the archive
//! makes the name of each folder and file from an id.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::chosen::{ApiState, Named};
use super::problem::{ApiProblem, ApiProblemKind};
use crate::archive::{self, Archive, Entry, Problem, StoredCollection, StoredDocument};
use crate::document::{CollectionName, DocumentId, plain};
use crate::tree::MirrorError;

mod attachment;
mod body;
mod document;
mod list;
mod range;
mod sent;

/// The number of requests at one listener that read the files of one mirror at a time. A disk that hangs takes this number
/// of threads.
const READERS: usize = 4;

/// The same for all mirrors together.
const ALL_READERS: usize = 64;

/// The time that a request waits for its turn.
pub const TURN: Duration = Duration::from_secs(10);

/// How often a document that changes meanwhile is read.
const TRIES: usize = 10;

/// The routes.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list::archive))
        .routes(routes!(list::list))
        .routes(routes!(document::read))
        .routes(routes!(body::read))
        .routes(routes!(attachment::read))
}

/// These routes, whose handlers read the files of mirrors by turns.
pub fn bounded(routes: OpenApiRouter<ApiState>) -> OpenApiRouter<ApiState> {
    routes.layer(Extension(Readers::default()))
}

/// Who reads files now.
#[derive(Clone, Debug)]
struct Readers {
    all: Arc<Semaphore>,
    /// By the mirror's directory, while somebody reads.
    each: Arc<Mutex<HashMap<PathBuf, Weak<Semaphore>>>>,
}

impl Default for Readers {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL_READERS)), each: Arc::default() }
    }
}

impl Readers {
    fn of(&self, directory: &Path) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = each.get(directory).and_then(Weak::upgrade) {
            return known;
        }
        each.retain(|_, one| one.strong_count() > 0);
        let new = Arc::new(Semaphore::new(READERS));
        each.insert(directory.to_owned(), Arc::downgrade(&new));
        new
    }
}

/// The files of the mirror that a request is about.
#[derive(Clone, Debug)]
pub struct Files {
    directory: Arc<Path>,
    /// The name of the mirror for commands.
    named: Arc<str>,
    turns: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// The right to read. A call that hangs keeps it.
struct Turn {
    _one: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl FromRequestParts<ApiState> for Files {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiProblem> {
        let (directory, named) = match state {
            ApiState::One(watcher) => {
                let directory = watcher.directory();
                let named = plain::quoted(&directory.to_string_lossy());
                (directory, named)
            }
            ApiState::All(roster) => {
                let Named(mirror) = Named::from_request_parts(parts, roster).await?;
                (mirror.directory().to_owned(), mirror.name().to_string())
            }
        };
        let readers = parts.extensions.get::<Readers>().cloned().unwrap_or_default();
        let turns = readers.of(&directory);
        let (directory, named) = (directory.into(), named.into());
        Ok(Self { directory, named, turns, all: readers.all })
    }
}

impl Files {
    /// Waits until this request may read.
    async fn turn(&self) -> Option<Turn> {
        let one = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _one: one, _of_all: of_all })
    }

    /// Runs a call that reads the mirror, when its turn comes.
    async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Reader) -> Result<T, ApiProblem> + Send + 'static,
    ) -> Result<T, ApiProblem> {
        let files = self.clone();
        self.in_turn(move || call(&Reader::open(files)?)).await
    }

    /// The directory of the mirror.
    pub fn directory(&self) -> &Arc<Path> {
        &self.directory
    }

    /// Runs a call that reads files, when its turn comes.
    pub async fn in_turn<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, ApiProblem> + Send + 'static,
    ) -> Result<T, ApiProblem> {
        let turn = tokio::time::timeout(TURN, self.turn()).await.ok().flatten();
        let turn = turn.ok_or_else(|| {
            let detail = format!(
                "too many requests read the files of {} now, or its disk does not answer: ask again \
                 later; if it stays so, look at the disk",
                self.named
            );
            ApiProblem::new(ApiProblemKind::Unavailable, detail)
        })?;
        let read = move || {
            let read = call();
            drop(turn);
            read
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => read,
            Err(error) => Err(ApiProblem::internal(&error)),
        }
    }
}

/// A mirror whose files are read.
struct Reader {
    files: Files,
    archive: Arc<dyn Archive>,
}

impl Reader {
    fn open(files: Files) -> Result<Self, ApiProblem> {
        let nothing = || {
            let detail = format!(
                "there is no mirror in {} yet: its first run makes it; if it has run before, look whether \
                 its disk is mounted",
                files.directory.display()
            );
            ApiProblem::new(ApiProblemKind::NoArchive, detail)
        };
        let archive = match archive::open(&files.directory) {
            Ok(archive) => archive,
            Err(MirrorError::NothingToRead { .. } | MirrorError::NotADirectory { .. }) => {
                return Err(nothing());
            }
            Err(error) => return Err(ApiProblem::internal(&error)),
        };
        // What somebody else keeps there is not for this interface.
        match archive.lineage() {
            Some(_) => Ok(Self { archive, files }),
            None => Err(nothing()),
        }
    }

    fn collection(&self, name: &CollectionName) -> Result<Arc<dyn StoredCollection>, ApiProblem> {
        let found = self.archive.collection(name).map_err(|error| ApiProblem::internal(&error))?;
        found.ok_or_else(|| {
            let name = plain::quoted(name.as_str());
            let detail = format!(
                "the mirror holds no collection {name}: `GET …/archive` lists those it holds"
            );
            ApiProblem::new(ApiProblemKind::NoCollection, detail)
        })
    }

    /// Reads a document. If it changes meanwhile, it is read again.
    fn document(
        &self,
        collection: &dyn StoredCollection,
        id: &DocumentId,
    ) -> Result<StoredDocument, ApiProblem> {
        match settled(collection, &collection.name_of(id))
            .map_err(|error| ApiProblem::internal(&error))?
        {
            Some(Entry::Document(document)) if document.id == *id => Ok(*document),
            Some(Entry::Problem(problem)) => Err(self.damaged(&problem)),
            _ => Err(no_document(collection.name(), id)),
        }
    }

    /// What is said of a document that cannot be read.
    fn damaged(&self, problem: &Problem) -> ApiProblem {
        let Problem { path, reason, .. } = problem;
        let named = &self.files.named;
        let detail = format!(
            "{path} is damaged: {reason}; `plainfold verify {named} --repair` fetches the document again"
        );
        ApiProblem::new(ApiProblemKind::Damaged, detail)
    }
}

/// The entry under this name, which has not changed while it was read.
fn settled(collection: &dyn StoredCollection, name: &str) -> Result<Option<Entry>, MirrorError> {
    if name.is_empty() {
        return Ok(None);
    }
    let mut before = collection.version(name)?;
    for _ in 1..TRIES {
        let entry = collection.entry(name)?;
        let after = collection.version(name)?;
        if before == after {
            return Ok(entry);
        }
        before = after;
    }
    collection.entry(name)
}

fn no_document(collection: &CollectionName, id: &DocumentId) -> ApiProblem {
    let (collection, id) = (plain::quoted(collection.as_str()), plain::quoted(id.as_str()));
    let detail = format!(
        "the mirror holds no document {id} in {collection}: `GET …/documents` lists those it holds"
    );
    ApiProblem::new(ApiProblemKind::NoDocument, detail)
}

#[cfg(test)]
mod tests;
