//! The options that a mirror remembers: a run that omits an option does not change it.
//!
//! They are stored in `.plainfold/options.json`. For a mirror without that file they are derived
//! from the records of its collections.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::document::{FolderMode, Kept, MaxDelete};
use crate::tree::beneath::Folder;
use crate::tree::layout::{OPTIONS, TRASH};
use crate::tree::record::Record;
use crate::tree::{MirrorError, described};

/// The options of a mirror, as the last run had them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Remembered {
    /// Whether losing revisions and histories are kept.
    pub revisions: bool,
    /// Whether tombstones are kept.
    pub deleted: Deleted,
    /// Whether attachments are mirrored.
    pub attachments: bool,
    /// The layout of documents.
    pub json: JsonStyle,
    /// The limit on deletions.
    #[schema(value_type = String, example = "30%,50")]
    pub max_delete: MaxDelete,
    /// The number of days that deleted documents stay in the trash; 0 switches it off.
    pub trash: u32,
    /// The number of bytes of the file system that stay free.
    pub reserve: u64,
    /// The mode of its folders, if it was given; otherwise that of `.plainfold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0750")]
    pub mode: Option<FolderMode>,
    /// The globs that select collections, by source.
    pub collections: BTreeMap<String, Vec<String>>,
}

/// The layout of documents on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JsonStyle {
    /// Byte for byte as the source sent them.
    AsSent,
    /// Indented for people; numbers, keys and their order unchanged.
    Pretty,
}

/// The treatment of documents that the source deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deleted {
    /// Their folders are removed.
    #[default]
    Remove,
    /// Their folders stay, with the tombstone.
    Keep,
}

impl Default for Remembered {
    fn default() -> Self {
        Self {
            revisions: false,
            deleted: Deleted::Remove,
            attachments: true,
            json: JsonStyle::AsSent,
            max_delete: MaxDelete::default(),
            trash: 0,
            reserve: 0,
            mode: None,
            collections: BTreeMap::new(),
        }
    }
}

/// The options that a run gives. Those that it omits stay as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedOptions {
    /// Whether losing revisions and histories are to be kept.
    pub revisions: Option<bool>,
    /// The treatment of documents that the source deletes.
    pub deleted: Option<Deleted>,
    /// Whether attachments are to be mirrored.
    pub attachments: Option<bool>,
    /// The layout of documents.
    pub json: Option<JsonStyle>,
    /// The limit on deletions.
    pub max_delete: Option<MaxDelete>,
    /// The number of days that deleted documents are to stay in the trash.
    pub trash: Option<u32>,
    /// The number of bytes of the file system that are to stay free.
    pub reserve: Option<u64>,
    /// The mode of new files and folders.
    pub mode: Option<FolderMode>,
    /// The mirror must exist already.
    pub existing: bool,
    /// The source knows winning revisions only, so nothing else can be kept.
    pub winners_only: bool,
    /// The user allows these options to discard data.
    pub discard: bool,
    /// A tree without `.plainfold` is to be adopted as a mirror.
    pub adopt: bool,
    /// The mirror is taken over although another process holds its lock.
    pub take_over: bool,
}

impl Remembered {
    /// Which revisions are kept in addition to the winners.
    pub fn kept(&self) -> Kept {
        Kept { revisions: self.revisions, deleted: self.deleted == Deleted::Keep }
    }

    /// The same with the options that a run gives.
    fn with(&self, wanted: &WantedOptions) -> Self {
        Self {
            revisions: wanted.revisions.unwrap_or(self.revisions),
            deleted: wanted.deleted.unwrap_or(self.deleted),
            attachments: wanted.attachments.unwrap_or(self.attachments),
            json: wanted.json.unwrap_or(self.json),
            max_delete: wanted.max_delete.unwrap_or(self.max_delete),
            trash: wanted.trash.unwrap_or(self.trash),
            reserve: wanted.reserve.unwrap_or(self.reserve),
            mode: wanted.mode.or(self.mode),
            collections: self.collections.clone(),
        }
    }

