//! The lines of an inventory: JSON objects, one a line. Pure.
//!
//! `docs/format.md` describes them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Contents, FileSum, State};
use crate::tree::layout::{DOCUMENT, TOMBSTONE};

/// The number of the first line's format.
pub(crate) const NUMBER: u32 = 1;

/// One line.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Line<'a> {
    /// In the first line: the format's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<u32>,
    /// In the first line: whether every document of the collection is covered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// In a record: the name of the document's folder.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub document: Option<Cow<'a, str>>,
    /// The document's id, if the folder's name is a shortened one.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// The files, by their paths within the folder: length and BLAKE3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<BTreeMap<String, (u64, Option<String>)>>,
    /// The files of the previous record that stay as they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptFiles>,
    /// Set if the folder no longer exists.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// In a mark: its meaning for all records before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// In the mark at the end of a run: the token that the state remembers too.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub token: Option<Cow<'a, str>>,
    /// In the same mark: roughly how many bytes of the file are obsolete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<u64>,
    /// In a mark after a crash: further folders whose events may not have been emitted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
}

/// The meaning of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mark {
    /// The tree holds what the records say, and the events are emitted.
    Committed,
    /// After a crash: the tree holds what the records say; events may not have been emitted.
    Resolved,
    /// All events are emitted, those of interrupted runs too.
    Emitted,
    /// A run has ended normally.
    Closed,
}

/// The files that stay when others of their folder are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum KeptFiles {
    /// All files except the body.
    AllButBody(bool),
    /// These paths; those that end with a slash are folders.
    Paths(Vec<String>),
}

/// The files of a document that were staged.
#[derive(Clone, Debug, Default)]
pub struct InventoryEntry {
    /// The files that were written, by their paths within the document's folder.
    pub(crate) files: Vec<(String, FileSum)>,
    pub(crate) kept: Option<KeptFiles>,
}

/// The line for a staged document.
pub(crate) fn entry_of(name: &str, id: Option<&str>, entry: &InventoryEntry) -> String {
    let file = |(path, sum): &(String, FileSum)| (path.clone(), written(sum));
    text(&Line {
        document: Some(name.into()),
        id: id.map(Cow::from),
        files: Some(entry.files.iter().map(file).collect()),
        kept: entry.kept.clone(),
        ..Line::default()
    })
}

/// The line for a removed folder.
pub(crate) fn gone(name: &str) -> String {
    text(&Line { document: Some(name.into()), gone: true, ..Line::default() })
}

/// The line for the known content of a folder.
pub(crate) fn line_of(name: &str, id: Option<&str>, state: &State) -> String {
    match state {
        State::Absent => gone(name),
        State::Unknown => text(&Line { document: Some(name.into()), ..Line::default() }),
        State::Present(contents) => {
            let files = contents.iter().map(|(path, sum)| (path.clone(), *sum)).collect();
            entry_of(name, id, &InventoryEntry { files, kept: None })
        }
    }
}

/// The first line.
pub(crate) fn header(complete: bool) -> String {
    text(&Line { inventory: Some(NUMBER), complete: Some(complete), ..Line::default() })
}

/// A mark.
pub(crate) fn mark(mark: Mark) -> String {
    text(&Line { mark: Some(mark), ..Line::default() })
}

/// The mark after a crash, with folders whose events may not have been emitted.
pub(crate) fn resolved(silent: Vec<String>) -> String {
    text(&Line { mark: Some(Mark::Resolved), silent, ..Line::default() })
}

/// The mark at the end of a run.
pub(crate) fn closed(token: &str, stale: u64) -> String {
    let (mark, token) = (Some(Mark::Closed), Some(token.into()));
    text(&Line { mark, token, stale: Some(stale), ..Line::default() })
}

