//! Whether a server accepts the credentials of requests, and what its words say about them.
//!
//! Pure, except that it reads the clock.

use std::collections::HashMap;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use super::error::Error;
use super::scrub::Scrub;

/// The first pause after a refusal. With the later ones, there are fewer attempts in five minutes than
/// CouchDB counts as an attack.
pub(super) const FIRST_REFUSED: Duration = Duration::from_secs(30);

/// The longest pause.
pub(super) const LONGEST: Duration = Duration::from_secs(600);

/// What is known about the credentials of one client.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub secret: Option<SecretString>,
    /// The names and values of a session's cookies.
    pub cookies: Vec<(String, SecretString)>,
    /// Counts secrets and sessions.
    pub generation: u64,
    pub standing: Standing,
    /// Databases whose requests are refused though others are not.
    pub denied: HashMap<String, Denied>,
    /// The database whose request was refused last.
    pub culprit: Option<String>,
    pub scrub: Scrub,
}

#[derive(Clone, Debug)]
pub(super) struct Denied {
    pub error: Error,
    pub pause: Duration,
    pub until: Instant,
}

/// Whether the server accepts the credentials.
#[derive(Clone, Debug, Default)]
pub(super) enum Standing {
    /// It has not answered yet.
    #[default]
    Unknown,
    /// It accepted them, last at this moment if that was in this process.
    Accepted(Option<Instant>),
    /// It refuses them, and no further attempt is made.
    Refused(Error),
    /// It refuses them, and they are tried again after a pause.
    Waiting(Waiting),
}

#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub error: Error,
    pub pause: Duration,
    pub until: Instant,
    /// Whether a request that tries them again is under way.
    pub trying: bool,
    /// Whether they were accepted before.
    pub accepted: bool,
}

impl Current {
    pub fn deny(&mut self, path: &str, error: Error) -> Error {
        let name = database(path);
        let pause = self.denied.get(name).map_or(FIRST_REFUSED, |one| (one.pause * 2).min(LONGEST));
        let error = error.asking(pause);
        let denied = Denied { error: error.clone(), pause, until: Instant::now() + pause };
        self.denied.insert(name.to_owned(), denied);
        error
    }
}

/// Whether the server locks the user out for a while.
pub(super) fn is_locked(error: &Error) -> bool {
    let text = error.what().to_lowercase();
    matches!(error.status(), Some(401 | 403))
        && (text.contains("temporarily locked")
            || (text.contains("account") && text.contains("locked")))
}

/// Whether the server says that the user lacks the right to do this. It says the same to requests without
/// a user.
pub(super) fn is_about_rights(error: &Error) -> bool {
    let text = error.what().to_lowercase();
    match error.status() {
        Some(403) => !is_locked(error),
        Some(401) => text.contains("you are not authorized") || text.contains("you are not a "),
        _ => false,
    }
}

/// The first segment of a path.
pub(super) fn database(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}
