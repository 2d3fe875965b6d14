//! The bytes of attachments that a feed does not carry inline in memory: where they are, how they
//! are read, measured and streamed.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures_util::{StreamExt, stream};
use md5::{Digest, Md5};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::queue::{Abandoned, Budget, Outlet, queue};
use crate::source::{ByteStream, SourceError};

/// How much of an attachment is read at a time, and the largest file that is read with its row.
pub(super) const CHUNK: usize = 64 * 1024;

/// The bytes of an attachment that wait in the queue of its stream.
const STREAM_BUDGET: usize = 4 * CHUNK;

/// Why a row, or an attachment of it, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something that the row needs is not there, and may yet appear.
    Missing(String),
    /// The row is wrong.
    Wrong(String),
}

impl Fault {
    /// The reason in words.
    pub fn reason(self) -> String {
        match self {
            Self::Missing(reason) | Self::Wrong(reason) => reason,
        }
    }

    /// The same fault, with `what` before its reason.
    pub fn within(self, what: &str) -> Self {
        match self {
            Self::Missing(reason) => Self::Missing(format!("{what}: {reason}")),
            Self::Wrong(reason) => Self::Wrong(format!("{what}: {reason}")),
        }
    }
}

/// Where the bytes of an attachment are, as the text of a `Content::Remote`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Locator {
    /// Nowhere: the feed was recorded without them.
    Stub,
    /// In the feed file, as base64 between these bytes; gzipped beneath, or not.
    Range(Range<u64>, bool),
    /// In a file of its own, named as in the row.
    File(String),
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stub => f.write_str("stub"),
            Self::Range(range, gzipped) => {
                let kind = if *gzipped { "gzip" } else { "range" };
                write!(f, "{kind}:{}-{}", range.start, range.end)
            }
            Self::File(name) => write!(f, "file:{name}"),
        }
    }
}

impl Locator {
    /// Reads back what was written.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((kind, rest)) = text.split_once(':') else {
            return (text == "stub").then_some(Self::Stub);
        };
        if kind == "file" {
            return Some(Self::File(rest.to_owned()));
        }
        let (start, end) = rest.split_once('-')?;
        let range = start.parse().ok()?..end.parse().ok()?;
        match kind {
            "range" => Some(Self::Range(range, false)),
            "gzip" => Some(Self::Range(range, true)),
            _ => None,
        }
    }
}

/// The folder beneath which a feed's attachment files are.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// The folder of a feed file, or the one that a piped feed's files are relative to.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Opens a file that must be beneath the folder, after all links have been followed.
    pub fn open(&self, name: &str) -> Result<File, Fault> {
        let beneath =
            |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if name.is_empty() || name.contains('\0') || !Path::new(name).components().all(beneath) {
            return Err(Fault::Wrong(format!("`{name}` is not a path beneath the feed's folder")));
        }
        let fault = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Fault::Missing(format!("the file `{name}` does not exist")),
            _ => Fault::Wrong(format!("the file `{name}` cannot be read: {error}")),
        };
        let folder = self.0.canonicalize().map_err(fault)?;
        let path = folder.join(name).canonicalize().map_err(fault)?;
        let Ok(below) = path.strip_prefix(&folder) else {
            return Err(Fault::Wrong(format!("`{name}` leads out of the feed's folder")));
        };
        let file = open_below(&folder, below).map_err(|error| fault(error.into()))?;
        if !file.metadata().map_err(fault)?.is_file() {
            return Err(Fault::Wrong(format!("`{name}` is not a file")));
        }
        Ok(file)
    }
}

/// Opens `path`, in which all links have been resolved, below `folder`. A link that somebody puts
/// there meanwhile is not followed.
fn open_below(folder: &Path, path: &Path) -> rustix::io::Result<File> {
    // A named pipe must not hold us up before its kind is known.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let on_the_way = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |at: &OwnedFd, name: &Path, flags| openat(at, name, flags, Mode::empty());
    let mut at = openat(CWD, folder, on_the_way, Mode::empty())?;
    let Some(name) = path.file_name() else { return Err(Errno::ISDIR) };
    for part in path.parent().into_iter().flat_map(Path::components) {
        at = open(&at, part.as_ref(), on_the_way)?;
    }
    open(&at, name.as_ref(), flags).map(File::from)
}

/// The bytes of an attachment whose base64 is in a feed file.
pub(super) fn read_range(
    feed: Arc<File>,
    range: Range<u64>,
    gzipped: bool,
) -> Box<dyn Read + Send> {
    let text = BufReader::with_capacity(CHUNK, FileRange { file: feed, range });
    let decoded = DecoderReader::new(Unescaped { inner: text }, &STANDARD);
    if gzipped { Box::new(MultiGzDecoder::new(decoded)) } else { Box::new(decoded) }
}

/// A part of a file, read without moving a cursor that others share.
struct FileRange {
    file: Arc<File>,
    range: Range<u64>,
}

impl Read for FileRange {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end.saturating_sub(self.range.start));
        let size = left.unwrap_or(usize::MAX).min(into.len());
        let read = self.file.read_at(&mut into[..size], self.range.start)?;
        if read == 0 && size > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the feed file was cut short",
            ));
        }
        self.range.start += read as u64;
        Ok(read)
    }
}

/// The inside of a JSON string of base64: some encoders write `/` as `\/` or `\u002f`, and some break
/// lines. White space is left out.
struct Unescaped<R> {
    inner: R,
}

impl<R: BufRead> Unescaped<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.inner.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// The byte of an escape whose backslash has been read. A byte that base64 does not have is
    /// left for its decoder to report.
    fn escape(&mut self) -> io::Result<u8> {
        Ok(match self.byte()? {
            b'u' => {
                let mut value = 0;
                for _ in 0..4 {
                    let Some(digit) = char::from(self.byte()?).to_digit(16) else {
                        return Ok(b'\\');
                    };
                    value = value << 4 | digit;
                }
                u8::try_from(value).unwrap_or(b'\\')
            }
            b'/' => b'/',
            b'n' | b'r' | b't' => b' ',
            _ => b'\\',
        })
    }
}