fn text(line: &Line<'_>) -> String {
    // Serialising strings and numbers does not fail.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

fn written(sum: &FileSum) -> (u64, Option<String>) {
    (sum.length, sum.sum.map(|sum| blake3::Hash::from_bytes(sum).to_string()))
}

impl Line<'_> {
    /// The known content of the folder after this record, given the known content before it.
    pub fn apply(&self, before: &State) -> State {
        if self.gone {
            return State::Absent;
        }
        let Some(files) = &self.files else { return State::Unknown };
        let mut contents = match (before, &self.kept) {
            (_, None | Some(KeptFiles::AllButBody(false))) => Contents::new(),
            // A file that stays is there, although its checksum was never recorded.
            (State::Unknown | State::Absent, Some(_)) => return State::Unknown,
            (State::Present(before), Some(KeptFiles::AllButBody(true))) => {
                let is_body = |path: &str| path == DOCUMENT || path == TOMBSTONE;
                let stays = before.iter().filter(|(path, _)| !is_body(path));
                stays.map(|(path, sum)| (path.clone(), *sum)).collect()
            }
            (State::Present(before), Some(KeptFiles::Paths(paths))) => {
                let mut kept = Contents::new();
                for path in paths {
                    let found = before.iter().filter(|(own, _)| {
                        *own == path || (path.ends_with('/') && own.starts_with(path.as_str()))
                    });
                    let before = kept.len();
                    kept.extend(found.map(|(path, sum)| (path.clone(), *sum)));
                    if kept.len() == before {
                        return State::Unknown;
                    }
                }
                kept
            }
        };
        for (path, (length, sum)) in files {
            let sum = sum.as_ref().and_then(|sum| blake3::Hash::from_hex(sum).ok());
            let sum = sum.map(|sum| *sum.as_bytes());
            contents.insert(path.clone(), FileSum { length: *length, sum });
        }
        State::Present(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(text: &str) -> FileSum {
        FileSum { length: text.len() as u64, sum: Some(*blake3::hash(text.as_bytes()).as_bytes()) }
    }

    fn entry(files: &[&str], kept: Option<KeptFiles>) -> InventoryEntry {
        let files = files.iter().map(|path| ((*path).to_owned(), sum(path))).collect();
        InventoryEntry { files, kept }
    }

    fn applied(lines: &[String], first: State) -> State {
        lines.iter().fold(first, |state, line| {
            serde_json::from_str::<Line<'_>>(line).unwrap().apply(&state)
        })
    }

    #[test]
    fn a_record_has_the_published_shape() {
        let entry = entry(&["document.json"], Some(KeptFiles::Paths(vec!["history.json".into()])));
        insta::assert_snapshot!(
            entry_of("loan%2F1", None, &entry).trim_end(),
            @r#"{"document":"loan%2F1","files":{"document.json":[13,"64a257e21950dec72143412fc9864dc005481ac0df25586bd0f0dffdf5822392"]},"kept":["history.json"]}"#
        );
        assert_eq!(gone("a"), "{\"document\":\"a\",\"gone\":true}\n");
        assert_eq!(mark(Mark::Committed), "{\"mark\":\"committed\"}\n");
    }

    #[test]
    fn a_record_replaces_the_one_before_but_for_what_is_kept() {
        let first = entry_of(
            "a",
            None,
            &entry(&["document.json", "attachments/f", "conflicts/1-b/document.json"], None),
        );
        let body =
            entry_of("a", None, &entry(&["document.json"], Some(KeptFiles::AllButBody(true))));
        let State::Present(all) = applied(&[first.clone(), body], State::Absent) else { panic!() };
        assert_eq!(all.len(), 3);
        let kept = KeptFiles::Paths(vec!["conflicts/1-b/".into()]);
        let folder = entry_of("a", None, &entry(&["document.json"], Some(kept)));
        let State::Present(some) = applied(&[first.clone(), folder], State::Absent) else {
            panic!()
        };
        let paths: Vec<_> = some.keys().map(String::as_str).collect();
        assert_eq!(paths, ["conflicts/1-b/document.json", "document.json"]);
        assert_eq!(applied(&[first, gone("a")], State::Absent), State::Absent);
    }

    #[test]
    fn what_is_kept_of_a_folder_that_was_not_covered_is_not_covered_either() {
        let body =
            entry_of("a", None, &entry(&["document.json"], Some(KeptFiles::AllButBody(true))));
        assert_eq!(applied(&[body], State::Unknown), State::Unknown);
    }

    #[test]
    fn a_folder_is_allowed_when_every_file_is_as_recorded() {
        let recorded = State::Present(Contents::from([("document.json".into(), sum("a"))]));
        let found = |text: &str| Contents::from([("document.json".into(), sum(text))]);
        assert!(recorded.allows(Some(&found("a"))));
        assert!(!recorded.allows(Some(&found("b"))) && !recorded.allows(None));
        let unknown = FileSum { length: 1, sum: None };
        let noted = State::Present(Contents::from([("document.json".into(), unknown)]));
        assert!(noted.allows(Some(&found("b"))) && !noted.allows(Some(&found("bb"))));
        assert!(State::Absent.allows(None) && !State::Absent.allows(Some(&found("a"))));
    }
}
