//! The file of tokens as a running agent knows it: it is read again when it has changed.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::tokens::{self, Stamp, Token, TokenError, stamp};

/// The tokens in a file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    stamp: Option<Stamp>,
    known: KnownTokens,
    /// Whether there was a file.
    had_one: bool,
}

/// What is known of the tokens.
#[derive(Clone, Debug)]
pub(super) enum KnownTokens {
    /// There is no file: nobody has made a token.
    NoFile,
    /// These. There may be none left.
    These(Arc<[Token]>),
    /// The file cannot be read.
    Unreadable,
}

impl TokenFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        let seen = Seen { stamp: None, known: KnownTokens::NoFile, had_one: false };
        Self { path, seen: Mutex::new(seen) }
    }

    /// What is in the file now.
    pub(super) async fn now(self: &Arc<Self>) -> KnownTokens {
        let this = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || this.look()).await;
        looked.unwrap_or(KnownTokens::Unreadable)
    }

    fn look(&self) -> KnownTokens {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match self.path.metadata() {
            Ok(found) => Some(stamp(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                let path = self.path.clone();
                return seen.fail(None, &TokenError::Io { path, what: "read", source });
            }
        };
        if found.is_some() && found == seen.stamp {
            return seen.known.clone();
        }
        match tokens::read_stamped(&self.path) {
            Ok(Some((tokens, stamp))) => {
                tracing::debug!("the file of tokens holds {} of them", tokens.len());
                let known = KnownTokens::These(tokens.into());
                *seen = Seen { stamp: Some(stamp), known, had_one: true };
            }
            // Who removes it, or unmounts its disk, does not let everybody in.
            Ok(None) if seen.had_one => seen.lose(),
            Ok(None) => {}
            // The same file may be readable at the next look.
            Err(error @ TokenError::Io { .. }) => return seen.fail(None, &error),
            Err(error) => return seen.fail(found, &error),
        }
        seen.known.clone()
    }
}

impl Seen {
    /// Notes that the file is gone, and logs it once.
    fn lose(&mut self) {
        if self.stamp.is_some() || !matches!(self.known, KnownTokens::These(_)) {
            tracing::error!(
                "the file of tokens is gone, so requests to an address are refused: make a token with \
                 `plainfold token add`, or start the agent again without one"
            );
        }
        *self = Self { stamp: None, known: KnownTokens::These(Arc::default()), had_one: true };
    }

    /// Notes that the file cannot be read, and logs it once.
    fn fail(&mut self, stamp: Option<Stamp>, error: &TokenError) -> KnownTokens {
        if !matches!(self.known, KnownTokens::Unreadable) || self.stamp != stamp {
            tracing::error!("requests to an address are refused: {error}");
        }
        *self = Self { stamp, known: KnownTokens::Unreadable, had_one: true };
        KnownTokens::Unreadable
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::api::role::Role;

    #[tokio::test]
    async fn a_token_that_is_added_or_removed_is_noticed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let file = Arc::new(TokenFile::new(path.clone()));
        assert!(matches!(file.now().await, KnownTokens::NoFile));
        let token = tokens::add(&path, "a".parse().unwrap(), Role::Read).unwrap();
        let is_known = async || match file.now().await {
            KnownTokens::These(all) => tokens::find(&all, token.expose_secret()).is_some(),
            other => panic!("{other:?}"),
        };
        assert!(is_known().await);
        assert!(is_known().await);
        tokens::remove(&path, &"a".parse().unwrap()).unwrap();
        assert!(!is_known().await);
        std::fs::write(&path, "no tokens").unwrap();
        assert!(matches!(file.now().await, KnownTokens::Unreadable));
        assert!(matches!(file.now().await, KnownTokens::Unreadable));
        std::fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            assert!(matches!(file.now().await, KnownTokens::These(all) if all.is_empty()));
        }
        tokens::add(&path, "b".parse().unwrap(), Role::Read).unwrap();
        assert!(matches!(file.now().await, KnownTokens::These(all) if all.len() == 1));
        let other = Arc::new(TokenFile::new(dir.path().join("none")));
        assert!(matches!(other.now().await, KnownTokens::NoFile));
    }
}