impl<R: BufRead> Read for Unescaped<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let held = self.inner.fill_buf()?;
            let size = held.len().min(into.len());
            let is_plain = |byte: &u8| *byte != b'\\' && !byte.is_ascii_whitespace();
            let plain = held[..size].iter().position(|byte| !is_plain(byte)).unwrap_or(size);
            if plain > 0 || size == 0 {
                into[..plain].copy_from_slice(&held[..plain]);
                self.inner.consume(plain);
                return Ok(plain);
            }
            let is_escape = held[0] == b'\\';
            self.inner.consume(1);
            if is_escape {
                into[0] = self.escape()?;
                if !into[0].is_ascii_whitespace() {
                    return Ok(1);
                }
            }
        }
    }
}

/// What is known of bytes that have been read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Measure {
    /// How many they are.
    pub length: u64,
    /// `md5-<base64>`.
    pub digest: String,
    /// Whether they begin as gzipped bytes do.
    pub looks_gzipped: bool,
}

/// Counts and digests bytes as they pass.
#[derive(Default)]
pub(super) struct Gauge {
    length: u64,
    digest: Md5,
    first: [u8; 2],
}

impl Gauge {
    /// Measures bytes that are all in memory.
    pub fn measure(bytes: &[u8]) -> Measure {
        let mut gauge = Self::default();
        gauge.add(bytes);
        gauge.finish()
    }

    /// Reads to the end and keeps nothing.
    pub fn read(
        mut reader: impl Read,
        check: &dyn Fn() -> Result<(), Abandoned>,
    ) -> io::Result<Measure> {
        let mut gauge = Self::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            check().map_err(|Abandoned| io::Error::other("nobody waits for this any more"))?;
            match read_full(&mut reader, &mut buffer)? {
                0 => return Ok(gauge.finish()),
                read => gauge.add(&buffer[..read]),
            }
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        if let (0, [first, second, ..]) = (self.length, bytes) {
            self.first = [*first, *second];
        }
        self.length += bytes.len() as u64;
        self.digest.update(bytes);
    }

    fn finish(self) -> Measure {
        Measure {
            length: self.length,
            digest: format!("md5-{}", STANDARD.encode(self.digest.finalize())),
            looks_gzipped: self.first == [0x1f, 0x8b],
        }
    }
}

/// What a stream of bytes must turn out to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// What to call it in an error.
    pub what: String,
    /// How long it is, if known.
    pub length: Option<u64>,
    /// Its MD5 as `md5-<base64>`, if known.
    pub digest: Option<Arc<str>>,
}

impl Expected {
    fn check(&self, found: &Measure) -> Result<(), SourceError> {
        let digest = self.digest.as_deref().is_none_or(|digest| digest == found.digest);
        if digest && self.length.is_none_or(|length| length == found.length) {
            return Ok(());
        }
        Err(SourceError::permanent(format!(
            "{} has changed since its row was read: it is {} bytes long with the digest {}",
            self.what, found.length, found.digest
        )))
    }
}

/// Streams what a blocking reader yields and checks at its end that it was what was expected.
pub(super) fn stream(mut reader: Box<dyn Read + Send>, expected: Expected) -> ByteStream {
    let (outlet, inlet) = queue(&Budget::new(STREAM_BUDGET));
    tokio::task::spawn_blocking(move || {
        // If nobody receives it, the stream was dropped.
        if let Err(error) = pump(&mut reader, &expected, &outlet) {
            let _ = outlet.send(Err(error), 0);
        }
    });
    stream::unfold(inlet, |mut inlet| async move { inlet.next().await.map(|chunk| (chunk, inlet)) })
        .boxed()
}

fn pump(
    reader: &mut dyn Read,
    expected: &Expected,
    outlet: &Outlet<Result<Bytes, SourceError>>,
) -> Result<(), SourceError> {
    let mut gauge = Gauge::default();
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = read_full(reader, &mut chunk).map_err(|error| {
            SourceError::permanent(format!("{} cannot be read: {error}", expected.what))
        })?;
        if read == 0 {
            return expected.check(&gauge.finish());
        }
        chunk.truncate(read);
        gauge.add(&chunk);
        if outlet.send(Ok(Bytes::from(chunk)), CHUNK).is_err() {
            return Ok(());
        }
    }
}

/// Reads until the buffer is full or the end has come.
fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_link_that_is_put_there_after_the_look_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "outside").unwrap();
        fs::create_dir(dir.path().join("files")).unwrap();
        symlink(outside.path().join("secret"), dir.path().join("files/link")).unwrap();
        symlink(outside.path(), dir.path().join("folder")).unwrap();
        for path in ["files/link", "folder/secret"] {
            open_below(dir.path(), Path::new(path)).unwrap_err();
        }
    }

    #[test]
    fn however_fast_a_file_is_swapped_for_a_link_no_bytes_come_from_outside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(outside.path().join("secret"), "outside").unwrap();
        fs::write(at("file"), "inside").unwrap();
        symlink(outside.path().join("secret"), at("link")).unwrap();
        let (done, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
        let folder = Folder::new(dir.path());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, at("file"), CWD, at("link"), flags).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            });
            let (mut read, mut refused) = (0, 0);
            while read < 1_000 || refused < 100 {
                let Ok(mut file) = folder.open("file") else {
                    refused += 1;
                    continue;
                };
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, "inside");
                read += 1;
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(swaps.load(Ordering::Relaxed) > 0);
    }
}
