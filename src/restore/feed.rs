//! A recorded feed as a target: one row per document, attachments inline, in a file or on standard
//! output.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::StreamExt;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::Mutex;

use super::body::{Stubs, quoted};
use super::plan::Held;
use super::target::{Cause, Item, Refused, Standing, Target, TargetError, Writing, streamed};
use super::{OnExisting, RestoreError};
use crate::document::{CollectionName, DocumentId, Properties, Revision, plain};

/// The number of bytes that are collected before they are written.
const BUFFER: usize = 256 << 10;

/// A feed that is being written.
pub struct FeedTarget {
    /// The file; `None` is standard output.
    path: Option<PathBuf>,
    open: Mutex<Option<BufWriter<tokio::fs::File>>>,
}

impl FeedTarget {
    /// A feed in this file, or on standard output. The file gets its name when it is complete.
    pub fn new(path: Option<PathBuf>, on_existing: OnExisting) -> Result<Self, RestoreError> {
        if let Some(path) = &path
            && on_existing != OnExisting::Overwrite
            && std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
        {
            return Err(RestoreError::FileExists { path: path.clone() });
        }
        Ok(Self { path, open: Mutex::default() })
    }

    /// The name under which it is written until it is complete.
    fn unfinished(path: &Path) -> PathBuf {
        let mut name = OsString::from(path);
        name.push(".part");
        name.into()
    }

    /// Whether the path names a pipe or a device, which is written to directly.
    fn is_special(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
    }

    fn begin(&self) -> io::Result<BufWriter<tokio::fs::File>> {
        let file = match &self.path {
            Some(path) if Self::is_special(path) => File::options().write(true).open(path)?,
            Some(path) => File::create(Self::unfinished(path))?,
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        };
        Ok(BufWriter::with_capacity(BUFFER, file.into()))
    }

    async fn append(
        &self,
        collection: &CollectionName,
        batch: &[Writing],
    ) -> io::Result<Vec<Refused>> {
        let mut open = self.open.lock().await;
        if open.is_none() {
            *open = Some(self.begin()?);
        }
        let Some(file) = open.as_mut() else { return Ok(Vec::new()) };
        let to_terminal = self.path.is_none() && io::stdout().is_terminal();
        let mut refused = Vec::new();
        for (index, Writing { item, .. }) in batch.iter().enumerate() {
            let (collection, id) = (quoted(collection.as_str()), quoted(item.id.as_str()));
            let revision = quoted(item.revision().as_str());
            let deleted = if item.deleted { "\"deleted\":true," } else { "" };
            let head = format!(
                "{{\"collection\":{collection},\"id\":{id},\"changes\":[{{\"rev\":{revision}}}],{deleted}\"doc\":"
            );
            file.write_all(plain::json(&head).as_bytes()).await?;
            // A row is a line: between its tokens a body may contain line feeds, which mean nothing.
            let pieces = item.text.rendered(None);
            let mut stream = streamed(pieces, item.files.clone());
            let mut end = "}\n";
            while let Some(piece) = stream.next().await {
                match piece {
                    Ok(bytes) if to_terminal => {
                        let text = String::from_utf8_lossy(&bytes);
                        file.write_all(plain::json_line(&text).as_bytes()).await?;
                    }
                    Ok(bytes) => file.write_all(&on_one_line(&bytes)).await?,
                    Err(error) => {
                        // Written text cannot be taken back: a reader will find half a row on a
                        // separate line.
                        refused.push(Refused { index, reason: error.to_string() });
                        end = "\n";
                        break;
                    }
                }
            }
            file.write_all(end.as_bytes()).await?;
        }
        Ok(refused)
    }

    async fn complete(&self) -> io::Result<()> {
        let mut file = match self.open.lock().await.take() {
            Some(file) => file,
            None => self.begin()?,
        };
        file.flush().await?;
        // Some file systems only report here that the disk is full. A pipe cannot be synced.
        if file.get_ref().metadata().await?.is_file() {
            file.get_ref().sync_all().await?;
        }
        let Some(path) = self.path.as_ref().filter(|path| !Self::is_special(path)) else {
            return Ok(());
        };
        tokio::fs::rename(Self::unfinished(path), path).await?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn failed(&self, error: io::Error) -> TargetError {
        let path = self.path.as_deref().unwrap_or(Path::new("standard output"));
        TargetError::permanent(
            Cause::File,
            format!("{} cannot be written: {error}", path.display()),
        )
    }
}

/// Text with spaces in place of line feeds. In valid JSON none is inside a string. A carriage return
/// does not end a line of a feed, and stays.
fn on_one_line(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\n', text).is_none() {
        return text.into();
    }
    let space = |byte: &u8| if *byte == b'\n' { b' ' } else { *byte };
    text.iter().map(space).collect::<Vec<u8>>().into()
}

impl Target for FeedTarget {
    fn stubs(&self) -> Stubs {
        Stubs::Feed
    }

    fn takes_branches(&self) -> bool {
        false
    }

    fn parallel(&self) -> usize {
        1
    }

    fn place(&self, collection: &CollectionName) -> String {
        let path = self.path.as_deref().unwrap_or(Path::new("-"));
        format!("feed:{} `{collection}`", path.display())
    }

    fn standing<'a>(
        &'a self,
        _: &'a CollectionName,
    ) -> BoxFuture<'a, Result<Standing, TargetError>> {
        async { Ok(Standing::Absent) }.boxed()
    }

    fn create<'a>(
        &'a self,
        _: &'a CollectionName,
        _: Properties,
    ) -> BoxFuture<'a, Result<Vec<String>, TargetError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn list<'a>(
        &'a self,
        _: &'a CollectionName,
        _: Option<&'a DocumentId>,
    ) -> BoxFuture<'a, Result<Vec<(DocumentId, Revision)>, TargetError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn held<'a>(
        &'a self,
        _: &'a CollectionName,
        items: &'a [Item],
        _: bool,
    ) -> BoxFuture<'a, Result<Vec<Held>, TargetError>> {
        async { Ok(vec![Held::Nothing; items.len()]) }.boxed()
    }

    fn write<'a>(
        &'a self,
        collection: &'a CollectionName,
        batch: &'a [Writing],
    ) -> BoxFuture<'a, Result<Vec<Refused>, TargetError>> {
        async move { self.append(collection, batch).await.map_err(|e| self.failed(e)) }.boxed()
    }

    fn security<'a>(
        &'a self,
        _: &'a CollectionName,
    ) -> BoxFuture<'a, Result<Option<Bytes>, TargetError>> {
        async { Ok(None) }.boxed()
    }

    fn secure<'a>(
        &'a self,
        _: &'a CollectionName,
        _: Bytes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        async { Ok(()) }.boxed()
    }

    fn finish(&self) -> BoxFuture<'_, Result<(), TargetError>> {
        async move { self.complete().await.map_err(|error| self.failed(error)) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_feeds_between_tokens_become_spaces_and_nothing_else_changes() {
        assert_eq!(&*on_one_line(b"{\r\n\t\"a\": 1\n}"), b"{\r \t\"a\": 1 }");
        assert!(matches!(on_one_line("{\"a\":\"\u{2028}\"}".as_bytes()), Cow::Borrowed(_)));
    }
}
