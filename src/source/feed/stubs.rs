//! Takes attachments out of a document's text: a stub takes the place of the data, and every other
//! byte stays as it was.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::content::{CHUNK, Fault, Folder, Gauge, Locator, Measure, read_range};
use super::large::Hidden;
use super::queue::Abandoned;
use crate::document::{Attachment, Content, Revision, decode_base64};
use crate::json::cursor::{self as json, Cursor};

/// The most that gzipped inline data may unpack to in memory.
const UNPACKED_LIMIT: u64 = 64 * 1024 * 1024;

/// What a row's attachments are read from, beside the row's own text.
pub(super) struct Surroundings<'a> {
    /// Where the files that it names are.
    pub folder: &'a Folder,
    /// The feed file, if the row was too long to be read whole.
    pub feed: Option<&'a Arc<File>>,
    /// What was left out of the row's text, in its order.
    pub hidden: &'a [Hidden],
    /// Ends long readings when nobody waits for them.
    pub check: &'a dyn Fn() -> Result<(), Abandoned>,
}

/// A document with its attachments taken out.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The document's text with stubs in it; `None` if nothing had to be taken out.
    pub body: Option<Vec<u8>>,
    /// Its attachments, in its order.
    pub attachments: Vec<Attachment>,
}

/// Takes the attachments out of the document at `doc` in `text`, whose `_attachments` members have
/// their values at `objects` (more than one where the key is repeated: the last one counts).
pub(super) fn take_out(
    text: &str,
    doc: Range<usize>,
    objects: &[Range<usize>],
    revision: &Revision,
    around: &Surroundings<'_>,
) -> Result<Taken, Fault> {
    let mut taken = Taken::default();
    let mut copied = doc.start;
    for object in objects {
        taken.attachments.clear();
        for entry in entries(text, object.start)? {
            let name = json::string(entry.name)
                .map_err(|e| Fault::Wrong(format!("the name {} is not text: {e}", entry.name)))?;
            let (attachment, stub) = entry
                .read(&name, revision, around)
                .map_err(|fault| fault.within(&format!("the attachment `{name}`")))?;
            if let Some(stub) = stub {
                let body = taken.body.get_or_insert_default();
                body.extend_from_slice(&text.as_bytes()[copied..entry.range.start]);
                body.extend_from_slice(stub.as_bytes());
                copied = entry.range.end;
            }
            taken.attachments.retain(|earlier| earlier.name != attachment.name);
            taken.attachments.push(attachment);
        }
    }
    if let Some(body) = &mut taken.body {
        body.extend_from_slice(&text.as_bytes()[copied..doc.end]);
    }
    Ok(taken)
}

/// One attachment's object, with its members as they are in the text.
#[derive(Debug, Default)]
struct Entry<'a> {
    name: &'a str,
    range: Range<usize>,
    content_type: Option<&'a str>,
    revpos: Option<&'a str>,
    digest: Option<&'a str>,
    length: Option<&'a str>,
    encoding: Option<&'a str>,
    encoded_length: Option<&'a str>,
    file: Option<&'a str>,
    /// The string, and where it begins.
    data: Option<(&'a str, usize)>,
}

fn entries(text: &str, at: usize) -> Result<Vec<Entry<'_>>, Fault> {
    let damaged = |error: json::Invalid| Fault::Wrong(format!("the row is not JSON: {error}"));
    let mut cursor = Cursor::starting_at(text, at);
    if cursor.peek() == Some(b'n') {
        return Ok(Vec::new());
    }
    let Some(mut object) = cursor.object() else {
        return Err(Fault::Wrong("`_attachments` is not an object".to_owned()));
    };
    let mut entries = Vec::new();
    while let Some(name) = cursor.member(&mut object).map_err(damaged)? {
        let mut entry = Entry { name: name.0, ..Entry::default() };
        let start = cursor.offset();
        let Some(mut members) = cursor.object() else {
            return Err(Fault::Wrong(format!("the attachment {} is not an object", name.0)));
        };
        while let Some(key) = cursor.member(&mut members).map_err(damaged)? {
            let offset = cursor.offset();
            let value = cursor.skip().map_err(damaged)?;
            let slot = match key {
                _ if key.is("content_type") => &mut entry.content_type,
                _ if key.is("revpos") => &mut entry.revpos,
                _ if key.is("digest") => &mut entry.digest,
                _ if key.is("length") => &mut entry.length,
                _ if key.is("encoding") => &mut entry.encoding,
                _ if key.is("encoded_length") => &mut entry.encoded_length,
                _ if key.is("file") => &mut entry.file,
                _ if key.is("data") => {
                    entry.data = Some((value, offset));
                    continue;
                }
                _ => continue,
            };
            *slot = Some(value);
        }
        entry.range = start..cursor.passed();
        entries.push(entry);
    }
    Ok(entries)
}

/// What an attachment's bytes were found to be.
struct Found {
    content: Content,
    /// Of the attachment's own bytes.
    length: u64,
    /// Of the bytes as they were given, which may be gzipped.
    measure: Measure,
}