    /// The options that the records show for a mirror of a version that did not remember options. If
    /// they disagree, more is kept.
    fn derived(records: &[Record]) -> Self {
        Self {
            revisions: records.iter().any(|record| record.kept.revisions),
            deleted: match records.iter().any(|record| record.kept.deleted) {
                true => Deleted::Keep,
                false => Deleted::Remove,
            },
            attachments: records.is_empty() || records.iter().any(Record::holds_attachments),
            ..Self::default()
        }
    }

    pub(super) fn read(ours: &Folder) -> Result<Option<Self>, MirrorError> {
        let bad = |reason| Err(MirrorError::BadOptions { path: ours.path().join(OPTIONS), reason });
        let text = match (ours.read_file(OPTIONS)?, ours.kind(OPTIONS)?) {
            (Some(text), _) => text,
            (None, None) => return Ok(None),
            (None, Some(kind)) => {
                return bad(format!("it is not a file but {}", described(kind)));
            }
        };
        let members: serde_json::Map<String, Value> = match serde_json::from_slice(&text) {
            Ok(members) => members,
            Err(error) => return bad(error.to_string()),
        };
        // Without these a run would discard what the mirror holds.
        let missing = |name: &&&str| !members.contains_key(**name);
        if let Some(name) = ["revisions", "deleted", "attachments"].iter().find(missing) {
            return bad(format!("it has no member `{name}`"));
        }
        let options = serde_json::from_value(Value::Object(members));
        options.map(Some).or_else(|error| bad(error.to_string()))
    }

    /// The differences from `other`, as text.
    fn changes(&self, other: &Self) -> Vec<String> {
        let days = |count: u32| format!("{count} {}", if count == 1 { "day" } else { "days" });
        let bytes = |count: u64| format!("{count} bytes");
        let mode = |one: &Self| one.mode.unwrap_or_default().to_string();
        let word = |value: &dyn Fn(&Self) -> String| (value(self), value(other));
        let all = [
            ("--revisions", word(&|one| one.revisions.to_string())),
            ("--deleted", word(&|one| kebab(one.deleted))),
            ("--attachments", word(&|one| one.attachments.to_string())),
            ("--json", word(&|one| kebab(one.json))),
            ("--max-delete", word(&|one| one.max_delete.to_string())),
            ("--trash", word(&|one| days(one.trash))),
            ("--reserve", word(&|one| bytes(one.reserve))),
            ("--mode", word(&mode)),
        ];
        let changed = all.into_iter().filter(|(_, (before, now))| before != now);
        let said = |(option, (before, now))| format!("{option} changes from {before} to {now}");
        changed.map(said).collect()
    }
}

