//! Which database a position came from: what is noted beside it, and how a position is found to be no
//! longer of use.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client::couchdb::DatabaseInfo;
use crate::document::{Anchor, DocumentId, Position, Revision};

/// What is noted beside a position, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Context {
    /// When the database was created. CouchDB only: pouchdb-server gives the start of its own
    /// process instead, which says nothing about the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The number of purges. A purge leaves no row in the feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purges: Option<String>,
    /// The `update_seq` from before the feed was read to its end. As long as the database gives the same,
    /// there is nothing new. Noted at the end of a feed only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    /// Further changes that the feed brought, the newest first. A database has shards, and the very
    /// last change is of one of them only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recent: Vec<Noted>,
}

/// A change that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    id: DocumentId,
    revision: Revision,
    /// Which change it was, counted from 1. Older versions did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
}

/// The last changes, one per document, and fewer and fewer of the older ones. The last changes alone do
/// not suffice: after a restored backup, the same import run again brings the same revisions.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The newest first, each with its number.
    changes: VecDeque<(u64, Anchor)>,
    /// The number of the newest change.
    newest: u64,
}

/// This many of the last changes are all kept. The last rows of a feed come from several shards, and each
/// shard can lose its own past.
const RECENT: u64 = 32;

/// Older changes are kept up to this age: 16 for each doubling of the age.
const OLDEST: u64 = 4096;

/// Of the last changes but the very last, ids longer than this are not noted: a checkpoint is written
/// often.
const LONGEST_RECENT: usize = 256;

/// Of the older changes, ids longer than this are not noted.
const LONGEST_OLDER: usize = 100;

impl Recent {
    /// The changes that had come at this position.
    pub fn at(position: &Position) -> Self {
        let noted = noted(position).recent;
        let mut changes = VecDeque::with_capacity(noted.len() + 1);
        let mut newest = 0;
        for (Noted { id, revision, n }, rest) in noted.into_iter().rev().zip(1..) {
            newest = n.unwrap_or(rest).max(newest + 1);
            changes.push_front((newest, Anchor { id, revision }));
        }
        let mut recent = Self { changes, newest };
        if let Some(anchor) = position.anchor() {
            recent.push(anchor.clone());
        }
        recent
    }

    /// Remembers one more change.
    pub fn push(&mut self, anchor: Anchor) {
        self.newest += 1;
        let newest = self.newest;
        self.changes.retain(|(n, one)| {
            one.id != anchor.id && is_kept(newest - n, *n, one.id.as_str().len())
        });
        self.changes.push_front((newest, anchor));
    }

    /// The changes, the newest first.
    pub fn anchors(&self) -> Vec<Anchor> {
        self.changes.iter().map(|(_, anchor)| anchor.clone()).collect()
    }

    /// The number of changes so far.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// What is noted of them beside this change.
    fn noted(&self, beside: Option<&Anchor>) -> Vec<Noted> {
        let others = self
            .changes
            .iter()
            .filter(|(_, one)| Some(one) != beside && one.id.as_str().len() <= LONGEST_RECENT);
        let noted = |(n, Anchor { id, revision }): &(u64, Anchor)| Noted {
            id: id.clone(),
            revision: revision.clone(),
            n: Some(*n),
        };
        others.map(noted).collect()
    }
}

/// Whether the change with this number is still remembered at this age.
fn is_kept(age: u64, number: u64, length: usize) -> bool {
    if age < RECENT {
        return true;
    }
    let step = 1 << (age / (RECENT / 2)).ilog2();
    age < OLDEST && number.is_multiple_of(step) && length <= LONGEST_OLDER
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
    /// The database with these properties.
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

    /// A database whose positions are numbers. It says nothing reliable about itself.
    pub fn counting() -> Self {
        Self::noting(Context::default(), true)
    }

    fn noting(known: Context, counts: bool) -> Self {
        let within = note(&Context { end: None, ..known.clone() });
        Self { within, known, counts }
    }

    /// From now on, places within the feed note these changes too.
    pub fn remember(&mut self, recent: &Recent) {
        let recent = recent.noted(None);
        self.within = note(&Context { end: None, recent, ..self.known.clone() });
    }

    /// Whether the places in its feed are numbers.
    pub fn counts(&self) -> bool {
        self.counts
    }

    /// The place after a row within the feed.
    pub fn within(&self, token: Arc<str>, anchor: Option<Anchor>) -> Position {
        Position::new(token, self.within.clone(), anchor)
    }

    /// The place at the feed's end, with the changes that it brought.
    pub fn at_end(&self, token: Arc<str>, anchor: Option<Anchor>, recent: &Recent) -> Position {
        let recent = recent.noted(anchor.as_ref());
        Position::new(token, note(&Context { recent, ..self.known.clone() }), anchor)
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
        let told = |context: &Context| Context { recent: Vec::new(), ..context.clone() };
        if self.counts && told(before) != Context::default() {
            return Some("it is another server: it numbers its changes".to_owned());
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

/// Why a database does not know its own past.
pub(super) const RECREATED: &str = "the database was deleted and created again";

/// Whether this JSON text is a number.
pub(super) fn is_number(token: &str) -> bool {
    token.bytes().next().is_some_and(|byte| byte == b'-' || byte.is_ascii_digit())
}

/// How many changes come after a position, where both it and the end are numbers of changes.
pub(super) fn distance(position: Option<&str>, end: &str) -> Option<u64> {
    let number = |text: &str| text.parse::<u64>().ok();
    Some(number(end)?.saturating_sub(position.map_or(Some(0), number)?))
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