impl Entry<'_> {
    /// The attachment, and the stub that is to stand for its object unless it is one already.
    fn read(
        &self,
        name: &str,
        revision: &Revision,
        around: &Surroundings<'_>,
    ) -> Result<(Attachment, Option<String>), Fault> {
        let digest = self.digest.and_then(text_of);
        let found = if let Some((data, at)) = self.data {
            self.inline(data, at, around)?
        } else if let Some(file) = self.file {
            let file = text_of(file).ok_or_else(|| Fault::Wrong("`file` is not text".into()))?;
            self.file(&file, around)?
        } else {
            let attachment = Attachment {
                name: name.into(),
                digest: digest.map(Into::into),
                length: self.length.and_then(|length| length.parse().ok()),
                gzipped: self.is_gzipped(),
                content: Content::Remote(Locator::Stub.to_string().into()),
            };
            return Ok((attachment, None));
        };
        let gzipped = self.judge(digest.as_deref(), &found)?;
        let attachment = Attachment {
            name: name.into(),
            digest: Some(digest.as_deref().unwrap_or(&found.measure.digest).into()),
            length: Some(found.length),
            gzipped,
            content: found.content,
        };
        let stub = self.stub(revision, &found.measure.digest, found.length);
        Ok((attachment, Some(stub)))
    }

    fn inline(&self, data: &str, at: usize, around: &Surroundings<'_>) -> Result<Found, Fault> {
        let unreadable = |error: io::Error| Fault::Wrong(format!("its data is broken: {error}"));
        let hidden = around.hidden.binary_search_by_key(&at, |hidden| hidden.at);
        if let (Ok(index), Some(feed)) = (hidden, around.feed) {
            let range = around.hidden[index].range.clone();
            let read = |gzipped| {
                Gauge::read(read_range(feed.clone(), range.clone(), gzipped), around.check)
            };
            let measure = read(false).map_err(unreadable)?;
            let packed = self.is_packed(&measure);
            let length =
                if packed { read(true).map_err(unreadable)?.length } else { measure.length };
            let content = Content::Remote(Locator::Range(range, packed).to_string().into());
            return Ok(Found { content, length, measure });
        }
        let data = text_of(data).ok_or_else(|| Fault::Wrong("its data is not text".into()))?;
        let mut bytes = decode_base64(&data)
            .map_err(|error| Fault::Wrong(format!("its data is not base64: {error}")))?;
        let measure = Gauge::measure(&bytes);
        if self.is_packed(&measure) {
            let mut unpacked = Vec::new();
            let limited = MultiGzDecoder::new(&bytes[..]).take(UNPACKED_LIMIT + 1);
            let length = { limited }.read_to_end(&mut unpacked).map_err(unreadable)?;
            if length as u64 > UNPACKED_LIMIT {
                return Err(Fault::Wrong(format!(
                    "it unpacks to more than {UNPACKED_LIMIT} bytes"
                )));
            }
            bytes = unpacked;
        }
        let length = bytes.len() as u64;
        Ok(Found { content: Content::Inline(bytes.into()), length, measure })
    }

    fn file(&self, name: &str, around: &Surroundings<'_>) -> Result<Found, Fault> {
        let broken =
            |error: io::Error| Fault::Wrong(format!("the file `{name}` cannot be read: {error}"));
        let mut file = around.folder.open(name)?;
        if file.metadata().map_err(broken)?.len() <= CHUNK as u64 {
            let mut bytes = Vec::new();
            (&mut file).take(CHUNK as u64).read_to_end(&mut bytes).map_err(broken)?;
            let measure = Gauge::measure(&bytes);
            let content = Content::Inline(Bytes::from(bytes));
            return Ok(Found { content, length: measure.length, measure });
        }
        let measure = Gauge::read(file, around.check).map_err(broken)?;
        let content = Content::Remote(Locator::File(name.to_owned()).to_string().into());
        Ok(Found { content, length: measure.length, measure })
    }

    fn is_gzipped(&self) -> bool {
        self.encoding == Some("\"gzip\"")
    }

    /// Whether the bytes given are the gzipped ones: the digest of an attachment that its server
    /// keeps gzipped is theirs. A CouchDB gives the unpacked ones with that digest.
    fn is_packed(&self, measure: &Measure) -> bool {
        self.is_gzipped()
            && measure.looks_gzipped
            && self.digest.and_then(text_of).is_some_and(|digest| digest == measure.digest)
    }

    /// Checks the bytes against what the row says of them; `true` when the digest is that of
    /// gzipped bytes.
    fn judge(&self, digest: Option<&str>, found: &Found) -> Result<bool, Fault> {
        let stated = self.length.and_then(|length| length.parse::<u64>().ok());
        let kept_gzipped = match digest {
            Some(digest) if digest.starts_with("md5-") => {
                digest != found.measure.digest || self.is_packed(&found.measure)
            }
            _ => false,
        };
        // Without `att_encoding_info` a CouchDB does not say that it keeps an attachment gzipped,
        // and its digest cannot be checked then. It does so for compressible types only.
        if kept_gzipped && self.encoding.is_none() && !self.is_compressible() {
            return Err(Fault::Wrong(format!(
                "its digest is {}, the row says {}",
                found.measure.digest,
                digest.unwrap_or_default()
            )));
        }
        match stated {
            Some(stated) if stated != found.length && !kept_gzipped => Err(Fault::Wrong(format!(
                "it is {} bytes long, the row says {stated}",
                found.length
            ))),
            _ => Ok(kept_gzipped),
        }
    }

    /// Whether a CouchDB as it comes would keep this type gzipped.
    fn is_compressible(&self) -> bool {
        const TYPES: [&str; 4] =
            ["text/", "application/javascript", "application/json", "application/xml"];
        let content_type = self.content_type.and_then(text_of).unwrap_or_default();
        TYPES.iter().any(|prefix| content_type.starts_with(prefix))
    }

    /// A stub as CouchDB writes it, of the row's own words where it has them.
    fn stub(&self, revision: &Revision, digest: &str, length: u64) -> String {
        let content_type = self.content_type.unwrap_or("\"application/octet-stream\"");
        let generation = revision.generation().unwrap_or(1).to_string();
        let revpos = self.revpos.unwrap_or(&generation);
        let computed = format!("\"{digest}\"");
        let digest = self.digest.unwrap_or(&computed);
        let mut stub = format!(
            r#"{{"content_type":{content_type},"revpos":{revpos},"digest":{digest},"length":{length},"stub":true"#
        );
        for (key, value) in [("encoding", self.encoding), ("encoded_length", self.encoded_length)] {
            if let Some(value) = value {
                stub.push_str(&format!(",\"{key}\":{value}"));
            }
        }
        stub.push('}');
        stub
    }
}

