//! Judges by its beginning whether a text is a recorded feed or another format that people give as
//! one.
//!
//! A feed may begin with a bad row: a rotated log begins in the middle of one. So a text counts as
//! another format only if that is clear, and rows decide against it. Pure.

use super::lines;
use super::other::{Documents, Other};
use crate::json::cursor::{Cursor, RawKey};

/// How much of a text is looked at, if its first line ends in that; else as much after that line.
pub(super) const LIMIT: usize = 64 * 1024;

/// The longest first line whose end is waited for.
pub(super) const LONGEST: usize = 16 * 1024 * 1024;

/// What a beginning shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is read as a feed; what is wrong in it concerns its rows.
    Feed,
    /// It is another format.
    Other(Other),
    /// More has to be seen.
    Unsure,
}

/// Judges the beginning of a text. `ended` says that there is no more of it.
pub(super) fn judge(beginning: &[u8], ended: bool) -> Verdict {
    if let Some(other) = Other::of_magic(beginning) {
        return Verdict::Other(other);
    }
    let mark = beginning.strip_prefix("\u{feff}".as_bytes());
    let text = mark.unwrap_or(beginning).trim_ascii_start();
    let (mut without_document, mut deletions) = (0_usize, 0_usize);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match Row::of(line) {
            Some(Row::Document) => return Verdict::Feed,
            Some(Row::Deletion) => deletions += 1,
            Some(Row::WithoutDocument) => without_document += 1,
            None => {}
        }
    }
    if deletions > 0 && without_document <= deletions {
        return Verdict::Feed;
    }
    let line = memchr::memchr(b'\n', text);
    let wanted = line.map_or(LONGEST, |end| end.saturating_add(LIMIT).min(LONGEST));
    match () {
        () if !ended
            && beginning.len() < wanted
            && !(text.is_empty() && beginning.len() >= LIMIT) =>
        {
            Verdict::Unsure
        }
        () if without_document > 0 => Verdict::Other(Other::WithoutDocuments),
        // A row may have lost its beginning, and what follows it has not been seen.
        () if !ended && line.is_none() => Verdict::Feed,
        () => other(text, ended).map_or(Verdict::Feed, Verdict::Other),
    }
}

/// What a line says that looks like a row of a feed, sound or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Document,
    WithoutDocument,
    Deletion,
}

impl Row {
    fn of(line: &[u8]) -> Option<Self> {
        let row = lines::row(line, false)?;
        let members = Members::of(text_of(row));
        // Rows of views have documents too, and a key and a value in place of the changes.
        let of_others = ["docs", "value"];
        let is_others = members.get("changes").is_none()
            && of_others.iter().any(|name| members.get(name).is_some());
        let is_row = members.has("id", b'"') && !is_others;
        if is_row && members.get("doc").is_some() {
            return Some(Self::Document);
        }
        if members.value("id").starts_with("\"_local/") {
            // It is passed over.
            return None;
        }
        if !is_row || members.get("changes").is_none() && members.get("deleted").is_none() {
            return None;
        }
        // Of a row whose end is not here, nobody knows what follows.
        let without = members.complete && members.get("deleted") != Some(b't');
        let deletion = members.get("deleted") == Some(b't');
        Some(match () {
            () if deletion => Self::Deletion,
            () if without => Self::WithoutDocument,
            () => Self::Document,
        })
    }
}

/// The first members of the object that a text begins with: their keys, and the first byte of each
/// value.
#[derive(Debug, Default)]
struct Members<'a> {
    members: Vec<(RawKey<'a>, u8, usize)>,
    /// Whether the object's end was seen.
    complete: bool,
    text: &'a str,
}

impl<'a> Members<'a> {
    fn of(text: &'a str) -> Self {
        let mut found = Self { text, ..Self::default() };
        let mut cursor = Cursor::new(text);
        let Some(mut object) = cursor.object() else { return found };
        loop {
            let key = match cursor.member(&mut object) {
                Ok(Some(key)) => key,
                Ok(None) => {
                    found.complete = true;
                    return found;
                }
                Err(_) => return found,
            };
            let Some(kind) = cursor.peek() else { return found };
            found.members.push((key, kind, cursor.offset()));
            if cursor.skip().is_err() {
                return found;
            }
        }
    }

