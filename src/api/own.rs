//! The socket at which the process that works on a mirror answers for it.

use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::listen::Listener;
use crate::runner::Session;
use crate::tree::MirrorError;

/// Why requests cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The mirror on disk, or its own socket.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The socket that was named.
    #[error("the socket {} cannot be used: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// What answers requests about a mirror.
#[derive(Debug)]
pub struct MirrorAnswers {
    server: JoinHandle<()>,
    closing: CancellationToken,
}

impl MirrorAnswers {
    /// Answers requests about the mirror of a session at its own socket.
    pub async fn at_own_socket(session: &Session) -> Result<Self, MirrorError> {
        let path = session.socket_path();
        Self::at(session, &path).await.map_err(|error| match error {
            AnswerError::Mirror(error) => error,
            // Something else stands in its place, or its disk fails.
            AnswerError::Socket { path, source } => {
                MirrorError::io("bind the socket", path, source)
            }
        })
    }

    /// The same at the socket `path`, which other commands find.
    pub async fn at(session: &Session, path: &Path) -> Result<Self, AnswerError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let listener = match Listener::unix(&path, session.displaces(&path)?).await {
            Ok(listener) => listener,
            Err(source) => {
                // A process that has taken the mirror over answers there now.
                session.displaces(&path)?;
                return Err(AnswerError::Socket { path, source });
            }
        };
        session.announce(&path)?;
        let closing = CancellationToken::new();
        let closed = closing.clone().cancelled_owned();
        let watcher = session.watcher();
        let server = tokio::spawn(super::serve(listener, watcher, closed));
        Ok(Self { server, closing })
    }

    /// Answers what is being asked, and ends.
    pub async fn end(self) {
        self.closing.cancel();
        // It only ends.
        let _ended = self.server.await;
    }
}
