//! The formats that people give as a feed, and what to do about each.
//!
//! Pure.

use std::fmt;
use std::path::Path;

use super::packed::Packing;
use crate::document::plain::quoted;

/// A format that is not a recorded feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// A backup by @cloudant/couchbackup.
    CouchBackup,
    /// A dump by pouchdb-dump-cli.
    PouchDump,
    /// RxDB's `exportJSON`.
    RxdbExport,
    /// The answer of `_all_docs` or of a view.
    AllDocs,
    /// `{"docs":[…]}`: the body of `_bulk_docs`, the answer of `_find`.
    List(Documents),
    /// An array of documents.
    Array(Documents),
    /// Documents, one per line or one alone.
    Plain(Documents),
    /// The answer of `_bulk_get`.
    BulkGet,
    /// An answer of `_changes` that was laid out for people.
    Indented,
    /// An answer of `_changes` in a single line.
    OneLine,
    /// Rows that were laid out for people.
    IndentedRows,
    /// An array of rows.
    ArrayOfRows,
    /// Rows without documents.
    WithoutDocuments,
    /// CouchDB's word on a request that failed.
    Error,
    /// An answer of `_changes` with feed=eventsource.
    EventSource,
    /// Text in UTF-16, in this order of bytes.
    Utf16(&'static str),
    /// A file of mongoexport.
    MongoExport,
    /// Places on a map.
    GeoJson,
    /// Other JSON.
    Json,
    /// HTML.
    WebPage,
    /// Other XML.
    Xml,
    /// CSV, a log, or other text.
    Text,
    /// A database file of SQLite.
    Sqlite,
    /// A dump of Redis.
    Redis,
    /// Compressed in a way that is not read: its name, and the tool that prints the content.
    Compressed(&'static str, &'static str),
    /// A tar archive.
    Tar,
    /// Other bytes that are not text.
    Binary,
}

/// What is known of documents without rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Documents {
    /// Whether they have revisions.
    pub has_revisions: bool,
}

/// What a format begins with that no text does, and where, if not at the beginning.
const MAGIC: &[(usize, &[u8], Other)] = &[
    (0, b"SQLite format 3\0", Other::Sqlite),
    (0, b"PK\x03\x04", Other::Compressed("a zip archive", "unzip -p")),
    (0, b"PK\x05\x06", Other::Compressed("an empty zip archive", "unzip -p")),
    (0, b"\xfd7zXZ\0", Other::Compressed("xz data", "xz -dc")),
    (0, b"\x04\x22\x4d\x18", Other::Compressed("lz4 data", "lz4 -dc")),
    (0, b"7z\xbc\xaf\x27\x1c", Other::Compressed("a 7-Zip archive", "7z x -so")),
    (0, b"\x1f\x9d", Other::Compressed("compress data", "gzip -dc")),
    (0, b"\x1f\x8b", Other::Compressed("gzip data within compressed data", "gzip -dc")),
    (0, b"\x28\xb5\x2f\xfd", Other::Compressed("zstd data within compressed data", "zstd -dc")),
    (257, b"ustar\0", Other::Tar),
    (257, b"ustar  \0", Other::Tar),
    (0, b"{\0", Other::Utf16("UTF-16LE")),
    (0, b"[\0", Other::Utf16("UTF-16LE")),
    (0, b"\0{\0", Other::Utf16("UTF-16BE")),
    (0, b"\0[\0", Other::Utf16("UTF-16BE")),
];

/// What a format begins with that the end of a torn row could be too.
const LIKELY: &[(usize, &[u8], Other)] = &[
    (0, b"REDIS0", Other::Redis),
    (0, b"BZh", Other::Compressed("bzip2 data", "bzip2 -dc")),
    (0, b"\xff\xfe", Other::Utf16("UTF-16LE")),
    (0, b"\xfe\xff", Other::Utf16("UTF-16BE")),
    (0, b"%PDF-", Other::Binary),
    (0, b"PAR1", Other::Binary),
];

/// How a feed is recorded from a server that asks for credentials.
const RECORD: &str = "curl -sN -u USER 'http://HOST:5984/DATABASE/_changes?feed=continuous&timeout=1000\
                      &include_docs=true&attachments=true&att_encoding_info=true' > DATABASE.ndjson";