    /// The first byte of a member's value.
    fn get(&self, name: &str) -> Option<u8> {
        self.find(name).map(|(kind, _)| kind)
    }

    fn has(&self, name: &str, kind: u8) -> bool {
        self.get(name) == Some(kind)
    }

    /// The text from a member's value on.
    fn value(&self, name: &str) -> &'a str {
        self.find(name).map_or("", |(_, at)| &self.text[at..])
    }

    /// The members of the first object in an array.
    fn first_in(&self, name: &str) -> Self {
        Self::of(first_element(self.value(name)))
    }

    fn find(&self, name: &str) -> Option<(u8, usize)> {
        let found = self.members.iter().find(|(key, ..)| key.is(name));
        found.map(|(_, kind, at)| (*kind, *at))
    }
}

/// What an array begins with after its bracket.
fn first_element(array: &str) -> &str {
    array.strip_prefix('[').map_or("", str::trim_start)
}

/// As much as is UTF-8.
fn text_of(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// What a text without any row is.
fn other(text: &[u8], ended: bool) -> Option<Other> {
    Other::likely(text).or_else(|| clear(text)).or_else(|| unclear(text, ended))
}

/// What has marks of its own.
fn clear(bytes: &[u8]) -> Option<Other> {
    let text = text_of(bytes);
    let line = text.lines().next().unwrap_or_default();
    let fields = ["data:", "id:", "event:", "retry:", ":"];
    if fields.iter().any(|field| line.starts_with(field)) {
        return Some(Other::EventSource);
    }
    if let Some(rest) = text.strip_prefix('<') {
        let start = rest.get(..rest.floor_char_boundary(1024)).unwrap_or_default();
        let start = start.to_ascii_lowercase();
        let is_page = start.starts_with("!doctype html") || start.contains("html");
        return Some(if is_page { Other::WebPage } else { Other::Xml });
    }
    let members = Members::of(text);
    let of_rows = ["changes", "doc", "deleted"];
    if members.has("id", b'"') && of_rows.iter().any(|name| members.get(name).is_some()) {
        return None;
    }
    let name = members.value("name").lines().next().unwrap_or_default();
    if members.has("name", b'"') && name.split(',').next()?.contains("couchbackup") {
        return Some(Other::CouchBackup);
    }
    if members.get("db_type").is_some() && members.get("start_time").is_some() {
        return Some(Other::PouchDump);
    }
    let collections = members.first_in("collections");
    if members.get("schemaHash").is_some() || collections.get("schemaHash").is_some() {
        return Some(Other::RxdbExport);
    }
    if members.has("rows", b'[') {
        return Some(Other::AllDocs);
    }
    if members.has("docs", b'[') {
        let has_revisions = members.first_in("docs").get("_rev").is_some();
        return Some(Other::List(Documents { has_revisions }));
    }
    let is_geographic = members.value("type").starts_with("\"FeatureCollection\"");
    (is_geographic || members.has("features", b'[')).then_some(Other::GeoJson)
}

/// What has no marks of its own.
fn unclear(bytes: &[u8], ended: bool) -> Option<Other> {
    if bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
        // A log that was truncated while it was written begins with a hole.
        return None;
    }
    if bytes.contains(&0) {
        return Some(Other::Binary);
    }
    let text = text_of(bytes);
    match text.as_bytes().first() {
        Some(b'{') => of_object(text),
        Some(b'[') => of_array(text),
        Some(_) => {
            // The end of a row whose beginning went away with a rotated log is a bad row.
            let is_end = |line: &str| line.trim_end().trim_end_matches(',').ends_with(['}', ']']);
            let is_json = |line: &str| line.trim_start().starts_with('{') || is_end(line);
            // A damaged row may be long.
            let has_lines = ended || text.contains('\n');
            (has_lines && !text.lines().any(is_json)).then_some(Other::Text)
        }
        None => Some(Other::Binary),
    }
}

