//! The body of an answer: pieces as they come in, or the whole, within limits of time and size.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE, ETAG};
use reqwest::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::error::{Error, Kind};
use super::rows::MAX_ROW;

/// The largest answer about one document that is held, in bytes. Only one answer of more than
/// [`MAX_ROW`] is held at a time.
pub const MAX_ALONE: usize = 128 << 20;

/// The process holds one answer of more than [`MAX_ROW`] at a time.
static ALONE: Semaphore = Semaphore::const_new(1);

/// How long an answer waits for that. The holder may be waiting for this answer.
const ALONE_PATIENCE: Duration = Duration::from_secs(5);

/// A large answer, until nobody uses any part of it.
struct Alone {
    bytes: BytesMut,
    _room: SemaphorePermit<'static>,
}

impl AsRef<[u8]> for Alone {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A successful answer's body, read piece by piece.
#[derive(Debug)]
pub struct Body {
    response: Response,
    label: String,
    patience: Duration,
    /// Whether no more than a few bytes now and then are expected.
    beats: bool,
    /// How long the last few bytes have taken, and how many they are.
    waited: Duration,
    heard: usize,
    /// The place of its request, if their number is limited, until its end.
    place: Option<OwnedSemaphorePermit>,
}

/// A body that brings fewer bytes than this within the whole patience counts as silent. Otherwise a byte
/// now and then would hold up a reader without end.
const LEAST: usize = 4 << 10;

impl Body {
    pub(super) fn new(response: Response, label: String, patience: Duration, beats: bool) -> Self {
        Self { response, label, patience, beats, waited: Duration::ZERO, heard: 0, place: None }
    }

    /// Keeps the place of its request until it has ended, failed, or was dropped.
    pub(super) fn holding(self, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { place, ..self }
    }

    /// The request that this answers, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The encoding in which the server says the body comes, such as `gzip`.
    pub fn encoding(&self) -> Option<String> {
        let value = self.response.headers().get(CONTENT_ENCODING)?;
        Some(String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase())
    }

    /// Where in the file these bytes begin, and the file's length, if the server says. `None` if it sends a
    /// part without saying which.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        if self.response.status() != StatusCode::PARTIAL_CONTENT {
            return Some((0, self.response.content_length()));
        }
        let range = self.response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
        let (range, whole) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (from, _) = range.split_once('-')?;
        Some((from.trim().parse().ok()?, whole.trim().parse().ok()))
    }

    /// The strong `ETag` of the file.
    pub fn tag(&self) -> Option<String> {
        let tag = self.response.headers().get(ETAG)?.to_str().ok()?;
        (!tag.starts_with("W/")).then(|| tag.to_owned())
    }

    /// The next piece; `None` at the end. May be dropped at any await without losing bytes.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let chunk = self.next_chunk().await;
        if !matches!(chunk, Ok(Some(_))) {
            // The holder of this body may ask for another place.
            self.place = None;
        }
        chunk
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let (patience, label, heard) = (self.patience, &self.label, self.heard);
        let began = Instant::now();
        let left = patience.saturating_sub(self.waited);
        let Ok(chunk) = tokio::time::timeout(left, self.response.chunk()).await else {
            let what = match heard {
                0 => format!("{label}: silent for {patience:?}"),
                _ => format!("{label}: no more than {heard} bytes in {patience:?}"),
            };
            return Err(Error::transient(what));
        };
        let chunk = chunk.map_err(|error| Error::transport(label, error))?;
        self.waited += began.elapsed();
        self.heard += chunk.as_ref().map_or(0, Bytes::len);
        if self.beats || self.heard >= LEAST {
            (self.waited, self.heard) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }

    /// The whole, if it is no larger than this.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Error> {
        let first = self.chunk().await?.unwrap_or_default();
        let mut whole = BytesMut::from(first);
        while whole.len() <= limit
            && let Some(chunk) = self.chunk().await?
        {
            whole.extend_from_slice(&chunk);
        }
        if whole.len() > limit {
            let what = format!("{}: the answer is larger than {limit} bytes", self.label);
            return Err(Error::new(Kind::TooLarge, what));
        }
        Ok(whole.freeze())
    }

    /// The whole of an answer about one document. Of answers larger than [`MAX_ROW`] the process holds
    /// one at a time, as long as any part of it is in use.
    pub(super) async fn collect_alone(mut self) -> Result<Bytes, Error> {
        let mut whole = BytesMut::from(self.chunk().await?.unwrap_or_default());
        let mut room = None;
        while whole.len() <= MAX_ALONE
            && let Some(chunk) = self.chunk().await?
        {
            if room.is_none() && whole.len() + chunk.len() > MAX_ROW {
                let free = tokio::time::timeout(ALONE_PATIENCE, ALONE.acquire()).await;
                room = Some(free.ok().and_then(Result::ok).ok_or_else(|| {
                    let limit = MAX_ROW >> 20;
                    let what = format!(
                        "{}: another document of more than {limit} MiB is being read",
                        self.label
                    );
                    Error::transient(what)
                })?);
            }
            whole.extend_from_slice(&chunk);
        }
        if whole.len() > MAX_ALONE {
            let limit = MAX_ALONE >> 20;
            let what = format!("{}: the answer is larger than {limit} MiB", self.label);
            return Err(Error::new(Kind::TooLarge, what));
        }
        Ok(match room {
            Some(room) => Bytes::from_owner(Alone { bytes: whole, _room: room }),
            None => whole.freeze(),
        })
    }

    /// What comes of the beginning within this time, up to this size.
    pub(super) async fn beginning(&mut self, limit: usize, patience: Duration) -> Vec<u8> {
        let mut beginning = Vec::new();
        let reading = async {
            while beginning.len() < limit
                && let Ok(Some(chunk)) = self.chunk().await
            {
                beginning.extend_from_slice(&chunk[..chunk.len().min(limit - beginning.len())]);
            }
        };
        // What came in time is enough for a message.
        let _ = tokio::time::timeout(patience, reading).await;
        beginning
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream::{self, StreamExt};

    use super::*;

    /// A body of these pieces that holds the only place.
    async fn holding(
        pieces: Vec<Result<&'static str, &'static str>>,
        ends: bool,
    ) -> (Body, Arc<Semaphore>) {
        let places = Arc::new(Semaphore::new(1));
        let pieces = stream::iter(pieces).map(|piece| piece.map_err(std::io::Error::other));
        let pieces = match ends {
            true => pieces.boxed(),
            false => pieces.chain(stream::pending()).boxed(),
        };
        let response = axum::http::Response::new(reqwest::Body::wrap_stream(pieces));
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let body = Body::new(response.into(), "GET".to_owned(), Duration::from_millis(20), false);
        (body.holding(Some(place)), places)
    }

    #[tokio::test]
    async fn a_body_gives_its_place_back_once_it_has_ended_or_failed() {
        for (last, ends) in [(None, true), (Some(Err("broken")), true), (None, false)] {
            let pieces = [Some(Ok("piece")), last].into_iter().flatten().collect();
            let (mut body, places) = holding(pieces, ends).await;
            assert!(body.chunk().await.unwrap().is_some());
            assert_eq!(places.available_permits(), 0, "it is not at its end");
            assert!(!matches!(body.chunk().await, Ok(Some(_))));
            assert_eq!(places.available_permits(), 1, "{last:?} {ends}");
        }
    }
}