/// What a JSON string says; `None` for any other value.
fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    raw.starts_with('"').then(|| json::string(raw).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::document::DocumentState;
    use crate::source::feed::row;

    fn around(folder: &Folder) -> Surroundings<'_> {
        Surroundings { folder, feed: None, hidden: &[], check: &|| Ok(()) }
    }

    /// The text of an attachment, and what must become of it.
    fn attachment() -> impl Strategy<Value = (String, String)> {
        let inline = any::<Vec<u8>>().prop_map(|bytes| {
            let text = format!(r#"{{ "data" :"{}", "x":[1e400]}}"#, STANDARD.encode(&bytes));
            let Measure { length, digest, .. } = Gauge::measure(&bytes);
            let stub = format!(
                r#"{{"content_type":"application/octet-stream","revpos":7,"digest":"{digest}","length":{length},"stub":true}}"#
            );
            (text, stub)
        });
        let stub = r#"{"stub":true , "length":7}"#;
        prop_oneof![inline, Just((stub.to_owned(), stub.to_owned()))]
    }

    proptest! {
        #[test]
        fn everything_but_the_attachments_stays_byte_for_byte(
            attachments in prop::collection::vec(attachment(), 0..5),
            fillers in prop::collection::vec("[ \n\t]{0,3}", 6),
            value in any::<String>(),
        ) {
            let value = serde_json::to_string(&value).unwrap();
            let build = |pick: fn(&(String, String)) -> &str| {
                let entry = |(n, attachment)| {
                    format!("{}\"n{n}\"{}:{}", fillers[n], fillers[n + 1], pick(attachment))
                };
                let entries: Vec<_> = attachments.iter().enumerate().map(entry).collect();
                let (entries, space, end) = (entries.join(","), &fillers[0], &fillers[5]);
                format!(
                    r#"{{"v":{value},{space}"_attachments" :{{{entries}}},"n":1.0,"n":12345678901234567890,"w":{value}{end}}}"#
                )
            };
            let doc = build(|(text, _)| text);
            let text = format!(r#"{{"id":"a","changes":[{{"rev":"7-x"}}],"doc":{doc} }}"#);
            let folder = Folder::new("/nowhere");
            let row = row::parse(text.as_bytes()).unwrap().unwrap();
            let change = row.into_change(None, None, &around(&folder)).unwrap();
            let DocumentState::Present(document) = change.state else { unreachable!() };
            prop_assert_eq!(std::str::from_utf8(&document.body).unwrap(), build(|(_, stub)| stub));
            prop_assert_eq!(document.attachments.len(), attachments.len());
        }
    }

    #[test]
    fn gzipped_data_may_not_unpack_to_more_than_memory_should_hold() {
        let zeros = io::repeat(0).take(UNPACKED_LIMIT + 1);
        let mut packer = flate2::read::GzEncoder::new(zeros, flate2::Compression::fast());
        let mut packed = Vec::new();
        packer.read_to_end(&mut packed).unwrap();
        let text = format!(
            r#"{{"n":{{"data":"{}","digest":"{}","encoding":"gzip"}}}}"#,
            STANDARD.encode(&packed),
            Gauge::measure(&packed).digest
        );
        let folder = Folder::new("/nowhere");
        let whole = 0..text.len();
        let taken = take_out(&text, whole.clone(), &[whole], &"1-x".into(), &around(&folder));
        assert!(taken.unwrap_err().reason().contains("unpacks to more than"));
    }
}