fn of_object(text: &str) -> Option<Other> {
    let members = Members::of(text);
    let line = text.lines().next().unwrap_or_default();
    let is_indented = line.trim_end() == "{";
    if members.has("results", b'[') {
        return match lines::row(line.as_bytes(), false) {
            // A normal feed whose rows have not come, or cannot be read.
            None => None,
            Some(_) if first_element(members.value("results")).starts_with(']') => None,
            Some(_) if members.first_in("results").get("docs").is_some() => Some(Other::BulkGet),
            Some(_) if is_indented => Some(Other::Indented),
            Some(_) => Some(Other::OneLine),
        };
    }
    if members.get("id").is_some() {
        let is_row = members.get("changes").is_some() || members.get("doc").is_some();
        if is_indented && is_row {
            return Some(Other::IndentedRows);
        }
        // A document whose key is `id`; a row that lacks much may be damaged.
        let of_rows = ["changes", "doc", "deleted", "seq", "collection", "error"];
        let is_document = members.complete
            && members.has("id", b'"')
            && members.members.len() > 1
            && of_rows.iter().all(|name| members.get(name).is_none());
        return is_document.then_some(Other::Json);
    }
    match members.get("_id") {
        Some(b'"') => {
            let has_revisions = members.get("_rev").is_some();
            return Some(Other::Plain(Documents { has_revisions }));
        }
        Some(b'{') => return Some(Other::MongoExport),
        _ => {}
    }
    if members.has("error", b'"') {
        return Some(Other::Error);
    }
    // A row that is cut, or damaged, is a row: its id may come later.
    let is_whole = members.complete && (is_indented || !members.members.is_empty());
    let closing = members.get("last_seq").is_some();
    (is_whole && !closing).then_some(Other::Json)
}

