//! Answers the connections of a listener: a bounded number at a time, and none that waits too long.
//!
//! It knows nothing of what is asked.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listen::{Connection, Listener};
use super::problem::{ApiProblem, ApiProblemKind};

/// The most connections of a listener, and the least number that this is reduced to where a process may
/// have few files open.
const MOST: (usize, usize) = (16, 1024);

/// The share of the files that a process may have open, that the connections of a listener may take.
const SHARE: u64 = 8;

/// The number of connections beyond the limit that are told so at the same time. All others are closed.
const REFUSALS: usize = 64;

/// The time that a connection beyond the limit is given to read that.
const FAREWELL: Duration = Duration::from_secs(1);

/// The time within which the head of a request arrives, and the next request of a connection.
const HEAD: Duration = Duration::from_secs(30);

/// The largest head of a request, in bytes; a part of what is read at once may be added.
const LARGEST_HEAD: usize = 32 * 1024;

/// The time after which a client on the network that reads nothing of its answer is left.
const UNREAD: Duration = Duration::from_secs(60);

/// The pause after a connection could not be accepted, such as when no file can be opened.
const PAUSE: Duration = Duration::from_millis(200);

/// How often such an error is logged at most.
const LOGGED: Duration = Duration::from_secs(60);

/// Answers on `listener` until `shutdown`, and then what is being asked.
pub async fn answer(listener: Listener, routes: Router, shutdown: impl Future<Output = ()>) {
    answer_at_most(most(), listener, routes, shutdown).await;
}

async fn answer_at_most(
    most: usize,
    listener: Listener,
    routes: Router,
    shutdown: impl Future<Output = ()>,
) {
    let (places, refusals) = (Semaphore::new(most), Semaphore::new(REFUSALS));
    let (places, refusals) = (Arc::new(places), Arc::new(refusals));
    let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (mut shutdown, mut logged) = (pin!(shutdown), None::<Instant>);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let served = serve(connection, routes.clone(), closing.clone());
                    tasks.spawn(async move {
                        served.await;
                        drop(place);
                    });
                } else if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                    tasks.spawn(async move {
                        let _late = timeout(FAREWELL, refuse(connection)).await;
                        drop(place);
                    });
                }
            }
            // The client is gone already.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                if logged.is_none_or(|at| at.elapsed() > LOGGED) {
                    logged = Some(Instant::now());
                    tracing::warn!("connections to the API cannot be accepted now: {error}");
                }
                sleep(PAUSE).await;
            }
        }
    }
    closing.cancel();
    tasks.close();
    tasks.wait().await;
}

/// The most connections of a listener, so that they leave most files to the mirrors.
fn most() -> usize {
    let (least, most) = MOST;
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / SHARE).unwrap_or(most).clamp(least, most)
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn serve(connection: Connection, routes: Router, closing: CancellationToken) {
    match connection {
        // A process of this user may pause, as `tail` does in a pager.
        Connection::Unix(stream) => answer_on(stream, routes, closing).await,
        Connection::Tcp(stream) => answer_on(Impatient::new(stream), routes, closing).await,
    }
}

/// Answers the requests of a connection until it ends; after `closing`, only what is being asked.
async fn answer_on<S>(stream: S, routes: Router, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = pin!(connection);
    tokio::select! {
        // The client is gone, or has sent what is not HTTP.
        _ended = connection.as_mut() => return,
        () = closing.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = connection.await;
}

/// Says that there are too many connections.
async fn refuse(connection: Connection) {
    match connection {
        Connection::Unix(stream) => refuse_on(stream).await,
        Connection::Tcp(stream) => refuse_on(stream).await,
    }
}

async fn refuse_on(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let detail = "the agent answers as many connections as it can: ask again in a few seconds, over fewer \
                  connections";
    let answer = ApiProblem::new(ApiProblemKind::TooMany, detail).raw();
    if stream.write_all(&answer).await.is_ok() && stream.shutdown().await.is_ok() {
        // If a socket is closed with unread bytes, the client may not receive the answer.
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await.is_ok_and(|length| length > 0) {}
    }
}

/// A connection that fails when nothing can be written for a while, because its client does not read.
struct Impatient<S> {
    stream: S,
    /// Since something waits to be written.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S) -> Self {
        Self { stream, waiting: None }
    }

    /// The outcome of a write, or an error if it has waited too long.
    fn judge<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(UNREAD)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judge(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
