//! The trait for targets of a restore, and its errors.
//!
//! A target reports what it holds and writes what it is given.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::body::{BodyText, Piece, Stubs, Successor};
use super::plan::Held;
use crate::document::{CollectionName, DocumentId, Properties, Revision};

/// A place that documents are restored to.
///
/// Writing the same document again is harmless: an interrupted restore starts again. Up to
/// [`parallel`](Target::parallel) batches of one collection are written at the same time.
pub trait Target: Send + Sync {
    /// The form in which it wants attachments.
    fn stubs(&self) -> Stubs;

    /// Whether it accepts branches and histories, or winners only.
    fn takes_branches(&self) -> bool;

    /// The number of batches that it accepts at the same time.
    fn parallel(&self) -> usize;

    /// The collection's address at the target, for messages. Without credentials.
    fn place(&self, collection: &CollectionName) -> String;

    /// The state of a collection before anything is written.
    fn standing<'a>(
        &'a self,
        collection: &'a CollectionName,
    ) -> BoxFuture<'a, Result<Standing, TargetError>>;

    /// Creates a collection with these properties. Returns the properties that the target does not
    /// support, in words for people.
    fn create<'a>(
        &'a self,
        collection: &'a CollectionName,
        properties: Properties,
    ) -> BoxFuture<'a, Result<Vec<String>, TargetError>>;

    /// Some of its live documents, in the order of their ids, after this one; none at the end.
    fn list<'a>(
        &'a self,
        collection: &'a CollectionName,
        after: Option<&'a DocumentId>,
    ) -> BoxFuture<'a, Result<Vec<(DocumentId, Revision)>, TargetError>>;

    /// Its version of each of these documents, in order; with `leaves`, including all leaves.
    fn held<'a>(
        &'a self,
        collection: &'a CollectionName,
        items: &'a [Item],
        leaves: bool,
    ) -> BoxFuture<'a, Result<Vec<Held>, TargetError>>;

    /// Writes documents, and returns those that the target refuses. Every other document of the
    /// batch is written. After an error, some of them may be.
    fn write<'a>(
        &'a self,
        collection: &'a CollectionName,
        batch: &'a [Writing],
    ) -> BoxFuture<'a, Result<Vec<Refused>, TargetError>>;

    /// The security object of an existing collection; `None` if the target has no security objects.
    fn security<'a>(
        &'a self,
        collection: &'a CollectionName,
    ) -> BoxFuture<'a, Result<Option<Bytes>, TargetError>>;

    /// Writes the security object of a collection.
    fn secure<'a>(
        &'a self,
        collection: &'a CollectionName,
        security: Bytes,
    ) -> BoxFuture<'a, Result<(), TargetError>>;

    /// Makes everything durable, after the last write.
    fn finish(&self) -> BoxFuture<'_, Result<(), TargetError>>;
}

/// The state of a collection at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does not exist.
    Absent,
    /// It exists, and has never held a document.
    Empty,
    /// It exists, and may hold documents.
    Present,
}

/// A document of the mirror that is about to be written.
#[derive(Clone)]
pub struct Item {
    /// Its id.
    pub id: DocumentId,
    /// Its folder, relative to the mirror.
    pub path: String,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// The winner, if this is a branch that lost a conflict with it.
    pub branch_of: Option<Revision>,
    /// The branches that lost a conflict with it.
    pub branches: Vec<Revision>,
    /// Whether these are all branches that the source had; a mirror of winners only cannot know.
    pub has_all_branches: bool,
    /// Its text.
    pub text: BodyText,
    /// Bytes of its body and attachments.
    pub bytes: u64,
    /// Opens the files of attachments that are too large for memory.
    pub files: Arc<dyn Files>,
}

impl Item {
    /// Its revision in the mirror.
    pub fn revision(&self) -> &Revision {
        &self.text.revision
    }

    /// The bytes that it holds in memory.
    pub(super) fn weight(&self) -> u64 {
        let held = self.text.rendered(None);
        let held: Vec<_> = held.into_iter().filter(|one| matches!(one, Piece::Text(_))).collect();
        super::body::length(&held)
    }
}

/// A document that is to be written.
#[derive(Clone)]
pub struct Writing {
    /// The document.
    pub item: Item,
    /// The part of it that is written.
    pub form: Form,
    /// Branches at the target that this write ends.
    pub ends: Vec<Revision>,
}

/// The part of a document that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// The document under its revision.
    AsItIs,
    /// The document under a revision on top of another.
    Successor(Successor),
    /// Nothing: only other branches end.
    Nothing,
}