fn of_array(text: &str) -> Option<Other> {
    let first = Members::of(first_element(text));
    let next = text.lines().nth(1).unwrap_or_default();
    let has_revisions = first.get("_rev").is_some();
    if first.get("_id").is_none() {
        let rows = first.get("id").is_some() && first.get("changes").is_some();
        return Some(if rows { Other::ArrayOfRows } else { Other::Json });
    }
    // Without its header, a backup is lines of arrays, and each document has its history.
    let is_backup = first.get("_revisions").is_some() || next.starts_with('[');
    Some(match has_revisions && is_backup {
        true => Other::CouchBackup,
        false => Other::Array(Documents { has_revisions }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(text: &[u8]) -> Option<Other> {
        match judge(text, true) {
            Verdict::Other(other) => Some(other),
            Verdict::Feed => None,
            Verdict::Unsure => panic!("an ended text is judged"),
        }
    }

    const ROW: &str =
        "{\"seq\":1,\"id\":\"a\",\"changes\":[{\"rev\":\"1-a\"}],\"doc\":{\"_id\":\"a\"}}\n";
    const BARE: &str = "{\"seq\":1,\"id\":\"a\",\"changes\":[{\"rev\":\"1-a\"}]}\n";

    #[test]
    fn a_feed_with_a_bad_first_row_stays_a_feed() {
        for first in [
            "",
            "\n\n",
            "\u{feff}",
            "nonsense\n",
            "a\",\"_rev\":\"1-a\"}}\n",
            "\0\0\0\0\n",
            "{}\n",
            "{\"a\":1}\n",
            "{\"id\":7}\n",
            "{\"_id\":\"a\",\"_rev\":\"1-a\"}\n",
            "{\"error\":\"timeout\"}\n",
            "{\"id\":\"b\",\"changes\":[{\"rev\":\"1-a\"}],\"doc\":null}\n",
            BARE,
            "{\"results\":[\n",
            "[\n",
            "[1]\n",
        ] {
            assert_eq!(other(format!("{first}{ROW}").as_bytes()), None, "{first:?}");
        }
        for first in [
            "<p>x</p>\"}}\n",
            ":5984/x\"}}\n",
            "id: x\"}}\n",
            "data:image/png;base64,AAAA\"}}\n",
            "{\"docs\":[1]}}}\n",
            "{\"rows\":[1,2]}}}\n",
            "BZhAAAA\"}}\n",
            "REDIS0\",\"b\":1}}\n",
            "%PDF-\"}}\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert_eq!(other(format!("{first}{ROW}").as_bytes()), None, "{first:?}");
        }
        assert_eq!(other(&[b"\xff\xfe abc\"}}\n", ROW.as_bytes()].concat()), None);
        for alone in [
            "",
            "\n",
            "\0\0\0\0\0\0",
            "{\"results\":[],\"last_seq\":0}\n",
            "{\"seq\":1,\"id\":\"_local/x\",\"changes\":[{\"rev\":\"0-1\"}]}\n",
            "\"a\"}}\n",
            "{\"id\":7}\n",
            "{\"id\":\"a\"\n",
            "{\"last_seq\":1}\n",
            "{\"a\":",
        ] {
            assert_eq!(other(alone.as_bytes()), None, "{alone:?}");
        }
        let deleted = "{\"id\":\"a\",\"changes\":[{\"rev\":\"2-a\"}],\"deleted\":true}\n";
        assert_eq!(judge(deleted.as_bytes(), false), Verdict::Feed);
        assert_eq!(judge(format!("{BARE}{deleted}").as_bytes(), false), Verdict::Feed);
        let large = format!("{{\"id\":\"a\",\"changes\":[],\"x\":\"{}", "y".repeat(LIMIT));
        assert_eq!(other(large.as_bytes()), None);
    }

    #[test]
    fn a_beginning_is_not_judged_before_it_is_clear() {
        for unsure in ["", "{", "{\"_id\":\"a\"}\n", BARE, "a,b\n1,2\n", "{\"results\":[\n"] {
            assert_eq!(judge(unsure.as_bytes(), false), Verdict::Unsure, "{unsure:?}");
        }
        assert_eq!(judge(ROW.as_bytes(), false), Verdict::Feed);
        assert_eq!(judge(b"SQLite format 3\0", false), Verdict::Other(Other::Sqlite));
        assert_eq!(judge(format!("{BARE}{ROW}").as_bytes(), false), Verdict::Feed);
        assert_eq!(other(BARE.as_bytes()), Some(Other::WithoutDocuments));
    }

    #[test]
    fn an_answer_that_is_cut_is_still_known() {
        let long = "x".repeat(LIMIT);
        for first in ["{\"docs\":[{\"a\":\"", "[1,", "{\"_id\":\"sub\",\"x\":\"", "\0"] {
            let begun = format!("{first}{long}");
            assert_eq!(judge(begun.as_bytes(), false), Verdict::Unsure, "{first:?}");
            assert_eq!(other(format!("{begun}\"}}\n{ROW}").as_bytes()), None, "{first:?}");
            let endless = format!("{first}{}", "x".repeat(LONGEST));
            assert_eq!(judge(endless.as_bytes(), false), Verdict::Feed, "{first:?}");
        }
        let cut = |text: &str| other(format!("{text}{long}").as_bytes());
        let has_revisions = true;
        let documents = Documents { has_revisions };
        assert_eq!(cut("{\"docs\":[{\"_rev\":\"1-a\",\"a\":\""), Some(Other::List(documents)));
        assert_eq!(cut("{\"_id\":\"a\",\"_rev\":\"1-a\",\"a\":\""), Some(Other::Plain(documents)));
        assert_eq!(
            cut("{\"total_rows\":1,\"offset\":0,\"rows\":[{\"id\":\""),
            Some(Other::AllDocs)
        );
        assert_eq!(cut("{\"results\":[{\"seq\":1,\"id\":\""), Some(Other::OneLine));
        assert_eq!(cut("[{\"_id\":\"a\",\"_rev\":\"1-a\",\"a\":\""), Some(Other::Array(documents)));
    }
}
