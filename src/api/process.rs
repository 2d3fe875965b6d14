//! Requests to the process that holds a mirror, in bounded time, and the error if it does not
//! answer.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::problem::ProblemDocument;
use super::socket::SocketPath;
use crate::document::plain;
use crate::tree::Holder;

/// How long the beginning of an answer is awaited.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process that holds a mirror does not answer.
#[derive(Debug, thiserror::Error)]
#[error("{} is in use by {holder}, and {trouble}", mirror.display())]
pub struct Unanswered {
    mirror: PathBuf,
    /// Who that is.
    pub holder: Box<Holder>,
    /// What is known of it, as a clause, and what to do.
    pub trouble: String,
}

/// A process that holds a mirror.
#[derive(Debug)]
pub struct Process {
    mirror: PathBuf,
    holder: Holder,
}

/// A process that answers at a socket.
#[derive(Debug)]
pub struct Answering {
    process: Process,
    socket: PathBuf,
}

impl Answering {
    /// The JSON at a path of the interface; `None` if it does not exist there.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Unanswered> {
        self.json(PATIENCE, |client| client.get(url(path, &[]))).await
    }

    /// The JSON that a request to a path with these parameters answers, which may take a while;
    /// `None` if what they name does not exist.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Option<T>, Unanswered> {
        self.json(3 * PATIENCE, |client| client.post(url(path, parameters))).await
    }

    /// The JSON that a request with this body answers; `None` as with [`post`](Self::post).
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Option<T>, Unanswered> {
        self.json(3 * PATIENCE, |client| client.post(url(path, &[])).json(body)).await
    }

    /// The JSON that the creation of what a path names answers; `None` as with [`post`](Self::post).
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Option<T>, Unanswered> {
        self.json(3 * PATIENCE, |client| client.put(url(path, &[])).json(body)).await
    }

    /// The pieces of an answer without end.
    pub async fn stream(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, Unanswered> {
        let answer = self.send(PATIENCE, |client| client.get(url(path, parameters))).await?;
        let answer = self.successful(answer).await?;
        Ok(answer.bytes_stream().map(|piece| piece.map_err(io::Error::other)).boxed())
    }

    async fn json<T: DeserializeOwned>(
        &self,
        patience: Duration,
        request: impl FnOnce(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Option<T>, Unanswered> {
        let asked = async {
            let answer = self.send(patience, request).await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let answer = self.successful(answer).await?;
            Ok(Some(answer.json().await.map_err(|error| self.garbled(&error))?))
        };
        // The wait for the end of the answer is bounded too.
        let late = || self.process.unanswered(&format!("at {} to its end", self.socket.display()));
        tokio::time::timeout(2 * patience, asked).await.unwrap_or_else(|_| Err(late()))
    }

    /// The answer, or what its problem document says.
    async fn successful(&self, answer: Response) -> Result<Response, Unanswered> {
        let Err(error) = answer.error_for_status_ref() else { return Ok(answer) };
        // A process of an older version answers errors in plain text.
        let Ok(problem) = answer.json::<ProblemDocument>().await else {
            return Err(self.garbled(&error));
        };
        let (pid, detail) = (self.process.holder.pid, problem.detail);
        Err(self.process.troubled(format!("process {pid} answers: {detail}")))
    }

    /// The process.
    pub fn holder(&self) -> &Holder {
        &self.process.holder
    }

    /// What is said of a process of another version, which does not know a path of the interface.
    pub fn lacks(&self, path: &str) -> Unanswered {
        let at = self.socket.display();
        self.process.unanswered(&format!("at {at} as it should (it does not know {path})"))
    }

    /// What is said of an answer that is not the interface's.
    fn garbled(&self, error: &(dyn Error + 'static)) -> Unanswered {
        let (at, error) = (self.socket.display(), plain::with_causes(error));
        self.process.unanswered(&format!("at {at} as it should ({error})"))
    }

    /// Sends a request, and waits at most `patience` for the beginning of the answer.
    async fn send(
        &self,
        patience: Duration,
        request: impl FnOnce(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, Unanswered> {
        let answered = tokio::select! {
            answered = sent(&self.socket, request) => Some(answered),
            () = tokio::time::sleep(patience) => None,
            () = self.process.until_stopped() => None,
        };
        let (at, pid) = (self.socket.display(), self.process.holder.pid);
        match answered {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) if is_forbidden(&*error) => Err(self.process.troubled(format!(
                "process {pid} answers only its own user: run this command as that user"
            ))),
            Some(Err(error)) => {
                Err(self.process.unanswered(&format!("at {at}: {}", plain::with_causes(&*error))))
            }
            None => {
                let seconds = patience.as_secs();
                Err(self.process.unanswered(&format!("at {at} within {seconds} s")))
            }
        }
    }
}

/// The beginning of the answer to a request to a socket.
async fn sent(
    socket: &Path,
    request: impl FnOnce(&reqwest::Client) -> RequestBuilder,
) -> Result<Response, Box<dyn Error + Send + Sync>> {
    let reach = SocketPath::to(socket)?;
    // No certificates: a machine may have none, and a socket needs none.
    let client = reqwest::Client::builder().unix_socket(reach.path()).tls_certs_only([]).build()?;
    Ok(request(&client).send().await?)
}

/// Asks a process that is known by its socket alone; `None` if it does not answer, or has no such path.
pub(super) async fn ask<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    is_order: bool,
) -> Option<T> {
    let asked = async {
        let method = if is_order { Method::POST } else { Method::GET };
        let answer = sent(socket, |client| client.request(method, url(path, &[]))).await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok()?
}

/// The address of a path of the interface.
fn url(path: &str, parameters: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("http://mirror{path}?{query}")
}

impl Process {
    /// The holder of the mirror's lock.
    pub fn new(mirror: &Path, holder: Holder) -> Self {
        Self { mirror: mirror.to_owned(), holder }
    }

    /// Who that is.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The process, if it says where it answers.
    pub fn answering(self) -> Result<Answering, Self> {
        match self.holder.socket.clone() {
            Some(socket) => Ok(Answering { process: self, socket }),
            None => Err(self),
        }
    }

    /// Ends when the process has been stopped for a while: it will not answer then.
    async fn until_stopped(&self) {
        const EVERY: Duration = Duration::from_millis(300);
        const LOOKS: usize = 4;
        let mut looks = 0;
        while looks < LOOKS {
            tokio::time::sleep(EVERY).await;
            looks = if self.stopped().is_some() { looks + 1 } else { 0 };
        }
    }

    /// What is said of a process that has not answered; `how` says where or how it was asked.
    pub fn unanswered(&self, how: &str) -> Unanswered {
        let pid = self.holder.pid;
        let trouble = self.stopped().unwrap_or_else(|| {
            format!(
                "process {pid} does not answer {how}: look at its log, or end it and start it again"
            )
        });
        self.troubled(trouble)
    }

    fn troubled(&self, trouble: String) -> Unanswered {
        Unanswered { mirror: self.mirror.clone(), holder: self.holder.clone().into(), trouble }
    }

    /// The trouble of a process that is stopped, without asking it; `None` if it runs.
    pub fn stopped(&self) -> Option<String> {
        let pid = self.holder.pid;
        let mine = Stat::of("self")?;
        // In a container the same number may belong to another process.
        let stat = Stat::of(&pid.to_string()).filter(|stat| stat.name == mine.name)?;
        let is_stopped = matches!(stat.state, 'T' | 't');
        is_stopped.then(|| {
            format!(
                "process {pid} is stopped (by SIGSTOP or a debugger): `kill -CONT {pid}` resumes it"
            )
        })
    }
}

/// Whether another user's socket was asked.
fn is_forbidden(error: &(dyn Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let mut kinds =
        causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.any(|kind| kind == io::ErrorKind::PermissionDenied)
}

/// What the kernel says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
}

impl Stat {
    fn of(process: &str) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{process}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// `123 (name) S …`; the name may hold anything, parentheses too.
    fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        Some(Self { name, state: after.trim_start().chars().next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_name_of_the_process() {
        let stat = Stat::parse("12 (a) (b) R) T 1 12 12\n").unwrap();
        assert_eq!(stat, Stat { name: "a) (b) R".to_owned(), state: 'T' });
        assert!(Stat::parse("").is_none());
        assert!(Stat::of("self").is_some_and(|own| own.state != 'T'));
    }
}
