//! A source for tests that says what it was told to say: one script an opening of its feed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};

use super::{
    Answers, Attachments, Branches, ByteStream, Feed, FeedEvent, Mode, Reading, Reads, Security,
    Since, SourceError, Wanted,
};
use crate::document::{Attachment, Branch, Change, DocumentId, Position, Revision};

pub type Said = Result<FeedEvent, SourceError>;

/// An attachment's bytes, and the errors that come before them.
pub type Blob = (Bytes, Vec<SourceError>);

/// What happens when a position is acknowledged.
pub type Hears = Box<dyn Fn(&Position) -> Result<(), SourceError> + Send>;

/// A source with a script.
#[derive(Default)]
pub struct Scripted {
    /// The scripts that are still to be said; an opening beyond them says nothing.
    pub scripts: Mutex<Vec<Vec<Said>>>,
    /// From where the feed was opened.
    pub opened: Mutex<Vec<Since>>,
    /// What `document` answers; unknown otherwise.
    pub documents: Mutex<HashMap<DocumentId, Change>>,
    /// What it answers from the second time on, where that is something else.
    pub newer: Mutex<HashMap<DocumentId, Change>>,
    /// How often `document` was asked.
    pub looked: AtomicUsize,
    /// Why it fails, if it does.
    pub away: Mutex<Option<SourceError>>,
    /// The bytes of attachments by name, and how often each fails before it comes.
    pub blobs: Mutex<HashMap<Arc<str>, Blob>>,
    /// The revisions that it can give.
    pub branches: Mutex<HashMap<(DocumentId, Revision), Branch>>,
    /// How many attachments or revisions each request for many asked for.
    pub asked: Mutex<Vec<usize>>,
    /// The number of group requests that are answered with an empty list.
    pub silent: Mutex<usize>,
    /// The security objects that it sends, the last one first; then none.
    pub securities: Mutex<Vec<Result<Option<Bytes>, SourceError>>>,
    /// What it does with an acknowledged position.
    pub hears: Mutex<Option<Hears>>,
    /// Whether the feed stays open after its script.
    pub stays_open: bool,
}

impl Scripted {
    /// A source with one script an opening, the first first.
    pub fn new(mut scripts: Vec<Vec<Said>>) -> Self {
        scripts.reverse();
        Self { scripts: Mutex::new(scripts), ..Self::default() }
    }

    /// Whether a request for many things is answered with nothing at all.
    fn is_silent(&self) -> bool {
        let mut silent = self.silent.lock().unwrap();
        let left = silent.checked_sub(1);
        *silent = left.unwrap_or_default();
        left.is_some()
    }

    fn blob(&self, name: &Arc<str>) -> Result<Bytes, SourceError> {
        let mut blobs = self.blobs.lock().unwrap();
        match blobs.get_mut(name) {
            None => Err(SourceError::missing("no such attachment")),
            Some((bytes, errors)) => errors.pop().map_or_else(|| Ok(bytes.clone()), Err),
        }
    }
}

impl Feed for Scripted {
    fn changes(&self, since: Since, _mode: Mode) -> BoxStream<'static, Said> {
        self.opened.lock().unwrap().push(since);
        let script = stream::iter(self.scripts.lock().unwrap().pop().unwrap_or_default());
        if self.stays_open { script.chain(stream::pending()).boxed() } else { script.boxed() }
    }

    fn acknowledge<'a>(&'a self, position: &'a Position) -> BoxFuture<'a, Result<(), SourceError>> {
        let answer = self.hears.lock().unwrap().as_ref().map_or(Ok(()), |hears| hears(position));
        async { answer }.boxed()
    }

    fn reads(&self) -> Option<&dyn Reads> {
        Some(self)
    }

    fn attachments(&self) -> Option<&dyn Attachments> {
        Some(self)
    }

    fn branches(&self) -> Option<&dyn Branches> {
        Some(self)
    }

    fn security(&self) -> Option<&dyn Security> {
        Some(self)
    }
}

impl Reads for Scripted {
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        _position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>> {
        self.looked.fetch_add(1, Ordering::Relaxed);
        let mut documents = self.documents.lock().unwrap();
        let found = documents.get(id).cloned();
        if let Some(newer) = self.newer.lock().unwrap().remove(id) {
            documents.insert(id.clone(), newer);
        }
        let reading = found.map_or(Reading::Unknown, Reading::Found);
        let away = self.away.lock().unwrap().clone();
        async { away.map_or(Ok(reading), Err) }.boxed()
    }
}

impl Attachments for Scripted {
    fn stream<'a>(
        &'a self,
        _id: &'a DocumentId,
        _revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>> {
        // A large attachment breaks in its middle.
        let whole =
            self.blobs.lock().unwrap().get(&attachment.name).map(|(bytes, _)| bytes.clone());
        let pieces = match (self.blob(&attachment.name), whole) {
            (Ok(bytes), _) => vec![Ok(bytes)],
            (Err(error), Some(bytes)) => vec![Ok(bytes.slice(..bytes.len() / 2)), Err(error)],
            (Err(error), None) => vec![Err(error)],
        };
        async { Ok(stream::iter(pieces).boxed()) }.boxed()
    }

    fn many<'a>(&'a self, wanted: &'a [Wanted]) -> Answers<'a, Bytes> {
        self.asked.lock().unwrap().push(wanted.len());
        let answers = match self.is_silent() {
            true => Vec::new(),
            false => wanted.iter().map(|wanted| self.blob(&wanted.attachment.name)).collect(),
        };
        async { Ok(answers) }.boxed()
    }
}

impl Branches for Scripted {
    fn many<'a>(&'a self, wanted: &'a [(DocumentId, Revision)]) -> Answers<'a, Branch> {
        self.asked.lock().unwrap().push(wanted.len());
        let branches = self.branches.lock().unwrap();
        let branch = |one| branches.get(one).cloned();
        let answer = |one| branch(one).ok_or_else(|| SourceError::missing("no such revision"));
        let answers = match self.is_silent() {
            true => Vec::new(),
            false => wanted.iter().map(answer).collect(),
        };
        async { Ok(answers) }.boxed()
    }
}

impl Security for Scripted {
    fn object(&self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        let answer = self.securities.lock().unwrap().pop().unwrap_or(Ok(None));
        async { answer }.boxed()
    }
}