fn kebab(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

/// The options of an existing mirror, as its last run had them.
pub(super) fn recall(ours: &Folder, records: &Folder) -> Result<Remembered, MirrorError> {
    recalled(ours, || Record::all(records))
}

/// The same with the records of its collections, which are read when they are needed.
pub(super) fn recalled(
    ours: &Folder,
    records: impl FnOnce() -> Result<Vec<Record>, MirrorError>,
) -> Result<Remembered, MirrorError> {
    match Remembered::read(ours)? {
        Some(remembered) => Ok(remembered),
        None => Ok(Remembered::derived(&records()?)),
    }
}

/// Merges the remembered and the given options. Refuses an option that would discard data, unless
/// that is allowed.
pub(super) fn resolve(
    mirror: &std::path::Path,
    ours: &Folder,
    records: &Folder,
    wanted: &WantedOptions,
) -> Result<Remembered, MirrorError> {
    let written = Remembered::read(ours)?;
    let records = Record::all(records)?;
    let is_new = written.is_none() && records.is_empty();
    let mut before = written.unwrap_or_else(|| Remembered::derived(&records));
    refuse_loss(mirror, ours, &before, &records, wanted)?;
    let now = before.with(wanted);
    if !is_new {
        before.mode = match before.mode {
            None if now.mode.is_some() => Some(ours.mode()?),
            mode => mode,
        };
        for change in before.changes(&now) {
            tracing::info!("{change}");
        }
        if let (Some(mode), true) = (now.mode, before.mode != now.mode) {
            tracing::info!(
                "existing files keep their mode; to change it, run `chmod -R {} {}`",
                mode.symbolic(),
                mirror.display(),
            );
        }
    }
    Ok(now)
}

/// Refuses an option that would discard data, unless that is allowed.
pub(super) fn refuse_loss(
    mirror: &std::path::Path,
    ours: &Folder,
    before: &Remembered,
    records: &[Record],
    wanted: &WantedOptions,
) -> Result<(), MirrorError> {
    let has_trash = match ours.open_folder(TRASH)? {
        Some(trash) => !trash.names()?.is_empty(),
        None => false,
    };
    match lost(before, wanted, records, has_trash) {
        Some((option, what)) if !wanted.discard => {
            Err(MirrorError::Discards { path: mirror.to_owned(), option, what })
        }
        _ => Ok(()),
    }
}

/// The first option that would discard data, and that data.
fn lost(
    before: &Remembered,
    wanted: &WantedOptions,
    records: &[Record],
    has_trash: bool,
) -> Option<(String, String)> {
    let names = |has: &dyn Fn(&Record) -> bool| {
        let names = records.iter().filter(|record| has(record)).map(|record| &record.name);
        names.map(|name| format!("`{}`", name)).collect::<BTreeSet<_>>()
    };
    let listed = |what: &str, names: BTreeSet<String>| {
        let all = names.into_iter().collect::<Vec<_>>().join(", ");
        (!all.is_empty()).then(|| format!("{what} of {all}"))
    };
    if wanted.revisions == Some(false) {
        let what = "the losing revisions and the histories";
        if let Some(what) = listed(what, names(&|record| record.kept.revisions)) {
            return Some(("--revisions=false".to_owned(), what));
        }
    }
    if wanted.deleted == Some(Deleted::Remove)
        && let Some(what) = listed("the tombstones", names(&|record| record.kept.deleted))
    {
        return Some(("--deleted remove".to_owned(), what));
    }
    if wanted.attachments == Some(false) {
        let what = "the attachments of documents that change,";
        if let Some(what) = listed(what, names(&Record::holds_attachments)) {
            return Some(("--attachments false".to_owned(), what));
        }
    }
    let days = wanted.trash.filter(|days| *days > 0)?;
    let sooner = (before.trash > days) || (before.trash == 0 && has_trash);
    let unit = if days == 1 { "day" } else { "days" };
    let what = format!("documents that were deleted more than {days} {unit} ago");
    sooner.then(|| (format!("--trash {days}"), what))
}

/// Which revisions are kept of one collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keeping {
    pub attachments: bool,
    pub kept: Kept,
    /// Losing revisions and histories that the mirror holds, and that the source cannot update.
    pub loses_revisions: bool,
}

impl WantedOptions {
    /// All options given as they are in `options`, with no special permission.
    pub(super) fn exactly(options: &Remembered) -> Self {
        Self {
            revisions: Some(options.revisions),
            deleted: Some(options.deleted),
            attachments: Some(options.attachments),
            discard: true,
            ..Self::default()
        }
    }