impl Other {
    /// What bytes are that no text begins with.
    pub fn of_magic(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [0xff, 0xfe, _, 0, ..] => Some(Self::Utf16("UTF-16LE")),
            [0xfe, 0xff, 0, ..] => Some(Self::Utf16("UTF-16BE")),
            _ => Self::among(MAGIC, bytes),
        }
    }

    /// What bytes are that a text without any row does not begin with.
    pub fn likely(bytes: &[u8]) -> Option<Self> {
        Self::among(LIKELY, bytes)
    }

    fn among(magics: &[(usize, &[u8], Self)], bytes: &[u8]) -> Option<Self> {
        let stands = |(at, magic, _): &&(usize, &[u8], Self)| {
            bytes.get(*at..).is_some_and(|bytes| bytes.starts_with(magic))
        };
        magics.iter().find(stands).map(|(.., other)| *other)
    }

    /// What it is, after "holds".
    fn name(self) -> &'static str {
        match self {
            Self::CouchBackup => "a backup by couchbackup",
            Self::PouchDump => "a dump by pouchdb-dump",
            Self::RxdbExport => "an export by RxDB's exportJSON",
            Self::AllDocs => "an answer of _all_docs or of a view",
            Self::List(_) => "a list of documents ({\"docs\":[…]})",
            Self::Array(_) => "an array of documents",
            Self::Plain(_) => "documents without the rows of a feed",
            Self::BulkGet => "an answer of _bulk_get",
            Self::Indented => "an indented answer of _changes",
            Self::OneLine => "an answer of _changes in a single line",
            Self::IndentedRows => "indented rows",
            Self::ArrayOfRows => "an array of rows",
            Self::WithoutDocuments => "rows without their documents",
            Self::Error => "an error that a server answered",
            Self::EventSource => "an answer of _changes with feed=eventsource",
            Self::Utf16(_) => "text in UTF-16",
            Self::MongoExport => "an export of MongoDB",
            Self::GeoJson => "GeoJSON",
            Self::Json => "JSON without the rows of a feed",
            Self::WebPage => "a web page",
            Self::Xml => "XML",
            Self::Text => "text without any JSON",
            Self::Sqlite => "an SQLite database",
            Self::Redis => "a dump of Redis",
            Self::Compressed(name, _) => name,
            Self::Tar => "a tar archive",
            Self::Binary => "binary data",
        }
    }

    /// What to do about it.
    fn remedy(self, given: &Given<'_>) -> String {
        const ROW: &str = "{id: ._id, changes: [{rev: ._rev}], doc: .}";
        const LOAD: &str = "load it into a CouchDB with _bulk_docs, and mirror that database";
        let filter = |filter: &str| given.filtered(filter);
        let jq = |each: &str, documents: Documents| match documents.has_revisions {
            true => filter(&format!("jq -c '{each}{ROW}'")),
            false => LOAD.to_owned(),
        };
        match self {
            Self::CouchBackup => {
                "restore it into a CouchDB with couchrestore, and mirror that database".into()
            }
            Self::PouchDump => {
                "load it into a CouchDB with pouchdb-load, and mirror that database".into()
            }
            Self::RxdbExport => "mirror the running RxDB through exposePlainfoldFeed, as \
                                 clients/rxdb/README.md shows"
                .into(),
            Self::AllDocs | Self::BulkGet => {
                format!("record the changes of the database instead: {RECORD}")
            }
            Self::WithoutDocuments => format!("record them again with include_docs=true: {RECORD}"),
            Self::List(documents) => jq(".docs[] | ", documents),
            Self::Array(documents) => jq(".[] | ", documents),
            Self::Plain(documents) => jq("", documents),
            Self::Indented | Self::OneLine => filter("jq -c '.results[]'"),
            Self::IndentedRows => filter("jq -c ."),
            Self::ArrayOfRows => filter("jq -c '.[]'"),
            Self::EventSource => filter("sed -n 's/^data: *//p'"),
            Self::Utf16(order) => filter(&format!("iconv -f {order} -t UTF-8")),
            Self::Compressed(_, tool) => filter(tool),
            Self::Error | Self::WebPage => {
                "look at it, and record the feed again from the database's own URL, with its \
                 credentials"
                    .into()
            }
            Self::Tar => "extract it, and give the feed that it holds".into(),
            Self::MongoExport
            | Self::GeoJson
            | Self::Json
            | Self::Xml
            | Self::Text
            | Self::Sqlite
            | Self::Redis
            | Self::Binary => "give a file with one row of a _changes feed per line, as \
                               docs/feeds.md describes"
                .into(),
        }
    }

    /// What was given, what it is, and what to do.
    pub fn message(self, given: &Given<'_>) -> String {
        let (name, remedy) = (self.name(), self.remedy(given));
        match self {
            Self::WithoutDocuments => format!("{given} holds {name}: {remedy}"),
            _ => format!("{given} holds {name}, and not a recorded feed: {remedy}"),
        }
    }
}

/// What was given as a feed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    /// The file; `None` is standard input.
    pub path: Option<&'a Path>,
    /// How it is compressed, if it is.
    pub packing: Option<Packing>,
}

impl Given<'_> {
    /// The command that makes a feed of it. Its output is a new file: a shell empties that first.
    fn filtered(&self, filter: &str) -> String {
        let file =
            self.path.map_or_else(|| "FILE".to_owned(), |path| quoted(&path.to_string_lossy()));
        let stem = self.path.and_then(Path::file_stem).map(|stem| stem.to_string_lossy());
        let new =
            stem.map_or_else(|| "rows.ndjson".to_owned(), |stem| format!("{stem}-rows.ndjson"));
        let command = match self.packing {
            // gzip and zstd themselves stand for another layer.
            Some(packing) => format!("{} {file} | {filter}", packing.tool()),
            None => format!("{filter} {file}"),
        };
        format!("run `{command} > {}`, and mirror {}", quoted(&new), quoted(&format!("feed:{new}")))
    }
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            Some(path) => write!(f, "{}", path.display())?,
            None => f.write_str("standard input")?,
        }
        match self.packing {
            Some(packing) => write!(f, " ({} data)", packing.name()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(path: &str, packing: Option<Packing>) -> Given<'_> {
        Given { path: Some(Path::new(path)), packing }
    }

    #[test]
    fn a_command_never_writes_to_what_it_reads() {
        for name in ["/a/b.json", "/a/b-rows.ndjson", "/a/b", "/a/it's b.json.gz"] {
            for packing in [None, Some(Packing::Gzip)] {
                let message = Other::Indented.message(&given(name, packing));
                let (_, rest) = message.split_once(" > ").unwrap();
                let file = Path::new(name).file_name().unwrap().to_str().unwrap();
                assert!(!rest.starts_with(&format!("{}`", quoted(file))), "{message}");
                assert_eq!(message.contains("gzip -dc"), packing.is_some(), "{message}");
            }
        }
        let piped = Other::Indented.message(&Given { path: None, packing: None });
        assert!(piped.starts_with("standard input"), "{piped}");
    }
}