impl Writing {
    /// Whether it replaces another revision.
    pub(super) fn replaces(&self) -> bool {
        self.form != Form::AsItIs || !self.ends.is_empty()
    }

    /// The revision that it follows.
    pub(super) fn on_top(&self) -> Option<&Successor> {
        match &self.form {
            Form::Successor(on_top) => Some(on_top),
            Form::AsItIs | Form::Nothing => None,
        }
    }

    /// The revision under which the document is written.
    pub(super) fn revision(&self) -> &Revision {
        self.on_top().map_or(self.item.revision(), |on_top| &on_top.revision)
    }

    /// Bytes of what is written of the document.
    pub(super) fn bytes(&self) -> u64 {
        if self.form == Form::Nothing { 0 } else { self.item.bytes }
    }

    /// Its text, with attachments inline; empty where only branches end.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        match self.form {
            Form::Nothing => Vec::new(),
            _ => self.item.text.rendered(self.on_top()),
        }
    }
}

/// The files of a document's large attachments.
pub trait Files: Send + Sync {
    /// Opens one. Blocks.
    fn open(&self, name: &str) -> io::Result<Box<dyn io::Read + Send>>;
}

/// A document that a target refuses. The others of its batch are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its index in the batch.
    pub index: usize,
    /// The reason, and the remedy if there is one.
    pub reason: String,
}

/// An error of a target that concerns more than one document. One that concerns a single document
/// is a [`Refused`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The target does not answer now, and has been asked again for as long as it is worth waiting.
    /// A later restore may succeed.
    #[error("{0}")]
    Transient(String),
    /// The same call fails every time.
    #[error("{what}")]
    Permanent {
        /// What the user has to change.
        cause: Cause,
        /// What happened, to what.
        what: String,
    },
}

/// Why a target fails every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It refuses the credentials.
    Credentials,
    /// It understands the call and refuses it, for this collection.
    Rejected,
    /// It does not have what was asked for, or its answers cannot be used.
    Unusable,
    /// A file cannot be written.
    File,
}

impl TargetError {
    /// A permanent error.
    pub fn permanent(cause: Cause, what: impl Into<String>) -> Self {
        Self::Permanent { cause, what: what.into() }
    }
}

/// The size of the pieces in which an attachment is read, in bytes. A multiple of three, so that
/// only the last piece is padded.
const CHUNK: usize = 96 << 10;

/// The bytes of pieces, with attachments as base64 read from their files piece by piece.
pub(super) fn streamed(
    pieces: Vec<Piece>,
    files: Arc<dyn Files>,
) -> BoxStream<'static, io::Result<Bytes>> {
    let one = move |piece| match piece {
        Piece::Attachment { name, size } => {
            let encode = |bytes: io::Result<Bytes>| {
                use base64::Engine as _;
                bytes.map(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes).into())
            };
            raw(name, size, Arc::clone(&files)).map(encode).boxed()
        }
        Piece::Text(text) => stream::iter([Ok(text)]).boxed(),
        Piece::Members | Piece::Revision | Piece::Edge(_) => stream::empty().boxed(),
    };
    stream::iter(pieces).flat_map(one).boxed()
}

/// The unencoded bytes of an attachment, read from its file piece by piece. They end with an error
/// if they are not exactly `size` bytes.
pub(super) fn raw(
    name: String,
    size: u64,
    files: Arc<dyn Files>,
) -> BoxStream<'static, io::Result<Bytes>> {
    struct State {
        name: String,
        files: Arc<dyn Files>,
        open: Option<Box<dyn io::Read + Send>>,
        left: u64,
    }
    let read = |mut state: State| -> io::Result<(Bytes, State)> {
        use std::io::Read as _;
        let mut file = match state.open.take() {
            Some(file) => file,
            None => state.files.open(&state.name)?,
        };
        let count = state.left.min(CHUNK as u64);
        let mut bytes = Vec::with_capacity(count as usize);
        (&mut file).take(count).read_to_end(&mut bytes)?;
        state.left -= bytes.len() as u64;
        let ends_now = state.left > 0 || file.read(&mut [0])? == 0;
        if bytes.len() as u64 != count || !ends_now {
            let what =
                format!("the length of the attachment `{}` changed while it was read", state.name);
            return Err(io::Error::other(what));
        }
        state.open = Some(file);
        Ok((bytes.into(), state))
    };
    let state = State { name, files, open: None, left: size };
    stream::try_unfold(state, move |state| async move {
        if state.left == 0 {
            return Ok(None);
        }
        tokio::task::spawn_blocking(move || read(state)).await.map_err(io::Error::other)?.map(Some)
    })
    .boxed()
}