    /// Which revisions are kept of a collection: as given; otherwise as its record says; for a new
    /// one, as the mirror's options say.
    pub(super) fn kept_of(&self, options: &Remembered, record: Option<&Record>) -> Keeping {
        let before = record.map_or(options.kept(), |record| record.kept);
        let attachments = record.map_or(options.attachments, Record::holds_attachments);
        let deleted = self.deleted.map(|deleted| deleted == Deleted::Keep);
        let revisions = self.revisions.unwrap_or(before.revisions);
        Keeping {
            attachments: self.attachments.unwrap_or(attachments),
            kept: Kept {
                revisions: revisions && !self.winners_only,
                deleted: deleted.unwrap_or(before.deleted),
            },
            loses_revisions: record.is_some_and(|record| record.kept.revisions)
                && self.winners_only
                && !self.discard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_mirror_of_old_is_kept_as_its_collections_were() {
        let thorough = record(r#"{"name":"a","kept":{"revisions":true,"deleted":true}}"#);
        let thin = record(r#"{"name":"b","attachments":false}"#);
        let derived = Remembered::derived(&[thorough, thin]);
        assert_eq!(derived.kept(), Kept::ALL);
        assert!(derived.attachments);
        assert!(!Remembered::derived(&[record(r#"{"name":"b","attachments":false}"#)]).attachments);
        assert_eq!(Remembered::derived(&[]), Remembered::default());
    }

    #[test]
    fn a_collection_is_kept_as_it_was_and_a_new_one_as_the_mirror_is() {
        let options = Remembered { revisions: true, attachments: false, ..Remembered::default() };
        let thin =
            record(r#"{"name":"b","attachments":true,"kept":{"revisions":false,"deleted":true}}"#);
        let nothing = WantedOptions::default();
        let kept = |wanted: &WantedOptions, record| wanted.kept_of(&options, record);
        let old = kept(&nothing, Some(&thin));
        assert_eq!((old.attachments, old.kept.revisions, old.kept.deleted), (true, false, true));
        let new = kept(&nothing, None);
        assert_eq!((new.attachments, new.kept.revisions, new.kept.deleted), (false, true, false));
        let named = WantedOptions {
            revisions: Some(true),
            deleted: Some(Deleted::Remove),
            attachments: Some(false),
            ..WantedOptions::default()
        };
        let old = kept(&named, Some(&thin));
        assert_eq!((old.attachments, old.kept.revisions, old.kept.deleted), (false, true, false));
    }

    #[test]
    fn what_a_feed_cannot_keep_is_never_taken_from_memory_and_its_loss_is_noticed() {
        let options = Remembered { revisions: true, ..Remembered::default() };
        let feed = WantedOptions { winners_only: true, ..WantedOptions::default() };
        assert!(!feed.kept_of(&options, None).kept.revisions);
        let held = record(r#"{"name":"a","kept":{"revisions":true,"deleted":false}}"#);
        assert!(feed.kept_of(&options, Some(&held)).loses_revisions);
        let meant = WantedOptions { discard: true, ..feed };
        assert!(!meant.kept_of(&options, Some(&held)).loses_revisions);
    }

    #[test]
    fn only_what_would_be_lost_needs_a_word() {
        let before = Remembered { trash: 30, ..Remembered::default() };
        let all = [record(r#"{"name":"a","kept":{"revisions":true,"deleted":true}}"#)];
        let none = [record(r#"{"name":"a","attachments":false}"#)];
        let says =
            |wanted: &WantedOptions, records: &[Record]| lost(&before, wanted, records, true);
        for (wanted, option, what) in [
            (
                WantedOptions { revisions: Some(false), ..WantedOptions::default() },
                "--revisions=false",
                "histories",
            ),
            (
                WantedOptions { deleted: Some(Deleted::Remove), ..WantedOptions::default() },
                "--deleted remove",
                "tombstones of `a`",
            ),
            (
                WantedOptions { attachments: Some(false), ..WantedOptions::default() },
                "--attachments false",
                "`a`",
            ),
        ] {
            let (named, lost) = says(&wanted, &all).unwrap();
            assert!(named == option && lost.contains(what), "{named}: {lost}");
            assert_eq!(says(&wanted, &none), None, "{option}");
        }
        let trash = |days| WantedOptions { trash: Some(days), ..WantedOptions::default() };
        assert!(says(&trash(29), &none).is_some());
        assert_eq!([0, 30, 31].map(|days| says(&trash(days), &none)), [None, None, None]);
        let off = Remembered::default();
        assert!(lost(&off, &trash(1), &none, true).is_some(), "what lies there stayed until now");
        assert_eq!(lost(&off, &trash(1), &none, false), None);
    }

    #[test]
    fn a_change_is_said_with_both_values() {
        let before = Remembered { trash: 30, ..Remembered::default() };
        let now = Remembered { trash: 1, deleted: Deleted::Keep, ..before.clone() };
        let said = before.changes(&now);
        let expected =
            ["--deleted changes from remove to keep", "--trash changes from 30 days to 1 day"];
        assert_eq!(said, expected);
        assert!(before.changes(&before).is_empty());
    }
}
