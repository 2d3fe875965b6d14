//! Which database a position came from: what is noted beside it, and how it is found to be of no
//! use any more.
//!
//! It must not know how a feed is read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client::couchdb::DatabaseInfo;
use crate::document::{Anchor, Position};

/// What is noted beside a position, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Context {
    /// When the database was created. Of CouchDB only: pouchdb-server tells the start of its own
    /// process instead, which says nothing of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// How many purges there had been. A purge leaves no row in the feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purges: Option<String>,
    /// The end that the database told before the feed was read to its end. As long as it tells the
    /// same, there is nothing new. Noted at the end of a feed only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    /// Further changes that the feed brought last. A database has shards, and the very last change is
    /// of one of them only. Noted at the end of a feed only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recent: Vec<Anchor>,
}

/// The database that a feed is read from, as positions note it.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    known: Context,
    /// Whether the places in its feed are numbers, as pouchdb-server's are. They count from 1 in
    /// every new database, and the server understands any of them.
    counts: bool,
    /// The note for a place within the feed, shared by all of them.
    within: Arc<str>,
}

impl Origin {
    /// The database that says this of itself.
    pub fn of(info: &DatabaseInfo) -> Self {
        if is_number(info.update_seq.get()) {
            return Self::counting();
        }
        let known = Context {
            instance: info.instance_start_time.as_deref().map(text),
            purges: info.purge_seq.as_deref().map(purges),
            end: Some(text(&info.update_seq)),
            recent: Vec::new(),
        };
        Self::noting(known, false)
    }

    /// A database whose places are numbers. It tells nothing of itself that could be relied on.
    pub fn counting() -> Self {
        Self::noting(Context::default(), true)
    }

    fn noting(known: Context, counts: bool) -> Self {
        let within = note(&Context { end: None, ..known.clone() });
        Self { within, known, counts }
    }

    /// Whether the places in its feed are numbers.
    pub fn counts(&self) -> bool {
        self.counts
    }

    /// The place after a row within the feed.
    pub fn within(&self, token: Arc<str>, anchor: Option<Anchor>) -> Position {
        Position::new(token, self.within.clone(), anchor)
    }

    /// The place at the feed's end, with the changes that it brought last.
    pub fn at_end(&self, token: Arc<str>, anchor: Option<Anchor>, recent: Vec<Anchor>) -> Position {
        // pouchdb-server's feed is of one piece, and its position is the last row's own.
        let recent = if self.counts { Vec::new() } else { recent };
        Position::new(token, note(&Context { recent, ..self.known.clone() }), anchor)
    }

    /// The changes that the feed had brought last at this position, the last first.
    pub fn recent(position: &Position) -> Vec<Anchor> {
        let mut recent: Vec<Anchor> = position.anchor().cloned().into_iter().collect();
        recent.extend(noted(position).recent);
        recent.dedup();
        recent
    }

    /// Why a position is of no use in this database, if that is already plain.
    pub fn contradicts(&self, position: &Position) -> Option<String> {
        self.differs(&noted(position))
    }

    /// Whether nothing has happened since this position was taken.
    pub fn is_end(&self, position: &Position) -> bool {
        let noted = Context { recent: Vec::new(), ..noted(position) };
        noted.end.is_some() && noted == self.known
    }

    /// Why this database is not the one it was, if it is not.
    pub fn has_changed(&self, now: &DatabaseInfo, last: Option<&str>) -> Option<String> {
        if !self.counts {
            return Self::of(now).differs(&self.known);
        }
        let end: u64 = now.update_seq.get().parse().ok()?;
        let last: u64 = last?.parse().ok()?;
        (end < last).then(|| {
            format!("the database ends at {end}, before the {last} that we have read: {RECREATED}")
        })
    }

    fn differs(&self, before: &Context) -> Option<String> {
        let changed = |before: &Option<String>, now: &Option<String>| {
            before.as_ref().zip(now.as_ref()).is_some_and(|(before, now)| before != now)
        };
        if self.counts && *before != Context::default() {
            return Some("the server is another: it numbers its changes".to_owned());
        }
        if changed(&before.instance, &self.known.instance) {
            return Some(RECREATED.to_owned());
        }
        if changed(&before.purges, &self.known.purges) {
            return Some("documents were purged, which leaves no trace in the feed".to_owned());
        }
        None
    }
}

/// What became of a database that does not know its own past.
pub(super) const RECREATED: &str = "the database was deleted and created again";

/// Whether this JSON text is a number.
pub(super) fn is_number(token: &str) -> bool {
    token.bytes().next().is_some_and(|byte| byte == b'-' || byte.is_ascii_digit())
}

/// The context that is stored with a position. Serialising strings cannot fail; if it did, an empty
/// context is safe.
fn note(context: &Context) -> Arc<str> {
    serde_json::to_string(context).unwrap_or_default().into()
}

/// What was noted beside a position; nothing, if the note is not ours.
fn noted(position: &Position) -> Context {
    serde_json::from_str(position.context()).unwrap_or_default()
}

/// A JSON string without its quotes; anything else as it is.
fn text(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

/// The number before the dash; what follows it may change without a purge.
fn purges(raw: &RawValue) -> String {
    let text = text(raw);
    text.split_once('-').map_or(text.clone(), |(number, _)| number.to_owned())
}
